//! Which licences' texts a file holds, unchanged: nothing that matters added, left out or put otherwise. What is left
//! over is shown with its words.

use super::{
    License,
    notices::{copyright_lengths, is_copyright, without_holders, without_names},
    template::{Template, slice},
    words::{Word, words},
};
use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
    ops::Range,
    sync::OnceLock,
};

/// What was found in a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recognised {
    /// The SPDX identifiers of the licences whose whole text stands there, in the order of the text. Texts that several
    /// licences share, as `GPL-2.0-only` and `GPL-2.0-or-later` do, count for the narrower one.
    pub ids: Vec<&'static str>,
    /// What stands beside them and is neither a title nor a notice of copyright: the first words of each passage.
    pub left_over: Vec<String>,
    /// Where no licence's whole text stands there: the one that it was made from, and where it departs.
    pub near: Option<Near>,
}

/// A licence's text that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// The SPDX identifier.
    pub id: &'static str,
    /// The line where the text departs, counted from 1.
    pub line: u64,
    /// What the licence says there.
    pub wanted: String,
    /// What the text says there.
    pub found: String,
}

/// How many words of a passage are shown.
const SHOWN_WORDS: usize = 16;
/// Which share of a licence's words a text must have for being compared with it.
const SHARED_MIN: f64 = 0.75;
/// Which share of words two texts must have in common for one to be a change of the other.
const NEAR_MIN: f64 = 0.8;

const APACHE_TITLE: &str = "apache license version 2 0 january 2004 http www apache org licenses license 2 0";

/// Names of licences besides those of SPDX's list, as words.
const ALSO_CALLED: [(&str, &[&str]); 8] = [
    (
        "Apache-2.0",
        &["apache 2 0", "apache license version 2 0", "apache license version 2 0 january 2004", APACHE_TITLE],
    ),
    ("BSD-2-Clause", &["simplified bsd license", "bsd license", "freebsd license"]),
    ("BSD-3-Clause", &["new bsd license", "modified bsd license", "revised bsd license", "bsd license"]),
    ("GPL-2.0-only", &["gnu general public license version 2", "gpl version 2", "gplv2"]),
    ("GPL-3.0-only", &["gnu general public license version 3", "gpl version 3", "gplv3"]),
    ("MIT", &["expat license", "mit expat license"]),
    ("MPL-2.0", &["mozilla public license version 2 0"]),
    ("Zlib", &["zlib libpng license"]),
];

/// Looks for the texts of licences in a text.
pub fn recognise(text: &str) -> Recognised {
    static TEMPLATES: OnceLock<Vec<Template>> = OnceLock::new();
    let templates = TEMPLATES.get_or_init(Template::all);
    let words = words(text);
    let here: HashSet<&str> = words.iter().map(|word| word.form.as_str()).collect();
    let candidates: Vec<&Template> = templates.iter().filter(|template| shares(template, &here)).collect();
    let whole = whole_texts(&candidates, text, &words);
    if whole.is_empty() {
        return Recognised { near: near(&candidates, text, &words), ..Recognised::default() };
    }
    let mut ids: Vec<&'static str> = Vec::new();
    for (_, template) in &whole {
        if !ids.contains(&template.id) {
            ids.push(template.id);
        }
    }
    let names = names(whole.iter().map(|(_, template)| *template));
    let mut left_over = Vec::new();
    let mut from = 0;
    for range in whole.iter().map(|(range, _)| range.clone()).chain(std::iter::once(words.len()..words.len())) {
        let between = from..range.start;
        from = range.end;
        let (Some(first), Some(last)) = (words[between.clone()].first(), words[between].last()) else { continue };
        // The whole lines, with the signs that stand before the words.
        let begin = text[..first.start].rfind('\n').map_or(0, |at| at + 1);
        let begin = if text[begin..first.start].contains(char::is_alphanumeric) { first.start } else { begin };
        let left = without_holders(&without_names(&text[begin..last.end], &names));
        if !is_copyright(&left) && !is_quoted(&left, whole.iter().map(|(_, template)| *template)) {
            left_over.push(quote(&left));
        }
    }
    Recognised { ids, left_over, near: None }
}

impl Recognised {
    /// The licence, where the text is that of licences and of nothing else. Of several, all hold.
    pub fn unchanged(&self) -> Option<License> {
        if self.left_over.is_empty() { License::parse(&self.ids.join(" AND ")).ok() } else { None }
    }

