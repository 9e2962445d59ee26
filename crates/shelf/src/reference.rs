//! What a reference names: a place on disk, or a name in a project's ledger. How it is written decides, never what lies
//! in the working folder: the same words mean the same thing wherever they are typed. Knows ledgers, no models and no
//! policy.

use crate::{
    gguf::is_gguf,
    project::{PlanOptions, has_plan, open_ledger, read_plan},
};
use narthex_base::{Error, Result};
use narthex_ledger::{Artifact, Ledger};
use std::path::{Path, PathBuf};

/// What a reference names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// A folder or a file.
    Place(&'a Path),
    /// A name or digest in the project's ledger.
    Name(&'a str),
}

impl<'a> Reference<'a> {
    /// A place begins with `.`, `/` or `~`, has a separator in it, or ends in `.gguf`; all else is a name.
    pub fn of(text: &'a str) -> Self {
        match text.starts_with(['.', '~']) || text.contains(['/', '\\']) || is_gguf(Path::new(text)) {
            true => Self::Place(Path::new(text)),
            false => Self::Name(text),
        }
    }

    /// The folder that it names, if it names one that is there.
    pub fn folder(self) -> Option<&'a Path> {
        match self {
            Self::Place(path) if path.is_dir() => Some(path),
            _ => None,
        }
    }

    /// The folder that it names, or in which the papers lie that it names.
    pub fn papers_folder(self) -> Option<PathBuf> {
        match self {
            Self::Place(path) if path.is_dir() => Some(path.to_path_buf()),
            Self::Place(path) if path.is_file() => Some(path.parent().unwrap_or(Path::new(".")).to_path_buf()),
            _ => None,
        }
    }
}

/// The artifact of a name, and the ledger that has it.
///
/// # Errors
/// If there is no ledger, or nothing in it fits. Where a folder or file of this name lies here, the help says how it is
/// written.
pub(crate) fn resolve(project: &Path, name: &str) -> Result<(Ledger, Artifact)> {
    let found = open_ledger(project).and_then(|ledger| Ok((ledger.resolve(name)?, ledger)));
    match found {
        Ok((artifact, ledger)) => Ok((ledger, artifact)),
        Err(error) => Err(match help_for(name) {
            Some(help) => error.help(help),
            None if is_step(project, name) => Error::input(format!("the step `{name}` has not run"))
                .help(format!("make it: `narthex run {} --to {name}`", project.display())),
            None => error,
        }),
    }
}

/// Whether a project's file has a step of this name.
fn is_step(project: &Path, name: &str) -> bool {
    let plan = has_plan(project).then(|| read_plan(project, &PlanOptions::default()).ok()).flatten();
    plan.is_some_and(|plan| plan.steps.iter().any(|step| step.name == name))
}

/// The endings of files that are models.
const MODEL_ENDINGS: [&str; 6] = ["gguf", "safetensors", "pt", "pth", "bin", "ckpt"];

/// What to write instead of a name that no ledger has.
pub fn help_for(name: &str) -> Option<String> {
    let path = Path::new(name);
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    if !path.exists() && ending.is_some_and(|ending| MODEL_ENDINGS.contains(&ending.as_str())) {
        return Some(format!("there is no such file; a file is taken into the ledger first: `narthex import {name}`"));
    }
    if let Some((model, _)) = name.split_once(':').filter(|_| !path.exists()) {
        return Some(format!(
            "there are no tags here; fetch a model of the Hugging Face Hub: `narthex pull hf:OWNER/{model}`"
        ));
    }
    let is_papers = path.extension().is_some_and(|ending| ending == "json");
    if path.is_dir() || path.is_file() && is_papers {
        return Some(format!("a name is looked up in the ledger; what lies here is written `./{name}`"));
    }
    path.is_file().then(|| format!("take the file into the ledger first: `narthex import {name}`"))
}

/// The error for a place that holds no model.
pub fn no_model(place: &Path) -> Error {
    let shown = place.display();
    let error = Error::input(format!("there is no model in {shown}"));
    if place.is_file() {
        return error.help(format!("take the file into the ledger first: `narthex import {shown}`"));
    }
    let parts: Vec<_> = shown.to_string().split('/').map(str::to_string).collect();
    let is_id = |part: &String| !part.is_empty() && !part.starts_with(['.', '~']);
    error.help(match parts.as_slice() {
        [owner, model] if is_id(owner) && is_id(model) && !place.exists() => {
            format!("there is no such folder; if it is a repository, fetch it first: `narthex pull hf:{owner}/{model}`")
        }
        _ => "a model folder holds config.json, model.safetensors and tokenizer.json".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_it_is_written_decides() {
        for (text, is_place) in [
            ("tiny", false),
            ("tiny@3f2a", false),
            ("3f2a99c1", false),
            ("Qwen3-0.6B", false),
            ("papers.json", false),
            ("", false),
            (".", true),
            ("..", true),
            ("./tiny", true),
            ("../tiny", true),
            ("tiny/", true),
            ("models/tiny", true),
            ("/models/tiny", true),
            ("~/tiny", true),
            ("models\\tiny", true),
            ("tiny.gguf", true),
            ("Tiny.Q4_K_M.GGUF", true),
            ("tiny-gguf", false),
            ("./papers.json", true),
        ] {
            let expected = if is_place { Reference::Place(Path::new(text)) } else { Reference::Name(text) };
            assert_eq!(Reference::of(text), expected, "{text}");
        }
        // A folder that is here is none by its bare name.
        assert!(Path::new("src").is_dir());
        assert_eq!(Reference::of("src").folder(), None);
        assert_eq!(Reference::of("./src").folder(), Some(Path::new("./src")));
    }

    #[test]
    fn what_to_write_instead() {
        for (name, expected) in [
            ("src", Some("written `./src`")),
            ("Cargo.toml", Some("narthex import Cargo.toml")),
            ("nothing-of-this-name", None),
        ] {
            let help = help_for(name);
            assert_eq!(help.is_some(), expected.is_some(), "{help:?}");
            assert!(help.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
        for (place, expected) in [
            ("org/name", "narthex pull hf:org/name"),
            ("./org/name", "config.json"),
            ("./src", "config.json"),
            ("./Cargo.toml", "narthex import ./Cargo.toml"),
        ] {
            let error = no_model(Path::new(place)).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
