//! How we speak: an announce put into a URL.
//!
//! Owns the numbers of the requests and where the counting of bytes began. When to speak is a lane's.

use std::time::Duration;

use piecemeal_metainfo::InfoHash;
use piecemeal_wire::tracker::{AnnounceRequest, Event, MAX_PEERS, announce_url, scrape_url};

use super::{AnnounceFacts, Family, Fetch, FetchId, Identity};
use crate::udp;

/// An announce may take this long, look-up and redirects included; as libtorrent (`tracker_completion_timeout`).
const TIMEOUT: Duration = Duration::from_secs(30);

/// A farewell may not: somebody waits for the program to end.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Said instead of port 0, which trackers refuse, by one that listens nowhere; nobody listens there.
const NO_PORT: u16 = 1;

/// What is the same in all announces of a torrent.
#[derive(Debug)]
pub(super) struct Voice {
    identity: Identity,
    /// Where peers reach us by IPv4.
    port_v4: u16,
    /// What was counted before the run that is on.
    before: AnnounceFacts,
    next_id: u64,
}

impl Voice {
    pub(super) fn new(identity: Identity) -> Voice {
        Voice { port_v4: identity.port, identity, before: AnnounceFacts::default(), next_id: 0 }
    }

    #[cfg(test)]
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Of which torrent we speak.
    pub(super) fn info_hash(&self) -> InfoHash {
        self.identity.info_hash
    }

    /// Where peers reach us by IPv4 from now on; 0: nowhere.
    pub(super) fn set_port_v4(&mut self, port: u16) {
        self.port_v4 = port;
    }

    /// A run is over: the next one counts from here.
    pub(super) fn rest(&mut self, facts: &AnnounceFacts) {
        self.before = *facts;
    }

    /// The request that tells `facts` to the tracker at `url`.
    pub(super) fn fetch(
        &mut self,
        url: &str,
        family: Family,
        event: Option<Event>,
        tracker_id: Option<&[u8]>,
        facts: &AnnounceFacts,
    ) -> Fetch {
        let farewell = event == Some(Event::Stopped);
        if facts.uploaded < self.before.uploaded || facts.downloaded < self.before.downloaded {
            self.before = AnnounceFacts::default();
        }
        let port = if family == Family::V4 { self.port_v4 } else { self.identity.port };
        let port = if port == 0 { NO_PORT } else { port };
        let most = u32::try_from(MAX_PEERS).unwrap_or(u32::MAX);
        let request = AnnounceRequest {
            uploaded: facts.uploaded - self.before.uploaded,
            downloaded: facts.downloaded - self.before.downloaded,
            left: facts.left,
            event,
            numwant: Some(if farewell { 0 } else { facts.want.min(most) }),
            key: self.identity.key,
            tracker_id: tracker_id.map(<[u8]>::to_vec),
            // A tracker would tell MSE-only clients of us, who could not talk to us.
            supportcrypto: false,
            ..AnnounceRequest::new(self.identity.info_hash, self.identity.peer_id, port)
        };
        let timeout = if farewell { FAREWELL_TIMEOUT } else { patience(url) };
        Fetch { id: self.next_id(), url: announce_url(url, &request), family, timeout }
    }

    /// The request for counts at the tracker announced to at `url`; `None` if it has no URL for that.
    pub(super) fn scrape(&mut self, url: &str, family: Family) -> Option<Fetch> {
        let scrape = scrape_url(url, &[self.identity.info_hash])?;
        Some(Fetch { id: self.next_id(), url: scrape, family, timeout: patience(url) })
    }

    fn next_id(&mut self) -> FetchId {
        let id = FetchId(self.next_id);
        self.next_id += 1;
        id
    }
}

fn patience(url: &str) -> Duration {
    if udp::place(url).is_some() { udp::PATIENCE } else { TIMEOUT }
}
