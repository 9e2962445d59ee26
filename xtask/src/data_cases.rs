//! `cargo xtask data-cases`: answers cases of the rules for texts, so that they can be held beside datatrove's answers.
//! JSON lines `{"id", "function", "params", "input"}` come in, `{"id", "output"}` goes out; parameters have the peer's
//! names. What we have no rule for is answered with `{"unsupported": true}`.

use narthex_base::config::{
    C4, C4Paragraphs, FilterName, FilterSettings, FinewebQuality, GopherQuality, NearDuplicates, Pii, RunHash,
    SymbolLines,
};
use narthex_curate::{
    Document,
    decontaminate::{Evaluations, Runs},
    exact::Spans,
    filter::{Filters, Verdict, url::UnwantedUrls},
    near::{Clusters, Signer},
    python,
    simplify::{Simplify, simplify},
    tokens,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    io::{BufRead, Write},
};

pub fn run(arguments: &[String]) -> Result<(), String> {
    if !arguments.is_empty() {
        return Err("usage: cargo xtask data-cases < CASES > ANSWERS".into());
    }
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        if line.trim().is_empty() {
            continue;
        }
        let case: Value = serde_json::from_str(&line).map_err(|error| format!("error: a case is no JSON: {error}"))?;
        let function = case["function"].as_str().unwrap_or_default();
        let output = answer(function, &case["params"], &case["input"]).unwrap_or(json!({"unsupported": true}));
        writeln!(out, "{}", json!({"id": case["id"], "output": output})).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn answer(function: &str, params: &Value, input: &Value) -> Option<Value> {
    let text = input.as_str().unwrap_or_default();
    Some(match function {
        "words" => json!(tokens::words(text)),
        "sentences" => json!(tokens::sentences(text)),
        "paragraphs" => json!(paragraphs(text)),
        "simplify_text" => json!(simplify(text, &simplified(params))),
        "gopher_quality" => verdict(&filters(FilterName::GopherQuality, params)?, FilterName::GopherQuality, text),
        "gopher_repetition" => {
            verdict(&filters(FilterName::GopherRepetition, params)?, FilterName::GopherRepetition, text)
        }
        "c4_quality" => verdict(&filters(FilterName::C4, params)?, FilterName::C4, text),
        "c4_paragraph" => verdict(&filters(FilterName::C4Paragraphs, params)?, FilterName::C4Paragraphs, text),
        "fineweb_quality" => verdict(&filters(FilterName::FinewebQuality, params)?, FilterName::FinewebQuality, text),
        "symbol_lines" => rewritten(&filters(FilterName::SymbolLines, params)?, FilterName::SymbolLines, text),
        "pii" => rewritten(&filters(FilterName::Pii, params)?, FilterName::Pii, text),
        "minhash_parameters" => {
            let signer = Signer::new(near(params));
            let (a, b) = signer.parameters();
            json!({"a": strings(a), "b": strings(b)})
        }
        "minhash_signature" => {
            let how = near(params);
            let (signer, rows) = (Signer::new(how.clone()), how.rows as usize);
            let runs = signer.runs(text);
            let signature = signer.of_runs(&runs);
            json!({
                "shingles": strings(&runs[..runs.len().min(50)]),
                "n_shingles": runs.len(),
                "signature": signature.map(|signature| signature.0.chunks(rows).map(strings).collect::<Vec<_>>()),
            })
        }
        "minhash_dedup" => {
            let texts = texts(input)?;
            let signer = Signer::new(near(params));
            let signatures: Vec<_> = texts.iter().map(|text| signer.sign(text)).collect();
            let mut clusters = Clusters::new(texts.len() as u32);
            let mut seen = BTreeMap::new();
            for (document, signature) in signatures.iter().enumerate() {
                for (band, key) in signature.iter().flat_map(|signature| signer.keys(signature)).enumerate() {
                    let first = *seen.entry((band, key)).or_insert(document as u32);
                    clusters.join(first, document as u32);
                }
            }
            let all = 0..texts.len() as u32;
            let mut members: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
            for document in all.clone() {
                members.entry(clusters.first(document)).or_default().push(document);
            }
            let kept: Vec<u32> = all.filter(|document| clusters.first(*document) == *document).collect();
            let members: Vec<_> = members.into_values().filter(|members| members.len() > 1).collect();
            json!({"kept": kept, "clusters": members})
        }
        "exact_dedup" => {
            let rows: Vec<(String, i64)> = serde_json::from_value(input.clone()).ok()?;
            let by_priority = params["priority"].as_bool().unwrap_or_default();
            let mut best: BTreeMap<&str, usize> = BTreeMap::new();
            for (at, (text, priority)) in rows.iter().enumerate() {
                let kept = best.entry(text).or_insert(at);
                if by_priority && *priority > rows[*kept].1 {
                    *kept = at;
                }
            }
            let mut kept: Vec<usize> = best.into_values().collect();
            kept.sort_unstable();
            json!(kept)
        }
        "sentence_dedup" => {
            // The peer's bound counts and restores only the first sentence of a span: ours has none.
            if params["min_words_to_remove_span"].as_u64().is_some_and(|words| words > 0) {
                return None;
            }
            json!(without_repeated(&texts(input)?, params))
        }
        "decontaminate" => {
            let which = Runs {
                ngram: params["n_grams"].as_u64().unwrap_or(12) as u32,
                of_questions: params["find_query_ngrams"].as_bool().unwrap_or(false),
                of_both: params["find_overlap_ngrams"].as_bool().unwrap_or(true),
            };
            let mut evaluations = Evaluations::new(which);
            evaluations.add(params["query"].as_str(), params["label"].as_str().unwrap_or_default());
            match evaluations.first_in(text) {
                None => json!({"kept": true, "reason": null}),
                Some(_) => json!({"kept": false, "reason": "contaminated"}),
            }
        }
        "url_filter" => {
            if params["use_integrated_lists"].as_bool() != Some(false) {
                return None;
            }
            let names = ["extra_domains", "extra_urls", "banned_words", "soft_banned_words", "banned_subwords"];
            let lists: Vec<Vec<String>> = names.map(|name| texts(&params[name]).unwrap_or_default()).into();
            let limit = params["soft_word_threshold"].as_u64().unwrap_or(2) as usize;
            let unwanted = UnwantedUrls::new([&lists[0], &lists[1], &lists[2], &lists[3], &lists[4]], limit);
            said(&unwanted.judge(input["url"].as_str()?))
        }
        _ => return None,
    })
}

fn texts(value: &Value) -> Option<Vec<String>> {
    serde_json::from_value(value.clone()).ok()
}

fn strings(numbers: &[u64]) -> Vec<String> {
    numbers.iter().map(u64::to_string).collect()
}

fn simplified(params: &Value) -> Simplify {
    let is = |name: &str, otherwise: bool| params[name].as_bool().unwrap_or(otherwise);
    Simplify {
        lowercase: is("lowercase", true),
        white_space: is("norm_whitespace", true),
        punctuation: is("remove_punctuation", true),
        diacritics: is("norm_unicode_diacritics", true),
        numbers: is("norm_numbers", true),
        weekdays: is("norm_weekdays", false),
        months: is("norm_monthnames", false),
    }
}

fn near(params: &Value) -> NearDuplicates {
    let default = NearDuplicates::default();
    let number = |name: &str, otherwise: u32| params[name].as_u64().map_or(otherwise, |number| number as u32);
    NearDuplicates {
        ngram: number("n_grams", default.ngram),
        bands: number("num_buckets", default.bands),
        rows: number("hashes_per_bucket", default.rows),
        seed: number("seed", default.seed),
        hash: match (params["hash"][0].as_str(), params["hash"][1].as_u64()) {
            (Some("sha1"), Some(32)) => RunHash::Sha1_32,
            (Some("sha1"), _) => RunHash::Sha1_64,
            (_, Some(32)) => RunHash::Xxhash32,
            _ => RunHash::Xxhash64,
        },
    }
}

/// One rule with the peer's parameters; nothing if one of them is not known.
fn filters(name: FilterName, params: &Value) -> Option<Filters> {
    let (mut quality, mut c4, mut fineweb) = (GopherQuality::default(), C4::default(), FinewebQuality::default());
    let mut lines = SymbolLines::default();
    let mut pii = Pii {
        emails: ["email@example.com", "firstname.lastname@example.org"].map(String::from).into(),
        ips: ["22.214.171.124", "126.96.36.199", "188.8.131.52", "184.108.40.206", "220.127.116.11", "18.104.22.168"]
            .map(String::from)
            .into(),
        phones: Vec::new(),
        cards: Vec::new(),
        only_public_ips: true,
    };
    for (key, value) in params.as_object().into_iter().flatten() {
        // `None`, 0 and -1 turn a bound of the peer's off.
        let number = value.as_f64().unwrap_or(0.0).max(0.0);
        let (whole, truth) = (number as u64, value.as_bool().unwrap_or_default());
        let list = || match value.as_str() {
            Some(one) => vec![one.to_string()],
            None => texts(value).unwrap_or_default(),
        };
        match (name, key.as_str()) {
            (FilterName::GopherQuality, "min_doc_words") => quality.min_words = whole,
            (FilterName::GopherQuality, "max_doc_words") => quality.max_words = whole,
            (FilterName::GopherQuality, "min_avg_word_length") => quality.min_mean_word_length = number,
            (FilterName::GopherQuality, "max_avg_word_length") => quality.max_mean_word_length = number,
            (FilterName::GopherQuality, "max_symbol_word_ratio") => quality.max_symbols_per_word = number,
            (FilterName::GopherQuality, "max_bullet_lines_ratio") => quality.max_bullet_lines = number,
            (FilterName::GopherQuality, "max_ellipsis_lines_ratio") => quality.max_ellipsis_lines = number,
            (FilterName::GopherQuality, "max_non_alpha_words_ratio") => quality.min_alphabetic_words = number,
            (FilterName::GopherQuality, "min_stop_words") => quality.min_stop_words = whole,
            (FilterName::GopherQuality, "stop_words") => quality.stop_words = list(),
            (FilterName::C4, "split_paragraph") => c4.by_line = truth,
            (FilterName::C4, "remove_citations") => c4.remove_citations = truth,
            (FilterName::C4, "filter_no_terminal_punct") => c4.terminal_punctuation = truth,
            (FilterName::C4, "min_num_sentences") => c4.min_sentences = whole,
            (FilterName::C4, "min_words_per_line") => c4.min_words_per_line = whole,
            (FilterName::C4, "max_word_length") => c4.max_word_length = whole,
            (FilterName::C4, "filter_lorem_ipsum") => c4.drop_lorem_ipsum = truth,
            (FilterName::C4, "filter_javascript") => c4.drop_javascript = truth,
            (FilterName::C4, "filter_curly_bracket") => c4.drop_curly_brackets = truth,
            (FilterName::C4, "filter_policy") => c4.drop_policies = truth,
            (FilterName::FinewebQuality, "line_punct_thr") => fineweb.min_terminal_lines = number,
            (FilterName::FinewebQuality, "line_punct_exclude_zero") => fineweb.allow_no_terminal_line = truth,
            (FilterName::FinewebQuality, "stop_chars") => fineweb.terminal_marks = list(),
            (FilterName::FinewebQuality, "short_line_thr") => fineweb.max_short_lines = number,
            (FilterName::FinewebQuality, "short_line_length") => fineweb.short_line_length = whole,
            (FilterName::FinewebQuality, "char_duplicates_ratio") => fineweb.max_duplicate_chars = number,
            (FilterName::FinewebQuality, "new_line_ratio") => fineweb.max_line_ends_per_word = number,
            (FilterName::SymbolLines, "replace_char") => lines.replacement = value.as_str()?.into(),
            (FilterName::Pii, "only_remove_public_ips") => pii.only_public_ips = truth,
            (FilterName::Pii, "email_replacement") => pii.emails = list(),
            (FilterName::Pii, "ip_replacement") => pii.ips = list(),
            (FilterName::Pii, "remove_emails") if !truth => pii.emails.clear(),
            (FilterName::Pii, "remove_ips") if !truth => pii.ips.clear(),
            _ => return None,
        }
    }
    let settings = FilterSettings {
        gopher_quality: quality,
        c4,
        c4_paragraphs: C4Paragraphs::default(),
        fineweb_quality: fineweb,
        symbol_lines: lines,
        pii,
        ..FilterSettings::default()
    };
    Some(Filters::new(vec![name], settings))
}

fn verdict(filters: &Filters, name: FilterName, text: &str) -> Value {
    said(&filters.ask(name, &Document::new(text)))
}

fn said(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Kept => json!({"kept": true, "reason": null}),
        Verdict::Changed(text) => json!({"kept": true, "reason": null, "text": text}),
        Verdict::Dropped(reason) => {
            // The peer's name of this one has its bound in it.
            let name = if reason.name == "too_few_paragraphs" { "< 3 paragraphs" } else { reason.name };
            json!({"kept": false, "reason": name})
        }
    }
}

