//! `[tools.NAME]` of `narthex.toml`: one kind of tool with its settings. Makes no tool.

use crate::{fetch::FetchTool, files::FilesTool, openapi::OpenApiTool, shell::ShellTool, sql::SqlTool};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// `[tools.NAME]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ToolSettings {
    /// A command.
    Shell(ShellTool),
    /// Operations of an OpenAPI file.
    OpenApi(OpenApiTool),
    /// Files of a folder.
    Files(FilesTool),
    /// Pages of the web.
    Fetch(FetchTool),
    /// Tables.
    Sql(SqlTool),
}

impl ToolSettings {
    /// The same with relative paths below a folder: the project's.
    pub fn below(self, root: &Path) -> Self {
        let all = |paths: Vec<PathBuf>| paths.into_iter().map(|path| root.join(path)).collect();
        match self {
            Self::Shell(shell) => Self::Shell(ShellTool {
                folder: root.join(shell.folder),
                readable: all(shell.readable),
                writable: all(shell.writable),
                ..shell
            }),
            Self::OpenApi(api) => Self::OpenApi(OpenApiTool { file: root.join(&api.file), ..api }),
            Self::Files(files) => Self::Files(FilesTool { folder: root.join(&files.folder), ..files }),
            Self::Fetch(fetch) => Self::Fetch(fetch),
            Self::Sql(sql) => Self::Sql(sql),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        for (text, expected) in [
            ("kind = \"shell\"\ndescription = \"d\"\ncommand = [\"ls\"]\nfolder = \".\"", Ok("Shell")),
            ("kind = \"openapi\"\nfile = \"a.yaml\"\nauth = { env = \"TOKEN\" }", Ok("OpenApi")),
            ("kind = \"files\"\nfolder = \".\"", Ok("Files")),
            ("kind = \"fetch\"\nhosts = [\"docs.rs\"]", Ok("Fetch")),
            ("kind = \"sql\"\ntables = [\"orders\"]", Ok("Sql")),
            ("kind = \"files\"\nfolder = \".\"\nroot = 1", Err("unknown field `root`")),
            ("kind = \"shell\"\nfolder = \".\"", Err("missing field")),
            ("kind = \"python\"", Err("unknown variant")),
            ("folder = \".\"", Err("kind")),
        ] {
            match (toml::from_str::<ToolSettings>(text), expected) {
                (Ok(settings), Ok(kind)) => {
                    assert!(format!("{settings:?}").starts_with(kind), "{text}");
                    // What is written is read again as the same.
                    let written = toml::to_string(&settings).unwrap();
                    assert_eq!(toml::from_str::<ToolSettings>(&written).unwrap(), settings, "{written}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
                (outcome, _) => panic!("{text}: {outcome:?}"),
            }
        }
        let schema = serde_json::to_value(schemars::schema_for!(ToolSettings)).unwrap();
        assert_eq!(schema["oneOf"].as_array().unwrap().len(), 5);
    }
}
