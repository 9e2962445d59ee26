//! The project's policy, asked before work begins and before anything is passed on or served.

use crate::{project::Project, source};
use narthex_base::{
    Component, ComponentKind, Digest, Error, Evidence, License, LineageNode, Presence, Result,
    config::{Use, Verdict},
    plan::{InputKind, Origin, PlannedStep},
};
use narthex_openness::{Finding, judge, refusal};
use std::collections::BTreeMap;

/// The licence of Narthex's own source code.
pub(crate) fn code_license() -> License {
    License::parse("Apache-2.0 OR MIT").expect("this is an expression")
}

/// What the code of Narthex is to a model that it made.
pub(crate) const CODE: [(ComponentKind, &str); 6] = [
    (ComponentKind::ModelArchitecture, "crates/model"),
    (ComponentKind::DataPreprocessingCode, "crates/data, crates/text"),
    (ComponentKind::TrainingCode, "crates/train"),
    (ComponentKind::InferenceCode, "crates/infer, crates/answer, crates/serve"),
    (ComponentKind::EvaluationCode, "crates/train, crates/answer, crates/run"),
    (ComponentKind::SupportingLibraries, "crates/kernels, crates/base, crates/ledger"),
];

/// The components that the source code of Narthex is, in the file at `path`.
pub(crate) fn code_components(path: &str) -> impl Iterator<Item = Component> {
    CODE.into_iter().map(move |(kind, place)| Component {
        origin: Some(format!("narthex {}: {place}", env!("CARGO_PKG_VERSION"))),
        paths: vec![path.to_string()],
        ..Component::new(kind.title().to_lowercase(), kind, Some(code_license()), Evidence::Declared)
    })
}

impl Project {
    /// Judges every step of a run by the project's policy, before any work: what is trained on, and what is bundled.
    /// The steps are in order and hold all that they need.
    ///
    /// # Errors
    /// If a source cannot be read, or a reference is unknown.
    pub fn judge_steps(&self, steps: &[&PlannedStep]) -> Result<Vec<(String, Vec<Finding>)>> {
        let mut known = BTreeMap::new();
        let mut found = Vec::new();
        for planned in steps {
            let node = self.planned_node(planned, &known)?;
            known.insert(planned.name.clone(), node);
        }
        for planned in steps {
            let Some(uses) = planned.step.kind().policy_use else { continue };
            let node = &known[&planned.name];
            let mut parts = Vec::new();
            collect(node, &mut parts);
            if uses == Use::Redistribute {
                let code = planned.step.takes_code();
                parts.extend(code.then(|| code_components("code")).into_iter().flatten());
                self.require_code(code, &planned.name)?;
            }
            found.push((planned.name.clone(), judge(&self.plan.policy, uses, node, &parts)));
        }
        Ok(found)
    }

    /// Open source without source is none.
    fn require_code(&self, code: bool, bundle: &str) -> Result<()> {
        if code || !self.plan.policy.open_source {
            return Ok(());
        }
        Err(Error::input(format!("the bundle `{bundle}` has no code, but the policy asks for open source"))
            .at(self.plan.origin("policy.open_source"), None)
            .help(format!("set `code = true` in [steps.{bundle}]: the source code of Narthex goes along")))
    }

    /// The first finding of [`Project::judge_steps`] that stands in the way, as an error.
    pub(crate) fn refuse_steps(&self, steps: &[&PlannedStep]) -> Result<()> {
        for (step, findings) in self.judge_steps(steps)? {
            self.permit(&format!("step `{step}` cannot run"), &findings)?;
        }
        Ok(())
    }

    /// An error, with its place in the project file, if a finding stands in the way.
    pub(crate) fn permit(&self, what: &str, findings: &[Finding]) -> Result<()> {
        let Some(error) = refusal(what, findings) else { return Ok(()) };
        let rule = findings.iter().find(|finding| finding.verdict != Verdict::Allow);
        let (name, rule) =
            rule.map(|finding| (finding.component.as_str(), finding.rule.as_deref())).unwrap_or_default();
        let origin = |path: String| Some(self.plan.origin(&path)).filter(|origin| *origin != Origin::Default);
        let keys = ["verdict", "licenses", "only", "use"];
        let place = keys.iter().find_map(|key| origin(format!("policy.rules.{}.{key}", rule.unwrap_or_default())));
        let place = place.or_else(|| {
            origin("policy.open_source".into()).filter(|_| rule.is_some_and(|r| r.starts_with("open-source")))
        });
        let place = place.or_else(|| origin(format!("sources.{name}.path")));
        Err(match place {
            Some(place) => error.at(place, None),
            None => error,
        })
    }

    /// A step's lineage as it will be: what is known without running anything.
    fn planned_node(&self, planned: &PlannedStep, known: &BTreeMap<String, LineageNode>) -> Result<LineageNode> {
        let mut parents = Vec::new();
        for input in &planned.inputs {
            let mut node = match input.kind {
                InputKind::Step => known[&input.name].clone(),
                InputKind::Ref => {
                    let artifact = self.ledger.resolve(&input.name)?;
                    let mut node = self.ledger.lineage(artifact.digest)?;
                    // Inherited components whose ancestors are not here count all the same.
                    node.components = artifact.manifest.components;
                    node
                }
                InputKind::Source => {
                    let manifest = source::manifest(self, &input.name, &self.plan.sources[&input.name])?;
                    let mut node = LineageNode::of(&manifest, manifest.digest());
                    // So do those that a model folder brings along.
                    node.components = manifest.components;
                    node
                }
            };
            node.role = Some(input.role.clone());
            node.name = input.name.clone();
            parents.push(node);
        }
        Ok(LineageNode {
            role: None,
            name: planned.name.clone(),
            kind: planned.step.yields(),
            digest: Digest::of(planned.name.as_bytes()),
            license: None,
            origins: vec![],
            components: vec![],
            declared: vec![],
            files: vec![],
            parents,
            repeated: false,
            presence: Presence::Missing,
        })
    }
}

/// Every component of a tree, each once.
fn collect(node: &LineageNode, parts: &mut Vec<Component>) {
    for component in &node.components {
        if !parts.iter().any(|known| known.is_same(component)) {
            parts.push(component.clone());
        }
    }
    node.parents.iter().for_each(|parent| collect(parent, parts));
}
