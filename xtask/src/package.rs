//! Makes what people install from a release binary: a wheel, a Debian package and an archive, and their digests. The
//! same binary gives the same bytes: times are those of the commit or of SOURCE_DATE_EPOCH, entries are sorted, and
//! owners are root. Asks nothing of the network.

mod debian;
mod elf;
mod licenses;
mod tree;
mod wheel;

use crate::tidy::root;
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tree::Tree;

const USAGE: &str = "\
usage: cargo xtask package --out DIR [--binary FILE] [--maintainer 'NAME <ADDRESS>']

  makes a wheel, a Debian package, an archive and SHA256SUMS of a release binary, which has to run on this machine;
  `packaging/release.sh` builds such a binary. Times in them are SOURCE_DATE_EPOCH, or else that of the last commit

  --out DIR         the folder to write into
  --binary FILE     the binary; that of the release profile by default
  --maintainer WHO  who answers for the Debian package";

/// Who answers for a package where nobody is named: an address that lintian takes and that reaches nobody (RFC 2606).
const MAINTAINER: &str = "The Narthex contributors <narthex@example.org>";

/// The shells whose completions are taken along.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// What every package is made of.
struct Release {
    version: String,
    /// Seconds since 1970 that stand as the time of everything.
    time: u64,
    maintainer: String,
    binary: Vec<u8>,
    needs: elf::Needs,
    /// Scripts for shells: the shell, and the script.
    completions: Vec<(&'static str, Vec<u8>)>,
    /// Pages of the manual: the file's name, and its source.
    manual: Vec<(String, Vec<u8>)>,
    licenses: licenses::Licenses,
}

/// Makes the packages.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let options = Options::parse(arguments)?;
    let release = Release::read(&options)?;
    fs::create_dir_all(&options.out).map_err(|error| format!("cannot create {}: {error}", options.out.display()))?;
    let mut sums = String::new();
    let packages = [wheel::make(&release)?, debian::make(&release)?, archive(&release)?];
    for (name, bytes) in packages {
        write(&options.out.join(&name), &bytes)?;
        println!("{name}  {} bytes", bytes.len());
        sums += &format!("{}  {name}\n", hex(&Sha256::digest(&bytes)));
    }
    write(&options.out.join("SHA256SUMS"), sums.as_bytes())
}

/// What was asked for.
struct Options {
    out: PathBuf,
    binary: PathBuf,
    maintainer: String,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let (mut out, mut binary, mut maintainer) = (None, None, MAINTAINER.to_string());
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().cloned().ok_or_else(|| format!("{argument} needs a value\n{USAGE}"));
            match argument.as_str() {
                "--out" => out = Some(PathBuf::from(value()?)),
                "--binary" => binary = Some(PathBuf::from(value()?)),
                "--maintainer" => maintainer = value()?,
                "--help" | "-h" => return Err(USAGE.into()),
                other => return Err(format!("there is no option `{other}`\n{USAGE}")),
            }
        }
        let out = out.ok_or_else(|| format!("where to? name a folder with --out\n{USAGE}"))?;
        let built = || -> Result<PathBuf, String> { Ok(target_folder()?.join("release/narthex")) };
        Ok(Self { out, binary: binary.map_or_else(built, Ok)?, maintainer })
    }
}

impl Release {
    fn read(options: &Options) -> Result<Self, String> {
        let binary = fs::canonicalize(&options.binary)
            .map_err(|error| format!("cannot open {}: {error}; build it first", options.binary.display()))?;
        let bytes = read(&binary)?;
        let needs = elf::Needs::of(&bytes).map_err(|error| format!("{}: {error}", binary.display()))?;
        let completions = SHELLS.map(|shell| Ok((shell, output(Command::new(&binary).args(["completions", shell]))?)));
        Ok(Self {
            version: version()?,
            time: time()?,
            maintainer: options.maintainer.clone(),
            needs,
            completions: completions.into_iter().collect::<Result<_, String>>()?,
            manual: manual(&binary, &options.out)?,
            licenses: licenses::Licenses::read(&root())?,
            binary: bytes,
        })
    }
}

/// The pages of the manual, as the binary writes them.
fn manual(binary: &Path, out: &Path) -> Result<Vec<(String, Vec<u8>)>, String> {
    let folder = out.join(".manual");
    output(Command::new(binary).arg("man").arg("--out").arg(&folder))?;
    let entries = fs::read_dir(&folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut pages = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
        pages.push((entry.file_name().to_string_lossy().into_owned(), read(&entry.path())?));
    }
    pages.sort();
    fs::remove_dir_all(&folder).map_err(|error| format!("cannot remove {}: {error}", folder.display()))?;
    Ok(pages)
}

/// The archive for those who unpack by hand.
fn archive(release: &Release) -> Result<(String, Vec<u8>), String> {
    let top = format!("narthex-{}-{}-linux-gnu", release.version, release.needs.machine.name());
    let mut tree = Tree::default();
    tree.program(format!("{top}/bin/narthex"), release.binary.clone());
    for (shell, script) in &release.completions {
        tree.file(format!("{top}/{}", completion_path(shell)), script.clone());
    }
    for (page, text) in &release.manual {
        tree.file(format!("{top}/share/man/man1/{page}"), text.clone());
    }
    for (name, text) in release.licenses.files() {
        tree.file(format!("{top}/{name}"), text);
    }
    tree.file(format!("{top}/README.md"), read(&root().join("README.md"))?);
    Ok((format!("{top}.tar.gz"), tree::gzip(&tree.tar(release.time)?)?))
}

/// Where a shell looks for its script, below `/usr`.
fn completion_path(shell: &str) -> &'static str {
    match shell {
        "bash" => "share/bash-completion/completions/narthex",
        "zsh" => "share/zsh/vendor-completions/_narthex",
        _ => "share/fish/vendor_completions.d/narthex.fish",
    }
}

/// The version of the workspace.
fn version() -> Result<String, String> {
    let text = String::from_utf8_lossy(&read(&root().join("Cargo.toml"))?).into_owned();
    let manifest: toml::Table = text.parse().map_err(|error| format!("Cargo.toml: {error}"))?;
    let version = manifest.get("workspace").and_then(|w| w.get("package")).and_then(|p| p.get("version"));
    version
        .and_then(|v| v.as_str())
        .map(String::from)
        .ok_or_else(|| "Cargo.toml has no workspace.package.version".into())
}

/// SOURCE_DATE_EPOCH, or the time of the last commit.
fn time() -> Result<u64, String> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            let mut git = Command::new("git");
            let answer = output(git.current_dir(root()).args(["log", "-1", "--format=%ct"]));
            String::from_utf8_lossy(&answer.map_err(|error| format!("{error}; set SOURCE_DATE_EPOCH"))?).into_owned()
        }
    };
    text.trim().parse().map_err(|_| format!("SOURCE_DATE_EPOCH is `{text}`; it has to be seconds since 1970"))
}

/// Where cargo builds.
fn target_folder() -> Result<PathBuf, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut cargo = Command::new(cargo);
    let answer =
        output(cargo.current_dir(root()).args(["metadata", "--no-deps", "--offline", "--format-version", "1"]))?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&answer).map_err(|error| format!("cargo metadata: {error}"))?;
    metadata["target_directory"].as_str().map(PathBuf::from).ok_or_else(|| "cargo metadata names no folder".into())
}

/// What a program writes to its standard output.
fn output(command: &mut Command) -> Result<Vec<u8>, String> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(|error| format!("cannot run {shown}: {error}"))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(format!("{shown}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end())),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Bytes as digits of base 16.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
