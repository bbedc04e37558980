//! Holes through two NATs at once (BEP 55): asking a peer in the middle, being the one in the middle, and being told.
//!
//! Owns who told of which address, and how often all that may happen. A peer that cannot be called, and that another one
//! told of, is asked for there: that one tells both to call each other by uTP at the same moment, and what each sends
//! opens its own NAT for the other. Private torrents know no peers by peers, and so do none of it (BEP 27).

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_wire::holepunch::{HolepunchError, HolepunchMessage};

use super::Controller;
use super::pex::same_reach;
use crate::cx::{Carrier, ConnId, Cx, Goodbye};
use crate::peer::PeerConnection;
use crate::picker::PeerSlot;
use crate::swarm::can_be_dialed;

/// Addresses of which is known who told of them; the oldest are forgotten.
const MOST_TOLD_OF: usize = 1_000;
/// One address is asked for no sooner again: whom a punch does not reach now it will not reach in a minute.
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// Calls that others make us do within [`WINDOW`], and calls we make others do: a liar in the middle must not have us
/// knock at strangers' doors.
const MOST_IN_WINDOW: usize = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Punches {
    /// By address: who told of it last. Bound: [`MOST_TOLD_OF`].
    told_by: BTreeMap<SocketAddr, ConnId>,
    told_order: VecDeque<SocketAddr>,
    /// Whom we asked for, and when. Bound: the addresses above.
    asked: BTreeMap<SocketAddr, Time>,
    /// When somebody was called for others' sake. Bound: [`MOST_IN_WINDOW`].
    called: VecDeque<Time>,
    relayed: VecDeque<Time>,
}

impl Punches {
    /// A peer that can help told of these addresses.
    pub(super) fn told(&mut self, by: ConnId, addrs: &[SocketAddr]) {
        for addr in addrs {
            if self.told_by.insert(*addr, by).is_none() {
                self.told_order.push_back(*addr);
            }
        }
        while self.told_order.len() > MOST_TOLD_OF {
            if let Some(oldest) = self.told_order.pop_front() {
                self.told_by.remove(&oldest);
                self.asked.remove(&oldest);
            }
        }
    }

    /// Who may help to reach `to`, if it is time to ask; that counts as asked.
    fn relay_for(&mut self, now: Time, to: SocketAddr) -> Option<ConnId> {
        let relay = *self.told_by.get(&to)?;
        if self.asked.get(&to).is_some_and(|asked| now.since(*asked) < ASK_AGAIN) {
            return None;
        }
        self.asked.insert(to, now);
        Some(relay)
    }
}

/// Whether one more may happen in the window; that counts.
fn may(now: Time, recent: &mut VecDeque<Time>) -> bool {
    while recent.front().is_some_and(|first| now.since(*first) >= WINDOW) {
        recent.pop_front();
    }
    let room = recent.len() < MOST_IN_WINDOW;
    if room {
        recent.push_back(now);
    }
    room
}

impl Controller {
    /// Whether we take part in this.
    pub(super) fn punches(&self) -> bool {
        let info = self.meta.info();
        self.settings.utp && !info.private && info.tls_root.is_none()
    }

    /// A peer could not be called: asks whoever told of it to help. BEP 55, "Rendezvous".
    pub(super) fn ask_to_punch(&mut self, cx: &mut Cx<'_>, to: SocketAddr, why: &Goodbye) {
        // Whoever answered in some way needs no hole.
        let unreached = matches!(why, Goodbye::Failed(_) | Goodbye::Silent);
        if !unreached || !self.punches() {
            return;
        }
        let Some(relay) = self.punches.relay_for(cx.now, to) else { return };
        if let Some(slot) = self.peers.slot_of(relay)
            && let Some(peer) = self.peers.get_mut(slot)
        {
            peer.tell_holepunch(cx, HolepunchMessage::Rendezvous(to));
        }
    }

    /// A peer says something of holes.
    pub(super) fn heard_holepunch(&mut self, cx: &mut Cx<'_>, slot: PeerSlot, message: HolepunchMessage) {
        if !self.punches() {
            return;
        }
        match message {
            HolepunchMessage::Rendezvous(with) => self.relay(cx, slot, with),
            HolepunchMessage::Connect(to) => self.call_through(cx, slot, to),
            // It was worth asking.
            HolepunchMessage::Error(..) => {}
        }
    }

