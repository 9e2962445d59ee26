//! How the files of a crate use each other, by their `crate::` paths outside tests: in no circles, and each name from
//! the module that defines it. Reads text only; knows nothing of what the names are.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
};

/// A module's place in its crate: empty for the root.
type ModulePath = Vec<String>;

/// A file of a crate.
pub struct Source {
    /// Below the crate's `src`.
    pub file: PathBuf,
    pub text: String,
}

/// What is wrong: file below `src`, line, and what.
pub type Complaint = (PathBuf, usize, String);

/// A module with what it uses.
struct Module {
    file: PathBuf,
    /// Module, and the line that uses it first.
    uses: BTreeMap<ModulePath, usize>,
}

/// The modules of a crate, tests left out.
pub struct Modules {
    modules: BTreeMap<ModulePath, Module>,
    /// Names that are used as the crate shows them to others.
    detours: Vec<Complaint>,
}

impl Modules {
    /// Reads how the files of a crate use each other.
    pub fn read(sources: &[Source]) -> Self {
        let tests: BTreeSet<ModulePath> = sources.iter().flat_map(test_modules).collect();
        let is_test = |path: &ModulePath| (1..=path.len()).any(|len| tests.contains(&path[..len]));
        let code = sources.iter().map(|source| (module_path(&source.file), source));
        let code: BTreeMap<ModulePath, &Source> = code.filter(|(path, _)| !is_test(path)).collect();
        let root = code.get(&ModulePath::new()).map(|source| source.text.as_str()).unwrap_or_default();
        let (mut modules, mut detours) = (BTreeMap::new(), Vec::new());
        for (path, source) in &code {
            let mut uses = BTreeMap::new();
            for (line, names) in crate_paths(&without_tests(&source.text)) {
                let len = (0..=names.len()).rev().find(|len| code.contains_key(&names[..*len])).unwrap_or_default();
                let used = names[..len].to_vec();
                if !used.is_empty() && used != *path {
                    uses.entry(used).or_insert(line);
                } else if used.is_empty() && !path.is_empty() && names.first().is_some_and(|name| !defines(root, name))
                {
                    let what = format!("`crate::{}` is what the crate shows to others", names.join("::"));
                    detours.push((
                        source.file.clone(),
                        line,
                        format!("{what}: use it from the module that defines it"),
                    ));
                }
            }
            modules.insert(path.clone(), Module { file: source.file.clone(), uses });
        }
        Self { modules, detours }
    }

    /// Names that come from the crate's root and not from the module that defines them.
    pub fn detours(&self) -> Vec<Complaint> {
        self.detours.clone()
    }

    /// Modules that use each other in a circle, told once for each circle's first.
    pub fn circles(&self) -> Vec<Complaint> {
        circles(&self.modules)
    }
}

/// One complaint for each module that lies on a circle whose modules all come after it.
fn circles(modules: &BTreeMap<ModulePath, Module>) -> Vec<Complaint> {
    let mut found = Vec::new();
    for start in modules.keys() {
        if let Some(way) = way_back(modules, start) {
            let line = modules[start].uses.get(&way[0]).copied().unwrap_or(1);
            let names: Vec<String> = [start].into_iter().chain(&way).map(|path| path.join("::")).collect();
            let what = format!("a circle: {}: let one of them know less of the others", names.join(" -> "));
            found.push((modules[start].file.clone(), line, what));
        }
    }
    found
}

/// The shortest way from a module back to itself through modules after it, if there is one.
fn way_back(modules: &BTreeMap<ModulePath, Module>, start: &ModulePath) -> Option<Vec<ModulePath>> {
    let mut before: BTreeMap<&ModulePath, &ModulePath> = BTreeMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(here) = open.pop_front() {
        for next in modules.get(here)?.uses.keys() {
            if next == start {
                let mut way = vec![start.clone()];
                let mut place = here;
                while place != start {
                    way.push(place.clone());
                    place = before[place];
                }
                way.reverse();
                return Some(way);
            }
            if next > start && !before.contains_key(next) {
                before.insert(next, here);
                open.push_back(next);
            }
        }
    }
    None
}

/// `product/tile.rs` is `product::tile`; `simd/mod.rs` is `simd`; `lib.rs` is the root.
fn module_path(file: &Path) -> ModulePath {
    let mut path: ModulePath = file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if path.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        path.pop();
    }
    path
}

/// The modules in files of their own that a file declares for tests.
fn test_modules(source: &Source) -> Vec<ModulePath> {
    let mut lines = source.text.lines().map(str::trim);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line != "#[cfg(test)]" {
            continue;
        }
        let name = lines.next().and_then(|line| line.strip_suffix(';')?.split_once("mod "));
        if let Some((_, name)) = name {
            let mut path = module_path(&source.file);
            path.push(name.to_string());
            found.push(path);
        }
    }
    found
}

