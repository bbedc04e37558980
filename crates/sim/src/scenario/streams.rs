//! Swarms that speak uTP alone (BEP 29), on all kinds of paths.
//!
//! What is read of a stream is compared with what was written by the network, byte by byte; here the paths are drawn, and
//! what the streams counted is compared with what the network saw.

use std::time::Duration;

use piecemeal_engine::cx::Settings;
use piecemeal_metainfo::TorrentId;
use piecemeal_transport::utp::Counters;

use crate::dice::Dice;
use crate::disk::Knobs;
use crate::net::{HostId, Passed};
use crate::node::{Clock, Gear, Node};
use crate::world::{Verdict, World};

/// Bytes of the largest datagram that passes every path (RFC 1122), without headers.
const LEAST_MTU: usize = 548;
/// Bytes of the largest datagram that Ethernet carries, without headers.
const MOST_MTU: usize = 1472;
/// How near the search for the largest datagram comes, in bytes.
const MTU_STEP: usize = 16;
/// Datagrams that one search may cost, in one direction. Each size is tried three times.
const MOST_PROBES: u64 = 40;
/// Bytes in one direction, on narrow lines, by which a search has ended.
const SEARCHED_BYTES: u64 = 600_000;
/// Of a hundred packets on narrow lines that lose nothing, so many may be sent again.
const MOST_AGAIN_PERCENT: u64 = 2;
/// One way, where there and back takes 300 ms.
const FAR: Duration = Duration::from_millis(150);
/// Bytes/s of lines before which nothing waits, and of such before which all does.
const WIDE: u64 = 64 << 20;
const NARROW: [u64; 3] = [40_000, 60_000, 100_000];
/// Hosts, the seed among them.
const HOSTS: usize = 4;
/// How long hosts that have all may take to part: who did not hear that the other left finds out by time.
const PARTED: u64 = 10 * 60;

/// What may happen to a host meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mishap {
    Nothing,
    /// A leech's process dies, and starts again.
    Death,
    /// A host hears and does nothing for a while.
    Sleep,
    /// A leech has a slow disk and little memory: it reads when it can.
    Thirst,
}

/// A path, its hosts, and what happens.
#[derive(Clone, Debug)]
struct Draw {
    latency: Option<Duration>,
    jitter: Duration,
    /// Of a hundred datagrams.
    loss: usize,
    doubled: usize,
    late: usize,
    mtu: usize,
    /// The path becomes narrower after so many seconds.
    narrows: Option<(u64, usize)>,
    line: Option<u64>,
    mishap: Mishap,
    hosts: [(Clock, Option<u16>); HOSTS],
}

impl Draw {
    /// A path that loses, doubles and overtakes nothing. Too large datagrams vanish on many.
    fn calm(dice: &mut Dice) -> Draw {
        let wide = dice.percent(50);
        Draw {
            latency: dice.percent(40).then_some(FAR),
            jitter: Duration::ZERO,
            loss: 0,
            doubled: 0,
            late: 0,
            mtu: mtu(dice),
            narrows: None,
            line: Some(if wide { WIDE } else { NARROW[dice.below(NARROW.len())] }),
            mishap: Mishap::Nothing,
            hosts: std::array::from_fn(|_| numbers(dice)),
        }
    }

    /// A path with every fault, and hosts with some.
    fn harsh(dice: &mut Dice) -> Draw {
        let (seconds, narrower) = (dice.pick(1..8) as u64, dice.pick(LEAST_MTU..1300));
        let mishaps = [Mishap::Nothing, Mishap::Death, Mishap::Sleep, Mishap::Thirst];
        Draw {
            jitter: Duration::from_millis([0, 20, 100][dice.below(3)]),
            loss: [0, 1, 5, 20][dice.below(4)],
            doubled: [0, 5, 20][dice.below(3)],
            late: [0, 5, 20][dice.below(3)],
            narrows: dice.percent(30).then_some((seconds, narrower)),
            mishap: mishaps[dice.below(4)],
            line: None,
            ..Draw::calm(dice)
        }
    }

    fn gear(&self, host: usize) -> Gear {
        let (clock, first_packet) = self.hosts[host];
        let settings = Settings { utp: true, tcp: false, ..Settings::default() };
        let gear = Gear { settings, clock, first_packet, ..Gear::default() };
        match self.line {
            Some(rate) => gear.line(rate, rate * 4),
            None => gear,
        }
    }
}

/// Half of the paths are as wide as Ethernet.
fn mtu(dice: &mut Dice) -> usize {
    if dice.percent(50) { MOST_MTU } else { dice.pick(LEAST_MTU..MOST_MTU) }
}

