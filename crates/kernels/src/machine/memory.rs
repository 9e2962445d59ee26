//! How much memory the process holds and has held.

/// The most resident memory that the process has had, in bytes; 0 where the system does not tell.
pub fn peak_resident_bytes() -> u64 {
    usage().map_or(0, |usage| {
        // Kilobytes on Linux, bytes on macOS.
        let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
        usage.ru_maxrss as u64 * unit
    })
}

/// Page faults that needed no disk: each is a page of memory handed out and cleared by the kernel.
pub fn minor_page_faults() -> u64 {
    usage().map_or(0, |usage| usage.ru_minflt as u64)
}

/// Memory that new work can have without others being swapped out, in bytes; none where the system does not tell. A
/// container's limit counts too.
pub fn available_bytes() -> Option<u64> {
    let machine = meminfo("MemAvailable:")?;
    let group = control_group().map(|(limit, used)| limit.saturating_sub(used));
    Some(machine.min(group.unwrap_or(u64::MAX)))
}

/// Memory that the process could have if nobody else had any, in bytes; none where the system does not tell. A
/// container's limit and the shell's (`ulimit -v`) count too.
pub fn limit_bytes() -> Option<u64> {
    let machine = meminfo("MemTotal:")?;
    let group = control_group().map_or(u64::MAX, |(limit, _)| limit);
    Some(machine.min(group).min(address_space()))
}

fn meminfo(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// The tightest limit of the control groups that the process is in, and what that group uses, in bytes. Both versions
/// of such groups are there: one file system for all that is controlled, or one for memory.
fn control_group() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let number = |path: std::path::PathBuf| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let tightest = |own: &str, root: &str, [limit, used]: [&str; 2]| {
        let limits = std::path::Path::new(own).ancestors().filter_map(|group| {
            let folder = std::path::Path::new(root).join(group);
            Some((number(folder.join(limit))?, number(folder.join(used)).unwrap_or(0)))
        });
        limits.min_by_key(|(limit, _)| *limit)
    };
    let groups = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, own) = rest.split_once(":/")?;
        match controllers {
            "" => tightest(own, "/sys/fs/cgroup", ["memory.max", "memory.current"]),
            "memory" => tightest(own, "/sys/fs/cgroup/memory", ["memory.limit_in_bytes", "memory.usage_in_bytes"]),
            _ => None,
        }
    });
    groups.min_by_key(|(limit, _)| *limit)
}

/// The limit of the process's address space in bytes.
fn address_space() -> u64 {
    #[cfg(unix)]
    // SAFETY: a C struct of two numbers, for which zeros are a value; the call fills it or fails.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_AS, &mut limit) == 0 {
            return limit.rlim_cur as u64;
        }
    }
    u64::MAX
}

#[cfg(unix)]
fn usage() -> Option<libc::rusage> {
    // SAFETY: a C struct of numbers, for which zeros are a value; the call fills it or fails.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::getrusage(libc::RUSAGE_SELF, &mut usage) == 0).then_some(usage)
    }
}

#[cfg(not(unix))]
fn usage() -> Option<Usage> {
    None
}

/// What `libc::rusage` would hold.
#[cfg(not(unix))]
struct Usage {
    ru_maxrss: i64,
    ru_minflt: i64,
}
