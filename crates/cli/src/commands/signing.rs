//! `narthex sign` and `narthex verify-signature`

use super::program;
use crate::style::bytes;
use clap::Args;
use narthex_base::{Error, Result};
use narthex_openness::{
    OPENNESS_PREDICATE, SigningKey, VerifyingKey, openness_predicate, sign_folder, sign_statement, verify_folder,
    verify_statement,
};
use narthex_shelf::papers_in;
use std::path::{Path, PathBuf};

/// The arguments of `narthex sign`.
#[derive(Args)]
pub struct Sign {
    /// A folder that `narthex export` wrote, or any other
    pub folder: PathBuf,
    /// The private key as PEM: ECDSA on P-256 or P-384, PKCS#8 or SEC1
    #[arg(long, value_name = "FILE")]
    pub private_key: PathBuf,
    /// Where the signature goes; `model.sig` in the folder by default
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
}

/// The arguments of `narthex verify-signature`.
#[derive(Args)]
pub struct VerifySignature {
    /// The signed folder
    pub folder: PathBuf,
    /// The public key as PEM
    #[arg(long, value_name = "FILE")]
    pub public_key: PathBuf,
    /// Where the signature is; `model.sig` in the folder by default
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
}

/// The signature of the files.
const SIGNATURE: &str = "model.sig";
/// The signed statement on lineage and licences.
const STATEMENT: &str = "openness.sig";

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::io("cannot read", path, error))
}

fn require_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let name = folder.display();
    Err(Error::input(format!("there is no folder {name}"))
        .help(format!("signatures are over folders: `narthex export {name} DIR`, then sign DIR")))
}

pub fn sign(args: &Sign) -> Result<()> {
    require_folder(&args.folder)?;
    let key = SigningKey::from_pem(&read(&args.private_key)?, &args.private_key)?;
    let signature = args.signature.clone().unwrap_or_else(|| args.folder.join(SIGNATURE));
    let statement = args.folder.join(STATEMENT);
    let provenance = papers_in(&args.folder)?;
    let name = args.folder.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let name = name.unwrap_or_else(|| "model".into());
    // The statement is about the files, so it is not one of them.
    let signed = sign_folder(&args.folder, &name, &key, &signature, &[PathBuf::from(STATEMENT)])?;
    outln!("{}", signature.display());
    if let Some(provenance) = provenance {
        let predicate = openness_predicate(&provenance);
        let bundle = sign_statement(&name, &signed.digest, OPENNESS_PREDICATE, &predicate, &key);
        std::fs::write(&statement, bundle.to_string()).map_err(|error| Error::io("cannot write", &statement, error))?;
        outln!("{}", statement.display());
    }
    noteln!("signed {} files, {}", signed.files, bytes(signed.bytes));
    noteln!("next: {} verify-signature {} --public-key KEY.pub.pem", program(), args.folder.display());
    Ok(())
}

pub fn verify(args: &VerifySignature) -> Result<()> {
    require_folder(&args.folder)?;
    let key = VerifyingKey::from_pem(&read(&args.public_key)?, &args.public_key)?;
    let signature = args.signature.clone().unwrap_or_else(|| args.folder.join(SIGNATURE));
    let signed = verify_folder(&args.folder, &signature, &key)?;
    outln!("{}: {} files, {}, as signed", args.folder.display(), signed.files, bytes(signed.bytes));
    let path = args.folder.join(STATEMENT);
    if path.is_file() {
        let statement = verify_statement(&read(&path)?, &path, &key, OPENNESS_PREDICATE)?;
        if statement.subject_sha256 != signed.digest {
            return Err(Error::input("the statement on lineage and licences is about other files")
                .at(path.display(), None)
                .help("sign the folder again"));
        }
        let here = papers_in(&args.folder)?;
        if here.is_none_or(|here| openness_predicate(&here) != statement.predicate) {
            return Err(Error::input("the statement on lineage and licences is not what narthex.json says")
                .at(path.display(), None)
                .help("sign the folder again, or do not trust its papers"));
        }
        outln!("{}: lineage and licences as signed", path.display());
    } else if args.folder.join("narthex.json").is_file() {
        noteln!(
            "there is no signed statement on lineage and licences ({STATEMENT}): narthex.json is signed as a file only"
        );
    }
    Ok(())
}
