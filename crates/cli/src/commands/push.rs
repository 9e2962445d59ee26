//! `narthex push`: an artifact, or an exported folder, to a registry or a layout on disk, with what vouches for it.

use super::{
    openness::explain,
    program,
    registry::{RegistryFlags, SIGNED},
    shelf,
};
use crate::{
    flags::LedgerFlag,
    render::Renderer,
    signals,
    style::{Style, bytes},
};
use clap::Args;
use narthex_base::{Error, Observer, Provenance, Result};
use narthex_ledger::PROVENANCE_FILE;
use narthex_oci::{Attachment, CYCLONEDX, LINEAGE, OciReference, Package, PackageOptions, SIGNATURE, SPDX};
use narthex_openness::{SigningKey, cyclonedx, sign_statement, spdx};
use narthex_shelf::{Purpose, Reference, with_subject};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The signed statement on lineage and licences in an exported folder.
const STATEMENT: &str = "openness.sig";

/// The arguments of `narthex push`.
#[derive(Args)]
pub struct Push {
    /// A step's name, `name@digest-prefix`, a digest, or a folder that `export` wrote, as `./DIR`
    #[arg(value_name = "REF")]
    pub reference: String,
    /// In a registry, `oci://HOST/REPOSITORY:TAG`; an OCI image layout, a folder, `oci:DIR[:TAG]`
    #[arg(value_name = "TARGET")]
    pub target: String,
    #[command(flatten)]
    pub ledger: LedgerFlag,
    /// Say by which rule of the policy each component may be passed on, or not
    #[arg(long)]
    pub explain: bool,
    /// Sign it with this key, so that `pull --public-key` and `cosign verify` take it: ECDSA on P-256 or P-384 as PEM
    #[arg(long, value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// Also make an image with the files below /models, which containers mount, under the same tag
    #[arg(long)]
    pub image: bool,
    /// Put this `narthex` binary into the image, which then serves the model; it must run without shared libraries
    #[arg(long, value_name = "FILE", requires = "image")]
    pub image_binary: Option<PathBuf>,
    /// Another repository of the same registry that may have some of it, so that nothing is sent twice; may be given
    /// several times
    #[arg(long, value_name = "REPOSITORY")]
    pub mount: Vec<String>,
    /// Speak to a registry without encryption; to one on this machine, that is done where it speaks no TLS
    #[arg(long)]
    pub plain_http: bool,
}

/// What is pushed: its files, its papers, when it was made.
struct Material {
    folder: PathBuf,
    provenance: Provenance,
    created_ms: u64,
    /// Where the files of an artifact lie as long as they are needed.
    _made: Option<TempDir>,
}

pub fn run(args: &Push, style: Style) -> Result<()> {
    let target = OciReference::parse(&args.target)?;
    if matches!(target, OciReference::Ollama(_)) {
        return Err(Error::usage("nothing is pushed in Ollama's own form")
            .help("`narthex export REF FILE.gguf --format gguf`, then `ollama create` with `FROM FILE.gguf`"));
    }
    let key = args.private_key.as_deref().map(signing_key).transpose()?;
    let material = material(args)?;
    let options = PackageOptions { image: args.image, binary: args.image_binary.clone() };
    let package = Package::new(&material.folder, &material.provenance, material.created_ms, &options)?;
    let attachments = attachments(args, &material, &package, key.as_ref())?;
    match &target {
        OciReference::Layout(layout) => {
            layout.push(&package, &attachments)?;
            let (folder, tag) = (layout.folder.display(), &layout.tag);
            outln!("{folder}:{tag}@{}", package.digest());
            noteln!("{} layers, {}", package.layers, bytes(package.bytes()));
            noteln!(
                "next: {} pull oci:{folder}:{tag}, or skopeo copy oci:{folder}:{tag} docker://REGISTRY/NAME:{tag}",
                program()
            );
        }
        OciReference::Registry(remote) => {
            let interrupt = signals::interrupt_flag()?;
            let renderer = Renderer::new(style, false);
            let emit = |event| renderer.event(event);
            let observer = Observer::new(&emit, &interrupt).for_step("push");
            let flags = RegistryFlags { public_key: None, plain_http: args.plain_http };
            let pushed = narthex_oci::push(&package, &attachments, remote, &args.mount, &flags.settings()?, observer)?;
            drop(renderer);
            outln!("{target}@{}", package.digest());
            let layers = package.layers;
            noteln!(
                "{layers} layers, {}: {} sent, {} there already, {} taken over",
                bytes(package.bytes()),
                bytes(pushed.network_bytes),
                bytes(pushed.there_bytes),
                bytes(pushed.mounted_bytes)
            );
            noteln!("next: {} serve {target}@{}", program(), package.digest());
        }
        OciReference::Ollama(_) => {}
    }
    Ok(())
}

