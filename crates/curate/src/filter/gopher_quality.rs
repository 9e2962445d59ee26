//! Gopher's rules of quality (Rae et al., 2021, section A1.1), in datatrove's reading: the first that fails gives the
//! reason.

use super::Verdict;
use crate::{
    document::Document,
    python::{length, lines, strip_end, strip_start},
    tokens::tables::{ALPHABETIC, ENGLISH, SYMBOL},
};
use narthex_base::config::GopherQuality;

pub(super) fn judge(document: &Document, bounds: &GopherQuality) -> Verdict {
    let tables = &*ENGLISH;
    let (text, words) = (document.text, document.words());
    let (mut plain, mut characters, mut alphabetic) = (0u64, 0, 0);
    for word in words {
        let (mut is_plain, mut has_letter) = (false, false);
        for c in word.chars() {
            let classes = tables.classes(c);
            is_plain |= classes & SYMBOL == 0;
            has_letter |= classes & ALPHABETIC != 0;
        }
        if is_plain {
            plain += 1;
            characters += length(word);
        }
        alphabetic += u64::from(has_letter);
    }
    if bounds.min_words > 0 && plain < bounds.min_words {
        return Verdict::dropped("gopher_short_doc", plain as f64);
    }
    if bounds.max_words > 0 && plain > bounds.max_words {
        return Verdict::dropped("gopher_long_doc", plain as f64);
    }
    // Without a word there is no mean: nothing of it is above or below anything.
    let mean = characters as f64 / plain as f64;
    if bounds.min_mean_word_length > 0.0 && mean < bounds.min_mean_word_length {
        return Verdict::dropped("gopher_below_avg_threshold", mean);
    }
    if bounds.max_mean_word_length > 0.0 && mean > bounds.max_mean_word_length {
        return Verdict::dropped("gopher_above_avg_threshold", mean);
    }
    let count = words.len() as f64;
    let hashes = text.bytes().filter(|byte| *byte == b'#').count() as f64 / count;
    if bounds.max_symbols_per_word > 0.0 && hashes > bounds.max_symbols_per_word {
        return Verdict::dropped("gopher_too_many_hashes", hashes);
    }
    let ellipses = (text.matches("...").count() + text.matches('…').count()) as f64 / count;
    if bounds.max_symbols_per_word > 0.0 && ellipses > bounds.max_symbols_per_word {
        return Verdict::dropped("gopher_too_many_ellipsis", ellipses);
    }
    let (mut all, mut bullets, mut ends) = (0, 0, 0);
    for line in lines(text) {
        all += 1;
        bullets += usize::from(strip_start(line).starts_with(['•', '-']));
        let end = strip_end(line);
        ends += usize::from(end.ends_with("...") || end.ends_with('…'));
    }
    let bullets = bullets as f64 / f64::from(all);
    if bounds.max_bullet_lines > 0.0 && bullets > bounds.max_bullet_lines {
        return Verdict::dropped("gopher_too_many_bullets", bullets);
    }
    let ends = ends as f64 / f64::from(all);
    if bounds.max_ellipsis_lines > 0.0 && ends > bounds.max_ellipsis_lines {
        return Verdict::dropped("gopher_too_many_end_ellipsis", ends);
    }
    let alphabetic = alphabetic as f64 / count;
    if bounds.min_alphabetic_words > 0.0 && alphabetic < bounds.min_alphabetic_words {
        return Verdict::dropped("gopher_below_alpha_threshold", alphabetic);
    }
    if bounds.min_stop_words > 0 {
        // A word that is named twice counts once.
        let mut found: Vec<&str> = Vec::new();
        for stop in &bounds.stop_words {
            if !found.contains(&stop.as_str()) && words.contains(&stop.as_str()) {
                found.push(stop);
            }
        }
        if (found.len() as u64) < bounds.min_stop_words {
            return Verdict::dropped("gopher_enough_stop_words", found.len() as f64);
        }
    }
    Verdict::Kept
}
