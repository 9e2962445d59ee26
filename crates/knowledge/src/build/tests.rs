//! Folders made, made again, and made with what was there before.

use super::*;
use crate::{
    artifact::{CARD, PASSAGES},
    load::InProcess,
    split::Characters,
};
use narthex_base::{
    License,
    config::{LoadLimits, OneOrMany, SplitSettings, SplitUnit},
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::PathBuf,
};

/// Counts what it is asked.
struct Counting {
    name: &'static str,
    width: usize,
    texts: Cell<usize>,
    calls: Cell<usize>,
}

impl Counting {
    fn new(name: &'static str, width: usize) -> Self {
        Self { name, width, texts: Cell::new(0), calls: Cell::new(0) }
    }
}

impl Embed for Counting {
    fn identity(&self) -> String {
        self.name.into()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn embed(&self, texts: &[&str], _: EmbedKind) -> Result<Vec<Vec<f32>>> {
        self.calls.set(self.calls.get() + 1);
        self.texts.set(self.texts.get() + texts.len());
        let vector = |text: &&str| {
            (0..self.width).map(|at| 1.0 + text.as_bytes().get(at).copied().unwrap_or(0) as f32).collect()
        };
        Ok(texts.iter().map(vector).collect())
    }
}

/// All files below a folder, as they are cited.
fn below(root: &Path, folder: &Path) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: PathBuf| {
        let name = format!("docs/{}", path.strip_prefix(root).unwrap().display());
        (path, name)
    };
    let found = |path: PathBuf| if path.is_dir() { below(root, &path) } else { vec![named(path)] };
    entries.flat_map(found).collect()
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        files.iter().for_each(|(name, text)| place.put(name, text.as_bytes()));
        place
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.folder.path().join("in").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join("in").join(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make(&self, out: &str, embed: Option<&Counting>, previous: Option<&str>) -> (Report, Vec<String>) {
        self.make_with(out, embed, previous, settings()).unwrap()
    }

    fn make_with(
        &self,
        out: &str,
        embed: Option<&Counting>,
        previous: Option<&str>,
        settings: KnowledgeStep,
    ) -> Result<(Report, Vec<String>)> {
        let source = Source {
            name: "handbook".into(),
            files: below(&self.path("in"), &self.path("in")),
            license: Some(License::parse("CC-BY-4.0").unwrap()),
            notices: vec!["© the authors".into()],
            origin: None,
        };
        let previous = previous.map(|name| self.path(name));
        let making = Making {
            settings: &settings,
            sources: &[source],
            measure: &Characters,
            embed: embed.map(|embed| embed as &dyn Embed),
            load: &InProcess,
            previous: previous.as_deref(),
        };
        let warnings = RefCell::new(Vec::new());
        let report = build(&making, &self.path(out), &|progress| {
            if let Progress::Warning(warning) = progress {
                warnings.borrow_mut().push(warning);
            }
            Ok(())
        })?;
        Ok((report, warnings.into_inner()))
    }

    fn bytes(&self, out: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.path(out)).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
    }

