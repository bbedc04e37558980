//! The Server: coordinates all downloads, and shakes hands with everyone before a Controller hears of them.
//!
//! Owns connections from the first byte until the handshake is done, the dials that Shards ask for, and the number of
//! connections over all torrents. Whom to dial, how many peers a torrent wants, and which of two connections with the
//! same peer stays is the Controller's business.
//!
//! - `handshake`: the bytes. - `dials`: whom we call, and by which carrier. - `directory`: info-hash to torrent.
//! - `limits`: how many strangers, how often we call. - `gate`: whom we talk to at all. - `manners`: who wants to be
//!   spoken to otherwise than others.
//!
//! What a Shard can rely on:
//! - Each [`Note::Dial`] is answered by exactly one [`Note::Hand`] or [`Note::DialFailed`], even if its torrent was
//!   removed meanwhile; so a DialFailed may come after the [`Note::Unseat`].
//! - No Hand for a torrent comes before it said [`Note::Open`], or after its Unseat.
//! - Each connection handed over keeps its place in the count until [`Note::Left`], refused ones too.
//!
//! What it relies on: the shell answers each [`Net::Dial`] once, and carries what our handshake lacks (`with_sealed`,
//! `on_wrote`) before it sends a byte of the connection's new owner.

mod dials;
mod directory;
mod finding;
mod gate;
mod handshake;
mod limits;
mod manners;
mod nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_discovery::filter::Gate;
use piecemeal_discovery::tracker::{Fetch, FetchFailure};
use piecemeal_metainfo::{InfoHash, TorrentId};
use piecemeal_transport::mse::{Sum, Total};
use piecemeal_wire::handshake::{HANDSHAKE_BYTES, Handshake, Progress, Reserved};
use rand_chacha::rand_core::SeedableRng;

use crate::cx::{
    Ate, Carrier, Command, ConnId, DialId, Encryption, Goodbye, Handed, Net, News, Note, Out, Reach, Rng,
    Road, Seating, Seeking, Sending, Settings, Time,
};
use crate::swarm::normal;
use dials::{Answer, Dial, Dials, Released};
use directory::Directory;
use finding::Finding;
use handshake::{Ears, Parts, Shaking, Side, Unsent};
use limits::Callers;
use manners::Manners;

/// For the whole handshake, however its bytes trickle (libtorrent's `handshake_timeout` is 10 s).
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// Taken along behind a handshake. The shell reads no more at once; it keeps what is not eaten.
const MOST_LEFTOVER_BYTES: usize = 64 * 1024;

/// What we speak beyond BEP 3.
const RESERVED: Reserved = Reserved::NONE.with_extension().with_fast();

/// See the module.
pub struct Server {
    settings: Settings,
    rng: Rng,
    out: Out,
    /// After [`Command::Shutdown`] nobody comes in.
    shut: bool,
    directory: Directory,
    finding: Finding,
    /// By a router's help.
    reach: Option<Reach>,
    /// Who may be talked to.
    gate: Gate,

    /// Handshakes under way; at most `max_pending` of callers, and of dials.
    shaking: BTreeMap<ConnId, Shaking>,
    /// When each of them must be done.
    deadlines: BTreeSet<(Time, ConnId)>,
    callers: Callers,

    dials: Dials,
    manners: Manners,

    /// Connections of the Shards, and what of our handshake the shell has not fetched; at most `max_conns`.
    handed: BTreeMap<ConnId, Unsent>,
}

impl Server {
    /// A Server without torrents.
    pub fn new(settings: Settings, seed: [u8; 32]) -> Server {
        let mut rng = Rng::from_seed(seed);
        // Finding rolls dice of the same seed.
        rng.set_stream(1);
        Server {
            finding: Finding::new(&settings, seed),
            dials: Dials::new(&settings),
            gate: settings.gate.clone(),
            settings,
            rng,
            out: Out::default(),
            shut: false,
            reach: None,
            directory: Directory::default(),
            shaking: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            callers: Callers::default(),
            manners: Manners::default(),
            handed: BTreeMap::new(),
        }
    }

