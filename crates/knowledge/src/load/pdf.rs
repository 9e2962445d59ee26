//! PDF: the text of its pages, in the order in which the file draws it. Knows no layout: columns and tables come as
//! the program that wrote the file wrote them, and a scanned page has no text. What forms (reusable drawings) hold is
//! not read.

mod page;

use crate::{
    document::{BlockForm, Document, Mark},
    limits::Budget,
    place::PlaceUnit,
};
use lopdf::LoadOptions;
use narthex_base::{Error, Result};

pub(crate) fn load(bytes: &[u8], budget: &mut Budget) -> Result<Document> {
    let bytes_max = usize::try_from(budget.expanded_bytes()).unwrap_or(usize::MAX);
    let options = LoadOptions { max_decompressed_size: Some(bytes_max), ..LoadOptions::default() };
    let file = lopdf::Document::load_mem_with_options(bytes, options)
        .map_err(|error| Error::input("cannot read the PDF").cause(error))?;
    if file.is_encrypted() {
        return Err(
            Error::input("the PDF is locked with a password").help("unlock it: `qpdf --password=… --decrypt OLD NEW`")
        );
    }
    let pages = file.get_pages();
    if pages.len() > budget.limits.pages_max as usize {
        let (count, max) = (pages.len(), budget.limits.pages_max);
        return Err(Error::input(format!("the PDF has {count} pages, more than `limits.pages_max = {max}` allows"))
            .help("raise `limits.pages_max`, or leave the file out with `exclude`"));
    }
    let mut document = Document::empty(PlaceUnit::Page);
    let mut broken = None;
    for (number, id) in pages {
        budget.time()?;
        let text = match page::text(&file, id, budget) {
            Ok(text) => text,
            // A page of many can be broken, or hold a font that nobody can read: the others still count.
            Err(error) => {
                broken = broken.or(Some(error.context(format!("cannot read page {number} of the PDF"))));
                continue;
            }
        };
        document.push(text.trim_start(), BlockForm::Prose, &[Mark { offset: 0, number }]);
    }
    match broken {
        _ if !document.blocks.is_empty() => Ok(document),
        Some(error) => Err(error),
        None => Err(Error::input("the PDF holds no text: its pages may be pictures")
            .help("recognise its text first: `ocrmypdf OLD NEW`")),
    }
}
