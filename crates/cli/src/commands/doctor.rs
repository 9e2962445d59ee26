//! `narthex doctor`: whether this machine and this project are fit for work. Knows how to look, and mends nothing.

use super::{print_json, self_version};
use crate::{
    flags::{JsonFlag, LedgerFlag},
    style::bytes,
};
use clap::Args;
use narthex_base::{Error, Result, error::nearest};
use narthex_kernels::{Isa, isa, memory};
use narthex_shelf::{open_ledger, root_of};
use serde::Serialize;
use std::{
    env,
    io::ErrorKind,
    net::TcpListener,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// The port that `narthex serve` takes by default.
const PORT: u16 = 8000;

/// Free space below which a run of any size is likely to fail.
const LITTLE_DISK: u64 = 2 << 30;

/// Free space below which not even a catalog can be written.
const NO_DISK: u64 = 64 << 20;

/// Memory below which even small models do not fit.
const LITTLE_MEMORY: u64 = 1 << 30;

/// A clock before this has not been set: 2026-01-01, in seconds since 1970.
const EARLIEST: u64 = 1_767_225_600;

/// Where distributions keep the certificates that they trust.
const CERTIFICATES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The variables that Narthex reads.
const VARIABLES: [&str; 10] = [
    "NARTHEX_AGENT_STORE",
    "NARTHEX_API_KEY",
    "NARTHEX_FAULT",
    "NARTHEX_ISA",
    "NARTHEX_MPI_LIBRARY",
    "NARTHEX_RANK",
    "NARTHEX_RANKS",
    "NARTHEX_RANKS_AT",
    "NARTHEX_REPLICA_API_KEY",
    "NARTHEX_SET",
];

/// The arguments of `narthex doctor`.
#[derive(Args)]
pub struct Doctor {
    #[command(flatten)]
    pub ledger: LedgerFlag,
    #[command(flatten)]
    pub output: JsonFlag,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warning,
    Problem,
}

/// Something that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    level: Level,
    found: String,
    /// What to do about it.
    fix: Option<String>,
}

fn finding(name: &'static str, level: Level, found: impl Into<String>, fix: impl Into<String>) -> Finding {
    let fix = (level != Level::Ok).then(|| fix.into());
    Finding { name, level, found: found.into(), fix }
}

fn fine(name: &'static str, found: impl Into<String>) -> Finding {
    finding(name, Level::Ok, found, "")
}

/// Looks at everything and says what it found.
///
/// # Errors
/// If something is a problem.
pub fn run(args: &Doctor) -> Result<()> {
    let project = &args.ledger.project;
    let mut findings = vec![program(), processor(), cores(), memory_here()];
    findings.push(disk("disk of the project", existing(&root_of(project).join(".narthex"))));
    findings.push(disk("disk for temporary files", env::temp_dir()));
    findings.extend([port(PORT), ledger(project), variables(&set_variables()), certificates(), clock()]);
    findings.extend(devices());
    let problems = findings.iter().filter(|finding| finding.level == Level::Problem).count();
    if args.output.json {
        print_json(&findings);
    } else {
        findings.iter().for_each(tell);
    }
    match problems {
        0 => Ok(()),
        1 => Err(Error::input("there is a problem").help("see its `fix` above")),
        count => Err(Error::input(format!("there are {count} problems")).help("see the `fix` of each above")),
    }
}

fn tell(finding: &Finding) {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Problem => "problem",
    };
    outln!("{level:<8}  {}: {}", finding.name, finding.found);
    if let Some(fix) = &finding.fix {
        outln!("{:<8}  fix: {fix}", "");
    }
}

fn program() -> Finding {
    let identity = self_version::identity();
    let found = format!("{} for {}, with {}", identity.version, identity.target, identity.features.join(", "));
    match identity.debug_assertions {
        true => finding("program", Level::Warning, format!("{found}, a debug build"), "build it with `--release`"),
        false => fine("program", found),
    }
}

fn processor() -> Finding {
    let sets: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    let tiles = if Isa::Amx.is_available() { "matrix tiles" } else { "no matrix tiles" };
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| model_name(&text));
    let model = model.unwrap_or_else(|| env::consts::ARCH.into());
    let found = format!("{model}; computes with {} (has {}), {tiles}", isa().name(), sets.join(", "));
    match isa() {
        Isa::Portable => finding(
            "processor",
            Level::Warning,
            found,
            "without AVX2 and FMA, or NEON, all is slow; in a virtual machine, pass the host's processor through. Look \
             whether NARTHEX_ISA asks for `portable`",
        ),
        _ => fine("processor", found),
    }
}

