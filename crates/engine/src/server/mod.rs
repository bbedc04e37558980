//! The Server: coordinates all downloads, and shakes hands with everyone before a Controller hears of them.
//!
//! Owns connections from the first byte until the handshake is done, the dials that Shards ask for, and the number of
//! connections over all torrents. Whom to dial, how many peers a torrent wants, and which of two connections with the
//! same peer stays is the Controller's business.
//!
//! - `handshake`: the bytes. - `directory`: info-hash to torrent. - `limits`: how many strangers, how often we call.
//!
//! What a Shard can rely on:
//! - Each [`Note::Dial`] is answered by exactly one [`Note::Hand`] or [`Note::DialFailed`], even if its torrent was
//!   removed meanwhile; so a DialFailed may come after the [`Note::Unseat`].
//! - No Hand for a torrent comes before it said [`Note::Open`], or after its Unseat.
//! - Each connection handed over keeps its place in the count until [`Note::Left`], refused ones too.
//!
//! What it relies on: the shell answers each [`Net::Dial`] once, and carries what our handshake lacks (`with_sealed`,
//! `on_wrote`) before it sends a byte of the connection's new owner.

mod directory;
mod finding;
mod handshake;
mod limits;
mod nodes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_discovery::tracker::Fetch;
use piecemeal_metainfo::{InfoHash, TorrentId};
use piecemeal_wire::handshake::{Handshake, Progress, Reserved};

use crate::cx::{
    Ate, Command, ConnId, DialId, Goodbye, Handed, Net, News, Note, Out, Reach, Seating, Seeking, Sending,
    Settings, Time,
};
use crate::swarm::normal;
use directory::Directory;
use finding::Finding;
use handshake::{Dial, Shaking, Side, Unsent};
use limits::{Callers, DialRate};

/// For the whole handshake, however its bytes trickle (libtorrent's `handshake_timeout` is 10 s).
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// To connect by TCP: four SYNs on most systems, sent at 0, 1, 3 and 7 s (libtorrent's `peer_connect_timeout`).
const DIAL_PATIENCE: Duration = Duration::from_secs(15);

/// Dials that wait for their turn: ten seconds' worth.
const MOST_QUEUED_DIALS: usize = 300;

/// Taken along behind a handshake. The shell reads no more at once; it keeps what is not eaten.
const MOST_LEFTOVER_BYTES: usize = 64 * 1024;

/// What we speak beyond BEP 3.
const RESERVED: Reserved = Reserved::NONE.with_extension().with_fast();

/// See the module.
pub struct Server {
    settings: Settings,
    out: Out,
    /// After [`Command::Shutdown`] nobody comes in.
    shut: bool,
    directory: Directory,
    finding: Finding,
    /// By a router's help.
    reach: Option<Reach>,

    /// Handshakes under way; at most `max_pending` of callers, and of dials.
    shaking: BTreeMap<ConnId, Shaking>,
    /// When each of them must be done.
    deadlines: BTreeSet<(Time, ConnId)>,
    callers: Callers,

    /// Dials the shell is busy with; at most `max_pending`. `None`: the torrent takes no connections any more, and
    /// was told so; the socket still counts.
    dialing: BTreeMap<DialId, Option<Dial>>,
    /// Dials that wait until the rate allows them; at most [`MOST_QUEUED_DIALS`].
    queued: VecDeque<Dial>,
    dial_rate: DialRate,
    next_dial: DialId,

    /// Connections of the Shards, and what of our handshake the shell has not fetched; at most `max_conns`.
    handed: BTreeMap<ConnId, Unsent>,
}

impl Server {
    /// A Server without torrents.
    pub fn new(settings: Settings, seed: [u8; 32]) -> Server {
        Server {
            finding: Finding::new(&settings, seed),
            settings,
            out: Out::default(),
            shut: false,
            reach: None,
            directory: Directory::default(),
            shaking: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            callers: Callers::default(),
            dialing: BTreeMap::new(),
            queued: VecDeque::new(),
            dial_rate: DialRate::default(),
            next_dial: DialId(0),
            handed: BTreeMap::new(),
        }
    }

