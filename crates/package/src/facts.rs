//! What is kept of a Package between two runs, and its form in a file.
//!
//! Owns the form. Whether facts are still believed is judged when a Package opens (`package/opening`); where they are
//! kept is the session's.
//!
//! The form: one version byte, a bencoded dictionary, and the SHA-1 of both. A file that was torn or that has a
//! flipped bit is an error, never another set of facts.

use piecemeal_metainfo::bencode::{self, Encoder, Limits, Value};
use piecemeal_metainfo::{Bitfield, InfoHash, MAX_PIECES, PieceIndex, sha1};

use crate::FileStamp;

/// The first byte of the form. A program that reads another refuses it, and checks content instead.
const VERSION: u8 = 1;
/// Bytes of a stamp: length (all ones: no such file), time, inode.
const STAMP_BYTES: usize = 8 + 16 + 8;
const CHECKSUM_BYTES: usize = 20;

/// What is known of a torrent's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResumeFacts {
    /// Whose they are: [`piecemeal_metainfo::Metainfo::wire_hash`].
    pub info_hash: InfoHash,
    /// Pieces that were verified.
    pub have: Bitfield,
    /// The files as they were then, in the order of the metainfo, and the part file; all of them default if content
    /// was still being checked, so that it will be checked again.
    pub stamps: Vec<FileStamp>,
    /// Pieces of which some Blocks were written.
    pub open: Vec<OpenPiece>,
    /// By file: what the user wanted, and so what lies in files and what in the part file.
    pub wanted: Vec<bool>,
    /// Content sent, over all runs, in bytes.
    pub uploaded: u64,
    /// Content received, over all runs, in bytes.
    pub downloaded: u64,
    /// Nothing was written after these facts, and all that was written has reached the device.
    pub clean: bool,
    /// The boot of the machine they were made in; an opaque mark.
    pub boot: [u8; 16],
}

/// A Piece that was begun. Its Blocks were not verified: believing them costs nothing, as the whole Piece will be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenPiece {
    /// Which.
    pub piece: PieceIndex,
    /// A bit a Block that was written, lowest first.
    pub written: Vec<u64>,
}

/// Why bytes are no facts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FactsError {
    /// Written by another version of the program.
    #[error("resume facts: of version {0}, but only {VERSION} is understood")]
    Version(u8),
    /// Cut short or damaged.
    #[error("resume facts: damaged")]
    Damaged,
    /// Whole, but not made of what facts are made of.
    #[error("resume facts: `{0}` is missing or wrong")]
    Field(&'static str),
}

impl ResumeFacts {
    /// As bytes for a file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let mut to = Encoder::new(&mut out);
        to.begin_dict();
        to.pair_bytes(b"boot", &self.boot);
        to.pair_int(b"clean", i64::from(self.clean));
        to.pair_int(b"downloaded", i64::try_from(self.downloaded).unwrap_or(i64::MAX));
        to.pair_bytes(b"have", &self.have.to_wire());
        to.pair_bytes(b"info hash", &self.info_hash.0);
        to.pair_bytes(b"open", &self.open.iter().flat_map(open_to_bytes).collect::<Vec<u8>>());
        to.pair_int(b"pieces", i64::from(self.have.pieces()));
        to.pair_bytes(b"stamps", &self.stamps.iter().flat_map(stamp_to_bytes).collect::<Vec<u8>>());
        to.pair_int(b"uploaded", i64::try_from(self.uploaded).unwrap_or(i64::MAX));
        to.pair_bytes(b"wanted", &self.wanted.iter().map(|wanted| u8::from(*wanted)).collect::<Vec<u8>>());
        to.end();
        let checksum = sha1(&out);
        out.extend_from_slice(&checksum);
        out
    }

    /// From the bytes of a file; memory is bounded by theirs.
    pub fn decode(bytes: &[u8]) -> Result<ResumeFacts, FactsError> {
        let (kept, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(FactsError::Damaged)?;
        let (version, body) = kept.split_first().ok_or(FactsError::Damaged)?;
        if sha1(kept) != *checksum {
            return Err(FactsError::Damaged);
        }
        if *version != VERSION {
            return Err(FactsError::Version(*version));
        }
        let tape = bencode::decode(body, Limits::RESUME).map_err(|_| FactsError::Damaged)?;
        read(&tape.root())
    }
}

