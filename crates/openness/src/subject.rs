//! The artifact that a document is about.

use narthex_base::{ArtifactKind, Component, ComponentKind, Digest, FileEntry, License, Manifest, Provenance};
use std::collections::BTreeMap;

/// An artifact with what is known of it beside its manifest.
pub struct Subject<'a> {
    /// The name it goes by.
    pub name: &'a str,
    /// Its manifest and those of its ancestors.
    pub provenance: &'a Provenance,
    /// When it was made: milliseconds since 1970; 0 where that is not known.
    pub created_ms: u64,
    /// A decoder's family, as transformers calls it (`model_type`), where it is known.
    pub family: Option<&'a str>,
    /// The class of the Model Openness Framework that it qualifies for: 3, 2 or 1.
    pub class: Option<u8>,
    /// The SHA-256 of a file of it in lower-case hexadecimal digits, where the file can be read. Some formats ask for
    /// it.
    pub sha256: &'a dyn Fn(&FileEntry) -> Option<String>,
}

impl Subject<'_> {
    /// The artifact's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.provenance.manifest
    }

    /// The artifact's identity.
    pub fn digest(&self) -> Digest {
        self.manifest().digest()
    }

    /// The licence of its own components together.
    pub fn license(&self) -> Option<License> {
        self.manifest().license()
    }

    /// Its components: own and inherited.
    pub fn components(&self) -> &[Component] {
        &self.manifest().components
    }

    /// The raw sources that it was made from, each once.
    pub fn sources(&self) -> impl Iterator<Item = &Manifest> {
        self.provenance.lineage.iter().filter(|manifest| manifest.kind == ArtifactKind::Source)
    }
}

/// What the projections into other formats have in common.
impl Subject<'_> {
    /// When it was made, as the formats write times; the beginning of 1970 where that is not known.
    pub(crate) fn made_at(&self) -> String {
        timestamp(self.created_ms)
    }

    /// The project that made it; its own name where the manifest names none.
    pub(crate) fn project(&self) -> &str {
        match self.manifest().recipe.project.as_str() {
            "" => self.name,
            project => project,
        }
    }

    /// The data that it was trained or measured on: own and inherited.
    pub(crate) fn datasets(&self) -> impl Iterator<Item = &Component> {
        let is_data = |kind| matches!(kind, ComponentKind::Datasets | ComponentKind::EvaluationData);
        self.components().iter().filter(move |component| is_data(component.kind))
    }

    /// The raw sources that a component stands for: those of its name that have it, else all of its name.
    pub(crate) fn sources_of(&self, component: &Component) -> Vec<&Manifest> {
        let named: Vec<&Manifest> = self.sources().filter(|source| source.recipe.step == component.name).collect();
        let has_it = |source: &&Manifest| source.components.iter().any(|known| known.is_same(component));
        let same: Vec<&Manifest> = named.iter().copied().filter(has_it).collect();
        if same.is_empty() { named } else { same }
    }

    /// Whether it is a model.
    pub(crate) fn is_model(&self) -> bool {
        is_model(self.manifest())
    }

    /// What it is for, or, if it is data, what that is for: the Hub's name of the task, and its words.
    pub(crate) fn task(&self) -> (&'static str, &'static str) {
        let kinds = [ArtifactKind::Rows, ArtifactKind::Predictor, ArtifactKind::Model];
        let nearest = self.provenance.all().map(|manifest| manifest.kind).find(|kind| kinds.contains(kind));
        match nearest {
            Some(ArtifactKind::Rows | ArtifactKind::Predictor) => ("text-classification", "Text classification"),
            _ => ("text-generation", "Text generation"),
        }
    }

    /// The models that it descends from in unbroken line, nearest first, each once: name, digest, and manifest where it
    /// is known.
    pub(crate) fn ancestor_models(&self) -> Vec<Ancestor<'_>> {
        let mut found: Vec<Ancestor> = Vec::new();
        let mut open = vec![self.manifest()];
        while let Some(child) = open.pop() {
            for ancestor in self.parent_models(child) {
                if found.iter().all(|known| known.digest != ancestor.digest) {
                    open.extend(ancestor.manifest);
                    found.push(ancestor);
                }
            }
        }
        found
    }

    /// The models that a model was made from; none for anything else.
    pub(crate) fn parent_models<'m>(&'m self, child: &'m Manifest) -> Vec<Ancestor<'m>> {
        let parents = child.parents.iter().filter(|_| is_model(child)).map(|parent| Ancestor {
            name: &parent.name,
            digest: parent.digest,
            manifest: self.provenance.find(parent.digest),
            kind: parent.kind,
        });
        let is_kept = |parent: &Ancestor| match parent.manifest {
            Some(manifest) => is_model(manifest),
            None => matches!(parent.kind, ArtifactKind::Model | ArtifactKind::Predictor | ArtifactKind::Bundle),
        };
        parents.filter(is_kept).collect()
    }

    /// The manifest that says how the weights were made: for a bundle that of the model in it.
    pub(crate) fn trained(&self) -> &Manifest {
        let mut manifest = self.manifest();
        while manifest.kind == ArtifactKind::Bundle {
            match self.parent_models(manifest).first().and_then(|parent| parent.manifest) {
                Some(model) => manifest = model,
                None => break,
            }
        }
        manifest
    }
}

