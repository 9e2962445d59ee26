//! Parts of a page as lines of text: where lines begin and end, and which are dropped because they stand bare, repeat
//! or are the labels of buttons. Knows nothing of which part is the main text.

use super::{patterns, tags::Attribute, tags::Tag, tree::Tree, weigh::Alive};
use foldhash::{HashSet, HashSetExt};

/// What a line is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Prose,
    Heading,
    Item,
    /// Text that stands in no paragraph or the like.
    Bare,
}

/// A repeated line shorter than this stays.
const REPEATED: usize = 60;
/// Bare text of this many bytes is prose that someone forgot to mark up.
const BARE: usize = 160;

/// The lines of some parts.
#[derive(Default)]
pub(super) struct Lines {
    lines: Vec<(Kind, String)>,
    /// Where the links in these lead to.
    pub links: Vec<String>,
    /// Bytes in paragraphs.
    pub prose: usize,
}

impl Lines {
    /// Reads the nodes in these parts that are alive. With `bare`, also short text that stands in no paragraph.
    pub(super) fn read(tree: &Tree, alive: &Alive, parts: &[usize], bare: bool) -> Self {
        let mut found = Self::default();
        let mut line = String::new();
        for part in parts {
            // The elements that say what a line is, with their ends.
            let mut around: Vec<(Kind, usize)> = vec![];
            let mut preformatted = 0;
            // Ends of blocks that the walk is in.
            let mut ends: Vec<usize> = vec![];
            let mut after_break = false;
            let mut at = *part;
            while at < tree.nodes[*part].end as usize {
                let node = &tree.nodes[at];
                while ends.last().is_some_and(|end| *end <= at) {
                    found.flush(&mut line, &around, bare || after_break);
                    ends.pop();
                    after_break = false;
                    while around.last().is_some_and(|(_, end)| *end <= at) {
                        around.pop();
                    }
                }
                if !alive.has(at) {
                    // What is taken away leaves a space, as it would on a page.
                    if node.tag != Tag::Text && !line.ends_with(char::is_whitespace) && !line.is_empty() {
                        line.push(' ');
                    }
                    at = node.end as usize;
                    continue;
                }
                let end = node.end as usize;
                match node.tag {
                    Tag::Text => {
                        push(&mut line, tree.text(at), at < preformatted);
                    }
                    Tag::Br if around.is_empty() => {
                        found.flush(&mut line, &around, true);
                        after_break = true;
                    }
                    Tag::Br => line.push('\n'),
                    Tag::A => found.links.extend(tree.attribute(at, Attribute::Href).map(str::to_string)),
                    tag if tag.is_cell() && !line.trim().is_empty() && !around.is_empty() => line.push_str(" | "),
                    tag if tag.is_block() && !tag.is_cell() || tag.is_cell() && around.is_empty() => {
                        found.flush(&mut line, &around, bare || after_break);
                        after_break = false;
                        let kind = match tag {
                            Tag::P | Tag::Blockquote | Tag::Pre | Tag::Tr | Tag::Td | Tag::Th => Some(Kind::Prose),
                            Tag::Li | Tag::Dd | Tag::Dt => Some(Kind::Item),
                            Tag::Summary => Some(Kind::Heading),
                            _ if tag.is_heading() => Some(Kind::Heading),
                            _ => None,
                        };
                        around.extend(kind.map(|kind| (kind, end)));
                        if tag == Tag::Pre {
                            preformatted = end;
                        }
                        ends.push(end);
                    }
                    _ => (),
                }
                at += 1;
            }
            found.flush(&mut line, &around, bare || after_break);
        }
        found.drop_last_headings();
        found
    }

    fn flush(&mut self, line: &mut String, around: &[(Kind, usize)], bare: bool) {
        let kind = around.last().map_or(Kind::Bare, |(kind, _)| *kind);
        let text = std::mem::take(line);
        for text in text.split('\n') {
            let text = text.trim_matches(|character: char| character.is_whitespace() || character == '|');
            let has_letters = text.chars().any(char::is_alphanumeric);
            if !has_letters || patterns::is_label(text) || (kind == Kind::Bare && !bare && text.len() < BARE) {
                continue;
            }
            if matches!(kind, Kind::Prose) {
                self.prose += text.len();
            }
            self.lines.push((kind, text.to_string()));
        }
    }

    /// Headings at the end have no text under them.
    fn drop_last_headings(&mut self) {
        while self.lines.last().is_some_and(|(kind, _)| *kind == Kind::Heading) {
            self.lines.pop();
        }
    }

    pub(super) fn length(&self) -> usize {
        self.lines.iter().map(|(_, line)| line.chars().count() + 1).sum::<usize>().saturating_sub(1)
    }

    /// The lines, each long one once.
    pub(super) fn into_text(self) -> (String, Vec<String>) {
        let mut seen = HashSet::new();
        let mut text = String::new();
        for (_, line) in &self.lines {
            if line.len() < REPEATED || seen.insert(line.as_str()) {
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(line);
            }
        }
        (text, self.links)
    }
}

/// Adds text with runs of white space as one space, or as it is.
fn push(line: &mut String, text: &str, preformatted: bool) {
    if preformatted {
        line.push_str(text);
        return;
    }
    for character in text.chars() {
        if !character.is_whitespace() {
            line.push(character);
        } else if !line.ends_with(char::is_whitespace) && !line.is_empty() {
            line.push(' ');
        }
    }
}
