//! Each way of finding peers, alone: two clients that would never meet without it swap content, byte for byte.
//!
//! What else could bring them together is off: torrents have no tracker but the one under test, nobody is told of
//! anybody, and the content of each case is its own, so that its info-hash is known to no other case.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use piecemeal_metainfo::{InfoHash, Metainfo};

use super::content::{Content, NAME, Shape, same};
use super::makers::{Maker, Order};
use super::matrix::our_tracker_at;
use super::net::{Host, Net};
use super::peers::{Client, Peer, Task, Ways, dht_node};
use super::{Case, Stage};
use crate::run::Running;

/// Some seconds' work: the slowest way is that of Transmission, which looks after its torrents in pulses.
const LIMIT: Duration = Duration::from_secs(150);
/// Nine clients, of which one first waits until it knows enough of the DHT.
const CROWD_LIMIT: Duration = Duration::from_secs(120);
/// Bytes a piece.
const PIECE_LENGTH: u64 = 64 << 10;
/// Ours in the swarm that begins with a magnet link.
const OURS: usize = 5;
/// Nodes of the DHT beside the one all begin at: Transmission announces itself only when it knows more than eight.
const MORE_NODES: u16 = 8;
/// What the peer in the middle sends: too little for the content to have come from it in time.
const MIDDLE_LIMIT: u64 = 16 << 10;
/// What the seed beyond it sends: so little that the middle is not done before it has told of it.
const FAR_LIMIT: u64 = 1 << 20;

/// How the two find each other.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Way {
    Dht,
    Lsd,
    Udp,
    Six,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Dht => "dht",
            Way::Lsd => "lsd",
            Way::Udp => "udp",
            Way::Six => "ipv6",
        }
    }
}

/// Every way with everybody who knows it, then all of them together.
pub fn cases() -> Vec<Case> {
    use Client::{Aria2, Libtorrent, Piecemeal, Transmission};
    let table: [(Way, &[Client]); 4] = [
        // Transmission wants more nodes than a case has hosts, and is in the crowd.
        (Way::Dht, &[Piecemeal, Libtorrent, Aria2]),
        (Way::Lsd, &[Piecemeal, Libtorrent, Transmission, Aria2]),
        (Way::Udp, &[Libtorrent, Transmission, Aria2]),
        (Way::Six, &[Libtorrent, Transmission, Aria2]),
    ];
    let mut cases = Vec::new();
    for (way, others) in table {
        for other in others {
            let pairs = [(Piecemeal, *other), (*other, Piecemeal)];
            let once = if *other == Piecemeal { 1 } else { 2 };
            for (seed, leech) in pairs.into_iter().take(once) {
                let name = format!("finding/{}/{}->{}", way.name(), seed.name(), leech.name());
                let pieces = 40 + cases.len() as u64;
                cases.push(Case::new(name, move |stage| meet(stage, way, seed, leech, pieces)));
            }
        }
    }
    for (middle, ends) in [(Piecemeal, Libtorrent), (Libtorrent, Piecemeal), (Piecemeal, Piecemeal)] {
        let name = format!("finding/pex/{}-tells-{}", middle.name(), ends.name());
        let pieces = 192 + cases.len() as u64;
        cases.push(Case::new(name, move |stage| told_by_a_peer(stage, middle, ends, pieces)));
    }
    cases.push(Case::alone("finding/magnet/1-seed-7-leeches", crowd));
    cases
}

/// What a case lacks here, in words for the table.
pub fn lacking(stage: &Stage<'_>, clients: &[Client]) -> Result<Option<String>> {
    if stage.net == Net::Loopback {
        return Ok(Some("left out: it wants hosts with addresses of their own".to_owned()));
    }
    match clients.iter().find_map(|client| client.missing()) {
        Some(why) => bail!("{why}; run .ci/install"),
        None => Ok(None),
    }
}

/// A torrent of the case's content, and where the content is.
pub fn torrent(
    stage: &Stage<'_>,
    pieces: u64,
    tracker: Option<&str>,
) -> Result<(Metainfo, PathBuf, PathBuf)> {
    let content = Content { shape: Shape::One, piece_length: PIECE_LENGTH, pieces };
    let (dir, torrent) = (stage.content(&content)?, stage.dir.join("x.torrent"));
    let order =
        Order { content: &dir.join(NAME), out: &torrent, piece_length: PIECE_LENGTH, format: "v1", tracker };
    Ok((Maker::Piecemeal.make(stage.binary, stage.dir, &order)?, torrent, dir))
}

