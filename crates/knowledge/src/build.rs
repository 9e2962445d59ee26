//! Sources to the folder of an artifact. What a former folder knows of the same files and texts is taken over. It
//! writes below one folder, its card last; whoever asked commits the folder. Knows neither how passages are found nor
//! where sources come from.

use crate::{
    artifact::{Card, CardFile, CardSource, Encoder, GRAPH, LeftOut, PASSAGES_MAX, PassagesWriter, VECTORS},
    embed::{Embed, EmbedKind},
    graph::Graph,
    kind::FileKind,
    load::{LOAD_VERSION, Load},
    passage::Passage,
    place::Place,
    previous::Previous,
    source::{Source, SourceFile, Wanted, files},
    split::{Measure, SPLIT_VERSION, split},
    vectors::{self, Rows, normalize},
};
use narthex_base::{Digest, Error, Result, config::KnowledgeStep};
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::Read,
    path::Path,
};

/// Texts that are given to the encoder at once.
pub const EMBED_BATCH: usize = 64;

/// Why a file is left out that is of none of the kinds.
const UNREAD: &str = "it is no text, Markdown, HTML, PDF or DOCX: .txt, .md, .html, .pdf, .docx";

/// What knowledge is made of.
pub struct Making<'a> {
    /// What is asked of it.
    pub settings: &'a KnowledgeStep,
    /// The sources that it names.
    pub sources: &'a [Source],
    /// Measures passages.
    pub measure: &'a dyn Measure,
    /// Makes vectors; without it, passages are found by words alone.
    pub embed: Option<&'a dyn Embed>,
    /// Reads files.
    pub load: &'a dyn Load,
    /// The folder that was made before, to take over what has not changed. If it cannot be read, all is made anew.
    pub previous: Option<&'a Path>,
}

/// How far the making has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Files were read and cut, of so many; passages so far have their vectors but for the last few.
    Files {
        /// Files read.
        done: u64,
        /// Files in all.
        total: u64,
        /// Passages so far.
        passages: u64,
    },
    /// Vectors were linked, of so many.
    Linked {
        /// Linked.
        done: u64,
        /// In all.
        total: u64,
    },
    /// Something the user should know; work goes on.
    Warning(String),
}

/// What was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What is in the folder.
    pub card: Card,
    /// Files that were taken over from before.
    pub files_known: u64,
    /// Passages that were given to the encoder.
    pub embedded: u64,
}

/// Makes knowledge in `out`, which is empty or not there. An error of the observer ends the making: that is how to
/// interrupt it.
///
/// # Errors
/// If a glob is none, no passage comes out, the encoder gives up, or `out` cannot
/// be written. A file that cannot be used is none: it is left out with a warning.
pub fn build(making: &Making, out: &Path, observer: &dyn Fn(Progress) -> Result<()>) -> Result<Report> {
    empty_folder(out)?;
    let wanted = Wanted::new(&making.settings.include, &making.settings.exclude)?;
    let cut = Digest::of_json(&(LOAD_VERSION, SPLIT_VERSION, &making.settings.split, making.measure.identity()));
    let encoder = making.embed.map(|embed| Encoder { identity: embed.identity(), width: embed.width() });
    let mut card = Card::new(making.settings.clone(), cut, encoder);
    let previous = match making.previous.map(|folder| Previous::open(folder, &card)) {
        Some(Ok(previous)) => previous,
        Some(Err(error)) => {
            let why = error.what();
            observer(Progress::Warning(format!("what was made before cannot be read, all is made anew: {why}")))?;
            Previous::default()
        }
        None => Previous::default(),
    };
    let mut listed = Vec::new();
    let mut names = BTreeSet::new();
    for (number, source) in making.sources.iter().enumerate() {
        card.sources.push(CardSource {
            name: source.name.clone(),
            license: source.license.clone(),
            notices: source.notices.clone(),
            origin: source.origin.clone(),
        });
        let (files, unread) = files(source, &wanted);
        for file in unread {
            observer(Progress::Warning(format!("{file} is left out: {UNREAD}")))?;
            card.left_out.push(LeftOut { file, why: UNREAD.into() });
        }
        for file in files {
            match names.insert(file.name.clone()) {
                true => listed.push((number, file)),
                false => observer(Progress::Warning(format!(
                    "{} of source `{}` is left out: an earlier source has a file of that name",
                    file.name, source.name
                )))?,
            }
        }
    }
    let mut work = Work {
        making,
        previous,
        passages: PassagesWriter::create(out)?,
        rows: VectorRows::new(making.embed),
        card,
        files_known: 0,
    };
    let total = listed.len() as u64;
    for (done, (source, file)) in (1..).zip(&listed) {
        let heard = |passages: u32| observer(Progress::Files { done: done - 1, total, passages: passages.into() });
        if let Some(warning) = work.file(*source, file, &heard)? {
            observer(Progress::Warning(warning))?;
        }
        observer(Progress::Files { done, total, passages: work.card.passages.into() })?;
    }
    work.finish(out, observer)
}

