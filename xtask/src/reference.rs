//! The tables of keys in the reference of `narthex.toml`, written from the configuration's own types. Knows the page's
//! markers and Markdown; what a key means stands at its field in `base`,
//! or in the crate that gives the table its meaning.

use narthex_a2a::RemoteSettings;
use narthex_agent::AgentDefinition;
use narthex_base::config::{Form, Key, Kind, Policy, Project, Source, Table, bare};
use narthex_mcp::McpSettings;
use narthex_tools::{endpoint::Endpoint, settings::ToolSettings};
use serde_json::Value;
use std::fs;

const USAGE: &str = "\
usage: cargo xtask reference

  writes the tables of keys into docs/src/reference/narthex-toml.md, between `<!-- keys: NAME -->` and `<!-- end -->`";

const PAGE: &str = "docs/src/reference/narthex-toml.md";
const BEGIN: &str = "<!-- keys: ";
const END: &str = "<!-- end -->";

/// Writes the page anew.
pub fn run(arguments: &[String]) -> Result<(), String> {
    if !arguments.is_empty() {
        return Err(USAGE.into());
    }
    let path = crate::tidy::root().join(PAGE);
    let page = fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    fs::write(&path, filled(&page)?).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// The page with its tables as they should be.
fn filled(page: &str) -> Result<String, String> {
    let (mut made, mut rest) = (String::new(), page);
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after.split_once(" -->").ok_or("a marker without an end")?;
        let (_, after) = after.split_once(END).ok_or(format!("`{BEGIN}{name} -->` without `{END}`"))?;
        let table = table_named(name).ok_or(format!("there is no table `{name}`"))?;
        made += &format!("{before}{BEGIN}{name} -->\n{}{END}", rows(&table));
        rest = after;
    }
    Ok(made + rest)
}

/// A table by its place in the file: `project`, `steps.train`, `steps.train.model`.
fn table_named(name: &str) -> Option<Table> {
    let mut parts = name.split('.');
    let mut table = match parts.next()? {
        "project" => Table::of::<Project>(),
        "sources" => Table::of::<Source>(),
        "policy" => Table::of::<Policy>(),
        "agents" => Table::of::<AgentDefinition>(),
        "models" => Table::of::<Endpoint>(),
        "mcp" => Table::of::<McpSettings>(),
        "remotes" => Table::of::<RemoteSettings>(),
        "tools" => {
            let kind = parts.next()?;
            Table::kinds_of::<ToolSettings>().into_iter().find(|(word, _)| word == kind)?.1
        }
        "steps" => (Kind::named(parts.next()?)?.table)(),
        _ => return None,
    };
    for part in parts {
        table = match &table.key(part)?.form {
            Form::Table(inner) => inner.clone(),
            Form::Named(inner) => match &**inner {
                Form::Table(inner) => inner.clone(),
                _ => return None,
            },
            _ => return None,
        };
    }
    Some(table)
}

fn rows(table: &Table) -> String {
    let mut made = "| key | type | default | meaning |\n|---|---|---|---|\n".to_string();
    for key in &table.keys {
        let meaning = key.meaning.strip_suffix('.').unwrap_or(&key.meaning).replace('|', "\\|");
        made += &format!("| `{}` | {} | {} | {meaning} |\n", key.name, key.form.words(), default(key));
    }
    made
}

fn default(key: &Key) -> String {
    let all = |items: &[Value]| matches!(&key.form, Form::List(form) if **form == Form::OneOf(items.to_vec()));
    match (&key.form, &key.default) {
        _ if key.is_required => "required".into(),
        (Form::Table(_), _) => "below".into(),
        (Form::Switch, Value::Null) => "`false`".into(),
        (Form::List(_) | Form::Named(_), Value::Null) => "empty".into(),
        (_, Value::Null) => "none".into(),
        (_, Value::Array(items)) if items.is_empty() => "empty".into(),
        (_, Value::Array(items)) if all(items) => "all".into(),
        (_, Value::Object(entries)) if entries.is_empty() => "empty".into(),
        (Form::OneOf(_), value) => format!("`{}`", bare(value)),
        (_, value) => format!("`{value}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_base::config::Step;

    #[test]
    fn the_reference_is_current() {
        let page = fs::read_to_string(crate::tidy::root().join(PAGE)).unwrap();
        assert!(filled(&page).unwrap() == page, "the tables of {PAGE} are not current: run `cargo xtask reference`");
        for kind in Step::KINDS {
            let table = (kind.table)();
            let inner = table.subtables().map(|(name, _)| name);
            assert!(page.contains(&format!("{BEGIN}steps.{} -->", kind.name)), "no table of `{}`", kind.name);
            for name in inner {
                let is_there = Step::KINDS.iter().any(|other| {
                    let of_other = table_named(&format!("steps.{}.{name}", other.name));
                    of_other == table_named(&format!("steps.{}.{name}", kind.name))
                        && page.contains(&format!("{BEGIN}steps.{}.{name} -->", other.name))
                });
                assert!(is_there, "no table of `{name}` in `{}`", kind.name);
            }
        }
    }

    #[test]
    fn markers_must_fit() {
        for (page, expected) in [
            ("<!-- keys: nothing -->\n<!-- end -->", "no table `nothing`"),
            ("<!-- keys: project -->\n", "without"),
            ("<!-- keys: project", "without an end"),
        ] {
            assert!(filled(page).unwrap_err().contains(expected), "{page}");
        }
        let made = filled("a\n<!-- keys: project -->\nold\n<!-- end -->\nb\n").unwrap();
        assert!(
            made.starts_with("a\n<!-- keys: project -->\n| key |") && made.ends_with("|\n<!-- end -->\nb\n"),
            "{made}"
        );
        assert!(made.contains("| `seed` | integer | `1337` | The seed of everything random."), "{made}");
    }
}
