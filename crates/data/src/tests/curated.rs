//! Rules, copies and near copies within a whole preparation.

use super::*;
use serde_json::json;

const GOOD: &str = "Bread needs four things: flour, water, salt and time. Mix the first three and let the dough rest for \
an hour before you fold it. The dough will be soft and have small bubbles in it after the second rest. Heat the oven with \
a closed pot inside, and put the loaf into the hot pot. It should bake for forty minutes with the lid and for ten minutes \
without it. Let it cool before you cut it, since the crumb is still setting.";

fn rows(folder: &Folder, parts: usize, texts: &[String]) -> SourceSpec {
    let files: Vec<PathBuf> = texts
        .chunks(texts.len().div_ceil(parts))
        .enumerate()
        .map(|(at, texts)| {
            let lines: String = texts.iter().map(|text| json!({"text": text}).to_string() + "\n").collect();
            folder.write(&format!("part-{at}.jsonl"), lines)
        })
        .collect();
    source("rows", &files, TextRows::File)
}

/// Rules and near copies as FineWeb has them.
fn fineweb(source: SourceSpec) -> PrepareSpec {
    let mut spec = plain(source, None);
    spec.filters = vec![
        FilterName::GopherRepetition,
        FilterName::GopherQuality,
        FilterName::C4,
        FilterName::FinewebQuality,
        FilterName::Pii,
    ];
    spec.filter.c4.terminal_punctuation = false;
    spec.near_duplicates = Some(NearDuplicates::default());
    spec.deduplicate = true;
    spec
}

#[test]
fn every_row_stays_or_has_its_reason() {
    let folder = Folder::new();
    let texts = [
        GOOD.to_string(),
        "Too short.".into(),
        GOOD.replace("closed pot", "lidded pot"),
        GOOD.into(),
        " \n".into(),
        "shoes and shoes ".repeat(60),
        GOOD.replace("Bread", "The man at baker@bread.example says that bread") + " Do not use javascript.\nLine two.",
    ];
    let spec = fineweb(rows(&folder, 1, &texts));
    let statistics = folder.prepare(&spec).unwrap();
    let kept = folder.texts("train.parquet");
    assert_eq!(kept[0], GOOD);
    assert_eq!((kept.len() as u64, statistics.documents, statistics.rows_read), (1, 1, 7));
    let dropped: Vec<_> = read_dropped(&folder.out()).unwrap().collect::<Result<_>>().unwrap();
    let facts: Vec<_> = dropped.iter().map(|d| (d.row, d.rule.as_str(), d.reason.as_str(), d.of_row)).collect();
    assert_eq!(
        facts,
        [
            (1, "gopher_repetition", "top_2_gram", None),
            (3, "duplicate", "duplicate", None),
            (5, "gopher_repetition", "top_2_gram", None),
            (6, "c4", "too_few_sentences", None),
            (2, "near_duplicate", "near_duplicate", Some(0)),
        ]
    );
    let expected = [("duplicate", 1), ("empty", 1), ("near_duplicate", 1), ("too_few_sentences", 1), ("top_2_gram", 2)];
    assert_eq!(statistics.reasons, expected.map(|(reason, count)| (reason.to_string(), count)).into());
    assert_eq!(dropped[0].text, "Too short.");
    assert!(dropped[0].value.is_some_and(|share| share > 0.2));
}

#[test]
fn the_bytes_depend_neither_on_threads_nor_on_files() {
    let folder = Folder::new();
    let texts: Vec<String> = (0..300)
        .map(|at| match at % 7 {
            0 => "copy ".repeat(at),
            1 => GOOD.replace("an hour", &format!("{at} minutes")),
            _ => GOOD
                .split(' ')
                .enumerate()
                .map(|(place, word)| {
                    let letter = |n: usize| char::from(b'a' + (n % 26) as u8);
                    format!("{word}{}{} ", letter(at * 31 + place * 7), letter(at + place / 26))
                })
                .collect(),
        })
        .collect();
    let mut last: Option<Vec<Vec<u8>>> = None;
    for (threads, parts) in [(1, 1), (4, 1), (2, 7)] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut spec = fineweb(rows(&folder, parts, &texts));
        spec.filters.truncate(1);
        spec.split.validation_fraction = 0.5;
        let _ = std::fs::remove_dir_all(folder.out());
        pool.install(|| folder.prepare(&spec)).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(folder.out()).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let bytes: Vec<Vec<u8>> = names.iter().map(|path| std::fs::read(path).unwrap()).collect();
        assert_eq!(names.len(), 4, "no spool is left: {names:?}");
        assert!(last.replace(bytes.clone()).is_none_or(|last| last == bytes), "{threads} threads, {parts} files");
    }
}

#[test]
fn rules_are_functions_of_sql() {
    let folder = Folder::new();
    let texts = [GOOD.to_string(), "Too short.".into(), GOOD.replace("Bread", "a@b.example")];
    let query = "select pii_text(text) as text from source where gopher_quality_reason(text) is null";
    folder.prepare(&plain(rows(&folder, 1, &texts), Some(query))).unwrap();
    assert_eq!(folder.texts("train.parquet"), [GOOD.to_string(), GOOD.replace("Bread", "<EMAIL>")]);
    let query = "select coalesce(gopher_quality_reason(text), 'stays') as text from source";
    folder.prepare(&plain(rows(&folder, 1, &texts), Some(query))).unwrap();
    assert_eq!(folder.texts("train.parquet"), ["stays", "gopher_short_doc", "stays"]);
}

#[test]
fn pages_become_their_main_text() {
    let folder = Folder::new();
    let page = format!(
        "<html lang=en><head><title>Bread</title><meta name=author content=Ann></head><body><nav><a href=/>Home</a></nav>\
         <article><h1>Bread</h1><p>{GOOD}</p></article><footer>All rights reserved</footer></body></html>"
    );
    let texts = [page, "<html><body></body></html>".to_string()];
    let query = "select concat_ws('|', page_title(text), page_language(text), page_author(text), page_text(text), \
                 page_reason(text)) as text from source";
    folder.prepare(&plain(rows(&folder, 1, &texts), Some(query))).unwrap();
    let found = folder.texts("train.parquet");
    assert!(found[0].starts_with("Bread|en|Ann|") && found[0].contains(GOOD), "{}", found[0]);
    assert!(!found[0].contains("Home") && !found[0].contains("rights"), "{}", found[0]);
    assert_eq!(found[1], "no_text");
}

#[test]
fn the_first_rows_can_be_tried() {
    let folder = Folder::new();
    let texts: Vec<String> = (0..50).map(|at| GOOD.replace("Bread", &format!("Bread number {at}"))).collect();
    let mut spec = fineweb(rows(&folder, 2, &texts));
    spec.near_duplicates = None;
    let statistics = prepare_some(&spec, 20, &folder.out(), Observer::silent()).unwrap();
    assert_eq!((statistics.documents, folder.texts("train.parquet").len()), (20, 20));
}
