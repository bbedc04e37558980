//! The files of one torrent on a disk in memory.
//!
//! Owns bytes, stamps, and what of it has reached the device. Files that were never written are shared with the torrent
//! they are of, so a hundred seeds of one torrent take no memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use piecemeal_metainfo::{FileIndex, PieceIndex, Time};
use piecemeal_package::{Fence, FileStamp, Layout, Place, Span};

use crate::dice::Dice;
use crate::torrent::Torrent;

/// What a file system gives out at a time, in bytes.
const PAGE: usize = 4096;
/// The world begins in 2023.
const BIRTH_NANOS: i128 = 1_700_000_000_000_000_000;

/// A file.
#[derive(Clone, Default)]
pub(super) struct Stored {
    bytes: Arc<Vec<u8>>,
    /// By page: whether it takes room.
    pages: BTreeSet<u32>,
    mtime: i128,
    inode: u64,
}

/// See the module.
pub(super) struct Store {
    pub(super) torrent: Arc<Torrent>,
    pub(super) layout: Layout,
    pub(super) files: BTreeMap<Place, Stored>,
    /// As they are on the device.
    durable: BTreeMap<Place, Stored>,
    /// Changes so far: no two have the same time.
    changes: i128,
}

impl Store {
    pub(super) fn new(torrent: Arc<Torrent>) -> Store {
        let wanted: Arc<[bool]> = vec![true; torrent.meta.files().len()].into();
        let layout = Layout::new(torrent.meta.clone(), wanted);
        Store { torrent, layout, files: BTreeMap::new(), durable: BTreeMap::new(), changes: 0 }
    }

    /// All files are there, and on the device.
    pub(super) fn fill(&mut self) {
        let torrent = self.torrent.clone();
        let whole = |from: usize, to: usize| match torrent.bytes.len() {
            all if from == 0 && to == all => torrent.bytes.clone(),
            _ => Arc::new(torrent.bytes[from..to].to_vec()),
        };
        for (file, at) in torrent.meta.files().iter().zip(0..).filter(|(file, _)| !file.pad) {
            let (from, len) = (file.offset as usize, file.length as usize);
            let pages = (0..len.div_ceil(PAGE) as u32).collect();
            let (mtime, inode) = (BIRTH_NANOS, u64::from(at) + 1);
            let stored = Stored { bytes: whole(from, from + len), pages, mtime, inode };
            self.files.insert(Place::File(FileIndex(at)), stored);
        }
        self.durable = self.files.clone();
    }

    /// Where the bytes of a piece lie.
    pub(super) fn spans_of(&self, piece: PieceIndex) -> Vec<Span> {
        let mut spans = Vec::new();
        self.layout.spans(piece, 0, self.layout.piece_len(piece), &mut spans);
        spans
    }

    /// Whether there are so many bytes.
    pub(super) fn reaches(&self, span: &Span) -> bool {
        let len = self.files.get(&span.place).map_or(0, |stored| stored.bytes.len() as u64);
        span.place == Place::Pad || span.offset + u64::from(span.len) <= len
    }

    /// Appends the bytes; false, and nothing, if there are fewer.
    pub(super) fn read(&self, span: &Span, into: &mut Vec<u8>) -> bool {
        let len = span.len as usize;
        if span.place == Place::Pad {
            into.resize(into.len() + len, 0);
            return true;
        }
        let from = span.offset as usize;
        let bytes = self.files.get(&span.place).and_then(|stored| stored.bytes.get(from..from + len));
        bytes.inspect(|bytes| into.extend_from_slice(bytes)).is_some()
    }

    /// Bytes of room that a write there takes.
    pub(super) fn would_take(&self, span: &Span) -> u64 {
        if span.place == Place::Pad {
            return 0;
        }
        let stored = self.files.get(&span.place);
        let taken = |page: &u32| stored.is_some_and(|stored| stored.pages.contains(page));
        pages(span).filter(|page| !taken(page)).count() as u64 * PAGE as u64
    }

