//! What the card of a model or data set says about it: the YAML on top of `README.md`, as the Hugging Face Hub defines
//! it. Licence, base models and data are taken up; none of it is verified, and it is recorded as what it is.
//!
//! Source: Hugging Face Hub documentation, "Model Cards" and "Dataset Cards".

use crate::terms::Terms;
use narthex_base::{
    ArtifactKind, DeclaredOrigin, Error, License, Manifest, Parent, Result,
    declared::{DECLARED_KEY, DECLARED_MAX},
    hub_license::from_hub,
};
use narthex_ledger::{Artifact, Ledger};
use serde_json::{Value, json};
use std::{io::Read, path::Path};

/// How much of a card is read.
const CARD_BYTES_MAX: u64 = 1 << 20;
/// The longest YAML on top of one.
const FRONT_MATTER_BYTES_MAX: usize = 64 << 10;
/// The longest text of one entry that is taken up, and the most entries of a list.
const ENTRY_BYTES_MAX: usize = 500;
/// The keys that are kept as they stand.
const KEPT: [&str; 9] = [
    "license",
    "license_name",
    "license_link",
    "base_model",
    "base_model_relation",
    "datasets",
    "language",
    "tags",
    "pipeline_tag",
];

/// The metadata of a card; empty without one.
pub struct HubCard(Value);

impl HubCard {
    /// Reads `README.md` in a folder. What an export wrote says all of it better in `narthex.json`: then its card is
    /// not read.
    ///
    /// # Errors
    /// If the card is there and its YAML is wrong.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("README.md");
        if !path.is_file() || folder.join("narthex.json").is_file() {
            return Ok(Self(json!({})));
        }
        let fail = |error| Error::io("cannot read", &path, error);
        let mut bytes = Vec::new();
        std::fs::File::open(&path).map_err(fail)?.take(CARD_BYTES_MAX).read_to_end(&mut bytes).map_err(fail)?;
        Self::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| error.at(path.display(), None))
    }

    fn parse(text: &str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
        let Some(rest) = text.strip_prefix("---\n") else { return Ok(Self(json!({}))) };
        let end = rest.find("\n---").map(|end| end + 1).or(rest.starts_with("---").then_some(0));
        let Some(end) = end else { return Ok(Self(json!({}))) };
        let help = "the YAML between the first two lines `---` is wrong; correct or remove it";
        if end > FRONT_MATTER_BYTES_MAX {
            return Err(Error::input("the metadata of the card is too long").help(help));
        }
        if rest[..end].trim().is_empty() {
            return Ok(Self(json!({})));
        }
        let value: Value = serde_saphyr::from_str(&rest[..end])
            .map_err(|error| Error::input("the metadata of the card cannot be read").cause(error).help(help))?;
        let mut kept = json!({});
        for key in KEPT {
            if let Some(entry) = value.get(key).and_then(tidy) {
                kept[key] = entry;
            }
        }
        Ok(Self(kept))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }

    fn list(&self, key: &str) -> Vec<&str> {
        match self.0.get(key) {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => vec![],
        }
    }

    /// The licence that it names. Of several, all hold.
    pub fn license(&self) -> Option<License> {
        let names = self.list("license");
        let all: Option<Vec<License>> = names.iter().map(|name| from_hub(name, self.text("license_name"))).collect();
        match all?.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            many => License::parse(&many.iter().map(License::as_str).collect::<Vec<_>>().join(" AND ")).ok(),
        }
    }

    /// The terms of a folder: what the user says holds, else what the card says, held against the text that lies there.
    ///
    /// # Errors
    /// If the card and the text say different things, or the text cannot be read.
    pub fn terms(&self, said: Option<License>, folder: &Path) -> Result<Terms> {
        let card = self.license();
        let is_from_card = said.is_none() && card.is_some();
        let declared = said.or(card);
        Terms::find(declared.as_ref(), None, Some(folder)).map_err(|error| {
            if !is_from_card {
                return error;
            }
            error
                .context("the card and the licence beside it say different things")
                .help("look which of them holds, then say it: `--license SPDX`")
        })
    }

    /// What it names as ancestors.
    pub fn declared(&self) -> Vec<DeclaredOrigin> {
        let relation = self.text("base_model_relation").map(str::to_string);
        let base = self.list("base_model").into_iter().filter(|id| is_id(id)).map(|id| DeclaredOrigin {
            role: "base model".into(),
            origin: format!("hf:{id}"),
            relation: relation.clone(),
        });
        let data = self.list("datasets").into_iter().filter(|id| is_id(id)).map(|id| DeclaredOrigin {
            role: "data".into(),
            origin: format!("hf:datasets/{id}"),
            relation: None,
        });
        let mut all: Vec<DeclaredOrigin> = Vec::new();
        for origin in base.chain(data).take(DECLARED_MAX) {
            if !all.contains(&origin) {
                all.push(origin);
            }
        }
        all
    }

    /// As it stands in a recipe.
    pub fn config(&self) -> Value {
        let mut config = json!({});
        if self.0.as_object().is_some_and(|card| !card.is_empty()) {
            config["card"] = self.0.clone();
        }
        let declared = self.declared();
        if !declared.is_empty() {
            config[DECLARED_KEY] = json!(declared);
        }
        config
    }
}

