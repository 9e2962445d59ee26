//! The papers of a bundle: model card and notice, from figures and lineage. Pure text.

use narthex_base::{Component, License, Manifest, Result};
use narthex_ledger::LineageNode;
use narthex_model::ModelConfig;
use std::{collections::BTreeMap, fmt::Write, path::Path};

/// What the model card is made from.
pub(crate) struct Card<'a> {
    pub(crate) project: &'a str,
    pub(crate) model: &'a str,
    pub(crate) description: &'a str,
    pub(crate) license: &'a License,
    pub(crate) manifest: &'a Manifest,
    pub(crate) evaluations: Vec<(&'a str, &'a BTreeMap<String, f64>)>,
    pub(crate) inherited: &'a [Component],
    pub(crate) config: &'a Path,
    pub(crate) lineage: &'a LineageNode,
}

/// `README.md` with Hugging Face's metadata on top.
pub(crate) fn render(card: &Card) -> Result<String> {
    let config = ModelConfig::read(card.config)?;
    let mut text = String::from("---\n");
    let hub_license = hub_license(card.license);
    let _ = writeln!(text, "license: {hub_license}");
    if hub_license == "other" {
        let _ = writeln!(
            text,
            "license_name: {}\nlicense_link: LICENSE",
            card.license.to_string().to_lowercase().replace("licenseref-", "")
        );
    }
    text += "library_name: transformers\npipeline_tag: text-generation\ntags:\n- llama\n- narthex\n---\n\n";
    let _ = writeln!(text, "# {}\n", card.project);
    if !card.description.trim().is_empty() {
        let _ = writeln!(text, "{}\n", card.description.trim());
    }
    let _ = writeln!(
        text,
        "A Llama-style decoder of {} parameters: {} blocks of width {}, {} heads ({} for keys and values), a vocabulary of {} tokens and a context of {} tokens.\n",
        config.parameters(),
        config.layers,
        config.hidden_size,
        config.heads,
        config.kv_heads,
        config.vocab_size,
        config.context
    );
    text += "## Use\n\n```console\n$ narthex chat .\n$ narthex serve .\n```\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\nmodel = AutoModelForCausalLM.from_pretrained(\".\")\ntokenizer = AutoTokenizer.from_pretrained(\".\")\n```\n\n";
    text += "## Figures\n\n| measured on | figure | value |\n|---|---|---:|\n";
    let own = std::iter::once((card.model, &card.manifest.figures));
    for (name, figures) in own.chain(card.evaluations.iter().copied()) {
        for (figure, value) in figures {
            let _ = writeln!(text, "| {name} | {} | {} |", figure.replace('_', " "), number(*value));
        }
    }
    text += "\nNats per byte are the mean negative log-likelihood of the text held back for validation, spread over its bytes.\n\n";
    text += "## Lineage\n\n```text\n";
    tree(card.lineage, 0, &mut text);
    text += "```\n\n## Licences\n\n";
    let _ = writeln!(text, "The weights, the tokenizer and this card are under `{}` (LICENSE).", card.license);
    if !card.inherited.is_empty() {
        text += "They were made from:\n\n| component | licence | origin |\n|---|---|---|\n";
        for component in card.inherited {
            let license = component.license.as_ref().map_or("undeclared".to_string(), |l| format!("`{l}`"));
            let _ = writeln!(
                text,
                "| {} | {license} | {} |",
                component.name,
                component.origin.as_deref().unwrap_or("not stated")
            );
        }
        text += "\nTheir licence texts are in LICENSES/, their origins in NOTICE.\n";
    }
    let recipe = serde_json::to_string_pretty(&card.manifest.recipe).expect("a recipe serializes");
    let _ = write!(
        text,
        "\n## Recipe\n\nThe last step; `narthex trace` shows the whole chain.\n\n```json\n{recipe}\n```\n"
    );
    Ok(text)
}

/// `NOTICE`: every part with its origin and licence.
pub(crate) fn notice(project: &str, own: &[Component], inherited: &[Component]) -> String {
    let mut text = format!("{project}\n\nThis folder contains:\n");
    for component in own {
        let license = component.license.as_ref().map_or("undeclared", License::as_str);
        let _ = writeln!(text, "\n* {} ({license})\n  files: {}", component.name, component.paths.join(", "));
        if let Some(origin) = &component.origin {
            let _ = writeln!(text, "  origin: {origin}");
        }
    }
    if !inherited.is_empty() {
        text += "\nIt was made from:\n";
    }
    for component in inherited {
        let license = component.license.as_ref().map_or("undeclared", License::as_str);
        let origin = component.origin.as_deref().unwrap_or("not stated");
        let _ = writeln!(text, "\n* {} ({license})\n  origin: {origin}", component.name);
    }
    text
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

/// The identifier that Hugging Face knows, or `other`.
fn hub_license(license: &License) -> String {
    const KNOWN: [&str; 14] = [
        "apache-2.0",
        "mit",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc0-1.0",
        "cc-by-4.0",
        "cc-by-sa-4.0",
        "cc-by-nc-4.0",
        "gpl-3.0",
        "lgpl-3.0",
        "agpl-3.0",
        "mpl-2.0",
        "openmdw-1.0",
        "openmdw-1.1",
    ];
    let lower = license.to_string().to_lowercase();
    let lower = lower.trim_start_matches("licenseref-");
    if KNOWN.contains(&lower) { lower.to_string() } else { "other".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_as_the_hub_knows_them() {
        for (license, expected) in
            [("OpenMDW-1.1", "openmdw-1.1"), ("MIT", "mit"), ("Apache-2.0 OR MIT", "other"), ("Zlib", "other")]
        {
            assert_eq!(hub_license(&License::parse(license).unwrap()), expected);
        }
    }
}