    /// Somebody called. They have ten seconds from now to say who they are and what they want.
    pub fn on_accepted(&mut self, now: Time, conn: ConnId, from: SocketAddr, carrier: Carrier) {
        let from = normal(from);
        let spoken = if carrier == Carrier::Tcp { self.settings.tcp } else { self.settings.utp };
        let refusal = if self.gate.blocks(from.ip()) {
            Some(Goodbye::Banned)
        } else if self.shut || !spoken {
            Some(Goodbye::Leaving)
        } else {
            (!self.make_room_for_caller(from)).then_some(Goodbye::Crowded)
        };
        if let Some(why) = refusal {
            return self.out.net.push(Net::Close(conn, why));
        }
        self.callers.add(from, now, conn);
        self.begin(conn, Shaking::caller(from, now, carrier, self.settings.encrypt_in));
    }

    /// A dial has ended, well or not.
    pub fn on_dialed(&mut self, now: Time, dial: DialId, result: Result<ConnId, String>) {
        let answer = self.dials.on_dialed(now, dial, result.is_ok());
        match (answer, result) {
            (Answer::Won(dial, carrier), Ok(conn)) => self.greet(now, conn, dial, carrier),
            (Answer::Failed(dial), Err(text)) => self.say_failed(&dial, Goodbye::Failed(text)),
            (_, Ok(conn)) => self.out.net.push(Net::Close(conn, Goodbye::Leaving)),
            (_, Err(_)) => self.release_dials(now),
        }
    }

    /// A caller spoke TLS, and proved by its certificate that it belongs to this torrent. Said before its first bytes.
    pub fn on_proved(&mut self, conn: ConnId, torrent: TorrentId) {
        if let Some(shaking) = self.shaking.get_mut(&conn) {
            shaking.proved(torrent);
        }
    }

