//! Small knowledge, asked in all ways.

use super::*;
use crate::{
    build::{Making, build},
    load::InProcess,
    source::Source,
    split::Characters,
};
use narthex_base::config::{KnowledgeStep, OneOrMany};

/// Knows three things, and words for them that are not the same.
struct Meaning;

impl Embed for Meaning {
    fn identity(&self) -> String {
        "meaning".into()
    }

    fn width(&self) -> usize {
        4
    }

    fn embed(&self, texts: &[&str], _: EmbedKind) -> Result<Vec<Vec<f32>>> {
        let things = [&["cat", "feline", "kitten"][..], &["car", "automobile"], &["bread", "loaf"]];
        let vector = |text: &&str| {
            let count = |words: &&[&str]| words.iter().map(|word| text.matches(word).count()).sum::<usize>() as f32;
            things.iter().map(count).chain([0.1]).collect()
        };
        Ok(texts.iter().map(vector).collect())
    }
}

struct ByLength;

impl Rerank for ByLength {
    fn scores(&self, _: &str, passages: &[&str]) -> Result<Vec<f32>> {
        Ok(passages.iter().map(|passage| passage.len() as f32).collect())
    }
}

struct Silent;

impl Rerank for Silent {
    fn scores(&self, _: &str, _: &[&str]) -> Result<Vec<f32>> {
        Ok(vec![])
    }
}

const FILES: [(&str, &str); 5] = [
    ("animals/a.txt", "the cat sleeps"),
    ("animals/b.txt", "a feline friend, and the kitten"),
    ("things/c.txt", "an automobile drives"),
    ("things/d.txt", "bread with a cat on it"),
    ("e.txt", "nothing of the kind"),
];

fn made(embed: Option<&dyn Embed>, exact_vectors_max: u32) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in FILES {
        let path = folder.path().join("in").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let settings = KnowledgeStep { exact_vectors_max, ..KnowledgeStep::new(OneOrMany::One("in".into())) };
    let source = Source {
        name: "in".into(),
        files: FILES.map(|(name, _)| (folder.path().join("in").join(name), name.to_string())).into(),
        license: None,
        notices: vec![],
        origin: None,
    };
    let making = Making {
        settings: &settings,
        sources: &[source],
        measure: &Characters,
        embed,
        load: &InProcess,
        previous: None,
    };
    let out = folder.path().join("out");
    build(&making, &out, &|_| Ok(())).unwrap();
    (folder, out)
}

fn options<'a>(mode: SearchMode, files: &[&str], rerank: Option<&'a dyn Rerank>) -> SearchOptions<'a> {
    SearchOptions {
        settings: SearchSettings { mode, limit: 3, candidates: 10 },
        files: files.iter().map(|glob| glob.to_string()).collect(),
        embed: Some(&Meaning),
        rerank,
    }
}

