//! Accepting, dialing and reading.
//!
//! Readiness comes in edges: a socket that told once that it is readable is read until a read says otherwise, over
//! several turns if it has much.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Token};
use piecemeal_engine::cx::{Carrier, ConnId, DialId, Goodbye};
use piecemeal_metainfo::TorrentId;

use super::conns::{Conn, Dialing, Link, Owner, Slot};
use super::utp::End;
use super::{EngineLoop, FIRST_LISTENER, SCRATCH_BYTES, WAKER, to_owner};
use crate::driven::{Data, Front};
use crate::net::{Traffic, Way};
use crate::tcp;
use crate::tls::Tls;

/// What one connection may read a turn before others have theirs.
const READ_BUDGET_BYTES: usize = 4 * SCRATCH_BYTES;
/// Connections accepted a turn from each listener.
const ACCEPTS: usize = 64;
/// When handles ran out: so long nobody is accepted.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

impl<F: Front, D: Data> EngineLoop<F, D> {
    pub(super) fn on_event(&mut self, event: &Event) {
        let token = event.token();
        if token == WAKER {
            return;
        }
        if let Some(listener) = FIRST_LISTENER.checked_sub(token.0).and_then(|at| self.listeners.get_mut(at))
        {
            listener.ready = true;
            return;
        }
        if self.datagrams.on_event(event) {
            return;
        }
        if self.on_probe_event(event) || self.on_relay_event(event) {
            return;
        }
        let slot = Slot(token.0);
        if self.conns.get(slot).is_some_and(|conn| conn.dialing.is_some()) {
            self.on_dial_event(slot);
        }
        let Some(conn) = self.conns.get(slot).filter(|conn| conn.dialing.is_none()) else { return };
        conn.failed |= event.is_error();
        conn.read_closed |= event.is_read_closed();
        conn.readable |= event.is_readable() || conn.read_closed;
        if conn.readable || conn.failed {
            self.list_to_read(slot);
        }
        if event.is_writable() {
            self.may_write(slot);
        }
    }

    pub(super) fn accept(&mut self) {
        if self.accept_again.is_some_and(|again| self.now < again) {
            return;
        }
        self.accept_again = None;
        for at in 0..self.listeners.len() {
            let mut left = ACCEPTS;
            while left > 0 && self.listeners[at].ready && self.accept_again.is_none() {
                left -= 1;
                self.accept_one(at);
            }
        }
    }

    fn accept_one(&mut self, at: usize) {
        let listener = &mut self.listeners[at];
        match listener.listener.accept() {
            Ok((stream, from)) => {
                tcp::set_options(&stream);
                if let Some((_, id)) = self.watch(stream, None) {
                    self.stats.accepted += 1;
                    self.stirred = true;
                    self.front.on_accepted(self.now, id, from, Carrier::Tcp);
                    self.carry();
                }
            }
            Err(why) if why.kind() == ErrorKind::WouldBlock => listener.ready = false,
            Err(why) if tcp::only_this_one(&why) => {}
            Err(why) => {
                if tcp::out_of_handles(&why) {
                    self.spare.turn_away(&listener.listener);
                    self.stats.turned_away += 1;
                }
                self.accept_again = Some(self.now + ACCEPT_PAUSE);
            }
        }
    }

    /// Begins to connect.
    pub(super) fn dial(
        &mut self,
        dial: DialId,
        to: SocketAddr,
        carrier: Carrier,
        tls: Option<TorrentId>,
        patience: Duration,
    ) {
        self.stats.dialed += 1;
        let give_up = self.now + patience;
        let dialing = Dialing { dial, give_up };
        let tls = match tls.map(|torrent| Tls::call(&self.identities, torrent)).transpose() {
            Ok(tls) => tls,
            Err(why) => return self.front.on_dialed(self.now, dial, Err(why)),
        };
        let begun = match carrier {
            Carrier::Tcp if self.presence.dialer.way(Traffic::PeersTcp) == Way::Proxy => {
                self.dial_by_proxy(to, dialing)
            }
            Carrier::Tcp => {
                tcp::dial(&self.presence.dialer, to).map_err(|why| why.to_string()).and_then(|stream| {
                    self.watch(stream, Some(dialing)).ok_or_else(|| "too many connections".to_owned())
                })
            }
            Carrier::Utp => self.connect_utp(to, dialing),
        };
        match begun {
            Ok((slot, id)) => {
                self.dials.insert((give_up, id));
                if let Some(conn) = self.conns.get(slot) {
                    conn.tls = tls.map(Box::new);
                }
            }
            Err(why) => self.front.on_dialed(self.now, dial, Err(why)),
        }
    }

    /// Gives up on dials that took too long.
    pub(super) fn end_dials(&mut self) {
        while let Some(&(give_up, id)) = self.dials.first()
            && give_up <= self.now
        {
            self.dials.remove(&(give_up, id));
            if let Some(slot) = self.conns.slot_of(id) {
                let why = self.too_long(slot);
                self.lose(slot, Goodbye::Failed(why));
            }
        }
    }

    fn on_dial_event(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get(slot) else { return };
        if conn.asking.is_some() {
            return self.ask_proxy(slot);
        }
        let Link::Tcp(stream) = &conn.link else { return };
        match tcp::dialed(stream) {
            Ok(()) => self.stands(slot),
            // Not yet.
            Err(why) if why.kind() == ErrorKind::NotConnected => {}
            Err(why) => self.lose(slot, Goodbye::Failed(why.to_string())),
        }
    }

