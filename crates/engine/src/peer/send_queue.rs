//! What a PeerConnection has yet to send, in order.
//!
//! Owns: control bytes and the Blocks that answer requests, until the socket took them. An entry is *sealed* once a
//! byte of it left; until then a Block can still be withdrawn by a cancel or a choke. Leaves to the connection: what
//! is sent, and when.

use std::collections::VecDeque;

use piecemeal_package::{BlockPool, BlockRef, Buf};
use piecemeal_wire::message::PIECE_HEADER_BYTES;

use crate::cx::{FileSpan, Sending};

/// How many slices are offered to the socket at once: enough for half a MiB of Blocks with their headers, and less than any system's
/// limit for one gathering write (1,024).
const SLICES: usize = 64;

/// Control bytes stop growing their entry here, so that an entry stays small to move.
const CONTROL_ENTRY_BYTES: usize = 4096;

#[derive(Debug)]
enum Entry {
    Control(Vec<u8>),
    Block { at: BlockRef, header: [u8; PIECE_HEADER_BYTES], body: Body },
}

/// Where the bytes of an answer come from.
#[derive(Debug)]
pub enum Body {
    /// From memory.
    Buf(Buf),
    /// From one place in one file.
    File(FileSpan),
    /// From several files, in order.
    Files(Box<[FileSpan]>),
}

/// What left with the bytes that were just written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wrote {
    /// Bytes of content.
    pub content: u64,
    /// Blocks of which the last byte left.
    pub blocks: u32,
}

/// See the module.
///
/// Bounded: Blocks by the peer's requests (see `PeerConnection`), control bytes by what one turn can say about the
/// pieces of one torrent.
#[derive(Debug, Default)]
pub struct SendQueue {
    entries: VecDeque<Entry>,
    /// Bytes of the first entry that already left.
    sealed: usize,
    /// Content bytes in all entries, sealed ones included.
    content: u64,
    /// Bufs in all entries.
    bufs: usize,
}

impl SendQueue {
    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of content that wait.
    pub fn content(&self) -> u64 {
        self.content
    }

    /// How many Bufs it holds.
    pub fn bufs(&self) -> usize {
        self.bufs
    }

