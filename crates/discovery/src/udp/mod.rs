//! UDP trackers (BEP 15, 41): requests of all torrents of this program, made into datagrams and back into answers.
//!
//! Owns the connection ids, the retransmissions and the waiting lines. There is one of it in a program, because torrents
//! share trackers: a connection id is good for a tracker's address, whoever asks. When to announce, and what an answer
//! means, stays with [`crate::tracker`]: a request comes as the same [`Fetch`] that HTTP takes, its URL carrying the
//! same query, and its outcome goes back as the body an HTTP tracker would have sent. So nothing above knows by which
//! way a tracker was asked. Names are looked up, and addresses judged (may a torrent make us send there?), by the
//! caller before [`UdpTrackers::ask`].
//!
//! The rules, where BEP 15 leaves a choice or we differ from it:
//! 1. *A request is sent four times, after 15, 30 and 60 s, and is given up 120 s later.* BEP 15 goes on to 3840 s:
//!    more than two hours before the next tracker of a tier is asked. A lane returns by itself with longer pauses, so
//!    patience here would only make failover slow.
//! 2. *Who does not connect fails for all who wait for it.* Their requests began later, but there is nothing to gain
//!    by finding out again.
//! 3. *One address has 50 requests out at most*, others wait in line, and their patience begins with their turn.
//!    Farewells do not wait: somebody waits for them.
//! 4. *An answer counts only from the very address asked*, with the transaction we drew and the kind we asked for.
//!    All else is counted and ignored, as if it were lost.

mod host;
mod question;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_metainfo::{Time, TorrentId};
use piecemeal_wire::tracker::udp::{self as wire, Transaction, UdpAnswer};
use piecemeal_wire::tracker::{AnnounceFailure, PeerForm};
use rand_core::Rng;

use crate::tracker::{Fetch, FetchFailure, FetchId};
use host::{Connection, Host};
use question::Question;
pub use question::{Place, place};

/// How long to wait after the first send (BEP 15); doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(15);

/// How often a datagram is sent.
const SENDS: u32 = 4;

/// How long a tracker may take in all: 15 + 30 + 60 + 120 s.
pub const PATIENCE: Duration = Duration::from_secs(225);

/// How long a connection id may be used (BEP 15: one minute; servers take it for two).
const CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// Requests out at one address, as many as HTTP has out at all; each answer may be a datagram of 1,220 bytes, which a
/// receive buffer of 200 KiB takes at once.
const WINDOW: usize = 50;

/// Requests in all, waiting or out: a burst of all torrents of a large session. Each costs some 400 bytes.
const REQUESTS_MAX: usize = 16_384;

/// A datagram to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub bytes: Vec<u8>,
}

/// What came of a request; each request has exactly one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// Whose request it was.
    pub torrent: TorrentId,
    /// Which.
    pub id: FetchId,
    /// For [`crate::tracker::Trackers::on_fetched`]: an answer in the bencoded form of HTTP trackers (BEP 3, BEP 48),
    /// a tracker's refusal among them, or why there is none.
    pub result: Result<Vec<u8>, FetchFailure>,
}

/// What leaves; drained by the caller after each call.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UdpOut {
    /// To be sent. One that the system refuses may be dropped, or told to [`UdpTrackers::on_unreachable`].
    pub datagrams: Vec<Datagram>,
    /// To be told.
    pub fetched: Vec<Fetched>,
}

/// Datagrams that were ignored, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ignored {
    /// From an address that was not asked, or with a transaction that is not out there: forged, or late.
    pub strange: u64,
    /// Too short, or of no kind.
    pub malformed: u64,
    /// An answer to another kind of question.
    pub wrong_kind: u64,
}

/// All that is under way with UDP trackers.
#[derive(Debug, Default)]
pub struct UdpTrackers {
    /// Bound: one for each address with a request, and for a minute after it was answered.
    hosts: BTreeMap<SocketAddr, Host>,
    /// Bound: [`REQUESTS_MAX`].
    asks: BTreeMap<Transaction, Ask>,
    /// When each of them wants the heartbeat.
    agenda: BTreeSet<(Time, Due)>,
    ignored: Ignored,
}

/// Who is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Due {
    Ask(Transaction),
    Host(SocketAddr),
}

/// One request.
#[derive(Debug)]
struct Ask {
    torrent: TorrentId,
    id: FetchId,
    to: SocketAddr,
    question: Question,
    timeout: Duration,
    stage: Stage,
    /// It was refused for its connection id once.
    reconnected: bool,
}

/// How far a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// In line.
    Waiting,
    /// Its turn has come, but there is no connection id yet. Given up at `until`.
    Connecting { until: Time },
    /// Sent so many times. To be looked at again at `next`, which is no later than `until`.
    Sent { sends: u32, next: Time, until: Time },
}

