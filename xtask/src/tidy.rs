//! The fences of this repository, checked: who may depend on whom, and how files look. Reads text
//! only; knows Cargo manifests and Rust files, compiles nothing.

use crate::kinds;
use crate::modules::{Modules, Source};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
};

const USAGE: &str = "\
usage: cargo xtask tidy

  checks the crates' dependencies and the form of all Rust files; prints each violation with file and line";

/// The crates in chain order, and the crates of ours that each may use. No other edge is allowed.
/// Tests (`[dev-dependencies]`) are free.
#[rustfmt::skip]
const EDGES: [(&str, &[&str]); 28] = [
    ("base",    &[]),
    ("ledger",  &["base"]),
    ("openness", &["base"]),
    ("formats", &["base"]),
    ("remote",  &["base"]),
    ("hub",     &["base", "remote"]),
    ("text",    &["base"]),
    ("curate",  &["base"]),
    ("data",    &["base", "text", "curate"]),
    ("kernels", &["base"]),
    ("model",   &["base", "kernels"]),
    ("infer",   &["base", "kernels", "model"]),
    ("answer",  &["base", "text", "infer"]),
    ("knowledge", &["base"]),
    ("shelf",   &["base", "ledger", "openness", "formats", "text", "kernels", "model", "infer", "answer", "knowledge"]),
    ("train",   &["base", "text", "kernels", "model"]),
    ("http",    &["base"]),
    ("serve",   &["base", "openness", "text", "infer", "answer", "http"]),
    ("route",   &["base", "http"]),
    ("run",     &["base", "knowledge", "ledger", "openness", "text", "data", "kernels", "model", "infer", "answer", "shelf", "train"]),
    ("oci",     &["base", "remote"]),
    ("deploy",  &["base"]),
    ("agent",   &["base"]),
    ("tools",   &["base", "agent", "knowledge"]),
    ("mcp",     &["base", "agent"]),
    ("a2a",     &["base", "agent"]),
    ("agent-api", &["base", "agent", "http"]),
    ("cli",     &["base", "agent", "knowledge", "tools", "mcp", "a2a", "agent-api", "ledger", "openness", "text", "kernels", "model", "infer", "answer", "shelf", "train", "http", "serve", "route", "run", "hub", "oci", "deploy"]),
];

/// Heavy dependencies, with all that is named `NAME-…`, and the only crates that may use them.
#[rustfmt::skip]
const HEAVY: [(&str, &[&str]); 9] = [
    ("a2a",        &["a2a"]),
    ("axum",       &["http", "serve", "route", "agent-api", "mcp", "a2a"]),
    ("burn",       &["kernels", "model", "infer", "train"]),
    ("datafusion", &["data"]),
    ("llguidance", &["answer"]),
    ("reqwest",    &["tools", "mcp", "a2a"]),
    ("rmcp",       &["mcp"]),
    ("sqlx",       &["ledger", "agent", "a2a"]),
    ("tantivy",    &["knowledge"]),
];

/// What may not stand in a Rust file, and why. Split, so that this file does not hold it either.
const FORBIDDEN: [(&str, &str); 5] = [
    (concat!("to", "do!("), "finish it, or return an error that says it is not supported"),
    (concat!("unimple", "mented!("), "finish it, or return an error that says it is not supported"),
    (concat!("db", "g!("), "remove it"),
    (concat!("FIX", "ME"), "fix it, or open an issue"),
    (concat!("X", "XX"), "say what is meant, or open an issue"),
];

/// Crates whose files may still take names from the crate's root rather than from the module that defines them.
/// Likewise.
const WITH_DETOURS: [&str; 2] = ["infer", "serve"];

/// Crates that may still have comments wider than `COLUMNS_MAX`. Likewise.
const WITH_WIDE_COMMENTS: [&str; 5] = ["base", "cli", "infer", "serve", "train"];

/// What panics where nobody reads the output or the disk is full: only examples, tests and chores may.
const PRINTING: [&str; 4] = ["print!(", "println!(", "eprint!(", "eprintln!("];

