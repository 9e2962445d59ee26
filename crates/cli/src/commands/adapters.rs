//! The adapters of a server: found by the project's ledger and papers, judged by its policy, and handed to the server.

use clap::Args;
use narthex_base::Result;
use narthex_openness::{Finding, Shown};
use narthex_serve::{AdapterSources, Adapters, NotServed, Served, ServedAdapter};
use narthex_shelf::{OpenedAdapter, Shelf};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Adapters in memory unless set otherwise.
const LOADED_MAX: u32 = 32;

/// Which adapters a server has.
#[derive(Args)]
#[command(next_help_heading = "Adapters")]
pub struct AdapterFlags {
    /// Serve a PEFT adapter over the model under a name of its own, from a folder or a tuned model of the ledger, if
    /// the policy lets it; may be given several times
    #[arg(long, value_name = "NAME=PATH", value_parser = name_and_path)]
    pub lora_modules: Vec<(String, String)>,
    /// Let clients load and unload adapters of this folder while the server runs: those that the policy lets be served
    #[arg(long, value_name = "DIR")]
    pub lora_dir: Option<PathBuf>,
    /// Adapters in memory at most: those that were used longest ago make room
    #[arg(long, default_value_t = LOADED_MAX, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_loras: u32,
}

fn name_and_path(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.into(), path.into())),
        _ => Err("write NAME=PATH, such as french=adapters/french".into()),
    }
}

/// The adapters that a server may come to have.
pub(super) fn adapters(flags: &AdapterFlags, shelf: &Shelf) -> Result<Adapters> {
    let sources = Arc::new(ProjectAdapters { shelf: shelf.clone() });
    Adapters::new(flags.max_loras as usize, flags.lora_dir.as_deref(), sources)
}

/// What the project's policy says of serving the adapters that are named.
pub(super) fn judge(modules: &[(String, PathBuf)], shelf: &Shelf) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (name, place) in modules {
        findings.extend_from_slice(shelf.adapter(name, place)?.findings());
    }
    Ok(findings)
}

/// Its licence, as people read it.
pub(super) fn license_of(source: &dyn ServedAdapter) -> String {
    let license = source.provenance().license.as_ref();
    license.map_or("licence undeclared".into(), |license| license.to_string())
}

/// Adapters as a project sees them: with its ledger and its policy.
struct ProjectAdapters {
    shelf: Shelf,
}

impl AdapterSources for ProjectAdapters {
    fn open(&self, name: &str, place: &Path) -> Result<Arc<dyn ServedAdapter>, NotServed> {
        let source = self.shelf.adapter(name, place)?.permitted().map_err(NotServed::Refused)?;
        Ok(Arc::new(KnownAdapter(source)))
    }
}

/// An adapter as a project sees it.
struct KnownAdapter(OpenedAdapter);

impl ServedAdapter for KnownAdapter {
    fn place(&self) -> &Path {
        self.0.place()
    }

    fn folder(&self) -> &Path {
        self.0.folder()
    }

    fn is_current(&self) -> bool {
        self.0.is_current()
    }

    fn provenance(&self) -> &Shown {
        &self.0.provenance
    }

    fn warnings(&self, base: &Served) -> Vec<String> {
        let mut warnings = self.0.notes.clone();
        // Of a model without papers nobody can say what it is.
        let papers = base.provenance.papers.as_ref();
        if let Some(parent) = papers.and_then(|papers| self.0.other_base(papers)) {
            warnings.push(format!(
                "it was tuned from `{}` ({}), which is neither `{}` nor what that was made from: its answers may be worthless",
                parent.name,
                parent.digest.short(),
                base.id
            ));
        }
        warnings
    }
}