impl UdpTrackers {
    /// Nothing under way.
    pub fn new() -> UdpTrackers {
        UdpTrackers::default()
    }

    /// Asks what `fetch` asks (a URL as [`piecemeal_wire::tracker::announce_url`] or `scrape_url` makes it) of `to`,
    /// which the URL's host stands for in the family wanted. What can not be asked is told at once.
    pub fn ask<R: Rng + ?Sized>(
        &mut self,
        now: Time,
        rng: &mut R,
        (torrent, fetch): (TorrentId, &Fetch),
        to: SocketAddr,
        out: &mut UdpOut,
    ) {
        let to = canonical(to);
        let question = match Question::read(&fetch.url) {
            _ if self.asks.len() >= REQUESTS_MAX => Err("too many requests are waiting".to_owned()),
            read => read,
        };
        let question = match question {
            Ok(question) => question,
            Err(why) => {
                let result = Err(FetchFailure::Unreachable(why));
                out.fetched.push(Fetched { torrent, id: fetch.id, result });
                return;
            }
        };
        let mut transaction = Transaction(rng.next_u32());
        while self.asks.contains_key(&transaction) {
            transaction = Transaction(rng.next_u32());
        }
        let hurried = question.is_farewell();
        let (id, timeout, stage) = (fetch.id, fetch.timeout, Stage::Waiting);
        let ask = Ask { torrent, id, to, question, timeout, stage, reconnected: false };
        self.asks.insert(transaction, ask);
        let host = self.hosts.entry(to).or_default();
        if hurried || host.out < WINDOW {
            self.take_turn(now, rng, transaction, out);
        } else {
            host.line.push_back(transaction);
        }
    }

    /// A datagram came. True if it was an answer to something asked; if not, it may be somebody else's.
    pub fn on_datagram<R: Rng + ?Sized>(
        &mut self,
        now: Time,
        rng: &mut R,
        from: SocketAddr,
        bytes: &[u8],
        out: &mut UdpOut,
    ) -> bool {
        let from = canonical(from);
        let answer = match UdpAnswer::decode(bytes) {
            Ok(answer) => answer,
            Err(_) => {
                self.ignored.malformed += 1;
                return false;
            }
        };
        let transaction = answer.transaction();
        if self.hosts.get(&from).is_some_and(|host| host.connection.awaits(transaction)) {
            self.on_greeted(now, rng, from, &answer, out);
        } else if self.asks.get(&transaction).is_some_and(|ask| ask.to == from && ask.is_sent()) {
            self.on_answer(now, rng, transaction, &answer, out);
        } else {
            self.ignored.strange += 1;
            return false;
        }
        true
    }

    /// The system says that nothing can be sent to `to` (no route, port closed): who waits for it is told. An address
    /// that is not asked is somebody else's.
    pub fn on_unreachable(&mut self, to: SocketAddr, why: &str, out: &mut UdpOut) {
        let to = canonical(to);
        if self.hosts.contains_key(&to) {
            self.fail_host(to, &Err(FetchFailure::Unreachable(why.to_owned())), out);
        }
    }

    /// Sends again what is due, and gives up what is overdue. Afterwards `next_due` lies ahead of `now`.
    pub fn heartbeat<R: Rng + ?Sized>(&mut self, now: Time, rng: &mut R, out: &mut UdpOut) {
        while let Some((time, due)) = self.agenda.first().copied()
            && time <= now
        {
            self.agenda.pop_first();
            match due {
                Due::Ask(transaction) => self.ask_due(now, rng, transaction, out),
                Due::Host(to) => self.host_due(now, to, out),
            }
        }
    }

    /// When `heartbeat` has something to do; `Time::NEVER`: not before something happens.
    pub fn next_due(&self) -> Time {
        self.agenda.first().map_or(Time::NEVER, |(time, _)| *time)
    }

    /// Requests under way, in line ones included.
    pub fn len(&self) -> usize {
        self.asks.len()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.asks.is_empty()
    }

    /// What was ignored since the beginning.
    pub fn ignored(&self) -> Ignored {
        self.ignored
    }

    /// A request's turn has come.
    fn take_turn<R: Rng + ?Sized>(
        &mut self,
        now: Time,
        rng: &mut R,
        transaction: Transaction,
        out: &mut UdpOut,
    ) {
        let Some(ask) = self.asks.get_mut(&transaction) else { return };
        let until = now + ask.timeout;
        ask.stage = Stage::Connecting { until };
        self.agenda.insert((until, Due::Ask(transaction)));
        if let Some(host) = self.hosts.get_mut(&ask.to) {
            host.out += 1;
        }
        self.go_on(now, rng, transaction, out);
    }

