//! `piecemeal peers`: what each tracker of a torrent answers.

use std::time::Duration;

use piecemeal_api::{AnnounceRequest, Tools, TrackerAnswer};

use crate::args::Peers;
use crate::fail::Failure;
use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::source::Torrent;
use crate::text::safe;
use crate::units::{count, span};

/// UDP trackers are asked again after 15 s (BEP 15); this lets one packet be lost.
const WAIT_S: u32 = 40;
/// What most trackers give at most.
const NUM_WANT: u32 = 200;

/// Runs the command. Done when at least one tracker answered.
pub fn run(args: &Peers, tools: &dyn Tools, host: &mut Host, stop: &Interrupt) -> Result<(), Failure> {
    let torrent = Torrent::read(&host.at(&args.torrent))?;
    if torrent.metainfo.trackers().is_empty() {
        let remedy = "make it again with `piecemeal create --tracker URL`";
        return Err(Failure::failed(args.torrent.display(), "names no tracker", remedy));
    }
    let request = AnnounceRequest { metainfo: torrent.bytes.clone(), wait_s: WAIT_S, num_want: NUM_WANT };
    let answers = tools.announce_all(&request, stop.cancel())?;
    for answer in &answers {
        if args.json { host.say_json(answer)? } else { print(answer, host)? }
    }
    if answers.iter().any(|answer| answer.error.is_none()) {
        return Ok(());
    }
    Err(Failure::failed(args.torrent.display(), "no tracker answered", "see above why; try again later"))
}

fn print(answer: &TrackerAnswer, host: &mut Host) -> Result<(), Failure> {
    if let Some(error) = &answer.error {
        return Ok(host.say(format!("{}: {}", safe(&answer.url), safe(error)))?);
    }
    let mut line = format!("{}: {}", safe(&answer.url), count(answer.peers.len() as u64, "peer"));
    if let Some(seeds) = answer.seeds {
        line += &format!(", {} known", count(u64::from(seeds), "seed"));
    }
    if let Some(leeches) = answer.leeches {
        let noun = if leeches == 1 { "leech" } else { "leeches" };
        line += &format!(", {leeches} {noun} known");
    }
    if let Some(interval) = answer.interval_s {
        line += &format!(", asks again every {}", span(Duration::from_secs(u64::from(interval))));
    }
    host.say(line)?;
    if let Some(warning) = &answer.warning {
        host.say(format!("  warning: {}", safe(warning)))?;
    }
    for peer in &answer.peers {
        host.say(format!("  {peer}"))?;
    }
    Ok(())
}