/// Columns of a comment at most, as rustfmt has it for code: it breaks no comments by itself.
const COLUMNS_MAX: usize = 120;

/// A longer file asks for a better cut.
const LINES_MAX: usize = 700;

/// Folders that hold no sources of ours.
const PASSED_OVER: [&str; 4] = ["target", ".git", ".narthex", "venv"];

/// Something that is not as it should be.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// Line and complaint of one file.
type Complaint = (usize, String);

/// Prints all violations; an error if there is one.
pub fn run(arguments: &[String]) -> Result<(), String> {
    if !arguments.is_empty() {
        return Err(USAGE.into());
    }
    let found = violations(&root())?;
    for violation in &found {
        println!("{violation}");
    }
    match found.len() {
        0 => Ok(()),
        1 => Err("error: 1 violation".into()),
        count => Err(format!("error: {count} violations")),
    }
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Everything in the repository that is not as it should be, sorted.
pub fn violations(root: &Path) -> Result<Vec<Violation>, String> {
    let mut found = Vec::new();
    let mut add = |file: PathBuf, complaints: Vec<Complaint>| {
        found.extend(complaints.into_iter().map(|(line, what)| Violation { file: file.clone(), line, what }));
    };
    let workspace = read(&root.join("Cargo.toml"))?;
    add(PathBuf::from("Cargo.toml"), members(&workspace, &folders(&root.join("crates"))?)?);
    for name in folders(&root.join("crates"))? {
        let file = PathBuf::from(format!("crates/{name}/Cargo.toml"));
        let manifest = read(&root.join(&file))?;
        add(file.clone(), dependencies(&name, &manifest).map_err(|error| format!("{}: {error}", file.display()))?);
    }
    for name in folders(&root.join("crates"))? {
        let inside = PathBuf::from(format!("crates/{name}/src"));
        let source = |path: PathBuf| {
            let file = path.strip_prefix(root.join(&inside)).map(Path::to_path_buf).unwrap_or_default();
            Ok(Source { text: read(&path)?, file })
        };
        let files = rust_files(&root.join(&inside))?.into_iter();
        let modules = Modules::read(&files.map(source).collect::<Result<Vec<_>, String>>()?);
        let detours = if WITH_DETOURS.contains(&name.as_str()) { vec![] } else { modules.detours() };
        for (file, line, what) in [modules.circles(), detours].concat() {
            add(inside.join(file), vec![(line, what)]);
        }
    }
    for name in folders(&root.join("crates"))? {
        let folder = PathBuf::from(format!("crates/{name}/tests"));
        let all = folder.join("all.rs");
        if root.join(&all).is_file() {
            let (text, files) = (read(&root.join(&all))?, rust_files(&root.join(&folder))?);
            let beside = files.iter().filter(|path| path.parent() == Some(root.join(&folder).as_path()));
            let names: Vec<&str> = beside.filter_map(|path| path.file_stem()?.to_str()).collect();
            add(all, left_out(&text, &names));
        }
    }
    for path in rust_files(root)? {
        let (text, file) = (read(&path)?, path.strip_prefix(root).unwrap_or(&path));
        let mut complaints = source(&text);
        complaints.extend(kinds::complaints(file, &text));
        if is_product(file) {
            complaints.extend(printing(&text));
        }
        if !crate_of(file).is_some_and(|name| WITH_WIDE_COMMENTS.contains(&name)) {
            complaints.extend(wide_comments(&text));
        }
        add(file.to_path_buf(), complaints);
    }
    found.sort();
    Ok(found)
}

/// Files of tests that the one program of a crate's tests does not name: they would never run.
fn left_out(all: &str, files: &[&str]) -> Vec<Complaint> {
    let named = |name: &str| all.lines().any(|line| line == format!("mod {name};"));
    let missing = files.iter().filter(|name| **name != "all" && !named(name));
    missing
        .map(|name| (1, format!("`{name}.rs` beside it is not named, so its tests never run: add `mod {name};`")))
        .collect()
}

/// Each member stands after those it may use, and each folder is a member.
fn members(workspace: &str, folders: &BTreeSet<String>) -> Result<Vec<Complaint>, String> {
    let table: toml::Table = workspace.parse().map_err(|error| format!("Cargo.toml: {error}"))?;
    let listed = table.get("workspace").and_then(|workspace| workspace.get("members"));
    let listed = listed.and_then(toml::Value::as_array).ok_or("Cargo.toml: there is no workspace.members")?;
    let names: Vec<&str> =
        listed.iter().filter_map(toml::Value::as_str).filter_map(|path| path.strip_prefix("crates/")).collect();
    let line = |name: &str| line_of(workspace, |line| line.starts_with(&format!("\"crates/{name}\"")));
    let mut complaints = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let Some((_, uses)) = EDGES.iter().find(|(known, _)| known == name) else {
            complaints
                .push((line(name), format!("the crate `{name}` is not in the table of edges in xtask/src/tidy.rs")));
            continue;
        };
        if let Some(late) = uses.iter().find(|used| names[place..].contains(used)) {
            complaints.push((
                line(name),
                format!("`{name}` stands before `{late}`, which it may use: keep the chain's order"),
            ));
        }
    }
    for folder in folders.iter().filter(|folder| !names.contains(&folder.as_str())) {
        complaints
            .push((line_of(workspace, |line| line.starts_with("members")), format!("crates/{folder} is not a member")));
    }
    Ok(complaints)
}