    /// The Blocks that wait.
    pub fn blocks(&self) -> impl Iterator<Item = BlockRef> + '_ {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Block { at, .. } => Some(*at),
            Entry::Control(_) => None,
        })
    }

    /// Adds control bytes, written by `encode` to the end of a buffer. They go before the Blocks of which nothing has left:
    /// a request or a choke must not wait for minutes behind content on a slow line.
    pub fn control(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let begun = usize::from(self.sealed > 0);
        let blocks = self.entries.iter().skip(begun).position(|entry| matches!(entry, Entry::Block { .. }));
        let place = blocks.map_or(self.entries.len(), |at| at + begun);
        let before = place.checked_sub(1).and_then(|at| self.entries.get_mut(at));
        match before {
            Some(Entry::Control(bytes)) if bytes.len() < CONTROL_ENTRY_BYTES => encode(bytes),
            _ => {
                let mut bytes = Vec::with_capacity(64);
                encode(&mut bytes);
                // Nothing said is nothing to be sent.
                if !bytes.is_empty() {
                    self.entries.insert(place, Entry::Control(bytes));
                }
            }
        }
    }

    /// Appends a Block.
    pub fn block(&mut self, at: BlockRef, header: [u8; PIECE_HEADER_BYTES], body: Body) {
        self.content += u64::from(at.len);
        self.bufs += body.bufs();
        self.entries.push_back(Entry::Block { at, header, body });
    }

    /// Withdraws Blocks that are not sealed and that `which` picks; returns their addresses.
    pub fn withdraw(&mut self, pool: &mut BlockPool, which: impl Fn(BlockRef) -> bool) -> Vec<BlockRef> {
        let mut gone = Vec::new();
        let keep_first = self.sealed > 0;
        let mut kept = VecDeque::with_capacity(self.entries.len());
        for (index, entry) in self.entries.drain(..).enumerate() {
            match entry {
                Entry::Block { at, body, .. } if !(keep_first && index == 0) && which(at) => {
                    self.content -= u64::from(at.len);
                    self.bufs -= body.bufs();
                    gone.push(at);
                    body.release(pool);
                }
                other => kept.push_back(other),
            }
        }
        self.entries = kept;
        gone
    }

    /// Gives every Buf back: the connection is over.
    pub fn clear(&mut self, pool: &mut BlockPool) {
        for entry in self.entries.drain(..) {
            if let Entry::Block { body, .. } = entry {
                body.release(pool);
            }
        }
        (self.sealed, self.content, self.bufs) = (0, 0, 0);
    }

    /// Shows the next slices to send to `f`.
    pub fn with_sealed<R>(&self, f: impl FnOnce(&[Sending<'_>]) -> R) -> Option<R> {
        if self.entries.is_empty() {
            return None;
        }
        let mut slices: [Sending<'_>; SLICES] = std::array::from_fn(|_| Sending::Bytes(&[]));
        let mut filled = 0;
        let mut skip = self.sealed;
        'entries: for entry in &self.entries {
            for part in entry.parts() {
                let Some(slice) = after(part, &mut skip) else { continue };
                if filled == SLICES {
                    break 'entries;
                }
                slices[filled] = slice;
                filled += 1;
            }
        }
        Some(f(&slices[..filled]))
    }

    /// The socket took the next `bytes` bytes.
    pub fn on_wrote(&mut self, mut bytes: usize, pool: &mut BlockPool) -> Wrote {
        let mut wrote = Wrote::default();
        while bytes > 0 {
            let Some(front) = self.entries.front() else {
                debug_assert!(false, "more was written than was offered");
                break;
            };
            let (len, before) = (front.len(), self.sealed);
            let step = (len - before).min(bytes);
            if let Entry::Block { .. } = front {
                let header = PIECE_HEADER_BYTES;
                wrote.content +=
                    ((before + step).saturating_sub(header) - before.saturating_sub(header)) as u64;
            }
            bytes -= step;
            self.sealed += step;
            if self.sealed == len {
                self.sealed = 0;
                if let Some(Entry::Block { body, .. }) = self.entries.pop_front() {
                    wrote.blocks += 1;
                    self.bufs -= body.bufs();
                    body.release(pool);
                }
            }
        }
        self.content -= wrote.content;
        wrote
    }
}

impl Entry {
    fn len(&self) -> usize {
        match self {
            Entry::Control(bytes) => bytes.len(),
            Entry::Block { at, .. } => PIECE_HEADER_BYTES + at.len as usize,
        }
    }

    /// The slices of this entry, in order.
    fn parts(&self) -> impl Iterator<Item = Sending<'_>> {
        let (first, single, many): (&[u8], Option<Sending<'_>>, &[FileSpan]) = match self {
            Entry::Control(bytes) => (bytes, None, &[]),
            Entry::Block { header, body: Body::Buf(buf), .. } => {
                (header, Some(Sending::Bytes(buf.filled())), &[])
            }
            Entry::Block { header, body: Body::File(span), .. } => (header, Some(Sending::File(*span)), &[]),
            Entry::Block { header, body: Body::Files(spans), .. } => (header, None, spans),
        };
        std::iter::once(Sending::Bytes(first))
            .chain(single)
            .chain(many.iter().map(|span| Sending::File(*span)))
    }
}

impl Body {
    fn bufs(&self) -> usize {
        usize::from(matches!(self, Body::Buf(_)))
    }

    /// Gives back what memory it holds.
    pub fn release(self, pool: &mut BlockPool) {
        if let Body::Buf(buf) = self {
            pool.give_back(buf);
        }
    }
}

