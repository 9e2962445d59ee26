//! `narthex completions`, and the pages of the manual that packages take along: both are made from the flags
//! themselves. Knows no verbs.

use clap::{Args, Command};
use clap_complete::Shell;
use narthex_base::{Error, Result};
use std::path::{Path, PathBuf};

/// The verb that writes the manual.
pub const MAN: &str = "man";

/// The arguments of `narthex completions`.
#[derive(Args)]
pub struct Completions {
    /// The shell that completes
    pub shell: Shell,
}

/// The arguments of `narthex man`.
#[derive(Args)]
pub struct Manual {
    /// The folder to write into
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// The script by which a shell completes the flags of this command.
pub fn script(mut command: Command, shell: Shell) -> String {
    let mut script = Vec::new();
    let name = command.get_name().to_string();
    clap_complete::generate(shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes a page of section 1 of the manual for the command and for each below it that is shown.
///
/// # Errors
/// If the folder cannot be written.
pub fn write_manual(command: Command, out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).map_err(|error| Error::io("cannot create", out, error))?;
    let failed = |error| Error::io("cannot write the manual into", out, error);
    let prefix = command.get_name().to_string();
    clap_mangen::generate_to(command, out).map_err(failed)?;
    for entry in std::fs::read_dir(out).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && name.ends_with(".1") {
            let page = std::fs::read_to_string(&path).map_err(failed)?;
            std::fs::write(&path, typeset(&page)).map_err(failed)?;
        }
    }
    Ok(())
}

/// A page whose flags are not broken at their hyphens, and whose examples keep their lines.
fn typeset(page: &str) -> String {
    let mut set = String::with_capacity(page.len() + 32);
    let mut as_is = false;
    for line in page.lines() {
        if line.starts_with(".SH") && as_is {
            set += ".fi\n";
            as_is = false;
        }
        set += line;
        set.push('\n');
        if line.starts_with(".TH") {
            set += ".nh\n.ad l\n";
        } else if line == ".SH EXTRA" {
            set += ".nf\n";
            as_is = true;
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    fn command() -> Command {
        let inner =
            Command::new("serve").about("Answers").after_help("Example:\n  tool serve base").arg(Arg::new("REF"));
        Command::new("tool")
            .version("1.2.3")
            .propagate_version(true)
            .subcommand(inner)
            .subcommand(Command::new("inner").hide(true))
    }

    #[test]
    fn every_verb_that_is_shown_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        write_manual(command(), folder.path()).unwrap();
        let page = std::fs::read_to_string(folder.path().join("tool-serve.1")).unwrap();
        assert!(page.contains(".nh\n") && page.contains(".SH EXTRA\n.nf\n") && page.contains("\n.fi\n.SH"), "{page}");
        assert!(folder.path().join("tool.1").exists() && !folder.path().join("tool-inner.1").exists());
    }

    #[test]
    fn scripts_know_the_verbs() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(command(), shell);
            assert!(script.contains("serve") && script.contains("tool"), "{shell}");
        }
    }
}
