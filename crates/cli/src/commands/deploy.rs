//! `narthex deploy`: what a target needs to serve a model, as files in a folder. Nothing is applied.

use super::{program, quoted, shelf};
use crate::{flags::LedgerFlag, style::Style};
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use narthex_base::{Error, Provenance, Result};
use narthex_deploy::{Bundle, DeployOptions, Place, Rendered, Target, render};
use narthex_model::encoder::is_encoder;
use narthex_shelf::{Purpose, Reference};
use serde_json::Value;
use similar::TextDiff;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The arguments of `narthex deploy`.
#[derive(Args)]
pub struct Deploy {
    /// A step's name, `name@digest-prefix`, a digest, or a folder that `export` wrote, as `./DIR`
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Where it is to run
    #[arg(long, value_name = "TARGET", value_parser = PossibleValuesParser::new(Target::ALL.map(Target::name)).try_map(|name| target(&name)))]
    pub to: Target,
    /// The folder for the files; one that holds others' files is taken only with --force
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Show how the files in the folder differ from those that would be written, and write nothing
    #[arg(long)]
    pub diff: bool,
    /// Write over files that differ
    #[arg(long)]
    pub force: bool,
    /// Where the model is on the machine that serves it: `oci://REGISTRY/NAME@sha256:…`, as `push` prints it, or a folder from
    /// the root on; by default the folder that REF names
    #[arg(long, value_name = "PLACE")]
    pub model: Option<String>,
    /// The image with `narthex` in it, by digest or by a tag that is not `latest`
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// The `narthex` program of the machine, for targets without images; this one by default
    #[arg(long, value_name = "FILE")]
    pub binary: Option<String>,
    /// What it is called there; the model's name by default
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How many servers, or ranks
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub replicas: u32,
    /// The port to listen on
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Processor cores of each server
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub cores: u32,
    /// Sequences that a server computes at once: memory for their keys and values is set aside
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub max_num_seqs: u32,
    /// Tokens of context that each may take; as many as the model holds by default
    #[arg(long, value_name = "N")]
    pub max_model_len: Option<u64>,
    /// Ask clients for no key
    #[arg(long)]
    pub no_api_key: bool,
    /// Seconds that answers under way get when a server stops
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub shutdown_timeout: u32,
    /// Seconds in which a server that will stop still takes requests
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    pub drain_time: u32,
    /// Kubernetes' version, `1.33` or another: before 1.33 a pod cannot mount an image, and the model is pulled first
    #[arg(long, default_value = "1.33", value_name = "VERSION", value_parser = minor, help_heading = "Kubernetes")]
    pub kubernetes_version: u32,
    /// The secret with credentials for the registry (`kubectl create secret docker-registry`)
    #[arg(long, value_name = "NAME", help_heading = "Kubernetes")]
    pub registry_secret: Option<String>,
    /// The Service of an endpoint picker, `NAME[:PORT]`: makes an InferencePool for a gateway
    #[arg(long, value_name = "SERVICE", help_heading = "Kubernetes")]
    pub endpoint_picker: Option<String>,
    /// Let KEDA add servers as requests wait, by what Prometheus at this address says
    #[arg(long, value_name = "URL", help_heading = "Kubernetes")]
    pub autoscale_prometheus: Option<String>,
    /// Let Prometheus' operator ask for metrics
    #[arg(long, help_heading = "Kubernetes")]
    pub service_monitor: bool,
    /// A project's folder on the machines that train: for mpijob, and slurm's second script
    #[arg(long, value_name = "DIR")]
    pub project_dir: Option<String>,
    #[command(flatten)]
    pub ledger: LedgerFlag,
}

/// The target of this name.
fn target(name: &str) -> std::result::Result<Target, String> {
    let names = || Target::ALL.map(Target::name).join(", ");
    Target::of(name).ok_or_else(|| format!("one of: {}", names()))
}

/// The minor version of Kubernetes' `1.33`.
fn minor(text: &str) -> std::result::Result<u32, String> {
    let minor = text.trim_start_matches('v').strip_prefix("1.").and_then(|rest| rest.split('.').next()?.parse().ok());
    minor.ok_or_else(|| "write it as `1.33`".into())
}

pub fn run(args: &Deploy, style: Style) -> Result<()> {
    let (folder, provenance) = opened(args)?;
    let bundle = bundle(args, &folder, &provenance)?;
    if bundle.licenses.is_empty() {
        style.warning("no licence is declared for all of it: whoever serves it should know its terms");
    }
    let options = options(args, &bundle)?;
    let target = args.to;
    let files = render(target, &bundle, &options)?;
    if args.diff {
        return diff(&files, &args.out);
    }
    write(&files, &args.out, args.force)?;
    files.iter().for_each(|file| outln!("{}", args.out.join(&file.path).display()));
    noteln!("next: {}", target.next(&options).replace("DIR", &quoted(&args.out.display().to_string())));
    Ok(())
}

/// The folder of the model and its papers, if the policy lets it be served.
fn opened(args: &Deploy) -> Result<(PathBuf, Provenance)> {
    let shelf = shelf(&args.ledger.project);
    if let Reference::Place(folder) = Reference::of(&args.reference) {
        if !folder.is_dir() {
            return Err(Error::input(format!("there is no folder {}", folder.display()))
                .help("name an artifact of the ledger, or a folder that `narthex export` wrote"));
        }
        let papers = shelf.folder(folder, &args.reference, Purpose::Serve)?.permitted()?;
        let papers = papers.ok_or_else(|| {
            Error::input(format!("{} has no papers: there is no narthex.json in it", folder.display()))
                .help("take it into a ledger with its terms: `narthex import`, then deploy that")
        })?;
        return Ok((folder.to_path_buf(), papers));
    }
    let (ledger, artifact) = shelf.artifact(&args.reference, Purpose::Serve)?.permitted()?;
    let provenance = ledger.provenance(&artifact)?;
    Ok((artifact.path(""), provenance))
}