/// A host's clock, and where it begins to count packets: often just before numbers wrap.
fn numbers(dice: &mut Dice) -> (Clock, Option<u16>) {
    let fast = [0, 100, -100, 1000, -1000][dice.below(5)];
    let clock = Clock { fast, turns: dice.percent(50) };
    (clock, dice.percent(50).then(|| u16::MAX - dice.below(64) as u16))
}

/// A seed and three leeches, on paths that lose and overtake nothing: nothing is sent again but what asked how large
/// datagrams may be, and that is found out.
pub(super) fn calm(world: &mut World) -> Verdict {
    let draw = Draw::calm(&mut world.dice);
    let (torrent, _) = swarm(world, &draw);
    world.run_to_completion(15 * 60)?;
    compare(world)?;
    judge_calm(world, &draw)?;
    part(world, torrent)
}

/// The same on paths with every fault.
pub(super) fn storm(world: &mut World) -> Verdict {
    let draw = Draw::harsh(&mut world.dice);
    let (torrent, hosts) = swarm(world, &draw);
    if let Some((seconds, mtu)) = draw.narrows {
        world.run_for(seconds)?;
        world.net.narrow(mtu.min(draw.mtu));
    }
    befall(world, draw.mishap, &hosts)?;
    world.run_to_completion(15 * 60)?;
    if draw.mishap != Mishap::Death {
        compare(world)?;
    }
    part(world, torrent)
}

fn swarm(world: &mut World, draw: &Draw) -> (TorrentId, Vec<HostId>) {
    let weather = &mut world.net.weather;
    (weather.jitter, weather.loss, weather.doubled, weather.late) =
        (draw.jitter, draw.loss, draw.doubled, draw.late);
    weather.mtu = draw.mtu;
    if let Some(latency) = draw.latency {
        weather.latency = (latency, latency);
    }
    let slow = draw.line.is_some_and(|rate| rate < WIDE);
    let torrent = world.some_torrent(if slow { 1024 } else { 512 });
    let mut hosts = vec![world.seed(torrent, draw.gear(0))];
    for at in 1..HOSTS {
        let gear = draw.gear(at);
        let thirsty = draw.mishap == Mishap::Thirst && at == 1;
        let slow = Knobs::default().latency(Duration::from_millis(150)).rate(200_000);
        hosts.push(world.leech(torrent, if thirsty { gear.disk(slow).bufs(4) } else { gear }));
    }
    (torrent, hosts)
}

fn befall(world: &mut World, mishap: Mishap, hosts: &[HostId]) -> Verdict {
    let (seconds, long) = (world.dice.pick(1..6) as u64, world.dice.pick(1..90) as u64);
    let leech = hosts[world.dice.pick(1..HOSTS)];
    match mishap {
        Mishap::Death => {
            world.run_for(seconds)?;
            world.at(leech, Node::kill);
            world.run_for(long)?;
            world.restart(leech);
        }
        Mishap::Sleep => {
            world.run_for(seconds)?;
            let sleeper = hosts[world.dice.below(HOSTS)];
            world.suspend(sleeper, long);
        }
        Mishap::Nothing | Mishap::Thirst => {}
    }
    Ok(())
}

/// Nobody wants anything any more: all connections end, and nothing is left of them.
fn part(world: &mut World, torrent: TorrentId) -> Verdict {
    let hosts: Vec<HostId> = world.nodes().map(|node| node.id).collect();
    if let Some(host) = hosts.iter().find(|host| !world.seat(**host, torrent).complete) {
        return Err(format!("{} is not complete", world.addr(*host)));
    }
    let left = |world: &World| -> usize { world.nodes().map(Node::stream_count).sum() };
    for _ in 0..PARTED / 10 {
        world.run_for(10)?;
        if left(world) == 0 {
            break;
        }
    }
    match left(world) {
        0 => world.finish(),
        left => Err(format!("{left} streams are left, and nobody needs them")),
    }
}

/// What streams counted is what the network saw.
fn compare(world: &World) -> Verdict {
    let (counted, passed) = (sum(world), seen(world));
    for node in world.nodes() {
        let own = node.stream_counters();
        let sent = world.net.all_passed().filter(|(from, ..)| *from == node.addr);
        let sent = sent.fold((0, 0), |sum, (.., passed)| (sum.0 + passed.left, sum.1 + passed.bytes));
        let heard: u64 = world
            .net
            .all_passed()
            .filter(|(_, to, _)| *to == node.addr)
            .map(|(.., passed)| passed.heard)
            .sum();
        if (own.packets_out, own.bytes_out, own.packets_in) != (sent.0, sent.1, heard) {
            return Err(format!("{}: {own:?}, where {sent:?} left and {heard} came", node.addr));
        }
    }
    let lawful = counted.again_in <= counted.again_out + passed.doubled
        && counted.payload_in >= world.received().0
        && counted.payload_in <= counted.bytes_in
        && counted.again_out <= counted.packets_out / 4
        && (passed.lost < 50 || counted.again_out > 0);
    if lawful { Ok(()) } else { Err(format!("{counted:?} cannot be, where the network saw {passed:?}")) }
}