    /// Sends a request that is not in line, if there is a connection id, and asks for one if there is none.
    fn go_on<R: Rng + ?Sized>(&mut self, now: Time, rng: &mut R, transaction: Transaction, out: &mut UdpOut) {
        let Some(ask) = self.asks.get_mut(&transaction) else { return };
        let Some(host) = self.hosts.get_mut(&ask.to) else { return };
        let (before, sends, until) = match ask.stage {
            Stage::Waiting => return,
            Stage::Connecting { until } => (until, 0, until),
            Stage::Sent { sends, next, until } => (next, sends, until),
        };
        self.agenda.remove(&(before, Due::Ask(transaction)));
        let Some(connection) = host.connection.id(now) else {
            ask.stage = Stage::Connecting { until };
            self.agenda.insert((until, Due::Ask(transaction)));
            if !host.connection.is_asked() {
                let to = ask.to;
                self.connect(now, rng, to, out);
            }
            return;
        };
        let next = (now + wait(sends)).min(until);
        ask.stage = Stage::Sent { sends: sends + 1, next, until };
        self.agenda.insert((next, Due::Ask(transaction)));
        out.datagrams.push(Datagram { to: ask.to, bytes: ask.question.datagram(connection, transaction) });
    }

    /// Asks for a connection id, for the first time.
    fn connect<R: Rng + ?Sized>(&mut self, now: Time, rng: &mut R, to: SocketAddr, out: &mut UdpOut) {
        let Some(host) = self.hosts.get_mut(&to) else { return };
        self.agenda.remove(&(host.next, Due::Host(to)));
        let transaction = Transaction(rng.next_u32());
        host.connection = Connection::Asked { transaction, sends: 1 };
        host.next = now + wait(0);
        self.agenda.insert((host.next, Due::Host(to)));
        out.datagrams.push(Datagram { to, bytes: wire::connect_request(transaction).to_vec() });
    }

    /// A request is to be sent again, or over.
    fn ask_due<R: Rng + ?Sized>(
        &mut self,
        now: Time,
        rng: &mut R,
        transaction: Transaction,
        out: &mut UdpOut,
    ) {
        let Some(ask) = self.asks.get(&transaction) else { return };
        match ask.stage {
            Stage::Sent { sends, until, .. } if now < until && sends < SENDS => {
                self.go_on(now, rng, transaction, out);
            }
            _ => self.finish(now, rng, transaction, Err(FetchFailure::TimedOut), out),
        }
    }

    /// A request to connect is to be sent again or over, or a connection id has expired.
    fn host_due(&mut self, now: Time, to: SocketAddr, out: &mut UdpOut) {
        let Some(host) = self.hosts.get_mut(&to) else { return };
        match &mut host.connection {
            Connection::Asked { transaction, sends } if *sends < SENDS => {
                host.next = now + wait(*sends);
                *sends += 1;
                self.agenda.insert((host.next, Due::Host(to)));
                out.datagrams.push(Datagram { to, bytes: wire::connect_request(*transaction).to_vec() });
            }
            Connection::Asked { .. } => self.fail_host(to, &Err(FetchFailure::TimedOut), out),
            Connection::Known { .. } | Connection::None => {
                host.connection = Connection::None;
                self.leave_if_idle(to);
            }
        }
    }

    /// The answer to a request to connect.
    fn on_greeted<R: Rng + ?Sized>(
        &mut self,
        now: Time,
        rng: &mut R,
        from: SocketAddr,
        answer: &UdpAnswer<'_>,
        out: &mut UdpOut,
    ) {
        match answer {
            UdpAnswer::Connected { connection, .. } => {
                let Some(host) = self.hosts.get_mut(&from) else { return };
                self.agenda.remove(&(host.next, Due::Host(from)));
                host.next = now + CONNECTION_LIFE;
                host.connection = Connection::Known { id: *connection, until: host.next };
                self.agenda.insert((host.next, Due::Host(from)));
                for transaction in self.connecting(from) {
                    self.go_on(now, rng, transaction, out);
                }
            }
            UdpAnswer::Failed { message, .. } => self.fail_host(from, &Ok(refusal(message)), out),
            _ => self.ignored.wrong_kind += 1,
        }
    }

