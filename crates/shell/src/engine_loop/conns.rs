//! The connections of a loop, by slot.
//!
//! Owns their numbers: a [`ConnId`] holds its slot, so finding a connection is an index, and a serial number, so that a
//! number is never used again.

use mio::net::TcpStream;
use piecemeal_engine::cx::{ConnId, DialId};
use piecemeal_metainfo::Time;
use piecemeal_transport::mse::Ciphers;
use piecemeal_transport::utp::UtpId;

use super::proxied::Asking;
use crate::tls::Tls;

/// Bits of a [`ConnId`] that are the slot: a million connections, far beyond what a process has handles for.
const SLOT_BITS: u32 = 20;

/// Where a connection lies; used again when it is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot(pub(super) usize);

/// Which of the two a connection belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    Front,
    Data,
}

/// Whether a connection wants to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wants {
    /// It has nothing to send.
    Nothing,
    /// It is in the list of those that will be written to.
    Listed,
    /// It waits until the socket can take more.
    Room,
}

/// What carries a connection.
pub(super) enum Link {
    Tcp(TcpStream),
    /// A stream of the socket with this number.
    Utp(usize, UtpId),
}

/// A connection, or an attempt at one.
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) link: Link,
    /// By what its stream is encrypted, once its handshake is done. What lies in `kept` is deciphered, what lies in
    /// `unsent` enciphered.
    pub(super) ciphers: Option<Box<Ciphers>>,
    /// TLS between it and what its owner hears and says.
    pub(super) tls: Option<Box<Tls>>,
    /// It called us by TCP and has said nothing yet: its first bytes may be those of TLS.
    pub(super) may_speak_tls: bool,
    pub(super) owner: Owner,
    /// Set until the dial has ended.
    pub(super) dialing: Option<Dialing>,
    /// Set until the proxy, if it goes by one, has connected.
    pub(super) asking: Option<Box<Asking>>,
    /// The socket may have bytes: an edge came, and no read told otherwise since.
    pub(super) readable: bool,
    /// The other side sent its last byte; a read tells nothing until it returns 0.
    pub(super) read_closed: bool,
    /// The system reported an error.
    pub(super) failed: bool,
    /// Its owner has no memory for more: nothing is read until it says so.
    pub(super) thirsty: bool,
    /// It is in the list of those to be read from.
    pub(super) listed: bool,
    /// The socket can take bytes, as far as is known.
    pub(super) writable: bool,
    pub(super) write: Wants,
    /// Bytes read and not eaten; at most one read.
    pub(super) kept: Vec<u8>,
    /// Bytes that leave before all others: those that the owner before had yet to send, and what was enciphered. At
    /// most a gathering of each.
    pub(super) unsent: Vec<u8>,
}

/// An attempt to connect.
#[derive(Clone, Copy)]
pub(super) struct Dialing {
    pub(super) dial: DialId,
    pub(super) give_up: Time,
}

/// See the module.
#[derive(Default)]
pub(super) struct Conns {
    slots: Vec<Option<Conn>>,
    free: Vec<Slot>,
    serial: u64,
    count: usize,
}

impl Conns {
    /// Where the next connection would go. `None`: there are too many.
    pub(super) fn next_slot(&mut self) -> Option<Slot> {
        if let Some(slot) = self.free.last() {
            return Some(*slot);
        }
        (self.slots.len() < 1 << SLOT_BITS).then_some(Slot(self.slots.len()))
    }

    /// Puts a connection into [`Conns::next_slot`].
    pub(super) fn insert(&mut self, link: Link, dialing: Option<Dialing>) -> (Slot, ConnId) {
        let slot = self.next_slot().expect("the caller asked for the slot");
        self.free.pop();
        if slot.0 == self.slots.len() {
            self.slots.push(None);
        }
        self.serial += 1;
        self.count += 1;
        let id = ConnId(self.serial << SLOT_BITS | slot.0 as u64);
        let may_speak_tls = dialing.is_none() && matches!(link, Link::Tcp(_));
        self.slots[slot.0] = Some(Conn {
            id,
            link,
            ciphers: None,
            tls: None,
            may_speak_tls,
            owner: Owner::Front,
            writable: dialing.is_none(),
            dialing,
            asking: None,
            readable: false,
            read_closed: false,
            failed: false,
            thirsty: false,
            listed: false,
            write: Wants::Nothing,
            kept: Vec::new(),
            unsent: Vec::new(),
        });
        (slot, id)
    }

    pub(super) fn get(&mut self, slot: Slot) -> Option<&mut Conn> {
        self.slots.get_mut(slot.0)?.as_mut()
    }

    /// The slot of a connection that is still there.
    pub(super) fn slot_of(&self, id: ConnId) -> Option<Slot> {
        let slot = Slot((id.0 & ((1 << SLOT_BITS) - 1)) as usize);
        let conn = self.slots.get(slot.0)?.as_ref()?;
        (conn.id == id).then_some(slot)
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<Conn> {
        let conn = self.slots.get_mut(slot.0)?.take()?;
        self.free.push(slot);
        self.count -= 1;
        Some(conn)
    }

    /// Where all of them are.
    pub(super) fn slots(&self) -> Vec<Slot> {
        let taken = self.slots.iter().enumerate().filter(|(_, conn)| conn.is_some());
        taken.map(|(at, _)| Slot(at)).collect()
    }

    /// How many there are, attempts included.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}
