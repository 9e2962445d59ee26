//! Signatures: over the files of a folder, in the form of OpenSSF Model Signing v1.0, which the official
//! `model_signing` tool writes and checks too; and over a statement about such a folder, in the same envelope.
//!
//! Keys only: knows no certificates, no transparency log, and nothing of what the files or statements mean.

mod bundle;
mod files;
mod key;
#[cfg(test)]
mod tests;

pub use bundle::Statement;
pub use key::{SigningKey, VerifyingKey};

use bundle::shown;
use files::{FoundFile, Ignored};
use narthex_base::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
};

/// What a signature over a folder says.
const FOLDER_PREDICATE: &str = "https://model_signing/signature/v1.0";

/// One digest for each whole file: the only method that the official tool's command line knows.
const METHOD: &str = "files";

/// The digest of each file.
const ALGORITHM: &str = "sha256";

/// The most files that an error names.
const MAX_NAMED: usize = 20;

/// What was signed, or was found to be as it was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedFolder {
    /// How many files.
    pub files: usize,
    /// The SHA-256 over the files' digests in lower-case hexadecimal digits: the subject of a statement
    /// about the folder.
    pub digest: String,
    /// The size of all files.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Serialize, Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    allow_symlinks: bool,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

/// Signs all files of a folder (or a single file) and writes the signature, a Sigstore bundle, to the file
/// `signature`; an older signature there is replaced. `name` is what the folder goes by in it. Left out are
/// `ignore` (relative to the folder, or absolute), the signature itself, and `.git`, `.github`, `.gitignore`
/// and `.gitattributes` at the top of the folder. The same key, files and places give the same bytes.
///
/// # Errors
/// If a file cannot be read, is a link or a special file, or has a name that not every system knows; if
/// `signature` is a file but no signature, or cannot be written.
pub fn sign_folder(
    folder: &Path,
    name: &str,
    key: &SigningKey,
    signature: &Path,
    ignore: &[PathBuf],
) -> Result<SignedFolder> {
    let place = files::located(signature)?;
    refuse_to_overwrite(&place)?;
    let mut ignored = Ignored::usual(folder, &place)?;
    ignore.iter().try_for_each(|path| ignored.add(folder, path))?;
    let (mut root, mut resources, mut bytes) = (Sha256::new(), vec![], 0);
    for file in files::walk(folder, &ignored)? {
        let (digest, size) = file.hash()?;
        root.update(digest);
        bytes += size;
        resources.push(Resource { name: file.name, algorithm: ALGORITHM.into(), digest: hex(&digest) });
    }
    let (count, digest) = (resources.len(), hex(&root.finalize()));
    let serialization = Serialization {
        method: METHOD.into(),
        hash_type: ALGORITHM.into(),
        allow_symlinks: false,
        ignore_paths: ignored.list(),
    };
    let statement = Statement {
        subject_name: name.into(),
        subject_sha256: digest.clone(),
        predicate: serde_json::to_value(Predicate { serialization, resources })
            .expect("a value of our own types serializes"),
    };
    let bundle = bundle::sign(&statement, FOLDER_PREDICATE, key);
    let text = serde_json::to_string(&bundle).expect("a value of our own types serializes");
    files::write_signature(&place, &text)?;
    Ok(SignedFolder { files: count, digest, bytes })
}

/// A mistyped path must not cost a file of weights.
fn refuse_to_overwrite(signature: &Path) -> Result<()> {
    if signature.exists() && !files::read_signature(signature).is_ok_and(|text| bundle::is_bundle(&text)) {
        return Err(Error::input(format!("{} is there, and is no signature", signature.display()))
            .help(format!("give another path; or, if it may go: rm {}", signature.display())));
    }
    Ok(())
}

/// Checks that the files of a folder (or a single file) are those that the owner of this key signed. Left
/// out are the signature itself, git's files at the top of the folder, and what the signature leaves out.
///
/// # Errors
/// If the signature is malformed, from another key, or wrong; if a file was changed, added or removed (the
/// causes name them); if there is a link or a special file.
pub fn verify_folder(folder: &Path, signature: &Path, key: &VerifyingKey) -> Result<SignedFolder> {
    let text = files::read_signature(signature)?;
    let statement = bundle::verify(&text, signature, key, FOLDER_PREDICATE)?;
    let digest = statement.subject_sha256.clone();
    let (expected, left_out) = contents(statement).map_err(|error| error.at(signature.display(), None))?;
    let mut ignored = Ignored::usual(folder, &files::located(signature)?)?;
    left_out.iter().for_each(|entry| ignored.add_signed(entry));
    let found = files::walk(folder, &ignored)?;
    let bytes = compare(folder, &expected, &found, &ignored)?;
    Ok(SignedFolder { files: found.len(), digest, bytes })
}

