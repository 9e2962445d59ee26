//! Chores of this repository: `cargo xtask NAME`. No part of what users get.

mod data_cases;
mod dependencies;
mod docs;
mod kinds;
mod modules;
mod package;
mod page_test;
mod reference;
mod tidy;
mod webdriver;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask CHORE

  tidy          checks the crates' dependencies and the form of all Rust files
  dependencies  writes the list of crates that the default binary is built from
  reference     writes the tables of keys in the reference of narthex.toml
  docs          runs every command block of the documentation; `cargo xtask docs --help` tells more
  data-cases    answers cases of the rules for texts, to be held beside those of datatrove
  package       makes a wheel, a Debian package and an archive of a release binary
  page-test     drives the chat page in headless Chromium; `cargo xtask page-test --help` tells more";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.split_first().map(|(chore, rest)| (chore.as_str(), rest)) {
        Some(("tidy", rest)) => tidy::run(rest),
        Some(("dependencies", rest)) => dependencies::run(rest),
        Some(("docs", rest)) => docs::run(rest),
        Some(("reference", rest)) => reference::run(rest),
        Some(("data-cases", rest)) => data_cases::run(rest),
        Some(("package", rest)) => package::run(rest),
        Some(("page-test", rest)) => page_test::run(rest),
        Some(("--help" | "-h" | "help", _)) => {
            println!("{USAGE}");
            Ok(())
        }
        Some((chore, _)) => Err(format!("error: there is no chore `{chore}`\n{USAGE}")),
        None => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