/// The processor's name in the text of `/proc/cpuinfo`.
fn model_name(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_string()).filter(|name| !name.is_empty())
}

fn cores() -> Finding {
    match std::thread::available_parallelism() {
        Ok(count) => fine("cores", format!("{count} that this process may use")),
        Err(error) => finding("cores", Level::Warning, format!("unknown: {error}"), "name the threads: `--threads N`"),
    }
}

fn memory_here() -> Finding {
    let limit = memory::limit_bytes()
        .map_or("without a limit of its own".into(), |limit| format!("of at most {} for this process", bytes(limit)));
    match memory::available_bytes() {
        None => finding("memory", Level::Warning, "unknown", "name what a server may use: `--kv-cache-memory-bytes`"),
        Some(free) if free < LITTLE_MEMORY => finding(
            "memory",
            Level::Warning,
            format!("{} free {limit}", bytes(free)),
            "end other programs, or raise the limit of the container or unit",
        ),
        Some(free) => fine("memory", format!("{} free {limit}", bytes(free))),
    }
}

/// The folder, or the nearest around it that is there.
fn existing(folder: &Path) -> PathBuf {
    let found = folder.ancestors().find(|folder| folder.is_dir());
    found.filter(|found| !found.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}

fn disk(name: &'static str, folder: PathBuf) -> Finding {
    let place = folder.display();
    match rustix::fs::statvfs(&folder) {
        Err(error) => finding(name, Level::Problem, format!("{place}: {error}"), "create the folder, or set TMPDIR"),
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let level = match free {
                _ if free < NO_DISK => Level::Problem,
                _ if free < LITTLE_DISK => Level::Warning,
                _ => Level::Ok,
            };
            let found = format!("{} free in {place}", bytes(free));
            finding(name, level, found, "make room: `narthex gc` shows what nothing leads to any more")
        }
    }
}

fn port(port: u16) -> Finding {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => fine("port", format!("{port} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => finding(
            "port",
            Level::Warning,
            format!("{port}, which `serve` takes by default, is in use"),
            "serve on another: `--port N`; `ss -ltnp` shows who has it",
        ),
        Err(error) => finding("port", Level::Warning, format!("{port}: {error}"), "serve on another: `--port N`"),
    }
}

fn ledger(project: &Path) -> Finding {
    let root = root_of(project).join(".narthex");
    if !root.is_dir() {
        return fine("ledger", format!("none yet in {}", root_of(project).display()));
    }
    let ledger = match open_ledger(project) {
        Ok(ledger) => ledger,
        Err(error) => return broken(&error, "look at the rights of the folder, and whether the disk is full"),
    };
    let count = match ledger.list() {
        Ok(listings) => listings.len(),
        Err(error) => return broken(&error, "move `.narthex/catalog.db` away: it is made anew from the artifacts"),
    };
    let found = format!("{count} names of artifacts in {}, catalog of schema {}", root.display(), ledger.schema());
    let warnings = ledger.take_warnings();
    if !warnings.is_empty() {
        let found = format!("{found}; {}", warnings.join("; "));
        return finding("ledger", Level::Warning, found, "see what it says; artifacts themselves are kept");
    }
    match ledger.lock() {
        Ok(_) => fine("ledger", format!("{found}, not locked")),
        Err(error) => {
            let fix = error.help_text().unwrap_or("wait until the run has finished").to_string();
            finding("ledger", Level::Warning, format!("{found}; {}", error.what()), fix)
        }
    }
}

fn broken(error: &Error, otherwise: &str) -> Finding {
    let causes: String = error.causes().iter().map(|cause| format!(": {cause}")).collect();
    let fix = error.help_text().unwrap_or(otherwise).to_string();
    finding("ledger", Level::Problem, format!("{}{causes}", error.what()), fix)
}

/// The variables of ours that are set.
fn set_variables() -> Vec<String> {
    let names = env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("NARTHEX_")).collect();
    names.sort();
    names
}

fn variables(set: &[String]) -> Finding {
    let (known, unknown): (Vec<&String>, Vec<&String>) =
        set.iter().partition(|name| VARIABLES.contains(&name.as_str()));
    let names = |names: &[&String]| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    if unknown.is_empty() {
        let found =
            if known.is_empty() { "none of NARTHEX_… is set".into() } else { format!("set: {}", names(&known)) };
        return fine("environment", found);
    }
    let fixes = unknown.iter().map(|name| match nearest(name, VARIABLES) {
        Some(meant) => format!("{name}: did you mean {meant}?"),
        None => format!("unset {name}"),
    });
    let found = format!("nothing reads {}", names(&unknown));
    finding("environment", Level::Warning, found, fixes.collect::<Vec<_>>().join("; "))
}

