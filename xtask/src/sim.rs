//! `cargo xtask sim`: the simulator, built optimised but with every invariant checked.
//!
//! A process of its own, because this tool is built without optimisation, in which a simulated day is too long.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{ended, root};

/// Hands the arguments on.
pub fn forward(args: &[String]) -> Result<()> {
    let status = Command::new("cargo")
        .args(["run", "--quiet", "--profile=sim", "--package=piecemeal-sim", "--bin=sim", "--"])
        .args(args)
        .current_dir(root())
        .status()
        .context("cargo")?;
    if status.success() { Ok(()) } else { bail!("sim: {}", ended(status)) }
}
