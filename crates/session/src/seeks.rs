//! Magnet links that are being resolved, from what the engine tells.
//!
//! Owns who waits for which, and what listeners hear meanwhile. The numbers come from the same row as those of
//! torrents, so that News of the two are never confused.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use piecemeal_api::Event;
use piecemeal_engine::cx::News;
use piecemeal_metainfo::{InfoHashes, TorrentId};

use crate::words;

/// What waits for one who asked. Never full: 16 names at most, one dictionary, and the end, which may be told twice.
const TOLD_MAX: usize = 24;

/// What is told to who asked.
pub(crate) enum Told {
    /// The dictionary, hashed right, and where peers were met.
    Found(Arc<[u8]>, Vec<SocketAddr>),
    /// The engine seeks no longer.
    Gone,
    /// A name of the link was looked up.
    Peers(Vec<SocketAddr>),
}

/// One link.
pub(crate) struct Seek {
    hashes: InfoHashes,
    name: String,
    to: Sender<Told>,
}

/// All of them; as many as callers wait.
#[derive(Default)]
pub(crate) struct Seeks(BTreeMap<TorrentId, Seek>);

impl Seeks {
    /// Another one; gives the ear of who asked, the mouth of whoever has more to tell, and what listeners are told.
    pub(crate) fn open(
        &mut self,
        id: TorrentId,
        hashes: InfoHashes,
        name: String,
    ) -> (Receiver<Told>, Sender<Told>, Event) {
        let (to, told) = bounded(TOLD_MAX);
        let seek = Seek { hashes, name, to: to.clone() };
        let event = seek.event(id, 0, 0);
        self.0.insert(id, seek);
        (told, to, event)
    }

    /// Who asked listens no more.
    pub(crate) fn close(&mut self, id: TorrentId) {
        self.0.remove(&id);
    }

    /// The engine will tell nothing more.
    pub(crate) fn close_all(&mut self) {
        std::mem::take(&mut self.0).into_values().for_each(|seek| drop(seek.to.try_send(Told::Gone)));
    }

    /// Whether one of them seeks a torrent of this hash.
    pub(crate) fn seek(&self, hashes: InfoHashes) -> bool {
        let same = |swarm| hashes.swarms().any(|other| other == swarm);
        self.0.values().any(|seek| seek.hashes.swarms().any(same))
    }

    /// Whether the News are of one of these.
    pub(crate) fn holds(&self, id: TorrentId) -> bool {
        self.0.contains_key(&id)
    }

    /// The engine tells something of one of these.
    pub(crate) fn hear(&mut self, id: TorrentId, news: News, events: &mut Vec<Event>) {
        let Some(seek) = self.0.get(&id) else { return };
        // Whoever has no ear any more has given up.
        let tell = |told| drop(seek.to.try_send(told));
        match news {
            News::Seeking { peers, known, .. } => events.push(seek.event(id, peers, known)),
            News::Metadata { info, known, .. } => tell(Told::Found(info, known)),
            News::Gone(_) => tell(Told::Gone),
            News::Banned(_, addr, why) => {
                events.push(Event::Banned { torrent: id, addr, reason: words::goodbye(&why) });
            }
            News::Tracker(_, heard) => {
                let outcome = words::outcome(&heard);
                events.push(Event::Tracker { torrent: id, url: heard.url, outcome });
            }
            // There is no content.
            News::Snapshot(_)
            | News::Piece(..)
            | News::Complete(_)
            | News::Trouble(..)
            | News::PieceBad(..)
            | News::Facts(..)
            | News::Nodes(_)
            | News::Reach(_)
            | News::Interface { .. } => {}
        }
    }
}

impl Seek {
    fn event(&self, torrent: TorrentId, peers: usize, known: usize) -> Event {
        Event::Resolving {
            torrent,
            name: self.name.clone(),
            info_hash: self.hashes.v1,
            info_hash_v2: self.hashes.v2,
            peers: words::count(peers),
            known_peers: words::count(known),
        }
    }
}
