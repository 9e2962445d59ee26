//! `[mcp.NAME]` of a project file: a server of tools. Knows its form and what it means as a [`ServerSpec`]; connects to
//! nothing.

use crate::client::{Credentials, Reach, ServerSpec};
use narthex_agent::Effect;
use narthex_base::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, env, path::Path};

/// `[mcp.NAME]`: a server of somebody's, whose tools are called `NAME.TOOL`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct McpSettings {
    /// A program of this machine that speaks MCP on its standard input and output, and its arguments. No shell sees
    /// them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The address of a server that speaks MCP over HTTP, instead of a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Variables of our environment that the program sees; it sees no others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<String>,
    /// The environment variable that holds the server's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    /// What calls do, by the tools' own names: `reads`, `writes` or `reaches`. What the server says does not count.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub effects: BTreeMap<String, Effect>,
}

impl McpSettings {
    /// The server that is meant; the program runs in `folder`.
    ///
    /// # Errors
    /// If there is neither a program nor an address, or both, or a variable is not set.
    pub fn spec(self, name: &str, folder: &Path) -> Result<ServerSpec> {
        let wrong = |what: &str| Error::input(format!("`[mcp.{name}]` {what}"));
        let variable = |variable: &String| match env::var(variable) {
            Ok(value) => Ok((variable.clone(), value)),
            Err(_) => Err(wrong(&format!("names the environment variable {variable}, which is not set"))
                .help(format!("export {variable}=…, or take it out"))),
        };
        let Self { command, url, environment, token_env, effects } = self;
        let reach = match (command.split_first(), url) {
            (Some((program, arguments)), None) => Reach::Stdio {
                program: program.clone(),
                arguments: arguments.to_vec(),
                environment: environment.iter().map(variable).collect::<Result<_>>()?,
                folder: Some(folder.to_path_buf()),
            },
            (None, Some(url)) => {
                let token = token_env.as_ref().map(variable).transpose()?;
                Reach::Http {
                    url,
                    credentials: token.map_or(Credentials::None, |(_, token)| Credentials::Bearer(token)),
                }
            }
            (None, None) => return Err(wrong("says neither `command` nor `url`").help("say how the server is reached")),
            (Some(_), Some(_)) => return Err(wrong("says `command` and `url`").help("say one of them")),
        };
        Ok(ServerSpec { effects, ..ServerSpec::new(name, reach) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_or_an_address() {
        let folder = Path::new("/p");
        let program = McpSettings { command: vec!["srv".into(), "-x".into()], ..McpSettings::default() };
        assert_eq!(
            program.clone().spec("a", folder).unwrap().describe(),
            "runs srv -x, in /p, with an empty environment"
        );
        let address = McpSettings { url: Some("https://example.org/mcp".into()), ..McpSettings::default() };
        assert_eq!(
            address.clone().spec("a", folder).unwrap().describe(),
            "asks https://example.org/mcp without a token"
        );
        let unset = vec!["NARTHEX_TEST_NO_SUCH_VARIABLE".to_string()];
        for (settings, expected) in [
            (McpSettings::default(), "neither `command` nor `url`"),
            (McpSettings { url: address.url.clone(), ..program.clone() }, "`command` and `url`"),
            (McpSettings { environment: unset.clone(), ..program }, "is not set"),
            (McpSettings { token_env: unset.first().cloned(), ..address }, "is not set"),
        ] {
            let error = settings.spec("a", folder).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("`[mcp.a]`") && error.contains(expected), "{error}");
        }
    }
}
