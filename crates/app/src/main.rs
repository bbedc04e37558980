//! The one binary.
//!
//! Owns what belongs to the process and not to a command: signals, streams, directories, limits of the system, and
//! the exit code. Commands are `cli`'s; what they work with comes from `tools`.
#![forbid(unsafe_code)]

mod system;
mod tools;
mod tracker;

use std::sync::Arc;

use piecemeal_cli::{FAILED, Host, Interrupt};

use tools::InProcess;

fn main() {
    system::raise_handle_limit();
    let stop = Arc::new(Interrupt::default());
    if let Err(why) = system::catch_signals(stop.clone()) {
        complain("signals", &why, "raise the limit of threads, and try again");
    }
    let mut host = match Host::real(system::state_dir()) {
        Ok(host) => host,
        Err(why) => complain("current directory", &why, "change to one that exists"),
    };
    let tools = InProcess::new(host.err.clone());
    let code = piecemeal_cli::run(std::env::args_os(), &tools, &mut host, &stop);
    // Threads of an engine that was left in a hurry may still run; they end here.
    std::process::exit(code.into())
}

fn complain(what: &str, why: &std::io::Error, remedy: &str) -> ! {
    eprintln!("piecemeal: {what}: {why}; {remedy}");
    std::process::exit(FAILED.into())
}
