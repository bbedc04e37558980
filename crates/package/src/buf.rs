//! Memory for content: the only bound on how much of it is in flight.
//!
//! Owns: the count of Bufs lent, and those that lie free. Whoever holds a Buf owes it to the pool; a debug build
//! panics where one is dropped elsewhere, since a lost Buf is memory that back-pressure no longer sees.

use crate::BLOCK_LEN;

type Memory = Box<[u8; BLOCK_LEN as usize]>;

/// The memory one Block sits in. Cannot be cloned; goes back by [`BlockPool::give_back`].
#[derive(Debug)]
pub struct Buf {
    memory: Option<Memory>,
    len: u32,
}

impl Buf {
    /// The bytes that were filled so far.
    pub fn filled(&self) -> &[u8] {
        &self.memory()[..self.len as usize]
    }

    /// How many bytes are filled.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// True while nothing was filled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies as much of `bytes` as still fits below `upto` bytes; returns how much that was.
    pub fn append(&mut self, bytes: &[u8], upto: u32) -> usize {
        let at = self.len as usize;
        let room = (upto.min(BLOCK_LEN) as usize).saturating_sub(at).min(bytes.len());
        self.memory_mut()[at..at + room].copy_from_slice(&bytes[..room]);
        self.len += room as u32;
        room
    }

    /// The first `len` bytes, all counted as filled: a read from disk writes here.
    ///
    /// `len` is at most [`BLOCK_LEN`]; more is cut to it.
    pub fn fill(&mut self, len: u32) -> &mut [u8] {
        self.len = len.min(BLOCK_LEN);
        let len = self.len as usize;
        &mut self.memory_mut()[..len]
    }

    /// Frees the memory without its pool: only when the pool itself is going, at the end of a shard.
    pub fn abandon(mut self) {
        self.memory = None;
    }

    fn memory(&self) -> &Memory {
        self.memory.as_ref().expect("a Buf holds its memory until it is given back")
    }

    fn memory_mut(&mut self) -> &mut Memory {
        self.memory.as_mut().expect("a Buf holds its memory until it is given back")
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        // A second panic while one unwinds would abort, and hide the first.
        let excused = self.memory.is_none() || std::thread::panicking();
        debug_assert!(excused, "a Buf was dropped outside its pool");
    }
}

/// All memory for content of one shard.
///
/// Memory is taken when first lent and kept afterwards, last in first out, so that a shard with little to do
/// works in memory that is still warm in the cache.
#[derive(Debug)]
pub struct BlockPool {
    total: usize,
    lent: usize,
    free: Vec<Memory>,
}

impl BlockPool {
    /// A pool of at most `total` Bufs of [`BLOCK_LEN`] bytes.
    pub fn new(total: usize) -> BlockPool {
        BlockPool { total, lent: 0, free: Vec::new() }
    }

    /// An empty Buf, or `None` when all are lent: stop reading, then.
    pub fn lend(&mut self) -> Option<Buf> {
        if self.lent == self.total {
            return None;
        }
        self.lent += 1;
        let memory = self.free.pop().unwrap_or_else(|| Box::new([0; BLOCK_LEN as usize]));
        Some(Buf { memory: Some(memory), len: 0 })
    }

    /// Takes a Buf back.
    pub fn give_back(&mut self, mut buf: Buf) {
        let memory = buf.memory.take().expect("a Buf holds its memory until it is given back");
        debug_assert!(self.lent > 0, "more Bufs came back than were lent");
        self.lent = self.lent.saturating_sub(1);
        self.free.push(memory);
    }

    /// How many Bufs are lent.
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// How many more can be lent.
    pub fn available(&self) -> usize {
        self.total - self.lent
    }

    /// How many Bufs there are at most.
    pub fn total(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lends_no_more_than_it_has_and_takes_them_back() {
        let mut pool = BlockPool::new(2);
        let (first, second) = (pool.lend().unwrap(), pool.lend().unwrap());
        assert!(pool.lend().is_none());
        pool.give_back(first);
        assert_eq!((pool.lent(), pool.available()), (1, 1));
        pool.give_back(second);
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn append_stops_at_the_block() {
        let mut pool = BlockPool::new(1);
        let mut buf = pool.lend().unwrap();
        assert_eq!(buf.append(&[7; 100], 60), 60);
        assert_eq!(buf.append(&[7; 100], 60), 0);
        assert_eq!(buf.filled(), &[7; 60]);
        pool.give_back(buf);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "dropped outside its pool")]
    fn a_lost_buf_is_a_bug() {
        drop(BlockPool::new(1).lend());
    }
}
