//! Merging the layers of configuration into one tree whose every value still knows its text and
//! line, so that a mistake can be shown where it was written.

use super::{
    Layers, Origin,
    conform::{self, SCHEMA_HELP},
};
use crate::{
    config::{Kind, Policy, Project, ProjectFile, Source, Step, Table},
    error::{Error, Result, nearest},
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, ops::Range};
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

/// The tables of a project file.
const TABLES: [&str; 4] = ["project", "sources", "steps", "policy"];

/// Tables whose keys other crates give meaning to.
pub const GUESTS: [&str; 5] = ["agents", "models", "tools", "mcp", "remotes"];

/// One text of the configuration. Spans of all texts live in one number range: each starts at `base`.
pub(super) struct Text {
    base: usize,
    content: String,
    origin: TextOrigin,
    /// The key of an assignment; the content is then `value = …`.
    key: Option<String>,
}

#[derive(Clone, PartialEq)]
enum TextOrigin {
    ProjectFile(String),
    UserFile(String),
    Environment,
    Flag,
}

/// All texts of the layers, weakest first but for the project file, which leads.
pub(super) fn texts(layers: &Layers) -> Result<Vec<Text>> {
    let mut texts: Vec<Text> = Vec::new();
    let mut push = |content: String, origin, key| {
        let base = texts.last().map_or(0, |text: &Text| text.base + text.content.len() + 1);
        texts.push(Text { base, content, origin, key });
    };
    push(layers.file.clone(), TextOrigin::ProjectFile(layers.file_name.clone()), None);
    if let Some((name, content)) = &layers.user_file {
        push(content.clone(), TextOrigin::UserFile(name.clone()), None);
    }
    let assignments = layers
        .environment
        .iter()
        .map(|a| (a, TextOrigin::Environment))
        .chain(layers.flags.iter().map(|a| (a, TextOrigin::Flag)));
    for (assignment, origin) in assignments {
        let Some((key, value)) = assignment.split_once('=') else {
            return Err(Error::usage(format!("`{assignment}` is not an assignment"))
                .help("write `--set step.key=value`, for instance `--set train.lr=3e-4`"));
        };
        let value = value.trim();
        // A bare word is a string: `--set project.name=x` needs no quotes inside quotes.
        let value = match DeValue::parse(value) {
            Ok(_) => value.to_string(),
            Err(_) => toml::Value::String(value.to_string()).to_string(),
        };
        push(format!("value = {value}"), origin, Some(key.trim().to_string()));
    }
    Ok(texts)
}

/// The merged tree.
pub(super) struct Merged<'a> {
    texts: &'a [Text],
    root: DeTable<'a>,
    file_name: &'a str,
}

impl<'a> Merged<'a> {
    pub(super) fn read(texts: &'a [Text], file_name: &'a str) -> Result<Self> {
        let mut merged = Self { texts, root: DeTable::new(), file_name };
        for text in texts {
            match (&text.origin, &text.key) {
                (TextOrigin::ProjectFile(_), _) => {
                    merged.root = merged.parse(text)?;
                    merged.require_tables()?;
                }
                (TextOrigin::UserFile(_), _) => merged.apply_user_file(text)?,
                (_, Some(key)) => merged.assign(key, text)?,
                (_, None) => {}
            }
        }
        Ok(merged)
    }

    fn require_tables(&self) -> Result<()> {
        for required in ["steps", "sources"] {
            if let Some(value) = self.root.get(required)
                && !value.get_ref().is_table()
            {
                let report = Error::input(format!("`{required}` must be a table of tables"));
                return Err(self.place(report, value.span()).help(format!("write `[{required}.NAME]`")));
            }
        }
        Ok(())
    }