/// A client of a case: where it runs, what it swaps, and into which directory.
pub struct Part<'a> {
    /// Who.
    pub client: Client,
    /// Where.
    pub host: &'a Host,
    /// A .torrent file, or a magnet link.
    pub torrent: &'a Path,
    /// The directory of the content.
    pub dir: &'a Path,
    /// Who to talk to.
    pub peers: &'a [SocketAddr],
    /// Bytes a second it may send; 0 for all it can.
    pub up_limit: u64,
}

impl Part<'_> {
    /// Starts it, with these ways of finding peers.
    pub fn start(&self, stage: &Stage<'_>, seed: bool, ways: &Ways) -> Result<Peer> {
        let state = stage.dir.join(format!("state{}", self.host.number));
        let task = Task {
            host: self.host,
            torrent: self.torrent,
            dir: self.dir,
            state: &state,
            peers: self.peers,
            up_limit: self.up_limit,
            once: false,
        };
        self.client.start(stage.binary, &task, seed, ways)
    }
}

fn meet(stage: &Stage<'_>, way: Way, seed: Client, leech: Client, pieces: u64) -> Result<String> {
    if let Some(why) = lacking(stage, &[seed, leech])? {
        return Ok(why);
    }
    let plain: Vec<_> = (0..3).map(|index| stage.host(index)).collect();
    let _six = if way == Way::Six { Some(Net::six_only(&plain)?) } else { None };
    let host = |index: usize| if way == Way::Six { plain[index].by_six() } else { plain[index].clone() };
    let mut ways = Ways { lsd: way == Way::Lsd, udp: way == Way::Udp, ..Ways::default() };
    let (mut helper, mut http) = (None, None);
    match way {
        Way::Dht => {
            let (node, addr) = dht_node(&host(2), 0, &stage.dir.join("node.log"))?;
            (helper, ways.dht) = (Some(node), Some(addr));
        }
        Way::Udp | Way::Six => {
            let (tracker, url) = our_tracker_at(stage, &host(2))?;
            (helper, http) = (Some(tracker), Some(url));
        }
        Way::Lsd => {}
    }
    let announce =
        http.as_ref().map(|url| if way == Way::Udp { url.replace("http:", "udp:") } else { url.clone() });
    let (metainfo, torrent, dir) = torrent(stage, pieces, announce.as_deref())?;
    // Alone, the DHT has to bring the metadata as well.
    let magnet = PathBuf::from(metainfo.magnet());
    let own = host(0);
    let part = Part { client: seed, host: &own, torrent: &torrent, dir: &dir, peers: &[], up_limit: 0 };
    let _seed = part.start(stage, true, &ways)?;
    if let Some(node) = ways.dht {
        wait_until_announced(node, metainfo.wire_hash(), LIMIT)?;
    } else if let Some(url) = &http {
        stage.wait_for_seed(url, metainfo.wire_hash(), LIMIT)?;
    }
    let began = Instant::now();
    let (own, target) = (host(1), stage.dir.join("leech"));
    let wanted = if way == Way::Dht { &magnet } else { &torrent };
    let part = Part { client: leech, host: &own, torrent: wanted, dir: &target, peers: &[], up_limit: 0 };
    let mut leech = part.start(stage, false, &ways)?;
    leech.finish(LIMIT)?;
    let took = began.elapsed();
    leech.leave()?;
    drop::<Option<Running>>(helper);
    same(&dir, &target)?;
    Ok(format!("{:.1} s", took.as_secs_f64()))
}

/// Three in a row: the ends are told of the middle alone, which sends too little to be where the content came from.
///
/// A minute longer than usual means that both ends were told at once: two of libtorrent that dial each other in the same
/// moment close both connections, each the other's, and dial again after its `min_reconnect_time`.
fn told_by_a_peer(stage: &Stage<'_>, middle: Client, ends: Client, pieces: u64) -> Result<String> {
    if let Some(why) = lacking(stage, &[middle, ends])? {
        return Ok(why);
    }
    let ways = Ways { pex: true, ..Ways::default() };
    let (_, torrent, dir) = torrent(stage, pieces, None)?;
    let (far, middle_at) = ([stage.host(0).peer()], [stage.host(1).peer()]);
    let (halfway, target) = (stage.dir.join("middle"), stage.dir.join("leech"));
    let part = |client, index, dir, peers, up_limit| Part {
        client,
        host: stage.host(index),
        torrent: &torrent,
        dir,
        peers,
        up_limit,
    };
    let _seed = part(ends, 0, &dir, &[], FAR_LIMIT).start(stage, true, &ways)?;
    stage.wait_for_port(far[0], LIMIT)?;
    let _middle = part(middle, 1, &halfway, &far, MIDDLE_LIMIT).start(stage, false, &ways)?;
    stage.wait_for_port(middle_at[0], LIMIT)?;
    let began = Instant::now();
    let mut leech = part(ends, 2, &target, &middle_at, 0).start(stage, false, &ways)?;
    leech.finish(LIMIT)?;
    let took = began.elapsed();
    leech.leave()?;
    same(&dir, &target)?;
    let from_middle = took.as_secs_f64() * MIDDLE_LIMIT as f64 / (pieces * PIECE_LENGTH) as f64;
    if from_middle > 0.5 {
        bail!("{:.0} s: the middle alone may have sent half of it", took.as_secs_f64());
    }
    Ok(format!("{:.1} s", took.as_secs_f64()))
}

