//! What the process lends the commands: its streams, its terminal, its directories.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{ProgressDrawTarget, TermLike};
use serde::Serialize;

use crate::text;

/// Streams and places of one run. `Host::real` is the process's own; tests build theirs.
pub struct Host {
    /// Results.
    pub out: Box<dyn Write + Send>,
    /// Progress, notes and errors.
    pub err: ErrStream,
    /// How progress is drawn.
    pub bars: Bars,
    /// Relative paths start here.
    pub cwd: PathBuf,
    /// Where the demonstration puts its content.
    pub temp_dir: PathBuf,
    /// Where engines keep resume facts; `None`: nowhere.
    pub state_dir: Option<PathBuf>,
}

/// How progress is drawn.
#[derive(Clone)]
pub enum Bars {
    /// As lines of text: stderr is no terminal.
    Off,
    /// As bars on stderr.
    Stderr,
    /// As bars on a terminal of the caller's.
    On(Arc<dyn Fn() -> Box<dyn TermLike> + Send + Sync>),
}

impl Host {
    /// The process's own streams and current directory, and this directory for resume facts.
    pub fn real(state_dir: Option<PathBuf>) -> io::Result<Host> {
        let capable = env::var_os("TERM").is_none_or(|term| term != "dumb");
        let bars = if io::stderr().is_terminal() && capable { Bars::Stderr } else { Bars::Off };
        Ok(Host {
            out: Box::new(io::stdout()),
            err: ErrStream::new(io::stderr()),
            bars,
            cwd: env::current_dir()?,
            temp_dir: env::temp_dir(),
            state_dir,
        })
    }

    /// `path` from the current directory.
    pub fn at(&self, path: &Path) -> PathBuf {
        self.cwd.join(path)
    }

    /// A line on stdout.
    pub fn say(&mut self, line: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.out, "{}", line.as_ref())?;
        self.out.flush()
    }

    /// A line of JSON on stdout.
    pub fn say_json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let line = text::json_line(value).map_err(io::Error::other)?;
        self.say(line)
    }
}

impl Bars {
    /// Where indicatif draws; `None` when lines are wanted.
    pub fn target(&self) -> Option<ProgressDrawTarget> {
        match self {
            Bars::Off => None,
            Bars::Stderr => Some(ProgressDrawTarget::stderr()),
            Bars::On(terminal) => Some(ProgressDrawTarget::term_like(terminal())),
        }
    }
}

/// Stderr, shared by whoever has something to say. What cannot be said is dropped: there is nowhere to complain.
#[derive(Clone)]
pub struct ErrStream(Arc<Mutex<dyn Write + Send>>);

impl ErrStream {
    /// Over any writer.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        ErrStream(Arc::new(Mutex::new(writer)))
    }

    /// One line.
    pub fn line(&self, line: &str) {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(writer, "{line}").and_then(|()| writer.flush());
    }
}