fn bundle(args: &Deploy, folder: &Path, provenance: &Provenance) -> Result<Bundle> {
    let manifest = &provenance.manifest;
    let is_weights =
        |path: &str| [".safetensors", ".gguf"].iter().any(|ending| path.ends_with(ending)) && !path.contains('/');
    let weights_bytes: u64 = manifest.files.iter().filter(|file| is_weights(&file.path)).map(|file| file.bytes).sum();
    if weights_bytes == 0 {
        return Err(Error::input(format!("`{}` holds no weights: there is nothing to serve", args.reference))
            .help("name a model or a bundle"));
    }
    let path = folder.join("config.json");
    let text = fs::read(&path).map_err(|error| Error::io("cannot read", &path, error))?;
    let config: Value = serde_json::from_slice(&text)
        .map_err(|error| Error::input("this is no JSON").at(path.display(), error.line()).cause(error))?;
    let number = |keys: &[&str]| keys.iter().find_map(|key| config[*key].as_u64());
    let heads = number(&["num_attention_heads", "n_head"]).unwrap_or(1).max(1);
    let width = number(&["head_dim"]).unwrap_or(number(&["hidden_size", "n_embd"]).unwrap_or(0) / heads);
    let kv_heads = number(&["num_key_value_heads"]).unwrap_or(heads);
    let layers = number(&["num_hidden_layers", "n_layer"]).unwrap_or(0);
    // As weights are stored, so are keys and values, unless a flag says otherwise.
    let stored = config["torch_dtype"].as_str().or(config["dtype"].as_str()).unwrap_or("float32");
    let bytes = if ["bfloat16", "float16"].contains(&stored) { 2 } else { 4 };
    let kv_bytes_per_token = if is_encoder(folder) { 0 } else { 2 * layers * kv_heads * width * bytes };
    let name = args.name.clone().unwrap_or_else(|| manifest.recipe.step.clone());
    Ok(Bundle {
        name,
        digest: manifest.digest().to_string(),
        licenses: manifest.license().map(|license| vec![license.to_string()]).unwrap_or_default(),
        weights_bytes,
        kv_bytes_per_token,
        context: number(&["max_position_embeddings", "n_positions", "n_ctx"]).unwrap_or(0),
    })
}

fn options(args: &Deploy, bundle: &Bundle) -> Result<DeployOptions> {
    let place = match (&args.model, Reference::of(&args.reference)) {
        (Some(model), _) => match model.strip_prefix("oci://") {
            Some(reference) => Place::Registry(reference.into()),
            None => Place::Folder(model.clone()),
        },
        (None, Reference::Place(folder)) => {
            let whole = fs::canonicalize(folder).map_err(|error| Error::io("cannot read", folder, error))?;
            Place::Folder(whole.display().to_string())
        }
        (None, Reference::Name(name)) => {
            return Err(Error::usage(format!("where `{name}` will be is not said")).help(
                "push it and name what `push` printed: `--model oci://…@sha256:…`; or export it, and deploy that folder",
            ));
        }
    };
    let label: String =
        bundle.name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()
            .map_err(|error| {
                Error::input("where this program lies is not known").cause(error).help("`--binary FILE` says it")
            })?
            .display()
            .to_string(),
    };
    Ok(DeployOptions {
        image: args.image.clone(),
        binary,
        replicas: args.replicas,
        port: args.port,
        cores: args.cores,
        sequences: args.max_num_seqs,
        context: args.max_model_len,
        keys: !args.no_api_key,
        shutdown_s: args.shutdown_timeout,
        drain_s: args.drain_time,
        kubernetes_minor: args.kubernetes_version,
        registry_secret: args.registry_secret.clone(),
        endpoint_picker: args.endpoint_picker.clone(),
        autoscale_prometheus: args.autoscale_prometheus.clone(),
        service_monitor: args.service_monitor,
        project: args.project_dir.clone(),
        ..DeployOptions::new(label.trim_matches('-'), place)
    })
}

/// What is in a file; nothing if it is not there.
fn there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("cannot read", path, error)),
    }
}

/// Prints what would change, as `diff -u` does.
fn diff(files: &[Rendered], out: &Path) -> Result<()> {
    let mut count = 0;
    for file in files {
        let path = out.join(&file.path);
        let before = there(&path)?.unwrap_or_default();
        if before == file.text {
            continue;
        }
        count += 1;
        let shown = path.display().to_string();
        let diff = TextDiff::from_lines(&before, &file.text);
        out!("{}", diff.unified_diff().header(&shown, &format!("{shown} (new)")));
    }
    match count {
        0 => noteln!("nothing would change"),
        count => noteln!("{count} of {} files would change; `--force` writes them", files.len()),
    }
    Ok(())
}

fn write(files: &[Rendered], out: &Path, force: bool) -> Result<()> {
    let mut changed = vec![];
    for file in files {
        if there(&out.join(&file.path))?.is_some_and(|before| before != file.text) {
            changed.push(file.path.as_str());
        }
    }
    if !changed.is_empty() && !force {
        return Err(Error::input(format!(
            "{} in {} differ from what would be written",
            changed.join(", "),
            out.display()
        ))
        .help(format!("look at `{} deploy … --diff`; `--force` writes over them", program())));
    }
    fs::create_dir_all(out).map_err(|error| Error::io("cannot create the folder", out, error))?;
    for file in files {
        let path = out.join(&file.path);
        fs::write(&path, &file.text).map_err(|error| Error::io("cannot write", &path, error))?;
    }
    Ok(())
}