fn names(found: &[Found]) -> String {
    found.iter().map(|found| found.passage.file.rsplit('/').next().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn modes_filters_and_reranking() {
    use SearchMode::{Hybrid, Vectors, Words};
    // With a graph or without, few vectors are all found.
    for exact_vectors_max in [100, 2] {
        let (_folder, out) = made(Some(&Meaning), exact_vectors_max);
        assert_eq!(out.join(GRAPH).exists(), exact_vectors_max == 2);
        let knowledge = Knowledge::open(&out).unwrap();
        for (question, mode, files, rerank, expected) in [
            ("cat", Words, &[][..], None, "a.txt d.txt"),
            ("kitten", Words, &[], None, "b.txt"),
            ("cat", Vectors, &[], None, "a.txt b.txt d.txt"),
            ("car", Vectors, &["things/*"], None, "c.txt d.txt"),
            ("cat", Hybrid, &[], None, "a.txt d.txt b.txt"),
            ("cat", Hybrid, &["animals/**"], None, "a.txt b.txt"),
            ("cat", Hybrid, &["none/**"], None, ""),
            ("cat", Hybrid, &["things/d.txt"], None, "d.txt"),
            ("cat", Words, &[], Some(&ByLength as &dyn Rerank), "d.txt a.txt"),
            ("zebra", Words, &[], None, ""),
        ] {
            let found = knowledge.search(question, &options(mode, files, rerank)).unwrap();
            assert_eq!(names(&found), expected, "{question} {mode:?} {files:?}");
            assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
        }
        let found = knowledge.search("cat", &options(Hybrid, &[], None)).unwrap();
        assert_eq!((found[0].bm25_rank, found[0].vector_rank), (Some(1), Some(1)));
        assert_eq!((found[2].bm25_rank, found[2].vector_rank), (None, Some(2)));
        assert!((found[0].score - 2.0 / 61.0).abs() < 1e-6);
    }
}

#[test]
fn many_threads_may_ask() {
    fn shared<T: Send + Sync>() {}
    shared::<Knowledge>();
}

#[test]
fn what_cannot_be_asked() {
    let (_folder, out) = made(Some(&Meaning), 100);
    let knowledge = Knowledge::open(&out).unwrap();
    let fails = |knowledge: &Knowledge, question: &str, options: &SearchOptions, expected: &str| {
        let error = knowledge.search(question, options).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}, not {expected}");
    };
    let hybrid = |files: &[&str]| options(SearchMode::Hybrid, files, None);
    fails(&knowledge, &"x".repeat(QUESTION_BYTES_MAX + 1), &hybrid(&[]), "ask in fewer words");
    fails(&knowledge, "x", &hybrid(&["["]), "not a glob");
    fails(&knowledge, "x", &SearchOptions { embed: None, ..hybrid(&[]) }, "needs the encoder");
    fails(&knowledge, "cat", &SearchOptions { rerank: Some(&Silent), ..hybrid(&[]) }, "a number for each passage");
    struct Other;
    impl Embed for Other {
        fn identity(&self) -> String {
            "other".into()
        }
        fn width(&self) -> usize {
            4
        }
        fn embed(&self, _: &[&str], _: EmbedKind) -> Result<Vec<Vec<f32>>> {
            Ok(vec![])
        }
    }
    fails(
        &knowledge,
        "x",
        &SearchOptions { embed: Some(&Other), ..hybrid(&[]) },
        "it is other, and they were made by meaning",
    );
    // Without vectors, hybrid is words, and vectors alone are none.
    let (_folder, out) = made(None, 100);
    let knowledge = Knowledge::open(&out).unwrap();
    assert_eq!(names(&knowledge.search("cat", &SearchOptions { embed: None, ..hybrid(&[]) }).unwrap()), "a.txt d.txt");
    fails(&knowledge, "cat", &options(SearchMode::Vectors, &[], None), "has no vectors");
    assert!(knowledge.passage(5).unwrap_err().what().contains("there are 5"));
    assert_eq!(knowledge.passage(4).unwrap().file, "things/d.txt");
}

#[test]
fn cached_and_damaged() {
    let (folder, out) = made(Some(&Meaning), 2);
    let cache = folder.path().join("cache");
    for _ in 0..2 {
        let knowledge = Knowledge::open_cached(&out, &cache).unwrap();
        let found = knowledge.search("cat", &options(SearchMode::Words, &["things/**"], None)).unwrap();
        assert_eq!(names(&found), "d.txt");
    }
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1);
    for name in ["knowledge.json", "passages.jsonl", "vectors.f32", "graph.u32"] {
        let path = out.join(name);
        let sound = std::fs::read(&path).unwrap();
        let mut cut = sound.clone();
        cut.truncate(sound.len() - 5);
        let mut changed = sound.clone();
        let middle = sound.len() * 2 / 3;
        changed[middle] ^= 1;
        for (bytes, how) in [(cut, "cut"), (vec![], "emptied"), (changed, "changed")] {
            std::fs::write(&path, &bytes).unwrap();
            // A changed letter of the card may be one in a name: all else is found.
            if (name, how) != ("knowledge.json", "changed") {
                assert!(Knowledge::open(&out).is_err(), "{name} {how}");
            }
        }
        std::fs::remove_file(&path).unwrap();
        assert!(Knowledge::open(&out).is_err(), "{name} removed");
        std::fs::write(&path, sound).unwrap();
    }
    Knowledge::open(&out).unwrap();
}