/// A model that the artifact descends from.
pub(crate) struct Ancestor<'m> {
    /// The name its child knew it by.
    pub(crate) name: &'m str,
    /// The artifact's identity.
    pub(crate) digest: Digest,
    /// What is known of it, if anything.
    pub(crate) manifest: Option<&'m Manifest>,
    /// What its child says it is.
    kind: ArtifactKind,
}

/// Whether an artifact is a model: made, passed on, or imported.
pub(crate) fn is_model(manifest: &Manifest) -> bool {
    let has_weights = || manifest.components.iter().any(|c| c.is_own() && c.kind == ComponentKind::ModelParameters);
    match manifest.kind {
        ArtifactKind::Model | ArtifactKind::Predictor | ArtifactKind::Bundle => true,
        ArtifactKind::Source => has_weights(),
        _ => false,
    }
}

/// A time in UTC to the second, as RFC 3339 writes it.
pub(crate) fn timestamp(milliseconds: u64) -> String {
    let time = i64::try_from(milliseconds).ok().and_then(chrono::DateTime::from_timestamp_millis).unwrap_or_default();
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A UUID of version 8 (RFC 9562) from the first 16 bytes of a digest: the same digest always has the same one.
pub(crate) fn uuid(digest: Digest) -> String {
    let digits = digest.to_string();
    // The variant is `10` in binary, in front of the 9th byte's other bits.
    let variant = u8::from_str_radix(&digits[16..17], 16).unwrap_or_default() & 3 | 8;
    format!(
        "{}-{}-8{}-{variant:x}{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[13..16],
        &digits[17..20],
        &digits[20..32]
    )
}

/// What tells a component from all others of an artifact: 12 digits that depend neither on notices nor on files.
pub(crate) fn component_key(component: &Component) -> String {
    Digest::of_json(&Component { notices: Default::default(), paths: vec![], ..component.clone() }).short()
}

/// The licence of a component or artifact, where somebody states one.
pub(crate) fn stated(license: Option<&License>) -> Option<&License> {
    license.filter(|license| license.as_str() != "NOASSERTION")
}

/// The texts of those licences of an expression that are not in SPDX's list, where they are known: identifier -> text.
pub(crate) fn custom_texts<'m>(
    license: &License,
    components: impl IntoIterator<Item = &'m Component>,
    manifest: &'m Manifest,
) -> BTreeMap<String, &'m str> {
    let components: Vec<&Component> = components.into_iter().collect();
    let text = |id: &str| {
        let named = components.iter().find_map(|component| component.license_texts.get(id));
        let carried = named.and_then(|digest| manifest.license_text(id, *digest));
        carried.or_else(|| narthex_base::license::text_of(id))
    };
    let custom = license.ids().into_iter().filter(|id| id.contains("LicenseRef-"));
    custom.filter_map(|id| text(&id).map(|text| (id, text))).collect()
}

