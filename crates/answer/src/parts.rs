//! An answer in its parts: what the model thinks, what it says, and the tools it calls. Reads text and marks piece by
//! piece; how they are cut changes nothing. Knows no wire format.

use narthex_text::calls::{CallReader, Seen};

/// A part of an answer, as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the model thinks.
    Reasoning(String),
    /// What it says.
    Text(String),
    /// It begins to call a tool.
    Call {
        /// The tool.
        name: String,
        /// The id that it gives the call, if it does.
        id: Option<String>,
    },
    /// Arguments of the latest call.
    Arguments(String),
}

/// Whether a model thinks first, and how that is marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thinking {
    /// The mark that begins thoughts.
    pub open: String,
    /// The mark that ends them.
    pub close: String,
    /// Whether the prompt ends within thoughts.
    pub begun: bool,
    /// Whether these marks are told as marks; otherwise they are looked for in the text.
    pub as_marks: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing but white space has come: thoughts may begin.
    May,
    Thinks,
    /// Thoughts have ended, and no text has come yet.
    Thought,
    Answers,
}

/// Takes an answer apart.
pub struct Parts {
    thinking: Option<Thinking>,
    calls: Option<Box<dyn CallReader>>,
    phase: Phase,
    /// Text of which it is not known yet what it is.
    held: String,
    /// Whether a thought has been given out.
    thoughtful: bool,
}

impl Parts {
    /// With thoughts and calls as they are expected.
    pub fn new(thinking: Option<Thinking>, calls: Option<Box<dyn CallReader>>) -> Self {
        let phase = match &thinking {
            Some(Thinking { begun: true, .. }) => Phase::Thinks,
            Some(_) => Phase::May,
            None => Phase::Answers,
        };
        Self { thinking, calls, phase, held: String::new(), thoughtful: false }
    }

    /// Whether the model is still at its thoughts.
    pub fn thinks(&self) -> bool {
        self.phase == Phase::Thinks
    }

    /// Text comes.
    pub fn text(&mut self, text: &str) -> Vec<Part> {
        self.held.push_str(text);
        let mut parts = vec![];
        while self.advance(&mut parts) {}
        parts
    }

    /// Looks at what is held. Returns whether there is more to look at.
    fn advance(&mut self, parts: &mut Vec<Part>) -> bool {
        let marks = self.thinking.as_ref().filter(|thinking| !thinking.as_marks);
        match self.phase {
            Phase::May => {
                let begun = self.held.trim_start();
                let open = marks.map_or("", |marks| marks.open.as_str());
                if begun.is_empty() || !open.is_empty() && open.len() > begun.len() && open.starts_with(begun) {
                    return false;
                }
                let rest = begun.strip_prefix(open).filter(|_| !open.is_empty()).map(str::to_string);
                match rest {
                    Some(rest) => {
                        self.held = rest;
                        self.phase = Phase::Thinks;
                    }
                    None => self.phase = Phase::Answers,
                }
                true
            }
            Phase::Thinks => {
                if let Some(close) = marks.map(|marks| marks.close.clone()) {
                    if let Some(at) = self.held.find(&close) {
                        let rest = self.held.split_off(at + close.len());
                        self.held.truncate(at);
                        self.think(parts, 0, true);
                        self.held = rest;
                        self.phase = Phase::Thought;
                        return true;
                    }
                    let kept = overlap(&self.held, &close);
                    self.think(parts, kept, false);
                    return false;
                }
                self.think(parts, 0, false);
                false
            }
            Phase::Thought => {
                let begun = self.held.trim_start();
                self.held = begun.to_string();
                if self.held.is_empty() {
                    return false;
                }
                self.phase = Phase::Answers;
                true
            }
            Phase::Answers => {
                let text = std::mem::take(&mut self.held);
                if !text.is_empty() {
                    match &mut self.calls {
                        Some(calls) => parts.extend(calls.text(&text).into_iter().map(part)),
                        None => parts.push(Part::Text(text)),
                    }
                }
                false
            }
        }
    }

    /// Gives out thoughts but for the last `kept` bytes, and for white space around them.
    fn think(&mut self, parts: &mut Vec<Part>, kept: usize, ends: bool) {
        let free = self.held.len() - kept;
        let trimmed = self.held[..free].trim_end().len();
        let begin = if self.thoughtful { 0 } else { trimmed - self.held[..trimmed].trim_start().len() };
        if trimmed > begin {
            parts.push(Part::Reasoning(self.held[begin..trimmed].to_string()));
            self.thoughtful = true;
            self.held.drain(..trimmed);
        }
        if ends {
            self.held.clear();
        }
    }