fn certificates() -> Finding {
    let named = env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = named {
        return match count_certificates(&path) {
            0 => finding(
                "certificates",
                Level::Problem,
                format!("SSL_CERT_FILE names {}, which holds none that can be read", path.display()),
                "name a PEM file with certificates, or unset it",
            ),
            count => fine("certificates", format!("{count} in {}, as SSL_CERT_FILE says", path.display())),
        };
    }
    let found = CERTIFICATES.iter().map(Path::new).find(|path| count_certificates(path) > 0);
    match found {
        Some(path) => fine("certificates", format!("{} in {}", count_certificates(path), path.display())),
        None => finding(
            "certificates",
            Level::Warning,
            "the system has no store that is known here",
            "install the package `ca-certificates`, or name a PEM file with SSL_CERT_FILE",
        ),
    }
}

fn count_certificates(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.matches("-----BEGIN CERTIFICATE-----").count())
}

fn clock() -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if now < EARLIEST {
        let fix = "set the clock (`timedatectl set-ntp true`): certificates and signatures seem invalid otherwise";
        return finding("clock", Level::Problem, format!("{now} s since 1970, which is past"), fix);
    }
    fine("clock", format!("{now} s since 1970"))
}

/// The drivers of graphics processors that this program was compiled for.
fn devices() -> Vec<Finding> {
    let drivers = [
        ("cuda", cfg!(feature = "cuda"), "libcuda.so.1", "install NVIDIA's driver"),
        ("rocm", cfg!(feature = "rocm"), "libamdhip64.so", "install AMD's ROCm"),
        ("vulkan", cfg!(any(feature = "vulkan", feature = "wgpu")), "libvulkan.so.1", "install a driver for Vulkan"),
    ];
    let wanted = drivers.into_iter().filter(|(_, is_in, ..)| *is_in && cfg!(target_os = "linux"));
    let findings = wanted.map(|(name, _, library, fix)| match can_load(library) {
        true => fine(name, format!("{library} is there")),
        false => finding(name, Level::Problem, format!("{library} cannot be loaded"), fix),
    });
    findings.collect()
}

/// Whether the system has this library.
fn can_load(library: &str) -> bool {
    #[cfg(unix)]
    {
        let Ok(name) = std::ffi::CString::new(library) else { return false };
        // SAFETY: the name is a string that ends in zero. What a driver does when it is loaded is what it would do when a
        // model asked for it; it stays loaded.
        !unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY) }.is_null()
    }
    #[cfg(not(unix))]
    {
        _ = library;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_processors() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t: a\n\nmodel name\t: Other\n";
        assert_eq!(model_name(text).as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!(model_name("processor: 0\n"), None);
    }

    #[test]
    fn variables_that_nothing_reads_are_told_with_what_was_meant() {
        let of = |names: &[&str]| variables(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&[]).level, Level::Ok);
        let known = of(&["NARTHEX_ISA"]);
        assert_eq!((known.level, known.found.as_str()), (Level::Ok, "set: NARTHEX_ISA"));
        let unknown = of(&["NARTHEX_ISA", "NARTHEX_API_KEYS"]);
        assert_eq!(unknown.level, Level::Warning);
        assert!(unknown.fix.unwrap().contains("did you mean NARTHEX_API_KEY?"));
    }

    #[test]
    fn a_port_that_is_taken_is_a_warning() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = taken.local_addr().unwrap().port();
        assert_eq!(port(number).level, Level::Warning);
        drop(taken);
        assert_eq!(port(number).level, Level::Ok);
    }

    #[test]
    fn a_disk_that_is_not_there_is_a_problem_and_a_fix_goes_with_it() {
        let missing = disk("disk", "/no/such/folder".into());
        assert!(missing.level == Level::Problem && missing.fix.is_some());
        assert_eq!(existing(Path::new("/no/such/folder")), Path::new("/"));
        assert_eq!(existing(Path::new("nosuch/.narthex")), Path::new("."));
    }

    #[test]
    fn a_folder_without_a_ledger_is_fine_and_gets_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ledger(folder.path()).level, Level::Ok);
        assert!(!folder.path().join(".narthex").exists());
    }
}
