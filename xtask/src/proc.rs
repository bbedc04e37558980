//! What the kernel tells about processes: memory, CPU time, and how often they woke up.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks a second in /proc: the kernel has shown user programs this number on every machine for twenty years.
const TICKS_A_SECOND: u64 = 100;

/// The most memory a process has held, in bytes, and its threads.
pub fn peak_memory(pid: u32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = field(&status, "VmHWM:").context("no VmHWM: the process has ended")?;
    Ok((kib << 10, field(&status, "Threads:").unwrap_or(1)))
}

/// The memory a process holds now, in bytes.
pub fn memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(field(&status, "VmRSS:").context("no VmRSS: the process has ended")? << 10)
}

/// CPU time of a process so far, user and system, children left out.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    cpu_of(&stat).context("/proc/PID/stat has no times")
}

/// Busy and whole time of all CPUs since the machine started.
pub fn machine_time() -> Result<(Duration, Duration)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let times: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let whole: u64 = times.iter().take(8).sum();
    let idle: u64 = times.iter().skip(3).take(2).sum();
    Ok((ticks(whole - idle), ticks(whole)))
}

/// A thread: its name, and how often it went to sleep by itself, which is as often as it woke.
#[derive(Clone, PartialEq, Debug)]
pub struct Thread {
    /// Its id; that of the main thread is the process's.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Voluntary context switches.
    pub sleeps: u64,
}

/// The threads of a process.
pub fn threads(pid: u32) -> Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let dir = entry?.path();
        // A thread may end while we look.
        let (Ok(name), Ok(status)) =
            (fs::read_to_string(dir.join("comm")), fs::read_to_string(dir.join("status")))
        else {
            continue;
        };
        let id = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let sleeps = field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        threads.push(Thread { id: id.unwrap_or(0), name: name.trim().to_owned(), sleeps });
    }
    Ok(threads)
}

fn field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15, counted from behind the name in brackets, which may hold anything.
fn cpu_of(stat: &str) -> Option<Duration> {
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let user: u64 = fields.get(11)?.parse().ok()?;
    let system: u64 = fields.get(12)?.parse().ok()?;
    Some(ticks(user + system))
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process() {
        let pid = std::process::id();
        let (peak, count) = peak_memory(pid).unwrap();
        assert!(peak > 1 << 20 && count > 0);
        let all = threads(pid).unwrap();
        assert!(all.iter().any(|thread| thread.id == pid));
        cpu_time(pid).unwrap();
        let (busy, whole) = machine_time().unwrap();
        assert!(busy < whole);
    }

    #[test]
    fn a_name_with_brackets_and_blanks() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_of(stat), Some(Duration::from_secs(2)));
    }
}
