//! Where the bytes of a torrent go: pieces to runs of files, the part file, and nowhere.
//!
//! Owns the one byte line of the torrent and what lies under it, given what the user wants; never changes. Which of it
//! is there belongs to `package`, how a place becomes a path to the shell.

use std::ops::Range;
use std::sync::Arc;

use piecemeal_metainfo::{Bitfield, FileIndex, Metainfo, PieceIndex};

use crate::{BLOCK_LEN, BlockRef, Place, Span};

/// Pieces, Blocks and places of a torrent, pads included as v1 has them (BEP 3, BEP 47).
///
/// Finding a place costs a binary search over the files; nothing here walks them all but [`Layout::new`].
#[derive(Clone, Debug)]
pub struct Layout {
    meta: Arc<Metainfo>,
    wanted_files: Arc<[bool]>,
    /// In order, without gap, none empty; each ends where the next one starts.
    runs: Vec<Run>,
    wanted: Bitfield,
    wanted_bytes: u64,
}

/// Bytes that lie in one place.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// First byte in the torrent.
    start: u64,
    place: Place,
}

impl Layout {
    /// For a user who wants the files marked in `wanted`; files beyond its end are not wanted.
    pub fn new(meta: Arc<Metainfo>, wanted: Arc<[bool]>) -> Layout {
        let mut runs: Vec<Run> = Vec::new();
        let mut pieces = Bitfield::new(meta.piece_count());
        let mut wanted_bytes = 0;
        // Links and empty files own no bytes: their length is zero.
        for (at, file) in meta.files().iter().enumerate().filter(|(_, file)| file.length > 0) {
            let index = FileIndex(at as u32);
            let place = match wanted.get(at) {
                _ if file.pad => Place::Pad,
                Some(true) => Place::File(index),
                _ => Place::Part,
            };
            if let Place::File(_) = place {
                wanted_bytes += file.length;
                meta.file_pieces(index).for_each(|piece| {
                    pieces.set(PieceIndex(piece));
                });
            }
            if place == Place::Part && runs.last().is_some_and(|run| run.place == Place::Part) {
                continue;
            }
            runs.push(Run { start: file.offset, place });
        }
        Layout { meta, wanted_files: wanted, runs, wanted: pieces, wanted_bytes }
    }

    /// The torrent it is the layout of.
    pub fn meta(&self) -> &Arc<Metainfo> {
        &self.meta
    }

    /// By file: whether the user wants it.
    pub fn wanted_files(&self) -> &Arc<[bool]> {
        &self.wanted_files
    }

    /// How many pieces there are.
    pub fn piece_count(&self) -> u32 {
        self.meta.piece_count()
    }

    /// The proof that a number from outside names a piece.
    pub fn piece(&self, number: u32) -> Option<PieceIndex> {
        self.meta.piece(number)
    }

