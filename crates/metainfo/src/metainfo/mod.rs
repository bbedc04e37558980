//! What a torrent is: the checked content of a .torrent file or of the `info` that a magnet link led to (BEP 3, 5,
//! 12, 19, 27, 47, 52).
//!
//! Owns validity. A [`Metainfo`] can only be made by [`Metainfo::parse`] and [`Metainfo::from_info`], which share
//! one function for the `info`, so that whatever came from a peer is judged as strictly as a file. It never
//! changes afterwards, except that missing piece layers and the web seeds of a link may be added. Where the content
//! lies on disk, and which of it is there, is `package`'s.
//!
//! **One byte space for all versions.** The files lie one behind the other, pads between them, and pieces cut that
//! line. A hybrid lists its pads; for a pure v2 torrent, whose files merely start at piece boundaries, this module
//! lists such pads itself (`.pad/<length>`, before every file that would not be aligned, as libtorrent does), so
//! that `files[i].offset + files[i].length == files[i + 1].offset` always holds. Pads of a pure v2 torrent are
//! never asked for or sent: [`Metainfo::piece_len`] ends at the file's last byte there.

mod error;
mod files;
mod info;
mod lint;
#[cfg(test)]
mod tests;
mod torrent;

pub use error::MetainfoError;
pub use lint::Lint;
pub(crate) use torrent::Outer;

use crate::merkle::{self, Hash, Subtree};
use crate::{FileIndex, InfoHash, InfoHashV2, Magnet, PieceIndex, SafePath};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Pieces of a torrent; as libtorrent. Bounds every table with a row a piece.
pub const MAX_PIECES: u32 = 2_097_152;
/// Bytes of a piece; as libtorrent: 32767 blocks of 16 KiB.
pub const MAX_PIECE_BYTES: u32 = 32_767 * 16 * 1024;
/// A file has fewer bytes than this; as libtorrent.
pub const FILE_BYTES_END: u64 = 17_592_186_028_032;
/// All files and pads together have fewer bytes than this; as libtorrent.
pub const TOTAL_BYTES_END: u64 = 1 << 48;
/// Trackers kept of one torrent, web seeds likewise, DHT nodes likewise: far beyond sense, and a bound.
pub const MAX_SOURCES: usize = 1_000;

/// The kinds of torrent there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// BEP 3.
    V1,
    /// BEP 52.
    V2,
    /// Both at once (BEP 52, "upgrade path").
    Hybrid,
}

impl Version {
    /// Whether there are SHA-1 hashes of pieces.
    pub fn has_v1(self) -> bool {
        self != Version::V2
    }

    /// Whether there are merkle trees of files.
    pub fn has_v2(self) -> bool {
        self != Version::V1
    }
}

/// The names of a torrent; at least one is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InfoHashes {
    /// SHA-1 of the raw `info`.
    pub v1: Option<InfoHash>,
    /// SHA-256 of the raw `info`.
    pub v2: Option<InfoHashV2>,
}

impl InfoHashes {
    /// The one to show and to sort by: v1 if there is one, else the short form of v2.
    pub fn wire(self) -> InfoHash {
        self.v1.or(self.v2.map(InfoHashV2::truncated)).unwrap_or(InfoHash([0; 20]))
    }

    /// Every swarm that shares this torrent: v1's, then v2's.
    pub fn swarms(self) -> impl Iterator<Item = InfoHash> {
        self.v1.into_iter().chain(self.v2.map(InfoHashV2::truncated))
    }
}

/// One file, or one pad.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FileEntry {
    /// Where it goes below the download directory; begins with the torrent's name unless that is the file itself.
    pub path: SafePath,
    /// The name as the torrent gives it, parts joined by `/`, when [`FileEntry::path`] had to differ; cut at 4 KiB.
    pub raw_path: Option<Box<[u8]>>,
    /// First byte in the torrent's byte space.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Zeros that only fill up to the next piece (BEP 47 `p`); never on disk.
    pub pad: bool,
    /// BEP 47 `x`.
    pub executable: bool,
    /// BEP 47 `h`.
    pub hidden: bool,
    /// BEP 47 `l`: the file of this torrent that this entry, of zero bytes, is a link to.
    pub symlink: Option<SafePath>,
    /// Root of the file's merkle tree (BEP 52); not for v1, pads and empty files.
    pub pieces_root: Option<Hash>,
}

