//! Stop strings in a stream of text: lets text through as soon as it can no longer become part
//! of a stop string. Knows nothing of tokens.

/// Watches the text of one answer.
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text that may still turn out to begin a stop string.
    held: String,
}

impl StopMatcher {
    /// Watches for these strings, none of them empty.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Adds text. Returns what may be shown now, and the stop string that is complete, if one is. How the
    /// text is cut into pieces does not change what is shown in the end: the string that is
    /// complete first ends the answer, and of those the one that began first.
    pub fn push(&mut self, text: &str) -> (String, Option<String>) {
        self.held.push_str(text);
        let first = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start, stop)))
            .min();
        if let Some((_, start, stop)) = first {
            let shown = self.held[..start].to_string();
            self.held.clear();
            return (shown, Some(stop.clone()));
        }
        let kept = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// The answer ended otherwise: what was held back is part of it.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes of the longest end of `text` that is a beginning of `stop`, but not all of it.
fn overlap(text: &str, stop: &str) -> usize {
    stop.char_indices()
        .map(|(length, _)| length)
        .filter(|&length| length > 0 && text.ends_with(&stop[..length]))
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown after each piece (`|` between them), and how it ended.
    fn check(stops: &[&str], pieces: &[&str], expected: &str) {
        let mut matcher = StopMatcher::new(stops.iter().map(|stop| stop.to_string()).collect());
        let mut shown = Vec::new();
        for piece in pieces {
            let (text, stopped) = matcher.push(piece);
            shown.push(text);
            if stopped.is_some() {
                assert_eq!(shown.join("|") + "!", expected, "{stops:?} {pieces:?}");
                return;
            }
        }
        shown.push(matcher.finish());
        assert_eq!(shown.join("|"), expected, "{stops:?} {pieces:?}");
    }

    #[test]
    fn holds_back_only_what_may_become_a_stop() {
        check(&[], &["a", "b"], "a|b|");
        check(&["\n\n"], &["a\n", "b\n", "\nc"], "a|\nb|!");
        check(&["END"], &["the E", "N", "D of"], "the ||!");
        check(&["END"], &["the E", "NE", "ND"], "the |EN|!");
        check(&["END"], &["the E", "N"], "the ||EN");
        check(&["aab"], &["aa", "ab"], "|a!");
        check(&["ß!"], &["straß", "e", "ß", "!"], "stra|ße||!");
        check(&["\u{1f600}"], &["x\u{1f600}y"], "x!");
    }

    #[test]
    fn pieces_do_not_change_the_outcome() {
        for (stops, text, expected) in [
            (&["abcx", "c"][..], "abcx", "ab"),
            (&["bc", "abc"], "zabcd", "z"),
            (&["longer stop", "stop"], "a longer stop", "a "),
        ] {
            for size in 1..=text.len() {
                let mut matcher = StopMatcher::new(stops.iter().map(|stop| stop.to_string()).collect());
                let mut shown = String::new();
                for piece in text.as_bytes().chunks(size) {
                    let (text, stopped) = matcher.push(std::str::from_utf8(piece).unwrap());
                    shown += &text;
                    if stopped.is_some() {
                        break;
                    }
                }
                assert_eq!(shown, expected, "pieces of {size}");
            }
        }
    }
}
