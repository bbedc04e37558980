//! What is odd about a torrent, though not wrong: for `show`, and for whoever made it.
//!
//! Owns the list of oddities and their words; each is found where the field is read, the ones about the whole here.

use super::{Info, Version};
use std::fmt;

/// More pieces than this make a torrent file of more than 200 kB, and bitfields to match; other makers aim lower.
const MANY_PIECES: u32 = 10_000;
/// With fewer pieces than this, content of some size spreads badly: a peer can share nothing before its first piece.
const FEW_PIECES: u32 = 20;
/// Below this size few pieces are as it should be.
const FEW_PIECES_FROM_BYTES: u64 = 64 << 20;

/// One oddity.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Lint {
    /// Not a multiple of 16 KiB: the last block of every piece is short.
    UnevenPieceLength(u32),
    /// More than is good.
    ManyPieces(u32),
    /// Large pieces of large content.
    FewPieces(u32),
    /// No way to find a peer.
    PrivateWithoutTracker,
    /// `private` is neither 0 nor 1; taken as private.
    OddPrivate,
    /// Some dictionary is not sorted: a program that encodes it again gets another info-hash.
    UnsortedKeys,
    /// Some number has leading zeros: likewise.
    OddInts,
    /// A key beside `info` stands twice, inside something this program does not read.
    DuplicateKeys,
    /// v2 files whose hashes must be asked of peers.
    MissingLayers {
        /// How many.
        files: usize,
    },
    /// Layers of files too small to have one.
    NeedlessLayers {
        /// How many.
        layers: usize,
    },
    /// Files whose names were not safe to use, or fell together with others.
    Renamed {
        /// How many.
        files: usize,
    },
    /// Links that lead to nothing in this torrent; they become empty files.
    LinkDropped {
        /// How many.
        files: usize,
    },
    /// Pads that do not end at a piece, or are a piece or more.
    OddPad {
        /// How many.
        files: usize,
    },
    /// `length` beside `files`; the files count.
    LengthAndFiles,
    /// Trackers, web seeds or nodes that are empty, not text, doubled, or beyond the number kept.
    SourcesDropped {
        /// How many.
        count: usize,
    },
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lint::UnevenPieceLength(bytes) => write!(f, "piece length {bytes} is no multiple of 16 KiB"),
            Lint::ManyPieces(n) => write!(f, "{n} pieces are many; larger pieces would do"),
            Lint::FewPieces(n) => {
                write!(f, "{n} pieces are few for so much content; smaller ones spread faster")
            }
            Lint::PrivateWithoutTracker => write!(f, "private, but no tracker: no peer can be found"),
            Lint::OddPrivate => write!(f, "private is neither 0 nor 1; taken as private"),
            Lint::UnsortedKeys => write!(f, "dictionary keys are not sorted"),
            Lint::OddInts => write!(f, "numbers with leading zeros"),
            Lint::DuplicateKeys => write!(f, "a key stands twice in one dictionary"),
            Lint::MissingLayers { files } => write!(f, "piece layers of {files} files are missing"),
            Lint::NeedlessLayers { layers } => {
                write!(f, "{layers} piece layers of files without need of one")
            }
            Lint::Renamed { files } => write!(f, "{files} names are unsafe or double and were changed"),
            Lint::LinkDropped { files } => write!(f, "{files} symbolic links lead out of the torrent"),
            Lint::OddPad { files } => write!(f, "{files} pad files do not fill up to a piece"),
            Lint::LengthAndFiles => write!(f, "has both length and files; length is ignored"),
            Lint::SourcesDropped { count } => write!(f, "{count} trackers, web seeds or nodes are unusable"),
        }
    }
}

/// The oddities of the finished `info`.
pub(super) fn of_info(info: &Info) -> Vec<Lint> {
    let mut lints = Vec::new();
    if !info.piece_length.is_multiple_of(crate::merkle::LEAF_BYTES) {
        lints.push(Lint::UnevenPieceLength(info.piece_length));
    }
    // A v2 torrent has at least one piece a file; larger pieces would not help.
    let files = info.files.iter().filter(|file| !file.pad && file.length > 0).count();
    let avoidable = if info.version == Version::V1 { 0 } else { files as u32 };
    if info.piece_count.saturating_sub(avoidable) > MANY_PIECES {
        lints.push(Lint::ManyPieces(info.piece_count));
    }
    if info.piece_count < FEW_PIECES && info.content_length >= FEW_PIECES_FROM_BYTES {
        lints.push(Lint::FewPieces(info.piece_count));
    }
    let piece = u64::from(info.piece_length);
    let pads = info.files.iter().filter(|file| file.pad);
    let odd = |end: u64| !end.is_multiple_of(piece) && end != info.length;
    let odd_pads = pads.filter(|pad| pad.length >= piece || odd(pad.offset + pad.length)).count();
    if odd_pads > 0 {
        lints.push(Lint::OddPad { files: odd_pads });
    }
    lints
}
