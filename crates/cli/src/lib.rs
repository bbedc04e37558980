//! The commands of piecemeal.
//!
//! Everything here speaks to `api` alone: torrents run behind [`piecemeal_api::Client`], and the work that needs no
//! swarm behind [`piecemeal_api::Tools`]. So the same commands serve an engine in this process and one in a daemon,
//! and the tests of this crate need neither.
//!
//! Owns the command line, what is shown, and the exit codes: 0 done, 1 failed, 2 wrong command line, 130 interrupted.
#![forbid(unsafe_code)]

mod args;
mod create;
mod demo;
mod dht;
mod fail;
mod get;
mod host;
mod interrupt;
mod net;
mod peers;
mod progress;
mod seed;
mod seek;
mod select;
mod show;
mod source;
#[cfg(test)]
mod test_kit;
mod text;
mod tls;
mod tracker;
mod units;
mod verify;
mod watch;

use std::ffi::OsString;

use clap::Parser;
use piecemeal_api::Tools;

pub use fail::{DONE, FAILED, INTERRUPTED, USAGE};
pub use host::{Bars, ErrStream, Host};
pub use interrupt::Interrupt;

use args::{Cli, Command};
use fail::Failure;

/// Runs one command line, program name first; gives the exit code.
///
/// The caller raises `stop` on each SIGINT and SIGTERM, ends the process with the code given (threads of an engine that was left
/// in a hurry may still run), and may end it without asking on the third signal.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    tools: &dyn Tools,
    host: &mut Host,
    stop: &Interrupt,
) -> u8 {
    let result = match Cli::try_parse_from(args) {
        Ok(cli) => command(&cli.command, tools, host, stop),
        Err(error) => refuse(&error, host),
    };
    let Err(failure) = result else { return DONE };
    if let Some(line) = failure.line() {
        host.err.line(&format!("piecemeal: {line}"));
    }
    failure.code()
}

fn command(command: &Command, tools: &dyn Tools, host: &mut Host, stop: &Interrupt) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(args, tools, host, stop),
        Command::Get(args) => get::run(args, tools, host, stop),
        Command::Seed(args) => seed::run(args, tools, host, stop),
        Command::Create(args) => create::run(args, tools, host, stop),
        Command::Show(args) => show::run(args, tools, host, stop),
        Command::Verify(args) => verify::run(args, tools, host, stop),
        Command::Peers(args) => peers::run(args, tools, host, stop),
        Command::Tracker(args) => tracker::run(args, tools, host, stop),
        Command::Net(args) => net::run(args, tools, host, stop),
        Command::Dht(args) => dht::run(args, tools, host, stop),
    }
}

/// Help and version are answers; the rest is one line on stderr.
fn refuse(error: &clap::Error, host: &mut Host) -> Result<(), Failure> {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    let text = error.render().to_string();
    match error.kind() {
        DisplayHelp | DisplayVersion => Ok(host.say(text.trim_end())?),
        DisplayHelpOnMissingArgumentOrSubcommand => {
            host.err.line(text.trim_end());
            Err(Failure::Usage("command: none given; choose one of the above".to_owned()))
        }
        _ => {
            let wrong: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
            let wrong = wrong.join(" ");
            let wrong = wrong.strip_prefix("error: ").unwrap_or(&wrong);
            Err(Failure::Usage(format!("{wrong}; see `piecemeal help`")))
        }
    }
}