    /// Parses a text and moves its spans to its place in the common range.
    fn parse(&self, text: &'a Text) -> Result<DeTable<'a>> {
        let parsed = DeTable::parse(&text.content).map(|root| shift_table(root.into_inner(), text.base));
        parsed.map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let report = Error::input(format!("not valid TOML: {}", error.message().trim().replace('\n', ", ")));
            self.place(report, span.start + text.base..span.end + text.base).help("TOML in one page: https://toml.io")
        })
    }

    /// Fills in what the user's `[defaults.KIND]` gives and the project's steps leave open.
    fn apply_user_file(&mut self, text: &'a Text) -> Result<()> {
        let root = self.parse(text)?;
        for (key, value) in root {
            if key.get_ref() != "defaults" {
                let report = Error::input(format!("unknown table `{}`", key.get_ref()));
                return Err(self.place(report, key.span()).help("the user's file holds `[defaults.KIND]` tables only"));
            }
            let DeValue::Table(kinds) = value.into_inner() else { continue };
            for (kind, value) in kinds {
                if Kind::named(kind.get_ref()).is_none() {
                    let report = Error::input(format!("unknown step kind `{}`", kind.get_ref()));
                    let kinds = Step::kind_names().join(", ");
                    return Err(self.place(report, kind.span()).help(format!("kinds: {kinds}")));
                }
                let DeValue::Table(defaults) = value.into_inner() else { continue };
                for (_, step) in self.steps_mut() {
                    let DeValue::Table(step) = step.get_mut() else { continue };
                    if step.get("kind").and_then(|k| k.get_ref().as_str()) == Some(kind.get_ref()) {
                        fill(step, &defaults);
                    }
                }
            }
        }
        Ok(())
    }

    fn steps_mut(&mut self) -> impl Iterator<Item = (&Spanned<std::borrow::Cow<'a, str>>, &mut Spanned<DeValue<'a>>)> {
        let steps = self.root.get_mut("steps").map(Spanned::get_mut);
        let table = match steps {
            Some(DeValue::Table(table)) => Some(table),
            _ => None,
        };
        table.into_iter().flat_map(|table| table.iter_mut())
    }

    /// Applies `key=value`.
    fn assign(&mut self, key: &str, text: &'a Text) -> Result<()> {
        let path = self.full_path(key)?;
        let mut parsed = self.parse(text)?;
        let Some((name, value)) = parsed.remove_entry("value") else { return Ok(()) };
        let span = name.span();
        let mut table = &mut self.root;
        for segment in &path[..path.len() - 1] {
            let entry = table.entry(Spanned::new(span.clone(), segment.clone().into()));
            let child = entry.or_insert_with(|| Spanned::new(span.clone(), DeValue::Table(DeTable::new())));
            match child.get_mut() {
                DeValue::Table(inner) => table = inner,
                _ => return Err(Error::usage(format!("`{segment}` in `{key}` is a value, not a table"))),
            }
        }
        let last = path.last().expect("a split string has a last part").clone();
        table.remove(last.as_str());
        table.insert(Spanned::new(span, last.into()), value);
        Ok(())
    }

    /// `train.lr` -> `steps.bard.schedule.lr`: the step may be named by its kind where there is only one, and the
    /// sub-table of a key that occurs once may be left out.
    fn full_path(&mut self, key: &str) -> Result<Vec<String>> {
        let mut path: Vec<String> = key.split('.').map(str::to_string).collect();
        if path.iter().any(String::is_empty) {
            return Err(Error::usage(format!("`{key}` is not a key")).help("write `--set step.key=value`"));
        }
        if TABLES.into_iter().chain(GUESTS).all(|table| table != path[0]) {
            let steps: Vec<(String, String)> = self
                .steps_mut()
                .map(|(name, step)| {
                    let kind = step.get_ref().get("kind").and_then(|k| k.get_ref().as_str()).unwrap_or_default();
                    (name.get_ref().to_string(), kind.to_string())
                })
                .collect();
            let by_kind: Vec<&String> =
                steps.iter().filter(|(_, kind)| *kind == path[0]).map(|(name, _)| name).collect();
            if steps.iter().any(|(name, _)| *name == path[0]) {
                path.insert(0, "steps".into());
            } else if let [only] = by_kind.as_slice() {
                path.splice(0..1, ["steps".to_string(), only.to_string()]);
            } else if by_kind.len() > 1 {
                let names: Vec<&str> = by_kind.iter().map(|name| name.as_str()).collect();
                return Err(Error::usage(format!("`{}` is the kind of several steps: {}", path[0], names.join(", ")))
                    .help(format!("name one: `--set {}.{}=…`", names[0], path[1..].join("."))));
            } else {
                let names = steps.iter().map(|(name, _)| name.as_str()).chain(TABLES);
                let near = nearest(&path[0], names.clone()).map(|near| format!("did you mean `{near}`? "));
                return Err(Error::usage(format!("`{key}` starts with neither a step nor a table")).help(format!(
                    "{}start with one of: {}",
                    near.unwrap_or_default(),
                    names.collect::<Vec<_>>().join(", ")
                )));
            }
        }
        if path[0] == "steps" && path.len() == 3 {
            self.add_subtable(&mut path, key)?;
        }
        Ok(path)
    }

    /// `steps.bard.lr` -> `steps.bard.schedule.lr`
    fn add_subtable(&self, path: &mut Vec<String>, key: &str) -> Result<()> {
        let kind = self.root.get("steps").and_then(|steps| steps.get_ref().get(path[1].as_str()));
        let kind = kind.and_then(|step| step.get_ref().get("kind")).and_then(|kind| kind.get_ref().as_str());
        let Some(table) = kind.and_then(Kind::named).map(|kind| (kind.table)()) else { return Ok(()) };
        if table.key(&path[2]).is_some() {
            return Ok(());
        }
        let holders: Vec<&str> =
            table.subtables().filter(|(_, inner)| inner.key(&path[2]).is_some()).map(|(name, _)| name).collect();
        match holders.as_slice() {
            [] => {}
            [holder] => path.insert(2, holder.to_string()),
            many => {
                let step = &path[1];
                let ways: Vec<String> = many.iter().map(|table| format!("{step}.{table}.{}", path[2])).collect();
                return Err(Error::usage(format!("`{key}` may mean {}", ways.join(" or "))).help("write it in full"));
            }
        }
        Ok(())
    }

    /// The typed form of the tree.
    pub(super) fn typed(&self) -> Result<ProjectFile> {
        let known = || TABLES.into_iter().chain(GUESTS);
        for (key, _) in self.root.iter() {
            if known().all(|table| table != key.get_ref().as_ref()) {
                let report = Error::input(format!("unknown table `{}`", key.get_ref()));
                let near = nearest(key.get_ref(), known());
                let all = || format!("tables: {}", known().collect::<Vec<_>>().join(", "));
                let help = match (crate::config::Kind::named(key.get_ref()), near) {
                    (Some(kind), _) => format!("write a step: `[steps.NAME]` with `kind = \"{}\"`", kind.name),
                    (None, Some(near)) => format!("did you mean `{near}`?"),
                    (None, None) => all(),
                };
                return Err(self.place(report, key.span()).help(help));
            }
        }
        let Some(project) = self.root.get("project") else {
            return Err(Error::input("there is no table `[project]`")
                .at(self.file_name, 1)
                .help("add `[project]` with `name = \"…\"`"));
        };
        let project: Project = self.typed_value(project)?;
        let mut sources = BTreeMap::new();
        for (name, value) in self.children("sources") {
            sources.insert(name.to_string(), self.typed_value::<Source>(value)?);
        }
        let mut steps = BTreeMap::new();
        for (name, value) in self.children("steps") {
            steps.insert(name.to_string(), self.typed_step(name, value)?);
        }
        let policy = self.root.get("policy").map(|value| self.typed_value::<Policy>(value)).transpose()?;
        Ok(ProjectFile { project, sources, steps, policy: policy.unwrap_or_default() })
    }

    /// The entries of a top-level table in the order of the text.
    pub(super) fn children(&self, table: &str) -> Vec<(&str, &Spanned<DeValue<'a>>)> {
        let Some(DeValue::Table(table)) = self.root.get(table).map(Spanned::get_ref) else { return vec![] };
        let mut entries: Vec<_> =
            table.iter().map(|(key, value)| (key.span().start, key.get_ref().as_ref(), value)).collect();
        entries.sort_by_key(|(start, ..)| *start);
        entries.into_iter().map(|(_, key, value)| (key, value)).collect()
    }

    fn typed_step(&self, name: &str, value: &Spanned<DeValue<'a>>) -> Result<Step> {
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.place(Error::input(format!("`steps.{name}` must be a table")), value.span()));
        };
        let kinds = Step::kind_names().join(", ");
        let mut table = table.clone();
        let Some((_, kind)) = table.remove_entry("kind") else {
            let report = Error::input(format!("step `{name}` has no `kind`"));
            return Err(self.place(report, value.span()).help(format!("add `kind = \"…\"`, one of: {kinds}")));
        };
        let written = kind.get_ref().as_str();
        let Some(known) = written.and_then(Kind::named) else {
            let report =
                Error::input(format!("step `{name}` has an unknown kind `{}`", written.unwrap_or("(not a string)")));
            let near = written.and_then(|written| nearest(written, Step::kind_names()));
            let help = near.map_or(format!("kinds: {kinds}"), |near| format!("did you mean `{near}`? kinds: {kinds}"));
            return Err(self.place(report, kind.span()).help(help));
        };
        let rest = Spanned::new(value.span(), DeValue::Table(table));
        self.conforming(&(known.table)(), &rest, known.read)
    }

    fn typed_value<T: DeserializeOwned + JsonSchema>(&self, value: &Spanned<DeValue<'a>>) -> Result<T> {
        self.conforming(&Table::of::<T>(), value, T::deserialize)
    }

    /// What a table says, in its typed form.
    pub(super) fn conforming<T>(
        &self,
        form: &Table,
        value: &Spanned<DeValue<'a>>,
        read: impl FnOnce(ValueDeserializer<'a>) -> std::result::Result<T, toml::de::Error>,
    ) -> Result<T> {
        conform::table(form, value)
            .map_err(|wrong| self.place(Error::input(wrong.what), wrong.span).help(wrong.help))?;
        read(ValueDeserializer::from(value.clone())).map_err(|error| {
            // What only its own type can judge, such as a licence: what is wrong, and perhaps what to do.
            let message = error.message().trim();
            let first_line = message.lines().next().unwrap_or(message);
            let (what, help) = first_line.split_once("; ").unwrap_or((first_line, SCHEMA_HELP));
            self.place(Error::input(what), error.span().unwrap_or(value.span())).help(help)
        })
    }

    /// The span of the value at a path, or of the deepest part that exists.
    pub(super) fn span_of(&self, path: &[&str]) -> Range<usize> {
        let mut span = 0..0;
        let mut table = &self.root;
        for segment in path {
            let Some((key, value)) = table.get_key_value(*segment) else { return span };
            span = key.span();
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                _ => return value.span(),
            }
        }
        span
    }

    /// Says where in which text a report belongs.
    pub(super) fn place(&self, report: Error, span: Range<usize>) -> Error {
        let Some(text) = self.texts.iter().rev().find(|text| text.base <= span.start) else { return report };
        match &text.origin {
            TextOrigin::ProjectFile(name) | TextOrigin::UserFile(name) => report.at(name, text.line_of(span.start)),
            TextOrigin::Environment => report.at("environment NARTHEX_SET", None),
            TextOrigin::Flag => report.at("--set", None),
        }
    }

    /// The origin of every leaf that somebody wrote.
    pub(super) fn origins(&self) -> BTreeMap<String, Origin> {
        let mut origins = BTreeMap::new();
        self.collect_origins(&self.root, String::new(), &mut origins);
        origins
    }

    fn collect_origins(&self, table: &DeTable<'a>, prefix: String, into: &mut BTreeMap<String, Origin>) {
        for (key, value) in table.iter() {
            let path =
                if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
            if let DeValue::Table(inner) = value.get_ref() {
                self.collect_origins(inner, path, into);
                continue;
            }
            let start = value.span().start;
            let Some(text) = self.texts.iter().rev().find(|text| text.base <= start) else { continue };
            let origin = match &text.origin {
                TextOrigin::ProjectFile(name) | TextOrigin::UserFile(name) => {
                    Origin::File(name.clone(), text.line_of(start))
                }
                TextOrigin::Environment => Origin::Environment,
                TextOrigin::Flag => Origin::Flag,
            };
            into.insert(path, origin);
        }
    }
}

