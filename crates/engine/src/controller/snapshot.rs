//! How a torrent stands: what was swapped, and facts for whoever watches.

use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_package::PackageState;

use super::Controller;
use super::agenda::Due;
use super::life::Life;
use crate::cx::{Cx, News, PeerSnapshot, Snapshot, State};
use crate::peer::PeerConnection;
use crate::picker::PeerSlot;
use crate::rate::Meter;

/// Snapshots of one torrent are no closer than this.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(1);

/// What was swapped.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Content received in this run.
    pub(super) down: Meter,
    /// Content sent in this run.
    pub(super) up: Meter,
    /// Received and sent in the runs before.
    before: (u64, u64),
    /// Content received in vain, in bytes.
    pub(super) wasted: u64,
    from_leeches: u64,
    /// Pieces came or went since the last Snapshot.
    pub(super) have_changed: bool,
    last_snapshot: Option<Time>,
    /// What was told last.
    told: Option<Discriminant<State>>,
}

impl Ledger {
    pub(super) fn new(now: Time, before: (u64, u64)) -> Ledger {
        Ledger {
            down: Meter::new(now),
            up: Meter::new(now),
            before,
            wasted: 0,
            from_leeches: 0,
            have_changed: true,
            last_snapshot: None,
            told: None,
        }
    }

    /// Content came from a peer.
    pub(super) fn received(&mut self, bytes: u64, from_leech: bool, now: Time) {
        self.down.add(bytes, now);
        self.from_leeches += if from_leech { bytes } else { 0 };
    }

    /// Received and sent, over all runs.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.before.0 + self.down.total(), self.before.1 + self.up.total())
    }

    /// When the next Snapshot may be.
    pub(super) fn next_snapshot(&self, now: Time) -> Time {
        self.last_snapshot.map_or(now, |last| (last + SNAPSHOT_EVERY).max(now))
    }
}

impl Controller {
    /// Something changed: a Snapshot is due, once a second, or at once if the torrent does something else now.
    pub(super) fn touch(&mut self, now: Time) {
        let other = self.ledger.told != Some(discriminant(&self.state()));
        let due = if other { now } else { self.ledger.next_snapshot(now) };
        self.agenda.by(Due::Snapshot, due);
    }

    /// Tells how the torrent stands; while bytes flow, again in a second.
    pub(super) fn snapshot(&mut self, cx: &mut Cx<'_>) {
        let state = self.state();
        (self.ledger.last_snapshot, self.ledger.told) = (Some(cx.now), Some(discriminant(&state)));
        let (downloaded, uploaded) = self.ledger.totals();
        let (down_rate, up_rate) = (self.ledger.down.rate(cx.now), self.ledger.up.rate(cx.now));
        let have = self.package.have();
        let changed = std::mem::take(&mut self.ledger.have_changed);
        let snapshot = Snapshot {
            torrent: self.torrent,
            state,
            paused: self.options.paused,
            wanted_bytes: self.package.layout().wanted_bytes(),
            have_bytes: self.package.have_bytes(),
            pieces: self.meta.piece_count(),
            have_pieces: have.count(),
            have: changed.then(|| Arc::new(have.clone())),
            downloaded,
            uploaded,
            wasted: self.ledger.wasted,
            from_leeches: self.ledger.from_leeches,
            down_rate,
            up_rate,
            peers: self.peers.iter().map(|(slot, peer)| self.peer_snapshot(slot, peer, cx.now)).collect(),
            known: self.finder.known(),
            trackers: self.finder.trackers(),
            at: cx.now,
        };
        cx.out.news.push(News::Snapshot(Box::new(snapshot)));
        if down_rate > 0 || up_rate > 0 {
            self.touch(cx.now);
        }
    }

    fn state(&self) -> State {
        if matches!(self.life, Life::Leaving { .. }) {
            return State::Leaving;
        }
        match self.package.state() {
            PackageState::Stopped(_) => State::Troubled,
            PackageState::Opening | PackageState::Closed => State::Opening,
            PackageState::Checking { done, total } => State::Checking { done, total },
            PackageState::Ready if self.options.paused => State::Paused,
            PackageState::Ready if self.package.is_complete() => State::Seeding,
            PackageState::Ready => State::Downloading,
        }
    }

    fn peer_snapshot(&self, slot: PeerSlot, peer: &PeerConnection, now: Time) -> PeerSnapshot {
        PeerSnapshot {
            addr: peer.addr(),
            client: peer.client(),
            down_rate: peer.down().rate(now),
            up_rate: peer.up().rate(now),
            downloaded: peer.down().total(),
            uploaded: peer.up().total(),
            pieces: peer.has().count(),
            seed: peer.is_seed(),
            interested: peer.is_interested(),
            unchoked: !peer.chokes_us(),
            wants_us: peer.wants_us(),
            served: !peer.is_choked(),
            optimistic: self.choker.is_optimistic(slot),
            snubbed: peer.is_snubbed(),
            outgoing: peer.is_outgoing(),
            carrier: peer.carrier(),
            encrypted: peer.is_encrypted() || self.meta.info().tls_root.is_some(),
        }
    }
}
