//! Two clients, one torrent: every kind of content from every client to ours and back.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use piecemeal_metainfo::InfoHash;

use super::content::{Content, NAME, Shape, link, same, same_but_empty};
use super::makers::{Maker, Order};
use super::net::{Host, Net};
use super::peers::{Client, OTHERS, Task, ours};
use super::{Case, Stage};
use crate::run::Running;

/// Each is a few seconds' work; Transmission may first wait for its next pulse.
const LIMIT: Duration = Duration::from_secs(60);
/// Piece lengths, and how many whole pieces stand before the last byte of one file and of many.
const PIECES: [(u64, u64, u64); 3] = [(16 << 10, 256, 256), (1 << 20, 12, 8), (16 << 20, 3, 2)];

/// How the leech finds the seed.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Found {
    /// By the plain tracker of this program.
    PlainTracker,
    /// By ours.
    OurTracker,
    /// It is told.
    Told,
}

/// One way to swap.
#[derive(Clone, Copy, Debug)]
struct Swap {
    seed: Client,
    leech: Client,
    content: Content,
    maker: Maker,
    found: Found,
}

/// All content that is swapped.
pub fn contents() -> Vec<Content> {
    let of = |shape, piece_length, pieces| Content { shape, piece_length, pieces };
    PIECES
        .iter()
        .flat_map(|&(length, one, many)| [of(Shape::One, length, one), of(Shape::Many, length, many)])
        .collect()
}

/// Every other client with ours, in both directions.
pub fn cases() -> Vec<Case> {
    let pairs: Vec<_> =
        OTHERS.iter().flat_map(|other| [(*other, Client::Piecemeal), (Client::Piecemeal, *other)]).collect();
    of_pairs("matrix", &pairs, true)
}

/// The other clients among themselves: proof that a failure of the matrix is ours and not this program's.
pub fn others() -> Vec<Case> {
    let pairs = [
        (Client::Libtorrent, Client::Aria2),
        (Client::Aria2, Client::Transmission),
        (Client::Transmission, Client::Libtorrent),
        (Client::Libtorrent, Client::Libtorrent),
    ];
    of_pairs("others", &pairs, false)
}

fn of_pairs(group: &str, pairs: &[(Client, Client)], with_ours: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for (row, &(seed, leech)) in pairs.iter().enumerate() {
        for (column, content) in contents().into_iter().enumerate() {
            // Diagonals: makers and ways of finding change with the row, so that each meets each client.
            let maker = maker(row + column, content.piece_length, with_ours);
            let found = found(row / 2 + column, leech, with_ours);
            let swap = Swap { seed, leech, content, maker, found };
            let name = format!("{group}/{}->{}/{}", seed.name(), leech.name(), content.name());
            cases.push(Case::new(name, move |stage| swap.run(stage)));
        }
    }
    cases
}

fn maker(diagonal: usize, piece_length: u64, with_ours: bool) -> Maker {
    let makers = [Maker::Libtorrent, Maker::Piecemeal, Maker::Mktorrent, Maker::Transmission];
    match makers[diagonal % 4] {
        // mktorrent begins at 32 KiB.
        Maker::Mktorrent if piece_length < 32 << 10 => Maker::Transmission,
        Maker::Piecemeal if !with_ours => Maker::Libtorrent,
        maker => maker,
    }
}

fn found(diagonal: usize, leech: Client, with_ours: bool) -> Found {
    match diagonal % 3 {
        1 if with_ours => Found::OurTracker,
        2 if leech.dials() => Found::Told,
        _ => Found::PlainTracker,
    }
}