    /// A token comes that is no text.
    pub fn mark(&mut self, mark: &str) -> Vec<Part> {
        let mut parts = vec![];
        let marks = self.thinking.as_ref().filter(|thinking| thinking.as_marks);
        let is = |which: fn(&Thinking) -> &String| marks.is_some_and(|marks| which(marks) == mark);
        match self.phase {
            Phase::May if is(|marks| &marks.open) => {
                self.held.clear();
                self.phase = Phase::Thinks;
            }
            Phase::Thinks if is(|marks| &marks.close) => {
                self.think(&mut parts, 0, true);
                self.phase = Phase::Thought;
            }
            // Models think aloud of anything.
            Phase::Thinks => {}
            Phase::May | Phase::Thought | Phase::Answers => {
                if self.phase == Phase::Thought {
                    self.held.clear();
                }
                self.phase = Phase::Answers;
                self.advance(&mut parts);
                if let Some(calls) = &mut self.calls {
                    parts.extend(calls.token(mark).into_iter().map(part));
                }
            }
        }
        parts
    }

    /// The answer is over.
    pub fn finish(&mut self) -> Vec<Part> {
        let mut parts = vec![];
        match self.phase {
            Phase::Thinks => self.think(&mut parts, 0, true),
            Phase::Thought => {}
            Phase::May | Phase::Answers => {
                self.phase = Phase::Answers;
                self.advance(&mut parts);
            }
        }
        if let Some(calls) = &mut self.calls {
            parts.extend(calls.finish().into_iter().map(part));
        }
        parts
    }
}

fn part(seen: Seen) -> Part {
    match seen {
        Seen::Text(text) => Part::Text(text),
        Seen::Call { name, id } => Part::Call { name, id },
        Seen::Arguments(text) => Part::Arguments(text),
    }
}

/// Bytes of the longest end of `text` that is a beginning of `mark`, but not all of it.
fn overlap(text: &str, mark: &str) -> usize {
    let beginnings = mark.char_indices().map(|(length, _)| length).filter(|length| *length > 0);
    beginnings.filter(|length| text.ends_with(&mark[..*length])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_text::calls::by_name;

    /// The parts of an answer in pieces of every size, marks written as `«</think>»`: thoughts in parentheses, calls as
    /// `name[arguments]`.
    fn check(thinking: Option<(bool, bool)>, calls: bool, answer: &str, expected: &str) {
        for size in 1..=answer.len() {
            let thinking = thinking.map(|(begun, as_marks)| Thinking {
                open: "<think>".into(),
                close: "</think>".into(),
                begun,
                as_marks,
            });
            let syntax = by_name("hermes").unwrap();
            let reader = calls.then(|| syntax.reader(&[], &|mark| mark.starts_with('<').then_some(1), false));
            let mut parts = Parts::new(thinking, reader);
            let mut found = vec![];
            for (i, text) in answer.split(['«', '»']).enumerate() {
                if i % 2 == 1 {
                    found.extend(parts.mark(text));
                    continue;
                }
                let letters: Vec<char> = text.chars().collect();
                for piece in letters.chunks(size) {
                    found.extend(parts.text(&piece.iter().collect::<String>()));
                }
            }
            found.extend(parts.finish());
            let mut shown = String::new();
            let mut last = None;
            for part in found {
                let (kind, text) = match part {
                    Part::Reasoning(text) => ("thought", text),
                    Part::Text(text) => ("text", text),
                    Part::Call { name, .. } => ("call", format!("|{name}:")),
                    Part::Arguments(text) => ("arguments", text),
                };
                if kind == "thought" && last != Some("thought") {
                    shown += "(";
                }
                if kind != "thought" && last == Some("thought") {
                    shown += ")";
                }
                shown += &text;
                last = Some(kind);
            }
            if last == Some("thought") {
                shown += ")";
            }
            assert_eq!(shown, expected, "{answer} in pieces of {size}");
        }
    }

    #[test]
    fn thoughts_and_calls_are_told_apart() {
        for (thinking, calls, answer, expected) in [
            (None, false, " a <think>b</think>", " a <think>b</think>"),
            (Some((true, false)), false, "\nwell, well\n</think>\n\nYes. ", "(well, well)Yes. "),
            (Some((true, false)), false, "a </thin b", "(a </thin b)"),
            (Some((true, true)), false, "\nwell </think> x\n«</think>»\n\nYes«<|x|>»!", "(well </think> x)Yes!"),
            (Some((false, false)), false, "<think>\na\n</think>b", "(a)b"),
            (Some((false, false)), false, " \n<think>a</think>", "(a)"),
            (Some((false, true)), false, "\n«<think>»a«</think>» b", "(a)b"),
            (Some((false, true)), false, "<think>a", "<think>a"),
            (Some((false, false)), false, " <thing> a", " <thing> a"),
            (Some((false, false)), false, "", ""),
            (Some((true, true)), false, "«</think>»x", "x"),
            (
                Some((true, true)),
                true,
                "hm\n«</think>»\n\n«<tool_call>»\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n«</tool_call>»",
                "(hm)|f:{\"a\": 1}",
            ),
            (
                None,
                true,
                "So:\n«<tool_call>»{\"name\": \"f\"«</tool_call>»",
                "So:\n<tool_call>{\"name\": \"f\"</tool_call>",
            ),
            (Some((true, true)), true, "«<tool_call>»x«</think>»y", "(x)y"),
        ] {
            check(thinking, calls, answer, expected);
        }
    }
}