/// What a crate depends on, but may not.
fn dependencies(name: &str, manifest: &str) -> Result<Vec<Complaint>, String> {
    let table: toml::Table = manifest.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let uses = EDGES.iter().find(|(known, _)| *known == name).map(|(_, uses)| *uses).unwrap_or_default();
    let mut complaints = Vec::new();
    for (key, package) in packages(&table) {
        let line = line_of(manifest, |line| {
            line.strip_prefix(&key).is_some_and(|rest| rest.starts_with(['.', ' ', '=', ']']))
        });
        if let Some(ours) = package.strip_prefix("narthex-")
            && !uses.contains(&ours)
        {
            let allowed = if uses.is_empty() { "nothing of ours".into() } else { uses.join(", ") };
            complaints.push((line, format!("`{name}` may not use `{ours}`: it may use {allowed}")));
        }
        for (heavy, users) in HEAVY {
            let is_it = package == heavy || package.strip_prefix(heavy).is_some_and(|rest| rest.starts_with('-'));
            if is_it && !users.contains(&name) {
                complaints.push((line, format!("`{name}` may not use `{package}`: only {} may", users.join(", "))));
            }
        }
    }
    Ok(complaints)
}

/// Key and package of every dependency, also of build scripts and for single platforms, but not of tests.
fn packages(manifest: &toml::Table) -> BTreeMap<String, String> {
    let mut tables: Vec<&toml::Value> = vec![];
    let platforms = manifest.get("target").and_then(toml::Value::as_table);
    for holder in
        [manifest].into_iter().chain(platforms.into_iter().flatten().filter_map(|(_, value)| value.as_table()))
    {
        tables.extend(["dependencies", "build-dependencies"].iter().filter_map(|name| holder.get(*name)));
    }
    let entries = tables.into_iter().filter_map(toml::Value::as_table).flatten();
    entries
        .map(|(key, value)| {
            let package = value.get("package").and_then(toml::Value::as_str);
            (key.clone(), package.unwrap_or(key).to_string())
        })
        .collect()
}

/// What is wrong with a Rust file.
fn source(text: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints.push((1, "the file must open with `//!`: what it does, and what it does not know".into()));
    }
    for (number, line) in text.lines().enumerate() {
        for (word, help) in FORBIDDEN {
            if holds(line, word) {
                complaints.push((number + 1, format!("`{word}`: {help}")));
            }
        }
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        complaints.push((lines, format!("{lines} lines, more than {LINES_MAX}: find a better cut")));
    }
    complaints
}