/// The digest of each file by its name.
type Digests = BTreeMap<String, [u8; 32]>;

/// The files that a signature lists, and the paths that it leaves out.
fn contents(statement: Statement) -> Result<(Digests, Vec<String>)> {
    let refused =
        |why: String| Error::input("the signature lists its files in a way that cannot be checked").cause(why);
    let Predicate { serialization, resources } =
        serde_json::from_value(statement.predicate).map_err(|error| refused(error.to_string()))?;
    if serialization.method != METHOD {
        return Err(refused(format!("the method is `{}`; only `{METHOD}` is known", shown(&serialization.method))));
    }
    let (mut root, mut digests) = (Sha256::new(), Digests::new());
    for Resource { name, algorithm, digest } in resources {
        let refused = |why: &str| refused(format!("{why}: {}", shown(&name)));
        files::check_name(&name).map_err(refused)?;
        if algorithm != ALGORITHM {
            return Err(refused(&format!("the digest is `{}`, only `{ALGORITHM}` is known", shown(&algorithm))));
        }
        let digest = unhex(&digest).ok_or_else(|| refused("the digest is not 64 hexadecimal digits"))?;
        root.update(digest);
        if digests.contains_key(&name) {
            return Err(refused("a file is listed twice"));
        }
        digests.insert(name, digest);
    }
    if hex(&root.finalize()) != statement.subject_sha256 {
        return Err(refused("the digests of the files do not give the digest of the whole".into()));
    }
    Ok((digests, serialization.ignore_paths))
}

/// The size of all files if they are as expected; else an error that names those that are not.
fn compare(folder: &Path, expected: &Digests, found: &[FoundFile], ignored: &Ignored) -> Result<u64> {
    let (mut changed, mut added, mut bytes) = (vec![], vec![], 0);
    let mut removed = expected.clone();
    for file in found {
        let Some(digest) = removed.remove(&file.name) else {
            added.push(format!("added: {}", shown(&file.name)));
            continue;
        };
        let (actual, size) = file.hash()?;
        bytes += size;
        if actual != digest {
            changed.push(format!("changed: {}", shown(&file.name)));
        }
    }
    let mut removed: Vec<&String> = removed.keys().collect();
    removed.sort_by(|a, b| files::by_parts(a, b));
    let removed = removed.into_iter().map(|name| match ignored.covers(name) {
        // The official verifier counts it as missing, whether it is there or not.
        true => format!("not looked at, for its path is always left out: {}", shown(name)),
        false => format!("removed: {}", shown(name)),
    });
    let differences: Vec<String> = changed.into_iter().chain(added).chain(removed).collect();
    if differences.is_empty() {
        return Ok(bytes);
    }
    let what = Error::input(format!("{} is not what was signed", folder.display()));
    let error = differences.iter().take(MAX_NAMED).fold(what, Error::cause);
    Err(match differences.len().checked_sub(MAX_NAMED) {
        None | Some(0) => error,
        Some(more) => error.cause(format!("and {more} more")),
    })
}

/// Signs a statement about something that has a SHA-256, such as a signed folder: a Sigstore bundle around an
/// in-toto statement. `subject_sha256` is 64 lower-case hexadecimal digits; anything else will not verify.
pub fn sign_statement(
    subject_name: &str,
    subject_sha256: &str,
    predicate_type: &str,
    predicate: &serde_json::Value,
    key: &SigningKey,
) -> serde_json::Value {
    let statement = Statement {
        subject_name: subject_name.into(),
        subject_sha256: subject_sha256.into(),
        predicate: predicate.clone(),
    };
    serde_json::to_value(bundle::sign(&statement, predicate_type, key)).expect("a value of our own types serializes")
}

/// The statement in a bundle, if the owner of this key signed it and it is of this type. `file` is where the
/// text is from. Whether its subject is the folder at hand is for the caller to compare.
///
/// # Errors
/// If the bundle is malformed, from another key, wrong, or holds something else.
pub fn verify_statement(bundle: &str, file: &Path, key: &VerifyingKey, predicate_type: &str) -> Result<Statement> {
    bundle::verify(bundle, file, key, predicate_type)
}

/// The SHA-256 of these bytes in lower-case hexadecimal digits.
fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all text");
        text
    })
}

/// The bytes that 64 hexadecimal digits of either case stand for.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}
