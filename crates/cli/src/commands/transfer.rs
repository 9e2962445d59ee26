//! `narthex export`, `import` and `gc`

use super::{place, print_json, program, project_flag, pull::print_declared, shelf};
use crate::{
    flags::{JsonFlag, LedgerFlag},
    style::{Style, bytes, table},
};
use clap::{Args, ValueEnum};
use narthex_base::{ArtifactKind, Error, License, Result};
use narthex_ledger::{GcKind, Ledger};
use narthex_shelf::{
    GgufWeights, Purpose, export_gguf, has_plan, import_manifest, import_source, link_declared, papers_in,
    unread_license,
};
use std::path::PathBuf;

/// The arguments of `narthex export`.
#[derive(Args)]
pub struct Export {
    /// A step's name, `name@digest-prefix`, or a digest
    #[arg(value_name = "REF")]
    pub reference: String,
    /// A folder that is new or empty; with `--format gguf`, a file that is not there yet
    pub folder: PathBuf,
    /// Its files and papers, or one file for llama.cpp
    #[arg(long, value_enum, default_value = "folder")]
    pub format: ExportFormat,
    /// How a GGUF file stores matrices
    #[arg(long, value_enum, default_value = "f16")]
    pub weights: ExportWeights,
    #[command(flatten)]
    pub ledger: LedgerFlag,
}

/// What an artifact is written as.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    Folder,
    Gguf,
}

/// How a GGUF file stores matrices.
#[derive(Clone, Copy, ValueEnum)]
pub enum ExportWeights {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8,
}

/// The arguments of `narthex import`.
#[derive(Args)]
pub struct Import {
    /// A model folder in Hugging Face layout, or one that `narthex export` wrote; a GGUF file; a PyTorch
    /// checkpoint (.pt, .bin) beside its config.json and tokenizer.json
    #[arg(value_name = "FOLDER|FILE")]
    pub folder: PathBuf,
    /// The name in the ledger; by default the folder's, or the file's without its ending
    #[arg(long)]
    pub name: Option<String>,
    /// The SPDX licence of the model; without one it cannot be bundled
    #[arg(long, value_name = "SPDX")]
    pub license: Option<String>,
    /// Where it comes from
    #[arg(long, value_name = "URL")]
    pub origin: Option<String>,
    /// The project whose ledger takes it
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
}

/// The arguments of `narthex gc`.
#[derive(Args)]
pub struct Gc {
    /// The project whose ledger to clean
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// Remove what was found; without it nothing changes
    #[arg(long)]
    pub apply: bool,
    /// Keep what names pointed to earlier
    #[arg(long)]
    pub keep_history: bool,
    #[command(flatten)]
    pub output: JsonFlag,
}

pub fn export(args: &Export, style: Style) -> Result<()> {
    let (ledger, artifact) = shelf(&args.ledger.project).artifact(&args.reference, Purpose::Own)?.permitted()?;
    if args.format == ExportFormat::Gguf {
        let weights = match args.weights {
            ExportWeights::F32 => GgufWeights::F32,
            ExportWeights::F16 => GgufWeights::F16,
            ExportWeights::Bf16 => GgufWeights::BF16,
            ExportWeights::Q8 => GgufWeights::Q8_0,
        };
        export_gguf(&ledger, &artifact, &args.folder, weights)?;
        outln!("{}", args.folder.display());
        style.warning("a GGUF file has no room for lineage, licence texts and notices: pass on a folder beside it");
        noteln!("next: llama-cli -m {}", args.folder.display());
        return Ok(());
    }
    let written = ledger.export(&artifact, &args.folder)?;
    written.iter().for_each(|path| outln!("{}", path.display()));
    if [ArtifactKind::Model, ArtifactKind::Predictor, ArtifactKind::Bundle].contains(&artifact.manifest.kind) {
        noteln!("next: {} serve {}", program(), place(&args.folder));
    }
    Ok(())
}

pub fn import(args: &Import, style: Style) -> Result<()> {
    let asked = args.license.as_deref().map(License::parse).transpose()?;
    let source = import_source(&args.folder, &args.project)?;
    let license = match (asked, source.license.clone()) {
        (Some(asked), Some(found)) if !asked.is(&found) => {
            return Err(Error::input(format!("the file puts itself under {found}, not under {asked}"))
                .at(args.folder.display(), None)
                .cause("what others have licensed cannot be put under other terms")
                .help("leave `--license` out"));
        }
        (asked, found) => found.or(asked),
    };
    let origin = args.origin.clone().or(source.origin.clone());
    let mut manifest = import_manifest(source.folder(), license.clone(), origin)?;
    let name = args.name.clone().unwrap_or(source.name.clone());
    if let (Some(asked), Some(papers)) = (&license, papers_in(source.folder())?) {
        let found = papers.manifest.license();
        if !found.as_ref().is_some_and(|found| found.is(asked)) {
            let found = found.map_or("without a licence".into(), |found| format!("under {found}"));
            return Err(Error::input(format!("the folder's own papers put it {found}, not under {asked}"))
                .at(args.folder.join("narthex.json").display(), None)
                .cause("what others have licensed cannot be put under other terms")
                .help("leave `--license` out"));
        }
    }
    let is_new = !args.project.join(".narthex").exists();
    let ledger = Ledger::open(&args.project.join(".narthex"))?;
    if is_new {
        noteln!("made a ledger in {}", args.project.join(".narthex").display());
    }
    let plan = if has_plan(&args.project) { shelf(&args.project).plan().ok() } else { None };
    if plan.is_some_and(|plan| plan.steps.iter().any(|step| step.name == name)) {
        style.warning(&format!(
            "`{name}` is also a step of this project, which takes the name back when it runs: `--name` gives another"
        ));
    }
    link_declared(&ledger, &mut manifest)?;
    let artifact = ledger.import(source.folder(), &name, manifest)?;
    source.notes.iter().for_each(|note| style.warning(note));
    ledger.take_warnings().iter().for_each(|warning| style.warning(warning));
    outln!("{name} = {}", artifact.digest);
    match artifact.manifest.license() {
        Some(found) => {
            noteln!("licence: {found}");
        }
        None => {
            unread_license(source.folder()).iter().for_each(|note| style.warning(note));
            style.warning("no licence declared, so it cannot be bundled; import it again with `--license SPDX`");
        }
    }
    print_declared(&artifact.manifest);
    noteln!("next: {} serve {name}{}", program(), project_flag(&args.project));
    Ok(())
}

pub fn gc(args: &Gc) -> Result<()> {
    let report = shelf(&args.project).ledger()?.gc(args.apply, args.keep_history)?;
    if args.output.json {
        print_json(&report);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = report
        .items
        .iter()
        .map(|item| {
            let kind = match item.kind {
                GcKind::Artifact => "artifact",
                GcKind::Work => "work",
                GcKind::Leftover => "leftover",
            };
            vec![kind.into(), item.name.clone().unwrap_or_default(), bytes(item.bytes), item.path.display().to_string()]
        })
        .collect();
    out!("{}", table(&rows));
    let total = bytes(report.bytes);
    match (report.items.is_empty(), report.applied) {
        (true, _) => noteln!("nothing to remove"),
        (false, true) => noteln!("removed {total}"),
        (false, false) => noteln!("{total} can go\nnext: {} gc --apply{}", program(), project_flag(&args.project)),
    }
    Ok(())
}
