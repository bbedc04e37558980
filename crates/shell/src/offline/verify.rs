//! Comparing content on disk with a torrent.
//!
//! Owns the verdict. Nothing is written, and nothing is opened but what the torrent's safe paths name below one
//! directory.

use super::sheet::{Entry, Pass, PieceHashes, Sheet, Unread};
use super::{OfflineError, Progress};
use piecemeal_metainfo::{Bitfield, FileEntry, Metainfo, PieceIndex, SafePath, Version};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// What the content is worth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Pieces that are whole on disk.
    pub good: Bitfield,
    /// The torrent's files in its order, pads left out.
    pub files: Vec<FileVerdict>,
}

impl Verdict {
    /// Whether every piece is good, and every file there with its exact length.
    pub fn complete(&self) -> bool {
        self.good.all() && self.files.iter().all(FileVerdict::complete)
    }

    /// Pieces that are not good.
    pub fn bad(&self) -> u32 {
        self.good.pieces() - self.good.count()
    }
}

/// What one file is worth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileVerdict {
    /// As the torrent names it, made safe.
    pub path: SafePath,
    /// Bytes it should have.
    pub length: u64,
    /// What is there.
    pub found: Found,
    /// Bytes in good pieces.
    pub good_bytes: u64,
    /// Pieces with bytes of this file that are not good. In a v1 torrent the fault may be a neighbour's.
    pub bad_pieces: u32,
}

impl FileVerdict {
    /// Whether it is there as it should be.
    pub fn complete(&self) -> bool {
        self.found == Found::Length(self.length) && self.good_bytes == self.length
    }
}

/// What stands where a file should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing.
    Missing,
    /// A file, or for a link of the torrent whatever it leads to, of so many bytes; a link counts 0, as in the torrent.
    Length(u64),
    /// Something that is no file, or a file that can not be read: why.
    Unreadable(String),
}

/// Hashes all that is there of `meta` below `dir`, the directory that has the torrent's file or directory in it.
///
/// A hybrid's piece is good only if both hashes agree. Where a file is missing or too short, the pieces that would
/// need its bytes are bad without reading.
///
/// # Errors
/// If cancelled, or a pure v2 torrent lacks a piece layer. What is wrong with the content is in the verdict.
pub fn verify(
    meta: &Metainfo,
    dir: &Path,
    threads: usize,
    progress: &Progress<'_>,
    cancel: &AtomicBool,
) -> Result<Verdict, OfflineError> {
    if meta.info().version == Version::V2
        && let Some(path) = meta.missing_layers().find_map(|file| Some(meta.file(file)?.path.to_string()))
    {
        return Err(OfflineError::NoLayer { path });
    }
    let book = Book::new(meta, dir);
    let pass = Pass { threads, progress, cancel };
    let fresh = || Findings { good: Vec::new(), unread: BTreeMap::new() };
    let all = book.sheet.hash(
        &pass,
        |piece| book.readable(piece),
        fresh,
        |mine, piece, hashes| {
            mine.judge(meta, PieceIndex(piece), hashes);
            Ok(())
        },
    )?;
    Ok(book.verdict(meta, all))
}

/// The sheet of a torrent, and what the disk has of it.
struct Book {
    sheet: Sheet,
    /// For each of the sheet's files: its place in `files`, and the bytes that are there.
    rows: Vec<(usize, u64)>,
    files: Vec<FileVerdict>,
}

impl Book {
    fn new(meta: &Metainfo, dir: &Path) -> Book {
        let info = meta.info();
        let mut book = Book {
            sheet: Sheet {
                piece_length: info.piece_length,
                pieces: info.piece_count,
                v1_end: info.version.has_v1().then_some(info.length),
                v2: info.version.has_v2(),
                files: Vec::new(),
            },
            rows: Vec::new(),
            files: Vec::new(),
        };
        for file in meta.files().iter().filter(|file| !file.pad) {
            let path = file.path.join_to(dir);
            let found = look(&path, file);
            if file.length > 0 {
                let bytes = if let Found::Length(bytes) = found { bytes } else { 0 };
                book.rows.push((book.files.len(), bytes));
                book.sheet.files.push(Entry { path, start: file.offset, length: file.length });
            }
            let (path, length) = (file.path.clone(), file.length);
            book.files.push(FileVerdict { path, length, found, good_bytes: 0, bad_pieces: 0 });
        }
        book
    }

    /// Whether all bytes of a piece are there.
    fn readable(&self, piece: u32) -> bool {
        let (_, end) = self.sheet.range(piece);
        self.sheet.files_of(piece).all(|(at, file)| file.end().min(end) - file.start <= self.rows[at].1)
    }

    fn verdict(mut self, meta: &Metainfo, all: Vec<Findings>) -> Verdict {
        let mut good = Bitfield::new(meta.piece_count());
        for findings in all {
            for piece in findings.good {
                good.set(piece);
            }
            for (file, why) in findings.unread {
                self.files[self.rows[file].0].found = Found::Unreadable(why.to_string());
            }
        }
        for piece in 0..meta.piece_count() {
            let (from, to) = self.sheet.range(piece);
            for (at, file) in self.sheet.files_of(piece) {
                let verdict = &mut self.files[self.rows[at].0];
                if good.get(PieceIndex(piece)) {
                    verdict.good_bytes += file.end().min(to) - file.start.max(from);
                } else {
                    verdict.bad_pieces += 1;
                }
            }
        }
        Verdict { good, files: self.files }
    }
}

/// What one worker found.
struct Findings {
    good: Vec<PieceIndex>,
    /// The last trouble of each file.
    unread: BTreeMap<usize, io::Error>,
}

impl Findings {
    fn judge(&mut self, meta: &Metainfo, piece: PieceIndex, hashes: Result<&PieceHashes, Unread>) {
        match hashes {
            Ok(hashes) if is_good(meta, piece, hashes) => self.good.push(piece),
            Ok(_) => {}
            Err(unread) => drop(self.unread.insert(unread.file, unread.why)),
        }
    }
}

fn is_good(meta: &Metainfo, piece: PieceIndex, hashes: &PieceHashes) -> bool {
    let v1 = meta.piece_hash_v1(piece).map(|expected| expected == hashes.sha1);
    let v2 = meta.piece_hash_v2(piece).map(|expected| expected.hash == hashes.node);
    // One of them may be unknown: v2's for a hybrid without layers, and where nothing but a pad is.
    v1.or(v2).is_some() && v1 != Some(false) && v2 != Some(false)
}

fn look(path: &Path, file: &FileEntry) -> Found {
    let seen = if file.symlink.is_some() { fs::symlink_metadata(path) } else { fs::metadata(path) };
    match seen {
        Ok(_) if file.symlink.is_some() => Found::Length(0),
        Ok(seen) if seen.is_file() => Found::Length(seen.len()),
        Ok(_) => Found::Unreadable("not a file".into()),
        Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Found::Missing
        }
        Err(why) => Found::Unreadable(why.to_string()),
    }
}
