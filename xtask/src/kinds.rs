//! That a kind of step has one home: its name and its type stand in files of its own name and in two lists, and nowhere
//! else. Reads text only; what the kinds are called is read off the list in `base`.

use narthex_base::config::Step;
use std::path::Path;

/// The lists that a new kind is added to, and the modules that hand its type on.
const LISTS: [&str; 4] = [
    "crates/base/src/config/step.rs",
    "crates/run/src/steps/mod.rs",
    "crates/base/src/config/kind.rs",
    "crates/base/src/config.rs",
];

/// Names of kinds that are also words for other things (an input's role, a verb, a part of the data): only what looks
/// like a comparison of kinds is complained of.
const ALSO_OTHER_WORDS: [&str; 4] = ["data", "knowledge", "quantize", "train"];

/// Names of artifacts' kinds are a list of their own.
const OTHER_LISTS: [&str; 1] = ["crates/base/src/artifact.rs"];

/// Line and complaint for each place in a crate's source where a kind is named that is not its home.
pub fn complaints(path: &Path, text: &str) -> Vec<(usize, String)> {
    let shown = path.to_string_lossy();
    let stem = path.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    let is_test = shown.contains("/tests/") || ["tests", "testing"].contains(&&*stem);
    if !shown.starts_with("crates/") || is_test || LISTS.contains(&&*shown) {
        return vec![];
    }
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let mut found = Vec::new();
    // A kind that takes much has a crate of its name.
    let is_home = |kind: &&str| *kind == stem || shown.starts_with(&format!("crates/{kind}/"));
    for kind in Step::kind_names().into_iter().filter(|kind| !is_home(kind)) {
        for (number, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            if names(line, kind, OTHER_LISTS.contains(&&*shown)) {
                let help = "ask its `StepKind` or `Kind`, or move this into a file of its name";
                found.push((number + 1, format!("the kind `{kind}` is named outside its home: {help}")));
            }
        }
    }
    found
}

/// Whether a line names a kind: by its type, by its variant, or by its name as a string.
fn names(line: &str, kind: &str, is_other_list: bool) -> bool {
    let title = kind[..1].to_uppercase() + &kind[1..];
    if has_word(line, &format!("{title}Step")) || has_word(line, &format!("Step::{title}")) {
        return true;
    }
    let literal = format!("\"{kind}\"");
    let Some((before, after)) = line.split_once(&literal) else { return false };
    let compares =
        before.trim_end().ends_with("==") || ["=>", "|"].iter().any(|mark| after.trim_start().starts_with(mark));
    match ALSO_OTHER_WORDS.contains(&kind) {
        true => compares,
        false => !is_other_list,
    }
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(start, _)| !line[..start].ends_with(is_part) && !line[start + word.len()..].starts_with(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, line: &str, expected: bool) {
        let found = complaints(Path::new(path), &format!("//! It.\n{line}\n#[cfg(test)]\n\"tune\"\n"));
        assert_eq!(!found.is_empty(), expected, "{path}: {line}: {found:?}");
    }

    #[test]
    fn kinds_are_named_at_home_only() {
        let elsewhere = "crates/run/src/runner.rs";
        for (line, expected) in [
            ("match kind { \"train\" => 2 }", true),
            ("recipe.kind == \"data\"", true),
            ("\"data\" | \"other\" => 1", true),
            ("[\"tune\"].contains(&kind)", true),
            ("Step::Bundle(step) => step.code", true),
            ("fn f(step: &TuneStep)", true),
            ("context.input(\"data\")", false),
            ("for part in [\"train\", \"validation\"]", false),
            ("// Not as `\"tune\"` was.", false),
            ("struct TuneSteps; Step::Split(x)", false),
        ] {
            check(elsewhere, line, expected);
        }
        check("crates/run/src/steps/tune.rs", "fn f(step: &TuneStep) { \"tune\" }", false);
        check("crates/run/src/steps/mod.rs", "Step::Tune(step) => tune::make(context, step)", false);
        check("crates/base/src/artifact.rs", "ArtifactKind::Bundle => \"bundle\"", false);
        check("crates/cli/tests/cli.rs", "&[\"tune\"]", false);
    }

    /// What CONTRIBUTING promises: two files and the two lists.
    #[test]
    fn a_kind_is_two_files_and_two_lists() {
        let root = crate::tidy::root();
        let read =
            |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        for kind in Step::kind_names() {
            let title = kind[..1].to_uppercase() + &kind[1..];
            let own = [format!("crates/base/src/config/kind/{kind}.rs"), format!("crates/run/src/steps/{kind}.rs")];
            own.iter().for_each(|path| assert!(has_word(&read(path), &format!("{title}Step")), "{path}"));
            let lines = |path: &str, word: String| read(path).lines().filter(|line| has_word(line, &word)).count();
            assert_eq!(lines(LISTS[0], format!("Step::{title}")), 1, "{kind}: one arm answers");
            assert!(lines(LISTS[1], format!("Step::{title}")) >= 1, "{kind}: one arm makes");
        }
    }
}