/// The text with comments and test modules emptied; its lines stay where they are.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim_start();
        if trimmed == "#[cfg(test)]" {
            let close = format!("{}}}", &line[..line.len() - trimmed.len()]);
            let Some(item) = lines.next() else { break };
            kept.push_str("\n\n");
            if item.ends_with('{') {
                for inside in lines.by_ref() {
                    kept.push('\n');
                    if inside == close {
                        break;
                    }
                }
            }
            continue;
        }
        let code = if trimmed.starts_with("//") { "" } else { line.split(" // ").next().unwrap_or_default() };
        kept.push_str(code);
        kept.push('\n');
    }
    kept
}

/// Every path that begins with `crate::`, alone or in braces, with its line; without `crate` itself.
fn crate_paths(text: &str) -> Vec<(usize, ModulePath)> {
    let mut found = Vec::new();
    for (at, word) in text.match_indices("crate::") {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let line = text[..at].matches('\n').count() + 1;
        let mut paths = Vec::new();
        branches(&text[at + word.len()..], &[], &mut paths);
        found.extend(paths.into_iter().map(|path| (line, path)));
    }
    found
}

/// Adds the paths of a tree of names that begins here; returns what comes after it.
fn branches<'a>(text: &'a str, before: &[String], paths: &mut Vec<ModulePath>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches([',', ' ', '\n', '\t']);
            if rest.is_empty() {
                return rest;
            }
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let after = branches(rest, before, paths);
            // What is no name is passed over, so that this comes to an end.
            rest =
                if after.len() < rest.len() { after } else { &rest[rest.chars().next().map_or(0, char::len_utf8)..] };
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let mut path = before.to_vec();
    if !name.is_empty() && name != "self" {
        path.push(name.to_string());
    }
    match rest.strip_prefix("::") {
        Some(below) if !below.starts_with('<') => return branches(below, &path, paths),
        _ => paths.push(path),
    }
    if let Some(renamed) = rest.trim_start().strip_prefix("as ") {
        rest = renamed.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
    }
    rest
}

/// Whether a file defines this name itself, rather than passing it on.
fn defines(text: &str, name: &str) -> bool {
    ["fn", "struct", "enum", "trait", "type", "const", "static", "macro_rules!", "mod"].iter().any(|kind| {
        text.match_indices(&format!("{kind} {name}"))
            .any(|(at, found)| !text[at + found.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: &[(&str, usize, &str)]) {
        let source = |(file, text): &(&str, &str)| Source { file: PathBuf::from(file), text: text.to_string() };
        let modules = Modules::read(&files.iter().map(source).collect::<Vec<_>>());
        let found = [modules.detours(), modules.circles()].concat();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((file, line, what), (expected_file, expected_line, part)) in found.iter().zip(expected) {
            assert!(file == Path::new(expected_file) && line == expected_line && what.contains(part), "{found:?}");
        }
    }

    #[test]
    fn circles_are_found() {
        let lib = ("lib.rs", "mod a;\nmod b;\nmod c;\npub use a::X;\n");
        check(&[lib, ("a.rs", "use crate::b::Y;\n"), ("b.rs", "use crate::c::Z;\n"), ("c.rs", "")], &[]);
        check(
            &[lib, ("a.rs", "\nuse crate::{c, b::{self, Y}};\n"), ("b.rs", "fn f() { crate::a::g() }\n"), ("c.rs", "")],
            &[("a.rs", 2, "a -> b -> a")],
        );
        check(
            &[lib, ("a.rs", "use crate::b::Y;"), ("b/mod.rs", "use crate::c::Z;"), ("c.rs", "use crate::a::X as W;")],
            &[("a.rs", 1, "a -> b -> c -> a")],
        );
        // Children and their parents are one thing; tests and comments may look anywhere.
        check(&[lib, ("a.rs", "mod d;\nuse d::D;\n"), ("a/d.rs", "use super::X;\nuse crate::a::Y;\n")], &[]);
        check(
            &[
                lib,
                ("a.rs", "use crate::b::Y;\n"),
                ("b.rs", "// crate::a::X\n#[cfg(test)]\nmod tests {\n    use crate::a::X;\n}\n"),
                ("c.rs", "#[cfg(test)]\nmod tests;\n"),
                ("c/tests.rs", "use crate::c::C;\n"),
            ],
            &[],
        );
    }

    #[test]
    fn names_come_from_where_they_are_defined() {
        let lib = ("lib.rs", "mod a;\nmod b;\npub use a::X;\npub struct Own;\n");
        let a = ("a.rs", "pub struct X;\n");
        check(&[lib, a, ("b.rs", "use crate::{Own, a::X};\nfn f() -> crate::Own { Own }\n")], &[]);
        check(
            &[lib, a, ("b.rs", "use std::fmt;\nuse crate::X;\n")],
            &[("b.rs", 2, "`crate::X` is what the crate shows")],
        );
    }
}
