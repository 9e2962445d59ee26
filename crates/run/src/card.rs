//! The documents of a bundle: model card, data card and technical report, from figures and lineage. Pure text.

use narthex_base::{ArtifactKind, Component, Error, License, LineageNode, Manifest, Provenance, Result};
use narthex_model::{ModelConfig, encoder::is_encoder};
use narthex_openness::{Subject, dataset_card_metadata, model_card_metadata, openness};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write, path::Path};

/// What the documents are made from.
pub(crate) struct Card<'a> {
    pub(crate) project: &'a str,
    pub(crate) model: &'a str,
    pub(crate) description: &'a str,
    pub(crate) license: &'a License,
    /// The bundle as it will be, and its ancestors.
    pub(crate) provenance: &'a Provenance,
    /// The model and its ancestors.
    pub(crate) made: &'a Provenance,
    pub(crate) evaluations: Vec<(&'a str, &'a BTreeMap<String, f64>)>,
    /// The model's folder.
    pub(crate) folder: &'a Path,
}

/// What the model is.
enum Form {
    /// It writes text.
    Decoder(Box<ModelConfig>),
    /// It tells labels or gives vectors: its class in transformers, and `config.json`.
    Other(String, Value),
}

impl Card<'_> {
    fn subject<'b>(&'b self, name: &'b str, provenance: &'b Provenance) -> Subject<'b> {
        let class = openness(&provenance.manifest).class;
        Subject { name, provenance, created_ms: 0, family: None, class, sha256: &|_| None }
    }

    /// `README.md` with Hugging Face's metadata on top.
    pub(crate) fn model_card(&self) -> Result<String> {
        let form = Form::read(self.folder)?;
        let mut text = front_matter(&model_card_metadata(&Subject {
            family: form.family(),
            ..self.subject(self.project, self.provenance)
        }))?;
        let _ = writeln!(text, "# {}\n", self.project);
        if !self.description.trim().is_empty() {
            let _ = writeln!(text, "{}\n", self.description.trim());
        }
        let _ = writeln!(text, "{}\n", form.shape());
        text += &form.usage();
        self.figures(&mut text);
        text += "## Lineage\n\n```text\n";
        tree(&self.made.tree(), 0, &mut text);
        text += "```\n\n## Licences\n\n";
        let _ = writeln!(text, "What this project made is under `{}` (LICENSE).", self.license);
        self.components(&mut text);
        // A model that came in from elsewhere is no step of the recipe.
        let foreign =
            self.made.all().find(|manifest| manifest.recipe.kind == "import").map(|manifest| &manifest.recipe.step);
        text += "\nThe data is described in DATA.md, the training in REPORT.md. ";
        text += &match foreign {
            None => "recipe/narthex.toml makes the model again.\n".to_string(),
            Some(name) => format!("recipe/narthex.toml makes the model again, where `{name}` has been imported.\n"),
        };
        Ok(text)
    }

    fn figures(&self, text: &mut String) {
        *text += "## Figures\n\n| measured on | figure | value |\n|---|---|---:|\n";
        let own = std::iter::once((self.model, &self.made.manifest.figures));
        for (name, figures) in own.chain(self.evaluations.iter().copied()) {
            for (figure, value) in figures {
                let _ = writeln!(text, "| {name} | {} | {} |", figure.replace('_', " "), number(*value));
            }
        }
        let figures = &self.made.manifest.figures;
        *text += match figures.contains_key("validation_f1") {
            true => {
                "\nThe validation part was held back from training. F1 and PR-AUC are of the label that predictor.json calls positive.\n\n"
            }
            false => {
                "\nNats per byte are the mean negative log-likelihood of the text held back for validation, spread over its bytes.\n\n"
            }
        };
    }

    fn components(&self, text: &mut String) {
        let inherited: Vec<&Component> =
            self.provenance.manifest.components.iter().filter(|component| !component.is_own()).collect();
        if inherited.is_empty() {
            return;
        }
        *text += "It was made from:\n\n| component | licence | origin |\n|---|---|---|\n";
        for component in inherited {
            let origin = component.origin.as_deref().unwrap_or("not stated");
            let _ = writeln!(text, "| {} | `{}` | {origin} |", component.name, component.license_name());
        }
        *text += "\nLicence texts are in LICENSES/, origins and notices in NOTICE.\n";
    }

    /// `DATA.md`: every dataset with licence, origin, files and what became of it.
    pub(crate) fn data_card(&self) -> Result<String> {
        let made_of = |kind: ArtifactKind| self.made.lineage.iter().filter(move |manifest| manifest.kind == kind);
        let documents = [ArtifactKind::Documents, ArtifactKind::Chat, ArtifactKind::Pairs, ArtifactKind::Rows]
            .into_iter()
            .find_map(|kind| made_of(kind).next());
        let mut text = match documents {
            Some(manifest) => {
                let provenance = Provenance { manifest: manifest.clone(), lineage: self.made.lineage.clone() };
                front_matter(&dataset_card_metadata(&self.subject(self.project, &provenance)))?
            }
            None => String::new(),
        };
        let _ = writeln!(
            text,
            "# The data of {}\n\nWritten from the ledger: what stands here was recorded, not claimed.\n",
            self.project
        );
        for source in made_of(ArtifactKind::Source) {
            let _ = writeln!(text, "## {}\n", source.recipe.step);
            for component in &source.components {
                let _ = writeln!(text, "- licence: `{}` ({})", component.license_name(), component.evidence);
                let _ = writeln!(text, "- origin: {}", component.origin.as_deref().unwrap_or("not stated"));
                for notice in &component.notices {
                    let _ = writeln!(text, "- notice: {}", notice.replace('\n', " "));
                }
            }
            for file in &source.files {
                let _ = writeln!(text, "- file: `{}`, {} bytes, BLAKE3 `{}`", file.path, file.bytes, file.digest);
            }
            text.push('\n');
        }
        text += "## What became of it\n\n";
        for kind in
            [ArtifactKind::Documents, ArtifactKind::Chat, ArtifactKind::Pairs, ArtifactKind::Rows, ArtifactKind::Tokens]
        {
            for manifest in made_of(kind) {
                let from: Vec<&str> = manifest.parents.iter().map(|parent| parent.name.as_str()).collect();
                let _ = writeln!(text, "### {} ({kind}), from {}\n", manifest.recipe.step, from.join(", "));
                for (figure, value) in &manifest.figures {
                    let _ = writeln!(text, "- {}: {}", figure.replace('_', " "), number(*value));
                }
                text.push('\n');
            }
        }
        Ok(text)
    }

    /// `REPORT.md`: architecture, data, training, checkpoints, results, and how to check all of it.
    pub(crate) fn report(&self) -> Result<String> {
        let form = Form::read(self.folder)?;
        let mut text = format!("# Technical report: {}\n\n## Architecture\n\n{}\n\n", self.project, form.shape());
        if let Form::Decoder(config) = &form {
            let _ = writeln!(text, "{}\n", config.in_words());
        }
        text += "## Training\n\n";
        let is_trained = |manifest: &&Manifest| matches!(manifest.kind, ArtifactKind::Model | ArtifactKind::Predictor);
        for manifest in self.made.all().filter(is_trained) {
            training(manifest, &mut text);
        }
        self.figures(&mut text);
        text += "## Checking\n\nSame recipe, same bytes, on any number of threads. With Narthex of the version above, on a processor with the instruction set above:\n\n```console\n$ narthex reproduce .          # the whole of it\n$ narthex license .            # components, licences, class\n```\n";
        Ok(text)
    }
}

