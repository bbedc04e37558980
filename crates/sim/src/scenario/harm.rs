//! Disks, trackers and peers that do not work as they should.

use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_engine::cx::Change;
use piecemeal_metainfo::FileIndex;
use piecemeal_package::{Place, TroubleKind};

use crate::disk::Knobs;
use crate::net::HostId;
use crate::node::{Gear, Node};
use crate::peer::Manner;
use crate::torrent::Shape;
use crate::world::{Verdict, World};

/// Pieces that one liar may cost each who meets it: those it had a part in when it was found out.
const LIES: u32 = 6;

/// A peer lies: it is banned, and nobody else is, and little was lost by it.
pub(super) fn liar(world: &mut World) -> Verdict {
    world.hostile = true;
    let torrent = world.torrent(&Shape::plain(1 << 20, 32 << 10));
    let percent = [100, 100, 30][world.dice.below(3)];
    let liar = world.peer(Manner::Liar(percent), torrent);
    world.seed(torrent, Gear::default());
    let leeches = world.leeches(4, torrent);
    world.run_to_completion(15 * 60)?;
    for leech in leeches {
        let seat = world.seat(leech, torrent);
        let evil = world.addr(liar).ip();
        if let Some((addr, why)) = seat.banned.iter().find(|(addr, _)| addr.ip() != evil) {
            return Err(format!("an honest peer was banned: {addr}, {why:?}"));
        }
        // Of one Piece that several brought nobody can tell, and there may be no other to try them with.
        if percent == 100 && seat.bad > 2 && seat.banned.is_empty() {
            return Err(format!("{} bad Pieces, and the liar is not banned", seat.bad));
        }
        if seat.bad > LIES {
            return Err(format!("{} Pieces were bad before the liar was known", seat.bad));
        }
    }
    world.finish()
}

/// Peers that promise all and answer no request; an honest seed has to do.
pub(super) fn mute(world: &mut World) -> Verdict {
    let torrent = world.some_torrent(512);
    let mutes: Vec<HostId> = (0..3).map(|_| world.peer(Manner::Mute, torrent)).collect();
    // Slow enough that there is time to lose patience.
    world.seed(torrent, Gear::default().line(5_000, 1 << 20));
    let leeches = world.leeches(4, torrent);
    world.run_for(95)?;
    for leech in leeches {
        let peers = world.seat(leech, torrent).last.iter().flat_map(|last| &last.peers);
        let mute = |addr: SocketAddr| mutes.iter().any(|mute| world.addr(*mute).ip() == addr.ip());
        if peers.map(|peer| peer.addr).any(mute) {
            return Err(format!("{} did not lose patience with who is mute", world.addr(leech)));
        }
    }
    world.run_to_completion(15 * 60)?;
    world.finish()
}

/// Every kind of bad guest, calling and called.
pub(super) fn hostile(world: &mut World) -> Verdict {
    world.hostile = true;
    let torrent = world.some_torrent(512);
    let seed = world.seed(torrent, Gear::default());
    let mut hosts = world.leeches(3, torrent);
    hosts.push(seed);
    for manner in [Manner::Slowloris, Manner::Flooder, Manner::Deaf, Manner::Garbage] {
        let guest = world.peer(manner, torrent);
        for host in &hosts {
            let to = world.addr(*host);
            world.call(guest, to);
        }
    }
    world.run_to_completion(15 * 60)?;
    world.run_for(60)?;
    world.finish()
}

/// The seed's disk stands still for 30 s, and then a leech's.
pub(super) fn disk_stall(world: &mut World) -> Verdict {
    let torrent = world.some_torrent(1024);
    let knobs = Knobs::default().stall(world.after(3), world.after(33));
    world.seed(torrent, Gear::default().disk(knobs).line(400_000, 1 << 20));
    let knobs = Knobs::default().stall(world.after(35), world.after(65));
    world.leech(torrent, Gear::default().disk(knobs).bufs(32));
    let knobs = Knobs::default().stall(world.after(2), world.after(32));
    world.leech(torrent, Gear::default().disk(knobs).bufs(32));
    world.leeches(3, torrent);
    world.run_to_completion(15 * 60)?;
    world.finish()
}

/// A disk that is slower than the net, and little memory: the net has to wait, and nothing is lost.
pub(super) fn thirst(world: &mut World) -> Verdict {
    let torrent = world.some_torrent(768);
    let slow = Knobs::default().latency(Duration::from_millis(150)).rate(1 << 20);
    let fast = Gear::default().line(4 << 20, 4 << 20);
    for _ in 0..3 {
        world.seed(torrent, fast.clone());
    }
    let thirsty: Vec<HostId> =
        [4, 6, 10].into_iter().map(|bufs| world.leech(torrent, fast.clone().disk(slow).bufs(bufs))).collect();
    world.run_to_completion(15 * 60)?;
    if thirsty.iter().all(|host| world.node(*host).thirsts == 0) {
        return Err("nobody was thirsty".into());
    }
    world.finish()
}

