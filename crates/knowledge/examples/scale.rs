//! How long many passages take: `scale [COUNT] [WIDTH] [EXACT_MAX] [clouds]`. Words are drawn by Zipf's law, vectors
//! at random (or in clouds, as those of texts are), all from one seed; the encoder costs nothing. Prints times, sizes
//! and memory.

use narthex_base::{
    Error, Result,
    config::{KnowledgeStep, OneOrMany, SearchMode, SearchSettings, SplitSettings, SplitUnit},
    random::Stream,
};
use narthex_knowledge::{Characters, Embed, EmbedKind, InProcess, Knowledge, Making, SearchOptions, Source, build};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

const VOCABULARY: usize = 50_000;
const WORDS_PER_PASSAGE: u64 = 120;
const PASSAGES_PER_FILE: u64 = 100;
const QUESTIONS: u64 = 300;
const CLOUDS: u64 = 1000;

struct Random {
    width: usize,
    clouds: bool,
}

impl Embed for Random {
    fn identity(&self) -> String {
        "random".into()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn embed(&self, texts: &[&str], _: EmbedKind) -> Result<Vec<Vec<f32>>> {
        let vector = |text: &&str| {
            let number = u64::from_str_radix(&blake_like(text), 16).unwrap_or(0);
            let own = Stream::new(1, "own").at(number);
            let centre = Stream::new(1, "centre").at(number % CLOUDS);
            let share = if self.clouds { 1.0 } else { 0.0 };
            (0..self.width as u64).map(|at| share * centre.normal(at) + own.normal(at)).collect()
        };
        Ok(texts.iter().map(vector).collect())
    }
}

fn blake_like(text: &str) -> String {
    narthex_base::Digest::of(text.as_bytes()).to_string()[..15].to_string()
}

/// Words by Zipf's law: the n-th word comes 1 / n as often as the first.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new() -> Self {
        let mut sum = 0.0;
        Self(
            (1..=VOCABULARY)
                .map(|rank| {
                    sum += 1.0 / rank as f64;
                    sum
                })
                .collect(),
        )
    }

    fn word(&self, stream: Stream, at: u64) -> String {
        let drawn = stream.uniform_f64(at) * self.0[VOCABULARY - 1];
        let rank = self.0.partition_point(|sum| *sum < drawn);
        // Syllables, so that stemming has something to look at.
        let mut word = String::new();
        let mut rest = rank + 21;
        while rest > 0 {
            word.push(char::from(b"bdfgklmnprstvz"[rest % 14]));
            rest /= 14;
            word.push(char::from(b"aeiou"[rest % 5]));
            rest /= 5;
        }
        word
    }

    fn text(&self, stream: Stream, words: u64) -> String {
        (0..words).map(|at| self.word(stream, at)).collect::<Vec<_>>().join(" ")
    }
}

fn memory_mib(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (count, width, exact_max) = (number(0, 100_000), number(1, 384), number(2, 200_000));
    let embed = Random { width: width as usize, clouds: arguments.iter().any(|argument| argument == "clouds") };
    let folder = std::env::temp_dir().join(format!("narthex-scale-{}", std::process::id()));
    let input = folder.join("in");
    let fail = |error| Error::io("cannot write", &folder, error);
    std::fs::create_dir_all(&input).map_err(fail)?;
    let zipf = Zipf::new();
    let stream = Stream::new(7, "scale");
    for file in 0..count.div_ceil(PASSAGES_PER_FILE) {
        let passages =
            (0..PASSAGES_PER_FILE).map(|at| zipf.text(stream.at(file * PASSAGES_PER_FILE + at), WORDS_PER_PASSAGE));
        let text = passages.map(|text| format!("# P\n\n{text}\n\n")).collect::<String>();
        std::fs::write(input.join(format!("{file:06}.md")), text).map_err(fail)?;
    }
    measure(&folder, &zipf, &embed, exact_max as u32)?;
    std::fs::remove_dir_all(&folder).map_err(fail)
}

