//! Peers of peers (BEP 11): what we tell, and what we believe.
//!
//! Owns what each peer was told. A private torrent does neither (BEP 27).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_discovery::local::is_local;
use piecemeal_metainfo::Time;
use piecemeal_wire::pex::{PexFlags, PexMessage};

use super::Controller;
use super::agenda::Due;
use crate::cx::{Carrier, ConnId, Cx};
use crate::picker::PeerSlot;
use crate::swarm::PeerSource;

/// BEP 11: no more than one message a minute.
const PEX_EVERY: Duration = Duration::from_secs(60);
/// From one peer's message to the next one's. Two that are told of each other at once dial each other at once; each then
/// closes what it takes for the second connection, both are gone, and libtorrent waits a minute before it dials again.
/// In a second most dials are over.
const APART: Duration = Duration::from_secs(1);
/// Peers told in one message, joined and parted each; BEP 11 allows 50.
const MOST_TOLD: usize = 50;
/// Addresses of one message that are believed.
const MOST_BELIEVED: usize = 50;
/// Below this port nobody listens for peers, but much else may be annoyed by them.
const FIRST_PORT: u16 = 1024;

/// See the module. Bounded by the connections of the torrent, squared.
#[derive(Debug, Default)]
pub(super) struct Gossip {
    told: BTreeMap<ConnId, Told>,
}

/// What one peer was told, and when last.
#[derive(Debug, Default)]
struct Told {
    last: Option<Time>,
    peers: BTreeSet<SocketAddr>,
}

impl Gossip {
    /// Who of these may be told again: who waits longest first, and of those who were never told the ones that look for
    /// peers, before those that only give (`true`).
    fn turns(&self, now: Time, peers: impl Iterator<Item = (ConnId, bool)>) -> Vec<ConnId> {
        let last = |conn| self.told.get(&conn).and_then(|told| told.last);
        let mut turns: Vec<_> = peers
            .map(|(conn, gives)| (last(conn), gives, conn))
            .filter(|(last, ..)| last.is_none_or(|last| now.since(last) >= PEX_EVERY))
            .collect();
        turns.sort_unstable();
        turns.into_iter().map(|(.., conn)| conn).collect()
    }
}

impl Controller {
    /// When the first peer is to be told: soon, as it may know nobody.
    pub(super) fn plan_pex(&mut self, cx: &Cx<'_>) {
        if !self.meta.info().private {
            self.agenda.by(Due::Pex, cx.now + PEX_EVERY / 12);
        }
    }

    /// Tells one peer who joined and who parted since it was told last; the next one has its turn a moment later.
    pub(super) fn tell_of_peers(&mut self, cx: &mut Cx<'_>) {
        let reachable: BTreeMap<SocketAddr, PexFlags> = self
            .peers
            .iter()
            .filter_map(|(_, peer)| {
                let seed = if peer.is_upload_only() { PexFlags::SEED } else { PexFlags(0) };
                let reached = if peer.is_outgoing() { PexFlags::REACHABLE } else { PexFlags(0) };
                let utp = if peer.carrier() == Carrier::Utp { PexFlags::UTP } else { PexFlags(0) };
                let punch = if peer.speaks_holepunch() { PexFlags::HOLEPUNCH } else { PexFlags(0) };
                Some((peer.listens_at()?, seed.with(reached).with(utp).with(punch)))
            })
            .collect();
        let conns: BTreeSet<ConnId> = self.peers.iter().map(|(_, peer)| peer.conn()).collect();
        self.gossip.told.retain(|conn, _| conns.contains(conn));
        let listeners = self.peers.iter().filter(|(_, peer)| peer.wants_pex());
        let turns =
            self.gossip.turns(cx.now, listeners.map(|(_, peer)| (peer.conn(), peer.is_upload_only())));
        let told = turns.into_iter().any(|conn| self.tell_one(cx, conn, &reachable));
        if self.peers.len() > 0 {
            // Sooner than a minute where nobody was told: each peer has a minute of its own.
            let pause = if told { apart(self.peers.len()) } else { PEX_EVERY / 4 };
            self.agenda.set(Due::Pex, cx.now + pause);
        }
    }