/// The checked `info` dictionary.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Info {
    /// Suggested name of the file or directory; one component.
    pub name: SafePath,
    /// Bytes of every piece but the last. For v1 any number; otherwise a power of two from 16 KiB.
    pub piece_length: u32,
    /// Bytes of all entries, pads included; at least 1.
    pub length: u64,
    /// Bytes of all entries without pads.
    pub content_length: u64,
    /// At most [`MAX_PIECES`].
    pub piece_count: u32,
    /// Files and pads in order, without gaps.
    pub files: Vec<FileEntry>,
    /// Peers come from the trackers alone (BEP 27).
    pub private: bool,
    /// `source`, by which private trackers give the same content another info-hash.
    pub source: Option<String>,
    /// `ssl-cert`: the certificate, in PEM, by which those of its peers were signed. They speak TLS and nothing else, and
    /// prove to each other that they belong to this torrent (as libtorrent defines SSL torrents).
    pub tls_root: Option<String>,
    /// Which hashes there are.
    pub version: Version,
    /// One file without a directory around it.
    pub single_file: bool,
    /// Where `pieces` lies in the raw info; empty for v2.
    pub(crate) pieces: Range<usize>,
}

/// A whole torrent; share it by `Arc`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metainfo {
    hashes: InfoHashes,
    info: Info,
    raw_info: Arc<[u8]>,
    trackers: Vec<Vec<String>>,
    web_seeds: Vec<String>,
    nodes: Vec<(String, u16)>,
    comment: Option<String>,
    created_by: Option<String>,
    creation_date: Option<i64>,
    layers: BTreeMap<Hash, Vec<Hash>>,
    extra: BTreeMap<Vec<u8>, Vec<u8>>,
    lints: Vec<Lint>,
}

impl Metainfo {
    /// A .torrent file.
    pub fn parse(bytes: &[u8]) -> Result<Metainfo, MetainfoError> {
        torrent::parse(bytes)
    }

    /// The `info` that a magnet link led to (BEP 9), its hash not yet compared with the link's, and the trackers
    /// of the link in tiers. Judged as in [`Metainfo::parse`]; piece layers are missing.
    pub fn from_info(raw_info: &[u8], trackers: Vec<Vec<String>>) -> Result<Metainfo, MetainfoError> {
        torrent::from_info(raw_info, trackers)
    }

    /// Adds HTTP sources that a link names (BEP 19), as far as they are sound and new.
    pub fn add_web_seeds(&mut self, urls: Vec<String>) {
        torrent::add_web_seeds(self, urls);
    }