    /// A [`Net::Sum`] was done.
    pub fn on_total(&mut self, _now: Time, conn: ConnId, total: Total) {
        let Some(shaking) = self.shaking.get_mut(&conn) else { return };
        shaking.on_total(total);
        self.write(conn);
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
            Command::Gate(gate) => self.set_gate(gate),
            Command::Shutdown => self.shut_down(),
        }
    }

    /// A datagram came.
    pub fn on_datagram(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) {
        let from = normal(from);
        if self.lets_in(from.ip()) {
            self.finding.on_datagram(now, from, bytes, &mut self.out);
        }
    }

    /// A datagram came to the group of local discovery (BEP 14).
    pub fn on_lsd(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) {
        let from = normal(from);
        if self.lets_in(from.ip()) {
            self.finding.on_lsd(now, from, bytes, &mut self.out);
        }
    }

    /// The name of a UDP tracker was looked up.
    pub fn on_resolved(&mut self, now: Time, torrent: TorrentId, fetch: &Fetch, to: SocketAddr) {
        if self.lets_in(to.ip()) {
            return self.finding.ask(now, torrent, fetch, to, &mut self.out);
        }
        let result = Err(FetchFailure::Unreachable(gate::BLOCKED.into()));
        self.out.notes.push(Note::Fetched { torrent, fetch: fetch.id, result });
    }

    /// No datagram can be sent to `to`, says the system: `why`, in words. Who waits for an answer from there need not.
    pub fn on_unreachable(&mut self, now: Time, to: SocketAddr, why: &str) {
        // Nothing is planned; the time is taken because every event has one.
        let _ = now;
        self.finding.on_unreachable(normal(to), why, &mut self.out);
    }

    /// Bytes came on a connection whose handshake is under way.
    pub fn on_bytes(&mut self, _now: Time, conn: ConnId, bytes: &[u8]) -> Ate {
        if self.handed.contains_key(&conn) {
            // On its way to the Shard, for whom the shell shall keep them.
            return Ate { bytes: 0, thirsty: true };
        }
        let offered = &bytes[..bytes.len().min(HANDSHAKE_BYTES + MOST_LEFTOVER_BYTES)];
        if let Err(why) = self.hear(conn, offered) {
            self.end(conn, why);
            // Bytes of a connection that is being closed do not matter.
            return Ate { bytes: bytes.len(), thirsty: false };
        }
        Ate { bytes: offered.len(), thirsty: false }
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
        if let Some(shaking) = self.take(conn) {
            self.failed(&shaking, why);
        }
    }

    /// A note from a Shard.
    pub fn on_note(&mut self, now: Time, note: Note) {
        match note {
            Note::Dial { torrent, to, road } => self.dial(now, torrent, to, road),
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
        self.finding.heartbeat(now, &mut self.out);
        handshake.min(self.dials.next_due()).min(self.finding.next_due())
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
        let info = seating.meta.info();
        if self.directory.add(torrent, seating.meta.wire_hash(), !info.private, info.tls_root.is_some()) {
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
        if !self.shut && self.directory.add(torrent, seeking.hashes.wire(), true, false) {
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
        for dial in self.dials.end_all(|dial| dial.torrent == torrent) {
            self.say_failed(&dial, Goodbye::Leaving);
        }
    }
}

/// Dials.
impl Server {
    fn dial(&mut self, now: Time, torrent: TorrentId, to: SocketAddr, road: Road) {
        let Some(info_hash) = self.directory.hash_of(torrent) else {
            return self.out.notes.push(Note::DialFailed { torrent, to, why: Goodbye::Leaving });
        };
        let dial = self.dial_of(torrent, to, info_hash, road);
        if road == Road::Utp && dial.road == Road::Tls {
            return self.say_failed(&dial, Goodbye::Useless);
        }
        if !self.lets_in(to.ip()) {
            return self.say_failed(&dial, Goodbye::Banned);
        }
        if !self.has_room_for_dial() || !self.dials.has_room() {
            return self.say_failed(&dial, Goodbye::Crowded);
        }
        self.dials.add(dial);
        self.release_dials(now);
    }

    fn release_dials(&mut self, now: Time) {
        loop {
            let room = self.has_room_for_dial();
            match self.dials.release(now, room, &mut self.out.net) {
                Released::Nothing => return,
                Released::Began => {}
                Released::Crowded(dial) => self.say_failed(&dial, Goodbye::Crowded),
            }
        }
    }

    fn has_room_for_dial(&self) -> bool {
        let under_way = self.dials.sockets() + self.shaking.len() - self.callers.count();
        under_way < self.settings.max_pending && self.conns() < self.settings.max_conns
    }

    /// A connection stands that was asked for.
    fn greet(&mut self, now: Time, conn: ConnId, dial: Dial, carrier: Carrier) {
        let ours = self.ours(dial.info_hash);
        let how = self.settings.encrypt_out;
        let (shaking, sum) = Shaking::dialed(dial, now, carrier, &ours, how, &mut self.rng);
        self.begin(conn, shaking);
        self.calculate(conn, sum);
        self.write(conn);
    }

    /// A handshake came to nothing. If we called, somebody was there: who does not understand how we spoke may
    /// understand the other way, and who ended TCP without a word may want uTP (libtorrent listens by TCP even if it
    /// is told to speak uTP alone).
    fn failed(&mut self, shaking: &Shaking, why: Goodbye) {
        let Side::Dialed(dial) = shaking.side else { return };
        let open = self.directory.hash_of(dial.torrent).is_some();
        let ended = matches!(why, Goodbye::Closed | Goodbye::Failed(_));
        let misheard = ended || matches!(why, Goodbye::Broke(_) | Goodbye::Silent);
        let by_tcp = shaking.carrier == Carrier::Tcp && dial.road == Road::Any;
        if open && misheard && dial.other_way {
            let again = Dial { encrypted: !dial.encrypted, other_way: false, ..dial };
            self.dials.add_first(again);
        } else if open && ended && by_tcp && !shaking.heard && self.settings.utp {
            self.dials.add_first(self.dial_of(dial.torrent, dial.to, dial.info_hash, Road::Utp));
        } else {
            self.say_failed(&dial, why);
        }
    }

    fn dial_of(&self, torrent: TorrentId, to: SocketAddr, info_hash: InfoHash, road: Road) -> Dial {
        let how = self.settings.encrypt_out;
        let other_way = matches!(how, Encryption::Prefer | Encryption::Allow);
        let otherwise = other_way && self.manners.otherwise(to);
        let encrypted = self.encrypts_first() != otherwise;
        if self.directory.is_tls(torrent) {
            // What is inside TLS hides nothing any more by being encrypted twice.
            return Dial { torrent, to, info_hash, road: Road::Tls, encrypted: false, other_way: false };
        }
        Dial { torrent, to, info_hash, road, encrypted, other_way }
    }

    /// Whether we begin encrypted with those of whom we know nothing.
    fn encrypts_first(&self) -> bool {
        matches!(self.settings.encrypt_out, Encryption::Prefer | Encryption::Require)
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
        self.handed.len() + self.shaking.len() + self.dials.sockets()
    }

    fn reserved(&self) -> Reserved {
        if self.settings.dht { RESERVED.with_dht() } else { RESERVED }
    }

    fn ours(&self, info_hash: InfoHash) -> Handshake {
        Handshake { reserved: self.reserved(), info_hash, peer_id: self.settings.peer_id }
    }

    fn begin(&mut self, conn: ConnId, shaking: Shaking) {
        self.deadlines.insert((shaking.since + HANDSHAKE_PATIENCE, conn));
        self.shaking.insert(conn, shaking);
    }

    /// There may be something to write.
    fn write(&mut self, conn: ConnId) {
        if self.shaking.get(&conn).is_some_and(|shaking| !shaking.unsent.rest().is_empty()) {
            self.out.net.push(Net::Write(conn));
        }
    }

    fn calculate(&mut self, conn: ConnId, sums: impl IntoIterator<Item = Sum>) {
        self.out.net.extend(sums.into_iter().map(|sum| Net::Sum(conn, Box::new(sum))));
    }

    /// Bytes of a handshake came.
    fn hear(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), Goodbye> {
        let Some(shaking) = self.shaking.get_mut(&conn) else { return Ok(()) };
        let before = shaking.unsent.rest().len();
        let (directory, encrypt_in, mut sums) = (&self.directory, self.settings.encrypt_in, Vec::new());
        let who = |req2| directory.hash_by(req2);
        let mut ears = Ears { rng: &mut self.rng, encrypt_in, who: &who, sums: &mut sums };
        let progress = shaking.hear(&mut ears, bytes);
        let says = shaking.unsent.rest().len() > before;
        self.calculate(conn, sums);
        if says {
            self.write(conn);
        }
        let (info_hash, whole) = match progress? {
            Progress::Whole(theirs) => (theirs.info_hash, Some(theirs)),
            Progress::Partial { info_hash: Some(info_hash), .. } => (info_hash, None),
            Progress::Partial { info_hash: None, .. } => return Ok(()),
        };
        self.agree(conn, info_hash)?;
        match whole {
            Some(theirs) if theirs.peer_id == self.settings.peer_id => self.met_ourselves(conn),
            Some(theirs) => self.hand(conn, &theirs),
            None => {}
        }
        Ok(())
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
                let wanted = self.directory.torrent_of(info_hash).ok_or(Goodbye::Unknown)?;
                // Who proved to belong to one torrent has proved nothing for another.
                if shaking.proved != self.directory.is_tls(wanted).then_some(wanted) {
                    return Err(Goodbye::Unknown);
                }
                *torrent = Some(wanted);
                shaking.answer(&ours);
                self.write(conn);
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
    fn hand(&mut self, conn: ConnId, theirs: &Handshake) {
        let Some(shaking) = self.take(conn) else { return };
        let Parts { side, carrier, unsent, ciphers, leftover } = shaking.into_parts();
        let (torrent, addr, outgoing) = match side {
            Side::Dialed(dial) => {
                if dial.road != Road::Tls {
                    self.manners.understood(dial.to, dial.encrypted != self.encrypts_first());
                }
                (dial.torrent, dial.to, true)
            }
            Side::Caller { from, torrent: Some(torrent) } => (torrent, from, false),
            Side::Caller { .. } => {
                return debug_assert!(false, "nobody is handed over before it said what it wants");
            }
        };
        self.handed.insert(conn, unsent);
        self.out.notes.push(Note::Hand(Box::new(Handed {
            conn,
            torrent,
            addr,
            peer_id: theirs.peer_id,
            reserved: theirs.reserved,
            outgoing,
            carrier,
            ciphers,
            leftover,
        })));
    }

    /// Ends a handshake from our side.
    fn end(&mut self, conn: ConnId, why: Goodbye) {
        let Some(shaking) = self.take(conn) else { return };
        self.out.net.push(Net::Close(conn, why.clone()));
        self.failed(&shaking, why);
    }

    /// Forgets a handshake, wherever it is noted.
    fn take(&mut self, conn: ConnId) -> Option<Shaking> {
        let shaking = self.shaking.remove(&conn)?;
        self.deadlines.remove(&(shaking.since + HANDSHAKE_PATIENCE, conn));
        if let Side::Caller { from, .. } = shaking.side {
            self.callers.remove(from, shaking.since, conn);
        }
        Some(shaking)
    }
}

#[cfg(test)]
mod tests;
