//! The addresses of a swarm: who may be dialed, when, and who may not come back.
//!
//! Owns what is known of each address, bans, failures, and which peer ids are connected. It dials nobody: the
//! Controller asks for an address when it has room, and tells what came of it. Where addresses come from (trackers,
//! DHT, PEX, LSD) is `discovery`'s business; whether a connection stays is the Controller's.
//!
//! The life of an address: `learn`, `next_to_dial`, then `dial_failed` or `connected`, then `disconnected`. A
//! connection that [`Swarm::connected`] refuses is forgotten here at once and needs no other call.

mod address;
mod twins;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_metainfo::{PeerId, Time};
use rand_core::Rng;

use crate::outside::Outside;
use address::{Known, State, mixed};
pub use address::{PeerSource, can_be_dialed, normal};
pub use twins::Twin;

/// A peer is not dialed again sooner after a connection ended (libtorrent's `min_reconnect_time`).
const RECONNECT_AFTER: Duration = Duration::from_secs(60);

/// The pause after the first failure; it doubles with each (up to [`LONGEST_PAUSE`]).
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// No pause is longer: a peer that was away for a day should be found again within the hour.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// A peer that had nothing for us may have something after this long (a guess).
const IDLE_PAUSE: Duration = Duration::from_secs(600);

/// The user named this peer: try again soon, for ever.
const MANUAL_FIRST_PAUSE: Duration = Duration::from_secs(1);

/// See [`MANUAL_FIRST_PAUSE`].
const MANUAL_LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// There was no room to dial: a few seconds may make some.
const POSTPONED: Duration = Duration::from_secs(5);

/// How many due addresses are compared for one dial. They lie in random order; more would only cost.
const COMPARED: usize = 16;

/// Bans remembered. More than this many guilty addresses in one swarm is a flood; the oldest are forgiven.
const MOST_BANS: usize = 4_096;

/// Addresses of our own remembered: one a network interface and address family, and some.
const MOST_OWN: usize = 64;

/// Bounds of a Swarm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SwarmLimits {
    /// Addresses remembered, those of callers not counted (libtorrent's `max_peerlist_size` is 3000).
    pub addresses: usize,
    /// Connections with one IP address at a time. High by default, so that peers behind one NAT, or on one machine,
    /// can all be met.
    pub per_ip: usize,
    /// Failures in a row after which an address is forgotten; with pauses of 1, 2, 4, ... minutes six are an hour.
    pub failures: u32,
}

impl Default for SwarmLimits {
    fn default() -> SwarmLimits {
        SwarmLimits { addresses: 3_000, per_ip: 64, failures: 6 }
    }
}

/// Why a connection must not be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// This address, or this peer id at another address, is connected already.
    Duplicate,
    /// It is us.
    Ourselves,
    /// Its IP address is banned.
    Banned,
    /// Its IP address has as many connections as one may have.
    Crowded,
}

/// Why a connection ended, as far as it matters for dialing again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It broke the protocol, or never did anything; counts as a failure.
    Fault,
    /// Neither side had anything for the other.
    Idle,
    /// Any other end.
    Normal,
}

/// How many addresses are in which state.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SwarmCounts {
    /// All addresses remembered.
    pub known: usize,
    /// Handed out by `next_to_dial`, without result yet.
    pub dialing: usize,
    /// Connected, whoever called.
    pub connected: usize,
    /// Waiting for their time to be dialed.
    pub waiting: usize,
    /// Known to be seeds.
    pub seeds: usize,
    /// Banned IP addresses.
    pub banned: usize,
}

/// All known addresses of one torrent.
#[derive(Clone, Debug)]
pub struct Swarm {
    limits: SwarmLimits,
    own_id: PeerId,
    own: VecDeque<SocketAddr>,
    known: BTreeMap<SocketAddr, Known>,
    /// When to dial whom; the number between shuffles those due together. Exactly the entries for which
    /// [`Swarm::may_queue`] holds.
    queue: BTreeSet<(Time, u32, SocketAddr)>,
    ids: BTreeMap<PeerId, SocketAddr>,
    /// Connections by IP address; no entry is zero.
    crowd: BTreeMap<IpAddr, usize>,
    banned: BTreeSet<IpAddr>,
    /// The banned, oldest first.
    ban_order: VecDeque<IpAddr>,
    seeding: bool,
}