/// Whether a file is a part of what users get.
fn is_product(file: &Path) -> bool {
    let mut parts = file.components().map(|part| part.as_os_str());
    parts.next().is_some_and(|first| first == "crates") && parts.nth(1).is_some_and(|inside| inside == "src")
}

/// The crate of ours that a file belongs to.
fn crate_of(file: &Path) -> Option<&str> {
    file.strip_prefix("crates").ok()?.iter().next()?.to_str()
}

/// Comments that should be broken.
fn wide_comments(text: &str) -> Vec<Complaint> {
    let comments = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("//"));
    let wide = comments.map(|(number, line)| (number + 1, line.chars().count()));
    let wide = wide.filter(|(_, columns)| *columns > COLUMNS_MAX);
    wide.map(|(line, columns)| (line, format!("a comment of {columns} columns, more than {COLUMNS_MAX}"))).collect()
}

/// Where a file prints by itself.
fn printing(text: &str) -> Vec<Complaint> {
    let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let found = code.filter(|(_, line)| PRINTING.iter().any(|word| holds(line, word)));
    let help = "printing panics on a closed pipe: in `cli` use `outln!` or `noteln!`, elsewhere hand the text out";
    found.map(|(number, _)| (number + 1, help.into())).collect()
}

/// Whether a word stands in a line by itself, and not as part of a longer one.
fn holds(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let after = line[start + word.len()..].chars().next();
        !line[..start].ends_with(is_part) && (word.ends_with('(') || !after.is_some_and(is_part))
    })
}

/// The first line, from 1, that fits; 1 if none does.
fn line_of(text: &str, fits: impl Fn(&str) -> bool) -> usize {
    text.lines().position(|line| fits(line.trim())).map_or(1, |place| place + 1)
}

