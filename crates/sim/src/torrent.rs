//! Torrents for simulations: small, and any byte of them can be told from its place.
//!
//! Owns the right content, to which disks and what is sent are compared.

use std::sync::Arc;

use piecemeal_metainfo::bencode::Bencode;
use piecemeal_metainfo::{InfoHash, Metainfo, PieceIndex, sha1};

use crate::dice::Dice;

/// The one tracker that torrents name, unless told otherwise.
pub const TRACKER: &str = "http://tracker.example/announce";

/// How a torrent looks.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Bytes of a piece.
    pub piece: u32,
    /// Lengths of the files, and whether they are pads (BEP 47). One file: without a directory.
    pub files: Vec<(u64, bool)>,
    /// Announce URLs, in tiers.
    pub trackers: Vec<Vec<String>>,
    /// Its trackers alone may name peers (BEP 27).
    pub private: bool,
}

impl Shape {
    /// About `bytes` bytes in one to five files, some with pads between, in pieces of 16 to 64 KiB.
    pub fn any(bytes: u64, dice: &mut Dice) -> Shape {
        let piece = [16 << 10, 32 << 10, 64 << 10][dice.below(3)];
        let mut files = Vec::new();
        let (mut left, count, pads) = (bytes, dice.pick(1..6), dice.percent(30));
        for at in 1..=count {
            let most = (left / 2).max(1) as usize;
            let length = if at == count { left } else { dice.pick(0..most) as u64 };
            files.push((length, false));
            left -= length;
            let end: u64 = files.iter().map(|(length, _)| length).sum();
            let gap = end.next_multiple_of(u64::from(piece)) - end;
            if pads && gap > 0 && at < count {
                files.push((gap, true));
            }
        }
        Shape { piece, files, trackers: vec![vec![TRACKER.into()]], private: false }
    }

    /// One file in pieces of `piece` bytes.
    pub fn plain(bytes: u64, piece: u32) -> Shape {
        Shape { piece, files: vec![(bytes, false)], trackers: vec![vec![TRACKER.into()]], private: false }
    }

    /// Without a tracker.
    pub fn trackerless(mut self) -> Shape {
        self.trackers.clear();
        self
    }

    /// Private.
    pub fn private(mut self) -> Shape {
        self.private = true;
        self
    }
}

/// A torrent and its content.
pub struct Torrent {
    /// What it is.
    pub meta: Arc<Metainfo>,
    /// Its one line of bytes, pads included.
    pub bytes: Arc<Vec<u8>>,
}

impl Torrent {
    /// The torrent of a shape; content by `dice`.
    pub fn new(shape: &Shape, dice: &mut Dice) -> Arc<Torrent> {
        let mut bytes = Vec::new();
        for (length, pad) in &shape.files {
            let end = bytes.len() + *length as usize;
            if *pad {
                bytes.resize(end, 0);
            } else {
                noise(&mut bytes, end, dice.word());
            }
        }
        let meta = Arc::new(metainfo(shape, &bytes, dice.word()));
        Arc::new(Torrent { meta, bytes: Arc::new(bytes) })
    }

    /// Its name on the wire.
    pub fn hash(&self) -> InfoHash {
        self.meta.wire_hash()
    }

    /// The right bytes of a stretch of a piece; `None` if it is not all inside.
    pub fn stretch(&self, piece: u32, begin: u32, len: u32) -> Option<&[u8]> {
        let piece = self.meta.piece(piece)?;
        let from = self.meta.piece_offset(piece) as usize + begin as usize;
        let inside = begin.checked_add(len)? <= self.meta.piece_len(piece);
        self.bytes.get(from..from + len as usize).filter(|_| inside)
    }

    /// The right bytes of a piece.
    pub fn piece(&self, piece: PieceIndex) -> &[u8] {
        self.stretch(piece.0, 0, self.meta.piece_len(piece)).unwrap_or_default()
    }
}

/// Never long runs of zeros, so that holes show.
fn noise(bytes: &mut Vec<u8>, end: usize, seed: u64) {
    let mut state = seed;
    while bytes.len() < end {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(end);
}

fn metainfo(shape: &Shape, bytes: &[u8], salt: u64) -> Metainfo {
    let pieces: Vec<u8> = bytes.chunks(shape.piece as usize).flat_map(sha1).collect();
    let info = Bencode::dict()
        .with("name", format!("t{salt:016x}").as_str())
        .with("piece length", i64::from(shape.piece))
        .with("pieces", pieces);
    let info = match shape.files[..] {
        [(length, false)] => info.with("length", length as i64),
        _ => info.with("files", Bencode::List(shape.files.iter().enumerate().map(file).collect())),
    };
    let info = if shape.private { info.with("private", 1_i64) } else { info };
    let tier = |tier: &Vec<String>| Bencode::List(tier.iter().map(|url| url.as_str().into()).collect());
    let mut torrent = Bencode::dict().with("info", info);
    if !shape.trackers.is_empty() {
        torrent = torrent.with("announce-list", Bencode::List(shape.trackers.iter().map(tier).collect()));
    }
    Metainfo::parse(&torrent.encode()).expect("a simulation makes good torrents")
}

fn file((at, (length, pad)): (usize, &(u64, bool))) -> Bencode {
    let path = Bencode::List(vec![format!("f{at}").as_str().into()]);
    let file = Bencode::dict().with("length", *length as i64).with("path", path);
    if *pad { file.with("attr", "p") } else { file }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_shape_is_a_torrent_whose_pieces_hash_right() {
        for seed in 0..50 {
            let mut dice = Dice::new(seed);
            let shape = Shape::any(300_000, &mut dice);
            let torrent = Torrent::new(&shape, &mut dice);
            let pads: u64 = shape.files.iter().filter(|(_, pad)| *pad).map(|(length, _)| length).sum();
            assert_eq!(torrent.bytes.len() as u64, 300_000 + pads);
            for piece in (0..torrent.meta.piece_count()).map(PieceIndex) {
                assert_eq!(torrent.meta.piece_hash_v1(piece), Some(sha1(torrent.piece(piece))));
            }
        }
    }

    #[test]
    fn a_stretch_ends_where_its_piece_ends() {
        let mut dice = Dice::new(1);
        let torrent = Torrent::new(&Shape::plain(100_000, 32 << 10), &mut dice);
        assert_eq!(torrent.stretch(3, 0, 1_696), Some(&torrent.bytes[98_304..]));
        assert_eq!(torrent.stretch(3, 0, 1_697), None);
        assert_eq!(torrent.stretch(0, 16 << 10, (16 << 10) + 1), None);
        assert_eq!(torrent.stretch(4, 0, 1), None);
        assert_eq!(torrent.stretch(0, u32::MAX, 2), None);
    }
}