/// The notices of components, each once, in order.
pub(crate) fn notices<'m>(components: impl IntoIterator<Item = &'m Component>) -> Vec<&'m str> {
    let mut all: Vec<&str> = components.into_iter().flat_map(|c| c.notices.iter().map(String::as_str)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The end of a file's name, in lower case.
pub(crate) fn extension(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map(|(_, end)| end.to_lowercase()).unwrap_or_default()
}

/// The media type of a file, by its name.
pub(crate) fn media_type(path: &str) -> &'static str {
    match extension(path).as_str() {
        "csv" => "text/csv",
        "html" => "text/html",
        "json" => "application/json",
        "jsonl" | "ndjson" => "application/jsonl",
        "md" => "text/markdown",
        "parquet" => "application/vnd.apache.parquet",
        "toml" => "application/toml",
        "txt" | "jinja" => "text/plain",
        "tsv" => "text/tab-separated-values",
        "yaml" | "yml" => "application/yaml",
        _ => match path.rsplit('/').next() {
            Some("LICENSE" | "NOTICE") => "text/plain",
            _ => "application/octet-stream",
        },
    }
}

/// The figures that measure how good something is; counts are left out.
pub(crate) fn measures(figures: &BTreeMap<String, f64>) -> impl Iterator<Item = (&str, f64)> {
    const COUNTED: [&str; 9] =
        ["bytes", "documents", "parameters", "read", "removed", "rows", "steps", "tokens", "vocabulary"];
    let is_count = |name: &str| {
        name.contains("removed: ") || name.rsplit(['_', '.']).next().is_some_and(|word| COUNTED.contains(&word))
    };
    figures.iter().filter(move |(name, _)| !is_count(name)).map(|(name, value)| (name.as_str(), *value))
}

