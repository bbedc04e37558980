//! Every road to a peer: TCP and uTP, encrypted or not, with every other client and in both directions.
//!
//! What each side accepts is narrowed to the road under test, so that a case that ends has taken it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::content::{Content, NAME, Shape, link, same};
use super::makers::{Maker, Order};
use super::net::Net;
use super::peers::{Carrier, Client, Encryption, Road, Task, Ways};
use super::{Case, Stage};

/// Each is a few seconds' work; Transmission may first wait for its next pulse, and a peer that tries a closed road
/// first comes back after its pause: a minute, more than once.
const LIMIT: Duration = Duration::from_secs(180);
/// Bytes a piece.
const PIECE_LENGTH: u64 = 64 << 10;

/// All of them.
pub fn cases() -> Vec<Case> {
    use Carrier::{Tcp, Utp};
    use Encryption::{Off, Prefer, Require};
    let mut cases = Vec::new();
    let mut add = |other: Client, ours: Road, theirs: Road| {
        let pairs = [(Client::Piecemeal, other), (other, Client::Piecemeal)];
        let once = if other == Client::Piecemeal { 1 } else { 2 };
        for (seed, leech) in pairs.into_iter().take(once) {
            let [carrier, us, them] =
                [theirs.carrier.name(), ours.encryption.name(), theirs.encryption.name()];
            let name = format!("roads/{carrier}/{}->{}/ours-{us}-theirs-{them}", seed.name(), leech.name());
            let pieces = 60 + cases.len() as u64;
            cases.push(Case::new(name, move |stage| swap(stage, seed, leech, ours, theirs, pieces)));
        }
    };
    for carrier in [Tcp, Utp] {
        let road = |encryption| Road { carrier, encryption };
        for other in [Client::Libtorrent, Client::Transmission, Client::Aria2, Client::Piecemeal] {
            if other == Client::Aria2 && carrier == Utp {
                continue;
            }
            let table =
                [(Prefer, Off), (Prefer, Prefer), (Prefer, Require), (Require, Prefer), (Off, Prefer)];
            for (ours, theirs) in table {
                add(other, road(ours), road(theirs));
            }
        }
    }
    cases
}

fn swap(
    stage: &Stage<'_>,
    seed: Client,
    leech: Client,
    ours: Road,
    theirs: Road,
    pieces: u64,
) -> Result<String> {
    if stage.net == Net::Loopback {
        return Ok("left out: it wants hosts with addresses of their own".to_owned());
    }
    if let Some(why) = [seed, leech].iter().find_map(|client| client.missing()) {
        bail!("{why}; run .ci/install");
    }
    let content = Content { shape: Shape::One, piece_length: PIECE_LENGTH, pieces };
    let (seed_dir, leech_dir) = (stage.dir.join("seed"), stage.dir.join("leech"));
    link(&stage.content(&content)?, &seed_dir)?;
    let torrent = stage.dir.join("x.torrent");
    let order = Order {
        content: &seed_dir.join(NAME),
        out: &torrent,
        piece_length: PIECE_LENGTH,
        format: "v1",
        tracker: Some(&stage.tracker.url()),
    };
    Maker::Piecemeal.make(stage.binary, stage.dir, &order)?;
    let states = [stage.dir.join("seed.state"), stage.dir.join("leech.state")];
    let task = |index: u16, dir, state| Task {
        host: stage.host(index),
        torrent: &torrent,
        dir,
        state,
        peers: &[],
        up_limit: 0,
        once: false,
    };
    // Of two of ours, the seed is the other one.
    let road = |client, is_seed| {
        if client == Client::Piecemeal && !(is_seed && leech == client) { ours } else { theirs }
    };
    let ways = |client, is_seed| Ways { road: road(client, is_seed), ..Ways::default() };
    let giver = seed.start(stage.binary, &task(0, &seed_dir, &states[0]), true, &ways(seed, true))?;
    stage.tracker.wait_for(stage.host(0).peer(), LIMIT)?;
    let began = Instant::now();
    let mut taker =
        leech.start(stage.binary, &task(1, &leech_dir, &states[1]), false, &ways(leech, false))?;
    taker.finish(LIMIT)?;
    let took = began.elapsed();
    taker.leave()?;
    drop(giver);
    same(&seed_dir, &leech_dir)?;
    Ok(format!("{:.1} s to swap", took.as_secs_f64()))
}