    /// Tells one peer; false if there is no news for it.
    fn tell_one(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        reachable: &BTreeMap<SocketAddr, PexFlags>,
    ) -> bool {
        let slot = self.peers.slot_of(conn);
        let Some(peer) = slot.and_then(|slot| self.peers.get_mut(slot)) else { return false };
        let told = self.gossip.told.entry(conn).or_default();
        let itself = peer.listens_at();
        // A local network is nobody's business outside of it.
        let fits = |addr: &SocketAddr| Some(*addr) != itself && same_reach(addr.ip(), peer.addr().ip());
        let news = reachable.iter().filter(|(addr, _)| fits(addr) && !told.peers.contains(addr));
        let added: Vec<_> = news.take(MOST_TOLD).map(|(addr, flags)| (*addr, *flags)).collect();
        let gone = told.peers.iter().filter(|addr| !reachable.contains_key(addr));
        let dropped: Vec<_> = gone.take(MOST_TOLD).copied().collect();
        if added.is_empty() && dropped.is_empty() {
            return false;
        }
        told.last = Some(cx.now);
        told.peers.extend(added.iter().map(|(addr, _)| *addr));
        told.peers.retain(|addr| !dropped.contains(addr));
        peer.tell_pex(cx, &PexMessage { added, dropped });
        true
    }

    /// A peer tells of peers.
    pub(super) fn told_of_peers(&mut self, cx: &mut Cx<'_>, slot: PeerSlot, message: &PexMessage) {
        let Some(peer) = self.peers.get(slot) else { return };
        let from = peer.addr().ip();
        let believed = believable(from, message);
        if peer.speaks_holepunch() {
            self.punches.told(peer.conn(), &believed);
        }
        self.finder.learn(cx.now, believed, PeerSource::Pex);
        self.plan_search();
    }
}

/// What can be believed of a message from `from`: not that it knows our local network, and not that peers listen where
/// other services do.
pub(crate) fn believable(from: IpAddr, message: &PexMessage) -> Vec<SocketAddr> {
    let addrs = message.added.iter().map(|(addr, _)| *addr);
    addrs
        .filter(|addr| addr.port() >= FIRST_PORT && same_reach(addr.ip(), from))
        .take(MOST_BELIEVED)
        .collect()
}

/// How long after one peer the next is told, so that each of so many has its turn in a minute.
fn apart(peers: usize) -> Duration {
    APART.min(PEX_EVERY / u32::try_from(peers).unwrap_or(u32::MAX).max(1))
}

/// Whether `addr` is of the wide world, or both are not.
pub(super) fn same_reach(addr: IpAddr, peer: IpAddr) -> bool {
    !is_local(addr) || is_local(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_in_the_same_moment_as_another() {
        let mut gossip = Gossip::default();
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let peers = [(ConnId(1), true), (ConnId(2), false), (ConnId(3), false)];
        let mut told = Vec::new();
        for second in 5..130 {
            if let Some(conn) = gossip.turns(at(second), peers.into_iter()).first() {
                gossip.told.entry(*conn).or_default().last = Some(at(second));
                told.push((second, conn.0));
            }
        }
        // Who looks for peers first; each again after a minute.
        let rounds = [5, 65, 125].map(|round| [(round, 2), (round + 1, 3), (round + 2, 1)]);
        assert_eq!(told, rounds.concat());
        for (peers, pause) in [(0, 1_000), (1, 1_000), (60, 1_000), (120, 500), (600, 100)] {
            assert_eq!(apart(peers), Duration::from_millis(pause), "{peers} peers");
        }
    }

    #[test]
    fn what_is_believed_of_a_message() {
        let added = |addr: &str| (addr.parse::<SocketAddr>().unwrap(), PexFlags(0));
        let rows = [
            ("9.9.9.9:6881", true, true),
            ("9.9.9.9:80", false, false),
            ("10.1.2.3:6881", false, true),
            ("127.0.0.1:6881", false, true),
            ("[::1]:6881", false, true),
            ("[fe80::1]:6881", false, true),
            ("[::ffff:127.0.0.1]:6881", false, true),
            ("[2001:db8::1]:6881", true, true),
        ];
        for (addr, from_afar, from_near) in rows {
            let message = PexMessage { added: vec![added(addr)], dropped: vec![] };
            let believed = |from: &str| believable(from.parse().unwrap(), &message).len() == 1;
            assert_eq!((believed("8.8.8.8"), believed("192.168.0.7")), (from_afar, from_near), "{addr}");
        }
        let many = (0..200).map(|at| added(&format!("9.9.9.{at}:6881"))).collect();
        let message = PexMessage { added: many, dropped: vec![] };
        assert_eq!(believable("8.8.8.8".parse().unwrap(), &message).len(), MOST_BELIEVED);
    }
}
