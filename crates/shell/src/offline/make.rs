//! Hashing what a plan wants, and writing the torrent.
//!
//! Owns the watch over files that change meanwhile: a torrent whose hashes are of two states of a file can never be
//! completed by anybody.

use super::sheet::{Entry, Pass, PieceHashes, Sheet};
use super::{OfflineError, Progress};
use piecemeal_metainfo::create::Plan;
use piecemeal_metainfo::merkle::{self, Hash};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

/// Hashes the plan's files and gives the bytes of the .torrent. `root` is the path that was scanned: the one file, or
/// the directory.
///
/// Pieces are shared out to the threads; both hashes of a hybrid are taken in one reading.
///
/// # Errors
/// If cancelled, if a file can not be read, or if it is not as long as planned or changes meanwhile.
pub fn make(
    plan: Plan,
    root: &Path,
    threads: usize,
    progress: &Progress<'_>,
    cancel: &AtomicBool,
) -> Result<Vec<u8>, OfflineError> {
    let sources = Sources::look(&plan, root)?;
    let sheet = sheet(&plan, &sources);
    let pass = Pass { threads, progress, cancel };
    let all = sheet.hash(
        &pass,
        |_| true,
        Vec::new,
        |mine: &mut Vec<(u32, PieceHashes)>, piece, hashes| {
            let hashes = hashes.map_err(|unread| trouble(&sheet.files[unread.file].path, unread.why))?;
            mine.push((piece, *hashes));
            Ok(())
        },
    )?;
    sources.look_again()?;
    let mut pieces = all.concat();
    pieces.sort_unstable_by_key(|(piece, _)| *piece);
    let v1: Vec<[u8; 20]> = match sheet.v1_end {
        Some(_) => pieces.iter().map(|(_, hashes)| hashes.sha1).collect(),
        None => Vec::new(),
    };
    let v2: Vec<(Hash, Vec<Hash>)> = match sheet.v2 {
        true => sheet.files.iter().map(|file| tree(&sheet, file, &pieces)).collect(),
        false => Vec::new(),
    };
    Ok(plan.finish(&v1, &v2)?)
}

fn sheet(plan: &Plan, sources: &Sources) -> Sheet {
    let entry = |source: usize, start, length| Entry { path: sources.0[source].path.clone(), start, length };
    let planned = plan.entries().iter().filter(|planned| planned.length > 0);
    let end = plan.entries().last().map_or(0, |last| last.offset + last.length);
    Sheet {
        piece_length: plan.piece_length(),
        pieces: plan.pieces(),
        v1_end: plan.version().has_v1().then_some(end),
        v2: plan.version().has_v2(),
        files: planned
            .filter_map(|planned| Some(entry(planned.source?, planned.offset, planned.length)))
            .collect(),
    }
}

/// Root and piece layer of one file, whose pieces are its alone.
fn tree(sheet: &Sheet, file: &Entry, pieces: &[(u32, PieceHashes)]) -> (Hash, Vec<Hash>) {
    let piece_length = u64::from(sheet.piece_length);
    let first = (file.start / piece_length) as usize;
    let count = file.length.div_ceil(piece_length) as usize;
    let layer: Vec<Hash> = pieces[first..first + count].iter().map(|(_, hashes)| hashes.node).collect();
    match layer[..] {
        [only] => (only, Vec::new()),
        _ => (merkle::root(&layer, merkle::piece_height(sheet.piece_length), 0), layer),
    }
}

/// The files given, as they were before hashing.
struct Sources(Vec<Source>);

struct Source {
    path: PathBuf,
    length: u64,
    /// Links stand for themselves and are not read.
    link: bool,
    /// `None` where the system does not know.
    modified: Option<SystemTime>,
}

impl Sources {
    fn look(plan: &Plan, root: &Path) -> Result<Sources, OfflineError> {
        let single = fs::metadata(root).map_err(|why| trouble(root, why))?.is_file();
        let look = |file: &piecemeal_metainfo::create::NewFile| {
            let below = file.path.iter().collect::<PathBuf>();
            let path = if single { root.to_path_buf() } else { root.join(below) };
            let link = file.symlink.is_some();
            let mut source = Source { path, length: file.length, link, modified: None };
            source.modified = source.check()?;
            Ok(source)
        };
        Ok(Sources(plan.sources().iter().map(look).collect::<Result<_, OfflineError>>()?))
    }

    fn look_again(&self) -> Result<(), OfflineError> {
        for source in &self.0 {
            if source.check()? != source.modified {
                return Err(OfflineError::Changed { path: source.path.clone() });
            }
        }
        Ok(())
    }
}

impl Source {
    /// That it is a file of the length planned; when it was changed last.
    fn check(&self) -> Result<Option<SystemTime>, OfflineError> {
        if self.link {
            return Ok(None);
        }
        let seen = fs::metadata(&self.path).map_err(|why| trouble(&self.path, why))?;
        // Also keeps us from opening a pipe, which would wait for a writer.
        if !seen.is_file() || seen.len() != self.length {
            return Err(OfflineError::Changed { path: self.path.clone() });
        }
        Ok(seen.modified().ok())
    }
}

fn trouble(path: &Path, why: io::Error) -> OfflineError {
    let path = path.to_path_buf();
    match why.kind() {
        io::ErrorKind::UnexpectedEof => OfflineError::Changed { path },
        _ => OfflineError::File { path, why },
    }
}