    fn passages(&self, out: &str) -> Vec<Passage> {
        let text = fs::read_to_string(self.path(out).join(PASSAGES)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn settings() -> KnowledgeStep {
    KnowledgeStep {
        split: SplitSettings { unit: SplitUnit::Characters, size: 20, overlap: 0 },
        ..KnowledgeStep::new(OneOrMany::One("handbook".into()))
    }
}

const FILES: [(&str, &str); 3] = [
    ("a.md", "# A\n\nfirst text here.\n\nsecond text here."),
    ("b/c.txt", "third text"),
    ("d.txt", "fourth\n\nthird text"),
];

#[test]
fn the_same_input_gives_the_same_bytes() {
    let place = Place::new(&FILES);
    let embed = Counting::new("e", 4);
    let (report, warnings) = place.make("one", Some(&embed), None);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!((report.card.passages, report.files_known, report.embedded), (4, 0, 4));
    place.make("two", Some(&embed), None);
    assert_eq!(place.bytes("one"), place.bytes("two"));
    assert_eq!(place.bytes("one").into_keys().collect::<Vec<_>>(), [CARD, PASSAGES, VECTORS]);
    let passages = place.passages("one");
    let cited: Vec<String> = passages.iter().map(Passage::citation).collect();
    assert_eq!(cited, ["docs/a.md:3", "docs/a.md:5", "docs/b/c.txt:1", "docs/d.txt:1-3"]);
    assert_eq!(passages[1].indexed_text(), "A\n\nsecond text here.");
    for passage in &passages {
        let file = place.path("in").join(passage.file.strip_prefix("docs/").unwrap());
        assert_eq!(passage.digest, Digest::of(&fs::read(file).unwrap()));
        assert_eq!(passage.license.as_ref().unwrap().as_str(), "CC-BY-4.0");
    }
    assert_eq!(report.card.sources[0].notices, ["© the authors"]);
}

#[test]
fn what_has_not_changed_is_taken_over() {
    let place = Place::new(&FILES);
    place.make("one", Some(&Counting::new("e", 4)), None);
    let embed = Counting::new("e", 4);
    let (report, _) = place.make("two", Some(&embed), Some("one"));
    assert_eq!((embed.calls.get(), report.embedded, report.files_known), (0, 0, 3));
    assert_eq!(place.bytes("one"), place.bytes("two"));
    // A file goes, one comes, one changes in one paragraph, one moves.
    place.remove("d.txt");
    place.put("e.txt", b"fifth text");
    place.put("a.md", b"# A\n\nfirst text here.\n\nanother text is.");
    place.remove("b/c.txt");
    place.put("z.txt", b"third text");
    let (report, _) = place.make("three", Some(&embed), Some("two"));
    assert_eq!((embed.texts.get(), report.embedded, report.files_known), (2, 2, 1));
    let texts: Vec<String> = place.passages("three").into_iter().map(|passage| passage.text).collect();
    assert_eq!(texts, ["first text here.", "another text is.", "fifth text", "third text"]);
    assert_eq!(place.passages("three")[3].file, "docs/z.txt");
    place.make("fresh", Some(&embed), None);
    assert_eq!(place.bytes("three"), place.bytes("fresh"));
}

#[test]
fn what_has_changed_is_made_anew() {
    let place = Place::new(&FILES);
    place.make("one", Some(&Counting::new("e", 4)), None);
    let other = |size| KnowledgeStep { split: SplitSettings { size, ..settings().split }, ..settings() };
    for (embed, settings, expected) in [
        // Another encoder: files are known, vectors are not.
        (Counting::new("f", 4), settings(), (3, 4)),
        (Counting::new("e", 3), settings(), (3, 4)),
        // Other passages: texts that are the same keep their vectors.
        (Counting::new("e", 4), other(40), (0, 1)),
        // How files are read does not change what was read.
        (
            Counting::new("e", 4),
            KnowledgeStep { limits: LoadLimits { depth_max: 9, ..LoadLimits::default() }, ..settings() },
            (3, 0),
        ),
    ] {
        let out = format!("{} {} {}", embed.name, embed.width, settings.split.size + settings.limits.depth_max);
        let (report, warnings) = place.make_with(&out, Some(&embed), Some("one"), settings).unwrap();
        assert_eq!((report.files_known, report.embedded), expected, "{out}");
        assert!(warnings.is_empty());
    }
    fs::write(place.path("one").join(PASSAGES), "{}").unwrap();
    let (report, warnings) = place.make("again", Some(&Counting::new("e", 4)), Some("one"));
    assert_eq!((report.files_known, report.embedded), (0, 4));
    assert!(warnings[0].contains("all is made anew"), "{warnings:?}");
}

#[test]
fn a_graph_is_taken_over() {
    let place = Place::new(&FILES);
    let settings = || KnowledgeStep { exact_vectors_max: 2, ..settings() };
    let embed = Counting::new("e", 4);
    place.make_with("one", Some(&embed), None, settings()).unwrap();
    assert!(place.bytes("one").contains_key(GRAPH));
    place.make_with("two", Some(&embed), Some("one"), settings()).unwrap();
    assert_eq!(place.bytes("one"), place.bytes("two"));
    fs::write(place.path("two").join(GRAPH), b"damaged").unwrap();
    place.make_with("three", Some(&embed), Some("two"), settings()).unwrap();
    assert_eq!(place.bytes("one"), place.bytes("three"));
    place.put("e.txt", b"fifth text");
    place.make_with("four", Some(&embed), Some("three"), settings()).unwrap();
    place.make_with("five", Some(&embed), None, settings()).unwrap();
    assert_eq!(place.bytes("four"), place.bytes("five"));
}

#[test]
fn texts_that_repeat_are_embedded_once() {
    let files: Vec<(String, &str)> =
        (0..200).map(|n| (format!("{n}.txt"), if n % 2 == 0 { "even" } else { "odd" })).collect();
    let place = Place::new(&files.iter().map(|(name, text)| (name.as_str(), *text)).collect::<Vec<_>>());
    let embed = Counting::new("e", 2);
    let (report, _) = place.make("one", Some(&embed), None);
    assert_eq!((report.card.passages, embed.texts.get(), embed.calls.get()), (200, 2, 1));
    let vectors = vectors::Vectors::open(&place.path("one").join(VECTORS)).unwrap();
    let rows = vectors.rows();
    for (id, passage) in (0..).zip(place.passages("one")) {
        let first = if passage.text == "even" { 0 } else { 1 };
        assert_eq!(rows.get(id), rows.get(first), "{id}");
    }
    assert_ne!(rows.get(0), rows.get(1));
}

#[test]
fn bad_files_are_left_out() {
    let place = Place::new(&FILES);
    place.put("bad.txt", b"a\nb\xff");
    place.put("large.txt", &[b'x'; 300]);
    place.put("bad.docx", b"nothing");
    place.put("photo.jpg", b"\xff");
    let settings = KnowledgeStep { limits: LoadLimits { file_bytes_max: 200, ..LoadLimits::default() }, ..settings() };
    let (report, warnings) = place.make_with("one", None, None, settings).unwrap();
    assert_eq!(report.card.passages, 4);
    let left_out: Vec<(&str, &str)> =
        report.card.left_out.iter().map(|left_out| (left_out.file.as_str(), left_out.why.as_str())).collect();
    assert_eq!(left_out.len(), 4, "{left_out:?}");
    for (file, why) in [
        ("docs/bad.docx", "DOCX"),
        ("docs/bad.txt", "line 2 is not UTF-8"),
        ("docs/photo.jpg", "no text, Markdown"),
        ("docs/large.txt", "more than `limits.file_bytes_max = 200`"),
    ] {
        let found = left_out.iter().find(|(name, _)| *name == file).unwrap();
        assert!(found.1.contains(why), "{found:?}");
        assert!(warnings.iter().any(|warning| warning.starts_with(&format!("{file} is left out: "))), "{warnings:?}");
    }
    assert!(!place.path("one").join(VECTORS).exists());
}

#[test]
fn what_cannot_be_made() {
    let place = Place::new(&[("a.txt", "")]);
    let fails = |out: &str, embed: Option<&Counting>, settings: KnowledgeStep, expected: &str| {
        let error = place.make_with(out, embed, None, settings).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}, not {expected}");
    };
    fails("one", None, settings(), "no text was found in `handbook`");
    place.put("b.txt", b"\xff");
    fails("two", None, settings(), "docs/b.txt: line 1 is not UTF-8");
    place.put("c.txt", b"text");
    fails("in", None, settings(), "not empty");
    fails("three", None, KnowledgeStep { include: vec!["[".into()], ..settings() }, "not a glob");

    struct Liar(Vec<Vec<f32>>);
    impl Embed for Liar {
        fn identity(&self) -> String {
            "liar".into()
        }
        fn width(&self) -> usize {
            2
        }
        fn embed(&self, _: &[&str], _: EmbedKind) -> Result<Vec<Vec<f32>>> {
            Ok(self.0.clone())
        }
    }
    for (number, (vectors, expected)) in
        [(vec![], "0 vectors for 1 texts"), (vec![vec![1.0]], "1 numbers, but said 2"), (vec![vec![0.0; 2]], "zero")]
            .into_iter()
            .enumerate()
    {
        let liar = Liar(vectors);
        let settings = settings();
        let source = Source {
            name: "s".into(),
            files: vec![(place.path("in/c.txt"), "c.txt".into())],
            license: None,
            notices: vec![],
            origin: None,
        };
        let making = Making {
            settings: &settings,
            sources: &[source],
            measure: &Characters,
            embed: Some(&liar),
            load: &InProcess,
            previous: None,
        };
        let out = place.path(&format!("liar {number}"));
        let error = build(&making, &out, &|_| Ok(())).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        // What is not finished has no card, so nobody takes it for knowledge.
        assert!(!out.join(CARD).exists());
        let stopped = build(&making, &place.path(&format!("stopped {number}")), &|_| Err(Error::interrupted("stop")));
        assert_eq!(stopped.unwrap_err().exit_code(), 130);
    }
}