    /// Bytes of `piece`; zero beyond the end.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        let range = self.bytes_of(piece);
        (range.end - range.start) as u32
    }

    /// Blocks of `piece`; zero beyond the end.
    pub fn blocks(&self, piece: PieceIndex) -> u32 {
        self.piece_len(piece).div_ceil(BLOCK_LEN)
    }

    /// Bytes of the Block that begins at `begin` in `piece`; zero if none begins there.
    pub fn block_len(&self, piece: PieceIndex, begin: u32) -> u32 {
        if begin.is_multiple_of(BLOCK_LEN) {
            self.piece_len(piece).saturating_sub(begin).min(BLOCK_LEN)
        } else {
            0
        }
    }

    /// The Blocks of `piece`, in order.
    pub fn blocks_of(&self, piece: PieceIndex) -> impl Iterator<Item = BlockRef> + use<> {
        let len = self.piece_len(piece);
        (0..len.div_ceil(BLOCK_LEN)).map(move |block| {
            let begin = block * BLOCK_LEN;
            BlockRef { piece, begin, len: (len - begin).min(BLOCK_LEN) }
        })
    }

    /// Whether `at` is one of [`Layout::blocks_of`].
    pub fn is_block(&self, at: BlockRef) -> bool {
        at.len > 0 && at.len == self.block_len(at.piece, at.begin)
    }

    /// Whether `at` names at least one byte, and none beyond its piece: what a peer may ask for.
    pub fn is_inside(&self, at: BlockRef) -> bool {
        at.len > 0 && at.begin.checked_add(at.len).is_some_and(|end| end <= self.piece_len(at.piece))
    }

    /// Appends to `out` where the `len` bytes from `begin` in `piece` lie; what is beyond the piece is left out.
    pub fn spans(&self, piece: PieceIndex, begin: u32, len: u32, out: &mut Vec<Span>) {
        let bytes = self.bytes_of(piece);
        let mut at = (bytes.start + u64::from(begin)).min(bytes.end);
        let end = (at + u64::from(len)).min(bytes.end);
        for (run, stop) in self.runs_from(at) {
            if at >= end {
                break;
            }
            let len = stop.min(end) - at;
            let offset = match run.place {
                Place::File(_) => at - run.start,
                Place::Part => at,
                Place::Pad => 0,
            };
            // A piece has less than 2^32 bytes.
            out.push(Span { place: run.place, offset, len: len as u32 });
            at += len;
        }
    }

    /// Whether `piece` has bytes of a wanted file.
    pub fn piece_wanted(&self, piece: PieceIndex) -> bool {
        self.wanted.get(piece)
    }

    /// The pieces that have bytes of wanted files.
    pub fn wanted(&self) -> &Bitfield {
        &self.wanted
    }

    /// Bytes of wanted files, without pads.
    pub fn wanted_bytes(&self) -> u64 {
        self.wanted_bytes
    }

    /// Bytes of wanted files in `piece`.
    pub fn wanted_bytes_in(&self, piece: PieceIndex) -> u32 {
        self.bytes_in(piece, |place| matches!(place, Place::File(_)))
    }

    /// Whether some of `piece` is padding.
    pub fn has_pad(&self, piece: PieceIndex) -> bool {
        self.bytes_in(piece, |place| place == Place::Pad) > 0
    }

    /// Whether some bytes of the torrent go to the part file.
    pub fn has_part(&self) -> bool {
        self.runs.iter().any(|run| run.place == Place::Part)
    }

    /// The pieces that have bytes of `file`; empty for an empty file, a link, and beyond the end.
    pub fn pieces_of(&self, file: FileIndex) -> Range<u32> {
        self.meta.file_pieces(file)
    }

    /// Whether all of `spans` lies in files, so that it can be sent from there.
    pub fn in_files(spans: &[Span]) -> bool {
        spans.iter().all(|span| matches!(span.place, Place::File(_)))
    }

    /// Where `piece` lies in the torrent; empty beyond the end.
    fn bytes_of(&self, piece: PieceIndex) -> Range<u64> {
        let info = self.meta.info();
        let start = (u64::from(piece.0) * u64::from(info.piece_length)).min(info.length);
        start..(start + u64::from(info.piece_length)).min(info.length)
    }

    fn bytes_in(&self, piece: PieceIndex, which: impl Fn(Place) -> bool) -> u32 {
        let bytes = self.bytes_of(piece);
        let runs = self.runs_from(bytes.start).take_while(|(run, _)| run.start < bytes.end);
        let chosen = runs.filter(|(run, _)| which(run.place));
        chosen.map(|(run, stop)| (stop.min(bytes.end) - run.start.max(bytes.start)) as u32).sum()
    }

    /// The runs from the one that holds the byte `at`, each with its end.
    fn runs_from(&self, at: u64) -> impl Iterator<Item = (Run, u64)> + '_ {
        let first = self.runs.partition_point(|run| run.start <= at).saturating_sub(1);
        let ends = self.runs.iter().skip(first + 1).map(|run| run.start).chain([self.meta.info().length]);
        self.runs[first..].iter().copied().zip(ends)
    }
}

#[cfg(test)]
mod tests;
