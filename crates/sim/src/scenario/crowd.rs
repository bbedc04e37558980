//! Which connections there are.

use std::net::SocketAddr;

use piecemeal_engine::cx::{PeerSnapshot, Settings};

use crate::net::HostId;
use crate::node::Gear;
use crate::peer::Manner;
use crate::torrent::Shape;
use crate::world::{Verdict, World};

/// Seconds after which hosts that call each other have settled. Who would have to be called again, for both ended what the
/// other kept, is not called before a minute has passed.
const SETTLED: u64 = 20;
/// Places of one who has few.
const PLACES: usize = 4;
/// So many places may be free for so long, while who left is being replaced: a dial may take as long.
const REPLACED: u64 = 20;

/// Hosts that want the same hear of each other at about the same moment, and all call: each two have one connection, and keep
/// it until none wants anything more.
pub(super) fn mutual(world: &mut World) -> Verdict {
    let torrent = world.some_torrent(64);
    let count = world.dice.pick(2..6);
    let hosts: Vec<HostId> = (0..count).map(|_| world.host(Gear::default())).collect();
    let hash = world.content(torrent).hash();
    for host in &hosts {
        let addr = world.addr(*host);
        world.tracker().add(hash, addr);
    }
    hosts.iter().for_each(|host| world.want(*host, torrent));
    world.run_for(SETTLED)?;
    let seen = |world: &World, host: HostId| -> Vec<(SocketAddr, bool)> {
        let last = world.seat(host, torrent).last.as_ref();
        let peer = |peer: &PeerSnapshot| (peer.addr, peer.outgoing);
        last.map_or(Vec::new(), |last| last.peers.iter().map(peer).collect())
    };
    let settled: Vec<_> = hosts.iter().map(|host| seen(world, *host)).collect();
    for (host, peers) in hosts.iter().zip(&settled) {
        if peers.len() != count - 1 {
            return Err(format!(
                "{} has {} connections with {} others",
                world.addr(*host),
                peers.len(),
                count - 1
            ));
        }
    }
    for _ in 0..100 {
        world.run_for(1)?;
        for (host, before) in hosts.iter().zip(&settled) {
            let now = seen(world, *host);
            if now != *before {
                return Err(format!("{}: {before:?} became {now:?}", world.addr(*host)));
            }
        }
    }
    world.seed(torrent, Gear::default());
    world.run_to_completion(15 * 60)?;
    // Seeds have nothing for each other: they part. One that did not hear of the other's last piece before calls it
    // again after a minute, and once.
    for wait in [30, 5 * 60, 30 * 60] {
        world.run_for(wait)?;
        if let Some(host) = hosts.iter().find(|host| !seen(world, **host).is_empty()) {
            return Err(format!(
                "{} is a seed among seeds, and has {:?}",
                world.addr(*host),
                seen(world, *host)
            ));
        }
    }
    world.finish()
}

/// All places of a leech, or of its torrent, are taken by peers that have all and never let it ask. In time it meets the
/// two that do, and its places stay taken all the while.
pub(super) fn turnover(world: &mut World) -> Verdict {
    let torrent = world.torrent(&Shape::plain(512 << 10, 32 << 10));
    for _ in 0..10 {
        world.peer(Manner::Miser, torrent);
    }
    let few = Settings::default();
    let settings = match world.dice.percent(50) {
        true => Settings { max_conns_per_torrent: PLACES, ..few },
        false => Settings { max_conns: PLACES, ..few },
    };
    let leech = world.leech(torrent, Gear { settings, ..Gear::default() });
    world.run_for(60)?;
    // The tracker will tell of them.
    for _ in 0..2 {
        world.peer(Manner::Honest, torrent);
    }
    let mut short = 0;
    for _ in 0..4 * 60 * 60 {
        world.run_for(1)?;
        if world.all_complete() {
            return world.finish();
        }
        let peers = world.seat(leech, torrent).last.as_ref().map_or(0, |last| last.peers.len());
        short = if peers < PLACES { short + 1 } else { 0 };
        if peers + 1 < PLACES || short > REPLACED {
            return Err(format!("{peers} peers for {short} s, where there are places for {PLACES}"));
        }
    }
    Err(format!("the givers were never met: {}", world.standing()))
}
