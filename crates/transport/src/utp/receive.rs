//! What arrived and has not been read yet.
//!
//! Owns the bytes in order, which lie in one piece, the packets that came too early, and the window that is told to the
//! peer. When an acknowledgement leaves is the connection's.

use std::collections::VecDeque;
use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_wire::utp::{Seq, encode_sack};

use super::MOST_PACKETS;

/// Bytes that were read and stay in front, before those behind move up.
const SLACK_BYTES: usize = 64 << 10;

/// A reader that takes a whole window within this time is worth a larger one: no path takes longer there and back.
const QUICK: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Receiver {
    /// Bytes in order, from `read` on. With those of `early` never more than twice `room`, and more than `room` only
    /// while a gap is being closed.
    bytes: Vec<u8>,
    read: usize,
    /// The packet that is expected.
    next: Seq,
    /// Those behind it, the first being the one after `next`; bounded by [`MOST_PACKETS`]. An allocation each, but only
    /// for what comes out of order.
    early: VecDeque<Option<Box<[u8]>>>,
    early_bytes: usize,
    fin: Option<Seq>,
    ended: bool,
    room: usize,
    most_room: usize,
    /// Bytes read, and since when, to see how quick the reader is.
    taken: usize,
    taken_since: Time,
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// It was expected, and so many bytes can be read now.
    Next(usize),
    /// It waits for others.
    Early,
    /// It is here already.
    Again,
    /// No room for it, or beyond the end.
    Refused,
}

impl Receiver {
    pub fn new(next: Seq, room: usize, most_room: usize) -> Receiver {
        Receiver {
            bytes: Vec::new(),
            read: 0,
            next,
            early: VecDeque::new(),
            early_bytes: 0,
            fin: None,
            ended: false,
            room,
            most_room: most_room.max(room),
            taken: 0,
            taken_since: Time::ZERO,
        }
    }

    /// All that can be read, in one piece.
    pub fn readable(&self) -> &[u8] {
        &self.bytes[self.read..]
    }

    /// The last number up to which all is here.
    pub fn ack(&self) -> Seq {
        self.next.minus(1)
    }

    /// Bytes there is room for.
    pub fn window(&self) -> usize {
        self.room.saturating_sub(self.readable().len() + self.early_bytes)
    }

    /// Bytes there is room for when nothing waits.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Bytes there may be room for once the reader proves quick.
    pub fn most_room(&self) -> usize {
        self.most_room
    }

    /// The peer's last byte is here.
    pub fn ended(&self) -> bool {
        self.ended
    }

    pub fn has_gap(&self) -> bool {
        !self.early.is_empty()
    }

    /// A packet that takes a number.
    pub fn packet(&mut self, seq: Seq, payload: &[u8], fin: bool) -> Heard {
        let ahead = seq.steps_from(self.next);
        if ahead > u16::MAX / 2 {
            return Heard::Again;
        }
        if self.ended || self.fin.is_some_and(|fin| fin.is_before(seq)) {
            return Heard::Refused;
        }
        // A FIN whose number others have passed already is none.
        if fin && self.fin.is_none() && usize::from(ahead) < self.early.len() {
            return Heard::Refused;
        }
        if ahead == 0 { self.expected(seq, payload, fin) } else { self.early(seq, ahead, payload, fin) }
    }

    fn expected(&mut self, seq: Seq, payload: &[u8], fin: bool) -> Heard {
        // To close a gap there is room as long as the reader is not behind by itself.
        let behind = self.readable().len() >= self.room;
        if behind || (self.window() == 0 && self.early_bytes == 0) {
            return Heard::Refused;
        }
        let before = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        self.next = self.next.plus(1);
        self.ended = fin || self.fin == Some(seq);
        while let Some(waiting) = self.early.pop_front() {
            // What is behind the expected one is the expected one next.
            let Some(payload) = waiting else { break };
            self.early_bytes -= payload.len();
            self.bytes.extend_from_slice(&payload);
            self.ended |= self.fin == Some(self.next);
            self.next = self.next.plus(1);
        }
        if self.ended {
            self.early.clear();
            self.early_bytes = 0;
        }
        Heard::Next(self.bytes.len() - before)
    }

    fn early(&mut self, seq: Seq, ahead: u16, payload: &[u8], fin: bool) -> Heard {
        let at = usize::from(ahead) - 1;
        if at >= MOST_PACKETS || payload.len() > self.window() {
            return Heard::Refused;
        }
        if at >= self.early.len() {
            self.early.resize_with(at + 1, || None);
        }
        let place = &mut self.early[at];
        if place.is_some() {
            return Heard::Again;
        }
        *place = Some(payload.into());
        self.early_bytes += payload.len();
        if fin {
            self.fin = Some(seq);
        }
        Heard::Early
    }

    /// The reader took bytes.
    pub fn consumed(&mut self, now: Time, bytes: usize) {
        let bytes = bytes.min(self.readable().len());
        self.read += bytes;
        if self.read == self.bytes.len() {
            self.bytes.clear();
            self.read = 0;
        } else if self.read >= SLACK_BYTES && self.read * 2 >= self.bytes.len() {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
        self.grow(now, bytes);
    }

    /// A window that is used up quickly and read at once was too small, or soon will be.
    fn grow(&mut self, now: Time, bytes: usize) {
        if now.since(self.taken_since) > QUICK {
            (self.taken, self.taken_since) = (0, now);
        }
        self.taken += bytes;
        if self.taken >= self.room && self.readable().len() < self.room / 4 {
            self.room = (self.room * 2).min(self.most_room);
            (self.taken, self.taken_since) = (0, now);
        }
    }

    /// Writes which of the packets behind the gap are here, as the last extension.
    pub fn encode_sack(&self, out: &mut Vec<u8>) {
        encode_sack(self.early.iter().map(Option::is_some), out);
    }

    /// Drops what nobody will read.
    pub fn drop_unread(&mut self) {
        self.bytes.clear();
        self.read = 0;
    }

    /// Gives back memory that nothing uses.
    pub fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        if self.early.is_empty() {
            self.early = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests;
