//! Documents and the pieces that they become.

use super::*;
use crate::{kind::FileKind, load::load_bytes};
use narthex_base::{
    Error,
    config::{LoadLimits, SplitUnit},
};

/// Counts words: what lies between spaces.
struct Spaced;

impl Measure for Spaced {
    fn identity(&self) -> String {
        "spaced".into()
    }

    fn measure(&self, text: &str) -> Result<usize> {
        Ok(text.split_whitespace().count())
    }
}

fn pieces(text: &str, kind: FileKind, size: u32, overlap: u32, measure: &dyn Measure) -> Vec<Piece> {
    let document = load_bytes(kind, text.as_bytes(), &LoadLimits::default()).unwrap();
    let settings = SplitSettings { unit: SplitUnit::Tokens, size, overlap };
    split(&document, &settings, measure).unwrap()
}

/// Pieces as `from-to headings: text`.
fn check(text: &str, size: u32, overlap: u32, expected: &[&str]) {
    let shown: Vec<String> = pieces(text, FileKind::Markdown, size, overlap, &Spaced)
        .iter()
        .map(|piece| {
            let text = piece.text.replace('\n', "⏎");
            format!("{}-{} {}: {text}", piece.place.from, piece.place.to, piece.headings.join(">"))
        })
        .collect();
    assert_eq!(shown, expected, "{text:?} {size} {overlap}");
}

#[test]
fn headings_are_borders_and_paths() {
    check("# A\n\na b\n\n## B\n\nc\n\n# C\n\nd", 9, 0, &["3-3 A: a b", "7-7 A>B: c", "11-11 C: d"]);
    // With something below it, a heading is in a path; with nothing, it is a passage.
    check("# A\n\n## B\n\nb\n\n## Empty\n\n# Last\n", 9, 0, &["5-5 A>B: b", "7-7 A: ## Empty", "9-9 : # Last"]);
    check("### deep\n\nx\n\n# up\n\ny", 9, 0, &["3-3 deep: x", "7-7 up: y"]);
    check("---\ntitle: T\n---\n\na\n\n# H\n\nb", 9, 0, &["5-5 T: a", "9-9 T>H: b"]);
    check("---\ntitle: T\n---\n\n# T\n\nb", 9, 0, &["7-7 T: b"]);
    check("", 9, 0, &[]);
}

#[test]
fn blocks_then_sentences_then_words() {
    check("a b\n\nc d\n\ne f", 4, 0, &["1-3 : a b⏎⏎c d", "5-5 : e f"]);
    // A block's end is better than a full piece, unless it leaves less than half.
    check("a b c\n\nd. e. f. g. h.", 5, 0, &["1-1 : a b c", "3-3 : d. e. f. g. h."]);
    check("a\n\nB c. D e. F g. H i.", 6, 0, &["1-3 : a⏎⏎B c. D e.", "3-3 : F g. H i."]);
    // A line end is no end of a sentence.
    check("A b\nc d.\nE f.", 4, 0, &["1-2 : A b⏎c d.", "3-3 : E f."]);
    check("a b c d e f g", 3, 0, &["1-1 : a b c", "1-1 : d e f", "1-1 : g"]);
    // Code is cut between lines.
    check("```\na b\nc d\n```", 3, 0, &["1-2 : ```⏎a b", "3-4 : c d⏎```"]);
}

#[test]
fn overlap_repeats_whole_sentences() {
    check("A b. C d. E f. G h.", 4, 2, &["1-1 : A b. C d.", "1-1 : C d. E f.", "1-1 : E f. G h."]);
    // What is new comes first: no room, no overlap.
    check("A b. C d. E f g h.", 4, 2, &["1-1 : A b. C d.", "1-1 : E f g h."]);
    check("A b. C d e. F g.", 5, 1, &["1-1 : A b. C d e.", "1-1 : F g."]);
    check("# X\n\na b\n\n# Y\n\nc d", 2, 1, &["3-3 X: a b", "7-7 Y: c d"]);
}

#[test]
fn nothing_is_lost_and_nothing_too_long() {
    let words: Vec<String> =
        (0..400).map(|n| if n % 7 == 6 { format!("w{n}.\n\n") } else { format!("w{n}") }).collect();
    let text = words.join(" ") + &"x".repeat(3000) + &"é ".repeat(500) + &"漢".repeat(700) + " … 👩‍👩‍👧 end";
    for (size, overlap) in [(16, 0), (17, 8), (64, 32), (100, 1), (100_000, 0)] {
        for (measure, name) in [(&Spaced as &dyn Measure, "spaced"), (&Characters, "characters")] {
            let pieces = pieces(&text, FileKind::Text, size, overlap, measure);
            let dense = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let mut rest = dense(&text);
            for piece in &pieces {
                let length = measure.measure(&piece.text).unwrap();
                assert!(length <= size as usize && length > 0, "{name} {size}: {length}");
                // Each piece goes on where the former ended, or repeats its end.
                let piece = dense(&piece.text);
                let new = (0..=piece.len())
                    .filter(|at| piece.is_char_boundary(*at))
                    .find(|at| rest.starts_with(&piece[*at..]));
                let new = &piece[new.unwrap()..];
                assert!(!new.is_empty() || rest.is_empty(), "{name} {size} {overlap}: no progress at {piece}");
                rest = rest.strip_prefix(new).unwrap().to_string();
            }
            assert_eq!(rest, "", "{name} {size} {overlap}");
        }
    }
}

#[test]
fn a_character_that_does_not_fit_is_kept() {
    struct Heavy;
    impl Measure for Heavy {
        fn identity(&self) -> String {
            "heavy".into()
        }
        fn measure(&self, text: &str) -> Result<usize> {
            Ok(text.chars().count() * 100)
        }
    }
    let pieces = pieces("ab c", FileKind::Text, 16, 0, &Heavy);
    assert_eq!(pieces.iter().map(|piece| piece.text.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn a_measure_that_fails_is_heard() {
    struct Broken;
    impl Measure for Broken {
        fn identity(&self) -> String {
            "broken".into()
        }
        fn measure(&self, _: &str) -> Result<usize> {
            Err(Error::input("no tokenizer"))
        }
    }
    let document = load_bytes(FileKind::Text, b"a", &LoadLimits::default()).unwrap();
    assert_eq!(split(&document, &SplitSettings::default(), &Broken).unwrap_err().what(), "no tokenizer");
}
