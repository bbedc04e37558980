//! Datagrams: each for itself, late by its own luck, or lost.
//!
//! Owns what becomes of one on the way. Who is at an address that is no host's is the world's to say.

use std::net::SocketAddr;
use std::time::Duration;

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

/// A NAT remembers for so long whom datagrams went to: less than most, and far less than RFC 4787 asks for.
const HOLE_LASTS: Duration = Duration::from_secs(20);

impl Net {
    /// A host sends one. What answers it from there finds the way back, also to a host that nobody can call.
    pub fn send_datagram(&mut self, host: HostId, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let line = &mut self.lines[host.0 as usize];
        line.up_free = line.up_free.max(self.now) + transfer(bytes.len(), line.up);
        if !self.listeners.contains_key(&from) {
            self.holes.insert((from, to), (host, self.now));
        }
        let leaves = line.up_free.since(self.now);
        self.carry_datagram(leaves, Datagram { from, to, group: false, bytes });
    }

    /// A host sends one to all others: its world is one local network.
    pub fn multicast(&mut self, host: HostId, from: SocketAddr, bytes: &[u8]) {
        let others: Vec<SocketAddr> =
            self.listeners.iter().filter(|(_, other)| **other != host).map(|(addr, _)| *addr).collect();
        for to in others {
            let datagram = Datagram { from, to, group: true, bytes: bytes.to_vec() };
            self.carry_datagram(Duration::ZERO, datagram);
        }
    }

    /// One comes from somebody who is no host.
    pub fn answer_datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.carry_datagram(Duration::ZERO, Datagram { from, to, group: false, bytes });
    }

    /// Which host a datagram reaches, if any.
    pub fn datagram_reaches(&self, datagram: &Datagram) -> Option<HostId> {
        let hole = || self.hole(datagram.to, datagram.from);
        self.listeners.get(&datagram.to).copied().or_else(hole)
    }

    /// The host behind a NAT at `own` that a datagram of `other` is let in to.
    pub(super) fn hole(&self, own: SocketAddr, other: SocketAddr) -> Option<HostId> {
        let (host, opened) = self.holes.get(&(own, other))?;
        (self.now.since(*opened) <= HOLE_LASTS).then_some(*host)
    }

    fn carry_datagram(&mut self, leaves: Duration, datagram: Datagram) {
        if self.weather.loss > 0 && self.dice.percent(self.weather.loss) {
            return;
        }
        let (least, most) = self.weather.latency;
        let way = least + self.dice.span(most.saturating_sub(least)) + self.dice.span(self.weather.jitter);
        self.plan(self.now + leaves + way, Event::Datagram(datagram));
    }
}
