//! The class of the Model Openness Framework (White et al., 2024, arXiv:2403.13784) that components qualify for,
//! computed as the Model Openness Tool of LF AI & Data computes it, from its YAML files or from a manifest.
//!
//! Two readings share the arithmetic. The tool's own compares identifiers letter by letter, knows neither expressions
//! nor OpenMDW 1.1, and takes what it has never heard of for closed. Ours evaluates expressions and knows both.

use crate::subject::Subject;
use narthex_base::{Component, ComponentKind, Content, Error, License, Manifest, Result, license::Term};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write, path::Path};

/// Licences that the tool counts as open though neither OSI nor FSF lists them (`LicenseHandler::OPEN_DATA_LICENSES`).
const OPEN_DATA: [&str; 31] = [
    "CC0-1.0",
    "CC-BY-1.0",
    "CC-BY-2.0",
    "CC-BY-2.5",
    "CC-BY-2.5-AU",
    "CC-BY-3.0",
    "CC-BY-3.0-AT",
    "CC-BY-3.0-AU",
    "CC-BY-3.0-DE",
    "CC-BY-3.0-IGO",
    "CC-BY-3.0-NL",
    "CC-BY-3.0-US",
    "CC-BY-4.0",
    "CC-BY-SA-1.0",
    "CC-BY-SA-2.0",
    "CC-BY-SA-2.0-UK",
    "CC-BY-SA-2.1-JP",
    "CC-BY-SA-2.5",
    "CC-BY-SA-3.0",
    "CC-BY-SA-3.0-AT",
    "CC-BY-SA-4.0",
    "CDLA-Permissive-1.0",
    "CDLA-Permissive-2.0",
    "CDLA-Sharing-1.0",
    "ODC-PDDL-1.0",
    "ODC-By-1.0",
    "ODbL-1.0",
    "GFDL-1.3",
    "OGL-Canada-2.0",
    "OGL-UK-2.0",
    "OGL-UK-3.0",
];

/// Licences that we count as open besides: public domain dedications that the tool misspells or forgets, and OpenMDW
/// 1.1, which is younger than its list.
const OPEN_BESIDES: [&str; 3] = ["LicenseRef-OpenMDW-1.1", "PDDL-1.0", "CC-PDDC"];

/// Licences that fit a kind of content, by the tool's `mof-licenses.json`. What is open but not in here draws a remark.
const FITTING_CODE: [&str; 20] = [
    "0BSD",
    "AFL-1.1",
    "AFL-1.2",
    "AFL-2.0",
    "AFL-2.1",
    "AFL-3.0",
    "Apache-1.0",
    "Apache-1.1",
    "Apache-2.0",
    "ECL-1.0",
    "ECL-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MulanPSL-1.0",
    "MulanPSL-2.0",
    "NCSA",
    "UPL-1.0",
    "OpenMDW-1.0",
    "LicenseRef-OpenMDW-1.1",
];
const FITTING_DATA: [&str; 8] = [
    "CDLA-Permissive-1.0",
    "CDLA-Permissive-2.0",
    "C-UDA-1.0",
    "CC-PDDC",
    "CC0-1.0",
    "PDDL-1.0",
    "OpenMDW-1.0",
    "LicenseRef-OpenMDW-1.1",
];
const FITTING_DOCUMENTS: [&str; 9] = [
    "CC-BY-4.0",
    "CC-BY-SA-3.0",
    "CC-BY-SA-4.0",
    "FreeBSD-DOC",
    "CC-PDDC",
    "CC0-1.0",
    "Apache-2.0",
    "OpenMDW-1.0",
    "LicenseRef-OpenMDW-1.1",
];

/// What each class asks beside the class before it.
const REQUIRED: [(u8, &[ComponentKind]); 3] = [
    (
        3,
        &[
            ComponentKind::ModelArchitecture,
            ComponentKind::ModelParameters,
            ComponentKind::EvaluationResults,
            ComponentKind::ModelCard,
            ComponentKind::DataCard,
            ComponentKind::TechnicalReport,
        ],
    ),
    (
        2,
        &[
            ComponentKind::TrainingCode,
            ComponentKind::InferenceCode,
            ComponentKind::EvaluationCode,
            ComponentKind::EvaluationData,
        ],
    ),
    (
        1,
        &[
            ComponentKind::Datasets,
            ComponentKind::DataPreprocessingCode,
            ComponentKind::IntermediateParameters,
            ComponentKind::ResearchPaper,
        ],
    ),
];

