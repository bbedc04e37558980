//! The directory: which torrent an info-hash means, and whether it takes connections.
//!
//! Owns these two facts and nothing else of a torrent. There is one Shard, so a torrent's number says all about its
//! seat; with more of them the number of the Shard belongs into [`Seat`].

use std::collections::BTreeMap;

use piecemeal_metainfo::{InfoHash, TorrentId};
use piecemeal_transport::mse::{Req2, req2};

/// What is known of a torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seat {
    info_hash: InfoHash,
    open: bool,
    /// Anybody may hear of it (BEP 27).
    public: bool,
    /// Its peers prove by TLS that they belong to it.
    tls: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Directory {
    seats: BTreeMap<TorrentId, Seat>,
    by_hash: BTreeMap<InfoHash, TorrentId>,
    /// How callers who encrypt ask for them. Made once, so that no handshake costs a hash for each torrent.
    by_req2: BTreeMap<Req2, InfoHash>,
}

impl Directory {
    /// A new torrent, closed until its Controller says otherwise. False, and nothing changes, if that number or that
    /// info-hash is seated already.
    pub(super) fn add(&mut self, torrent: TorrentId, info_hash: InfoHash, public: bool, tls: bool) -> bool {
        if self.holds(torrent) || self.by_hash.contains_key(&info_hash) {
            return false;
        }
        self.seats.insert(torrent, Seat { info_hash, open: false, public: public && !tls, tls });
        self.by_hash.insert(info_hash, torrent);
        self.by_req2.insert(req2(info_hash), info_hash);
        true
    }

    /// Forgets a torrent; false if it is not here.
    pub(super) fn remove(&mut self, torrent: TorrentId) -> bool {
        let Some(seat) = self.seats.remove(&torrent) else { return false };
        self.by_hash.remove(&seat.info_hash);
        self.by_req2.remove(&req2(seat.info_hash));
        true
    }

    /// Whether it is here.
    pub(super) fn holds(&self, torrent: TorrentId) -> bool {
        self.seats.contains_key(&torrent)
    }

    /// It takes connections, or no longer. A torrent that is gone stays so: its Shard may not have heard of that yet.
    pub(super) fn set_open(&mut self, torrent: TorrentId, open: bool) {
        if let Some(seat) = self.seats.get_mut(&torrent) {
            seat.open = open;
        }
    }

    /// The torrent that a caller means, if it takes connections.
    pub(super) fn torrent_of(&self, info_hash: InfoHash) -> Option<TorrentId> {
        let torrent = *self.by_hash.get(&info_hash)?;
        self.hash_of(torrent).map(|_| torrent)
    }

    /// Whether its peers prove by TLS that they belong to it.
    pub(super) fn is_tls(&self, torrent: TorrentId) -> bool {
        self.seats.get(&torrent).is_some_and(|seat| seat.tls)
    }

    /// The info-hash that a caller who encrypts asks for, if its torrent takes connections.
    pub(super) fn hash_by(&self, req2: Req2) -> Option<InfoHash> {
        let info_hash = *self.by_req2.get(&req2)?;
        self.torrent_of(info_hash).filter(|torrent| !self.is_tls(*torrent)).map(|_| info_hash)
    }

    /// What to name to a peer of `torrent`, if it takes connections.
    pub(super) fn hash_of(&self, torrent: TorrentId) -> Option<InfoHash> {
        self.seats.get(&torrent).filter(|seat| seat.open).map(|seat| seat.info_hash)
    }

    /// Its info-hash, if it takes connections and anybody may hear of it.
    pub(super) fn public_hash(&self, torrent: TorrentId) -> Option<InfoHash> {
        self.seats.get(&torrent).filter(|seat| seat.open && seat.public).map(|seat| seat.info_hash)
    }

    /// The lowest number there is.
    pub(super) fn first(&self) -> Option<TorrentId> {
        self.seats.keys().next().copied()
    }
}