    /// The answer to a request that is out at the address it came from.
    fn on_answer<R: Rng + ?Sized>(
        &mut self,
        now: Time,
        rng: &mut R,
        transaction: Transaction,
        answer: &UdpAnswer<'_>,
        out: &mut UdpOut,
    ) {
        let Some(ask) = self.asks.get_mut(&transaction) else { return };
        let body = match (answer, &ask.question) {
            (UdpAnswer::Announced { answer, .. }, Question::Announce { .. }) => {
                answer.into_answer(ask.to.is_ipv6()).encode(PeerForm::Compact)
            }
            (UdpAnswer::Scraped { counts, .. }, Question::Scrape { hashes }) => {
                question::scrape_answer(hashes, *counts).encode()
            }
            (UdpAnswer::Failed { message, .. }, _) if !ask.reconnected && blames_connection(message) => {
                // The tracker was started anew, or our address has changed; a fresh id tells.
                ask.reconnected = true;
                if let Some(host) = self.hosts.get_mut(&ask.to)
                    && !host.connection.is_asked()
                {
                    host.connection = Connection::None;
                }
                return self.go_on(now, rng, transaction, out);
            }
            (UdpAnswer::Failed { message, .. }, _) => refusal(message),
            _ => {
                self.ignored.wrong_kind += 1;
                return;
            }
        };
        self.finish(now, rng, transaction, Ok(body), out);
    }

    /// One request is over: it is told, and the next in line has its turn.
    fn finish<R: Rng + ?Sized>(
        &mut self,
        now: Time,
        rng: &mut R,
        transaction: Transaction,
        result: Result<Vec<u8>, FetchFailure>,
        out: &mut UdpOut,
    ) {
        let Some(to) = self.tell(transaction, result, out) else { return };
        let Some(host) = self.hosts.get_mut(&to) else { return };
        host.out -= 1;
        if host.out < WINDOW
            && let Some(next) = host.line.pop_front()
        {
            self.take_turn(now, rng, next, out);
        }
        self.leave_if_idle(to);
    }

    /// All requests to an address are over.
    fn fail_host(&mut self, to: SocketAddr, result: &Result<Vec<u8>, FetchFailure>, out: &mut UdpOut) {
        let all: Vec<Transaction> = self.at(to).collect();
        for transaction in all {
            self.tell(transaction, result.clone(), out);
        }
        if let Some(host) = self.hosts.remove(&to) {
            self.agenda.remove(&(host.next, Due::Host(to)));
        }
    }

    /// Takes a request out and tells its outcome; where it was asked.
    fn tell(
        &mut self,
        transaction: Transaction,
        result: Result<Vec<u8>, FetchFailure>,
        out: &mut UdpOut,
    ) -> Option<SocketAddr> {
        let ask = self.asks.remove(&transaction)?;
        match ask.stage {
            Stage::Waiting => {}
            Stage::Connecting { until: next } | Stage::Sent { next, .. } => {
                self.agenda.remove(&(next, Due::Ask(transaction)));
            }
        }
        out.fetched.push(Fetched { torrent: ask.torrent, id: ask.id, result });
        Some(ask.to)
    }

    /// An address with nothing to ask and no connection id to remember is forgotten.
    fn leave_if_idle(&mut self, to: SocketAddr) {
        let idle = |host: &Host| {
            host.out == 0 && host.line.is_empty() && !matches!(host.connection, Connection::Known { .. })
        };
        if let Some(host) = self.hosts.get(&to)
            && idle(host)
        {
            self.agenda.remove(&(host.next, Due::Host(to)));
            self.hosts.remove(&to);
        }
    }

    /// All requests to an address. Looks at all there are: for rare events only.
    fn at(&self, to: SocketAddr) -> impl Iterator<Item = Transaction> + '_ {
        self.asks.iter().filter(move |(_, ask)| ask.to == to).map(|(transaction, _)| *transaction)
    }

    /// Those that wait for a connection id.
    fn connecting(&self, to: SocketAddr) -> Vec<Transaction> {
        let waits = |transaction: &Transaction| {
            self.asks.get(transaction).is_some_and(|ask| matches!(ask.stage, Stage::Connecting { .. }))
        };
        self.at(to).filter(waits).collect()
    }
}

impl Ask {
    fn is_sent(&self) -> bool {
        matches!(self.stage, Stage::Sent { .. })
    }
}

/// An IPv4 address is one, however the system's socket writes it.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// How long to wait after the send that follows `sends` others.
fn wait(sends: u32) -> Duration {
    FIRST_WAIT * (1 << sends.min(SENDS - 1))
}

/// A refusal in the words of HTTP trackers.
fn refusal(message: &[u8]) -> Vec<u8> {
    AnnounceFailure { reason: wire::words(message), retry_in: None }.encode()
}

/// Whether a refusal is one of the connection id. No tracker has another word for it.
fn blames_connection(message: &[u8]) -> bool {
    wire::words(message).to_ascii_lowercase().contains("connection")
}

#[cfg(test)]
mod tests;