    /// Somebody called. They have ten seconds from now to say who they are and what they want.
    pub fn on_accepted(&mut self, now: Time, conn: ConnId, from: SocketAddr) {
        let from = normal(from);
        let refusal = if self.shut {
            Some(Goodbye::Leaving)
        } else {
            (!self.make_room_for_caller(from)).then_some(Goodbye::Crowded)
        };
        if let Some(why) = refusal {
            return self.out.net.push(Net::Close(conn, why));
        }
        self.callers.add(from, now, conn);
        self.begin(now, conn, Side::Caller { from, torrent: None }, Unsent::NOTHING);
    }

    /// A dial has ended, well or not.
    pub fn on_dialed(&mut self, now: Time, dial: DialId, _to: SocketAddr, result: Result<ConnId, String>) {
        let asked = self.dialing.remove(&dial).flatten();
        match (asked, result) {
            (Some(dial), Ok(conn)) => {
                let unsent = Unsent::all(&self.ours(dial.info_hash));
                self.begin(now, conn, Side::Dialed(dial), unsent);
                self.out.net.push(Net::Write(conn));
            }
            (Some(dial), Err(text)) => self.say_failed(&dial, Goodbye::Failed(text)),
            (None, Ok(conn)) => self.out.net.push(Net::Close(conn, Goodbye::Leaving)),
            (None, Err(_)) => {}
        }
    }

    /// Someone commands.
    pub fn on_command(&mut self, now: Time, command: Command) {
        match command {
            Command::Add(seating) => self.add(seating),
            Command::Seek(seeking) => self.seek(seeking),
            Command::Remove { torrent, delete } => self.remove(torrent, delete),
            Command::Change(torrent, change) => {
                if self.directory.holds(torrent) {
                    self.out.notes.push(Note::Change(torrent, change));
                }
            }
            // One Shard: all is its share.
            Command::Limits { down, up } => self.out.notes.push(Note::Lease { down, up }),
            Command::Nodes(addrs) => self.finding.learn_nodes(&addrs),
            Command::Reach(reach) => self.reached(now, reach),
            Command::Shutdown => self.shut_down(),
        }
    }

    /// A datagram came.
    pub fn on_datagram(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) {
        self.finding.on_datagram(now, normal(from), bytes, &mut self.out);
    }

    /// A datagram came to the group of local discovery (BEP 14).
    pub fn on_lsd(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) {
        self.finding.on_lsd(now, normal(from), bytes, &mut self.out);
    }

    /// The name of a UDP tracker was looked up.
    pub fn on_resolved(&mut self, now: Time, torrent: TorrentId, fetch: &Fetch, to: SocketAddr) {
        self.finding.ask(now, torrent, fetch, to, &mut self.out);
    }

    /// No datagram can be sent to `to`, says the system: `why`, in words. Who waits for an answer from there need not.
    pub fn on_unreachable(&mut self, now: Time, to: SocketAddr, why: &str) {
        // Nothing is planned; the time is taken because every event has one.
        let _ = now;
        self.finding.on_unreachable(normal(to), why, &mut self.out);
    }

    /// Bytes came on a connection whose handshake is under way.
    pub fn on_bytes(&mut self, _now: Time, conn: ConnId, bytes: &[u8]) -> Ate {
        let all = Ate { bytes: bytes.len(), thirsty: false };
        if self.handed.contains_key(&conn) {
            // On its way to the Shard, for whom the shell shall keep them.
            return Ate { bytes: 0, thirsty: true };
        }
        // Bytes of a connection that is being closed do not matter.
        let Some(shaking) = self.shaking.get_mut(&conn) else { return all };
        let (took, progress) = shaking.hear(bytes);
        let (info_hash, whole) = match progress {
            Ok(Progress::Whole(theirs)) => (Some(theirs.info_hash), Some(theirs)),
            Ok(Progress::Partial { info_hash, .. }) => (info_hash, None),
            Err(_) => {
                self.end(conn, Goodbye::Broke("does not speak BitTorrent"));
                return all;
            }
        };
        let Some(info_hash) = info_hash else { return all };
        if let Err(why) = self.agree(conn, info_hash) {
            self.end(conn, why);
            return all;
        }
        let Some(theirs) = whole else { return all };
        let behind = &bytes[took..];
        let behind = &behind[..behind.len().min(MOST_LEFTOVER_BYTES)];
        if theirs.peer_id == self.settings.peer_id {
            self.met_ourselves(conn);
            return all;
        }
        self.hand(conn, &theirs, behind);
        Ate { bytes: took + behind.len(), thirsty: false }
    }

