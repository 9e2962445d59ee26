//! The walls around a command: named folders and the system's programs, no network, no other process. Built by
//! bubblewrap, or by what util-linux brings; which of them works is found out by trying. Knows no tool, and runs
//! nothing but the try.

use narthex_base::Error;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where programs are looked for, inside and outside.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";
/// What programs need of the system, where it is there: none of it is anybody's secret.
const SYSTEM: [&str; 13] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/pki",
    "/etc/ssl/certs",
];
/// What is needed to find others in the network.
const NETWORK: [&str; 4] = ["/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/services"];
/// Devices that anybody may have.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// The kernel's own switches. They obey the user who is root outside, whatever rights are given up, so that where this
/// runs as root they must be read-only. Bubblewrap 0.8 leaves them as they are: it looks at the folders, which nobody
/// may write.
const SWITCHES: [&str; 7] = ["sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi"];
/// Where util-linux builds the new root: the first that is there and holds nothing that is to be seen inside.
const BASES: [&str; 6] = ["/mnt", "/media", "/srv", "/dev/shm", "/var/tmp", "/tmp"];
/// Bytes of `/tmp` inside.
const SCRATCH_BYTES: u64 = 256 << 20;
/// What limits the number of processes, where it is there.
const PRLIMIT: &str = "/usr/bin/prlimit";
/// Characters of a program's complaint that an error shows.
const COMPLAINT_CHARS_MAX: usize = 300;

