//! Datagrams of a node, and what it said by them.
//!
//! Owns the counts. Those of the DHT begin as a dictionary, all others to one host go to trackers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use piecemeal_discovery::tracker::Fetch;
use piecemeal_metainfo::{InfoHash, Time, TorrentId};

use super::Node;
use crate::net::{Datagram, Net};

/// Datagrams that were sent.
#[derive(Clone, Default, Debug)]
pub struct Said {
    /// To nodes of the DHT.
    pub dht: u64,
    /// To the group of local discovery.
    pub lsd: u64,
    /// To trackers.
    pub trackers: u64,
    /// Of the first two, those that name a torrent.
    pub about: BTreeMap<InfoHash, u64>,
}

impl Node {
    /// Sends one to a host.
    pub(super) fn send_datagram(&mut self, net: &mut Net, to: SocketAddr, bytes: Vec<u8>) {
        if bytes.first() == Some(&b'd') {
            self.said.dht += 1;
            self.name_torrents(&bytes);
        } else {
            self.said.trackers += 1;
        }
        net.trace.note(net.now, self.id.0, "datagram", bytes.len() as u64, u64::from(to.port()));
        net.send_datagram(self.id, Datagram { from: self.addr, to, group: false, bytes }, false);
    }

    /// Sends one to the local network.
    pub(super) fn multicast(&mut self, net: &mut Net, group: SocketAddr, bytes: &[u8]) {
        self.said.lsd += 1;
        self.name_torrents(bytes);
        net.trace.note(net.now, self.id.0, "multicast", bytes.len() as u64, u64::from(group.port()));
        net.multicast(self.id, SocketAddr::new(self.addr.ip(), group.port()), bytes);
    }

    /// One came.
    pub fn on_datagram(&mut self, net: &mut Net, datagram: &Datagram) {
        let now = self.time(net);
        if !datagram.group && self.on_stream_datagram(net, datagram) {
            return;
        }
        let Some(engine) = &mut self.engine else { return };
        engine.stirred = true;
        match datagram.group {
            true => engine.server.on_lsd(now, datagram.from, &datagram.bytes),
            false => engine.server.on_datagram(now, datagram.from, &datagram.bytes),
        }
        self.turn(net);
    }

    /// The name of a UDP tracker was looked up.
    pub(super) fn on_resolved(&mut self, now: Time, torrent: TorrentId, fetch: &Fetch, to: SocketAddr) {
        let Some(engine) = &mut self.engine else { return };
        engine.stirred = true;
        engine.server.on_resolved(now, torrent, fetch, to);
    }

    /// Counts the torrents that a datagram speaks of: raw as the DHT does, or in hex as local discovery does.
    fn name_torrents(&mut self, bytes: &[u8]) {
        for seat in self.seats.values() {
            let hash = seat.torrent.hash();
            let hex: String = hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
            let lower = bytes.to_ascii_lowercase();
            let named = bytes.windows(20).any(|part| part == hash.0)
                || lower.windows(40).any(|part| part == hex.as_bytes());
            if named {
                *self.said.about.entry(hash).or_default() += 1;
            }
        }
    }
}
