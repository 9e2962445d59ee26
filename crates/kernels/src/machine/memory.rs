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

/// Memory that new work can have without others being swapped out, in bytes; none where the system does not tell.
pub fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
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