    /// The socket took so many bytes of what [`Server::with_sealed`] showed.
    pub fn on_wrote(&mut self, _now: Time, conn: ConnId, bytes: usize) {
        if let Some(unsent) = self.handed.get_mut(&conn) {
            return unsent.wrote(bytes);
        }
        let Some(shaking) = self.shaking.get_mut(&conn) else { return };
        shaking.unsent.wrote(bytes);
        if shaking.ourselves {
            self.met_ourselves(conn);
        }
    }

    /// Shows what is to be sent next. `None`: nothing.
    ///
    /// That goes on after [`Note::Hand`], until all of our handshake is fetched: the peer may well have sent its own
    /// before the socket took ours.
    pub fn with_sealed<R>(&mut self, conn: ConnId, f: impl FnOnce(&[Sending<'_>]) -> R) -> Option<R> {
        let shaking = self.shaking.get(&conn).map(|shaking| &shaking.unsent);
        let rest = shaking.or_else(|| self.handed.get(&conn))?.rest();
        (!rest.is_empty()).then(|| f(&[Sending::Bytes(rest)]))
    }

    /// A connection has ended from the other side, or failed.
    pub fn on_closed(&mut self, _now: Time, conn: ConnId, why: Goodbye) {
        // One that was handed over keeps its place: its Shard is told as well, and says that it left.
        if let Some(Side::Dialed(dial)) = self.take(conn) {
            self.say_failed(&dial, why);
        }
    }

    /// A note from a Shard.
    pub fn on_note(&mut self, now: Time, note: Note) {
        match note {
            Note::Dial { torrent, to } => self.dial(now, torrent, to),
            Note::Node(addr) => self.finding.learn_nodes(&[addr]),
            Note::SeenAs { ip, by } => self.finding.seen_as(now, ip, by, &mut self.out),
            Note::Left { conn } => {
                self.handed.remove(&conn);
            }
            Note::Open { torrent, open } => {
                self.directory.set_open(torrent, open);
                if !open {
                    self.end_all_of(torrent);
                    self.finding.closed(torrent);
                } else if let Some(info_hash) = self.directory.public_hash(torrent) {
                    self.finding.opened(now, torrent, info_hash);
                }
            }
            _ => debug_assert!(false, "a note for a Shard came to the Server"),
        }
    }

    /// Does what is due; returns when to be called again.
    pub fn heartbeat(&mut self, now: Time) -> Time {
        while let Some(&(due, conn)) = self.deadlines.first()
            && due <= now
        {
            let ourselves = self.shaking.get(&conn).is_some_and(|shaking| shaking.ourselves);
            self.end(conn, if ourselves { Goodbye::Ourselves } else { Goodbye::Silent });
        }
        self.release_dials(now);
        let handshake = self.deadlines.first().map_or(Time::NEVER, |(due, _)| *due);
        let dial = if self.queued.is_empty() { Time::NEVER } else { self.dial_rate.next() };
        self.finding.heartbeat(now, &mut self.out);
        handshake.min(dial).min(self.finding.next_due())
    }

    /// What it wants done outside.
    pub fn out(&mut self) -> &mut Out {
        &mut self.out
    }
}

/// Torrents.
impl Server {
    fn add(&mut self, seating: Box<Seating>) {
        let torrent = seating.torrent;
        if self.shut {
            return self.out.news.push(News::Gone(torrent));
        }
        if self.directory.add(torrent, seating.meta.wire_hash(), !seating.meta.info().private) {
            return self.out.notes.push(Note::Seat(seating));
        }
        debug_assert!(false, "{torrent:?} is a torrent that is seated already");
        // If it is not even a torrent of its own, the one that has its number goes on.
        if !self.directory.holds(torrent) {
            self.out.news.push(News::Gone(torrent));
        }
    }

    fn seek(&mut self, seeking: Box<Seeking>) {
        let torrent = seeking.torrent;
        if !self.shut && self.directory.add(torrent, seeking.hashes.wire(), true) {
            self.out.notes.push(Note::Seek(seeking));
        } else {
            self.out.news.push(News::Gone(torrent));
        }
    }

    /// Whoever can be told of us hears when that changes where we are.
    fn reached(&mut self, now: Time, reach: Option<Reach>) {
        let port = |reach: Option<Reach>| reach.map_or(self.settings.port, |reach| reach.port);
        let external = |reach: Option<Reach>| reach.and_then(|reach| reach.external);
        let before = std::mem::replace(&mut self.reach, reach);
        // The first word about our address is no news to those who see where we come from.
        let elsewhere = external(before).is_some_and(|was| external(reach).is_some_and(|is| is != was));
        if port(before) != port(reach) || elsewhere {
            self.finding.moved(now, port(reach), &mut self.out);
        }
        self.out.news.push(News::Reach(reach));
    }

    fn remove(&mut self, torrent: TorrentId, delete: bool) {
        if self.directory.remove(torrent) {
            self.end_all_of(torrent);
            self.finding.closed(torrent);
            self.out.notes.push(Note::Unseat { torrent, delete });
        }
    }

    fn shut_down(&mut self) {
        self.shut = true;
        if self.settings.dht {
            self.out.news.push(News::Nodes(self.finding.kept_nodes()));
        }
        while let Some(torrent) = self.directory.first() {
            self.remove(torrent, false);
        }
        // Those who did not say yet what they want.
        while let Some(conn) = self.shaking.keys().next().copied() {
            self.end(conn, Goodbye::Leaving);
        }
    }

    /// The torrent takes no connections any more: ends its handshakes and dials.
    fn end_all_of(&mut self, torrent: TorrentId) {
        let of_it = |shaking: &Shaking| shaking.side.torrent() == Some(torrent);
        let conns = self.shaking.iter().filter(|(_, shaking)| of_it(shaking)).map(|(conn, _)| *conn);
        for conn in conns.collect::<Vec<_>>() {
            self.end(conn, Goodbye::Leaving);
        }
        let mut dials = Vec::new();
        for slot in self.dialing.values_mut() {
            dials.extend(slot.take_if(|dial| dial.torrent == torrent));
        }
        self.queued.retain(|dial| {
            let stays = dial.torrent != torrent;
            if !stays {
                dials.push(*dial);
            }
            stays
        });
        for dial in dials {
            self.say_failed(&dial, Goodbye::Leaving);
        }
    }
}

/// Dials.
impl Server {
    fn dial(&mut self, now: Time, torrent: TorrentId, to: SocketAddr) {
        let Some(info_hash) = self.directory.hash_of(torrent) else {
            return self.out.notes.push(Note::DialFailed { torrent, to, why: Goodbye::Leaving });
        };
        let dial = Dial { torrent, to, info_hash };
        if !self.has_room_for_dial() || self.queued.len() >= MOST_QUEUED_DIALS {
            return self.say_failed(&dial, Goodbye::Crowded);
        }
        self.queued.push_back(dial);
        self.release_dials(now);
    }

    /// Sends off the dials whose turn it is. They wait for the rate, never for room: a Controller that waits for an
    /// answer can do nothing better meanwhile.
    fn release_dials(&mut self, now: Time) {
        while self.dial_rate.next() <= now
            && let Some(dial) = self.queued.pop_front()
        {
            if !self.has_room_for_dial() {
                self.say_failed(&dial, Goodbye::Crowded);
                continue;
            }
            let number = self.next_dial;
            self.next_dial = DialId(number.0 + 1);
            self.dial_rate.count(now);
            self.dialing.insert(number, Some(dial));
            self.out.net.push(Net::Dial { dial: number, to: dial.to, patience: DIAL_PATIENCE });
        }
    }

    fn has_room_for_dial(&self) -> bool {
        let under_way = self.dialing.len() + self.shaking.len() - self.callers.count();
        under_way < self.settings.max_pending && self.conns() < self.settings.max_conns
    }

    fn say_failed(&mut self, dial: &Dial, why: Goodbye) {
        self.out.notes.push(Note::DialFailed { torrent: dial.torrent, to: dial.to, why });
    }
}

/// Handshakes.
impl Server {
    /// Sees to it that one more caller has a place, if need be that of one who dawdles. False: there is none.
    fn make_room_for_caller(&mut self, from: SocketAddr) -> bool {
        let Settings { max_conns, max_pending, max_pending_per_ip, .. } = self.settings;
        let in_the_way = if self.callers.count_from(from) >= max_pending_per_ip {
            // First of all their own: one address can drive out nobody else.
            self.callers.oldest_from(from)
        } else if self.callers.count() >= max_pending || self.conns() >= max_conns {
            self.callers.oldest()
        } else {
            return true;
        };
        if let Some(conn) = in_the_way {
            self.end(conn, Goodbye::Crowded);
        }
        in_the_way.is_some()
    }

    /// Connections over all torrents, those to be included.
    fn conns(&self) -> usize {
        self.handed.len() + self.shaking.len() + self.dialing.len()
    }

    fn reserved(&self) -> Reserved {
        if self.settings.dht { RESERVED.with_dht() } else { RESERVED }
    }

    fn ours(&self, info_hash: InfoHash) -> Handshake {
        Handshake { reserved: self.reserved(), info_hash, peer_id: self.settings.peer_id }
    }

    fn begin(&mut self, now: Time, conn: ConnId, side: Side, unsent: Unsent) {
        self.deadlines.insert((now + HANDSHAKE_PATIENCE, conn));
        self.shaking.insert(conn, Shaking::new(side, now, unsent));
    }

    /// The peer named a torrent: answers a caller, and looks whether whom we called means the same.
    fn agree(&mut self, conn: ConnId, info_hash: InfoHash) -> Result<(), Goodbye> {
        let ours = self.ours(info_hash);
        let Some(shaking) = self.shaking.get_mut(&conn) else { return Ok(()) };
        match &mut shaking.side {
            Side::Dialed(dial) if dial.info_hash == info_hash => Ok(()),
            Side::Dialed(_) => Err(Goodbye::Broke("answers for another torrent")),
            Side::Caller { torrent: Some(_), .. } => Ok(()),
            Side::Caller { torrent, .. } => {
                *torrent = Some(self.directory.torrent_of(info_hash).ok_or(Goodbye::Unknown)?);
                shaking.unsent = Unsent::all(&ours);
                self.out.net.push(Net::Write(conn));
                Ok(())
            }
        }
    }

    /// The other end of `conn` is ours as well.
    fn met_ourselves(&mut self, conn: ConnId) {
        let Some(shaking) = self.shaking.get_mut(&conn) else { return };
        shaking.ourselves = true;
        if matches!(shaking.side, Side::Dialed(_)) || shaking.unsent.rest().is_empty() {
            self.end(conn, Goodbye::Ourselves);
        }
    }

    /// The handshake is done: the peer is the Shard's from here on.
    fn hand(&mut self, conn: ConnId, theirs: &Handshake, leftover: &[u8]) {
        let unsent = self.shaking.get(&conn).map_or(Unsent::NOTHING, |shaking| shaking.unsent);
        let (torrent, addr, outgoing) = match self.take(conn) {
            Some(Side::Dialed(dial)) => (dial.torrent, dial.to, true),
            Some(Side::Caller { from, torrent: Some(torrent) }) => (torrent, from, false),
            _ => return debug_assert!(false, "nobody is handed over before it said what it wants"),
        };
        self.handed.insert(conn, unsent);
        self.out.notes.push(Note::Hand(Box::new(Handed {
            conn,
            torrent,
            addr,
            peer_id: theirs.peer_id,
            reserved: theirs.reserved,
            outgoing,
            leftover: leftover.to_vec(),
        })));
    }

    /// Ends a handshake from our side.
    fn end(&mut self, conn: ConnId, why: Goodbye) {
        let Some(side) = self.take(conn) else { return };
        self.out.net.push(Net::Close(conn, why.clone()));
        if let Side::Dialed(dial) = side {
            self.say_failed(&dial, why);
        }
    }

    /// Forgets a handshake, wherever it is noted.
    fn take(&mut self, conn: ConnId) -> Option<Side> {
        let shaking = self.shaking.remove(&conn)?;
        self.deadlines.remove(&(shaking.since + HANDSHAKE_PATIENCE, conn));
        if let Side::Caller { from, .. } = shaking.side {
            self.callers.remove(from, shaking.since, conn);
        }
        Some(shaking.side)
    }
}

#[cfg(test)]
mod tests;