    /// A peer wants to meet another one: tells both of each other at once.
    fn relay(&mut self, cx: &mut Cx<'_>, asker: PeerSlot, with: SocketAddr) {
        let Some(from) = self.peers.get(asker).map(endpoint) else { return };
        let refusal = match self.partner(asker, with) {
            Err(why) => why,
            // Not worth a word: it asks too much, or both would only learn of our local network.
            Ok(_) if !same_reach(from.ip(), with.ip()) || !may(cx.now, &mut self.punches.relayed) => return,
            Ok(partner) => {
                let to = self.peers.get(partner).map_or(with, endpoint);
                for (slot, other) in [(partner, from), (asker, to)] {
                    if let Some(peer) = self.peers.get_mut(slot) {
                        peer.tell_holepunch(cx, HolepunchMessage::Connect(other));
                    }
                }
                return;
            }
        };
        if let Some(peer) = self.peers.get_mut(asker) {
            peer.tell_holepunch(cx, HolepunchMessage::Error(with, refusal));
        }
    }

    /// Who is at `with`, for a peer that wants to meet it.
    fn partner(&self, asker: PeerSlot, with: SocketAddr) -> Result<PeerSlot, HolepunchError> {
        if !can_be_dialed(with) {
            return Err(HolepunchError::NoSuchPeer);
        }
        let is_it = |peer: &PeerConnection| peer.addr() == with || peer.listens_at() == Some(with);
        let (slot, peer) =
            self.peers.iter().find(|(_, peer)| is_it(peer)).ok_or(HolepunchError::NotConnected)?;
        if slot == asker {
            return Err(HolepunchError::NoSelf);
        }
        if peer.speaks_holepunch() { Ok(slot) } else { Err(HolepunchError::NoSupport) }
    }

    /// A peer in the middle says: call this address now.
    fn call_through(&mut self, cx: &mut Cx<'_>, relay: PeerSlot, to: SocketAddr) {
        let Some(from) = self.peers.get(relay).map(PeerConnection::addr) else { return };
        if same_reach(to.ip(), from.ip()) && may(cx.now, &mut self.punches.called) {
            self.finder.call_through(cx, to, self.peers.len());
            self.plan_search();
        }
    }
}

/// Where a peer can be reached through its NAT: by uTP that is where its datagrams come from; by TCP it is said.
fn endpoint(peer: &PeerConnection) -> SocketAddr {
    match peer.carrier() {
        Carrier::Utp => peer.addr(),
        Carrier::Tcp => peer.listens_at().unwrap_or(peer.addr()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn addr(host: u32) -> SocketAddr {
        SocketAddr::from((host.to_be_bytes(), 6881))
    }

    #[test]
    fn one_is_asked_who_told_last_and_not_too_often() {
        let mut punches = Punches::default();
        assert_eq!(punches.relay_for(at(0), addr(1)), None);
        punches.told(ConnId(7), &[addr(1), addr(2)]);
        punches.told(ConnId(8), &[addr(1)]);
        assert_eq!(punches.relay_for(at(0), addr(1)), Some(ConnId(8)));
        assert_eq!(punches.relay_for(at(299), addr(1)), None);
        assert_eq!(punches.relay_for(at(300), addr(1)), Some(ConnId(8)));
        assert_eq!(punches.relay_for(at(300), addr(2)), Some(ConnId(7)));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut punches = Punches::default();
        for host in 0..5_000 {
            punches.told(ConnId(1), &[addr(host), addr(host)]);
            punches.relay_for(at(0), addr(host));
        }
        let counts = [punches.told_by.len(), punches.told_order.len(), punches.asked.len()];
        assert_eq!(counts, [MOST_TOLD_OF; 3]);
        assert_eq!(punches.relay_for(at(999), addr(3_999)), None);
        assert_eq!(punches.relay_for(at(999), addr(4_000)), Some(ConnId(1)));
    }

    #[test]
    fn so_often_and_no_more() {
        let mut recent = VecDeque::new();
        let granted = (0..600).filter(|second| may(at(second / 10), &mut recent)).count();
        assert_eq!(granted, MOST_IN_WINDOW);
        assert!(may(at(60), &mut recent));
    }
}
