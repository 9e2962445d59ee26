//! What a policy says of the licences along a lineage: which component may not be used how, which rule says so, by
//! which path the component comes in, and what the ways out are. Knows licences and lineage, no files.

use narthex_base::{
    ArtifactKind, Component, ComponentKind, Content, Error, License, LineageNode,
    config::{Policy, Use, Verdict},
    license::Term,
};
use serde::Serialize;

/// What is judged by which rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What is to be done with the component.
    #[serde(rename = "use")]
    pub uses: Use,
    /// The component's name.
    pub component: String,
    /// What it is.
    pub kind: narthex_base::ComponentKind,
    /// Its licence; absent means undeclared.
    pub license: Option<License>,
    /// What the policy says of it.
    pub verdict: Verdict,
    /// The rule's name; absent where none applies, so that it may be done.
    pub rule: Option<String>,
    /// What the rule says, in words.
    pub says: String,
    /// How the component comes in: `release ← bard-chat ← tuned on ← dialogues (dialogues.jsonl): CC-BY-NC-4.0`.
    pub path: String,
}

/// The rule against passing on what has no licence, where the policy says nothing about it.
const UNDECLARED: &str = "undeclared material is not passed on (built in)";
/// The rule behind `open_source = true`.
const OPEN_SOURCE: &str = "open-source (built in)";

/// Judges every component of an artifact, own and inherited, for one use. `top` is the artifact's lineage.
pub fn judge(policy: &Policy, uses: Use, top: &LineageNode, components: &[Component]) -> Vec<Finding> {
    components.iter().map(|component| judge_one(policy, uses, top, component)).collect()
}

/// A rule that speaks of a licence: verdict, name, and what it says.
type Spoken = (Verdict, String, String);

fn judge_one(policy: &Policy, uses: Use, top: &LineageNode, component: &Component) -> Finding {
    let of = |id: Option<&str>| strictest(policy, uses, component, id);
    let found = match &component.license {
        None => of(None),
        Some(license) => {
            // In `A OR B` the better side counts, whichever rules speak of either; in `A AND B` the worse one.
            let spoken: Vec<(String, Option<Spoken>)> =
                license.ids().into_iter().map(|id| (id.clone(), of(Some(&id)))).collect();
            let verdict = |id: &str| {
                let known = spoken.iter().find(|(known, _)| known == id);
                known.and_then(|(_, spoken)| spoken.as_ref()).map_or(Verdict::Allow, |(verdict, ..)| *verdict)
            };
            let within = |worst: Verdict| license.evaluate(|id| verdict(id) <= worst);
            let levels = [Verdict::Allow, Verdict::Ask, Verdict::Deny];
            let level = levels.into_iter().find(|worst| within(*worst)).unwrap_or(Verdict::Deny);
            spoken.into_iter().filter_map(|(_, spoken)| spoken).find(|(verdict, ..)| *verdict == level)
        }
    };
    let (mut verdict, rule, mut says) = match found {
        Some((verdict, rule, says)) => (verdict, Some(rule), says),
        None => (Verdict::Allow, None, "no rule speaks of it".to_string()),
    };
    let consent = policy.accepted.get(&component.name).filter(|consent| !consent.trim().is_empty());
    if verdict == Verdict::Ask
        && let Some(consent) = consent
    {
        verdict = Verdict::Allow;
        says += &format!("; accepted: {consent}");
    }
    Finding {
        uses,
        component: component.name.clone(),
        kind: component.kind,
        license: component.license.clone(),
        verdict,
        rule,
        says,
        path: path_to(top, component),
    }
}