/// Texts and lists of texts, of a length that a name may have.
fn tidy(value: &Value) -> Option<Value> {
    let text = |value: &Value| match value {
        Value::String(text) if text.len() <= ENTRY_BYTES_MAX && !text.contains(char::is_control) => {
            Some(json!(text.trim()))
        }
        // YAML reads `no`, the language, as false.
        Value::Bool(false) => Some(json!("no")),
        Value::Number(number) => Some(json!(number.to_string())),
        _ => None,
    };
    match value {
        Value::Array(many) => Some(Value::Array(many.iter().take(ENTRY_BYTES_MAX).filter_map(text).collect())),
        one => text(one),
    }
}

fn is_id(id: &str) -> bool {
    let fits = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    id.split('/').count() <= 2 && id.split('/').all(fits)
}

/// Makes those of the declared ancestors that the ledger holds, known by where they came from, parents of an artifact:
/// their terms then count for it too. The rest stays declared.
///
/// # Errors
/// If the ledger cannot be read.
pub fn link_declared(ledger: &Ledger, manifest: &mut Manifest) -> Result<()> {
    let declared = manifest.declared();
    if declared.is_empty() {
        return Ok(());
    }
    let mut left = Vec::new();
    for origin in declared {
        match find_origin(ledger, &origin.origin)? {
            Some((name, artifact)) => {
                let role = format!("declared {}", origin.role);
                let parent = Parent { role, name, kind: artifact.manifest.kind, digest: artifact.digest };
                if !manifest.parents.contains(&parent) {
                    manifest.parents.push(parent);
                    manifest.inherit(&artifact.manifest);
                }
            }
            None => left.push(origin),
        }
    }
    match manifest.recipe.config.as_object_mut() {
        Some(config) if left.is_empty() => drop(config.remove(DECLARED_KEY)),
        Some(config) => drop(config.insert(DECLARED_KEY.into(), json!(left))),
        None => {}
    }
    Ok(())
}

/// The newest artifact that came from a repository, and its name.
fn find_origin(ledger: &Ledger, origin: &str) -> Result<Option<(String, Artifact)>> {
    let page = origin.replacen("hf:", "https://huggingface.co/", 1);
    let fits = |text: &str| {
        let of = |wanted: &str, next: &[char]| {
            text.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(next))
        };
        of(origin, &['@']) || of(&page, &['/', ' ', ','])
    };
    for line in ledger.list()? {
        if ![ArtifactKind::Model, ArtifactKind::Bundle, ArtifactKind::Source].contains(&line.kind) {
            continue;
        }
        let Some(artifact) = ledger.find(line.digest)? else { continue };
        let own = artifact.manifest.components.iter().filter(|component| component.is_own());
        if own.filter_map(|component| component.origin.as_deref()).any(fits) {
            return Ok(Some((line.name, artifact)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards() {
        let check = |text: &str, license: Option<&str>, declared: &[&str]| {
            let card = HubCard::parse(text).unwrap();
            assert_eq!(card.license().as_ref().map(License::as_str), license, "{text}");
            let found: Vec<String> = card.declared().iter().map(|d| format!("{} {}", d.role, d.origin)).collect();
            assert_eq!(found, declared, "{text}");
        };
        check("# No metadata\n", None, &[]);
        check("---\n---\n# Empty\n", None, &[]);
        check("---\nlicense: mit\n", None, &[]);
        check("---\nlicense: apache-2.0\nlanguage: no\n---\n", Some("Apache-2.0"), &[]);
        check("\u{feff}---\r\nlicense: llama3.1\r\n---\r\n", Some("LicenseRef-llama3.1"), &[]);
        check("---\nlicense: other\nlicense_name: qwen\nlicense_link: LICENSE\n---\n", Some("LicenseRef-qwen"), &[]);
        check("---\nlicense: [mit, cc-by-4.0]\n---\n", Some("MIT AND CC-BY-4.0"), &[]);
        check("---\nlicense: [mit, unknown]\n---\n", None, &[]);
        check(
            "---\nbase_model: org/base\nbase_model_relation: finetune\ndatasets:\n- a/b\n- squad\n- a/b\n- ../x\n- https://x\n---\n",
            None,
            &["base model hf:org/base", "data hf:datasets/a/b", "data hf:datasets/squad"],
        );
        check(
            "---\nbase_model: [o/a, o/b]\ntags: [x, {y: z}]\n---\n",
            None,
            &["base model hf:o/a", "base model hf:o/b"],
        );
        let card = HubCard::parse("---\nlicense: mit\nbase_model: o/a\nmodel-index: [{name: x}]\n---\n").unwrap();
        let expected = json!({
            "card": {"license": "mit", "base_model": "o/a"},
            "declared": [{"role": "base model", "origin": "hf:o/a"}],
        });
        assert_eq!(card.config(), expected);
        let long = format!("---\nlicense: mit\nx: {}\n---\n", "y".repeat(FRONT_MATTER_BYTES_MAX));
        for text in ["---\nlicense: [mit\n---\n", "---\na: b\n\tc: d: e\n---\n", &long] {
            assert!(HubCard::parse(text).is_err(), "{text:.40}");
        }
    }

    #[test]
    fn card_and_text_that_differ() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("README.md"), "---\nlicense: cc0-1.0\n---\n").unwrap();
        std::fs::write(folder.path().join("LICENSE"), narthex_base::license::text_of("Apache-2.0").unwrap()).unwrap();
        let card = HubCard::read(folder.path()).unwrap();
        let error = card.terms(None, folder.path()).err().unwrap();
        assert!(error.what().contains("say different things") && error.help_text().unwrap().contains("--license"));
        let said = License::parse("Apache-2.0").unwrap();
        assert_eq!(card.terms(Some(said.clone()), folder.path()).unwrap().license, Some(said));
    }
}
