//! Magnet links between two clients: the description comes from the other side, then the content.
//!
//! How clients find each other without trackers is `finding`'s. Here one is told of the other, or the link names the
//! plain tracker.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use piecemeal_metainfo::Metainfo;

use super::cli::ask;
use super::content::{Content, NAME, Shape, same};
use super::makers::{Maker, Order};
use super::net::Net;
use super::peers::{Client, OTHERS, Peer, Task};
use super::{Case, Stage};

/// Some seconds' work; Transmission may first wait for its next pulse.
const LIMIT: Duration = Duration::from_secs(60);
/// 50 KB of hashes: four parts of a description.
const CONTENT: Content = Content { shape: Shape::One, piece_length: 16 << 10, pieces: 2500 };

/// Both directions with everybody, and what `show` and `create` make of a link.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for other in OTHERS {
        for (seed, leech) in [(other, Client::Piecemeal), (Client::Piecemeal, other)] {
            for told in [false, true] {
                // Only who dials can be told, and only libtorrent gains a case by it.
                if told && other != Client::Libtorrent {
                    continue;
                }
                let way = if told { "told" } else { "tracker" };
                let name = format!("magnet/{}->{}/{way}", seed.name(), leech.name());
                cases.push(Case::new(name, move |stage| swap(stage, seed, leech, told)));
            }
        }
    }
    cases.push(Case::new("magnet/show-and-create", show_and_create));
    cases
}

/// A torrent with or without the plain tracker, and where its content is.
fn torrent(stage: &Stage<'_>, tracker: Option<&str>) -> Result<(Metainfo, PathBuf, PathBuf)> {
    let (dir, torrent) = (stage.content(&CONTENT)?, stage.dir.join("x.torrent"));
    let order = Order {
        content: &dir.join(NAME),
        out: &torrent,
        piece_length: CONTENT.piece_length,
        format: "v1",
        tracker,
    };
    Ok((Maker::Libtorrent.make(stage.binary, stage.dir, &order)?, torrent, dir))
}

fn seed(stage: &Stage<'_>, client: Client, torrent: &Path, dir: &Path) -> Result<Peer> {
    let state = stage.dir.join("seed.state");
    let (host, peers) = (stage.host(0), &[]);
    client.seed(stage.binary, &Task { host, torrent, dir, state: &state, peers, up_limit: 0, once: false })
}

fn swap(stage: &Stage<'_>, from: Client, to: Client, told: bool) -> Result<String> {
    for client in [from, to] {
        if client == Client::Transmission && stage.net == Net::Loopback {
            return Ok("left out: Transmission refuses 127.0.0.0/8".to_owned());
        }
        if let Some(why) = client.missing() {
            bail!("{why}; run .ci/install");
        }
    }
    let url = stage.tracker.url();
    let (metainfo, file, dir) = torrent(stage, (!told).then_some(url.as_str()))?;
    let _seed = seed(stage, from, &file, &dir)?;
    if told {
        stage.wait_for_port(stage.host(0).peer(), LIMIT)?;
    } else {
        stage.tracker.wait_for(stage.host(0).peer(), LIMIT)?;
    }
    let began = Instant::now();
    let (state, target) = (stage.dir.join("leech.state"), stage.dir.join("leech"));
    let peers: Vec<_> = told.then(|| stage.host(0).peer()).into_iter().collect();
    let magnet = PathBuf::from(metainfo.magnet());
    let task = Task {
        host: stage.host(1),
        torrent: &magnet,
        dir: &target,
        state: &state,
        peers: &peers,
        up_limit: 0,
        once: false,
    };
    let mut leech = to.leech(stage.binary, &task)?;
    leech.finish(LIMIT)?;
    let took = began.elapsed();
    leech.leave()?;
    same(&dir, &target)?;
    Ok(format!("{:.1} s, description and content", took.as_secs_f64()))
}

/// The .torrent that comes of a link has the very description that it was made of.
fn show_and_create(stage: &Stage<'_>) -> Result<String> {
    if let Some(why) = Client::Libtorrent.missing() {
        bail!("{why}; run .ci/install");
    }
    let (metainfo, file, dir) = torrent(stage, None)?;
    let _seed = seed(stage, Client::Libtorrent, &file, &dir)?;
    let peer = format!("--peer={}", stage.host(0).peer());
    let listen = format!("--listen={}", stage.host(0).control());
    let alone = ["--no-dht", "--no-lsd", &peer, &listen];
    let magnet = metainfo.magnet();
    let shown = ask(stage, &[&["show", "--json", &magnet], &alone[..]].concat(), LIMIT)?;
    let shown = shown.expect(0, "show")?.json()?;
    if shown["pieces"].as_u64() != Some(CONTENT.pieces + 1) {
        bail!("show: not the torrent: {shown:.200}");
    }
    let from = format!("--from={magnet}");
    let saved = stage.dir.join("saved.torrent");
    let name = saved.to_string_lossy();
    ask(stage, &[&["create", &from, "-o", &name], &alone[..]].concat(), LIMIT)?.expect(0, "create")?;
    let saved = std::fs::read(&saved).context("the saved torrent")?;
    let saved = Metainfo::parse(&saved).context("the saved torrent")?;
    if saved.raw_info() != metainfo.raw_info() {
        bail!("create: another description than it was made of");
    }
    // Nobody knows this one.
    let nobody = format!("magnet:?xt=urn:btih:{}", "a".repeat(40));
    let late = ask(stage, &[&["show", "--timeout=1s", &nobody], &alone[..]].concat(), LIMIT)?;
    let late = late.expect(1, "show of an unknown torrent")?;
    if !late.err.contains("no peer gave") {
        bail!("show: does not say why not: {}", late.err.trim());
    }
    Ok(format!("{} bytes of description", metainfo.raw_info().len()))
}
