//! Peers of peers (BEP 11): what we tell, and what we believe.
//!
//! Owns what each peer was told. A private torrent does neither (BEP 27).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_wire::pex::{PexFlags, PexMessage};

use super::Controller;
use super::agenda::Due;
use crate::cx::{Carrier, ConnId, Cx};
use crate::picker::PeerSlot;
use crate::swarm::PeerSource;

/// BEP 11: no more than one message a minute.
const PEX_EVERY: Duration = Duration::from_secs(60);
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

impl Controller {
    /// When the first peer is to be told: soon, as it may know nobody.
    pub(super) fn plan_pex(&mut self, cx: &Cx<'_>) {
        if !self.meta.info().private {
            self.agenda.by(Due::Pex, cx.now + PEX_EVERY / 12);
        }
    }

    /// Tells each peer who joined and who parted since it was told last.
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
        for (_, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.wants_pex()) {
            let told = self.gossip.told.entry(peer.conn()).or_default();
            if told.last.is_some_and(|last| cx.now.since(last) < PEX_EVERY) {
                continue;
            }
            let itself = peer.listens_at();
            // A local network is nobody's business outside of it.
            let fits = |addr: &SocketAddr| Some(*addr) != itself && same_reach(addr.ip(), peer.addr().ip());
            let news = reachable.iter().filter(|(addr, _)| fits(addr) && !told.peers.contains(addr));
            let added: Vec<_> = news.take(MOST_TOLD).map(|(addr, flags)| (*addr, *flags)).collect();
            let gone = told.peers.iter().filter(|addr| !reachable.contains_key(addr));
            let dropped: Vec<_> = gone.take(MOST_TOLD).copied().collect();
            if added.is_empty() && dropped.is_empty() {
                continue;
            }
            told.last = Some(cx.now);
            told.peers.extend(added.iter().map(|(addr, _)| *addr));
            told.peers.retain(|addr| !dropped.contains(addr));
            peer.tell_pex(cx, &PexMessage { added, dropped });
        }
        if self.peers.len() > 0 {
            // Sooner than a minute: each peer has a minute of its own.
            self.agenda.set(Due::Pex, cx.now + PEX_EVERY / 4);
        }
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

/// Whether `addr` is of the wide world, or both are not.
pub(super) fn same_reach(addr: IpAddr, peer: IpAddr) -> bool {
    !is_local(addr) || is_local(peer)
}

/// Loopback, link-local and private networks (RFC 1918, RFC 4193).
pub(crate) fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
