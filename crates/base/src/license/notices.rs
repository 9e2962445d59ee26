//! What may stand beside the text of a licence without changing it: whose it is, since when, how it is called.
//! Everything else is a condition until somebody has read it.

use super::words::{STRUCK, Word, words};

/// Words that grant, take or bind: no holder's name has them, and no year.
const BINDING: [&str; 124] = [
    "additional",
    "additionally",
    "agpl",
    "agree",
    "agreement",
    "allowed",
    "attribution",
    "ban",
    "banned",
    "breach",
    "cc",
    "comercial",
    "comerciales",
    "commercial",
    "commerciale",
    "commercialement",
    "commerciales",
    "commerciali",
    "commercially",
    "condition",
    "conditions",
    "confidential",
    "consent",
    "contact",
    "derivative",
    "derivatives",
    "distribute",
    "distributed",
    "distribution",
    "eula",
    "evaluation",
    "except",
    "exclude",
    "excludes",
    "excluding",
    "exclusively",
    "forbid",
    "forbidden",
    "forbids",
    "gfdl",
    "gpl",
    "however",
    "if",
    "interdit",
    "interdite",
    "interdits",
    "kommerziell",
    "kommerzielle",
    "kommerziellen",
    "kommerzieller",
    "lgpl",
    "license",
    "licensed",
    "licenses",
    "modification",
    "modify",
    "must",
    "nc",
    "never",
    "nichtkommerziell",
    "nichtkommerzielle",
    "nichtkommerziellen",
    "no",
    "non",
    "noncommercial",
    "nonprofit",
    "not",
    "nur",
    "nutzung",
    "only",
    "otherwise",
    "patent",
    "patented",
    "patents",
    "pending",
    "permission",
    "permit",
    "permitted",
    "polyform",
    "prohibe",
    "prohibida",
    "prohibido",
    "prohibit",
    "prohibited",
    "prohibits",
    "proibida",
    "proibido",
    "proprietary",
    "provided",
    "purpose",
    "purposes",
    "redistribute",
    "restricted",
    "restriction",
    "restrictions",
    "sale",
    "secret",
    "sell",
    "selling",
    "shall",
    "sold",
    "solely",
    "sspl",
    "subject",
    "sublicense",
    "terms",
    "unless",
    "untersagt",
    "use",
    "used",
    "uses",
    "uso",
    "vendita",
    "verboten",
    "verkauf",
    "vietata",
    "vietato",
    "without",
    "запрещается",
    "запрещено",
    "коммерческого",
    "коммерческое",
    "некоммерческое",
    "только",
];
/// The same in scripts that do not part their words.
const BINDING_RUNS: [&str; 12] =
    ["禁止", "商用", "商业", "商業", "仅限", "僅限", "不得", "不可", "許可", "许可", "授权", "授權"];
/// The same where they are written small: as names they are not.
const BINDING_SMALL: [&str; 11] = [
    "academic",
    "educational",
    "internal",
    "may",
    "military",
    "personal",
    "private",
    "research",
    "study",
    "teaching",
    "can",
];
/// Small words of copyright notices.
const SMALL: [&str; 40] = [
    "a",
    "all",
    "al",
    "and",
    "at",
    "author",
    "authors",
    "by",
    "c",
    "com",
    "company",
    "contributors",
    "copyright",
    "da",
    "de",
    "del",
    "der",
    "di",
    "du",
    "e",
    "et",
    "for",
    "from",
    "gmbh",
    "http",
    "inc",
    "its",
    "la",
    "le",
    "ltd",
    "of",
    "others",
    "present",
    "reserved",
    "rights",
    "team",
    "the",
    "to",
    "van",
    "von",
];
/// Small words besides these that names may have, for each notice.
const OTHER_SMALL_WORDS: usize = 4;

/// Whether a text is nothing but copyright notices.
pub(super) fn is_copyright(text: &str) -> bool {
    let words = words(text);
    copyright_lengths(text, &words).last() == Some(&words.len())
}

/// How many of these words may be copyright notices: the fewest first, none always.
pub(super) fn copyright_lengths(text: &str, words: &[Word]) -> Vec<usize> {
    let mut lengths = vec![0];
    let Some(first) = words.first() else { return lengths };
    let begins = ["copyright", "c", "copr", "portions", "author", "authors", "all"].contains(&first.form.as_str())
        || is_year(&first.form);
    let (mut notices, mut small) = (0, 0);
    for (at, word) in words.iter().enumerate().take_while(|(at, _)| begins && !binds(text, words, *at)) {
        notices += usize::from(word.form == "copyright");
        small += usize::from(is_small_word(text, word));
        if small <= OTHER_SMALL_WORDS * notices.max(1) {
            lengths.push(at + 1);
        }
    }
    lengths
}

/// Whether what stands in an open place are names: nothing in it binds.
pub(super) fn is_name(text: &str) -> bool {
    let words = words(text);
    (0..words.len()).all(|at| !binds(text, &words, at))
}

