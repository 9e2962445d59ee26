//! `narthex pull`: from the Hugging Face Hub into the ledger. What comes from registries stands beside, in `pull_oci`.

use super::{program, project_flag, pull_data, registry::RegistryFlags};
use crate::{
    flags::EventsFlag,
    render::Renderer,
    signals,
    style::{Style, bytes, table},
};
use clap::Args;
use narthex_base::{Error, Event, License, Manifest, Observer, Result};
use narthex_hub::{Checksum, Download, Hub, HubSettings, Listing, RepoFile, RepoKind, RepoSpec, Selected, select};
use narthex_ledger::{Artifact, Ledger, check_name};
use narthex_shelf::{PulledFrom, already_pulled, check_model_config, import_source, link_declared, pulled_model};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

/// The arguments of `narthex pull`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  narthex pull hf:HuggingFaceTB/SmolLM2-135M-Instruct --as smol && narthex serve smol
  narthex pull hf:datasets/org/name@v1.0 --include 'data/train-*'
  narthex pull oci://ghcr.io/org/model:v1 --public-key key.pub.pem
  narthex pull ollama://smollm2:135m

Credentials for registries are those of Docker and Podman (`docker login`); SSL_CERT_FILE names certificates to trust.
HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE mean what they mean to Hugging Face's own tools.")]
pub struct Pull {
    /// `hf:ORG/NAME` or `hf:datasets/ORG/NAME`, and perhaps a branch, tag or commit: `hf:ORG/NAME@REVISION`; in a registry,
    /// `oci://HOST/REPOSITORY:TAG`, perhaps with `@sha256:…` behind it, or `ollama://MODEL:TAG`; in a layout on disk, `oci:DIR:TAG`
    #[arg(value_name = "REPOSITORY")]
    pub repository: String,
    /// Fetch the weights or data files that fit this pattern instead of the usual ones; may be given several times.
    /// Card, licence, configuration and tokenizer always come along
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// The name in the ledger; the repository's by default
    #[arg(long = "as", value_name = "NAME")]
    pub name: Option<String>,
    /// The SPDX licence, where you know better than the card
    #[arg(long, value_name = "SPDX")]
    pub license: Option<String>,
    /// List what would be fetched; fetch nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The project whose ledger takes it
    #[arg(long, default_value = ".")]
    pub project: PathBuf,
    /// From a registry: write the files to this folder, new or empty, and take nothing into a ledger
    #[arg(long, value_name = "DIR", conflicts_with = "name")]
    pub to: Option<PathBuf>,
    #[command(flatten)]
    pub registry: RegistryFlags,
    #[command(flatten)]
    pub output: EventsFlag,
}

/// Files that are listed one by one before they are fetched.
const LISTED_MAX: usize = 20;

