//! Checks, interop, simulation and benchmarks of the workspace: `cargo xtask COMMAND`.
#![forbid(unsafe_code)]

mod bench;
mod checks;
mod fuzz;
mod interop;
mod proc;
mod run;
mod sim;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask COMMAND
  check                 arrows, words, lines, beps, format and clippy
  arrows                who imports whom, against the table of the house
  words                 async, unsafe, unwrap, locks and clocks only where they belong
  lines                 files of at most 800 lines, functions of at most 60
  beps                  docs/beps.md names files that exist
  sim ARGS              the simulator: see `cargo xtask sim --help`
  fuzz [--seconds N]    every fuzz target for N seconds [default: 60], as many at a time as there are cores
  interop [OPTIONS]     swap files with libtorrent, Transmission and aria2; `--help` for more
  bench [OPTIONS]       CPU seconds per GiB beside other clients; `--help` for more";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let Some((command, rest)) = args.split_first() else { bail!("no command\n{HELP}") };
    match command.as_str() {
        "check" => checks::all(),
        name if checks::NAMES.contains(&name) => checks::one(name),
        "fuzz" => fuzz::run(rest),
        "sim" => sim::forward(rest),
        "interop" => interop::run(rest),
        "bench" => bench::run(rest),
        "floor" => bench::floor::run(rest),
        "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(())
        }
        other => bail!("{other}: no such command\n{HELP}"),
    }
}