fn is_year(form: &str) -> bool {
    form.len() == 4 && form.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether the word at this place grants, takes or binds.
fn binds(text: &str, words: &[Word], at: usize) -> bool {
    let (word, written) = (&words[at], |word: &Word| &text[word.start..word.end]);
    let is_small = |word: &Word| written(word).starts_with(char::is_lowercase);
    // `for Informatics` is a part of a name, `for scholars` and `FOR SCHOLARS` are not.
    let for_whom = word.form == "for" && (written(word) == "FOR" || words.get(at + 1).is_none_or(is_small));
    BINDING.contains(&word.form.as_str())
        || word.form == STRUCK
        || BINDING_RUNS.iter().any(|run| word.form.contains(run))
        || (BINDING_SMALL.contains(&word.form.as_str()) && is_small(word))
        || for_whom
}

fn is_small_word(text: &str, word: &Word) -> bool {
    let (before, after) = (&text[..word.start], &text[word.end..]);
    let is_address =
        (after.starts_with(['@', '/', '.']) && !after.starts_with(". ")) || before.ends_with(['@', '/', '.', '<']);
    text[word.start..word.end].starts_with(char::is_lowercase) && !SMALL.contains(&word.form.as_str()) && !is_address
}

/// The lines of what stands beside the texts of these licences that do not merely name them. `names` are the ways in
/// which a licence is called, as words.
pub(super) fn without_names(text: &str, names: &[String]) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !only_names(line, names)).collect();
    // Names that go over more lines than one.
    if only_names(&lines.join(" "), names) { String::new() } else { lines.join("\n") }
}

/// The lines without those that merely name a holder again, as a heading does: all their words stand in one of the
/// notices.
pub(super) fn without_holders(text: &str) -> String {
    let forms = |line: &str| -> Vec<String> { words(line).into_iter().map(|word| word.form).collect() };
    let notices = || text.lines().filter(|line| is_copyright(line)).map(forms);
    let is_holder = |line: &&str| {
        let named = forms(line);
        !named.is_empty()
            && !is_copyright(line)
            && notices().any(|notice| named.iter().all(|word| notice.contains(word)))
    };
    text.lines().filter(|line| !is_holder(line)).collect::<Vec<_>>().join("\n")
}

fn only_names(line: &str, names: &[String]) -> bool {
    let found: Vec<String> = words(line).into_iter().map(|word| word.form).collect();
    let mut rest = found.join(" ");
    if let Some(after) =
        ["spdx license identifier ", "valid license identifier "].iter().find_map(|key| rest.strip_prefix(key))
    {
        rest = after.to_string();
    }
    if let Some(named) = statement(&rest) {
        rest = named.to_string();
    }
    // Longer names first: a short one may be a part of a long one.
    for name in names {
        if rest == *name {
            return true;
        }
        rest = format!(" {rest} ").replace(&format!(" {name} "), " ").trim().to_string();
    }
    const HEADINGS: [&str; 11] =
        ["the", "license", "licenses", "copyright", "notice", "and", "or", "begin", "end", "text", "full"];
    rest.split_whitespace().all(|word| HEADINGS.contains(&word))
}

/// What follows `this project is licensed under the terms of`.
fn statement(line: &str) -> Option<&str> {
    let (who, rest) = ["is", "are"].iter().find_map(|verb| line.split_once(&format!(" {verb} ")))?;
    if who.split(' ').count() > 6 || !is_name(who) {
        return None;
    }
    let rest = rest.strip_prefix("hereby ").unwrap_or(rest);
    let rest =
        ["licensed under", "released under", "distributed under", "available under", "provided under", "covered by"]
            .iter()
            .find_map(|verb| rest.strip_prefix(verb))?
            .trim_start();
    let rest = rest.strip_prefix("the terms of ").unwrap_or(rest);
    let rest = rest.strip_prefix("the ").unwrap_or(rest);
    let ends = [" reproduced below", " as follows", " below"];
    Some(ends.iter().find_map(|end| rest.strip_suffix(end)).unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_of_copyright() {
        for text in [
            "Copyright (c) 2015 Sindre Sorhus <sindresorhus@gmail.com> (sindresorhus.com)",
            "Copyright 2018- The Hugging Face team. All rights reserved.",
            "© 2020 Max Planck Institute for Informatics and contributors",
            "Copyright (c) 2010 The Regents of the\nUniversity of California. All Rights Reserved.\nCopyright 2011 npm, inc.",
            "(c) 2020-present, May Research Limited",
            "2014 A. Nother",
            "",
        ] {
            assert!(is_copyright(text), "{text}");
        }
        for text in [
            "Copyright 2020 A, for research only",
            "Copyright 2020 A. No sale.",
            "Copyright 2020 A, for scholars",
            "COPYRIGHT 2020 A, FOR SCHOLARS",
            "Copyright 2020 A. This software stays here forever and nowhere else",
            "The good people",
        ] {
            assert!(!is_copyright(text), "{text}");
        }
    }

    #[test]
    fn names_of_licences() {
        let names = ["mit license".to_string(), "mit".into()];
        for line in [
            "# The MIT License (MIT)",
            "SPDX-License-Identifier: MIT",
            "License",
            "=====",
            "This project is licensed under the terms of the MIT license.",
            "foo is released under MIT, as follows:",
        ] {
            assert!(only_names(line, &names), "{line}");
        }
        for line in
            ["Apache License", "MIT, but not for sale", "This is licensed under MIT for a year", "Commons Clause"]
        {
            assert!(!only_names(line, &names), "{line}");
        }
    }
}