/// # Errors
/// If it holds anything: what is made must be all that is in it.
fn empty_folder(out: &Path) -> Result<()> {
    fs::create_dir_all(out).map_err(|error| Error::io("cannot write", out, error))?;
    let mut entries = fs::read_dir(out).map_err(|error| Error::io("cannot read", out, error))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::input("the folder for the knowledge is not empty").at(out.display(), None)),
    }
}

/// A passage before it has a number and a file.
struct Cut {
    text: String,
    place: Place,
    headings: Vec<String>,
}

struct Work<'a> {
    making: &'a Making<'a>,
    previous: Previous,
    passages: PassagesWriter,
    rows: VectorRows<'a>,
    card: Card,
    files_known: u64,
}

impl Work<'_> {
    /// Takes a file; `heard` hears of its passages now and then. What comes back is the warning that it is left out.
    fn file(&mut self, source: usize, file: &SourceFile, heard: &dyn Fn(u32) -> Result<()>) -> Result<Option<String>> {
        let (bytes, digest, cuts) = match self.read(file) {
            Ok(read) => read,
            Err(error) => {
                let why = in_one_line(&error);
                let warning = format!("{} is left out: {why}", file.name);
                self.card.left_out.push(LeftOut { file: file.name.clone(), why });
                return Ok(Some(warning));
            }
        };
        let first = self.card.passages;
        let fits = u32::try_from(cuts.len()).ok().and_then(|count| first.checked_add(count));
        let Some(end) = fits.filter(|end| *end <= PASSAGES_MAX) else {
            return Err(Error::input(format!("there are more than {PASSAGES_MAX} passages"))
                .help("use a larger `split.size`, or make several knowledges"));
        };
        for (id, Cut { text, place, headings }) in (first..).zip(cuts) {
            let license = self.making.sources[source].license.clone();
            let passage = Passage { id, file: file.name.clone(), digest, place, headings, license, text };
            self.rows.push(passage.indexed_text(), &self.previous)?;
            self.passages.write(&passage)?;
            if (id - first) as usize % EMBED_BATCH == EMBED_BATCH - 1 {
                heard(id + 1)?;
            }
        }
        let (name, kind) = (file.name.clone(), file.kind);
        self.card.files.push(CardFile { name, source, kind, bytes, digest, first, passages: end - first });
        self.card.passages = end;
        Ok(None)
    }

    /// Size, digest and passages of a file.
    fn read(&mut self, file: &SourceFile) -> Result<(u64, Digest, Vec<Cut>)> {
        let limits = &self.making.settings.limits;
        let fail = |error| Error::io("cannot read", &file.path, error);
        let mut bytes = Vec::new();
        // One byte more than allowed says that there are more, however many.
        let opened = fs::File::open(&file.path).map_err(fail)?;
        opened.take(limits.file_bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(fail)?;
        let digest = Digest::of(&bytes);
        let fits = bytes.len() as u64 <= limits.file_bytes_max;
        let known = if fits { self.previous.passages(digest, file.kind)? } else { None };
        let cuts = match known {
            Some(passages) => {
                self.files_known += 1;
                passages
                    .into_iter()
                    .map(|Passage { text, place, headings, .. }| Cut { text, place, headings })
                    .collect()
            }
            None => self.cut(file.kind, &bytes)?,
        };
        Ok((bytes.len() as u64, digest, cuts))
    }

    fn cut(&self, kind: FileKind, bytes: &[u8]) -> Result<Vec<Cut>> {
        let document = self.making.load.load(kind, bytes, &self.making.settings.limits)?;
        // It may come from another process, which read what a stranger wrote.
        document.check()?;
        let pieces = split(&document, &self.making.settings.split, self.making.measure)?;
        Ok(pieces
            .into_iter()
            .map(|piece| Cut { text: piece.text, place: piece.place, headings: piece.headings })
            .collect())
    }

    fn finish(mut self, out: &Path, observer: &dyn Fn(Progress) -> Result<()>) -> Result<Report> {
        if self.card.passages == 0 {
            let names: Vec<&str> = self.making.sources.iter().map(|source| source.name.as_str()).collect();
            let error = Error::input(format!("no text was found in `{}`", names.join("`, `")))
                .help("text, Markdown, HTML, PDF and DOCX are read: .txt, .md, .html, .pdf, .docx");
            return Err(match self.card.left_out.first() {
                Some(LeftOut { file, why }) => error.cause(format!("{file}: {why}")),
                None => error,
            });
        }
        self.card.passages_digest = self.passages.finish()?;
        let (numbers, embedded) = self.rows.finish()?;
        if let Some(encoder) = &self.card.encoder {
            let rows = Rows { numbers: &numbers, width: encoder.width };
            let digest = vectors::write(&out.join(VECTORS), rows)?;
            self.card.vectors_digest = Some(digest);
            self.card.graph = rows.count() > self.making.settings.exact_vectors_max;
            if self.card.graph {
                let total = rows.count().into();
                let linked = |done: u32| observer(Progress::Linked { done: done.into(), total });
                // One that cannot be read is made anew.
                let graph = match self.previous.graph(digest) {
                    Ok(Some(graph)) => graph,
                    _ => Graph::build(rows, &linked)?,
                };
                graph.write(&out.join(GRAPH))?;
            }
        }
        self.card.write(out)?;
        Ok(Report { card: self.card, files_known: self.files_known, embedded })
    }
}