fn training(manifest: &Manifest, text: &mut String) {
    let recipe = &manifest.recipe;
    let isa = recipe.isa.as_deref().unwrap_or("not recorded");
    let _ = writeln!(
        text,
        "### {} ({})\n\nNarthex {}, recipe {}, seed {}, instruction set {isa}.\n\n```json\n{}\n```\n",
        recipe.step,
        recipe.kind,
        recipe.narthex,
        recipe.version,
        recipe.seed,
        serde_json::to_string_pretty(&recipe.config).expect("a recipe serializes")
    );
    if manifest.checkpoints.is_empty() {
        return;
    }
    *text += "| step | weights (BLAKE3) | chain |\n|---:|---|---|\n";
    for checkpoint in &manifest.checkpoints {
        let _ = writeln!(
            text,
            "| {} | `{}` | `{}` |",
            checkpoint.step,
            checkpoint.weights.short(),
            checkpoint.chain.short()
        );
    }
    text.push('\n');
}

impl Form {
    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        if !is_encoder(folder) {
            return Ok(Self::Decoder(Box::new(ModelConfig::read(&path)?)));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| Error::io("cannot read", &path, error))?;
        let config: Value = serde_json::from_str(&text)
            .map_err(|error| Error::input("this config is not valid JSON").at(path.display(), error.line()))?;
        Ok(Self::Other(config["architectures"][0].as_str().unwrap_or("AutoModel").to_string(), config))
    }

    /// The family, as transformers calls it.
    fn family(&self) -> Option<&str> {
        match self {
            Self::Decoder(config) => Some(config.design.family.model_type),
            Self::Other(..) => None,
        }
    }

    /// What it is, in a sentence.
    fn shape(&self) -> String {
        match self {
            Self::Decoder(config) => format!(
                "A decoder of the family {} with {} parameters: {} blocks of width {}, {} heads ({} for keys and values), a vocabulary of {} tokens and a context of {} tokens.",
                config.design.family.model_type,
                config.parameters(),
                config.layers,
                config.hidden_size,
                config.heads,
                config.kv_heads,
                config.vocab_size,
                config.context
            ),
            Self::Other(class, config) => {
                let labels = config["id2label"].as_object();
                let told = labels.map(|labels| {
                    let names: Vec<&str> = labels.values().filter_map(Value::as_str).collect();
                    format!(" It tells {} labels apart: {}.", names.len(), names.join(", "))
                });
                format!("A `{class}` as transformers has it.{}", told.unwrap_or_default())
            }
        }
    }

    /// How to use it.
    fn usage(&self) -> String {
        let (console, class, labels) = match self {
            Self::Decoder(_) => ("$ narthex chat .\n$ narthex serve .\n", "AutoModelForCausalLM", false),
            Self::Other(class, _) if class.ends_with("ForSequenceClassification") => {
                ("$ narthex classify . \"…\"\n$ narthex serve .\n", "AutoModelForSequenceClassification", true)
            }
            Self::Other(..) => ("$ narthex serve .\n", "AutoModel", false),
        };
        let then = if labels { "# model.config.id2label names the labels\n" } else { "" };
        format!(
            "## Use\n\n```console\n{console}```\n\n```python\nfrom transformers import {class}, AutoTokenizer\n\nmodel = {class}.from_pretrained(\".\")\ntokenizer = AutoTokenizer.from_pretrained(\".\")\n{then}```\n\n"
        )
    }
}

/// Metadata between lines of three dashes.
fn front_matter(metadata: &Value) -> Result<String> {
    let yaml = serde_saphyr::to_string(metadata)
        .map_err(|error| Error::internal("the metadata of a card cannot be written").cause(error))?;
    Ok(format!("---\n{}\n---\n\n", yaml.trim_end()))
}

fn tree(node: &LineageNode, depth: usize, text: &mut String) {
    let license = node.license.as_ref().map_or("undeclared", License::as_str);
    let role = node.role.as_deref().map(|role| format!("{role}: ")).unwrap_or_default();
    let again = if node.repeated { " (see above)" } else { "" };
    let _ = writeln!(
        text,
        "{}{role}{} [{}] {} {license}{again}",
        "  ".repeat(depth),
        node.name,
        node.kind,
        node.digest.short()
    );
    node.parents.iter().for_each(|parent| tree(parent, depth + 1, text));
}

/// Whole numbers plainly, others to four digits.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value:.4}") }
}