/// The strictest of the rules that speak of one licence of a component; none for no licence at all.
fn strictest(policy: &Policy, uses: Use, component: &Component, id: Option<&str>) -> Option<Spoken> {
    let mut found: Option<Spoken> = None;
    let mut add = |verdict: Verdict, rule: String, says: String| {
        if found.as_ref().is_none_or(|(strictest, ..)| verdict > *strictest) {
            found = Some((verdict, rule, says));
        }
    };
    for (name, rule) in &policy.rules {
        let kind = component.kind;
        let for_use = rule.uses.is_empty() || rule.uses.contains(&uses);
        let for_kind = rule.components.is_empty()
            || rule.components.iter().any(|wanted| *wanted == kind.slug() || wanted == kind.content().name());
        let (applies, says) = match (rule.licenses.as_slice(), rule.only.as_slice()) {
            ([], []) => (true, "any licence".to_string()),
            (listed, []) => (lists(listed, id), listed.join(", ")),
            (_, only) => (!lists(only, id), format!("anything but {}", only.join(", "))),
        };
        if for_use && for_kind && applies {
            let reason = if rule.reason.is_empty() { String::new() } else { format!(": {}", rule.reason) };
            let verdict = match rule.verdict {
                Verdict::Allow => "allow",
                Verdict::Ask => "ask first",
                Verdict::Deny => "deny",
            };
            add(rule.verdict, name.clone(), format!("to {}, {verdict} {says}{reason}", uses.name()));
        }
    }
    let is_approved = || id.is_some_and(|id| Term::OsiApproved.applies(id));
    if policy.open_source && component.kind.content() == Content::Code && !is_approved() {
        let says = "every code component is under a licence that the OSI approved".to_string();
        add(Verdict::Deny, OPEN_SOURCE.into(), says);
    }
    if found.is_none() && uses == Use::Redistribute && id.is_none() {
        let says = "nobody may pass on what has no licence".to_string();
        found = Some((Verdict::Deny, UNDECLARED.into(), says));
    }
    found
}

/// Whether a list names a licence, or, for none, what is undeclared.
fn lists(listed: &[String], id: Option<&str>) -> bool {
    match id {
        None => listed.iter().any(|wanted| wanted == "undeclared"),
        Some(id) => listed.iter().any(|wanted| is_meant(wanted, id)),
    }
}

fn is_meant(wanted: &str, id: &str) -> bool {
    if let Some(term) = Term::ALL.into_iter().find(|term| term.name() == wanted) {
        return term.applies(id);
    }
    match wanted.strip_suffix('*') {
        Some(beginning) => id.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning)),
        None => {
            // Of "this version or any later" this version is the least.
            let id = if wanted.ends_with('+') { id } else { id.trim_end_matches('+') };
            wanted == id || License::parse(wanted).is_ok_and(|license| license.as_str().eq_ignore_ascii_case(id))
        }
    }
}

/// How a component comes into an artifact, from the artifact to the raw files.
pub fn path_to(top: &LineageNode, component: &Component) -> String {
    let mut trail = Vec::new();
    let license = component.license_name();
    if !find(top, component, &mut trail) {
        return format!("{} ← {}: {license}", top.name, component.name);
    }
    let mut text = String::new();
    for (i, node) in trail.iter().enumerate() {
        if i > 0 {
            text += " ← ";
            text += verb(trail[i - 1], node);
        }
        text += &node.name;
    }
    let last = trail.last().expect("the top is on every trail");
    let files: Vec<&str> = last.files.iter().map(|file| file.path.as_str()).collect();
    let files = match files.as_slice() {
        [] if last.name == component.name => String::new(),
        [] => format!(" ({})", component.name),
        [one] => format!(" ({one})"),
        [first, rest @ ..] => format!(" ({first} and {} more)", rest.len()),
    };
    format!("{text}{files}: {license}")
}

