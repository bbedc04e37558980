//! The PeerConnections of one torrent, by seat and by connection.

use std::collections::BTreeMap;

use crate::cx::ConnId;
use crate::peer::PeerConnection;
use crate::picker::PeerSlot;

/// See the module. Bounded by `Settings::max_conns_per_torrent`.
#[derive(Debug, Default)]
pub(super) struct Peers {
    seats: Vec<Option<PeerConnection>>,
    free: Vec<PeerSlot>,
    by_conn: BTreeMap<ConnId, PeerSlot>,
}

impl Peers {
    pub(super) fn insert(&mut self, peer: PeerConnection) -> PeerSlot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.seats.push(None);
            PeerSlot(self.seats.len() as u32 - 1)
        });
        self.by_conn.insert(peer.conn(), slot);
        self.seats[slot.0 as usize] = Some(peer);
        slot
    }

    pub(super) fn remove(&mut self, slot: PeerSlot) -> Option<PeerConnection> {
        let peer = self.seats.get_mut(slot.0 as usize)?.take()?;
        self.by_conn.remove(&peer.conn());
        self.free.push(slot);
        Some(peer)
    }

    pub(super) fn slot_of(&self, conn: ConnId) -> Option<PeerSlot> {
        self.by_conn.get(&conn).copied()
    }

    pub(super) fn get(&self, slot: PeerSlot) -> Option<&PeerConnection> {
        self.seats.get(slot.0 as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: PeerSlot) -> Option<&mut PeerConnection> {
        self.seats.get_mut(slot.0 as usize)?.as_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.by_conn.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerSlot, &PeerConnection)> {
        (0..).zip(&self.seats).filter_map(|(at, seat)| Some((PeerSlot(at), seat.as_ref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (PeerSlot, &mut PeerConnection)> {
        (0..).zip(&mut self.seats).filter_map(|(at, seat)| Some((PeerSlot(at), seat.as_mut()?)))
    }

    /// The seats taken now, in order, beginning behind `turn`; so that it is not always the same that come first.
    pub(super) fn round(&self, turn: u32) -> Vec<PeerSlot> {
        let mut slots: Vec<_> = self.iter().map(|(slot, _)| slot).collect();
        if !slots.is_empty() {
            let first = turn as usize % slots.len();
            slots.rotate_left(first);
        }
        slots
    }
}