/// A disk is full: the torrent says so; and goes on by itself once there is room.
pub(super) fn no_space(world: &mut World) -> Verdict {
    let torrent = world.some_torrent(768);
    world.seed(torrent, Gear::default());
    let poor = world.leech(torrent, Gear::default().disk(Knobs::default().space(200 << 10)));
    world.leeches(3, torrent);
    let full = |world: &World| {
        let trouble = world.seat(poor, torrent).trouble.as_ref();
        trouble.is_some_and(|trouble| trouble.kind == TroubleKind::NoSpace)
    };
    world.run_until(5 * 60, "in trouble", full)?;
    world.run_for(60)?;
    world.at(poor, |node, _| node.disk.knobs.space = u64::MAX);
    world.run_to_completion(15 * 60)?;
    if world.seat(poor, torrent).trouble.is_some() {
        return Err("complete, and still in trouble".into());
    }
    world.finish()
}

/// Somebody deletes the files of one of two seeds. It gives what it can, fetches the rest again, and never takes the
/// holes of a file that grows anew for content.
pub(super) fn lost_file(world: &mut World) -> Verdict {
    let torrent = world.torrent(&Shape::plain(1 << 20, 32 << 10));
    let poor = world.seed(torrent, Gear::default().line(1 << 20, 4 << 20));
    world.seed(torrent, Gear::default().line(1 << 20, 1 << 20));
    if world.dice.percent(50) {
        world.leeches(2, torrent);
    }
    let seconds = world.dice.pick(1..5) as u64;
    world.run_for(seconds)?;
    world.at(poor, |node, _| {
        node.seats.values_mut().for_each(|seat| seat.tainted = true);
        node.disk.lose_file(torrent, Place::File(FileIndex(0)));
    });
    for _ in 0..2 {
        // So slow that there is time to fetch what was lost between two requests.
        world.leech(torrent, Gear::default().line(1 << 20, 60_000));
    }
    let others = |world: &World| {
        let others = world.nodes().filter(|node| node.id != poor);
        others.flat_map(|node| node.seats.values()).all(|seat| seat.complete)
    };
    world.run_until(30 * 60, "complete but for one", others)?;
    world.finish()
}

/// The tracker is dead when leeches come, returns, dies and returns.
pub(super) fn tracker_dies(world: &mut World) -> Verdict {
    let torrent = world.some_torrent(256);
    let hash = world.content(torrent).hash();
    world.seed(torrent, Gear::default());
    world.run_for(10)?;
    world.tracker().alive = false;
    world.leeches(5, torrent);
    world.run_for(5 * 60)?;
    world.tracker().alive = true;
    world.run_to_completion(60 * 60)?;
    world.tracker().alive = false;
    world.run_for(40 * 60)?;
    world.tracker().alive = true;
    world.run_for(60 * 60)?;
    let known = world.tracker().knows(hash);
    if known != 6 {
        return Err(format!("the tracker is back for an hour, and only {known} of 6 told it"));
    }
    world.finish()?;
    match world.tracker().knows(hash) {
        0 => Ok(()),
        left => Err(format!("{left} did not say farewell to the tracker")),
    }
}

/// Leeches die at any time, some by a power cut, and go on with what was last known of their content.
pub(super) fn crash(world: &mut World) -> Verdict {
    let torrent = world.some_torrent(1024);
    world.seed(torrent, Gear::default().line(400_000, 1 << 20));
    let leeches = world.leeches(4, torrent);
    for _ in 0..6 {
        let seconds = world.dice.pick(1..8) as u64;
        world.run_for(seconds)?;
        let victim = leeches[world.dice.below(leeches.len())];
        if world.dice.percent(60) {
            world.at(victim, |node, net| node.change(net, torrent, Change::Save));
            pass_some_time(world)?;
        }
        let power = world.dice.percent(50);
        world.at(victim, |node, net| if power { node.power_cut(net) } else { Node::kill(node, net) });
        pass_some_time(world)?;
        world.restart(victim);
    }
    world.run_to_completion(60 * 60)?;
    leave_and_return(world, leeches[0])?;
    world.finish()
}

/// Who left in good order has all when it comes back, without a look at its content.
fn leave_and_return(world: &mut World, host: HostId) -> Verdict {
    world.leave(host)?;
    world.restart(host);
    let before = world.events();
    world.run_to_completion(10)?;
    match world.node(host).seats.values().map(|seat| seat.verified).sum() {
        0 => Ok(()),
        pieces => Err(format!("{pieces} Pieces were verified again without cause, from event {before}")),
    }
}

fn pass_some_time(world: &mut World) -> Verdict {
    let seconds = world.dice.below(4) as u64;
    world.run_for(seconds)
}