    /// Why the text is not that of a known licence though it resembles one.
    pub fn difference(&self) -> Option<String> {
        if let Some(Near { id, line, wanted, found }) = &self.near {
            return Some(format!(
                "it is the text of {id} changed: line {line} says `{found}` where that says `{wanted}`"
            ));
        }
        let first = self.left_over.first()?;
        let mut text = format!("beside the text of {} it says `{first}`", self.ids.join(" and "));
        if self.left_over.len() > 1 {
            let _ = write!(text, ", and more in {} other places", self.left_over.len() - 1);
        }
        Some(text)
    }
}

/// Whether a passage, without the notices of copyright at its beginning, is one of these licences' own.
fn is_quoted<'t>(passage: &str, mut templates: impl Iterator<Item = &'t Template>) -> bool {
    let words = words(passage);
    let notices = copyright_lengths(passage, &words);
    templates.any(|template| notices.iter().any(|length| template.quotes(&words[*length..])))
}

fn shares(template: &Template, here: &HashSet<&str>) -> bool {
    let vocabulary: HashSet<&str> = template.vocabulary().iter().map(String::as_str).collect();
    let shared = vocabulary.iter().filter(|word| here.contains(*word)).count();
    shared as f64 >= SHARED_MIN * vocabulary.len() as f64
}

/// The licences whose whole texts stand there, without overlaps, in order.
fn whole_texts<'t>(candidates: &[&'t Template], text: &str, words: &[Word]) -> Vec<(Range<usize>, &'t Template)> {
    let mut found = Vec::new();
    for template in candidates {
        let mut from = 0;
        while let Some((start, end)) = template.find(text, words, from) {
            found.push((start..end, *template));
            from = end.max(from + 1);
        }
    }
    found.sort_by_key(|(range, _)| std::cmp::Reverse(range.len()));
    let mut kept: Vec<(Range<usize>, &Template)> = Vec::new();
    for (range, template) in found {
        if kept.iter().all(|(other, _)| range.end <= other.start || other.end <= range.start) {
            kept.push((range, template));
        }
    }
    kept.sort_by_key(|(range, _)| range.start);
    kept
}

/// The licence that a text was made from, and where it departs.
fn near(candidates: &[&Template], text: &str, words: &[Word]) -> Option<Near> {
    let count = |forms: &mut dyn Iterator<Item = &str>| {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for form in forms {
            *counts.entry(form.to_string()).or_default() += 1;
        }
        counts
    };
    let here = count(&mut words.iter().map(|word| word.form.as_str()));
    let scored = candidates.iter().map(|template| {
        let theirs = count(&mut template.vocabulary().iter().map(String::as_str));
        let shared: usize = theirs.iter().map(|(word, count)| (*count).min(here.get(word).copied().unwrap_or(0))).sum();
        let total: usize = theirs.values().sum();
        // Of a file with much else in it counts what it has of the licence; of two licences, the one that it fills.
        (shared as f64 / total.max(1) as f64, shared as f64 / (total + words.len()).max(1) as f64, *template)
    });
    let best = scored.filter(|(share, _, _)| *share >= NEAR_MIN).max_by(|a, b| a.1.total_cmp(&b.1))?;
    let parting = best.2.parting(text, words)?;
    let from = parting.at.min(words.len());
    let shown = &words[from..(from + 8).min(words.len())];
    let found = if shown.is_empty() { "nothing more".into() } else { slice(text, shown) };
    let place = words.get(from).or(words.last()).map_or(0, |word| word.start);
    let line = 1 + text[..place].matches('\n').count() as u64;
    Some(Near { id: best.2.id, line, wanted: parting.wanted, found })
}

/// The ways in which licences are called, as words; the longest first.
fn names<'t>(templates: impl Iterator<Item = &'t Template>) -> Vec<String> {
    let mut names = Vec::new();
    for template in templates {
        let joined = |text: &str| words(text).into_iter().map(|word| word.form).collect::<Vec<_>>().join(" ");
        let short = template.id.trim_end_matches("-only").trim_start_matches("LicenseRef-");
        names.extend([
            joined(template.id),
            joined(short),
            joined(template.name),
            joined(&template.name.replace("License", "")),
        ]);
        let also = ALSO_CALLED.iter().find(|(id, _)| *id == template.id);
        names.extend(also.iter().flat_map(|(_, names)| names.iter().map(|name| (*name).to_string())));
    }
    names.retain(|name| !name.is_empty());
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    names.dedup();
    names
}

/// The first words of a passage.
fn quote(text: &str) -> String {
    let all: Vec<&str> = text.split_whitespace().collect();
    let shown = all.iter().take(SHOWN_WORDS).copied().collect::<Vec<_>>().join(" ");
    if all.len() > SHOWN_WORDS { format!("{shown}…") } else { shown }
}

#[cfg(test)]
mod tests;
