//! How many strangers at once, and how often we call.
//!
//! Owns who of the callers has waited longest, and when we dialed. Callers and dials are counted apart, so that neither
//! can keep the other out. A full house never turns a newcomer away while somebody dawdles: sockets that are opened
//! to say nothing would else close the door for ten seconds at a time.
//!
//! Connections that were handed over make no room here, whatever a newcomer is worth: only a Controller knows of what use
//! its peers are. It applies BEP 40 among those of its torrent; and when its dials are turned away because all torrents
//! together have as many connections as they may, it lets peers of no use leave in time (`controller::turnover`). Nobody
//! divides what is free: a torrent that begins in a full house has what others leave, as fast as its dials find it.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::cx::{ConnId, DIALS_A_SECOND, Time};

/// See [`DialRate`].
const SECOND: Duration = Duration::from_secs(1);

/// Whom callers are counted by: an IPv4 address, or the 64 bits of IPv6 that one household has for itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Origin(IpAddr);

impl Origin {
    /// Where `addr` is counted.
    pub(super) fn of(addr: SocketAddr) -> Origin {
        Origin(match addr.ip().to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
            ip => ip,
        })
    }
}

/// The callers whose handshake is under way, by age.
#[derive(Debug, Default)]
pub(super) struct Callers {
    by_age: BTreeSet<(Time, ConnId)>,
    by_origin: BTreeSet<(Origin, Time, ConnId)>,
}

impl Callers {
    /// One more.
    pub(super) fn add(&mut self, from: SocketAddr, since: Time, conn: ConnId) {
        self.by_age.insert((since, conn));
        self.by_origin.insert((Origin::of(from), since, conn));
    }

    /// One that was added so is through, or gone.
    pub(super) fn remove(&mut self, from: SocketAddr, since: Time, conn: ConnId) {
        self.by_age.remove(&(since, conn));
        self.by_origin.remove(&(Origin::of(from), since, conn));
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.by_age.len()
    }

    /// How many there are from where `addr` is counted.
    pub(super) fn count_from(&self, addr: SocketAddr) -> usize {
        self.from(addr).count()
    }

    /// Who waits longest.
    pub(super) fn oldest(&self) -> Option<ConnId> {
        self.by_age.first().map(|(_, conn)| *conn)
    }

    /// Who waits longest of those from where `addr` is counted.
    pub(super) fn oldest_from(&self, addr: SocketAddr) -> Option<ConnId> {
        self.from(addr).next()
    }

    fn from(&self, addr: SocketAddr) -> impl Iterator<Item = ConnId> + '_ {
        let origin = Origin::of(addr);
        let all = (origin, Time::ZERO, ConnId(0))..=(origin, Time::NEVER, ConnId(u64::MAX));
        self.by_origin.range(all).map(|(_, _, conn)| *conn)
    }
}

/// Sees to it that no second holds more dials than it may. The first go at once: a swarm should not start slower than it
/// must.
#[derive(Debug)]
pub(super) struct DialRate {
    /// At least one.
    most: usize,
    /// The last dials, oldest first; at most `most`.
    recent: VecDeque<Time>,
}

impl DialRate {
    /// So many dials in any one second, but never none at all.
    pub(super) fn new(most: usize) -> DialRate {
        DialRate { most: most.max(1), recent: VecDeque::new() }
    }

    /// When the next dial may go.
    pub(super) fn next(&self) -> Time {
        let full = self.recent.len() >= self.most;
        self.recent.front().filter(|_| full).map_or(Time::ZERO, |first| *first + SECOND)
    }

    /// A dial goes now.
    pub(super) fn count(&mut self, now: Time) {
        if self.recent.len() >= self.most {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
    }
}

impl Default for DialRate {
    fn default() -> DialRate {
        DialRate::new(DIALS_A_SECOND)
    }
}
