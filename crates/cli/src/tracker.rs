//! `piecemeal tracker`: the embedded tracker, until Ctrl-C.
//!
//! SIGHUP, which has it read its lists again, is the process's; see `app`.

use std::time::Duration;

use piecemeal_api::{Tools, TrackerOptions};

use crate::args::Tracker;
use crate::fail::Failure;
use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::units::count;

/// How often counts are looked at, and printed if they changed.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Runs the command. Ctrl-C is how it is meant to end, so that is no failure.
pub fn run(args: &Tracker, tools: &dyn Tools, host: &mut Host, stop: &Interrupt) -> Result<(), Failure> {
    let options = TrackerOptions {
        listen: args.listen.clone(),
        // Longer ones do not fit; they are refused with those of more than a day.
        interval_s: args.interval.map(|span| u32::try_from(span.as_secs()).unwrap_or(u32::MAX)),
        allow: args.allow.clone(),
        deny: args.deny.clone(),
        passkeys: args.passkeys.clone(),
    };
    let mut tracker = tools.start_tracker(&options)?;
    for url in tracker.urls().into_iter().chain(tracker.udp_urls()) {
        host.say(url)?;
    }
    host.err.line("piecemeal: tracker running; Ctrl-C stops it");
    let mut said = 0;
    while !stop.wait(1, LOOK_EVERY) {
        let stats = tracker.stats();
        if stats.announces != said {
            said = stats.announces;
            let (swarms, peers) = (count(stats.swarms, "swarm"), count(stats.peers, "peer"));
            host.err.line(&format!("{swarms}, {peers}, {}", count(stats.announces, "announce")));
        }
    }
    tracker.stop();
    Ok(())
}
