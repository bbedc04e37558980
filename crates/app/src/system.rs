//! The process and its system: signals, limits, directories.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use etcetera::BaseStrategy;
use piecemeal_cli::{INTERRUPTED, Interrupt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// As many handles as are ever of use: more only costs tables in the kernel.
const HANDLES_WANTED: u64 = 1 << 20;

/// Raises the soft limit of open files as far as it may be: sockets and files of large swarms and torrents. A
/// refusal is no reason to stop; there is less of everything then.
pub fn raise_handle_limit() {
    let Rlimit { current: Some(now), maximum } = getrlimit(Resource::Nofile) else { return };
    let most = maximum.unwrap_or(HANDLES_WANTED).min(HANDLES_WANTED);
    if now < most {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum });
    }
}

/// Raises `stop` at each SIGINT and SIGTERM, and ends the process at the third. SIGPIPE is as Rust has it, ignored:
/// who writes to a closed pipe gets an error, which commands take for the end.
///
/// # Errors
/// The system refuses the handlers or the thread.
pub fn catch_signals(stop: Arc<Interrupt>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let watch = move || {
        for _ in signals.forever() {
            if stop.raise() >= 3 {
                std::process::exit(INTERRUPTED.into());
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map(drop)
}

/// Where resume facts go: `$XDG_STATE_HOME/piecemeal`, by default `~/.local/state/piecemeal`. `None` where there is no
/// home.
pub fn state_dir() -> Option<PathBuf> {
    let base = etcetera::choose_base_strategy().ok()?;
    Some(base.state_dir().unwrap_or_else(|| base.data_dir()).join("piecemeal"))
}