/// The largest YAML file that is read.
const YAML_BYTES_MAX: u64 = 4 << 20;

/// How a component stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It is there, under an open licence.
    Open,
    /// It is there, under a licence that is not open.
    Closed,
    /// It is there without a licence.
    Unlicensed,
    /// It is not there.
    Missing,
}

/// A component as it was judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JudgedComponent {
    /// The framework's name for it.
    pub name: &'static str,
    /// What it is.
    pub kind: ComponentKind,
    /// The class that asks for it; optional ones count for none.
    pub class: u8,
    /// Whether that class cannot do without.
    pub required: bool,
    /// The licence that counts.
    pub license: Option<String>,
    /// How it stands.
    pub standing: Standing,
}

/// The class, and why it is not a better one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Openness {
    /// 3 (Open Model), 2 (Open Tooling), 1 (Open Science), or none.
    pub class: Option<u8>,
    /// The name of the class.
    pub class_name: Option<&'static str>,
    /// What stands between this and the next better class.
    pub reasons: Vec<String>,
    /// What was noticed and changes nothing.
    pub remarks: Vec<String>,
    /// All 17 components.
    pub components: Vec<JudgedComponent>,
}

/// The name of a class.
pub fn class_name(class: u8) -> &'static str {
    match class {
        3 => "Class III, Open Model",
        2 => "Class II, Open Tooling",
        _ => "Class I, Open Science",
    }
}

/// The class that asks for a component, and whether it must be there.
fn asked_by(kind: ComponentKind) -> (u8, bool) {
    match REQUIRED.iter().find(|(_, kinds)| kinds.contains(&kind)) {
        Some((class, _)) => (*class, true),
        None => match kind {
            ComponentKind::SupportingLibraries => (2, false),
            ComponentKind::ModelMetadata => (1, false),
            _ => (3, false),
        },
    }
}

/// `licenses`: what each component that is there is under; none for no licence.
fn judge(licenses: &BTreeMap<ComponentKind, Option<String>>, is_open: impl Fn(&str) -> bool) -> Openness {
    let components: Vec<JudgedComponent> = ComponentKind::ALL
        .into_iter()
        .map(|kind| {
            let (class, required) = asked_by(kind);
            let (license, standing) = match licenses.get(&kind) {
                None => (None, Standing::Missing),
                Some(None) => (None, Standing::Unlicensed),
                Some(Some(license)) if is_open(license) => (Some(license.clone()), Standing::Open),
                Some(Some(license)) => (Some(license.clone()), Standing::Closed),
            };
            JudgedComponent { name: kind.title(), kind, class, required, license, standing }
        })
        .collect();
    let open = |kind: ComponentKind| licenses.get(&kind).is_some_and(|l| l.as_deref().is_some_and(&is_open));
    // An open research paper stands for the technical report.
    let enough = |kind: ComponentKind| {
        open(kind) || kind == ComponentKind::TechnicalReport && open(ComponentKind::ResearchPaper)
    };
    let mut openness = Openness { class: None, class_name: None, reasons: vec![], remarks: vec![], components };
    for (class, kinds) in REQUIRED {
        let lacking: Vec<ComponentKind> = kinds.iter().copied().filter(|kind| !enough(*kind)).collect();
        if lacking.is_empty() {
            openness.class = Some(class);
            continue;
        }
        openness.reasons = lacking.into_iter().map(|kind| reason(class, kind, &openness.components)).collect();
        break;
    }
    openness.class_name = openness.class.map(class_name);
    openness.remarks = remarks(&openness.components);
    openness
}

fn reason(class: u8, kind: ComponentKind, components: &[JudgedComponent]) -> String {
    let name = kind.title();
    let component = components.iter().find(|component| component.kind == kind);
    let why = match component.map(|component| (component.standing, component.license.as_deref())) {
        Some((Standing::Unlicensed, _)) => "has no licence".to_string(),
        Some((Standing::Closed, Some(license))) => format!("is under {license}, which is not open"),
        _ => "is missing".to_string(),
    };
    format!("{}: {name} {why}", class_name(class).split(',').next().unwrap_or_default())
}

