//! Licences: validated SPDX expressions, and their texts. Both OpenMDW versions are known;
//! 1.1 is not in SPDX's list, so it is written `LicenseRef-OpenMDW-1.1` as its FAQ prescribes.

use crate::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// A valid SPDX licence expression, kept in the form it is printed in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct License(String);

const OPENMDW_1_0: &str = include_str!("../licenses/OpenMDW-1.0.txt");
const OPENMDW_1_1: &str = include_str!("../licenses/OpenMDW-1.1.txt");

impl License {
    /// OpenMDW 1.1, the default for what Narthex makes.
    pub fn openmdw_1_1() -> Self {
        Self("LicenseRef-OpenMDW-1.1".into())
    }

    /// The expression.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads an SPDX expression. `OpenMDW-1.1` is accepted for `LicenseRef-OpenMDW-1.1`.
    ///
    /// # Errors
    /// If it is not a valid expression; the help names the nearest identifier.
    pub fn parse(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let text = words.join(" ").split(' ').map(openmdw_alias).collect::<Vec<_>>().join(" ");
        match spdx::Expression::parse(&text) {
            Ok(_) => Ok(Self(text)),
            Err(error) => {
                let report = Error::input(format!("`{text}` is not an SPDX licence expression")).cause(&error.reason);
                let ids = spdx::identifiers::LICENSES.iter().map(|license| license.name);
                Err(match crate::error::nearest(&text, ids.chain(["LicenseRef-OpenMDW-1.1"])) {
                    Some(near) => report.help(format!("did you mean `{near}`? the list: https://spdx.org/licenses")),
                    None => report
                        .help("use an identifier of https://spdx.org/licenses, or `LicenseRef-…` for your own text"),
                })
            }
        }
    }

    /// The licences named in the expression, each once, in order.
    pub fn ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        if let Ok(expression) = spdx::Expression::parse(&self.0) {
            for requirement in expression.requirements() {
                let id = requirement.req.license.to_string();
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        ids
    }

    /// The texts of the licences named in the expression: id -> text, where it is known.
    pub fn texts(&self) -> BTreeMap<String, &'static str> {
        self.ids().into_iter().filter_map(|id| text_of(&id).map(|text| (id, text))).collect()
    }
}

fn openmdw_alias(word: &str) -> String {
    let core = word.trim_matches(['(', ')']);
    if core.eq_ignore_ascii_case("OpenMDW-1.1") { word.replace(core, "LicenseRef-OpenMDW-1.1") } else { word.into() }
}

/// The text of one licence by identifier.
fn text_of(id: &str) -> Option<&'static str> {
    match id {
        "LicenseRef-OpenMDW-1.1" => Some(OPENMDW_1_1),
        "OpenMDW-1.0" => Some(OPENMDW_1_0),
        _ => spdx::license_id(id).map(|license| license.text()),
    }
}

impl fmt::Display for License {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for License {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl Serialize for License {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for License {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(|error| {
            let help = error.help_text().map(|help| format!("; {help}")).unwrap_or_default();
            serde::de::Error::custom(format!("{}{help}", error.what()))
        })
    }
}

impl schemars::JsonSchema for License {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "License".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "description": "An SPDX licence expression (https://spdx.org/licenses); `OpenMDW-1.1` and `LicenseRef-…` are accepted"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_expressions() {
        for (text, expected) in [
            ("MIT", "MIT"),
            ("Apache-2.0  OR MIT", "Apache-2.0 OR MIT"),
            ("OpenMDW-1.1", "LicenseRef-OpenMDW-1.1"),
            ("(OpenMDW-1.1 OR MIT)", "(LicenseRef-OpenMDW-1.1 OR MIT)"),
            ("OpenMDW-1.0", "OpenMDW-1.0"),
            ("CC-BY-4.0", "CC-BY-4.0"),
        ] {
            assert_eq!(License::parse(text).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn refuses_with_the_nearest() {
        for (text, near) in [("CC-BY4.0", "CC-BY-4.0"), ("Apache2.0", "Apache-2.0")] {
            let error = License::parse(text).unwrap_err();
            assert!(error.help_text().unwrap().contains(near), "{error}");
        }
    }

    #[test]
    fn both_openmdw_texts_are_distinct() {
        let texts: Vec<_> =
            ["OpenMDW-1.0", "OpenMDW-1.1"].map(|id| License::parse(id).unwrap().texts()).into_iter().collect();
        assert!(texts[0]["OpenMDW-1.0"].contains("infringe any patent,"), "1.0 ends on suits over patents alone");
        assert!(texts[1]["LicenseRef-OpenMDW-1.1"].contains("any patent or copyright"));
        assert_eq!(License::parse("Apache-2.0 OR MIT").unwrap().texts().len(), 2);
    }
}
