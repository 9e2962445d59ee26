//! What a page says of itself in its head and in its data for machines (JSON-LD with schema.org's words).

use super::{
    Extracted,
    tags::{Attribute, Tag},
    tree::Tree,
};
use serde_json::Value;

/// Values of JSON-LD that are looked at.
const VALUES: usize = 10_000;

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    /// Without text and links.
    pub page: Extracted,
    /// schema.org's `articleBody`.
    pub article: Option<String>,
}

pub(super) fn read(tree: &Tree) -> Found {
    let mut found = Found::default();
    let (mut title, mut heading) = (None, None);
    for at in 1..tree.nodes.len() {
        match tree.nodes[at].tag {
            Tag::Html if found.page.language.is_none() => {
                found.page.language = tree.attribute(at, Attribute::Lang).and_then(tidy);
            }
            Tag::Title if title.is_none() => title = tidy(&tree.content(at)),
            Tag::H1 if heading.is_none() => heading = tidy(&tree.content(at)),
            Tag::Meta => found.meta(tree, at),
            Tag::Script if tree.attribute(at, Attribute::Type) == Some("application/ld+json") => {
                if let Ok(value) = serde_json::from_str(&tree.content(at)) {
                    found.json(value);
                }
            }
            _ => (),
        }
    }
    found.page.title = found.page.title.or(title).or(heading);
    found
}

impl Found {
    fn meta(&mut self, tree: &Tree, at: usize) {
        let name = tree.attribute(at, Attribute::Property).or_else(|| tree.attribute(at, Attribute::Name));
        let Some(name) = name.or_else(|| tree.attribute(at, Attribute::Itemprop)) else { return };
        let page = &mut self.page;
        let slot = match name.to_ascii_lowercase().as_str() {
            "og:title" | "twitter:title" | "dc.title" => &mut page.title,
            "og:description" | "description" | "twitter:description" | "dc.description" => &mut page.description,
            "og:site_name" | "application-name" => &mut page.site,
            "article:published_time"
            | "og:published_time"
            | "date"
            | "dc.date"
            | "dcterms.date"
            | "pubdate"
            | "datepublished"
            | "citation_publication_date" => &mut page.date,
            "author" | "article:author" | "dc.creator" | "citation_author" | "parsely-author" => &mut page.author,
            _ => return,
        };
        if slot.is_none() {
            *slot = tree.attribute(at, Attribute::Content).and_then(tidy);
        }
    }

    fn json(&mut self, value: Value) {
        let mut values = vec![value];
        for _ in 0..VALUES {
            match values.pop() {
                None => return,
                Some(Value::Array(items)) => values.extend(items.into_iter().rev()),
                Some(Value::Object(fields)) => {
                    for (name, value) in fields {
                        match (name.as_str(), value) {
                            ("articleBody", Value::String(text)) => {
                                self.article = tidy_lines(&text).or(self.article.take())
                            }
                            ("datePublished", Value::String(date)) if self.page.date.is_none() => {
                                self.page.date = tidy(&date);
                            }
                            ("author", author) if self.page.author.is_none() => self.page.author = name_of(&author),
                            (_, value @ (Value::Object(_) | Value::Array(_))) => values.push(value),
                            _ => (),
                        }
                    }
                }
                Some(_) => (),
            }
        }
    }
}

/// The name of a person, or of the first of several.
fn name_of(author: &Value) -> Option<String> {
    let author = author.as_array().and_then(|all| all.first()).unwrap_or(author);
    author.as_str().or_else(|| author["name"].as_str()).and_then(tidy)
}

/// With runs of white space as one space; none if nothing is there.
fn tidy(text: &str) -> Option<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

fn tidy_lines(text: &str) -> Option<String> {
    let lines: Vec<String> = text.lines().filter_map(tidy).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
