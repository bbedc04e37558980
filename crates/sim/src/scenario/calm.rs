//! Limits, sleep, and doing nothing.

use std::time::Duration;

use piecemeal_engine::cx::Options;

use crate::net::HostId;
use crate::node::Gear;
use crate::torrent::Shape;
use crate::world::{Verdict, World};

/// Seconds over which a rate must be exact.
const SPAN: u64 = 10;
/// How exact, in hundredths.
const PERCENT: u64 = 5;

/// A limit of the host or of the torrent, down or up, while others could do ten times as much.
pub(super) fn limits(world: &mut World) -> Verdict {
    // Links that could carry far more.
    world.net.weather.latency = (Duration::from_millis(2), Duration::from_millis(40));
    world.net.weather.window = (128 << 10, 256 << 10);
    let rate = [128 << 10, 200_000, 256 << 10, 400_000][world.dice.below(4)];
    let torrent = world.torrent(&Shape::plain(rate * (SPAN + 8), 64 << 10));
    let fast = || Gear::default().line(8 << 20, 8 << 20);
    let (down, whole) = (world.dice.percent(50), world.dice.percent(50));
    let limited = match (down, whole) {
        (true, true) => fast().limits(rate, 0),
        (false, true) => fast().limits(0, rate),
        (true, false) => fast().options(Options { down_limit: rate, ..Options::default() }),
        (false, false) => fast().options(Options { up_limit: rate, ..Options::default() }),
    };
    // What is measured is what the givers send.
    let givers: Vec<HostId> = if down {
        world.leech(torrent, limited);
        (0..3).map(|_| world.seed(torrent, fast())).collect()
    } else {
        for _ in 0..3 {
            world.leech(torrent, fast());
        }
        vec![world.seed(torrent, limited)]
    };
    let given = |world: &World| givers.iter().map(|giver| world.node(*giver).content_out).sum::<u64>();
    for _ in 0..60 {
        world.run_for(1)?;
        if given(world) > 0 {
            break;
        }
    }
    world.run_for(3)?;
    let before = given(world);
    world.run_for(SPAN)?;
    let (got, want) = (given(world) - before, rate * SPAN);
    if got.abs_diff(want) > want * PERCENT / 100 {
        let whose = if whole { "host" } else { "torrent" };
        let way = if down { "download" } else { "upload" };
        return Err(format!("{way} limit of the {whose}: {got} bytes in {SPAN} s instead of {want}"));
    }
    world.run_to_completion(10 * 60)?;
    world.finish()
}

/// The seed, and then a leech, sleep for ten minutes, and all clocks go on meanwhile.
pub(super) fn suspend(world: &mut World) -> Verdict {
    let torrent = world.some_torrent(1024);
    let seed = world.seed(torrent, Gear::default().line(300_000, 1 << 20));
    let leeches = world.leeches(3, torrent);
    let seconds = world.dice.pick(1..6) as u64;
    world.run_for(seconds)?;
    world.suspend(seed, 600);
    world.run_for(620)?;
    world.suspend(leeches[0], 600);
    world.run_for(600)?;
    world.run_to_completion(60 * 60)?;
    world.finish()
}

/// A seed that nobody wants, a paused torrent, and a host without torrents, for an hour.
pub(super) fn idle(world: &mut World) -> Verdict {
    let torrent = world.some_torrent(256);
    let seed = world.seed(torrent, Gear::default());
    let paused =
        world.leech(torrent, Gear::default().options(Options { paused: true, ..Options::default() }));
    let empty = world.host(Gear::default());
    world.run_for(60)?;
    let before: Vec<u64> = [seed, paused, empty].iter().map(|host| world.node(*host).beats.all).collect();
    world.run_for(60 * 60)?;
    let hosts = [(seed, 2 * 60 * 60), (paused, 60), (empty, 60)];
    for ((host, most), before) in hosts.into_iter().zip(before) {
        let beats = world.node(host).beats.all - before;
        if beats > most {
            return Err(format!("{} beat {beats} times in an hour of nothing", world.addr(host)));
        }
    }
    world.finish()
}