/// Builds the new root and goes there, then gives up every right to change it. Its arguments: where to build, where to
/// start, the size of `/tmp`, and lines of what to show, then `--` and the command.
const BUILD: &str = r#"set -eu
base=$1 start=$2 scratch=$3
shift 3
mount -t tmpfs -o mode=0755,size=1m,nosuid,nodev none "$base"
mkdir "$base/proc" "$base/tmp" "$base/.old"
mount -t proc -o nosuid,nodev,noexec none "$base/proc"
mount -t tmpfs -o mode=1777,size="$scratch",nosuid,nodev none "$base/tmp"
# Everything below a place becomes read-only, whatever is mounted there.
closed() {
  while read -r _ _ _ _ point _; do
    case $point in "$1"|"$1"/*) mount -o remount,bind,ro "$point" ;; esac
  done < /proc/self/mountinfo
}
while [ "$1" != -- ]; do
  case $1 in
    link) mkdir -p "$base${3%/*}"; ln -s "$2" "$base$3"; shift 3 ;;
    ro|rw)
      if [ -d "$2" ]; then mkdir -p "$base$2"; else mkdir -p "$base${2%/*}"; : > "$base$2"; fi
      mount --rbind "$2" "$base$2"
      if [ "$1" = ro ]; then closed "$base$2"; fi
      shift 2 ;;
    switch)
      if [ -e "$base/proc/$2" ]; then
        mount --bind "$base/proc/$2" "$base/proc/$2"
        mount -o remount,bind,ro "$base/proc/$2"
      fi
      shift 2 ;;
    dev) mkdir -p "$base/dev"; : > "$base/dev/$2"; mount --bind "/dev/$2" "$base/dev/$2"; shift 2 ;;
  esac
done
shift
cd "$base"
pivot_root . .old
cd /
umount -l /.old
mount -o remount,ro / 2>/dev/null || mount -o remount,bind,ro /
cd "$start"
exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs -- "$@""#;

/// Which walls there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SandboxKind {
    /// The first that works of `bubblewrap` and `namespaces`; the tool is refused if none does.
    #[default]
    Auto,
    /// By the program `bwrap`.
    Bubblewrap,
    /// By `unshare`, `mount` and `setpriv` of util-linux.
    Namespaces,
    /// None: the command may do all that this process may.
    None,
}

/// What is seen inside. All paths are absolute and lead over no link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walls {
    /// Where the command starts.
    pub folder: PathBuf,
    /// What may be read.
    pub readable: Vec<PathBuf>,
    /// What may be written.
    pub writable: Vec<PathBuf>,
    /// The network is there.
    pub network: bool,
    /// Processes at once.
    pub processes: u64,
}

/// Walls that work here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// By this `bwrap`.
    Bubblewrap(PathBuf),
    /// By this `unshare`.
    Namespaces(PathBuf),
    /// None.
    None,
}

/// Something that is shown inside.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shown {
    Link { to: PathBuf, at: PathBuf },
    Bound { path: PathBuf, is_writable: bool },
}

impl Sandbox {
    /// The walls that were asked for, if they hold here: each is tried by running `true` behind it.
    ///
    /// # Errors
    /// If none works: what was tried, and why it failed.
    pub fn probe(kind: SandboxKind, walls: &Walls, path: &str) -> Result<Self, Error> {
        let bubblewrap = ("bubblewrap", "bwrap", Self::Bubblewrap as fn(PathBuf) -> Self);
        let namespaces = ("namespaces", "unshare", Self::Namespaces as fn(PathBuf) -> Self);
        let tried = match kind {
            SandboxKind::None => return Ok(Self::None),
            SandboxKind::Auto => vec![bubblewrap, namespaces],
            SandboxKind::Bubblewrap => vec![bubblewrap],
            SandboxKind::Namespaces => vec![namespaces],
        };
        let mut refusal = Error::input("no sandbox works on this machine");
        for (name, program, make) in tried {
            let outcome = match find(program, path) {
                None => Err(format!("there is no program `{program}`")),
                Some(program) => {
                    let sandbox = make(program);
                    sandbox.attempt(walls, path).map(|()| sandbox)
                }
            };
            match outcome {
                Ok(sandbox) => return Ok(sandbox),
                Err(why) => refusal = refusal.cause(format!("{name}: {why}")),
            }
        }
        Err(refusal.help(
            "install bubblewrap (`apt install bubblewrap`) and let processes make user namespaces; or, if you trust every \
             command that a model can make of it, write `sandbox = \"none\"`",
        ))
    }

    fn attempt(&self, walls: &Walls, path: &str) -> Result<(), String> {
        let program = find("true", path).ok_or("there is no program `true` to try it with")?;
        let argv = self.argv(walls, &[program.display().to_string()])?;
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).env_clear().env("PATH", PATH).stdin(Stdio::null()).current_dir("/");
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(format!("{} ({})", complaint.trim().chars().take(COMPLAINT_CHARS_MAX).collect::<String>(), output.status))
    }

    /// The command behind the walls: program and arguments.
    ///
    /// # Errors
    /// If a path cannot be shown inside.
    pub fn argv(&self, walls: &Walls, command: &[String]) -> Result<Vec<String>, String> {
        let shown = shown(walls)?;
        match self {
            Self::None => Ok(command.to_vec()),
            Self::Bubblewrap(program) => bubblewrap(program, walls, &shown, command),
            Self::Namespaces(program) => namespaces(program, walls, &shown, command),
        }
    }
}

/// The limit is set inside: outside, it would count all processes of this user. It holds in user namespaces of other
/// users than root.
fn limited<'a>(processes: &'a str, command: &'a [String]) -> impl Iterator<Item = &'a str> {
    let limit = [PRLIMIT, processes, "--"].into_iter().filter(|_| Path::new(PRLIMIT).exists());
    limit.chain(command.iter().map(String::as_str))
}

fn bubblewrap(program: &Path, walls: &Walls, shown: &[Shown], command: &[String]) -> Result<Vec<String>, String> {
    let scratch = SCRATCH_BYTES.to_string();
    let mut argv = vec![text(program)?];
    argv.extend(
        [
            "--unshare-user",
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup-try",
            "--uid",
            "1000",
            "--gid",
            "1000",
            "--hostname",
            "sandbox",
            "--die-with-parent",
            "--new-session",
            "--cap-drop",
            "ALL",
        ]
        .map(String::from),
    );
    if !walls.network {
        argv.push("--unshare-net".into());
    }
    argv.extend(["--proc", "/proc", "--dev", "/dev", "--size", scratch.as_str(), "--tmpfs", "/tmp"].map(String::from));
    for switch in SWITCHES.map(|switch| format!("/proc/{switch}")) {
        argv.extend(["--ro-bind-try".into(), switch.clone(), switch]);
    }
    for shown in shown {
        argv.extend(match shown {
            Shown::Link { to, at } => ["--symlink".into(), text(to)?, text(at)?],
            Shown::Bound { path, is_writable: true } => ["--bind".into(), text(path)?, text(path)?],
            Shown::Bound { path, is_writable: false } => ["--ro-bind".into(), text(path)?, text(path)?],
        });
    }
    argv.extend(["--remount-ro".into(), "/".into(), "--chdir".into(), text(&walls.folder)?, "--".into()]);
    argv.extend(limited(&processes(walls), command).map(String::from));
    Ok(argv)
}

fn namespaces(program: &Path, walls: &Walls, shown: &[Shown], command: &[String]) -> Result<Vec<String>, String> {
    let paths = || walls.readable.iter().chain(&walls.writable).chain([&walls.folder]);
    let is_free = |base: &&str| {
        Path::new(base).is_dir() && !paths().any(|path| path.starts_with(base) || Path::new(base).starts_with(path))
    };
    let base = BASES.into_iter().find(is_free).ok_or("no folder is free to build the new root in")?;
    let mut argv = vec![text(program)?];
    argv.extend(
        ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child=KILL", "--ipc", "--uts"]
            .map(String::from),
    );
    if !walls.network {
        argv.push("--net".into());
    }
    argv.extend(["--", "/bin/sh", "-c", BUILD, "sh", base].map(String::from));
    argv.extend([text(&walls.folder)?, SCRATCH_BYTES.to_string()]);
    for shown in shown {
        match shown {
            Shown::Link { to, at } => argv.extend(["link".into(), text(to)?, text(at)?]),
            Shown::Bound { path, is_writable } => {
                argv.extend([if *is_writable { "rw" } else { "ro" }.into(), plain(path)?])
            }
        }
    }
    argv.extend(SWITCHES.iter().flat_map(|switch| ["switch".into(), switch.to_string()]));
    argv.extend(DEVICES.iter().flat_map(|device| ["dev".into(), device.to_string()]));
    argv.push("--".into());
    argv.extend(limited(&processes(walls), command).map(String::from));
    Ok(argv)
}

fn processes(walls: &Walls) -> String {
    format!("--nproc={}", walls.processes)
}

/// What is shown, what lies above before what lies below it.
fn shown(walls: &Walls) -> Result<Vec<Shown>, String> {
    let mut all = vec![];
    let network = NETWORK.iter().filter(|_| walls.network);
    for path in SYSTEM.iter().chain(network).map(PathBuf::from) {
        match path.symlink_metadata() {
            // `/bin` is a link to `usr/bin` on most systems; files below `/etc` that are links are shown as what they
            // mean.
            Ok(stat) if stat.is_symlink() && path.parent() == Some(Path::new("/")) => {
                let to = path.read_link().map_err(|error| format!("{}: {error}", path.display()))?;
                all.push(Shown::Link { to, at: path });
            }
            Ok(_) if path.exists() => all.push(Shown::Bound { path, is_writable: false }),
            _ => {}
        }
    }
    let mut named: Vec<(&PathBuf, bool)> = walls.readable.iter().map(|path| (path, false)).collect();
    named.extend(walls.writable.iter().map(|path| (path, true)));
    if !named.iter().any(|(path, _)| walls.folder.starts_with(path)) {
        named.push((&walls.folder, false));
    }
    named.sort_by_key(|(path, _)| path.components().count());
    all.extend(named.into_iter().map(|(path, is_writable)| Shown::Bound { path: path.clone(), is_writable }));
    Ok(all)
}

fn text(path: &Path) -> Result<String, String> {
    path.to_str().map(Into::into).ok_or_else(|| format!("{} is no UTF-8", path.display()))
}

/// A path that stands in the kernel's list of mounts as it is.
fn plain(path: &Path) -> Result<String, String> {
    let path = text(path)?;
    if path.contains([' ', '\t', '\n', '\\', '#']) {
        return Err(format!("`{}` holds a blank or a backslash, which only bubblewrap can show", path.escape_debug()));
    }
    Ok(path)
}

/// A program by its name, or by its path if it has one.
pub fn find(program: &str, path: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|program| program.is_file());
    }
    path.split(':').map(|folder| Path::new(folder).join(program)).find(|program| program.is_file())
}