fn rewritten(filters: &Filters, name: FilterName, text: &str) -> Value {
    match filters.ask(name, &Document::new(text)) {
        Verdict::Changed(text) => json!(text),
        Verdict::Kept | Verdict::Dropped(_) => json!(text),
    }
}

/// Lines, each with the blank lines behind it.
fn paragraphs(text: &str) -> Vec<String> {
    let lines: Vec<&str> = python::lines(text).collect();
    let (mut paragraphs, mut next) = (Vec::new(), String::new());
    for (at, line) in lines.iter().enumerate() {
        if !python::strip(line).is_empty() && !next.is_empty() {
            paragraphs.push(std::mem::take(&mut next));
        }
        next.push_str(line);
        if at + 1 < lines.len() {
            next.push('\n');
        }
    }
    if !lines.is_empty() {
        paragraphs.push(next);
    }
    paragraphs
}

fn without_repeated(texts: &[String], params: &Value) -> Vec<(usize, String)> {
    let number = |name: &str, otherwise: u64| params[name].as_u64().unwrap_or(otherwise) as usize;
    let spans =
        Spans { sentences: number("n_sentences", 3), by_sentence: params["split_sentences"].as_bool().unwrap_or(true) };
    let (least_words, least_sentences) = (number("min_doc_words", 50), number("min_num_sentences", 3));
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        let hashes = spans.hashes(text);
        let repeated: Vec<u32> =
            hashes.iter().filter(|(hash, _)| !seen.insert(*hash)).map(|(_, first)| *first).collect();
        let left = if repeated.is_empty() { text.clone() } else { spans.without(text, &repeated).0 };
        let enough = tokens::words(&left).len() >= least_words && tokens::sentences(&left).len() >= least_sentences;
        if !left.is_empty() && (left == *text || enough) {
            kept.push((at, left));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Without what is null, which the peer's answers have or leave out.
    fn plain(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let told = fields.iter().filter(|(_, value)| !value.is_null());
                Value::Object(told.map(|(name, value)| (name.clone(), plain(value))).collect())
            }
            Value::Array(items) => items.iter().map(plain).collect(),
            other => other.clone(),
        }
    }

    #[test]
    fn the_peers_answers() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/data-cases");
        let mut counts = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "jsonl") {
                continue;
            }
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                let case: Value = serde_json::from_str(line).unwrap();
                let function = case["function"].as_str().unwrap();
                let output = answer(function, &case["params"], &case["input"]).expect("a function that is known");
                let (mut output, mut expected) = (plain(&output), plain(&case["expected"]));
                if function == "minhash_dedup" {
                    // Of a cluster the peer keeps one that the order of its pairs decides, and as many.
                    let kept = |value: &Value| value["kept"].as_array().unwrap().len();
                    assert_eq!(kept(&output), kept(&expected), "{}", case["id"]);
                    (output, expected) = (output["clusters"].take(), expected["clusters"].take());
                }
                assert_eq!(output, expected, "{}", case["id"]);
                *counts.entry(function.to_string()).or_insert(0) += 1;
            }
        }
        assert_eq!((counts.len(), counts["words"], counts["c4_quality"]), (18, 34, 47), "{counts:?}");
    }
}
