//! What the house rules say about the text of the workspace, checked.
//!
//! Each check gives findings, one line each: where, what, and what to do. There is no list of exceptions.

mod arrows;
mod beps;
mod lines;
mod source;
mod words;

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};

use crate::run::{root, run};

/// The crates that only compute.
const PURE: [&str; 6] = ["metainfo", "wire", "package", "transport", "discovery", "engine"];

/// The checks that read the workspace, in the order that `check` runs them.
pub const NAMES: [&str; 4] = ["arrows", "words", "lines", "beps"];

/// Something against the rules.
#[derive(Clone, PartialEq, Debug)]
pub struct Finding {
    path: String,
    line: Option<usize>,
    text: String,
}

impl Finding {
    fn new(path: &str, line: Option<usize>, text: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.text),
            None => write!(f, "{}: {}", self.path, self.text),
        }
    }
}

/// Runs one check by name and prints what it finds.
pub fn one(name: &str) -> Result<()> {
    let root = root();
    let findings = findings(name, &root)?;
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => println!("{name}: ok"),
        count => bail!("{name}: {count} against the rules"),
    }
    Ok(())
}

/// All checks, format and clippy. Goes on after a failure, so that one run shows everything.
pub fn all() -> Result<()> {
    let root = root();
    let mut failed = Vec::new();
    for name in NAMES {
        if let Err(why) = one(name) {
            failed.push(why.to_string());
        }
    }
    let format = ["fmt", "--all", "--check"];
    let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny=warnings"];
    for (name, args) in [("format", &format[..]), ("clippy", &clippy[..])] {
        match run(&root, "cargo", args) {
            Ok(()) => println!("{name}: ok"),
            Err(why) => failed.push(format!("{name}: {why}")),
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("\n")) }
}

fn findings(name: &str, root: &Path) -> Result<Vec<Finding>> {
    Ok(match name {
        "arrows" => arrows::check(root)?,
        "words" => words::check(&source::workspace(root)?),
        "lines" => lines::check(&source::workspace(root)?),
        "beps" => beps::check(root),
        other => bail!("{other}: no such check"),
    })
}
