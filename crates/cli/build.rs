//! Packs the source code that this program is built from, so that a bundle can take along what made its model. The same
//! sources give the same bytes: files in the order of their names, without owners and times.

use flate2::{Compression, GzBuilder};
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// What a build needs, and the terms.
const PARTS: [&str; 8] =
    ["Cargo.lock", "Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "crates", "rustfmt.toml", "xtask"];

fn main() {
    say_what_it_is_built_from();
    // Only bundles take it along.
    if env::var_os("CARGO_FEATURE_RUN").is_none() {
        return;
    }
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = here.ancestors().nth(2).expect("the crate lies in the workspace's folder `crates`");
    let mut files = Vec::new();
    for part in PARTS {
        println!("cargo:rerun-if-changed={}", root.join(part).display());
        collect(&root.join(part), &mut files);
    }
    files.sort();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("source.tar.gz");
    let file = fs::File::create(&out).expect("cargo's own folder can be written");
    let mut archive = tar::Builder::new(GzBuilder::new().mtime(0).write(file, Compression::new(6)));
    let top = format!("narthex-{}", env::var("CARGO_PKG_VERSION").expect("cargo sets it"));
    for path in files {
        let bytes = fs::read(&path).expect("a source file can be read");
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        let inside = path.strip_prefix(root).expect("it was found there");
        archive.append_data(&mut header, Path::new(&top).join(inside), bytes.as_slice()).expect("memory can be read");
    }
    archive.into_inner().and_then(|gzip| gzip.finish()).expect("cargo's own folder can be written");
}

/// Lets the program know its target, and the version of Burn that it is linked with.
fn say_what_it_is_built_from() {
    println!("cargo:rustc-env=NARTHEX_TARGET={}", env::var("TARGET").expect("cargo sets it"));
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let lock = here.ancestors().nth(2).expect("the crate lies in the workspace's folder `crates`").join("Cargo.lock");
    println!("cargo:rerun-if-changed={}", lock.display());
    println!("cargo:rerun-if-changed=build.rs");
    let text = fs::read_to_string(lock).unwrap_or_default();
    let version = text.split_once("name = \"burn\"\nversion = \"").and_then(|(_, rest)| rest.split_once('"'));
    if let Some((version, _)) = version {
        println!("cargo:rustc-env=NARTHEX_BURN_VERSION={version}");
    }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    if path.is_dir() && !hidden && path.file_name().is_none_or(|name| name != "target") {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            collect(&entry.path(), files);
        }
    } else if path.is_file() && !hidden {
        files.push(path.to_path_buf());
    }
}
