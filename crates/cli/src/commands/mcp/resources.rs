//! What can be read at an address: artifacts, their lineage and their licences, the project's file and the schema of such
//! files. The bytes of artifacts are not given. Knows no wire.

use super::{desk::Desk, papers};
use crate::{commands::config, style::bytes};
use futures::future::BoxFuture;
use narthex_agent::Content;
use narthex_base::{Error, ErrorKind, Result};
use narthex_ledger::Listing;
use narthex_mcp::{Listed, Refusal, ResourceView, Resources};
use serde_json::Value;
use std::{collections::BTreeSet, fmt::Write, sync::Arc};

const SCHEME: &str = "narthex://";
const PROJECT: &str = "narthex://project";
const SCHEMA: &str = "narthex://schema";
const VARIABLE: &str = "reference";
const JSON: &str = "application/json";
const TOML: &str = "application/toml";

/// What is known of an artifact: the first part of an address, its name, and what it is.
const KINDS: [(&str, &str, &str); 3] = [
    ("artifact", "Artifact", "An artifact's manifest: files, parents, components, licences, recipe, figures"),
    ("lineage", "Lineage", "What an artifact was made from, as a tree down to the raw files"),
    ("licence", "Licences", "The licences of an artifact and of all that is in it, and what the policy says"),
];

/// What can be read.
pub struct Shown(pub Arc<Desk>);

/// The address of what a name points to.
pub fn address_of(name: &str) -> String {
    address("artifact", name)
}

/// The address of what is known of a reference.
pub fn address(kind: &str, reference: &str) -> String {
    let mut text = format!("{SCHEME}{kind}/");
    for byte in reference.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => text.push(byte.into()),
            // Writing to a string does not fail.
            _ => _ = write!(text, "%{byte:02X}"),
        }
    }
    text
}

/// The reference in an address; nothing if its escapes are wrong.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|d| d.is_ascii_hexdigit()))?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

/// What stands at an address: its media type and text.
///
/// # Errors
/// If nothing does, or it cannot be read.
pub fn at(desk: &Desk, uri: &str) -> Result<(&'static str, String)> {
    let nothing = || {
        Error::input(format!("there is nothing at {uri}"))
            .help("`resources/list` and `resources/templates/list` have what there is")
    };
    let json = |value: Value| {
        let text = serde_json::to_string_pretty(&value);
        text.map(|text| (JSON, text)).map_err(|error| Error::internal("no JSON").cause(error))
    };
    match uri {
        PROJECT => return papers::project_file(desk)?.map(|text| (TOML, text)).ok_or_else(nothing),
        SCHEMA => return json(config::schema()),
        _ => {}
    }
    let (kind, reference) = uri.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).ok_or_else(nothing)?;
    let reference = unescaped(reference).filter(|reference| !reference.is_empty()).ok_or_else(nothing)?;
    match kind {
        "artifact" => json(papers::artifact(desk, &reference)?),
        "lineage" => json(papers::lineage(desk, &reference)?),
        "licence" => json(papers::licence(desk, &reference)?),
        _ => Err(nothing()),
    }
}

/// Names that a reference could become, and after an `@` the versions of a name.
///
/// # Errors
/// If the ledger cannot be read.
pub fn references(desk: &Desk, beginning: &str) -> Result<Vec<String>> {
    if beginning.contains('@') {
        let versions = papers::all(desk)?.into_iter().map(|one| format!("{}@{}", one.name, one.digest.short()));
        return Ok(versions.filter(|version| version.starts_with(beginning)).collect());
    }
    let names: BTreeSet<String> = papers::current(desk)?.into_iter().map(|one| one.name).collect();
    Ok(names.into_iter().filter(|name| name.starts_with(beginning)).collect())
}

fn view(listing: &Listing) -> ResourceView {
    let license = listing.license.as_deref().unwrap_or("licence undeclared");
    ResourceView {
        uri: address_of(&listing.name),
        name: listing.name.clone(),
        description: Some(format!("{} {}, {}, {license}", listing.kind, listing.digest.short(), bytes(listing.bytes))),
        mime_type: Some(JSON.into()),
        bytes: None,
    }
}

