//! What finds peers for all torrents at once: UDP trackers, the DHT and the local network.
//!
//! Owns the values of `discovery` that a whole program has one of, and which torrents they serve. What they find goes to
//! the torrent's Shard as a Note; what they want sent leaves by the lanes of the Server.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use piecemeal_discovery::dht::Ballot;
use piecemeal_discovery::filter::Gate;
use piecemeal_discovery::lsd::Lsd;
use piecemeal_discovery::tracker::Fetch;
use piecemeal_discovery::udp::{UdpOut, UdpTrackers};
use piecemeal_metainfo::{InfoHash, Time, TorrentId};
use rand_chacha::rand_core::SeedableRng;

use super::nodes::Nodes;
use crate::cx::{KeptNodes, Net, Note, Out, Purpose, Rng, Settings};
use crate::outside::Outside;
use crate::swarm::PeerSource;

/// See the module.
pub(super) struct Finding {
    rng: Rng,
    udp: UdpTrackers,
    udp_out: UdpOut,
    lsd: Option<Lsd>,
    nodes: Nodes,
    /// By family: what peers and trackers say our address is.
    ballots: [Ballot; 2],
    outside: Outside,
    /// Torrents in their swarms that anybody may hear of: not the private ones (BEP 27).
    public: BTreeMap<TorrentId, InfoHash>,
    by_hash: BTreeMap<InfoHash, TorrentId>,
    gate: Gate,
}

impl Finding {
    pub(super) fn new(settings: &Settings, seed: [u8; 32]) -> Finding {
        let mut rng = Rng::from_seed(seed);
        Finding {
            nodes: Nodes::new(settings, &mut rng),
            ballots: Default::default(),
            outside: Outside::at(settings.port),
            lsd: settings.lsd.then(|| Lsd::new(settings.port, &mut rng)),
            rng,
            udp: UdpTrackers::new(),
            udp_out: UdpOut::default(),
            public: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            gate: settings.gate.clone(),
        }
    }

    /// Who is spoken to from now on.
    pub(super) fn set_gate(&mut self, gate: &Gate) {
        self.nodes.set_gate(gate);
        self.gate = gate.clone();
    }

    /// A torrent that anybody may hear of is in its swarm now.
    pub(super) fn opened(&mut self, now: Time, torrent: TorrentId, info_hash: InfoHash) {
        self.public.insert(torrent, info_hash);
        self.by_hash.insert(info_hash, torrent);
        self.nodes.add(now, torrent, info_hash);
        if let Some(lsd) = &mut self.lsd {
            lsd.add(now, info_hash);
        }
    }

    /// It is there no longer.
    pub(super) fn closed(&mut self, torrent: TorrentId) {
        let Some(info_hash) = self.public.remove(&torrent) else { return };
        self.by_hash.remove(&info_hash);
        self.nodes.remove(torrent);
        if let Some(lsd) = &mut self.lsd {
            lsd.remove(info_hash);
        }
    }

    /// Peers from outside reach us elsewhere by IPv4: at this port, or by another address. Those nearby do not.
    pub(super) fn moved(&mut self, now: Time, port_v4: u16, out: &mut Out) {
        self.nodes.moved(now, port_v4);
        self.outside.port_v4 = port_v4;
        out.notes.push(Note::Outside(self.outside));
        out.notes.push(Note::Moved);
    }

    /// A datagram came to our own port.
    pub(super) fn on_datagram(&mut self, now: Time, from: SocketAddr, bytes: &[u8], out: &mut Out) {
        // A dictionary is the DHT's; trackers answer with a small number first.
        if bytes.first() == Some(&b'd') {
            self.nodes.on_packet(now, from, bytes, out);
            return self.tell_outside(out);
        }
        self.udp.on_datagram(now, &mut self.rng, from, bytes, &mut self.udp_out);
        self.drain(out);
    }

