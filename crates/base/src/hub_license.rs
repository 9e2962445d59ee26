//! The Hugging Face Hub's names of licences as SPDX expressions. Knows names alone.
//!
//! Source: Hugging Face Hub documentation, "Licenses".

use crate::license::License;

/// The Hub's names whose SPDX identifier is another one. Where the Hub leaves open whether later versions count, the
/// narrower reading is taken.
const NAMES: [(&str, &str); 7] = [
    ("c-uda", "C-UDA-1.0"),
    ("gfdl", "GFDL-1.3-only"),
    ("lgpl-lr", "LGPLLR"),
    ("odbl", "ODbL-1.0"),
    ("odc-by", "ODC-By-1.0"),
    ("openrail++", "LicenseRef-openrail-plus-plus"),
    ("pddl", "PDDL-1.0"),
];

/// The longest name that is taken.
const NAME_BYTES_MAX: usize = 120;

/// The licence that a card on the Hub, or a GGUF file, names: its `license`, and `license_name` where that is
/// `other`. An SPDX expression is one; a name of somebody's own (`llama3.1`) becomes a `LicenseRef-`. None where the
/// terms are left open (`unknown`, `none`, or `other` without a name).
pub fn from_hub(name: &str, other_name: Option<&str>) -> Option<License> {
    let name = name.trim();
    let lower = name.to_lowercase();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || ["unknown", "none"].contains(&lower.as_str()) {
        return None;
    }
    if lower == "other" {
        let other = other_name?.trim();
        let is_none = ["", "other", "unknown", "none"].contains(&other.to_lowercase().as_str());
        return if is_none { None } else { from_hub(other, None) };
    }
    if let Some((_, id)) = NAMES.iter().find(|(known, _)| *known == lower) {
        return License::parse(id).ok();
    }
    if let Ok(license) = License::parse(name) {
        return Some(license);
    }
    // Terms of somebody's own, such as `llama3.1` and `gemma`, keep their name.
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let own: String = name.chars().map(fits).collect();
    let own = own.trim_matches(['-', '.']);
    if own.is_empty() { None } else { License::parse(&format!("LicenseRef-{own}")).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hub() {
        for (name, other, expected) in [
            ("apache-2.0", None, Some("Apache-2.0")),
            ("MIT", None, Some("MIT")),
            ("Apache-2.0 OR MIT", None, Some("Apache-2.0 OR MIT")),
            ("apache-2.0 or mit", None, Some("Apache-2.0 OR MIT")),
            ("my own terms", None, Some("LicenseRef-my-own-terms")),
            ("none", None, None),
            ("cc-by-nc-4.0", None, Some("CC-BY-NC-4.0")),
            ("cc-by-nc-sa-4.0", None, Some("CC-BY-NC-SA-4.0")),
            ("cc0-1.0", None, Some("CC0-1.0")),
            ("bsd-3-clause-clear", None, Some("BSD-3-Clause-Clear")),
            ("bsl-1.0", None, Some("BSL-1.0")),
            ("gpl-3.0", None, Some("GPL-3.0-only")),
            ("agpl-3.0", None, Some("AGPL-3.0-only")),
            ("lgpl-lr", None, Some("LGPLLR")),
            ("gfdl", None, Some("GFDL-1.3-only")),
            ("odc-by", None, Some("ODC-By-1.0")),
            ("odbl", None, Some("ODbL-1.0")),
            ("pddl", None, Some("PDDL-1.0")),
            ("c-uda", None, Some("C-UDA-1.0")),
            ("etalab-2.0", None, Some("etalab-2.0")),
            ("unlicense", None, Some("Unlicense")),
            ("ms-pl", None, Some("MS-PL")),
            ("cdla-permissive-2.0", None, Some("CDLA-Permissive-2.0")),
            ("openmdw-1.0", None, Some("OpenMDW-1.0")),
            ("openmdw-1.1", None, Some("LicenseRef-OpenMDW-1.1")),
            ("llama2", None, Some("LicenseRef-llama2")),
            ("llama3.1", None, Some("LicenseRef-llama3.1")),
            ("gemma", None, Some("LicenseRef-gemma")),
            ("openrail", None, Some("LicenseRef-openrail")),
            ("openrail++", None, Some("LicenseRef-openrail-plus-plus")),
            ("bigscience-bloom-rail-1.0", None, Some("LicenseRef-bigscience-bloom-rail-1.0")),
            ("creativeml-openrail-m", None, Some("LicenseRef-creativeml-openrail-m")),
            // Without a version, no text of SPDX's fits.
            ("gpl", None, Some("LicenseRef-gpl")),
            ("cc", None, Some("LicenseRef-cc")),
            ("bsd", None, Some("LicenseRef-bsd")),
            ("other", Some("qwen-research"), Some("LicenseRef-qwen-research")),
            ("other", Some("Qwen Research (v1)"), Some("LicenseRef-Qwen-Research--v1")),
            ("other", Some("apache-2.0"), Some("Apache-2.0")),
            ("other", Some("other"), None),
            ("other", None, None),
            ("unknown", None, None),
            ("", None, None),
            ("…", None, None),
        ] {
            assert_eq!(from_hub(name, other).as_ref().map(License::as_str), expected, "{name} {other:?}");
        }
    }
}
