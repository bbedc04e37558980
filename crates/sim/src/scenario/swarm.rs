//! Peers that want the same.

use std::time::Duration;

use crate::node::Gear;
use crate::torrent::Shape;
use crate::world::{Verdict, World};

/// One seed, twenty leeches.
pub(super) fn lone_seed(world: &mut World) -> Verdict {
    let torrent = world.some_torrent(512);
    world.seed(torrent, Gear::default());
    world.leeches(20, torrent);
    world.run_to_completion(15 * 60)?;
    world.finish()
}

/// Twelve leeches and a seed, all slow: more want than are served, so they take turns.
pub(super) fn slow_lines(world: &mut World) -> Verdict {
    // A Block that was asked for can take its time.
    world.patience = Duration::from_secs(300);
    let torrent = world.some_torrent(512);
    world.seed(torrent, Gear::default().line(10_000, 1 << 20));
    for _ in 0..12 {
        world.leech(torrent, Gear::default().line(20_000, 1 << 20));
    }
    world.run_to_completion(30 * 60)?;
    world.finish()
}

/// One seed, forty leeches that come in waves. Once the others hold all pieces, the seed leaves.
pub(super) fn flash_crowd(world: &mut World) -> Verdict {
    let torrent = world.some_torrent(256);
    let seed = world.seed(torrent, Gear::default().line(1 << 20, 1 << 20));
    for _ in 0..5 {
        world.leeches(8, torrent);
        world.run_for(4)?;
    }
    world.run_until(15 * 60, "shared by others", |world| world.unshared(torrent, seed) == 0)?;
    world.leave(seed)?;
    world.run_to_completion(30 * 60)?;
    world.finish()
}

/// Nobody can call the seed, nor some of the leeches; it must call them.
pub(super) fn natted(world: &mut World) -> Verdict {
    let torrent = world.some_torrent(512);
    world.seed(torrent, Gear::default().natted());
    for at in 0..6 {
        let gear = if at % 3 == 0 { Gear::default().natted() } else { Gear::default() };
        world.leech(torrent, gear);
    }
    world.run_to_completion(60 * 60)?;
    world.finish()
}

/// Forty torrents of one seed on one port; each of five leeches wants sixteen of them.
pub(super) fn many_torrents(world: &mut World) -> Verdict {
    let torrents: Vec<_> = (0..40).map(|_| world.torrent(&Shape::plain(70_000, 16 << 10))).collect();
    let seed = world.host(Gear::default());
    torrents.iter().for_each(|torrent| world.give(seed, *torrent));
    let leeches: Vec<_> = (0..5).map(|_| world.host(Gear::default())).collect();
    for (at, leech) in leeches.into_iter().enumerate() {
        for step in 0..16 {
            world.want(leech, torrents[(at * 8 + step) % torrents.len()]);
        }
    }
    world.run_to_completion(15 * 60)?;
    world.finish()
}