    /// Somebody says that we are at this address.
    pub(super) fn seen_as(&mut self, now: Time, ip: IpAddr, by: SocketAddr, out: &mut Out) {
        let ip = ip.to_canonical();
        self.ballots[usize::from(ip.is_ipv6())].vote(ip, by);
        self.nodes.seen_as(now, ip, by, out);
        self.tell_outside(out);
    }

    /// Tells the Shards how the world sees us, if that changed. The DHT hears more voices than anyone.
    fn tell_outside(&mut self, out: &mut Out) {
        let elected =
            |v4: bool| self.nodes.external_ip(v4).or_else(|| self.ballots[usize::from(!v4)].elected());
        let outside = Outside { v4: elected(true), v6: elected(false), ..self.outside };
        if std::mem::replace(&mut self.outside, outside) != outside {
            out.notes.push(Note::Outside(outside));
        }
    }

    /// Addresses where nodes of the DHT may be.
    pub(super) fn learn_nodes(&mut self, addrs: &[SocketAddr]) {
        self.nodes.learn(addrs);
    }

    /// What of the DHT is worth remembering.
    pub(super) fn kept_nodes(&self) -> KeptNodes {
        self.nodes.worth_keeping()
    }

    /// A datagram came to the group of local discovery.
    pub(super) fn on_lsd(&mut self, now: Time, from: SocketAddr, bytes: &[u8], out: &mut Out) {
        let Some(neighbour) = self.lsd.as_mut().and_then(|lsd| lsd.on_datagram(now, from, bytes)) else {
            return;
        };
        for info_hash in neighbour.info_hashes {
            if let Some(torrent) = self.by_hash.get(&info_hash) {
                let (peers, source) = (vec![neighbour.addr], PeerSource::Lsd);
                out.notes.push(Note::Found { torrent: *torrent, peers, source });
            }
        }
    }

    /// A UDP tracker's name was looked up: asks it.
    pub(super) fn ask(
        &mut self,
        now: Time,
        torrent: TorrentId,
        fetch: &Fetch,
        to: SocketAddr,
        out: &mut Out,
    ) {
        self.udp.ask(now, &mut self.rng, (torrent, fetch), to, &mut self.udp_out);
        self.drain(out);
    }

    /// No datagram can be sent to that address. The DHT learns as much when nobody answers.
    pub(super) fn on_unreachable(&mut self, to: SocketAddr, why: &str, out: &mut Out) {
        self.udp.on_unreachable(to, why, &mut self.udp_out);
        self.drain(out);
    }

    pub(super) fn heartbeat(&mut self, now: Time, out: &mut Out) {
        self.udp.heartbeat(now, &mut self.rng, &mut self.udp_out);
        self.drain(out);
        self.nodes.heartbeat(now, out);
        if let Some(lsd) = &mut self.lsd {
            let mut sends = Vec::new();
            lsd.heartbeat(now, &mut sends);
            out.net.extend(sends.into_iter().map(|(group, bytes)| Net::Multicast { group, bytes }));
        }
    }

    pub(super) fn next_due(&self) -> Time {
        let others = self.udp.next_due().min(self.nodes.next_due());
        others.min(self.lsd.as_ref().map_or(Time::NEVER, Lsd::next_due))
    }

    fn drain(&mut self, out: &mut Out) {
        // A tracker that was asked before is asked again while it does not answer.
        let gate = &self.gate;
        let datagrams = self.udp_out.datagrams.drain(..).filter(|datagram| !gate.blocks(datagram.to.ip()));
        out.net.extend(datagrams.map(|datagram| Net::Datagram {
            purpose: Purpose::Tracker,
            to: datagram.to,
            bytes: datagram.bytes,
        }));
        let fetched = self.udp_out.fetched.drain(..);
        out.notes.extend(fetched.map(|fetched| Note::Fetched {
            torrent: fetched.torrent,
            fetch: fetched.id,
            result: fetched.result,
        }));
    }
}