impl Swarm {
    /// A swarm of which we know nobody but ourselves.
    pub fn new(own_id: PeerId, limits: SwarmLimits) -> Swarm {
        Swarm {
            limits,
            own_id,
            own: VecDeque::new(),
            known: BTreeMap::new(),
            queue: BTreeSet::new(),
            ids: BTreeMap::new(),
            crowd: BTreeMap::new(),
            banned: BTreeSet::new(),
            ban_order: VecDeque::new(),
            seeding: false,
        }
    }

    /// Remembers an address; true if it is new. Refuses what cannot be dialed, the banned, ourselves, and, when the
    /// list is full, whatever is no better than the worst on it.
    ///
    /// An address that is known keeps its failures and its pause, unless the user names it.
    pub fn learn(&mut self, addr: SocketAddr, source: PeerSource, now: Time) -> bool {
        let addr = normal(addr);
        if !can_be_dialed(addr) || self.banned.contains(&addr.ip()) || self.own.contains(&addr) {
            return false;
        }
        if let Some(mut known) = self.taken_out(addr) {
            if source == PeerSource::Manual && known.source != source {
                (known.failures, known.due) = (0, now);
            }
            known.source = known.source.min(source);
            known.dialable = true;
            self.put_in(addr, known);
            return false;
        }
        if !self.make_room(source) {
            return false;
        }
        self.put_in(addr, Known::new(source, now));
        true
    }

    /// An address whose time has come, the user's own first, then those that failed least, then those never met or not
    /// for long, then those whose connection is worth more (BEP 40). It counts as being dialed until `dial_failed` or `connected` is told of it.
    pub fn next_to_dial<R: Rng + ?Sized>(
        &mut self,
        now: Time,
        rng: &mut R,
        outside: &Outside,
    ) -> Option<SocketAddr> {
        let addr = loop {
            let mut best = None;
            let mut crowded = Vec::new();
            for (_, _, addr) in self.queue.iter().take_while(|(due, ..)| *due <= now).take(COMPARED) {
                let Some(known) = self.known.get(addr) else { continue };
                if self.is_crowded(addr.ip()) {
                    crowded.push(*addr);
                    continue;
                }
                let worth = outside.rank(*addr).unwrap_or_else(|| rng.next_u32());
                let rank = (known.source != PeerSource::Manual, known.failures, known.met, !worth, *addr);
                best = Some(best.map_or(rank, |best| rank.min(best)));
            }
            // They would only be refused; out of the way of those behind them.
            let blocked = !crowded.is_empty();
            for addr in crowded {
                self.change(addr, |known| known.due = now + RECONNECT_AFTER);
            }
            match best {
                Some((.., addr)) => break addr,
                None if blocked => {}
                None => return None,
            }
        };
        self.dialed(addr);
        Some(addr)
    }

    /// When `next_to_dial` may have an answer; `Time::NEVER` if nobody waits. A time past means now.
    pub fn next_due(&self) -> Time {
        self.queue.first().map_or(Time::NEVER, |(due, ..)| *due)
    }

    /// Whoever is at this address calls us just now, so it is to be dialed at once: true if it may be, and then it
    /// counts as being dialed.
    pub fn dial_now(&mut self, addr: SocketAddr, now: Time) -> bool {
        let addr = normal(addr);
        self.learn(addr, PeerSource::Pex, now);
        let waits = self.known.get(&addr).is_some_and(|known| known.state == State::Waiting);
        if waits {
            self.dialed(addr);
        }
        waits
    }

    /// This address is being dialed. `next_to_dial` says so itself; this is for whoever dials unasked.
    pub fn dialed(&mut self, addr: SocketAddr) {
        self.change(normal(addr), |known| {
            if known.state == State::Waiting {
                known.state = State::Dialing;
            }
        });
    }

    /// Nobody there, or no BitTorrent spoken. After enough of these the address is forgotten. Ignored unless it was
    /// being dialed.
    pub fn dial_failed(&mut self, addr: SocketAddr, now: Time) {
        let addr = normal(addr);
        if self.known.get(&addr).is_some_and(|known| known.state == State::Dialing) {
            self.failed(addr, now);
        }
    }

    /// It was not dialed after all, for want of room. Ignored unless it was being dialed.
    pub fn dial_postponed(&mut self, addr: SocketAddr, now: Time) {
        let addr = normal(addr);
        if self.known.get(&addr).is_some_and(|known| known.state == State::Dialing) {
            self.pause(addr, now + POSTPONED);
        }
    }

