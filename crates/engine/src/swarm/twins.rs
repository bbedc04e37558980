//! Two connections with one peer: which of them stays.
//!
//! Two peers that dial each other at the same moment have two connections a moment later, and each end hears of them in
//! its own order. If each kept whichever it heard of first, each might end the other's. So both ends go by what both
//! see alike: the peer with the greater id is the one that dials (libtorrent does the same); of two dials of
//! one peer IPv6 counts for more.

use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_metainfo::{PeerId, Time};

use super::{State, Swarm};

/// How long a connection may give way to one with another IP address: until both ends have certainly heard of both, if
/// they were dialed together. Later whoever learned a peer's id could end its connections by claiming to be it.
const YOUNG: Duration = Duration::from_secs(30);

/// Whether a newcomer is connected already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Twin {
    /// It is not.
    None,
    /// It is, and the newcomer must go.
    Stays,
    /// It is, at this address, and that connection must go.
    Yields(SocketAddr),
}

impl Swarm {
    /// Of a newcomer whose handshake is done, and the connection that the same peer may have already: which stays? Ask
    /// before [`Swarm::connected`], and end the other one first.
    pub fn twin(&self, addr: SocketAddr, peer_id: PeerId, incoming: bool, now: Time) -> Twin {
        let addr = super::normal(addr);
        let by_addr = self.known.get(&addr).filter(|known| known.state == State::Connected);
        if by_addr.is_some_and(|known| known.id != Some(peer_id)) {
            return Twin::Stays;
        }
        let Some(&other) = self.ids.get(&peer_id) else { return Twin::None };
        let Some(known) = self.known.get(&other) else { return Twin::None };
        let same_ip = other.ip() == addr.ip();
        let young = known.met.is_some_and(|met| now.since(met) < YOUNG);
        let refused = self.banned.contains(&addr.ip()) || (self.is_crowded(addr.ip()) && !same_ip);
        // True is worth more.
        let worth = |incoming, addr: SocketAddr| (incoming == (self.own_id < peer_id), addr.is_ipv6());
        let better = worth(incoming, addr) > worth(known.incoming, other);
        if better && (same_ip || young) && !refused { Twin::Yields(other) } else { Twin::Stays }
    }

    /// The connection at `addr` took the place of the one at `before`, with the same peer.
    pub fn replaced(&mut self, addr: SocketAddr, before: SocketAddr) {
        self.link(super::normal(addr), super::normal(before));
    }
}