/// What the child did with the parent, where the names alone do not say it.
fn verb(child: &LineageNode, parent: &LineageNode) -> &'static str {
    let is_tuned = child.parents.iter().any(|node| node.role.as_deref() == Some("model"));
    match (child.kind, parent.role.as_deref()) {
        (ArtifactKind::Model, Some("data")) if is_tuned => "tuned on ← ",
        (ArtifactKind::Model | ArtifactKind::Predictor, Some("data")) => "trained on ← ",
        (ArtifactKind::Model | ArtifactKind::Predictor, Some("model")) => "tuned from ← ",
        (ArtifactKind::Evaluation, _) => "measured with ← ",
        (_, Some("tokenizer")) => "tokenizer of ← ",
        _ => "",
    }
}

/// The trail to the deepest ancestor that has the component as its own.
fn find<'a>(node: &'a LineageNode, component: &Component, trail: &mut Vec<&'a LineageNode>) -> bool {
    trail.push(node);
    if node.parents.iter().any(|parent| find(parent, component, trail)) {
        return true;
    }
    // What was measured on is the data of an ancestor under another name of its kind.
    let as_data = Component { kind: ComponentKind::Datasets, ..component.clone() };
    let measured_on = component.kind == ComponentKind::EvaluationData;
    let is_here = node.components.iter().any(|own| own.is_same(component) || measured_on && own.is_same(&as_data));
    if !is_here {
        trail.pop();
    }
    is_here
}

/// An error that names every finding that stands in the way: the component, the path, the rule, the ways out.
pub fn refusal(what: &str, findings: &[Finding]) -> Option<Error> {
    let against: Vec<&Finding> = findings.iter().filter(|finding| finding.verdict != Verdict::Allow).collect();
    let first = against.first()?;
    let verb = if first.verdict == Verdict::Ask { "asks before" } else { "does not allow" };
    let license = first.license.as_ref().map_or("which has no declared licence".to_string(), |l| format!("under {l}"));
    let mut error =
        Error::input(format!("the policy {verb} to {} `{}`, {license}: {what}", first.uses.name(), first.component));
    let mut said: Vec<(&str, Option<&str>)> = Vec::new();
    for finding in &against {
        let reason = (finding.path.as_str(), finding.rule.as_deref());
        // Data that was trained and measured on comes in by the same path.
        if !said.contains(&reason) {
            said.push(reason);
            error = error.cause(finding.path.clone());
            error = error.cause(format!("rule {}: {}", finding.rule.as_deref().unwrap_or_default(), finding.says));
        }
    }
    Some(error.help(ways_out(first)))
}

