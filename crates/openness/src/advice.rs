//! What would bring an artifact to the next better class, as commands.

use crate::mof::{JudgedComponent, Openness, Standing};
use narthex_base::{ArtifactKind, Component, ComponentKind, License, Manifest};

/// For each component that the next class lacks: the reason, and what to type or write.
pub fn advice(manifest: &Manifest, openness: &Openness) -> Vec<(String, String)> {
    let lacking = |reason: &String| {
        let of = |component: &&JudgedComponent| reason.contains(&format!(": {} ", component.name));
        openness.components.iter().find(of)
    };
    let ways = openness.reasons.iter().map(|reason| {
        let way = lacking(reason).map(|component| way(manifest, component)).unwrap_or_default();
        (reason.clone(), way)
    });
    ways.collect()
}

fn way(manifest: &Manifest, lacking: &JudgedComponent) -> String {
    let step = &manifest.recipe.step;
    if manifest.kind != ArtifactKind::Bundle {
        return "bundle it: a step of kind `bundle`, then `narthex bundle`".into();
    }
    let stands = |component: &&Component| match lacking.standing {
        Standing::Unlicensed => component.license.is_none(),
        Standing::Closed => component.license.as_ref().map(License::as_str) == lacking.license.as_deref(),
        Standing::Missing | Standing::Open => true,
    };
    let parts = manifest.components.iter().filter(|component| component.kind == lacking.kind).filter(stands);
    let names: Vec<&str> = parts.map(|component| component.name.as_str()).collect();
    let name = names.first().copied().unwrap_or_default();
    match lacking.standing {
        Standing::Unlicensed => {
            return format!("declare it: `license = \"…\"` in [sources.{name}], then `narthex bundle {step}`");
        }
        Standing::Closed => {
            return format!("make it without `{}`, or with material under an open licence", names.join("`, `"));
        }
        Standing::Missing | Standing::Open => {}
    }
    match lacking.kind {
        ComponentKind::ModelArchitecture
        | ComponentKind::DataPreprocessingCode
        | ComponentKind::TrainingCode
        | ComponentKind::InferenceCode
        | ComponentKind::EvaluationCode
        | ComponentKind::SupportingLibraries => format!("narthex bundle {step} --set {step}.code=true"),
        ComponentKind::Datasets | ComponentKind::EvaluationData if !names.is_empty() => {
            format!("narthex bundle {step} --set {step}.data=true")
        }
        ComponentKind::Datasets => format!("narthex bundle {step} --set {step}.data=true"),
        ComponentKind::IntermediateParameters => {
            format!(
                "`narthex bundle {step} --set {step}.checkpoints=true`, of a model trained with `keep_checkpoints = true`"
            )
        }
        ComponentKind::EvaluationResults | ComponentKind::EvaluationData => {
            format!("measure it: a step of kind `eval`, named in `evaluations` of [steps.{step}]")
        }
        ComponentKind::ResearchPaper => {
            format!(
                "write it down: [sources.paper] with `path` and `license`, then `narthex bundle {step} --set {step}.research_paper=paper`"
            )
        }
        _ => format!("narthex bundle {step}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mof::openness;
    use narthex_base::{Evidence, Recipe};

    #[test]
    fn every_reason_has_a_way() {
        let mut manifest = Manifest::new(ArtifactKind::Bundle, Recipe::new("release", "bundle"));
        let expected = [
            (ComponentKind::TrainingCode, "release.code=true"),
            (ComponentKind::ResearchPaper, "release.research_paper=paper"),
            (ComponentKind::IntermediateParameters, "release.checkpoints=true"),
            (ComponentKind::EvaluationResults, "kind `eval`"),
            (ComponentKind::ModelCard, "narthex bundle release"),
        ];
        for (missing, text) in expected {
            let license = License::parse("OpenMDW-1.0").ok();
            manifest.components = ComponentKind::ALL
                .into_iter()
                .filter(|kind| *kind != missing)
                .map(|kind| Component {
                    paths: vec!["f".into()],
                    ..Component::new(kind.slug(), kind, license.clone(), Evidence::Made)
                })
                .collect();
            let found = advice(&manifest, &openness(&manifest));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].1.contains(text), "{found:?}");
        }
        let card = manifest.components.iter_mut().find(|component| component.kind == ComponentKind::DataCard).unwrap();
        card.license = None;
        let found = advice(&manifest, &openness(&manifest));
        assert!(
            found
                .iter()
                .any(|(reason, way)| reason.contains("Data card has no") && way.contains("[sources.data-card]"))
        );
    }
}