    /// Writes; `rots`: a bit of it turns over on the way.
    pub(super) fn write(&mut self, now: Time, span: &Span, bytes: &[u8], rots: bool) {
        let (from, end) = (span.offset as usize, span.offset as usize + bytes.len());
        match span.place {
            Place::Pad => return,
            Place::Part => {}
            Place::File(file) => {
                assert!(self.layout.wanted_files()[file.at()], "{file:?} is not wanted");
                let entry = &self.torrent.meta.files()[file.at()];
                assert!(!entry.pad && end as u64 <= entry.length, "{span:?} is not in {file:?}");
            }
        }
        let stored = self.touch(now, span.place);
        stored.pages.extend(pages(span));
        let content = Arc::make_mut(&mut stored.bytes);
        content.resize(content.len().max(end), 0);
        content[from..end].copy_from_slice(bytes);
        if rots {
            content[from] ^= 1;
        }
    }

    pub(super) fn fence(&mut self, now: Time, fence: &Fence) {
        match fence {
            Fence::Prepare { wanted } => {
                self.layout = Layout::new(self.torrent.meta.clone(), wanted.clone());
                for (file, at) in self.torrent.clone().meta.files().iter().zip(0..) {
                    let place = Place::File(FileIndex(at));
                    let missing = file.length == 0 && !file.pad && !self.files.contains_key(&place);
                    if missing && wanted.get(at as usize) == Some(&true) {
                        self.touch(now, place);
                    }
                }
            }
            Fence::Sync => self.durable = self.files.clone(),
            Fence::Close => {}
            Fence::Delete => {
                self.files.clear();
                self.durable.clear();
            }
        }
    }

    pub(super) fn stamps(&self) -> Vec<FileStamp> {
        let files = (0..self.torrent.meta.files().len() as u32).map(|at| Place::File(FileIndex(at)));
        let stamp = |place| match self.files.get(&place) {
            None => FileStamp::default(),
            Some(stored) => {
                let len = Some(stored.bytes.len() as u64);
                FileStamp { len, mtime_nanos: stored.mtime, inode: stored.inode }
            }
        };
        files.chain([Place::Part]).map(stamp).collect()
    }

    /// Of what is not on the device, each page may get lost; times and lengths are those of before or after.
    pub(super) fn power_cut(&mut self, dice: &mut Dice) {
        let before = std::mem::take(&mut self.durable);
        self.files.retain(|place, stored| {
            let old = before.get(place);
            if old.is_some_and(|old| Arc::ptr_eq(&old.bytes, &stored.bytes)) {
                return true;
            }
            let Some(old) = old.cloned().or_else(|| dice.percent(50).then(Stored::default)) else {
                return false;
            };
            let content = Arc::make_mut(&mut stored.bytes);
            if dice.percent(50) {
                content.truncate(old.bytes.len());
            }
            for (at, page) in content.chunks_mut(PAGE).enumerate() {
                if dice.percent(50) {
                    continue;
                }
                let was = old.bytes.get(at * PAGE..).unwrap_or_default();
                let was = &was[..was.len().min(page.len())];
                page[..was.len()].copy_from_slice(was);
                page[was.len()..].fill(0);
            }
            if dice.percent(50) && old.inode != 0 {
                stored.mtime = old.mtime;
            }
            true
        });
        self.durable = self.files.clone();
    }

    fn touch(&mut self, now: Time, place: Place) -> &mut Stored {
        self.changes += 1;
        let (changes, files) = (self.changes, self.files.len() as u64);
        let stored = self.files.entry(place).or_default();
        stored.mtime = BIRTH_NANOS + i128::from(now.nanos()) + changes;
        if stored.inode == 0 {
            stored.inode = 1000 + files;
        }
        stored
    }
}

fn pages(span: &Span) -> impl Iterator<Item = u32> {
    let (from, end) = (span.offset as usize, span.offset as usize + span.len as usize);
    (from / PAGE) as u32..end.div_ceil(PAGE) as u32
}
