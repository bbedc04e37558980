//! Ways to find peers other than a tracker behind HTTP, and who must not use them.

use std::net::SocketAddr;

use piecemeal_engine::cx::{Command, Settings};
use piecemeal_metainfo::TorrentId;
use piecemeal_wire::lsd::{LSD_V4, LsdAnnounce};

use crate::net::HostId;
use crate::node::Gear;
use crate::torrent::{Shape, TRACKER};
use crate::world::{Verdict, World};

/// Its name is looked up, and datagrams go there.
const UDP_TRACKER: &str = "udp://tracker.example:6969/announce";

/// A swarm that knows only a UDP tracker, where every tenth datagram is lost.
pub(super) fn udp_tracker(world: &mut World) -> Verdict {
    world.net.weather.loss = 10;
    let shape = Shape { trackers: vec![vec![UDP_TRACKER.into()]], ..Shape::plain(256 << 10, 16 << 10) };
    let torrent = world.torrent(&shape);
    world.tracker_at(UDP_TRACKER);
    world.seed(torrent, Gear::default());
    world.leeches(8, torrent);
    world.run_to_completion(30 * 60)?;
    let started = world.tracker_at(UDP_TRACKER).counts.started;
    if started < 9 {
        return Err(format!("complete, and only {started} of 9 told the tracker"));
    }
    world.finish()
}

/// A private torrent, and a public one on the same hosts, which all search in every way. Half of the hosts have a
/// tracker. The others could find each other, and the first half, by the DHT, the local network and what peers tell: so
/// they do for the public torrent; and for the private one nobody may (BEP 27).
pub(super) fn private(world: &mut World) -> Verdict {
    let shape = || Shape::plain(128 << 10, 16 << 10).trackerless();
    let (open, secret) = (world.torrent(&shape()), world.torrent(&shape().private()));
    let members: Vec<HostId> =
        (0..4).map(|_| world.host(Gear::default().searching().tracker(TRACKER))).collect();
    let strangers: Vec<HostId> = (0..4).map(|_| world.host(Gear::default().searching())).collect();
    let all: Vec<HostId> = members.iter().chain(&strangers).copied().collect();
    let addrs: Vec<_> = all.iter().map(|host| world.addr(*host)).collect();
    for host in &all {
        world.at(*host, |node, net| node.command(net, Command::Nodes(addrs.clone())));
        // Each half has a seed of the private torrent, and the strangers none of the public one.
        let has_secret = *host == members[0] || *host == strangers[0];
        add(world, *host, secret, has_secret);
        add(world, *host, open, *host == members[1]);
    }
    let done = |world: &World| {
        let complete = |host: &HostId, torrent| world.seat(*host, torrent).complete;
        all.iter().all(|host| complete(host, open)) && members.iter().all(|host| complete(host, secret))
    };
    // Somebody with no manners tells the local network where the private torrent is: at the strangers.
    world.run_for(20)?;
    for stranger in &strangers {
        let port = world.addr(*stranger).port();
        let announce = LsdAnnounce { port, info_hashes: vec![world.content(secret).hash()], cookie: None };
        let from = SocketAddr::new(world.addr(*stranger).ip(), LSD_V4.port());
        world.net.multicast(*stranger, from, &announce.encode(LSD_V4).0);
    }
    world.run_until(30 * 60, "found by all who may find it", done)?;
    // Long enough for all to be told again.
    world.run_for(12 * 60)?;
    for host in &all {
        judge(world, *host, secret, members.contains(host).then_some(&members))?;
    }
    // The same eyes see the public torrent in each of the ways.
    let open = world.content(open).hash();
    let nodes = || world.nodes();
    let named = nodes().all(|node| node.said.about.contains_key(&open));
    let searched = nodes().all(|node| node.said.dht > 0 && node.said.lsd > 0);
    if !named || !searched || !nodes().any(|node| node.gossip.contains_key(&open)) {
        return Err("nobody spoke of the public torrent, so that silence proves nothing".into());
    }
    world.finish()
}

/// Two peers behind NATs, of which one has all and the other nothing. They know only a third, which gives next to
/// nothing and is slow to take: it tells the newcomer of the other, and then both to call each other (BEP 55).
pub(super) fn punch(world: &mut World) -> Verdict {
    let torrent = world.torrent(&Shape::plain(256 << 10, 16 << 10).trackerless());
    let gear = || Gear { settings: Settings { utp: true, ..Settings::default() }, ..Gear::default() };
    let middle = world.host(gear().limits(1 << 10, 1 << 10));
    world.want(middle, torrent);
    let at = world.addr(middle);
    let giver = world.host(gear().natted().peers([at]));
    world.give(giver, torrent);
    // Of somebody else the giver is told as soon as he comes, and so of the newcomer only a minute after that: until
    // then it calls nobody by itself, and the newcomer calls in vain.
    world.run_for(40)?;
    let other = world.host(Gear::default().limits(1 << 10, 1 << 10).peers([at]));
    world.want(other, torrent);
    world.run_for(15)?;
    let taker = world.host(gear().natted().line(1 << 20, 1 << 20).peers([at]));
    world.want(taker, torrent);
    world.run_until(50, "what lies behind the other NAT", |world| world.seat(taker, torrent).complete)?;
    let (node, hash) = (world.node(taker), world.content(torrent).hash());
    if !node.greeted.contains(&(hash, giver)) {
        return Err("all came by the one in the middle".into());
    }
    world.finish()
}

fn add(world: &mut World, host: HostId, torrent: TorrentId, full: bool) {
    if full { world.give(host, torrent) } else { world.want(host, torrent) }
}

/// Whether a host kept the private torrent to itself and, if it is one, to the members of its tracker.
fn judge(world: &World, host: HostId, secret: TorrentId, members: Option<&Vec<HostId>>) -> Verdict {
    let (node, hash) = (world.node(host), world.content(secret).hash());
    let about = node.said.about.get(&hash).copied().unwrap_or(0);
    let gossip = node.gossip.get(&hash).copied().unwrap_or(0);
    if about > 0 || gossip > 0 {
        return Err(format!(
            "{}: {about} datagrams and {gossip} messages about a private torrent",
            node.addr
        ));
    }
    let mut greeted = node.greeted.iter().filter(|(torrent, _)| *torrent == hash).map(|(_, other)| other);
    match greeted.find(|other| !members.is_some_and(|members| members.contains(other))) {
        Some(other) => Err(format!("{} met {} without a tracker", node.addr, world.addr(*other))),
        None => Ok(()),
    }
}
