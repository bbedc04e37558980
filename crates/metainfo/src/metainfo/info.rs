//! The `info` dictionary, from bytes to a checked [`Info`]: the one judge for files and for magnet links.
//!
//! Owns everything but the list of files, which is `files`'.

use super::error::MetainfoError as Error;
use super::{FileEntry, Info, InfoHashes, Lint, MAX_PIECE_BYTES, MAX_PIECES, Version, files, lint};
use crate::bencode::{Limits, Value, decode};
use crate::hash::{sha1, sha256};
use crate::{InfoHash, InfoHashV2, NameRules, SafePath, merkle};
use std::collections::BTreeMap;
use std::ops::Range;

/// Keys of `info` that are read; the others are shown by name.
const KNOWN: &[&[u8]] = &[
    b"file tree",
    b"files",
    b"length",
    b"meta version",
    b"name",
    b"name.utf-8",
    b"piece length",
    b"pieces",
    b"private",
    b"source",
    b"ssl-cert",
    b"attr",
    b"symlink path",
    b"path",
    b"path.utf-8",
];

/// Judges raw bytes; the same function whether they came from a file or from peers.
pub(super) fn parse(raw: &[u8]) -> Result<(Info, InfoHashes, Vec<Lint>), Error> {
    let tape = decode(raw, Limits::TORRENT)?;
    let dict = tape.root();
    dict.as_dict().ok_or_else(|| Error::kind("info", "a dictionary"))?;
    let flags = tape.flags();
    if flags.duplicate_keys {
        return Err(Error::value("info", "a key stands twice in one dictionary"));
    }
    let version = version(dict)?;
    if version.has_v2() && !flags.canonical() {
        return Err(Error::value("info", "keys unsorted or numbers with leading zeros, which v2 forbids"));
    }
    let mut lints = Vec::new();
    if flags.unsorted_keys {
        lints.push(Lint::UnsortedKeys);
    }
    if flags.odd_ints {
        lints.push(Lint::OddInts);
    }
    let piece_length = piece_length(dict, version)?;
    let raw_name = dict.get_bytes(b"name.utf-8").or(dict.get_bytes(b"name"));
    let raw_name = raw_name.ok_or_else(|| Error::missing("info.name"))?;
    let content = files::read(dict, raw_name, version, piece_length, &mut lints)?;
    lengths_by_root(&content.files)?;
    let piece_count = content.length.div_ceil(u64::from(piece_length));
    if piece_count > u64::from(MAX_PIECES) {
        return Err(Error::too_much("info.piece length: number of pieces", piece_count, MAX_PIECES.into()));
    }
    let pieces = if version.has_v1() { pieces(dict, piece_count)? } else { 0..0 };
    let info = Info {
        name: SafePath::from_name(raw_name, NameRules::NATIVE),
        piece_length,
        length: content.length,
        content_length: content.files.iter().filter(|file| !file.pad).map(|file| file.length).sum(),
        piece_count: piece_count as u32,
        files: content.files,
        private: private(dict, &mut lints),
        source: dict.get_bytes(b"source").map(text),
        tls_root: tls_root(dict)?,
        version,
        single_file: content.single_file,
        pieces,
    };
    lints.extend(lint::of_info(&info));
    Ok((info, hashes(raw, version), lints))
}

/// Each root once, so that many files of one content do not cost many checks. Equal trees have equal lengths.
pub(super) fn lengths_by_root(files: &[FileEntry]) -> Result<BTreeMap<merkle::Hash, u64>, Error> {
    let mut lengths = BTreeMap::new();
    for file in files {
        let Some(root) = file.pieces_root else { continue };
        if *lengths.entry(root).or_insert(file.length) != file.length {
            return Err(Error::value("info.file tree", "files of one root and different lengths"));
        }
    }
    Ok(lengths)
}

/// Text of any bytes.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn extra_keys(raw: &[u8]) -> Vec<Vec<u8>> {
    let Ok(tape) = decode(raw, Limits::TORRENT) else { return Vec::new() };
    let keys = tape.root().as_dict().into_iter().flatten().map(|(key, _)| key);
    keys.filter(|key| !KNOWN.contains(key)).map(<[u8]>::to_vec).collect()
}

fn version(dict: Value<'_>) -> Result<Version, Error> {
    let Some(version) = dict.get(b"meta version") else { return Ok(Version::V1) };
    match version.as_int() {
        Some(1) => Ok(Version::V1),
        Some(2) if dict.get(b"pieces").is_some() => Ok(Version::Hybrid),
        Some(2) => Ok(Version::V2),
        Some(_) => Err(Error::value("info.meta version", "neither 1 nor 2; made for newer programs")),
        None => Err(Error::kind("info.meta version", "an integer")),
    }
}

fn piece_length(dict: Value<'_>, version: Version) -> Result<u32, Error> {
    const FIELD: &str = "info.piece length";
    let value = dict.get(b"piece length").ok_or_else(|| Error::missing(FIELD))?;
    let length = value.as_int().ok_or_else(|| Error::kind(FIELD, "an integer"))?;
    if length <= 0 {
        return Err(Error::value(FIELD, "must be more than 0"));
    }
    let length = match u32::try_from(length) {
        Ok(length) if length <= MAX_PIECE_BYTES => length,
        _ => return Err(Error::too_much(FIELD, length as u64, MAX_PIECE_BYTES.into())),
    };
    if version.has_v2() && !(length.is_power_of_two() && length >= merkle::LEAF_BYTES) {
        return Err(Error::value(FIELD, "must be a power of two of at least 16384 for v2"));
    }
    Ok(length)
}

fn pieces(dict: Value<'_>, piece_count: u64) -> Result<Range<usize>, Error> {
    const FIELD: &str = "info.pieces";
    let value = dict.get(b"pieces").ok_or_else(|| Error::missing(FIELD))?;
    let span = value.bytes_span().ok_or_else(|| Error::kind(FIELD, "a string"))?;
    let want = piece_count * 20;
    if span.len() as u64 != want {
        return Err(Error::Pieces { got: span.len(), pieces: piece_count, want });
    }
    Ok(span)
}

/// In doubt private: whoever wrote the key wanted something, and the cost of the other error is a leak.
fn private(dict: Value<'_>, lints: &mut Vec<Lint>) -> bool {
    let Some(value) = dict.get(b"private") else { return false };
    match value.as_int() {
        Some(0) => false,
        Some(1) => true,
        _ => {
            lints.push(Lint::OddPrivate);
            true
        }
    }
}

/// A torrent for those alone who have a certificate must not be taken for one for everybody, whatever it holds.
fn tls_root(dict: Value<'_>) -> Result<Option<String>, Error> {
    const FIELD: &str = "info.ssl-cert";
    let Some(value) = dict.get(b"ssl-cert") else { return Ok(None) };
    let bytes = value.as_bytes().ok_or_else(|| Error::kind(FIELD, "a string"))?;
    let pem = std::str::from_utf8(bytes).ok().filter(|pem| pem.contains("-----BEGIN CERTIFICATE-----"));
    pem.map(|pem| Some(pem.to_owned())).ok_or_else(|| Error::value(FIELD, "no certificate in the PEM format"))
}

fn hashes(raw: &[u8], version: Version) -> InfoHashes {
    InfoHashes {
        v1: version.has_v1().then(|| InfoHash(sha1(raw))),
        v2: version.has_v2().then(|| InfoHashV2(sha256(raw))),
    }
}
