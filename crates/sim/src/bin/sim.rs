//! `xtask sim`, alone.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    piecemeal_sim::cli::cli(&args)
}