fn measure(folder: &Path, zipf: &Zipf, embed: &Random, exact_vectors_max: u32) -> Result<()> {
    let settings = KnowledgeStep {
        split: SplitSettings { unit: SplitUnit::Characters, size: 100_000, overlap: 0 },
        exact_vectors_max,
        ..KnowledgeStep::new(OneOrMany::One("in".into()))
    };
    let source = Source {
        name: "in".into(),
        files: files_in(&folder.join("in"))?,
        license: None,
        notices: vec![],
        origin: None,
    };
    let sources = [source];
    let timed = |name: &str, begin: Instant| println!("{name}: {:.2} s", begin.elapsed().as_secs_f64());
    let out = folder.join("out");
    let mut making = Making {
        settings: &settings,
        sources: &sources,
        measure: &Characters,
        embed: Some(embed),
        load: &InProcess,
        previous: None,
    };
    let begin = Instant::now();
    let report = build(&making, &out, &|_| Ok(()))?;
    timed(&format!("build of {} passages (with drawing vectors)", report.card.passages), begin);
    let again = folder.join("again");
    making.previous = Some(&out);
    let begin = Instant::now();
    let report = build(&making, &again, &|_| Ok(()))?;
    timed(&format!("build with nothing changed ({} embedded)", report.embedded), begin);
    for file in std::fs::read_dir(&out).into_iter().flatten().flatten() {
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        println!("{:?}: {:.1} MiB", file.file_name(), bytes as f64 / f64::from(1 << 20));
    }
    let before = memory_mib("VmRSS");
    let begin = Instant::now();
    let knowledge = Knowledge::open(&out)?;
    timed("open, index of words in memory", begin);
    println!("memory: {before} MiB before, {} MiB after, {} MiB at most", memory_mib("VmRSS"), memory_mib("VmHWM"));
    drop(knowledge);
    let cache = folder.join("cache");
    let begin = Instant::now();
    drop(Knowledge::open_cached(&out, &cache)?);
    timed("open, index of words made on disk", begin);
    let begin = Instant::now();
    let knowledge = Knowledge::open_cached(&out, &cache)?;
    timed("open, index of words on disk already", begin);
    println!("memory: {} MiB", memory_mib("VmRSS"));
    for (mode, name) in [(SearchMode::Words, "words"), (SearchMode::Vectors, "vectors"), (SearchMode::Hybrid, "hybrid")]
    {
        let mut times = Vec::new();
        for question in 0..QUESTIONS {
            let question = zipf.text(Stream::new(9, "questions").at(question), 8);
            let settings = SearchSettings { mode, ..SearchSettings::default() };
            let options = SearchOptions { settings, files: vec![], embed: Some(embed), rerank: None };
            let begin = Instant::now();
            knowledge.search(&question, &options)?;
            times.push(begin.elapsed().as_secs_f64() * 1000.0);
        }
        times.sort_by(f64::total_cmp);
        let at = |part: usize| times[(times.len() - 1) * part / 100];
        println!("search by {name}: p50 {:.2} ms, p99 {:.2} ms", at(50), at(99));
    }
    if !knowledge.card().graph {
        return Ok(());
    }
    let exact_settings = KnowledgeStep { exact_vectors_max: u32::MAX, ..settings.clone() };
    let exact = folder.join("exact");
    build(&Making { settings: &exact_settings, ..making }, &exact, &|_| Ok(()))?;
    let exact = Knowledge::open_cached(&exact, &cache)?;
    let mut hits = 0;
    for question in 0..QUESTIONS {
        // Of a passage there is: what is near to it is what a question finds.
        let question = knowledge.passage((question * 331 % u64::from(report.card.passages)) as u32)?.indexed_text();
        let ask = |knowledge: &Knowledge| -> Result<Vec<u32>> {
            let settings = SearchSettings { mode: SearchMode::Vectors, limit: 10, candidates: 10 };
            let options = SearchOptions { settings, files: vec![], embed: Some(embed), rerank: None };
            Ok(knowledge.search(&question, &options)?.iter().map(|found| found.passage.id).collect())
        };
        let found = ask(&knowledge)?;
        hits += ask(&exact)?.iter().filter(|id| found.contains(id)).count();
    }
    println!("graph: {hits} of {} of the nearest ten are found", QUESTIONS * 10);
    Ok(())
}

/// The files of a folder, as they are cited.
fn files_in(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let fail = |error| Error::io("cannot read", folder, error);
    let named = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.map_err(fail)?;
        Ok((entry.path(), entry.file_name().to_string_lossy().into_owned()))
    };
    std::fs::read_dir(folder).map_err(fail)?.map(named).collect()
}
