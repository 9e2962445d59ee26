//! The papers that go with every folder that is passed on: `LICENSE`, `NOTICE` and `LICENSES/<id>.txt`. Pure text, made
//! from components and the licence texts that their manifest carries.

use crate::{component::Component, digest::Digest, license::License};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// Files of a folder that is passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Papers {
    /// Path -> text.
    pub files: BTreeMap<String, String>,
    /// Licences whose text is not known.
    pub unknown: BTreeSet<String>,
}

/// Whether a path is that of a paper.
pub fn is_paper(path: &str) -> bool {
    ["LICENSE", "NOTICE"].contains(&path) || path.starts_with("LICENSES/")
}

/// The papers for these components; own ones first. `texts` are the licence texts that the binary does not carry.
pub fn papers(title: &str, components: &[Component], texts: &BTreeMap<Digest, String>) -> Papers {
    let mut papers = Papers::default();
    let places = license_texts(components, texts, &mut papers);
    papers.files.insert("LICENSE".into(), license(components, &places, &papers.files));
    papers.files.insert("NOTICE".into(), notice(title, components, &places));
    papers
}

/// Where each text went: (identifier, digest) -> path.
type Places = BTreeMap<(String, Digest), String>;

/// Writes every text that a component names, once. One licence may stand there in several texts, which differ in the names
/// of those who grant it.
fn license_texts(components: &[Component], texts: &BTreeMap<Digest, String>, papers: &mut Papers) -> Places {
    let mut places = Places::new();
    for component in components {
        for id in component.license.as_ref().map(License::ids).unwrap_or_default() {
            let digest = component.license_texts.get(&id).copied();
            let known = crate::license::text_of(&id);
            let text = digest.and_then(|digest| texts.get(&digest)).map(String::as_str).or(known);
            let Some(text) = text else {
                papers.unknown.insert(id);
                continue;
            };
            let place = (id.clone(), digest.unwrap_or_else(|| Digest::of(text.as_bytes())));
            if places.contains_key(&place) {
                continue;
            }
            let plain = format!("LICENSES/{id}.txt");
            let path = match papers.files.get(&plain) {
                Some(other) if other != text => {
                    format!("LICENSES/{id}-{}.txt", Digest::of(text.as_bytes()).short())
                }
                _ => plain,
            };
            papers.files.insert(path.clone(), text.to_string());
            places.insert(place, path);
        }
    }
    places
}

/// The text of the one licence of the first component, or where the texts are.
fn license(components: &[Component], places: &Places, files: &BTreeMap<String, String>) -> String {
    let main = components.iter().find(|component| component.is_own()).or(components.first());
    let Some(license) = main.and_then(|component| component.license.as_ref()) else {
        return "No licence is declared for this. Nobody but its owner may use or pass it on.\n".into();
    };
    if let [id] = license.ids().as_slice()
        && id == license.as_str()
        && let Some((_, path)) = places.iter().find(|((known, _), _)| known == id)
    {
        return files[path].clone();
    }
    format!("SPDX-License-Identifier: {license}\n\nThe texts of the licences named here are in LICENSES/.\n")
}

fn notice(title: &str, components: &[Component], places: &Places) -> String {
    let mut text = format!("{title}\n");
    for (heading, own) in [("This folder contains:", true), ("It was made from:", false)] {
        let mut parts = components.iter().filter(|component| component.is_own() == own).peekable();
        if parts.peek().is_none() {
            continue;
        }
        let _ = writeln!(text, "\n{heading}");
        for component in parts {
            let _ = writeln!(text, "\n* {} ({}): {}", component.name, component.kind.slug(), component.license_name());
            if own {
                let _ = writeln!(text, "  files: {}", component.paths.join(", "));
            }
            let named: Vec<&str> = component
                .license_texts
                .iter()
                .filter_map(|(id, digest)| places.get(&(id.clone(), *digest)).map(String::as_str))
                .collect();
            if !named.is_empty() {
                let _ = writeln!(text, "  licence text: {}", named.join(", "));
            }
            if let Some(origin) = &component.origin {
                let _ = writeln!(text, "  origin: {origin}");
            }
            for notice in &component.notices {
                let _ = writeln!(text, "  notice: {}", notice.trim().replace('\n', "\n          "));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ComponentKind, Evidence};

    fn part(name: &str, license: &str, own: bool) -> Component {
        let license = License::parse(license).ok();
        let paths = if own { vec![format!("{name}.bin")] } else { vec![] };
        Component { paths, ..Component::new(name, ComponentKind::Datasets, license, Evidence::Declared) }
    }

    #[test]
    fn every_text_once_and_every_notice() {
        let mine = "MIT License\n\nCopyright 2020 A".to_string();
        let (digest, mut theirs) = (Digest::of(mine.as_bytes()), part("theirs", "MIT", false));
        theirs.license_texts.insert("MIT".into(), digest);
        theirs.notices.insert("Copyright 2020 A\nAll rights are kept".into());
        let unknown = part("letters", "LicenseRef-letters", false);
        let parts = [part("weights", "OpenMDW-1.1", true), part("code", "MIT OR Apache-2.0", true), theirs, unknown];
        let made = papers("bard", &parts, &BTreeMap::from([(digest, mine.clone())]));
        let names: Vec<&str> = made.files.keys().map(String::as_str).collect();
        let second = format!("LICENSES/MIT-{}.txt", digest.short());
        let expected = [
            "LICENSE",
            "LICENSES/Apache-2.0.txt",
            "LICENSES/LicenseRef-OpenMDW-1.1.txt",
            second.as_str(),
            "LICENSES/MIT.txt",
            "NOTICE",
        ];
        assert_eq!(names, expected);
        assert_eq!(made.files["LICENSE"], made.files["LICENSES/LicenseRef-OpenMDW-1.1.txt"]);
        assert_eq!(made.files[&second], mine);
        assert_eq!(made.unknown, BTreeSet::from(["LicenseRef-letters".to_string()]));
        let notice = &made.files["NOTICE"];
        assert!(
            notice.contains("files: code.bin") && notice.contains("Copyright 2020 A\n          All rights"),
            "{notice}"
        );
        assert!(notice.contains(&format!("licence text: {second}")), "{notice}");
        assert!(names.iter().all(|name| is_paper(name)) && !is_paper("README.md"));
    }

    #[test]
    fn no_licence_is_said_plainly() {
        let made = papers("x", &[part("weights", "not a licence", true)], &BTreeMap::new());
        assert!(made.files["LICENSE"].starts_with("No licence is declared"));
    }
}
