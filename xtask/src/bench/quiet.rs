//! Whether the machine has nothing else to do: any other load changes every figure.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::proc::{cpu_time, machine_time};

/// How long the machine is watched.
const WATCH: Duration = Duration::from_secs(1);
/// Share of all CPUs that is quiet: the kernel itself needs a little.
const QUIET: f64 = 0.05;
/// Writing back what the last turn wrote, and freeing it, is over by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// Programs that swap files or serve those that do.
const PEERS: [&str; 10] = [
    "piecemeal",
    "transmission",
    "aria2c",
    "rqbit",
    "qbittorrent",
    "rtorrent",
    "opentracker",
    "aquatic_udp",
    "lt.py",
    "lt_peer.py",
];

/// Fails if a peer of an earlier run is still there.
pub fn no_forgotten_peers() -> Result<()> {
    let mut found = Vec::new();
    for pid in pids() {
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> =
            cmdline.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word)).collect();
        if is_peer(&words) {
            found.push(format!("{pid} {}", words.join(" ").chars().take(80).collect::<String>()));
        }
    }
    if found.is_empty() { Ok(()) } else { bail!("peers are running, end them first:\n{}", found.join("\n")) }
}

/// The program itself, or the script that Python runs; whoever merely has the name among its arguments is none.
fn is_peer(words: &[impl AsRef<str>]) -> bool {
    let name = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let known = |word: &str| PEERS.iter().any(|peer| *peer == word || word.starts_with(&format!("{peer}-")));
    let names: Vec<_> = words.iter().map(|word| name(word.as_ref())).collect();
    let python = names.first().is_some_and(|first| first.starts_with("python"));
    names.iter().take(if python { 6 } else { 1 }).any(|name| known(name))
}

/// Waits until nobody else works; fails with their names if they do not stop.
pub fn wait() -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let before = (machine_time()?, times());
        thread::sleep(WATCH);
        let after = (machine_time()?, times());
        let busy = (after.0.0 - before.0.0).as_secs_f64();
        let share = busy / (after.0.1 - before.0.1).as_secs_f64().max(0.01);
        if share <= QUIET {
            return Ok(());
        }
        if Instant::now() > until {
            let percent = share * 100.0;
            bail!("the machine is busy with other things ({percent:.0} %): {}", busiest(&before.1, &after.1));
        }
    }
}

fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .collect()
}

fn times() -> BTreeMap<u32, Duration> {
    pids().into_iter().filter_map(|pid| Some((pid, cpu_time(pid).ok()?))).collect()
}

fn busiest(before: &BTreeMap<u32, Duration>, after: &BTreeMap<u32, Duration>) -> String {
    let mut used: Vec<_> = after
        .iter()
        .map(|(pid, time)| (time.saturating_sub(before.get(pid).copied().unwrap_or_default()), *pid))
        .filter(|(used, _)| !used.is_zero())
        .collect();
    used.sort();
    let name = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    let line: Vec<_> = used.iter().rev().take(4).map(|(_, pid)| format!("{pid} {}", name(*pid))).collect();
    line.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_a_peer() {
        assert!(is_peer(&["/usr/bin/transmission-daemon", "--foreground"]));
        assert!(is_peer(&["python3", "-W", "ignore", "/a/xtask/peers/lt.py", "peer"]));
        assert!(is_peer(&["target/release/piecemeal", "seed"]));
        assert!(!is_peer(&["cargo", "install", "rqbit"]));
        assert!(!is_peer(&["/a/piecemeal/target/debug/xtask", "bench"]));
        assert!(!is_peer(&[""]));
    }
}