/// What a figure was measured on and its name: `questions.exact_match`, `validation_nats_per_byte`.
pub(crate) fn split_measure(name: &str) -> (Option<&str>, &str) {
    let part = ["validation", "training", "test"]
        .into_iter()
        .find_map(|part| Some((part, name.strip_prefix(part)?.strip_prefix('_')?)));
    match (name.split_once('.'), part) {
        (Some((on, figure)), _) => (Some(on), figure),
        (None, Some((on, figure))) => (Some(on), figure),
        (None, None) => (None, name),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A chain of artifacts with all kinds of licences, and the published schemas.

    use super::*;
    use narthex_base::{Evidence, Parent, Recipe};
    use serde_json::{Value, json};

    /// The time at which the artifacts of the tests were made.
    pub(crate) const CREATED_MS: u64 = 1_795_680_000_123;

    /// The text of a licence of somebody's own.
    pub(crate) const HOUSE_TEXT: &str = "You may read these letters.";

    fn component(name: &str, kind: ComponentKind, license: Option<&str>, paths: &[&str]) -> Component {
        let license = license.map(|text| License::parse(text).unwrap());
        let paths = paths.iter().map(|path| path.to_string()).collect();
        Component { paths, ..Component::new(name, kind, license, Evidence::Made) }
    }

    fn artifact(
        kind: ArtifactKind,
        (step, step_kind): (&str, &str),
        config: Value,
        components: Vec<Component>,
        files: &[&str],
        parents: &[(&str, &Manifest)],
    ) -> Manifest {
        let recipe = Recipe { config, project: "Bard & friends".into(), ..Recipe::new(step, step_kind) };
        let entry = |path: &&str| FileEntry {
            path: path.to_string(),
            bytes: 1000,
            digest: Digest::of(format!("{step}/{path}").as_bytes()),
        };
        let parent = |(role, manifest): &(&str, &Manifest)| Parent {
            role: role.to_string(),
            name: manifest.recipe.step.clone(),
            kind: manifest.kind,
            digest: manifest.digest(),
        };
        let mut made = Manifest {
            components,
            files: files.iter().map(entry).collect(),
            parents: parents.iter().map(parent).collect(),
            ..Manifest::new(kind, recipe)
        };
        parents.iter().for_each(|(_, manifest)| made.inherit(manifest));
        made
    }

    fn source(name: &str, kind: ComponentKind, license: Option<&str>, origin: &str, files: &[&str]) -> Manifest {
        let mut own = component(name, kind, license, files);
        own.origin = Some(origin.into());
        own.evidence = Evidence::Declared;
        let config = json!({"format": "text"});
        artifact(ArtifactKind::Source, (name, "source"), config, vec![own], files, &[])
    }

    fn sources() -> [Manifest; 4] {
        let mut plays = source(
            "plays",
            ComponentKind::Datasets,
            Some("CC-BY-4.0"),
            "https://example.org/plays.txt, the plays",
            &["data/plays.txt"],
        );
        plays.components[0].notices = ["Copyright 2015 Some Body".to_string(), "Cite us.".into()].into();
        let mut letters = source(
            "letters",
            ComponentKind::Datasets,
            Some("LicenseRef-House AND CC-BY-4.0"),
            "found in an attic",
            &["data/letters.txt"],
        );
        let text = Digest::of(HOUSE_TEXT.as_bytes());
        letters.components[0].license_texts.insert("LicenseRef-House".into(), text);
        letters.texts.insert(text, HOUSE_TEXT.into());
        let dialogues = source(
            "dialogues",
            ComponentKind::Datasets,
            Some("MIT OR Apache-2.0"),
            "https://huggingface.co/datasets/example/dialogues",
            &["data/a.jsonl", "data/b.jsonl"],
        );
        let questions =
            source("questions", ComponentKind::EvaluationData, None, "written down by hand", &["data/questions.jsonl"]);
        [plays, letters, dialogues, questions]
    }

    fn documents(name: &str, kind: ArtifactKind, from: &[&Manifest]) -> Manifest {
        let files = ["train.parquet", "validation.parquet"];
        let own = from.iter().flat_map(|manifest| &manifest.components);
        let own = own.map(|c| Component { paths: files.map(String::from).to_vec(), ..c.clone() }).collect();
        let parents: Vec<(&str, &Manifest)> = from.iter().map(|manifest| ("from", *manifest)).collect();
        let mut made = artifact(kind, (name, "data"), json!({"validation": 0.1}), own, &files, &parents);
        made.figures = [("documents", 1234.0), ("bytes", 99_000.0)].map(|(name, count)| (name.into(), count)).into();
        made
    }

    fn tokens(name: &str, from: &Manifest) -> Manifest {
        let own = vec![component("tokenizer", ComponentKind::ModelMetadata, Some("OpenMDW-1.1"), &["tokenizer.json"])];
        let files = ["tokenizer.json", "train.tokens", "validation.tokens"];
        artifact(ArtifactKind::Tokens, (name, "tokenize"), json!({"vocabulary": 512}), own, &files, &[("from", from)])
    }

    fn model(step: (&str, &str), parents: &[(&str, &Manifest)]) -> Manifest {
        let files = ["config.json", "model.safetensors", "tokenizer.json"];
        let own = vec![
            component("weights", ComponentKind::ModelParameters, Some("OpenMDW-1.1"), &["model.safetensors"]),
            component(
                "configuration",
                ComponentKind::ModelMetadata,
                Some("OpenMDW-1.1"),
                &["config.json", "tokenizer.json"],
            ),
        ];
        let config =
            json!({"learning_rate": 0.001, "model": {"layers": 4, "tied": true}, "betas": [0.9, 0.95], "none": {}});
        let mut made = artifact(ArtifactKind::Model, step, config, own, &files, parents);
        made.figures = [("parameters", 1e6), ("validation_nats_per_byte", 1.25), ("steps", 100.0)]
            .map(|(name, value)| (name.into(), value))
            .into();
        made
    }

    /// An artifact with its ancestors.
    pub(crate) fn provenance(manifest: &Manifest, ancestors: &[&Manifest]) -> Provenance {
        Provenance { manifest: manifest.clone(), lineage: ancestors.iter().copied().cloned().collect() }
    }

    /// A bundle of a model tuned from a model that this project trained, measured on questions without a licence.
    pub(crate) fn bundle() -> Provenance {
        let [plays, letters, dialogues, questions] = sources();
        let texts = documents("texts", ArtifactKind::Documents, &[&plays, &letters]);
        let shards = tokens("shards", &texts);
        let base = model(("bard", "train"), &[("data", &shards)]);
        let talks = documents("talks", ArtifactKind::Chat, &[&dialogues]);
        let talk_shards = tokens("talk-shards", &talks);
        let tuned = model(("bard-chat", "tune"), &[("model", &base), ("data", &talk_shards)]);
        let results = component("evaluation", ComponentKind::EvaluationResults, Some("OpenMDW-1.1"), &["figures.json"]);
        let mut evaluation = artifact(
            ArtifactKind::Evaluation,
            ("quiz", "eval"),
            json!({}),
            vec![results],
            &["figures.json"],
            &[("model", &tuned), ("task", &questions)],
        );
        evaluation.figures.insert("exact_match".into(), 0.5);
        let own: Vec<Component> = tuned.components.iter().filter(|component| component.is_own()).cloned().collect();
        let files = ["LICENSE", "README.md", "config.json", "model.safetensors", "tokenizer.json"];
        let parents = [("model", &tuned), ("evaluations", &evaluation)];
        let mut bundle = artifact(
            ArtifactKind::Bundle,
            ("bard-release", "bundle"),
            json!({"description": ""}),
            own,
            &files,
            &parents,
        );
        bundle.figures = tuned.figures.clone();
        bundle.figures.extend([("quiz.exact_match".into(), 0.5), ("quiz.exact_match_rows".into(), 40.0)]);
        let ancestors = [
            &tuned,
            &evaluation,
            &base,
            &talk_shards,
            &questions,
            &shards,
            &talks,
            &texts,
            &dialogues,
            &plays,
            &letters,
        ];
        provenance(&bundle, &ancestors)
    }

    /// A model tuned from one that was imported.
    pub(crate) fn tuned_import() -> Provenance {
        let [_, _, dialogues, _] = sources();
        let files = ["config.json", "model.safetensors"];
        let elder = source(
            "elder",
            ComponentKind::ModelParameters,
            Some("Apache-2.0"),
            "https://huggingface.co/example/elder",
            &files,
        );
        let talks = documents("talks", ArtifactKind::Chat, &[&dialogues]);
        let tuned = model(("elder-chat", "tune"), &[("model", &elder), ("data", &talks)]);
        provenance(&tuned, &[&elder, &talks, &dialogues])
    }

    /// Documents of two sources, under licences that are joined.
    pub(crate) fn documents_of_two() -> Provenance {
        let [plays, letters, ..] = sources();
        provenance(&documents("texts", ArtifactKind::Documents, &[&plays, &letters]), &[&plays, &letters])
    }

    /// Conversations.
    pub(crate) fn chat() -> Provenance {
        let [_, _, dialogues, _] = sources();
        provenance(&documents("talks", ArtifactKind::Chat, &[&dialogues]), &[&dialogues])
    }

    /// A raw source without a licence.
    pub(crate) fn undeclared_source() -> Provenance {
        let [_, _, _, questions] = sources();
        provenance(&questions, &[])
    }

    /// An artifact of every kind that the projections must bear.
    pub(crate) fn all() -> [(&'static str, Provenance); 5] {
        [
            ("bard-release", bundle()),
            ("elder-chat", tuned_import()),
            ("texts", documents_of_two()),
            ("talks", chat()),
            ("questions", undeclared_source()),
        ]
    }

    /// A subject whose files can be read.
    pub(crate) fn subject<'a>(name: &'a str, provenance: &'a Provenance) -> Subject<'a> {
        Subject { name, provenance, created_ms: CREATED_MS, family: Some("llama"), class: Some(2), sha256: &readable }
    }

    fn readable(file: &FileEntry) -> Option<String> {
        // Any 64 digits will do.
        Some(Digest::of(file.path.as_bytes()).to_string())
    }

    fn schema(file: &str) -> Value {
        let path = format!("{}/tests/fixtures/schemas/{file}", env!("CARGO_MANIFEST_DIR"));
        // SPDX's pattern of an IRI looks ahead, which the validator cannot; this one accepts the same texts.
        let text = std::fs::read_to_string(path).unwrap().replace("^(?!_:).+:.+", "^([^_]|_[^:]).*:.+");
        serde_json::from_str(&text).unwrap()
    }

    /// A published schema, compiled.
    pub(crate) struct Validator {
        schemas: boon::Schemas,
        index: boon::SchemaIndex,
    }

    /// A published schema with those that it refers to. Formats are asserted.
    pub(crate) fn validator(file: &str, referred: &[(&str, &str)]) -> Validator {
        let mut compiler = boon::Compiler::new();
        compiler.enable_format_assertions();
        for (uri, file) in referred {
            compiler.add_resource(uri, schema(file)).unwrap();
        }
        let uri = format!("https://narthex.invalid/{file}");
        compiler.add_resource(&uri, schema(file)).unwrap();
        let mut schemas = boon::Schemas::new();
        let index = compiler.compile(&uri, &mut schemas).unwrap();
        Validator { schemas, index }
    }

    /// The complaints of a validator about a document.
    pub(crate) fn complaints(validator: &Validator, document: &Value) -> Vec<String> {
        let complaint = validator.schemas.validate(document, validator.index).err();
        complaint.into_iter().map(|error| format!("{error:.3000}")).collect()
    }

    /// All values of a key, wherever it stands.
    pub(crate) fn values_of<'v>(value: &'v Value, key: &str) -> Vec<&'v Value> {
        match value {
            Value::Object(map) => {
                let below = map.values().flat_map(|value| values_of(value, key));
                map.get(key).into_iter().chain(below).collect()
            }
            Value::Array(items) => items.iter().flat_map(|value| values_of(value, key)).collect(),
            _ => vec![],
        }
    }

    /// Writes what the projections yield, for `xtask/checks/projections_check.py`:
    /// `NARTHEX_PROJECTIONS=FOLDER cargo test -p narthex-openness --lib -- --ignored projections_to_files`.
    #[test]
    #[ignore = "writes files for readers in Python"]
    fn projections_to_files() {
        use crate::openlineage::{Dataset, RunOf, RunState, openlineage_event, run_id};
        let folder = std::path::PathBuf::from(std::env::var("NARTHEX_PROJECTIONS").unwrap());
        let json = |value: &Value| serde_json::to_string_pretty(value).unwrap() + "\n";
        for (name, provenance) in all() {
            let subject = subject(name, &provenance);
            let model_card = serde_saphyr::to_string(&crate::card::model_card_metadata(&subject)).unwrap();
            let data_card = serde_saphyr::to_string(&crate::card::dataset_card_metadata(&subject)).unwrap();
            let card = if subject.is_model() { model_card } else { data_card };
            let output = Dataset { name, manifest: subject.manifest(), digest: subject.digest() };
            let run_id = run_id(subject.digest(), CREATED_MS);
            let recipe = &subject.manifest().recipe;
            let (project, step, kind) = (&recipe.project, &recipe.step, &recipe.kind);
            let begun = RunOf { run_id: &run_id, project, step, kind, inputs: &[], output: None, error: None };
            let ended = RunOf { output: Some(output), ..begun };
            let failed = RunOf { error: Some("the disk is full"), ..begun };
            let events = [(RunState::Start, begun), (RunState::Complete, ended), (RunState::Fail, failed)];
            let events = events.map(|(state, run)| openlineage_event(state, CREATED_MS, &run).to_string() + "\n");
            for (end, text) in [
                ("spdx.json", json(&crate::spdx::spdx(&subject))),
                ("cdx.json", json(&crate::cyclonedx::cyclonedx(&subject))),
                ("card.md", format!("---\n{card}---\n\n# {name}\n")),
                ("croissant.json", json(&crate::croissant::croissant(&subject))),
                ("openlineage.ndjson", events.concat()),
            ] {
                std::fs::write(folder.join(format!("{name}.{end}")), text).unwrap();
            }
        }
    }

    #[test]
    fn times_and_uuids() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(CREATED_MS), "2026-11-26T08:00:00Z");
        assert_eq!(timestamp(u64::MAX), "1970-01-01T00:00:00Z");
        let made = uuid(Digest::of(b""));
        assert_eq!(made, "af1349b9-f5f9-81a6-a040-4dea36dcc949");
        assert_ne!(made, uuid(Digest::of(b"a")));
    }

    #[test]
    fn measures_are_told_from_counts() {
        let figures: BTreeMap<String, f64> =
            ["bytes", "quiz.exact_match", "quiz.exact_match_rows", "removed: x", "validation_nats_per_byte", "steps"]
                .map(|name| (name.to_string(), 1.0))
                .into();
        let names: Vec<_> = measures(&figures).map(|(name, _)| split_measure(name)).collect();
        assert_eq!(names, [(Some("quiz"), "exact_match"), (Some("validation"), "nats_per_byte")]);
    }

    #[test]
    fn ancestors_in_unbroken_line() {
        let made = bundle();
        let subject = subject("bard-release", &made);
        let names: Vec<_> = subject.ancestor_models().iter().map(|ancestor| ancestor.name.to_string()).collect();
        assert_eq!(names, ["bard-chat", "bard"]);
        assert_eq!(subject.trained().recipe.step, "bard-chat");
        let made = tuned_import();
        let subject = self::subject("elder-chat", &made);
        assert_eq!(subject.ancestor_models().len(), 1);
    }
}