/// What is wrong, why, and what to do, as warnings are: in one line.
fn in_one_line(error: &Error) -> String {
    let causes = error.causes().iter().map(|cause| format!(": {cause}"));
    let help = error.help_text().map(|help| format!("; {help}"));
    let parts = std::iter::once(error.what().to_string()).chain(causes).chain(help);
    parts.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The vectors of passages in their order, each text embedded once.
struct VectorRows<'a> {
    embed: Option<&'a dyn Embed>,
    width: usize,
    numbers: Vec<f32>,
    /// The first row of each text.
    known: HashMap<Digest, u32>,
    /// Rows that repeat an earlier one, which may not have its vector yet.
    repeats: Vec<(u32, u32)>,
    waiting: Vec<(u32, String)>,
    rows: u32,
    embedded: u64,
}

impl<'a> VectorRows<'a> {
    fn new(embed: Option<&'a dyn Embed>) -> Self {
        Self {
            embed,
            width: embed.map_or(0, Embed::width),
            numbers: vec![],
            known: HashMap::new(),
            repeats: vec![],
            waiting: vec![],
            rows: 0,
            embedded: 0,
        }
    }

    fn push(&mut self, text: String, previous: &Previous) -> Result<()> {
        if self.embed.is_none() {
            return Ok(());
        }
        let row = self.rows;
        self.rows += 1;
        let digest = Digest::of(text.as_bytes());
        self.numbers.resize(self.rows as usize * self.width, 0.0);
        if let Some(first) = self.known.get(&digest) {
            self.repeats.push((row, *first));
            return Ok(());
        }
        self.known.insert(digest, row);
        if let Some(vector) = previous.vector(digest) {
            self.row_mut(row).copy_from_slice(vector);
            return Ok(());
        }
        self.waiting.push((row, text));
        match self.waiting.len() < EMBED_BATCH {
            true => Ok(()),
            false => self.embed_waiting(),
        }
    }

    fn row_mut(&mut self, row: u32) -> &mut [f32] {
        let start = row as usize * self.width;
        &mut self.numbers[start..start + self.width]
    }

    fn embed_waiting(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let (Some(embed), false) = (self.embed, waiting.is_empty()) else { return Ok(()) };
        let texts: Vec<&str> = waiting.iter().map(|(_, text)| text.as_str()).collect();
        let vectors = embed.embed(&texts, EmbedKind::Passage)?;
        if vectors.len() != texts.len() {
            let (given, asked) = (vectors.len(), texts.len());
            return Err(Error::input(format!("the encoder gave {given} vectors for {asked} texts")));
        }
        self.embedded += texts.len() as u64;
        for ((row, _), mut vector) in waiting.iter().zip(vectors) {
            normalize(&mut vector, self.width)?;
            self.row_mut(*row).copy_from_slice(&vector);
        }
        Ok(())
    }

    /// All vectors, one behind the other, and how many texts the encoder saw.
    fn finish(mut self) -> Result<(Vec<f32>, u64)> {
        self.embed_waiting()?;
        for (row, first) in std::mem::take(&mut self.repeats) {
            let start = first as usize * self.width;
            self.numbers.copy_within(start..start + self.width, row as usize * self.width);
        }
        Ok((self.numbers, self.embedded))
    }
}

#[cfg(test)]
mod tests;
