//! Datagrams: each for itself, late by its own luck, or lost, or twice.
//!
//! Owns what becomes of one on the way, and counts it. Who is at an address that is no host's is the world's to say.
//! Queues before lines have no bound: who fills them waits.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_metainfo::Time;

use super::{Event, HostId, Net, transfer};

/// On the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// By way of a group of local discovery.
    pub group: bool,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// What became of the datagrams of one host to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Passed {
    /// Those that left.
    pub left: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that were heard; a second copy counts.
    pub heard: u64,
    /// Those that were lost by chance.
    pub lost: u64,
    /// Those that came twice.
    pub doubled: u64,
    /// Those that were larger than what passes, and vanished.
    pub swallowed: u64,
    /// Those that were larger than what passes, and went in fragments.
    pub fragmented: u64,
    /// Bytes of the largest that was heard in one piece.
    pub widest: usize,
}

/// What the headers of IP and UDP take of a line.
const HEADERS_BYTES: usize = 28;
/// How much longer than others who is held back takes, at least and at most.
const HELD_BACK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// A NAT remembers for so long whom datagrams went to: less than most, and far less than RFC 4787 asks for.
const HOLE_LASTS: Duration = Duration::from_secs(20);

impl Net {
    /// A host sends one. What answers it from there finds the way back, also to a host that nobody can call.
    /// `fragment`: routers may cut it in pieces.
    pub fn send_datagram(&mut self, host: HostId, datagram: Datagram, fragment: bool) {
        let (from, to) = (datagram.from, datagram.to);
        let line = &mut self.lines[host.0 as usize];
        line.up_free = line.up_free.max(self.now) + transfer(datagram.bytes.len() + HEADERS_BYTES, line.up);
        if !self.listeners.contains_key(&from) {
            self.holes.insert((from, to), (host, self.now));
        }
        let leaves = line.up_free.since(self.now);
        self.carry_datagram(leaves, datagram, fragment);
    }

    /// A host sends one to all others: its world is one local network.
    pub fn multicast(&mut self, host: HostId, from: SocketAddr, bytes: &[u8]) {
        let others: Vec<SocketAddr> =
            self.listeners.iter().filter(|(_, other)| **other != host).map(|(addr, _)| *addr).collect();
        for to in others {
            let datagram = Datagram { from, to, group: true, bytes: bytes.to_vec() };
            self.carry_datagram(Duration::ZERO, datagram, false);
        }
    }

    /// One comes from somebody who is no host.
    pub fn answer_datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.carry_datagram(Duration::ZERO, Datagram { from, to, group: false, bytes }, false);
    }

    /// Which host a datagram reaches, if any.
    pub fn datagram_reaches(&self, datagram: &Datagram) -> Option<HostId> {
        let hole = || self.hole(datagram.to, datagram.from);
        self.listeners.get(&datagram.to).copied().or_else(hole)
    }

    /// The host behind a NAT at `own` that a datagram of `other` is let in to.
    fn hole(&self, own: SocketAddr, other: SocketAddr) -> Option<HostId> {
        let (host, opened) = self.holes.get(&(own, other))?;
        (self.now.since(*opened) <= HOLE_LASTS).then_some(*host)
    }

    /// One is before its host's line. True: it is free, and it is there.
    pub(crate) fn datagram_lands(&mut self, host: HostId, datagram: &Datagram) -> bool {
        let (now, line) = (self.now, &mut self.lines[host.0 as usize]);
        let when = line.down_free.max(now);
        line.down_free = when + transfer(datagram.bytes.len() + HEADERS_BYTES, line.down);
        if when > now {
            self.plan(when, Event::Heard(datagram.clone()));
        }
        when <= now
    }

    /// A host hears one.
    pub(crate) fn datagram_heard(&mut self, datagram: &Datagram) {
        let (bytes, mtu) = (datagram.bytes.len(), self.weather.mtu);
        let passed = self.passed(datagram);
        passed.heard += 1;
        if bytes <= mtu {
            passed.widest = passed.widest.max(bytes);
        }
    }

    /// What became of the datagrams of each host to each other; first who sends, then who hears.
    pub fn all_passed(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr, Passed)> + '_ {
        self.passed.iter().map(|((from, to), passed)| (*from, *to, *passed))
    }

    /// From now on larger datagrams vanish.
    pub fn narrow(&mut self, mtu: usize) {
        self.weather.mtu = mtu;
        self.passed.values_mut().for_each(|passed| passed.widest = 0);
    }

    fn passed(&mut self, datagram: &Datagram) -> &mut Passed {
        self.passed.entry((datagram.from, datagram.to)).or_default()
    }

    fn carry_datagram(&mut self, leaves: Duration, datagram: Datagram, fragment: bool) {
        let weather = self.weather;
        let large = datagram.bytes.len() > weather.mtu;
        let lost = weather.loss > 0 && self.dice.percent(weather.loss);
        let doubled = weather.doubled > 0 && self.dice.percent(weather.doubled);
        let passed = self.passed(&datagram);
        passed.left += 1;
        passed.bytes += datagram.bytes.len() as u64;
        if large && !fragment {
            passed.swallowed += 1;
            return;
        }
        passed.fragmented += u64::from(large);
        if lost {
            passed.lost += 1;
            return;
        }
        passed.doubled += u64::from(doubled);
        if doubled {
            let when = self.arrival(leaves, &datagram);
            self.plan(when, Event::Datagram(datagram.clone()));
        }
        let when = self.arrival(leaves, &datagram);
        self.plan(when, Event::Datagram(datagram));
    }

    /// When one that leaves then is before its host's line.
    fn arrival(&mut self, leaves: Duration, datagram: &Datagram) -> Time {
        let weather = self.weather;
        let late = weather.late > 0 && self.dice.percent(weather.late);
        let held =
            if late { HELD_BACK.0 + self.dice.span(HELD_BACK.1 - HELD_BACK.0) } else { Duration::ZERO };
        let way = self.way(datagram.from.ip(), datagram.to.ip());
        self.now + leaves + way + self.dice.span(weather.jitter) + held
    }

    /// What a datagram takes at least from one host to another: as long as back.
    fn way(&mut self, one: IpAddr, other: IpAddr) -> Duration {
        let (least, most) = self.weather.latency;
        let ends = (one.min(other), one.max(other));
        let dice = &mut self.dice;
        *self.ways.entry(ends).or_insert_with(|| least + dice.span(most.saturating_sub(least)))
    }
}