fn views(desk: &Desk) -> Result<Vec<ResourceView>> {
    let one = |uri: &str, name: &str, description: &str, mime_type: &str| ResourceView {
        uri: uri.into(),
        name: name.into(),
        description: Some(description.into()),
        mime_type: Some(mime_type.into()),
        bytes: None,
    };
    let mut all = vec![];
    if papers::project_file(desk)?.is_some() {
        all.push(one(PROJECT, "narthex.toml", "The project: its sources, steps, policy and agents", TOML));
    }
    all.push(one(SCHEMA, "narthex.schema.json", "The JSON schema of narthex.toml: every key that it may have", JSON));
    all.extend(papers::current(desk)?.iter().map(view));
    Ok(all)
}

/// An error in the words of a server: what is asked for wrongly, or what broke.
fn refusal(error: &Error) -> Refusal {
    match error.kind() {
        ErrorKind::Internal => Refusal::Failed(error.to_string()),
        _ => Refusal::Unknown(error.to_string()),
    }
}

/// Does something where it may block.
pub async fn blocking<T: Send + 'static>(act: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(act).await;
    done.map_err(|error| Refusal::Failed(error.to_string()))?.map_err(|error| refusal(&error))
}

impl Resources for Shown {
    fn list(
        &self,
        _: &str,
        cursor: Option<String>,
        size: usize,
    ) -> BoxFuture<'static, Result<Listed<ResourceView>, Refusal>> {
        let desk = self.0.clone();
        Box::pin(async move {
            let all = blocking(move || views(&desk)).await?;
            let wrong = || Refusal::Input("the cursor is none of this list's: begin again without one".into());
            let begin = match &cursor {
                None => 0,
                Some(cursor) => cursor.parse::<usize>().ok().filter(|begin| *begin < all.len()).ok_or_else(wrong)?,
            };
            let end = begin.saturating_add(size.max(1)).min(all.len());
            let next = (end < all.len()).then(|| end.to_string());
            Ok(Listed { entries: all.into_iter().skip(begin).take(end - begin).collect(), next })
        })
    }

    fn templates(&self) -> Vec<ResourceView> {
        let template = |(kind, name, description): &(&str, &str, &str)| ResourceView {
            uri: format!("{SCHEME}{kind}/{{{VARIABLE}}}"),
            name: name.to_string(),
            description: Some(description.to_string()),
            mime_type: Some(JSON.into()),
            bytes: None,
        };
        KINDS.iter().map(template).collect()
    }

    fn read(&self, _: &str, uri: &str) -> BoxFuture<'static, Result<Vec<Content>, Refusal>> {
        let (desk, uri) = (self.0.clone(), uri.to_string());
        Box::pin(async move {
            let asked = uri.clone();
            let (mime_type, text) = blocking(move || at(&desk, &asked)).await?;
            Ok(vec![Content::Resource { uri, mime_type: Some(mime_type.into()), text: Some(text), blob: None }])
        })
    }

    fn complete(&self, template: &str, variable: &str, beginning: &str) -> Vec<String> {
        let is_ours = variable == VARIABLE && self.templates().iter().any(|known| known.uri == template);
        if !is_ours {
            return vec![];
        }
        // Whoever types does not want to hear of a ledger that is broken: reading will say it.
        tokio::task::block_in_place(|| references(&self.0, beginning)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_survive_addresses() {
        for (reference, expected) in [
            ("base", "narthex://artifact/base"),
            ("base@28d5", "narthex://artifact/base@28d5"),
            ("größe", "narthex://artifact/gr%C3%B6%C3%9Fe"),
            ("a%b?c#d", "narthex://artifact/a%25b%3Fc%23d"),
        ] {
            let made = address_of(reference);
            assert_eq!(made, expected);
            let inside = made.strip_prefix("narthex://artifact/").unwrap();
            assert_eq!(unescaped(inside).as_deref(), Some(reference));
        }
        for wrong in ["%", "%2", "%zz", "%+1", "%ff"] {
            assert_eq!(unescaped(wrong), None, "{wrong}");
        }
    }
}
