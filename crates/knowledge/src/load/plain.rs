//! Plain text: paragraphs between blank lines, as they stand. Knows no markup.

use crate::document::{Block, BlockForm, Document};
use narthex_base::Result;

pub(crate) fn load(text: String) -> Result<Document> {
    let mut document = Document::of_lines(text);
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    let mut at = 0;
    for line in document.text.split_inclusive('\n') {
        let end = at + line.trim_end().len();
        match blocks.last_mut() {
            _ if line.trim().is_empty() => open = false,
            Some(block) if open => block.range.end = end,
            _ => {
                blocks.push(Block::of(at..end, BlockForm::Prose));
                open = true;
            }
        }
        at += line.len();
    }
    document.blocks = blocks;
    Ok(document)
}
