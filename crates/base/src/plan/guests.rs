//! Tables of a project file whose keys other crates give meaning to: agents, what they may call, and what they know. They
//! are read with the same layers, checks and places as steps are; this module knows their names only.

use super::{
    Layers,
    layers::{self, Merged},
};
use crate::{
    config::Table,
    error::{Error, Result, nearest},
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use toml::{Spanned, de::DeValue};

/// What a project says below one of these tables: names with their typed forms, in the order of the text. A type that has
/// kinds is an enum tagged by `kind`.
///
/// # Errors
/// If the project file is wrong, or an entry has not the form of the type: with file, line and a fix.
pub fn guests<T: DeserializeOwned + JsonSchema>(layers: &Layers, table: &str) -> Result<Vec<(String, T)>> {
    let texts = layers::texts(layers)?;
    let merged = Merged::read(&texts, &layers.file_name)?;
    let kinds = Table::kinds_of::<T>();
    let read = |(name, value): (&str, &Spanned<DeValue>)| {
        let form = match kinds.as_slice() {
            [] => Table::of::<T>(),
            kinds => kind_of(&merged, table, name, value, kinds)?.clone(),
        };
        Ok((name.to_string(), merged.conforming(&form, value, T::deserialize)?))
    };
    merged.children(table).into_iter().map(read).collect()
}

/// The form of the kind that an entry says it is of.
fn kind_of<'k>(
    merged: &Merged,
    table: &str,
    name: &str,
    value: &Spanned<DeValue>,
    kinds: &'k [(String, Table)],
) -> Result<&'k Table> {
    let known = kinds.iter().map(|(kind, _)| kind.as_str());
    let all = known.clone().collect::<Vec<_>>().join(", ");
    let DeValue::Table(entries) = value.get_ref() else {
        return Err(merged.place(Error::input(format!("`{table}.{name}` must be a table")), value.span()));
    };
    let Some(kind) = entries.get("kind") else {
        let report = Error::input(format!("`{table}.{name}` has no `kind`"));
        return Err(merged.place(report, value.span()).help(format!("add `kind = \"…\"`, one of: {all}")));
    };
    let written = kind.get_ref().as_str().unwrap_or("(not a string)");
    kinds.iter().find(|(kind, _)| kind == written).map(|(_, form)| form).ok_or_else(|| {
        let report = Error::input(format!("`{table}.{name}` has an unknown kind `{written}`"));
        let near = nearest(written, known.clone());
        let help = near.map_or(format!("kinds: {all}"), |near| format!("did you mean `{near}`? kinds: {all}"));
        merged.place(report, kind.span()).help(help)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Plain {
        /// What it is.
        model: String,
        /// How many.
        #[serde(default)]
        #[schemars(range(min = 1))]
        count: Option<u32>,
    }

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
    enum Kinds {
        /// Files.
        Files {
            /// Where.
            path: String,
        },
        /// A page.
        Fetch {
            /// From where.
            hosts: Vec<String>,
        },
    }

    fn layers(file: &str) -> Layers {
        let file = format!("[project]\nname = \"p\"\n{file}");
        Layers { file_name: "narthex.toml".into(), file, flags: vec!["agents.b.count=7".into()], ..Layers::default() }
    }

    fn wrong<T: std::fmt::Debug>(found: Result<Vec<(String, T)>>) -> String {
        let error = found.unwrap_err();
        format!("{} {error}", error.place().unwrap_or_default())
    }

    #[test]
    fn entries_are_typed_in_the_order_of_the_text() {
        let file =
            layers("[agents.b]\nmodel = \"x\"\n[agents.a]\nmodel = \"y\"\n[tools.f]\nkind = \"files\"\npath = \".\"\n");
        let found: Vec<(String, Plain)> = guests(&file, "agents").unwrap();
        let plain = |model: &str, count| Plain { model: model.into(), count };
        assert_eq!(found, [("b".to_string(), plain("x", Some(7))), ("a".into(), plain("y", None))]);
        let found: Vec<(String, Kinds)> = guests(&file, "tools").unwrap();
        assert_eq!(found, [("f".to_string(), Kinds::Files { path: ".".into() })]);
        assert!(guests::<Plain>(&layers("[agents.b]\nmodel = \"x\"\n"), "mcp").unwrap().is_empty());
        crate::plan::Plan::resolve(&file).unwrap();
    }

    #[test]
    fn mistakes_are_shown_where_they_stand() {
        for (file, expected) in [
            ("[agents.b]\nmodle = \"x\"\n", "narthex.toml:4 error: unknown key `modle`"),
            ("[agents.b]\nmodel = \"x\"\n[agents.a]\n", "narthex.toml:5 error: the key `model` is missing"),
            ("[agents]\nb = 1\n", "narthex.toml:"),
        ] {
            let plain = Layers { flags: vec![], ..layers(file) };
            let found = wrong(guests::<Plain>(&plain, "agents"));
            assert!(found.contains(expected), "{found} for {file}");
        }
        for (file, expected) in [
            ("[tools.f]\npath = \".\"\n", "has no `kind`"),
            ("[tools.f]\nkind = \"file\"\n", "did you mean `files`?"),
            ("[tools.f]\nkind = \"fetch\"\npath = \".\"\n", "unknown key `path`"),
        ] {
            let found = wrong(guests::<Kinds>(&layers(file), "tools"));
            assert!(found.contains(expected), "{found} for {file}");
        }
    }
}