/// The files and papers, if the policy lets them be passed on.
fn material(args: &Push) -> Result<Material> {
    let shelf = shelf(&args.ledger.project);
    if let Reference::Place(folder) = Reference::of(&args.reference) {
        if !folder.is_dir() {
            return Err(Error::input(format!("there is no folder {}", folder.display()))
                .help("name an artifact of the ledger, or a folder that `narthex export` wrote"));
        }
        let judged = shelf.folder(folder, &args.reference, Purpose::PassOn)?;
        if args.explain {
            explain(judged.findings());
        }
        let provenance = judged.permitted()?.ok_or_else(|| {
            Error::input(format!("{} has no papers: there is no {PROVENANCE_FILE} in it", folder.display()))
                .help("take it into a ledger with its terms: `narthex import`, then push that")
        })?;
        return Ok(Material { folder: folder.into(), provenance, created_ms: 0, _made: None });
    }
    let judged = shelf.artifact(&args.reference, Purpose::PassOn)?;
    if args.explain {
        explain(judged.findings());
    }
    let (ledger, artifact) = judged.permitted()?;
    let made = tempfile::tempdir_in(ledger.root()).map_err(|e| Error::io("cannot write into", ledger.root(), e))?;
    let folder = made.path().join("files");
    ledger.export(&artifact, &folder)?;
    let (provenance, created_ms) = (ledger.provenance(&artifact)?, artifact.run.created_ms);
    Ok(Material { folder, provenance, created_ms, _made: Some(made) })
}

/// What refers to the artifact: lineage, bills of materials, and signatures.
fn attachments(
    args: &Push,
    material: &Material,
    package: &Package,
    key: Option<&SigningKey>,
) -> Result<Vec<Attachment>> {
    let read = |name: &str| {
        let path = material.folder.join(name);
        fs::read(&path).map_err(|error| Error::io("cannot read", &path, error))
    };
    let mut all = vec![Attachment::new(LINEAGE, read(PROVENANCE_FILE)?)];
    let (spdx, cyclonedx) =
        with_subject(&args.ledger.project, &args.reference, |subject| (spdx(subject), cyclonedx(subject)))?;
    all.push(Attachment::new(SPDX, spdx.to_string()));
    all.push(Attachment::new(CYCLONEDX, cyclonedx.to_string()));
    if material.folder.join(STATEMENT).is_file() {
        all.push(Attachment::new(SIGNATURE, read(STATEMENT)?));
    }
    if let Some(key) = key {
        let digest = package.model.blob.digest.digits();
        let bundle = sign_statement(&material.provenance.manifest.recipe.step, digest, SIGNED, &json!({}), key);
        all.push(Attachment::new(SIGNATURE, bundle.to_string()));
    }
    Ok(all)
}

fn signing_key(path: &Path) -> Result<SigningKey> {
    let text = fs::read_to_string(path).map_err(|error| Error::io("cannot read", path, error))?;
    SigningKey::from_pem(&text, path)
}