/// The rest of `part` after skipping `skip` bytes, which shrinks by what was skipped.
fn after<'a>(part: Sending<'a>, skip: &mut usize) -> Option<Sending<'a>> {
    let len = match &part {
        Sending::Bytes(bytes) => bytes.len(),
        Sending::File(span) => span.len as usize,
    };
    if *skip >= len {
        *skip -= len;
        return None;
    }
    let by = std::mem::take(skip);
    Some(match part {
        Sending::Bytes(bytes) => Sending::Bytes(&bytes[by..]),
        Sending::File(span) => {
            Sending::File(FileSpan { offset: span.offset + by as u64, len: span.len - by as u32, ..span })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecemeal_metainfo::{FileIndex, PieceIndex, TorrentId};
    use piecemeal_wire::message::piece_header;

    fn at(begin: u32, len: u32) -> BlockRef {
        BlockRef { piece: PieceIndex(0), begin, len }
    }

    fn flat(queue: &SendQueue) -> Vec<u8> {
        queue
            .with_sealed(|slices| {
                let mut bytes = Vec::new();
                for slice in slices {
                    match slice {
                        Sending::Bytes(b) => bytes.extend_from_slice(b),
                        Sending::File(s) => bytes.extend((0..s.len).map(|i| (s.offset + u64::from(i)) as u8)),
                    }
                }
                bytes
            })
            .unwrap_or_default()
    }

    /// One of each kind of entry, and the bytes they must become.
    fn mixed(pool: &mut BlockPool) -> (SendQueue, Vec<u8>) {
        let mut queue = SendQueue::default();
        queue.control(|out| out.extend_from_slice(b"hello"));
        let mut buf = pool.lend().unwrap();
        buf.append(b"from memory", 11);
        queue.block(at(0, 11), piece_header(0, 0, 11), Body::Buf(buf));
        let span = |offset, len| FileSpan { torrent: TorrentId(0), file: FileIndex(0), offset, len };
        queue.block(at(11, 4), piece_header(0, 11, 4), Body::File(span(3, 4)));
        queue.block(at(15, 5), piece_header(0, 15, 5), Body::Files([span(1, 2), span(9, 3)].into()));
        let mut bytes = b"hello".to_vec();
        bytes.extend_from_slice(&piece_header(0, 0, 11));
        bytes.extend_from_slice(b"from memory");
        bytes.extend_from_slice(&piece_header(0, 11, 4));
        bytes.extend_from_slice(&[3, 4, 5, 6]);
        bytes.extend_from_slice(&piece_header(0, 15, 5));
        bytes.extend_from_slice(&[1, 2, 9, 10, 11]);
        (queue, bytes)
    }

    #[test]
    fn any_split_of_the_writes_sends_the_same() {
        for step in 1..80 {
            let mut pool = BlockPool::new(1);
            let (mut queue, bytes) = mixed(&mut pool);
            let (mut sent, mut wrote) = (Vec::new(), Wrote::default());
            while !queue.is_empty() {
                let next = flat(&queue);
                let step = step.min(next.len());
                sent.extend_from_slice(&next[..step]);
                let now = queue.on_wrote(step, &mut pool);
                wrote.content += now.content;
                wrote.blocks += now.blocks;
            }
            assert_eq!(sent, bytes);
            assert_eq!(wrote, Wrote { content: 20, blocks: 3 });
            assert_eq!((pool.lent(), queue.content()), (0, 0));
        }
    }

    #[test]
    fn words_go_before_blocks_that_have_not_begun() {
        let mut pool = BlockPool::new(1);
        let (mut queue, bytes) = mixed(&mut pool);
        let say = |queue: &mut SendQueue, what: &[u8]| queue.control(|out| out.extend_from_slice(what));
        say(&mut queue, b" you");
        assert!(flat(&queue).starts_with(b"hello you\0"));
        // The first Block has begun.
        queue.on_wrote(9 + 3, &mut pool);
        say(&mut queue, b"A");
        say(&mut queue, b"B");
        let first = bytes[5 + 3..5 + 13 + 11].to_vec();
        let rest = bytes[5 + 13 + 11..].to_vec();
        assert_eq!(flat(&queue), [first, b"AB".to_vec(), rest].concat());
        queue.clear(&mut pool);
    }

    #[test]
    fn nothing_said_is_nothing_to_be_sent() {
        let mut queue = SendQueue::default();
        queue.control(|_| {});
        assert!(queue.is_empty());
    }

    #[test]
    fn a_sealed_block_cannot_be_withdrawn() {
        let mut pool = BlockPool::new(1);
        let (mut queue, bytes) = mixed(&mut pool);
        queue.on_wrote(6, &mut pool);
        assert_eq!(queue.withdraw(&mut pool, |_| true), vec![at(11, 4), at(15, 5)]);
        assert_eq!(flat(&queue), bytes[6..5 + 13 + 11]);
        assert_eq!(queue.content(), 11);
        queue.clear(&mut pool);
        assert_eq!(pool.lent(), 0);
    }
}
