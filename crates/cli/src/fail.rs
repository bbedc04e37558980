//! How a command ends.

use std::fmt;
use std::io;

use piecemeal_api::Refusal;

use crate::text;

/// Done.
pub const DONE: u8 = 0;
/// Something could not be done; stderr says what.
pub const FAILED: u8 = 1;
/// The command line makes no sense; stderr says why.
pub const USAGE: u8 = 2;
/// The user stopped it: 128 + SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// Why a command did not end well.
#[derive(Debug)]
pub enum Failure {
    /// Exit 2 with this line.
    Usage(String),
    /// Exit 1 with this line.
    Failed(String),
    /// Exit 1; everything was said already.
    Said,
    /// Exit 130.
    Interrupted,
    /// Who read our output went away. Not our failure: leave quietly.
    Pipe,
}

impl Failure {
    /// The three parts every error line has.
    pub fn failed(what: impl fmt::Display, wrong: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Failure::Failed(format!("{what}: {wrong}; {remedy}"))
    }

    /// The same for the command line.
    pub fn usage(what: impl fmt::Display, wrong: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Failure::Usage(format!("{what}: {wrong}; {remedy}"))
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => USAGE,
            Failure::Failed(_) | Failure::Said => FAILED,
            Failure::Interrupted => INTERRUPTED,
            Failure::Pipe => DONE,
        }
    }

    /// The line for stderr, without the program's name; safe to print.
    pub fn line(&self) -> Option<String> {
        match self {
            Failure::Usage(text) | Failure::Failed(text) => Some(text::safe(text)),
            Failure::Interrupted => Some("interrupted".to_owned()),
            Failure::Said | Failure::Pipe => None,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Cancelled => Failure::Interrupted,
            other => Failure::Failed(other.to_string()),
        }
    }
}

/// Only for writing to stdout and stderr; errors of other files name their file.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Pipe,
            _ => Failure::failed("output", error, "check where it goes"),
        }
    }
}
