//! Our binary, asked something that ends by itself.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Stage;
use super::peers::ours;

/// What it answered.
#[derive(Debug)]
pub struct Answer {
    /// Its exit code; `None` when it was killed, 124 when it did not end.
    pub code: Option<i32>,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

/// Runs `piecemeal ARGS` in the stage's directory on its first host, within a time.
pub fn ask(stage: &Stage<'_>, args: &[&str], limit: Duration) -> Result<Answer> {
    let mut command: Command = ours(stage.host(0).command("timeout"), stage.dir);
    command.args(["--kill-after=2", &limit.as_secs().to_string()]).arg(stage.binary).args(args);
    let output = command.current_dir(stage.dir).output().context("timeout")?;
    Ok(Answer {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Answer {
    /// Fails unless it ended with this code.
    pub fn expect(self, code: i32, what: &str) -> Result<Answer> {
        if self.code == Some(code) {
            return Ok(self);
        }
        bail!("{what}: exit code {:?}, not {code}: {}", self.code, self.err.trim())
    }

    /// Its stdout as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("no JSON: {:.200}", self.out))
    }
}