    /// It may not be dialed, and is forgotten. Ignored unless it was being dialed.
    pub fn dial_refused(&mut self, addr: SocketAddr) {
        let addr = normal(addr);
        if self.known.get(&addr).is_some_and(|known| known.state == State::Dialing) {
            self.taken_out(addr);
        }
    }

    /// The network was away and is back: whoever waits may be dialed at once, and has failed never.
    pub fn reconsider(&mut self, now: Time) {
        for (_, known) in self.known.iter_mut().filter(|(_, known)| known.state == State::Waiting) {
            (known.due, known.failures) = (now, 0);
        }
        self.set_seeding(self.seeding);
    }

    /// A handshake is done: may the connection stay? `incoming` says who called; the port of one who called us is
    /// not where it listens (see [`Swarm::listens_at`]).
    ///
    /// After a refusal there is nothing else to tell.
    pub fn connected(
        &mut self,
        addr: SocketAddr,
        peer_id: PeerId,
        incoming: bool,
        now: Time,
    ) -> Result<(), Refusal> {
        let addr = normal(addr);
        let refusal = self.refusal(addr, peer_id);
        match refusal {
            None => self.admit(addr, peer_id, incoming, now),
            // Nothing is known of a caller's own address, and a connection that stands keeps its entry.
            Some(_) if incoming || self.is_connected(addr) => {}
            Some(Refusal::Ourselves) => self.disown(addr),
            Some(Refusal::Banned) => drop(self.taken_out(addr)),
            Some(Refusal::Crowded) => self.pause(addr, now + RECONNECT_AFTER),
            Some(Refusal::Duplicate) => {
                let other = self.ids.get(&peer_id).copied();
                if !other.is_some_and(|other| self.link(other, addr)) {
                    self.pause(addr, now + LONGEST_PAUSE);
                }
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// The peer connected at `addr` says it listens at `port` (BEP 10, "p"): that address becomes known, and is not
    /// dialed while the connection stands.
    pub fn listens_at(&mut self, addr: SocketAddr, port: u16, now: Time) {
        let addr = normal(addr);
        let mut listens = addr;
        listens.set_port(port);
        if self.is_connected(addr) {
            self.learn(listens, PeerSource::Incoming, now);
            self.link(addr, listens);
        }
    }

    /// A connection that was admitted has ended. Ignored if there is none.
    pub fn disconnected(&mut self, addr: SocketAddr, now: Time, why: Why) {
        let addr = normal(addr);
        let Some(mut known) = self.known.get(&addr).cloned().filter(|known| known.state == State::Connected)
        else {
            return;
        };
        if let Some(id) = known.id.take() {
            self.ids.remove(&id);
        }
        match self.crowd.get_mut(&addr.ip()) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.crowd.remove(&addr.ip())),
        }
        let also = known.also.take();
        // A connection the caller made unasked has its entry beside the list.
        let fits = known.source == PeerSource::Manual || self.known.len() <= self.limits.addresses;
        if known.dialable && fits && !self.banned.contains(&addr.ip()) {
            self.change(addr, |entry| (entry.id, entry.also) = (None, None));
            self.ended(addr, now, why);
        } else {
            self.taken_out(addr);
        }
        if let Some(also) =
            also.filter(|also| self.known.get(also).is_some_and(|k| k.state == State::Elsewhere))
        {
            self.ended(also, now, why);
        }
    }

    /// Forgets the addresses that `who` says, until they are learned again; connections that stand are the caller's to end.
    pub fn forget(&mut self, who: impl Fn(IpAddr) -> bool) {
        let gone =
            self.known.iter().filter(|(addr, known)| known.state != State::Connected && who(addr.ip()));
        for addr in gone.map(|(addr, _)| *addr).collect::<Vec<_>>() {
            self.taken_out(addr);
        }
    }

    /// Never again speak to `ip`. Its addresses are forgotten, connections that stand are the caller's to end.
    pub fn ban(&mut self, ip: IpAddr) {
        let ip = ip.to_canonical();
        if !self.banned.insert(ip) {
            return;
        }
        self.ban_order.push_back(ip);
        if self.ban_order.len() > MOST_BANS
            && let Some(oldest) = self.ban_order.pop_front()
        {
            self.banned.remove(&oldest);
        }
        let gone: Vec<SocketAddr> = self.known.range(address::all_of(ip)).map(|(addr, _)| *addr).collect();
        for addr in gone.into_iter().filter(|addr| addr.ip() == ip) {
            if !self.is_connected(addr) {
                self.taken_out(addr);
            }
        }
    }

    /// Whether `ip` is banned; ask before a handshake is answered.
    pub fn is_banned(&self, ip: IpAddr) -> bool {
        self.banned.contains(&ip.to_canonical())
    }

    /// All banned addresses, for the resume store.
    pub fn banned(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.banned.iter().copied()
    }

    /// The peer connected at `addr` has every piece, or has not after all.
    pub fn set_seed(&mut self, addr: SocketAddr, seed: bool) {
        let addr = normal(addr);
        self.change(addr, |known| known.seed = seed);
        if let Some(also) = self.known.get(&addr).and_then(|known| known.also) {
            self.change(also, |known| known.seed = seed);
        }
    }

    /// Whether we have all we want: then seeds are not dialed.
    pub fn set_seeding(&mut self, seeding: bool) {
        self.seeding = seeding;
        self.queue.clear();
        for (addr, known) in &self.known {
            if known.may_queue(seeding) {
                self.queue.insert((known.due, mixed(*addr, &self.own_id), *addr));
            }
        }
    }

    /// Whether the user named the peer connected at `addr`, or where it listens.
    pub fn is_manual(&self, addr: SocketAddr) -> bool {
        let manual = |known: &&Known| known.source == PeerSource::Manual;
        let known = self.known.get(&normal(addr));
        let also = known.and_then(|known| self.known.get(&known.also?));
        known.iter().chain(also.iter()).any(manual)
    }

    /// How many could be dialed now, if there was room; no more than `most` are counted. Those that found none a moment
    /// ago wait for nothing else.
    pub fn due(&self, now: Time, most: usize) -> usize {
        self.queue.iter().take_while(|(due, ..)| *due <= now + POSTPONED).take(most).count()
    }

    /// Whether a connection with this address stands.
    pub fn is_connected(&self, addr: SocketAddr) -> bool {
        self.known.get(&normal(addr)).is_some_and(|known| known.state == State::Connected)
    }

    /// Addresses worth remembering over a restart, those that answered last first; at most `most`.
    pub fn worth_keeping(&self, most: usize) -> Vec<SocketAddr> {
        let mut good: Vec<_> =
            self.known.iter().filter(|(_, known)| known.dialable && known.failures == 0).collect();
        good.sort_by_key(|(_, known)| (known.state != State::Connected, std::cmp::Reverse(known.met)));
        good.into_iter().take(most).map(|(addr, _)| *addr).collect()
    }

    /// How many addresses are in which state. Walks all of them.
    pub fn counts(&self) -> SwarmCounts {
        let mut counts =
            SwarmCounts { known: self.known.len(), banned: self.banned.len(), ..Default::default() };
        for known in self.known.values() {
            counts.seeds += usize::from(known.seed);
            match known.state {
                State::Dialing => counts.dialing += 1,
                State::Connected => counts.connected += 1,
                State::Waiting | State::Elsewhere => {}
            }
        }
        counts.waiting = self.queue.len();
        counts
    }

    fn refusal(&self, addr: SocketAddr, peer_id: PeerId) -> Option<Refusal> {
        if self.banned.contains(&addr.ip()) {
            Some(Refusal::Banned)
        } else if peer_id == self.own_id {
            Some(Refusal::Ourselves)
        } else if self.is_connected(addr) || self.ids.contains_key(&peer_id) {
            Some(Refusal::Duplicate)
        } else if self.is_crowded(addr.ip()) {
            Some(Refusal::Crowded)
        } else {
            None
        }
    }

    fn is_crowded(&self, ip: IpAddr) -> bool {
        self.crowd.get(&ip).copied().unwrap_or(0) >= self.limits.per_ip
    }

    fn admit(&mut self, addr: SocketAddr, peer_id: PeerId, incoming: bool, now: Time) {
        let mut known = self.taken_out(addr).unwrap_or_else(|| {
            let known = Known::new(PeerSource::Incoming, now);
            Known { dialable: !incoming && can_be_dialed(addr), ..known }
        });
        (known.state, known.id, known.met) = (State::Connected, Some(peer_id), Some(now));
        known.incoming = incoming;
        self.ids.insert(peer_id, addr);
        *self.crowd.entry(addr.ip()).or_default() += 1;
        self.put_in(addr, known);
    }

    /// `addr` turned out to be ours.
    fn disown(&mut self, addr: SocketAddr) {
        self.taken_out(addr);
        if self.own.len() >= MOST_OWN {
            self.own.pop_front();
        }
        self.own.push_back(addr);
    }

    /// `other` is where the peer connected at `addr` listens; false if that cannot be noted.
    fn link(&mut self, addr: SocketAddr, other: SocketAddr) -> bool {
        if self.known.get(&addr).is_some_and(|known| known.also == Some(other)) {
            return true;
        }
        let idle = |known: &Known| matches!(known.state, State::Waiting | State::Dialing);
        let free = self.known.get(&addr).is_some_and(|known| known.also.is_none());
        if addr == other || !free || !self.known.get(&other).is_some_and(idle) {
            return false;
        }
        let seed = self.known.get(&addr).is_some_and(|known| known.seed);
        self.change(addr, |known| known.also = Some(other));
        self.change(other, |known| (known.state, known.seed) = (State::Elsewhere, known.seed || seed));
        true
    }

    fn ended(&mut self, addr: SocketAddr, now: Time, why: Why) {
        match why {
            Why::Fault => self.failed(addr, now),
            Why::Idle => self.pause(addr, now + IDLE_PAUSE),
            Why::Normal => {
                self.pause(addr, now + RECONNECT_AFTER);
                self.change(addr, |known| {
                    known.failures = 0;
                    if known.source == PeerSource::Manual {
                        known.due = now + MANUAL_FIRST_PAUSE;
                    }
                });
            }
        }
    }

    fn pause(&mut self, addr: SocketAddr, due: Time) {
        self.change(addr, |known| (known.state, known.due) = (State::Waiting, due));
    }

    fn failed(&mut self, addr: SocketAddr, now: Time) {
        let most = self.limits.failures;
        let salt = mixed(addr, &self.own_id);
        let Some(mut known) = self.taken_out(addr) else { return };
        known.failures = known.failures.saturating_add(1);
        let manual = known.source == PeerSource::Manual;
        if !manual && known.failures > most {
            return;
        }
        let (first, longest) =
            if manual { (MANUAL_FIRST_PAUSE, MANUAL_LONGEST_PAUSE) } else { (FIRST_PAUSE, LONGEST_PAUSE) };
        let pause = first.saturating_mul(1 << (known.failures - 1).min(16)).min(longest);
        // Up to a quarter more, so that peers that failed together are not tried together.
        let jitter = pause / 4 * (salt.rotate_left(known.failures) & 0xff) / 0xff;
        known.due = now + (pause + jitter).min(longest);
        known.state = State::Waiting;
        self.put_in(addr, known);
    }

    /// Makes sure that one more fits; false if all that is known is better than a newcomer from `source`.
    fn make_room(&mut self, source: PeerSource) -> bool {
        if self.known.len() < self.limits.addresses {
            return true;
        }
        let expendable = |known: &Known| known.state == State::Waiting && known.source != PeerSource::Manual;
        let rank = |known: &Known| (known.failures, known.source, std::cmp::Reverse(known.met));
        let worst =
            self.known.iter().filter(|(_, known)| expendable(known)).max_by_key(|(_, known)| rank(known));
        let Some((addr, known)) = worst else { return false };
        if (known.failures, known.source) <= (0, source) {
            return false;
        }
        let addr = *addr;
        self.taken_out(addr);
        true
    }

    fn change(&mut self, addr: SocketAddr, how: impl FnOnce(&mut Known)) {
        if let Some(mut known) = self.taken_out(addr) {
            how(&mut known);
            self.put_in(addr, known);
        }
    }

    fn taken_out(&mut self, addr: SocketAddr) -> Option<Known> {
        let known = self.known.remove(&addr)?;
        self.queue.remove(&(known.due, mixed(addr, &self.own_id), addr));
        Some(known)
    }

    fn put_in(&mut self, addr: SocketAddr, known: Known) {
        if known.may_queue(self.seeding) {
            self.queue.insert((known.due, mixed(addr, &self.own_id), addr));
        }
        self.known.insert(addr, known);
    }
}

#[cfg(test)]
mod tests;
