//! How fast the rules are: `rules DOCUMENTS.jsonl [COUNT]` judges so many texts on one thread, rule by rule, and prints
//! documents and megabytes a second of each, of FineWeb's rules in a row, and of MinHash from texts to clusters.
//! `bench/data/rules.py` runs it in turn with datatrove.

use narthex_base::config::{FilterName, FilterSettings, NearDuplicates};
use narthex_curate::{
    Document,
    filter::{Filters, Verdict},
    near::{Bands, BandsError, Signer},
    tokens,
};
use serde_json::{Value, json};
use std::{error::Error, fs::File, io::BufRead, io::BufReader, time::Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("say what to read: `rules DOCUMENTS.jsonl [COUNT]`")?;
    let count: usize = arguments.next().map_or(Ok(3000), |count| count.parse())?;
    let mut texts = Vec::new();
    for line in BufReader::new(File::open(path)?).lines().take(count) {
        let row: Value = serde_json::from_str(&line?)?;
        texts.push(row["text"].as_str().ok_or("a row has no text")?.to_string());
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    let report = |name: &str, start: Instant, kept: usize| {
        let seconds = start.elapsed().as_secs_f64();
        let (documents, megabytes) = (texts.len() as f64 / seconds, bytes as f64 / 1e6 / seconds);
        println!("{}", json!({"name": name, "documents_s": documents, "mb_s": megabytes, "kept": kept}));
    };
    // What the first text pays is the tables.
    tokens::words("a word");
    let start = Instant::now();
    let words: usize = texts.iter().map(|text| tokens::words(text).len()).sum();
    report("words", start, words);
    let mut settings = FilterSettings::default();
    for name in FilterName::ALL {
        let filters = Filters::new(vec![name], settings.clone());
        let start = Instant::now();
        let kept = texts.iter().filter(|text| filters.judge(text.to_string()).is_ok()).count();
        report(name.name(), start, kept);
    }
    settings.c4.terminal_punctuation = false;
    let rules =
        vec![FilterName::GopherRepetition, FilterName::GopherQuality, FilterName::C4, FilterName::FinewebQuality];
    let filters = Filters::new(rules, settings);
    let start = Instant::now();
    let kept = texts.iter().filter(|text| filters.judge(text.to_string()).is_ok()).count();
    report("fineweb", start, kept);
    // The rule alone, when the words are there.
    let filters = Filters::new(vec![FilterName::GopherRepetition], FilterSettings::default());
    let documents: Vec<Document> = texts.iter().map(|text| Document::new(text)).collect();
    let words: usize = documents.iter().map(|document| document.words().len()).sum();
    let start = Instant::now();
    let rule = FilterName::GopherRepetition;
    let kept = documents.iter().filter(|document| filters.ask(rule, document) == Verdict::Kept).count();
    report("gopher_repetition without words", start, kept);
    println!("{}", json!({"words": words}));
    let start = Instant::now();
    let signer = Signer::new(NearDuplicates::default());
    let folder = std::env::temp_dir().join(format!("narthex-rules-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let failed = |error: BandsError| format!("{}: {}", error.path.display(), error.error);
    let mut bands = Bands::create(&folder, signer.bands()).map_err(failed)?;
    for text in &texts {
        let keys = signer.sign(text).map(|signature| signer.keys(&signature));
        bands.push(keys.as_deref()).map_err(failed)?;
    }
    let clusters = bands.clusters(256 << 20, |_| Ok::<(), BandsError>(())).map_err(failed)?;
    let kept = (0..texts.len() as u32).filter(|document| clusters.first(*document) == *document).count();
    report("minhash", start, kept);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