pub fn run(args: &Pull, style: Style) -> Result<()> {
    if args.to.is_some() || args.registry.public_key.is_some() {
        return Err(Error::usage("`--to` and `--public-key` are for what comes from a registry: `oci://…`"));
    }
    let asked = RepoSpec::parse(&args.repository)?;
    if asked.kind == RepoKind::Dataset {
        pull_data::is_possible()?;
    }
    let license = args.license.as_deref().map(License::parse).transpose()?;
    let name = args.name.clone().unwrap_or_else(|| asked.name().to_string());
    check_name(&name)?;
    let settings = HubSettings::from_environment()?;
    let mirror = settings.is_mirror().then(|| settings.endpoint.clone());
    let hub = Hub::new(settings)?;
    let interrupt = signals::interrupt_flag()?;
    let renderer = Renderer::new(style, args.output.json);
    let emit = |event| renderer.event(event);
    let observer = Observer::new(&emit, &interrupt).for_step("pull");
    hub.warnings().iter().for_each(|warning| observer.warn(warning));
    let listing = hub.list(&asked, observer)?;
    if listing.spec.id != asked.id {
        observer.warn(format!("{} is now {}", asked.origin(), listing.spec.origin()));
    }
    let chosen = select(asked.kind, &listing.files, &args.include)?;
    announce(&hub, &listing, &chosen, args.dry_run && !args.output.json);
    if args.dry_run {
        report(args, &listing, &chosen, json!({"fetched": false}));
        noteln!("next: {} pull {}{}", program(), args.repository, project_flag(&args.project));
        return Ok(());
    }
    let ledger = Ledger::open(&args.project.join(".narthex"))?;
    let from = |checksums: &BTreeMap<String, Checksum>| PulledFrom {
        origin: listing.origin(),
        mirror: mirror.clone(),
        checksums: chosen.all().map(|file| (file.path.clone(), told(file, checksums))).collect(),
    };
    if asked.kind == RepoKind::Model
        && license.is_none()
        && let Some(known) = already_pulled(&ledger, &from(&BTreeMap::new()))?
    {
        let _lock = ledger.lock()?;
        ledger.set_ref(&name, known.digest)?;
        noteln!("the ledger has it already");
        return finish(args, style, &name, &known, &listing, &chosen, 0);
    }
    let begun = Instant::now();
    let mut download = hub.download(&listing, &chosen)?;
    let reason = String::new();
    renderer.event(Event::StepStarted { step: "pull".into(), kind: listing.spec.origin(), reason });
    download.fetch(&chosen.small, observer)?;
    if asked.kind == RepoKind::Model {
        let refused = |error: Error| error.context(format!("{} is not fetched", listing.spec.origin()));
        check_model_config(&download.folder).map_err(refused)?;
    }
    download.fetch(&chosen.large, observer)?;
    let from = from(&download.fetched().checksums);
    let network_bytes = download.fetched().network_bytes;
    let artifact = match asked.kind {
        RepoKind::Model => take_model((&ledger, &args.project), download, &name, license, &from, observer)?,
        RepoKind::Dataset => {
            pull_data::take(&ledger, (&args.project, &data_folder(&name)), download, &name, license, &from)?
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    renderer.event(Event::StepFinished { step: name.clone(), digest: artifact.digest, seconds });
    ledger.take_warnings().iter().for_each(|warning| style.warning(warning));
    finish(args, style, &name, &artifact, &listing, &chosen, network_bytes)
}

/// The digest that a file was checked against, or will be.
fn told(file: &RepoFile, checksums: &BTreeMap<String, Checksum>) -> String {
    let known = checksums.get(&file.path).or(file.checksum.as_ref());
    known.map_or("unknown".into(), Checksum::to_string)
}

/// What will be fetched, before anything is.
fn announce(hub: &Hub, listing: &Listing, chosen: &Selected, to_stdout: bool) {
    let count = chosen.all().count();
    let left = if chosen.left > 0 { format!("; not fetched: {}", chosen.left) } else { String::new() };
    noteln!("{} from {}", listing.origin(), hub.page(&listing.spec));
    let size = |file: &RepoFile| file.bytes.map_or("size unknown".into(), bytes);
    let shown = if to_stdout { count } else { LISTED_MAX };
    let rows: Vec<Vec<String>> = chosen.all().take(shown).map(|file| vec![file.path.clone(), size(file)]).collect();
    let listed: String = table(&rows).lines().map(|line| format!("  {line}\n")).collect();
    if to_stdout {
        out!("{listed}")
    } else {
        note!("{listed}")
    }
    if count > shown {
        noteln!("  … and {} more", count - shown);
    }
    noteln!("{count} files, {}{left}", bytes(chosen.bytes()));
}

fn take_model(
    (ledger, project): (&Ledger, &Path),
    download: Download,
    name: &str,
    license: Option<License>,
    from: &PulledFrom,
    observer: Observer,
) -> Result<Artifact> {
    // PyTorch's pickles are taken apart without being run, as `import` does.
    let source = import_source(&download.folder, project)?;
    source.notes.iter().for_each(|note| observer.warn(note.clone()));
    let mut manifest = pulled_model(source.folder(), name, license, from)?;
    link_declared(ledger, &mut manifest)?;
    let artifact = ledger.import(source.folder(), name, manifest)?;
    download.remove()?;
    Ok(artifact)
}

/// Where a data set of this name lies in its project.
fn data_folder(name: &str) -> String {
    format!("data/{name}")
}

/// What a card says and nobody here has checked, on stderr.
pub fn print_declared(manifest: &Manifest) {
    let parents = manifest.parents.iter().filter(|parent| parent.role.starts_with("declared "));
    parents.for_each(|parent| noteln!("{}: {}, {}", parent.role, parent.name, parent.digest.short()));
    manifest.declared().iter().for_each(|origin| noteln!("{origin}"));
}

fn finish(
    args: &Pull,
    style: Style,
    name: &str,
    artifact: &Artifact,
    listing: &Listing,
    chosen: &Selected,
    network_bytes: u64,
) -> Result<()> {
    let manifest = &artifact.manifest;
    let license = manifest.license();
    let flag = project_flag(&args.project);
    match args.output.json {
        true => report(
            args,
            listing,
            chosen,
            json!({
                "fetched": true, "name": name, "kind": manifest.kind, "digest": artifact.digest, "license": license,
                "network_bytes": network_bytes, "declared": manifest.declared(), "parents": manifest.parents,
            }),
        ),
        false => outln!("{name} = {}", artifact.digest),
    }
    match &license {
        Some(found) => noteln!("licence: {found}"),
        None => style.warning("neither its card nor a text names a licence that is known, so it cannot be passed on; pull it again with `--license SPDX`"),
    }
    print_declared(manifest);
    if listing.spec.kind == RepoKind::Dataset {
        noteln!("to use it, add this to narthex.toml:\n\n[sources.{name}]\npath = \"{}\"", data_folder(name));
        license.iter().for_each(|license| noteln!("license = \"{license}\""));
        noteln!("origin = \"{}\"\n\nnext: {} show {name}{flag}", listing.origin(), program());
        return Ok(());
    }
    noteln!("next: {} serve {name}{flag}", program());
    Ok(())
}

fn report(args: &Pull, listing: &Listing, chosen: &Selected, rest: serde_json::Value) {
    if !args.output.json {
        return;
    }
    let none = BTreeMap::new();
    let file = |file: &RepoFile| json!({"path": file.path, "bytes": file.bytes, "digest": told(file, &none)});
    let mut line = json!({
        "type": "pulled", "origin": listing.origin(), "commit": listing.commit, "bytes": chosen.bytes(),
        "files": chosen.all().map(file).collect::<Vec<_>>(), "left": chosen.left,
    });
    if let (Some(line), Some(rest)) = (line.as_object_mut(), rest.as_object()) {
        line.extend(rest.clone());
    }
    outln!("{line}");
}