fn judge_calm(world: &World, draw: &Draw) -> Verdict {
    let (counted, passed) = (sum(world), seen(world));
    for (from, to, pair) in world.net.all_passed() {
        let found = pair.widest <= draw.mtu && pair.widest + MTU_STEP > draw.mtu;
        if pair.swallowed > MOST_PROBES || (pair.bytes > SEARCHED_BYTES && draw.line != Some(WIDE) && !found)
        {
            return Err(format!("{from} to {to}: {} bytes pass, and {pair:?}", draw.mtu));
        }
    }
    let Counters { again_out, again_in, early, losses, timeouts, .. } = counted;
    let clean = (losses, timeouts, again_in) == (0, 0, 0)
        && again_out <= passed.swallowed
        && (passed.swallowed > 0 || early == 0);
    let odd = counted.disbelieved + counted.no_room + counted.evicted + counted.full;
    // On narrow lines packets wait for those of other streams, and may be given up for a moment.
    let again = again_out.saturating_sub(passed.swallowed) * 100 / counted.packets_out.max(1);
    if odd > 0 || again > MOST_AGAIN_PERCENT || (draw.line == Some(WIDE) && !clean) {
        return Err(format!("{counted:?}, where nothing was lost or late: {passed:?}"));
    }
    Ok(())
}

fn sum(world: &World) -> Counters {
    world.nodes().map(Node::stream_counters).fold(Counters::default(), |sum, one| Counters {
        packets_in: sum.packets_in + one.packets_in,
        bytes_in: sum.bytes_in + one.bytes_in,
        packets_out: sum.packets_out + one.packets_out,
        bytes_out: sum.bytes_out + one.bytes_out,
        payload_in: sum.payload_in + one.payload_in,
        again_out: sum.again_out + one.again_out,
        again_in: sum.again_in + one.again_in,
        early: sum.early + one.early,
        no_room: sum.no_room + one.no_room,
        losses: sum.losses + one.losses,
        timeouts: sum.timeouts + one.timeouts,
        disbelieved: sum.disbelieved + one.disbelieved,
        syns_in: sum.syns_in + one.syns_in,
        evicted: sum.evicted + one.evicted,
        full: sum.full + one.full,
        resets_out: sum.resets_out + one.resets_out,
        resets_in: sum.resets_in + one.resets_in,
    })
}

fn seen(world: &World) -> Passed {
    world.net.all_passed().fold(Passed::default(), |sum, (.., one)| Passed {
        left: sum.left + one.left,
        bytes: sum.bytes + one.bytes,
        heard: sum.heard + one.heard,
        lost: sum.lost + one.lost,
        doubled: sum.doubled + one.doubled,
        swallowed: sum.swallowed + one.swallowed,
        fragmented: sum.fragmented + one.fragmented,
        widest: sum.widest.max(one.widest),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::named;

    #[test]
    fn a_quick_look_meets_every_row_of_the_table() {
        let scenario = named("utp-storm").unwrap();
        let draws: Vec<Draw> =
            (0..20).map(|seed| Draw::harsh(&mut scenario.world(seed, false).dice)).collect();
        let hosts = || draws.iter().flat_map(|draw| draw.hosts);
        assert!([0, 1, 5, 20].iter().all(|loss| draws.iter().any(|draw| draw.loss == *loss)), "loss");
        assert!(draws.iter().any(|draw| draw.late > 0), "reordering");
        assert!(draws.iter().any(|draw| draw.doubled > 0), "duplication");
        assert!(draws.iter().any(|draw| draw.jitter > Duration::ZERO), "jitter");
        assert!(draws.iter().any(|draw| draw.latency == Some(FAR)), "300 ms there and back");
        assert!(draws.iter().any(|draw| draw.mtu < MOST_MTU), "a black hole from the beginning");
        assert!(draws.iter().any(|draw| draw.narrows.is_some()), "a black hole later");
        assert!(
            hosts().any(|(clock, _)| clock.fast > 0) && hosts().any(|(clock, _)| clock.fast < 0),
            "drift"
        );
        assert!(hosts().any(|(clock, _)| clock.turns), "a clock that turns over");
        assert!(hosts().any(|(_, first)| first.is_some()), "numbers that wrap");
        let mishaps = [Mishap::Nothing, Mishap::Death, Mishap::Sleep, Mishap::Thirst];
        assert!(mishaps.iter().all(|mishap| draws.iter().any(|draw| draw.mishap == *mishap)), "mishaps");
    }
}