fn rust_files(root: &Path) -> Result<Vec<PathBuf>, String> {
    let (mut files, mut open) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))? {
            let path = entry.map_err(|error| format!("cannot read {}: {error}", folder.display()))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !path.is_symlink() && !PASSED_OVER.contains(&name.as_ref()) {
                open.push(path);
            } else if name.ends_with(".rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn folders(parent: &Path) -> Result<BTreeSet<String>, String> {
    let entries = fs::read_dir(parent).map_err(|error| format!("cannot read {}: {error}", parent.display()))?;
    let folders = entries.flatten().filter(|entry| entry.path().join("Cargo.toml").is_file());
    Ok(folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_never_run_are_found() {
        assert!(left_out("mod a;\nmod b;\n", &["a", "all", "b"]).is_empty());
        let found = left_out("mod a;\n// mod b;\n", &["a", "all", "b"]);
        assert_eq!(found.len(), 1);
        assert!(found[0].1.contains("`b.rs`"), "{}", found[0].1);
    }

    #[test]
    fn this_repository_is_tidy() {
        let found: Vec<String> = violations(&root()).unwrap().iter().map(Violation::to_string).collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    fn check(found: Vec<Complaint>, expected: &[(usize, &str)]) {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((line, what), (expected_line, expected_part)) in found.iter().zip(expected) {
            assert!(line == expected_line && what.contains(expected_part), "{line}: {what}");
        }
    }

    #[test]
    fn edges() {
        let used = |name: &str, manifest: &str| dependencies(name, manifest).unwrap();
        check(used("data", "[dependencies]\nnarthex-text.workspace = true\ndatafusion = \"1\"\n"), &[]);
        check(used("text", "[dev-dependencies]\nnarthex-data.workspace = true\n"), &[]);
        check(used("text", "[dependencies]\nnarthex-data.workspace = true\n"), &[(2, "may not use `data`")]);
        check(used("train", "[dependencies]\nserde = \"1\"\nnarthex-data = { path = \"x\" }\n"), &[(3, "`data`")]);
        check(used("cli", "[dependencies]\nburn.workspace = true\n"), &[(2, "only kernels, model, infer, train may")]);
        check(used("run", "[dependencies]\nfast = { package = \"burn-cuda\" }\n"), &[(2, "`burn-cuda`")]);
        check(used("base", "[target.'cfg(unix)'.dependencies]\nsqlx = \"1\"\n"), &[(2, "only ledger, agent, a2a may")]);
    }

    #[test]
    fn order_of_members() {
        let listed = |members: &str, folders: &[&str]| {
            let folders = folders.iter().map(|name| name.to_string()).collect();
            members_of(&format!("[workspace]\nmembers = [\n{members}]\n"), &folders)
        };
        let members_in_order = "\"crates/base\",\n\"crates/text\",\n\"crates/data\",\n\"xtask\",\n";
        check(listed(members_in_order, &["base", "text", "data"]), &[]);
        check(listed("\"crates/base\",\n\"crates/data\",\n\"crates/text\",\n", &[]), &[(4, "before `text`")]);
        check(listed("\"crates/other\",\n", &[]), &[(3, "not in the table")]);
        check(listed("", &["base"]), &[(2, "crates/base is not a member")]);
    }

    fn members_of(workspace: &str, folders: &BTreeSet<String>) -> Vec<Complaint> {
        members(workspace, folders).unwrap()
    }

    #[test]
    fn prints() {
        check(printing("//! println!(\nfn f() {\n    // print!(\n    outln!(\"a\");\n}\n"), &[]);
        for word in PRINTING {
            check(printing(&format!("//! It.\nfn f() {{ {word}\"a\") }}\n")), &[(2, "closed pipe")]);
        }
        for (file, expected) in [
            ("crates/cli/src/main.rs", true),
            ("crates/cli/src/commands/run.rs", true),
            ("crates/cli/build.rs", false),
            ("crates/cli/tests/cli.rs", false),
            ("crates/infer/examples/engine.rs", false),
            ("xtask/src/main.rs", false),
        ] {
            assert_eq!(is_product(Path::new(file)), expected, "{file}");
        }
    }

    #[test]
    fn what_only_serves_links_neither_data_nor_training() {
        let linked = |features: &[&str]| {
            let mut cargo = std::process::Command::new(env!("CARGO"));
            cargo.args(["tree", "-p", "narthex", "-e", "normal", "--prefix", "none", "--offline"]).args(features);
            let output = cargo.current_dir(root()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let names = String::from_utf8_lossy(&output.stdout).into_owned();
            names.lines().filter_map(|line| Some(line.split(' ').next()?.to_string())).collect::<BTreeSet<_>>()
        };
        let (whole, serving) = (linked(&[]), linked(&["--no-default-features", "--features", "serve"]));
        for name in ["datafusion", "arrow", "parquet", "narthex-data", "narthex-train", "narthex-run"] {
            assert!(whole.contains(name) && !serving.contains(name), "{name}");
        }
        assert!(serving.contains("narthex-serve") && serving.contains("narthex-shelf"));
    }

    #[test]
    fn form_of_sources() {
        let forbidden = FORBIDDEN.map(|(word, _)| word);
        check(source("//! Fine.\nfn f() {}\n"), &[]);
        check(source("fn f() {}\n"), &[(1, "must open")]);
        for word in forbidden {
            check(source(&format!("//! It.\n\nlet x = {word} 1;\n")), &[(3, word)]);
            check(source(&format!("//! It.\nlet x = my_{word} 1;\n")), &[]);
        }
        let comment = |columns: usize| format!("//! It.\nfn f() {{\n    // {}\n}}\n", "ü".repeat(columns - 7));
        check(wide_comments(&comment(COLUMNS_MAX)), &[]);
        check(wide_comments(&comment(COLUMNS_MAX + 1)), &[(3, "121 columns")]);
        check(wide_comments(&comment(COLUMNS_MAX + 1).replace("//", "/*")), &[]);
        check(source(&format!("//! It.\n{}", "\n".repeat(LINES_MAX))), &[(LINES_MAX + 1, "better cut")]);
    }
}
