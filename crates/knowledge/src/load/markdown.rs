//! Markdown: the text as it stands, cut into its top blocks; headings are known as such. The front matter of a page is
//! left out, but for its title. Knows no HTML inside of it.

use crate::{
    document::{Block, BlockForm, Document},
    limits::Budget,
};
use narthex_base::Result;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use std::ops::Range;

/// Events between two looks at the clock.
const EVENTS_PER_LOOK: usize = 4096;

pub(crate) fn load(text: String, budget: &mut Budget) -> Result<Document> {
    let mut document = Document::of_lines(text);
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS
        | Options::ENABLE_PLUSES_DELIMITED_METADATA_BLOCKS;
    let mut blocks = Blocks::default();
    for (count, (event, range)) in Parser::new_ext(&document.text, options).into_offset_iter().enumerate() {
        if count % EVENTS_PER_LOOK == 0 {
            budget.time()?;
        }
        blocks.take(&document.text, event, range);
        budget.depth(blocks.depth)?;
    }
    document.blocks = blocks.blocks;
    document.title = blocks.title;
    Ok(document)
}

#[derive(Default)]
struct Blocks {
    blocks: Vec<Block>,
    title: Option<String>,
    /// Elements around the next event; lists and quotes around a top block do not count.
    depth: usize,
    /// Inside of the front matter.
    front: bool,
    /// Inside of a top heading: what it says so far.
    heading: Option<String>,
}

impl Blocks {
    fn take(&mut self, text: &str, event: Event, range: Range<usize>) {
        match event {
            Event::Start(tag) => {
                // Items are blocks of their own: a list can be as long as a book.
                let around = self.depth == 0 && matches!(tag, Tag::List(_) | Tag::BlockQuote(_));
                if self.depth == 0 && !around {
                    self.begin(text, &tag, range);
                }
                self.depth += usize::from(!around);
            }
            Event::End(end) => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    self.front = false;
                    if let (TagEnd::Heading(_), Some(heading), Some(block)) =
                        (end, self.heading.take(), self.blocks.last_mut())
                    {
                        block.heading = Some(heading.split_whitespace().collect::<Vec<_>>().join(" "));
                    }
                }
            }
            Event::Text(said) if self.front => self.title = self.title.take().or_else(|| title(&said)),
            Event::Text(said) | Event::Code(said) => {
                if let Some(heading) = &mut self.heading {
                    heading.push_str(&said);
                }
            }
            Event::SoftBreak | Event::HardBreak => {
                if let Some(heading) = &mut self.heading {
                    heading.push(' ');
                }
            }
            _ => (),
        }
    }

    fn begin(&mut self, text: &str, tag: &Tag, range: Range<usize>) {
        let form = match tag {
            Tag::MetadataBlock(_) => {
                self.front = true;
                return;
            }
            Tag::HtmlBlock if is_comment(&text[range.clone()]) => return,
            Tag::Heading { level, .. } => {
                self.heading = Some(String::new());
                BlockForm::Heading(*level as u8)
            }
            Tag::CodeBlock(_) | Tag::Table(_) => BlockForm::Lines,
            _ => BlockForm::Prose,
        };
        let stretch = text[range.clone()].trim_end();
        // Where lines matter, so does the space before the first of them.
        let skipped = if form == BlockForm::Lines { 0 } else { stretch.len() - stretch.trim_start().len() };
        let range = range.start + skipped..range.start + stretch.len();
        match range.is_empty() {
            true => self.heading = None,
            false => self.blocks.push(Block::of(range, form)),
        }
    }
}

fn is_comment(html: &str) -> bool {
    let html = html.trim();
    html.starts_with("<!--") && html.find("-->").is_some_and(|end| end + 3 == html.len())
}

/// `title: …` or `title = "…"` of a page's front matter.
fn title(front: &str) -> Option<String> {
    front.lines().find_map(|line| {
        let rest = line.strip_prefix("title")?.trim_start();
        let value = rest.strip_prefix([':', '='])?.trim().trim_matches(['"', '\'']).trim();
        (!value.is_empty()).then(|| value.to_string())
    })
}