    /// A dial has its connection.
    pub(super) fn stands(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get(slot) else { return };
        let Some(dialing) = conn.dialing.take() else { return };
        conn.writable = true;
        let id = conn.id;
        self.dials.remove(&(dialing.give_up, id));
        self.stirred = true;
        self.front.on_dialed(self.now, dialing.dial, Ok(id));
        self.carry();
    }

    pub(super) fn watch(
        &mut self,
        mut stream: TcpStream,
        dialing: Option<Dialing>,
    ) -> Option<(Slot, ConnId)> {
        let slot = self.conns.next_slot()?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(slot.0), both).ok()?;
        Some(self.conns.insert(Link::Tcp(stream), dialing))
    }

    /// A connection ended, not by our will; tells its owner.
    pub(super) fn lose(&mut self, slot: Slot, why: Goodbye) {
        let Some(conn) = self.conns.remove(slot) else { return };
        self.end_link(&conn.link, End::Broken);
        self.stirred = true;
        if let Some(Dialing { dial, give_up }) = conn.dialing {
            self.dials.remove(&(give_up, conn.id));
            let text = match why {
                Goodbye::Failed(text) => text,
                other => format!("{other:?}"),
            };
            self.front.on_dialed(self.now, dial, Err(text));
        } else {
            to_owner!(self, conn.owner, it => it.on_closed(self.now, conn.id, why));
        }
        self.carry();
    }

    pub(super) fn read_sockets(&mut self) {
        let mut slots = std::mem::replace(&mut self.ready, std::mem::take(&mut self.lanes.slots));
        for slot in slots.drain(..) {
            if let Some(conn) = self.conns.get(slot) {
                conn.listed = false;
                self.read(slot);
            }
        }
        self.lanes.slots = slots;
    }

    /// Reads from a connection until it has no more, its owner thirsts, or its turn is over.
    fn read(&mut self, slot: Slot) {
        let mut budget = READ_BUDGET_BYTES;
        while let Some(conn) = self.conns.get(slot) {
            if conn.failed {
                let why = match &conn.link {
                    Link::Tcp(stream) => stream.take_error().ok().flatten(),
                    Link::Utp(..) => None,
                };
                let why = why.map_or(Goodbye::Closed, |why| Goodbye::Failed(why.to_string()));
                return self.lose(slot, why);
            }
            if conn.thirsty || (conn.kept.is_empty() && !conn.readable) {
                return;
            }
            if budget == 0 {
                conn.listed = true;
                return self.ready.push(slot);
            }
            if !conn.kept.is_empty() {
                self.offer_kept(slot);
                continue;
            }
            self.stats.reads += 1;
            let read = match &mut conn.link {
                Link::Tcp(stream) => stream.read(&mut self.scratch),
                Link::Utp(socket, id) => {
                    let (socket, id) = (*socket, *id);
                    self.read_utp(socket, id)
                }
            };
            let Some(conn) = self.conns.get(slot) else { return };
            match read {
                Ok(0) => return self.lose(slot, Goodbye::Closed),
                Ok(bytes) => {
                    // A read that is not full emptied the socket; whatever comes now comes with an edge.
                    conn.readable = bytes == SCRATCH_BYTES || conn.read_closed;
                    budget = budget.saturating_sub(bytes);
                    self.stats.bytes_in += bytes as u64;
                    if let Some(ciphers) = &mut conn.ciphers {
                        ciphers.incoming.apply(&mut self.scratch[..bytes]);
                    }
                    let may = std::mem::take(&mut conn.may_speak_tls) && self.identities.any();
                    if conn.tls.is_some() || (may && Tls::looks_like_hello(&self.scratch[..bytes])) {
                        self.hear_tls(slot, bytes);
                    } else {
                        self.offer(slot, bytes);
                    }
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => conn.readable = false,
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return self.lose(slot, Goodbye::Failed(why.to_string())),
            }
        }
    }

    /// Offers the first `bytes` bytes of the scratch buffer to a connection's owner, and keeps what it leaves.
    fn offer(&mut self, slot: Slot, bytes: usize) {
        let Some(conn) = self.conns.get(slot) else { return };
        let bytes = &self.scratch[..bytes];
        let (id, owner) = (conn.id, conn.owner);
        self.stirred = true;
        let ate = to_owner!(self, owner, it => it.on_bytes(self.now, id, bytes));
        conn.note_meal(ate.thirsty, ate.bytes);
        conn.kept.extend_from_slice(bytes.get(ate.bytes..).unwrap_or_default());
        if owner == Owner::Front {
            self.carry();
        }
    }

    /// Offers what was left of an earlier read.
    fn offer_kept(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get(slot) else { return };
        let mut kept = std::mem::take(&mut conn.kept);
        let (id, owner) = (conn.id, conn.owner);
        self.stirred = true;
        let ate = to_owner!(self, owner, it => it.on_bytes(self.now, id, &kept));
        conn.note_meal(ate.thirsty, ate.bytes);
        if ate.bytes < kept.len() {
            kept.drain(..ate.bytes);
            conn.kept = kept;
        }
        if owner == Owner::Front {
            self.carry();
        }
    }
}

impl Conn {
    /// Who eats nothing, thirsts, whatever it says: asking again at once would be a circle.
    fn note_meal(&mut self, thirsty: bool, ate: usize) {
        self.thirsty = thirsty || ate == 0;
    }
}