/// A magnet link without trackers, one node of the DHT to begin at, and clients of everybody.
fn crowd(stage: &Stage<'_>) -> Result<String> {
    let others = [Client::Aria2, Client::Transmission];
    if let Some(why) = lacking(stage, &[Client::Libtorrent, others[0], others[1]])? {
        return Ok(why);
    }
    let (_node, addr) = dht_node(stage.host(0), MORE_NODES, &stage.dir.join("node.log"))?;
    let ways = Ways { dht: Some(addr), pex: true, ..Ways::default() };
    let (metainfo, torrent, dir) = torrent(stage, 256, None)?;
    let magnet = PathBuf::from(metainfo.magnet());
    let seed = Part {
        client: Client::Libtorrent,
        host: stage.host(1),
        torrent: &torrent,
        dir: &dir,
        peers: &[],
        up_limit: 0,
    };
    let _seed = seed.start(stage, true, &ways)?;
    wait_until_announced(addr, metainfo.wire_hash(), LIMIT)?;
    let began = Instant::now();
    let mut leeches = Vec::new();
    for (index, client) in (2..).zip([Client::Piecemeal; OURS].into_iter().chain(others)) {
        let target = stage.dir.join(format!("leech{index}"));
        let part =
            Part { client, host: stage.host(index), torrent: &magnet, dir: &target, peers: &[], up_limit: 0 };
        let peer = part.start(stage, false, &ways)?;
        leeches.push((client, peer, target));
    }
    let times = all_done(&mut leeches, began)?;
    for (client, peer, target) in leeches {
        peer.leave()?;
        same(&dir, &target).with_context(|| client.name())?;
    }
    Ok(format!("done after (s): {}", times.join(", ")))
}

/// Waits until each has everything; nobody leaves before, since each is a node that others may need. Gives the times.
fn all_done(leeches: &mut [(Client, Peer, PathBuf)], began: Instant) -> Result<Vec<String>> {
    let mut times: Vec<Option<String>> = vec![None; leeches.len()];
    while times.iter().any(Option::is_none) {
        for ((client, peer, _), time) in leeches.iter_mut().zip(&mut times) {
            if time.is_none() && peer.done()? {
                *time = Some(format!("{} {:.1}", client.name(), began.elapsed().as_secs_f64()));
            }
        }
        if began.elapsed() > CROWD_LIMIT {
            let late = leeches.iter().zip(&times).filter(|(_, time)| time.is_none());
            let late: Vec<_> = late.map(|((client, ..), _)| client.name()).collect();
            let done: Vec<_> = times.into_iter().flatten().collect();
            bail!(
                "not done after {} s: {}; done: {}",
                CROWD_LIMIT.as_secs(),
                late.join(", "),
                done.join(", ")
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(times.into_iter().flatten().collect())
}

/// Asks a node of the DHT, as any other node would, until it knows a peer of a torrent.
pub fn wait_until_announced(node: SocketAddr, hash: InfoHash, limit: Duration) -> Result<()> {
    // libtorrent leaves who asks more than five times a second.
    const ASK_EVERY: Duration = Duration::from_millis(400);
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.set_read_timeout(Some(ASK_EVERY))?;
    let mut question = b"d1:ad2:id20:piecemeal interop 009:info_hash20:".to_vec();
    question.extend_from_slice(&hash.0);
    question.extend_from_slice(b"e1:q9:get_peers1:t2:aa1:y1:qe");
    let until = Instant::now() + limit;
    let mut answer = [0; 2048];
    while Instant::now() < until {
        socket.send_to(&question, node)?;
        let read = socket.recv(&mut answer).unwrap_or(0);
        if answer[..read].windows(8).any(|part| part == b"6:values") {
            return Ok(());
        }
        thread::sleep(ASK_EVERY);
    }
    bail!("nobody has announced the torrent to the DHT after {} s", limit.as_secs())
}