impl Swap {
    fn run(&self, stage: &Stage<'_>) -> Result<String> {
        for client in [self.seed, self.leech] {
            if client == Client::Transmission && stage.net == Net::Loopback {
                return Ok("left out: Transmission refuses 127.0.0.0/8".to_owned());
            }
            if let Some(why) = client.missing() {
                bail!("{why}; run .ci/install");
            }
        }
        let (seed_dir, leech_dir) = (stage.dir.join("seed"), stage.dir.join("leech"));
        link(&stage.content(&self.content)?, &seed_dir)?;
        let (_tracker, url) = self.tracker(stage)?;
        let torrent = stage.dir.join("x.torrent");
        let hash = self.torrent(stage, &seed_dir, &torrent, url.as_deref())?;
        let (seed_state, leech_state) = (stage.dir.join("seed.state"), stage.dir.join("leech.state"));
        let task = |index, dir, state, peers| Task {
            host: stage.host(index),
            torrent: &torrent,
            dir,
            state,
            peers,
            up_limit: 0,
            once: false,
        };
        let seed = self.seed.seed(stage.binary, &task(0, &seed_dir, &seed_state, &[]))?;
        self.wait_until_known(stage, url.as_deref(), hash)?;
        let began = Instant::now();
        let told = if self.found == Found::Told { vec![stage.host(0).peer()] } else { Vec::new() };
        let mut leech = self.leech.leech(stage.binary, &task(1, &leech_dir, &leech_state, &told))?;
        leech.finish(LIMIT)?;
        let took = began.elapsed();
        leech.leave()?;
        drop(seed);
        // transmission-create leaves empty files out, and Transmission does not create them.
        if self.maker == Maker::Transmission || self.leech == Client::Transmission {
            same_but_empty(&seed_dir, &leech_dir)?;
        } else {
            same(&seed_dir, &leech_dir)?;
        }
        let by = match self.found {
            Found::PlainTracker => "plain tracker",
            Found::OurTracker => "our tracker",
            Found::Told => "told",
        };
        Ok(format!("{:.1} s to swap, torrent by {}, {by}", took.as_secs_f64(), self.maker.name()))
    }

    fn tracker(&self, stage: &Stage<'_>) -> Result<(Option<Running>, Option<String>)> {
        match self.found {
            Found::Told => Ok((None, None)),
            Found::PlainTracker => Ok((None, Some(stage.tracker.url()))),
            Found::OurTracker => {
                let (running, url) = our_tracker(stage, 2)?;
                Ok((Some(running), Some(url)))
            }
        }
    }

    fn torrent(&self, stage: &Stage<'_>, dir: &Path, out: &Path, url: Option<&str>) -> Result<InfoHash> {
        let order = Order {
            content: &dir.join(NAME),
            out,
            piece_length: self.content.piece_length,
            format: "v1",
            tracker: url,
        };
        let metainfo = self.maker.make(stage.binary, stage.dir, &order)?;
        let info = metainfo.info();
        if info.content_length != self.content.size()
            || u64::from(info.piece_count) != self.content.pieces + 1
        {
            bail!("{}: {} pieces of {} bytes", self.maker.name(), info.piece_count, info.content_length);
        }
        Ok(metainfo.wire_hash())
    }

    /// A leech that asks before the seed is known would ask again only after the tracker's interval.
    fn wait_until_known(&self, stage: &Stage<'_>, url: Option<&str>, hash: InfoHash) -> Result<()> {
        match (self.found, url) {
            (Found::PlainTracker, _) => stage.tracker.wait_for(stage.host(0).peer(), LIMIT),
            (Found::OurTracker, Some(url)) => stage.wait_for_seed(url, hash, LIMIT),
            _ => stage.wait_for_port(stage.host(0).peer(), LIMIT),
        }
    }
}

/// Our tracker on a host of the stage, and its announce URL.
pub fn our_tracker(stage: &Stage<'_>, host: u16) -> Result<(Running, String)> {
    our_tracker_at(stage, stage.host(host))
}

/// The same on any host.
pub fn our_tracker_at(stage: &Stage<'_>, host: &Host) -> Result<(Running, String)> {
    let mut command = ours(host.command(stage.binary), stage.dir);
    command.arg("tracker").arg(format!("--listen={}", host.tracker()));
    let mut running = Running::start("our tracker", command, &stage.dir.join("tracker.log"))?;
    let url = running.line(Duration::from_secs(10), |line| line.starts_with("http://"))?;
    Ok((running, url))
}
