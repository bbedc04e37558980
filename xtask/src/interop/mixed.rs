//! A mixed swarm: one seed of theirs, leeches of everybody, and ours give to one another.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::content::{Content, NAME, Shape, same};
use super::makers::{Maker, Order};
use super::matrix::our_tracker;
use super::net::Net;
use super::peers::{Client, OTHERS, Peer, Task};
use super::{Case, Stage};

/// Ours in the swarm.
const OURS: usize = 5;
/// What the seed sends at most, bytes per second: less than all would take, so that they must share.
const SEED_LIMIT: u64 = 6 << 20;
/// 64 MiB at that rate and the others' ten-second unchoke rounds, with room for a busy machine.
const LIMIT: Duration = Duration::from_secs(150);
/// What must come from leeches: below, ours only wait for the seed.
const LEAST_SHARE: f64 = 0.2;

/// The one case.
pub fn cases() -> Vec<Case> {
    vec![Case::alone("mixed/1-seed-8-leeches", swarm)]
}

fn swarm(stage: &Stage<'_>) -> Result<String> {
    if let Some(why) = OTHERS.iter().find_map(|client| client.missing()) {
        bail!("{why}; run .ci/install");
    }
    let content = Content { shape: Shape::One, piece_length: 256 << 10, pieces: 256 };
    let dir = stage.content(&content)?;
    let (_tracker, url) = our_tracker(stage, 0)?;
    let torrent = stage.dir.join("x.torrent");
    let order = Order {
        content: &dir.join(NAME),
        out: &torrent,
        piece_length: content.piece_length,
        format: "v1",
        tracker: Some(&url),
    };
    let hash = Maker::Piecemeal.make(stage.binary, stage.dir, &order)?.wire_hash();
    let seed_state = stage.dir.join("seed.state");
    let seed = Task {
        host: stage.host(1),
        torrent: &torrent,
        dir: &dir,
        state: &seed_state,
        peers: &[],
        up_limit: SEED_LIMIT,
        once: false,
    };
    let _seed = Client::Libtorrent.seed(stage.binary, &seed)?;
    stage.wait_for_seed(&url, hash, Duration::from_secs(20))?;
    let began = Instant::now();
    let mut leeches = start(stage, &torrent)?;
    let finished = finish(&mut leeches, began)?;
    judge(leeches, &dir, &finished)
}

/// A leech: who, its process, and where its content goes.
type Leech = (Client, Peer, PathBuf);

fn start(stage: &Stage<'_>, torrent: &Path) -> Result<Vec<Leech>> {
    // Transmission refuses 127.0.0.0/8.
    let others =
        OTHERS.into_iter().filter(|client| *client != Client::Transmission || stage.net == Net::Hosts);
    let clients = [Client::Piecemeal; OURS].into_iter().chain(others);
    let mut leeches = Vec::new();
    for (host, client) in (2..).zip(clients) {
        let dir = stage.dir.join(format!("leech{host}"));
        let state = stage.dir.join(format!("leech{host}.state"));
        let task = Task {
            host: stage.host(host),
            torrent,
            dir: &dir,
            state: &state,
            peers: &[],
            up_limit: 0,
            once: false,
        };
        leeches.push((client, client.leech(stage.binary, &task)?, dir));
    }
    Ok(leeches)
}

/// When each was done, in seconds.
fn finish(leeches: &mut [Leech], began: Instant) -> Result<Vec<f64>> {
    let mut finished = vec![None; leeches.len()];
    while finished.iter().any(Option::is_none) {
        for (at, (_, peer, _)) in finished.iter_mut().zip(leeches.iter_mut()) {
            if at.is_none() && peer.done()? {
                *at = Some(began.elapsed().as_secs_f64());
            }
        }
        if began.elapsed() > LIMIT {
            let late: Vec<_> = leeches
                .iter()
                .zip(&finished)
                .filter(|(_, at)| at.is_none())
                .map(|(leech, _)| leech.0.name())
                .collect();
            bail!("not done after {} s: {}", LIMIT.as_secs(), late.join(", "));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(finished.into_iter().flatten().collect())
}

fn judge(leeches: Vec<Leech>, content: &Path, finished: &[f64]) -> Result<String> {
    let (mut bytes, mut from_leeches) = (0, 0);
    let mut times = Vec::new();
    for ((client, peer, dir), at) in leeches.into_iter().zip(finished) {
        times.push(format!("{} {at:.1}", client.name()));
        let lines = peer.running.lines();
        peer.leave()?;
        same(content, &dir).with_context(|| client.name())?;
        if client == Client::Piecemeal {
            let totals = totals(&lines).context("no snapshot in the events of `get --json`")?;
            bytes += totals.0;
            from_leeches += totals.1;
        }
    }
    let share = from_leeches as f64 / bytes as f64;
    let note = format!(
        "{:.0} % of our bytes came from leeches; done after (s): {}",
        share * 100.0,
        times.join(", ")
    );
    if share < LEAST_SHARE { bail!("{note}") } else { Ok(note) }
}

/// Bytes downloaded, and those of them from leeches, by the last snapshot.
fn totals(lines: &[String]) -> Option<(u64, u64)> {
    lines.iter().rev().find_map(|line| {
        let event: Value = serde_json::from_str(line).ok()?;
        let totals = &event["status"]["totals"];
        Some((totals["downloaded"].as_u64()?, totals["from_leeches"].as_u64()?))
    })
}