impl Text {
    /// The line, counted from 1, of an offset in the common range.
    fn line_of(&self, offset: usize) -> usize {
        let end = (offset - self.base).min(self.content.len());
        self.content.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// Adds what `defaults` has and `table` lacks.
fn fill<'a>(table: &mut DeTable<'a>, defaults: &DeTable<'a>) {
    for (key, value) in defaults.iter() {
        match (table.get_mut(key.get_ref().as_ref()).map(Spanned::get_mut), value.get_ref()) {
            (None, _) => {
                table.insert(key.clone(), value.clone());
            }
            (Some(DeValue::Table(inner)), DeValue::Table(defaults)) => fill(inner, defaults),
            (Some(_), _) => {}
        }
    }
}

fn shift_table<'a>(table: DeTable<'a>, by: usize) -> DeTable<'a> {
    table
        .into_iter()
        .map(|(key, value)| (Spanned::new(moved(key.span(), by), key.into_inner()), shift(value, by)))
        .collect()
}

fn shift<'a>(value: Spanned<DeValue<'a>>, by: usize) -> Spanned<DeValue<'a>> {
    let span = moved(value.span(), by);
    let inner = match value.into_inner() {
        DeValue::Array(array) => DeValue::Array(array.into_iter().map(|value| shift(value, by)).collect()),
        DeValue::Table(table) => DeValue::Table(shift_table(table, by)),
        other => other,
    };
    Spanned::new(span, inner)
}

fn moved(span: Range<usize>, by: usize) -> Range<usize> {
    span.start + by..span.end + by
}