    /// A .torrent file that says the same: the `info` byte for byte, unknown keys kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        torrent::to_bytes(self)
    }

    /// The link to this torrent.
    pub fn magnet(&self) -> String {
        let magnet = Magnet {
            hashes: self.hashes,
            name: Some(self.info.name.to_string()),
            trackers: self.trackers.concat(),
            web_seeds: self.web_seeds.clone(),
            peers: Vec::new(),
            select: Vec::new(),
        };
        magnet.to_string()
    }

    /// Both info-hashes.
    pub fn info_hashes(&self) -> InfoHashes {
        self.hashes
    }

    /// The info-hash for handshakes: v1 if there is one, else the short form of v2.
    pub fn wire_hash(&self) -> InfoHash {
        self.hashes.wire()
    }

    /// The checked `info`.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The `info` byte for byte, as peers ask for it (BEP 9).
    pub fn raw_info(&self) -> &Arc<[u8]> {
        &self.raw_info
    }

    /// Announce URLs in tiers (BEP 12), in the order given; at most [`MAX_SOURCES`] in all.
    pub fn trackers(&self) -> &[Vec<String>] {
        &self.trackers
    }

    /// HTTP sources (BEP 19); at most [`MAX_SOURCES`].
    pub fn web_seeds(&self) -> &[String] {
        &self.web_seeds
    }

    /// DHT nodes to begin with (BEP 5), host and port; at most [`MAX_SOURCES`].
    pub fn nodes(&self) -> &[(String, u16)] {
        &self.nodes
    }

    /// Free text of the maker.
    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// The program that made it.
    pub fn created_by(&self) -> Option<&str> {
        self.created_by.as_deref()
    }

    /// Seconds since 1970, as claimed.
    pub fn creation_date(&self) -> Option<i64> {
        self.creation_date
    }

    /// Keys beside `info` that this program does not know, with their raw values.
    pub fn extra(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.extra
    }

    /// Keys inside `info` that this program does not know.
    pub fn extra_info_keys(&self) -> Vec<Vec<u8>> {
        info::extra_keys(&self.raw_info)
    }

    /// What is odd about it, though not wrong.
    pub fn lints(&self) -> &[Lint] {
        &self.lints
    }

    /// The torrent's files and pads.
    pub fn files(&self) -> &[FileEntry] {
        &self.info.files
    }

    /// One of them.
    pub fn file(&self, file: FileIndex) -> Option<&FileEntry> {
        self.info.files.get(file.at())
    }

    /// How many pieces there are.
    pub fn piece_count(&self) -> u32 {
        self.info.piece_count
    }

    /// The proof that a number from outside names a piece.
    pub fn piece(&self, number: u32) -> Option<PieceIndex> {
        (number < self.info.piece_count).then_some(PieceIndex(number))
    }

    /// First byte of `piece` in the torrent's byte space.
    pub fn piece_offset(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.0) * u64::from(self.info.piece_length)
    }

    /// Bytes of `piece` as peers exchange it: for pure v2 without the pad behind the file, otherwise with it.
    /// Zero beyond the end.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        let start = self.piece_offset(piece);
        let mut end = (start + u64::from(self.info.piece_length)).min(self.info.length);
        if let (Version::V2, Some(file)) = (self.info.version, self.file_at(start)) {
            end = end.min(file.offset + file.length);
        }
        end.saturating_sub(start) as u32
    }

    /// What `piece` must hash to, pads included (BEP 3). `None` for pure v2 and beyond the end.
    pub fn piece_hash_v1(&self, piece: PieceIndex) -> Option<[u8; 20]> {
        let hashes = self.raw_info.get(self.info.pieces.clone())?;
        hashes.get(piece.at() * 20..)?.first_chunk().copied()
    }

    /// All of `pieces`: 20 bytes a piece; empty for pure v2.
    pub fn v1_pieces(&self) -> &[u8] {
        self.raw_info.get(self.info.pieces.clone()).unwrap_or_default()
    }

    /// What the merkle tree over `piece` must come to (BEP 52), pads not included. `None` for pure v1, and while
    /// the file's layer is missing.
    pub fn piece_hash_v2(&self, piece: PieceIndex) -> Option<Subtree> {
        let start = self.piece_offset(piece);
        let file = self.file_at(start)?;
        let root = file.pieces_root?;
        let piece_length = u64::from(self.info.piece_length);
        if file.length <= piece_length {
            let leaves = file.length.div_ceil(u64::from(merkle::LEAF_BYTES)) as u32;
            return Some(Subtree { hash: root, width: leaves.next_power_of_two() });
        }
        let row = ((start - file.offset) / piece_length) as usize;
        let hash = *self.layers.get(&root)?.get(row)?;
        Some(Subtree { hash, width: 1 << merkle::piece_height(self.info.piece_length) })
    }

    /// The hashes of the pieces of the file under `root`, if known; files of at most one piece have none.
    pub fn layer(&self, root: &Hash) -> Option<&[Hash]> {
        self.layers.get(root).map(Vec::as_slice)
    }

    /// Files that need a piece layer and have none; they can be asked of peers by hash requests (BEP 52).
    pub fn missing_layers(&self) -> impl Iterator<Item = FileIndex> + '_ {
        let piece_length = u64::from(self.info.piece_length);
        let lacks = move |file: &FileEntry| {
            file.length > piece_length
                && file.pieces_root.is_some_and(|root| !self.layers.contains_key(&root))
        };
        let indices = (0..).map(FileIndex).zip(&self.info.files);
        indices.filter(move |(_, file)| lacks(file)).map(|(index, _)| index)
    }

    /// Adds a layer that was missing, after checking it against `root`.
    pub fn add_layer(&mut self, root: Hash, layer: Vec<Hash>) -> Result<(), MetainfoError> {
        torrent::check_layer(&self.info, &root, &layer)?;
        self.layers.insert(root, layer);
        self.lints.retain(|lint| !matches!(lint, Lint::MissingLayers { .. }));
        let files = self.missing_layers().count();
        if files > 0 {
            self.lints.push(Lint::MissingLayers { files });
        }
        Ok(())
    }

    /// The pieces that hold bytes of `file`; empty for an empty file.
    pub fn file_pieces(&self, file: FileIndex) -> Range<u32> {
        let Some(file) = self.file(file).filter(|file| file.length > 0) else { return 0..0 };
        let piece_length = u64::from(self.info.piece_length);
        let end = (file.offset + file.length).div_ceil(piece_length);
        (file.offset / piece_length) as u32..end as u32
    }

    /// The entry that holds the byte at `offset`.
    fn file_at(&self, offset: u64) -> Option<&FileEntry> {
        // Of the entries that start here or before, only the last can have bytes here: empty ones come first.
        let behind = self.info.files.partition_point(|file| file.offset <= offset);
        self.info.files[..behind].last().filter(|file| offset < file.offset + file.length)
    }
}
