//! One direction of a connection: bytes that were taken from a sender and not yet by the receiver.
//!
//! Owns those bytes and their bound, which is what makes a slow reader slow down a writer. When they arrive is told
//! from outside.

use piecemeal_metainfo::Time;

/// Bytes before the head that are carried along until it pays to move the rest.
const STALE_BYTES: usize = 64 << 10;

/// See the module.
pub struct Pipe {
    data: Vec<u8>,
    /// First byte that was not read.
    head: usize,
    /// Bytes from there on that arrived.
    arrived: usize,
    /// Most bytes that are in it: buffers of both sockets, and what is on the way.
    window: usize,
    /// No later byte arrives before this.
    pub(super) last: Time,
    /// The sender waits for room.
    pub(super) full: bool,
    /// Bytes that ever went in.
    total: u64,
}

impl Pipe {
    /// An empty pipe.
    pub fn new(window: usize) -> Pipe {
        let (data, last) = (Vec::new(), Time::ZERO);
        Pipe { data, head: 0, arrived: 0, window, last, full: false, total: 0 }
    }

    /// How many bytes it would take.
    pub fn room(&self) -> usize {
        self.window.saturating_sub(self.data.len() - self.head)
    }

    /// Takes as many of `bytes` as there is room for.
    pub fn take(&mut self, bytes: &[u8]) -> usize {
        let took = bytes.len().min(self.room());
        self.data.extend_from_slice(&bytes[..took]);
        self.total += took as u64;
        took
    }

    /// The next `bytes` bytes are there.
    pub fn arrive(&mut self, bytes: usize) {
        self.arrived = (self.arrived + bytes).min(self.data.len() - self.head);
    }

    /// Whether bytes are on the way.
    pub fn is_flying(&self) -> bool {
        self.data.len() - self.head > self.arrived
    }

    /// What can be read.
    pub fn readable(&self) -> &[u8] {
        &self.data[self.head..self.head + self.arrived]
    }

    /// The first `bytes` bytes were read.
    pub fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.arrived);
        self.head += bytes;
        self.arrived -= bytes;
        if self.head == self.data.len() {
            self.data.clear();
            self.head = 0;
        } else if self.head >= STALE_BYTES {
            self.data.drain(..self.head);
            self.head = 0;
        }
    }

    /// Nobody will read any more.
    pub fn empty(&mut self) {
        (self.data, self.head, self.arrived) = (Vec::new(), 0, 0);
    }

    /// Bytes that ever went in.
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    #[test]
    fn bytes_come_out_in_order_and_never_more_than_fit() {
        let mut dice = Dice::new(3);
        let mut pipe = Pipe::new(100_000);
        let source: Vec<u8> = (0..2_000_000u32).map(|at| (at % 251) as u8).collect();
        let (mut sent, mut flying, mut got) = (0, 0, Vec::new());
        while got.len() < source.len() {
            let end = (sent + dice.pick(1..70_000)).min(source.len());
            let room = pipe.room();
            let took = pipe.take(&source[sent..end]);
            assert_eq!(took, room.min(end - sent));
            (sent, flying) = (sent + took, flying + took);
            let lands = dice.pick(0..flying + 1);
            pipe.arrive(lands);
            flying -= lands;
            let reads = dice.pick(0..pipe.readable().len() + 1);
            got.extend_from_slice(&pipe.readable()[..reads]);
            pipe.consume(reads);
        }
        assert!(got == source);
        assert_eq!(pipe.total(), source.len() as u64);
    }
}