fn ways_out(finding: &Finding) -> String {
    let name = &finding.component;
    let mut ways = Vec::new();
    if finding.verdict == Verdict::Ask {
        ways.push(format!("write down who agreed: [policy.accepted] {name} = \"…\""));
    }
    if finding.license.is_none() {
        ways.push(format!("declare its terms, as with `license = \"…\"` in [sources.{name}]"));
    }
    ways.push(format!("make it without `{name}`, or with material under other terms"));
    match finding.rule.as_deref() {
        Some(OPEN_SOURCE) => ways.push("give up `open_source = true` in [policy]".into()),
        Some(UNDECLARED) | None => {}
        Some(rule) => ways.push(format!("change [policy.rules.{rule}]")),
    }
    ways.join("; or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_base::{Digest, Evidence, FileEntry, Presence, config::PolicyRule};
    use std::collections::BTreeMap;

    fn component(name: &str, kind: ComponentKind, license: Option<&str>) -> Component {
        let license = license.map(|text| License::parse(text).unwrap());
        Component { paths: vec!["x".into()], ..Component::new(name, kind, license, Evidence::Declared) }
    }

    fn node(role: Option<&str>, name: &str, kind: ArtifactKind, parents: Vec<LineageNode>) -> LineageNode {
        LineageNode {
            role: role.map(String::from),
            name: name.into(),
            kind,
            digest: Digest::of(name.as_bytes()),
            license: None,
            origins: vec![],
            components: vec![],
            declared: vec![],
            files: vec![],
            parents,
            repeated: false,
            presence: Presence::Complete,
        }
    }

    /// release <- bard-chat <- (bard, dialogue-tokens <- dialogues <- source)
    fn tree(license: Option<&str>) -> (LineageNode, Vec<Component>) {
        let mut source = node(Some("from"), "dialogues", ArtifactKind::Source, vec![]);
        let part = component("dialogues", ComponentKind::Datasets, license);
        source.components = vec![part.clone()];
        source.files = vec![FileEntry { path: "dialogues.jsonl".into(), bytes: 1, digest: Digest::of(b"d") }];
        let tokens = node(Some("data"), "dialogue-tokens", ArtifactKind::Tokens, vec![source]);
        let base = node(Some("model"), "bard", ArtifactKind::Model, vec![]);
        let chat = node(Some("model"), "bard-chat", ArtifactKind::Model, vec![base, tokens]);
        let top = node(None, "release", ArtifactKind::Bundle, vec![chat]);
        (top, vec![part, component("code", ComponentKind::TrainingCode, Some("Apache-2.0 OR MIT"))])
    }

    fn rule(uses: &[Use], licenses: &[&str], only: &[&str], verdict: Verdict) -> PolicyRule {
        PolicyRule {
            uses: uses.to_vec(),
            components: vec!["data".into()],
            licenses: licenses.iter().map(|text| text.to_string()).collect(),
            only: only.iter().map(|text| text.to_string()).collect(),
            verdict,
            reason: "we sell it".into(),
        }
    }

    fn policy(rules: &[(&str, PolicyRule)]) -> Policy {
        let rules = rules.iter().map(|(name, rule)| (name.to_string(), rule.clone())).collect();
        Policy { rules, ..Policy::default() }
    }

    #[test]
    fn verdicts() {
        let redistribute = Use::Redistribute;
        for (license, licenses, only, expected) in [
            (Some("CC-BY-NC-4.0"), &["non-commercial"][..], &[][..], Verdict::Deny),
            (Some("CC-BY-NC-4.0 OR MIT"), &["non-commercial"], &[], Verdict::Allow),
            (Some("CC-BY-NC-4.0 AND MIT"), &["non-commercial"], &[], Verdict::Deny),
            (Some("CC-BY-4.0"), &["CC-BY-*"], &[], Verdict::Deny),
            (Some("MIT"), &["CC-BY-*", "no-derivatives", "share-alike", "unknown"], &[], Verdict::Allow),
            (Some("LicenseRef-mine"), &["unknown"], &[], Verdict::Deny),
            (Some("LicenseRef-OpenMDW-1.1"), &[], &["OpenMDW-1.1"], Verdict::Allow),
            (Some("CC0-1.0"), &[], &["CC-BY-4.0", "CC0-1.0"], Verdict::Allow),
            (Some("GPL-3.0-only"), &[], &["CC-BY-4.0", "CC0-1.0"], Verdict::Deny),
            (Some("GPL-3.0-only"), &["share-alike"], &[], Verdict::Deny),
            (None, &["undeclared"], &[], Verdict::Deny),
            (None, &["non-commercial"], &[], Verdict::Deny),
            (None, &[], &["undeclared", "MIT"], Verdict::Allow),
        ] {
            let (top, parts) = tree(license);
            let policy = policy(&[("r", rule(&[redistribute], licenses, only, Verdict::Deny))]);
            let found = judge(&policy, redistribute, &top, &parts);
            // The built-in rule stands behind all others for what has no licence.
            let expected = if license.is_none() && !only.is_empty() { Verdict::Deny } else { expected };
            assert_eq!(found[0].verdict, expected, "{license:?} {licenses:?} {only:?}");
            assert_eq!(judge(&policy, Use::Train, &top, &parts)[0].verdict, Verdict::Allow);
            assert_eq!(found[1].verdict, Verdict::Allow, "code is not data");
        }
    }

    #[test]
    fn the_strictest_counts_and_consent_answers_a_question() {
        let (top, parts) = tree(Some("CC-BY-NC-4.0"));
        let ask = rule(&[], &["non-commercial"], &[], Verdict::Ask);
        let allow = rule(&[], &["CC-BY-*"], &[], Verdict::Allow);
        let mut policy = policy(&[("a", ask), ("z", allow)]);
        let found = judge(&policy, Use::Train, &top, &parts);
        assert_eq!((found[0].verdict, found[0].rule.as_deref()), (Verdict::Ask, Some("a")));
        let error = refusal("step `bard-chat` would", &found).unwrap();
        assert!(error.what().starts_with("the policy asks before to train `dialogues`, under CC-BY-NC-4.0"), "{error}");
        assert!(error.help_text().unwrap().contains("[policy.accepted] dialogues"), "{error}");
        policy.accepted = BTreeMap::from([("dialogues".into(), "the author, by mail".into())]);
        let found = judge(&policy, Use::Train, &top, &parts);
        assert_eq!(found[0].verdict, Verdict::Allow);
        assert!(found[0].says.contains("by mail") && refusal("x", &found).is_none());
    }

    #[test]
    fn the_path_leads_to_the_files() {
        let (top, parts) = tree(Some("CC-BY-NC-4.0"));
        let policy = policy(&[("sold", rule(&[], &["non-commercial"], &[], Verdict::Deny))]);
        let found = judge(&policy, Use::Redistribute, &top, &parts);
        let path = "release ← bard-chat ← tuned on ← dialogue-tokens ← dialogues (dialogues.jsonl): CC-BY-NC-4.0";
        assert_eq!(found[0].path, path);
        let error = refusal("bundle `release`", &found).unwrap();
        assert_eq!(error.causes()[0], path);
        assert_eq!(error.causes()[1], "rule sold: to redistribute, deny non-commercial: we sell it");
    }

    #[test]
    fn a_choice_is_none_where_every_side_is_denied() {
        let deny = |licenses: &[&str]| rule(&[], licenses, &[], Verdict::Deny);
        let policy = policy(&[("a", deny(&["non-commercial"])), ("b", deny(&["MIT"]))]);
        for (license, expected) in [
            ("CC-BY-NC-4.0 OR MIT", Verdict::Deny),
            ("CC-BY-NC-4.0 OR Zlib", Verdict::Allow),
            ("Zlib AND MIT", Verdict::Deny),
            ("(MIT OR Zlib) AND CC0-1.0", Verdict::Allow),
        ] {
            let (top, parts) = tree(Some(license));
            assert_eq!(judge(&policy, Use::Train, &top, &parts)[0].verdict, expected, "{license}");
        }
    }

    #[test]
    fn data_that_was_measured_on_is_named_once() {
        let (top, mut parts) = tree(Some("CC-BY-NC-4.0"));
        parts.push(Component { kind: ComponentKind::EvaluationData, paths: vec![], ..parts[0].clone() });
        let policy = policy(&[("sold", rule(&[], &["non-commercial"], &[], Verdict::Deny))]);
        let found = judge(&policy, Use::Redistribute, &top, &parts);
        assert_eq!((found[0].verdict, found[2].verdict), (Verdict::Deny, Verdict::Deny));
        assert_eq!(refusal("bundle `release`", &found).unwrap().causes().len(), 2);
    }

    #[test]
    fn open_source_in_the_strict_sense() {
        let (top, mut parts) = tree(Some("CC0-1.0"));
        let policy = Policy { open_source: true, ..Policy::default() };
        assert!(judge(&policy, Use::Redistribute, &top, &parts).iter().all(|f| f.verdict == Verdict::Allow));
        parts[1].license = Some(License::openmdw_1_1());
        let found = judge(&policy, Use::Redistribute, &top, &parts);
        assert_eq!((found[0].verdict, found[1].verdict), (Verdict::Allow, Verdict::Deny));
        assert!(found[1].rule.as_deref().unwrap().starts_with("open-source"));
    }
}
