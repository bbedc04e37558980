//! `cargo xtask fuzz`: every target of `fuzz/` for a while, as many at a time as there are cores.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::run::{Running, root, run as run_program};

/// A minute each, as before every merge.
const SECONDS: u64 = 60;
/// Beyond its seconds, what starting and the last slow input may take.
const GRACE: Duration = Duration::from_secs(120);

/// Runs the command.
pub fn run(args: &[String]) -> Result<()> {
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let seconds = match args[..] {
        [] => SECONDS,
        ["--seconds", seconds] => seconds.parse().context("--seconds")?,
        _ => bail!("fuzz [--seconds N]"),
    };
    let fuzz = root().join("fuzz");
    // Builds all, and feeds every input that was ever worth keeping.
    run_program(&fuzz, "sh", &["run.sh", "0"])?;
    let lanes = deal(targets()?, thread::available_parallelism()?.get());
    let results: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> =
            lanes.iter().map(|lane| scope.spawn(move || fuzz_lane(lane, seconds))).collect();
        running.into_iter().map(|lane| lane.join().expect("a lane does not panic")).collect()
    });
    results.into_iter().collect()
}

fn fuzz_lane(targets: &[String], seconds: u64) -> Result<()> {
    let Some(first) = targets.first() else { return Ok(()) };
    let log = root().join(format!("fuzz/found/{first}.lane.log"));
    let mut command = Command::new("sh");
    command.arg("run.sh").arg(seconds.to_string()).args(targets).current_dir(root().join("fuzz"));
    let mut running = Running::start("fuzz", command, &log)?;
    let limit = (Duration::from_secs(seconds) + GRACE) * u32::try_from(targets.len())?;
    let result = running.finish(limit);
    println!("{}", running.lines().join("\n").trim_end());
    result
}

/// The targets by name.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("fuzz/targets"))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Dealt out like cards.
fn deal(names: Vec<String>, lanes: usize) -> Vec<Vec<String>> {
    let mut dealt = vec![Vec::new(); lanes.max(1)];
    for (index, name) in names.into_iter().enumerate() {
        let lane = index % dealt.len();
        dealt[lane].push(name);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_in_one_lane() {
        let names: Vec<_> = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(deal(names, 2), [vec!["a".to_owned(), "c".to_owned()], vec!["b".to_owned()]]);
    }
}