fn read(root: &Value<'_>) -> Result<ResumeFacts, FactsError> {
    let pieces = count(root, b"pieces", "pieces")?;
    let pieces = u32::try_from(pieces).ok().filter(|pieces| *pieces <= MAX_PIECES);
    let pieces = pieces.ok_or(FactsError::Field("pieces"))?;
    let have = Bitfield::from_wire(bytes(root, b"have", "have")?, pieces);
    let stamps = bytes(root, b"stamps", "stamps")?.as_chunks::<STAMP_BYTES>();
    if !stamps.1.is_empty() {
        return Err(FactsError::Field("stamps"));
    }
    let wanted = bytes(root, b"wanted", "wanted")?;
    if wanted.iter().any(|wanted| *wanted > 1) {
        return Err(FactsError::Field("wanted"));
    }
    // Facts without them are as good: the Blocks are fetched again.
    let open = root.get_bytes(b"open").unwrap_or_default();
    Ok(ResumeFacts {
        open: open_from_bytes(open, pieces).ok_or(FactsError::Field("open"))?,
        info_hash: InfoHash(array(root, b"info hash", "info hash")?),
        have: have.map_err(|_| FactsError::Field("have"))?,
        stamps: stamps.0.iter().map(stamp_from_bytes).collect(),
        wanted: wanted.iter().map(|wanted| *wanted == 1).collect(),
        uploaded: count(root, b"uploaded", "uploaded")?,
        downloaded: count(root, b"downloaded", "downloaded")?,
        clean: count(root, b"clean", "clean")? == 1,
        boot: array(root, b"boot", "boot")?,
    })
}

fn count(root: &Value<'_>, key: &[u8], name: &'static str) -> Result<u64, FactsError> {
    root.get_int(key).and_then(|count| u64::try_from(count).ok()).ok_or(FactsError::Field(name))
}

fn bytes<'a>(root: &Value<'a>, key: &[u8], name: &'static str) -> Result<&'a [u8], FactsError> {
    root.get_bytes(key).ok_or(FactsError::Field(name))
}

fn array<const N: usize>(root: &Value<'_>, key: &[u8], name: &'static str) -> Result<[u8; N], FactsError> {
    bytes(root, key, name)?.try_into().map_err(|_| FactsError::Field(name))
}

/// Its number, how many words follow, and those.
fn open_to_bytes(open: &OpenPiece) -> Vec<u8> {
    let words = u32::try_from(open.written.len()).unwrap_or(0);
    let mut out = Vec::with_capacity(8 + open.written.len() * 8);
    out.extend(open.piece.0.to_be_bytes());
    out.extend(words.to_be_bytes());
    out.extend(open.written.iter().take(words as usize).flat_map(|word| word.to_be_bytes()));
    out
}

fn open_from_bytes(mut bytes: &[u8], pieces: u32) -> Option<Vec<OpenPiece>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        let [piece, words] =
            [0, 4].map(|at| head[at..at + 4].iter().fold(0, |n, byte| n << 8 | u32::from(*byte)));
        let (written, rest) = rest.split_at_checked((words as usize).checked_mul(8)?)?;
        if piece >= pieces {
            return None;
        }
        let written = written.as_chunks::<8>().0.iter().map(|word| u64::from_be_bytes(*word)).collect();
        all.push(OpenPiece { piece: PieceIndex(piece), written });
        bytes = rest;
    }
    Some(all)
}

fn stamp_to_bytes(stamp: &FileStamp) -> [u8; STAMP_BYTES] {
    let mut out = [0; STAMP_BYTES];
    out[..8].copy_from_slice(&stamp.len.unwrap_or(u64::MAX).to_be_bytes());
    out[8..24].copy_from_slice(&stamp.mtime_nanos.to_be_bytes());
    out[24..].copy_from_slice(&stamp.inode.to_be_bytes());
    out
}

fn stamp_from_bytes(bytes: &[u8; STAMP_BYTES]) -> FileStamp {
    let number = |from: usize| {
        let mut out = [0; 8];
        out.copy_from_slice(&bytes[from..from + 8]);
        u64::from_be_bytes(out)
    };
    let mtime = u128::from(number(8)) << 64 | u128::from(number(16));
    FileStamp {
        len: Some(number(0)).filter(|len| *len != u64::MAX),
        mtime_nanos: mtime as i128,
        inode: number(24),
    }
}

#[cfg(test)]
mod tests;