fn remarks(components: &[JudgedComponent]) -> Vec<String> {
    let unfit = |component: &&JudgedComponent| {
        let fitting: &[&str] = match component.kind.content() {
            Content::Code => &FITTING_CODE,
            Content::Data => &FITTING_DATA,
            Content::Document => &FITTING_DOCUMENTS,
        };
        let license = component.license.as_deref().unwrap_or_default();
        let fits = License::parse(license).is_ok_and(|license| license.evaluate(|id| fitting.contains(&id)));
        component.standing == Standing::Open && !fits && !fitting.contains(&license)
    };
    components
        .iter()
        .filter(unfit)
        .map(|component| {
            let license = component.license.as_deref().unwrap_or_default();
            let content = component.kind.content().name();
            format!("{}: {license} is open, but not made for {content}", component.name)
        })
        .collect()
}

/// Whether the tool takes a licence for open: one identifier, letter by letter.
fn tool_is_open(id: &str) -> bool {
    let listed = !id.ends_with('+') && (Term::OsiApproved.applies(id) || Term::FsfLibre.applies(id));
    listed || OPEN_DATA.contains(&id) || id == "OpenMDW-1.0"
}

/// Whether we do: an expression, and three licences more.
fn is_open(license: &str) -> bool {
    let known = |id: &str| {
        let id = id.trim_end_matches('+');
        tool_is_open(id) || OPEN_BESIDES.contains(&id)
    };
    License::parse(license).is_ok_and(|license| license.evaluate(known))
}

/// The class that an artifact qualifies for by its own components and, where a component names the address it can be
/// had from, by inherited ones.
pub fn openness(manifest: &Manifest) -> Openness {
    let licenses = licenses(manifest, is_open);
    judge(&licenses, |license| license.split(" AND ").all(is_open))
}

/// The class that the Model Openness Tool would give to the YAML file written for this artifact.
pub fn openness_by_tool(manifest: &Manifest) -> Openness {
    judge(&tool_licenses(manifest), tool_is_open)
}

/// Whether a component counts: with files, or with an address to have it from.
fn counts(component: &Component) -> bool {
    component.is_own() || component.url().is_some()
}

/// One licence for each kind of component: the worst, where there are several.
fn licenses(manifest: &Manifest, is_open: impl Fn(&str) -> bool) -> BTreeMap<ComponentKind, Option<String>> {
    let mut found: BTreeMap<ComponentKind, Option<String>> = BTreeMap::new();
    for component in manifest.components.iter().filter(|component| counts(component)) {
        let license = component.license.as_ref().map(License::to_string);
        let badness = |license: &Option<String>| match license {
            None => 2,
            Some(license) if !is_open(license) => 1,
            Some(_) => 0,
        };
        match found.get(&component.kind) {
            Some(known) if badness(known) >= badness(&license) => {}
            _ => _ = found.insert(component.kind, license),
        }
    }
    found
}

/// The same in terms that the tool understands: of `A OR B`, an open one.
fn tool_licenses(manifest: &Manifest) -> BTreeMap<ComponentKind, Option<String>> {
    let single = |license: String| {
        let parsed = License::parse(&license).ok();
        let alternative = parsed.and_then(|license| {
            let mut ids = license.ids().into_iter();
            ids.find(|id| tool_is_open(id) && license.evaluate(|other| other == id))
        });
        alternative.unwrap_or(license)
    };
    let understood = |license: &str| tool_is_open(&single(license.to_string()));
    licenses(manifest, understood).into_iter().map(|(kind, license)| (kind, license.map(single))).collect()
}

/// The YAML file that the Model Openness Tool reads.
pub fn mof_yaml(subject: &Subject) -> String {
    let manifest = subject.manifest();
    let quoted = |text: &str| Value::from(text).to_string();
    let mut text = String::from(
        "# Written from the ledger by `narthex license --format mof`.\nframework:\n  name: 'Model Openness Framework'\n  version: '1.0'\n  date: '2024-12-15'\n",
    );
    let producer = if manifest.recipe.project.is_empty() { subject.name } else { &manifest.recipe.project };
    let date =
        chrono::DateTime::from_timestamp_millis(subject.created_ms as i64).unwrap_or_default().format("%Y-%m-%d");
    let _ = write!(
        text,
        "release:\n  name: {}\n  version: '{}'\n  date: '{date}'\n  license: {{}}\n  type: 'language model'\n  architecture: 'decoder'\n  treatment: ''\n  origin: {}\n  producer: {}\n  contact: ''\n  components:\n",
        quoted(subject.name),
        subject.digest().short(),
        quoted(&format!("narthex {}", manifest.recipe.narthex)),
        quoted(producer),
    );
    for (kind, license) in tool_licenses(manifest) {
        let parts = || manifest.components.iter().filter(|c| c.kind == kind && counts(c));
        let names: Vec<String> = parts().map(|c| format!("{} ({})", c.name, c.license_name())).collect();
        let place = parts().find_map(|c| c.paths.first().map(String::as_str).or_else(|| c.url())).unwrap_or_default();
        let license = license.unwrap_or_default();
        let license_path = match License::parse(&license).ok().and_then(|license| license.ids().into_iter().next()) {
            Some(id) => format!("LICENSES/{id}.txt"),
            None => String::new(),
        };
        let _ = write!(
            text,
            "    - name: {}\n      description: {}\n      license: {}\n      license_path: {}\n      component_path: {}\n",
            quoted(kind.title()),
            quoted(&names.join(", ")),
            quoted(&license),
            quoted(&license_path),
            quoted(place)
        );
    }
    text
}

