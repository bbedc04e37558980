//! `piecemeal peers`: what each tracker of a torrent answers.

use std::time::Duration;

use piecemeal_api::{AnnounceRequest, Tools, TrackerAnswer};

use crate::args::Peers;
use crate::fail::Failure;
use crate::get::net_options;
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
    let (metainfo, scrape, net) = (torrent.bytes.clone(), args.scrape, net_options(&args.ways));
    let request = AnnounceRequest { metainfo, wait_s: WAIT_S, num_want: NUM_WANT, scrape, net };
    let answers = tools.announce_all(&request, stop.cancel())?;
    for answer in &answers {
        if args.json { host.say_json(answer)? } else { print(answer, args.scrape, host)? }
    }
    if answers.iter().any(|answer| answer.error.is_none()) {
        return Ok(());
    }
    Err(Failure::failed(args.torrent.display(), "no tracker answered", "see above why; try again later"))
}

fn print(answer: &TrackerAnswer, scrape: bool, host: &mut Host) -> Result<(), Failure> {
    host.say(line(answer, scrape))?;
    if let Some(warning) = &answer.warning {
        host.say(format!("  warning: {}", safe(warning)))?;
    }
    for peer in &answer.peers {
        host.say(format!("  {peer}"))?;
    }
    Ok(())
}

/// `udp://t:1/announce: 2 peers, 3 seeds known, 1 leech known, asks again every 30 min 0 s`
fn line(answer: &TrackerAnswer, scrape: bool) -> String {
    let url = safe(&answer.url);
    if let Some(error) = &answer.error {
        return format!("{url}: {}", safe(error));
    }
    let mut facts = Vec::new();
    if !scrape {
        facts.push(count(answer.peers.len() as u64, "peer"));
    }
    if let Some(seeds) = answer.seeds {
        facts.push(format!("{} known", count(u64::from(seeds), "seed")));
    }
    if let Some(leeches) = answer.leeches {
        let noun = if leeches == 1 { "leech" } else { "leeches" };
        facts.push(format!("{leeches} {noun} known"));
    }
    if let Some(downloads) = answer.downloads {
        facts.push(count(u64::from(downloads), "download"));
    }
    if let Some(interval) = answer.interval_s {
        facts.push(format!("asks again every {}", span(Duration::from_secs(u64::from(interval)))));
    }
    format!("{url}: {}", facts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_a_line() {
        let answer = TrackerAnswer {
            url: "udp://t:1/announce".into(),
            peers: vec!["1.2.3.4:5".parse().unwrap()],
            interval_s: Some(1_800),
            seeds: Some(1),
            leeches: Some(2),
            downloads: None,
            warning: None,
            error: None,
        };
        let told = "udp://t:1/announce: 1 peer, 1 seed known, 2 leeches known, asks again every 30 min 0 s";
        assert_eq!(line(&answer, false), told);
        let scraped =
            TrackerAnswer { peers: vec![], interval_s: None, downloads: Some(50), ..answer.clone() };
        assert_eq!(line(&scraped, true), "udp://t:1/announce: 1 seed known, 2 leeches known, 50 downloads");
        let failed = TrackerAnswer { error: Some("no\u{1b}[2J".into()), ..answer };
        assert!(!line(&failed, true).contains('\u{1b}'));
    }
}
