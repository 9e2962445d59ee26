//! What the default binary is built from: every crate that is not ours, so that the list does not grow unseen. Asks
//! Cargo; compiles nothing.

use crate::tidy::root;
use std::{collections::BTreeMap, fs, process::Command};

const USAGE: &str = "\
usage: cargo xtask dependencies

  writes xtask/dependencies.txt anew: the crates that the default binary is built from";

/// The list, below the repository's root.
const LIST: &str = "xtask/dependencies.txt";

/// The platform of the list: others need other crates of their own.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Writes the list.
pub fn run(arguments: &[String]) -> Result<(), String> {
    if !arguments.is_empty() {
        return Err(USAGE.into());
    }
    let (old, new) = (listed()?, needed()?);
    fs::write(root().join(LIST), &new).map_err(|error| format!("cannot write {LIST}: {error}"))?;
    match change(&old, &new) {
        Some(change) => println!("{change}"),
        None => println!("nothing has changed"),
    }
    Ok(())
}

/// The list as it is in the repository.
fn listed() -> Result<String, String> {
    fs::read_to_string(root().join(LIST)).map_err(|error| format!("cannot read {LIST}: {error}"))
}

/// The list as Cargo gives it.
fn needed() -> Result<String, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let arguments = ["tree", "--locked", "--offline", "--package", "narthex", "--edges", "normal,build"];
    let output = Command::new(cargo)
        .current_dir(root())
        .args(arguments)
        .args(["--prefix", "none", "--target", PLATFORM])
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo tree: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(list(&String::from_utf8_lossy(&output.stdout)))
}

/// The list that a tree stands for: a crate a line, with the number of its versions where there are several. Versions
/// themselves change often and cost nothing.
fn list(tree: &str) -> String {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in tree.lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
        let known = versions.entry(name).or_default();
        if !known.contains(&version) {
            known.push(version);
        }
    }
    versions.retain(|name, _| *name != "narthex" && !name.starts_with("narthex-"));
    let line = |(name, versions): (&str, Vec<&str>)| match versions.len() {
        1 => format!("{name}\n"),
        count => format!("{name} in {count} versions\n"),
    };
    versions.into_iter().map(line).collect()
}

/// What is on one list only; none if they are equal.
fn change(old: &str, new: &str) -> Option<String> {
    let only = |these: &str, those: &str, sign: char| -> Vec<String> {
        let missing = these.lines().filter(|line| !those.lines().any(|other| other == *line));
        missing.map(|line| format!("{sign} {line}")).collect()
    };
    let lines = [only(old, new, '-'), only(new, old, '+')].concat();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_binary_needs_what_is_listed() {
        if let Some(change) = change(&listed().unwrap(), &needed().unwrap()) {
            panic!(
                "the default binary is built from other crates than {LIST} lists:\n{change}\nevery crate costs all who \
                 build it: where one is worth that, run `cargo xtask dependencies` and say so in the commit"
            );
        }
    }

    #[test]
    fn lists_and_changes() {
        let tree = "narthex v0.1.0 (/w/crates/cli)\nserde v1.0.2\nsyn v2.0.1\nserde_derive v1.0.2 (proc-macro)\n\
                    narthex-base v0.1.0 (/w/crates/base)\nsyn v3.0.0\nserde v1.0.2 (*)\n\n";
        let listed = list(tree);
        assert_eq!(listed, "serde\nserde_derive\nsyn in 2 versions\n");
        assert_eq!(change(&listed, &listed), None);
        for (new, expected) in [
            ("serde\nserde_derive\nsyn in 3 versions\n", "- syn in 2 versions\n+ syn in 3 versions"),
            ("serde\nserde_derive\nsyn in 2 versions\ntokio\n", "+ tokio"),
            ("serde\nsyn in 2 versions\n", "- serde_derive"),
        ] {
            assert_eq!(change(&listed, new).as_deref(), Some(expected));
        }
    }
}