/// Reads a Model Openness Tool file and gives the class that the tool gives it.
///
/// # Errors
/// If the file cannot be read, or is not YAML with a table `release`.
pub fn read_mof(path: &Path) -> Result<Openness> {
    let size = std::fs::metadata(path).map_err(|error| Error::io("cannot read", path, error))?.len();
    if size > YAML_BYTES_MAX {
        return Err(Error::input(format!("{} has {size} bytes", path.display())).help("is this the right file?"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| Error::io("cannot read", path, error))?;
    let file: Value = serde_saphyr::from_str(&text).map_err(|error| {
        let line = error.location().map(|location| location.line() as usize);
        Error::input("this is not valid YAML").at(path.display(), line).cause(error.to_string().replace('\n', ", "))
    })?;
    evaluate_mof(&file).map_err(|error| error.at(path.display(), None))
}

/// As [`read_mof`], of what the file holds.
///
/// # Errors
/// If there is no table `release`.
pub fn evaluate_mof(file: &Value) -> Result<Openness> {
    let Some(release) = file.get("release").filter(|release| release.is_object()) else {
        return Err(Error::input("there is no table `release`")
            .help("a file of the Model Openness Tool has `framework:` and `release:` at the top"));
    };
    let mut remarks = Vec::new();
    let mut given: BTreeMap<ComponentKind, Option<&Value>> = BTreeMap::new();
    let entries = release.get("components").and_then(Value::as_array);
    if entries.is_none() {
        remarks.push("there is no list `components`".to_string());
    }
    for entry in entries.into_iter().flatten() {
        let name = entry.get("name").and_then(Value::as_str).unwrap_or_default();
        let kind = ComponentKind::ALL.into_iter().find(|kind| kind.title() == name).unwrap_or_else(|| {
            // As the tool does, by what `array_search` gives for an unknown name.
            remarks.push(format!("`{name}` is none of the 17 components: the tool takes it for Datasets"));
            ComponentKind::Datasets
        });
        if given.insert(kind, entry.get("license").filter(|license| !license.is_null())).is_some() {
            remarks.push(format!("{} stands there twice: the last one counts", kind.title()));
        }
    }
    let mut licenses = BTreeMap::new();
    let mut broken = Vec::new();
    for (kind, own) in given {
        let license = own.cloned().or_else(|| inherited(release, kind.content()));
        licenses.insert(
            kind,
            match license {
                None => None,
                Some(Value::String(text)) if ["", "0", "unlicensed"].contains(&text.as_str()) => None,
                Some(Value::String(text)) => Some(text),
                Some(other) => {
                    broken.push(format!("{}: the licence {other} is not a text", kind.title()));
                    None
                }
            },
        );
    }
    let mut openness = judge(&licenses, tool_is_open);
    remarks.append(&mut openness.remarks);
    openness.remarks = remarks;
    if !broken.is_empty() {
        // The tool gives up on such a file.
        (openness.class, openness.class_name) = (None, None);
        openness.reasons.splice(0..0, broken);
    }
    if openness.class != Some(1) {
        let newer = openness
            .components
            .iter()
            .filter(|c| c.license.as_deref().is_some_and(is_open) && c.standing == Standing::Closed);
        let newer: Vec<String> = newer
            .map(|c| {
                let license = c.license.as_deref().unwrap_or_default();
                format!("{}: {license} is open as we read it; the tool does not know it", c.name)
            })
            .collect();
        openness.remarks.extend(newer);
    }
    Ok(openness)
}

/// The licence that a component without its own has: that of its kind of content, else that of the whole.
fn inherited(release: &Value, content: Content) -> Option<Value> {
    let name = |key: &str| {
        let found = release.get("license")?.get(key)?.get("name")?;
        let is_blank = matches!(found, Value::Null) || matches!(found.as_str(), Some("" | "0"));
        (!is_blank).then(|| found.clone())
    };
    name(content.name()).or_else(|| name("distribution"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_base::{ArtifactKind, Evidence, Recipe};

    #[test]
    fn gives_the_class_that_the_tool_gives() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mof");
        let expected = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let expected: BTreeMap<String, Option<u8>> = serde_json::from_str(&expected).unwrap();
        assert!(expected.len() > 80);
        for (name, class) in expected {
            let found = read_mof(&folder.join(&name)).unwrap();
            assert_eq!(found.class, class, "{name}: {:?}", found.reasons);
            assert_eq!(found.reasons.is_empty(), class == Some(1), "{name}: {:?}", found.reasons);
        }
    }

    fn complete(license: &str) -> Manifest {
        let mut manifest = Manifest::new(ArtifactKind::Bundle, Recipe::new("release", "bundle"));
        manifest.components = ComponentKind::ALL
            .into_iter()
            .map(|kind| {
                let license = License::parse(license).ok();
                Component { paths: vec!["f".into()], ..Component::new(kind.slug(), kind, license, Evidence::Made) }
            })
            .collect();
        manifest
    }

    #[test]
    fn ours_and_the_tools() {
        for (license, ours, tools) in [
            ("OpenMDW-1.0", Some(1), Some(1)),
            ("OpenMDW-1.1", Some(1), None),
            ("Apache-2.0 OR MIT", Some(1), Some(1)),
            ("Apache-2.0 AND MIT", Some(1), None),
            ("PDDL-1.0", Some(1), None),
            ("CC-BY-NC-4.0", None, None),
            ("CC-BY-NC-4.0 OR MIT", Some(1), Some(1)),
        ] {
            let manifest = complete(license);
            assert_eq!(openness(&manifest).class, ours, "{license}");
            assert_eq!(openness_by_tool(&manifest).class, tools, "{license}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut manifest = complete("OpenMDW-1.0");
        manifest.components.retain(|component| component.kind != ComponentKind::IntermediateParameters);
        let found = openness(&manifest);
        assert_eq!((found.class, found.class_name), (Some(2), Some("Class II, Open Tooling")));
        assert_eq!(found.reasons, ["Class I: Model parameters (Intermediate) is missing"]);
        let card = manifest.components.iter_mut().find(|component| component.kind == ComponentKind::DataCard).unwrap();
        card.license = None;
        let found = openness(&manifest);
        assert_eq!((found.class, found.reasons), (None, vec!["Class III: Data card has no licence".to_string()]));
        // A second dataset under other terms decides.
        let mut manifest = complete("CC0-1.0");
        let closed = License::parse("CC-BY-NC-4.0").ok();
        let mut part = Component::new("letters", ComponentKind::Datasets, closed, Evidence::Declared);
        part.origin = Some("https://example.org/letters".into());
        manifest.components.push(part);
        let found = openness(&manifest);
        assert_eq!(found.reasons, ["Class I: Datasets is under CC-BY-NC-4.0, which is not open"]);
    }

    #[test]
    fn the_file_we_write_has_the_class_we_say() {
        let mut manifest = complete("OpenMDW-1.0");
        manifest.components[0].license = License::parse("Apache-2.0 OR MIT").ok();
        let sha256 = |_: &narthex_base::FileEntry| None;
        for remove in [None, Some(ComponentKind::DataCard), Some(ComponentKind::ResearchPaper)] {
            let mut manifest = manifest.clone();
            manifest.components.retain(|component| Some(component.kind) != remove);
            let provenance = narthex_base::Provenance { manifest, lineage: vec![] };
            let subject = Subject {
                name: "a \"b\": c",
                provenance: &provenance,
                created_ms: 1,
                family: None,
                class: None,
                sha256: &sha256,
            };
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), mof_yaml(&subject)).unwrap();
            let read = read_mof(file.path()).unwrap();
            assert_eq!(read.class, openness_by_tool(&provenance.manifest).class);
        }
    }

    #[test]
    fn broken_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (text, expected) in [("a: [", "not valid YAML"), ("framework: {}", "no table `release`"), ("", "release")] {
            let path = folder.path().join("m.yml");
            std::fs::write(&path, text).unwrap();
            let error = read_mof(&path).unwrap_err();
            assert!(error.what().contains(expected) && error.place().unwrap().contains("m.yml"), "{error}");
        }
        assert!(read_mof(&folder.path().join("none.yml")).is_err());
    }
}
