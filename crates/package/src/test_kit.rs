//! Torrents and a disk in memory, for tests. The disk does Jobs as the contract in `job` says, and checks that what it
//! is asked makes sense.

use std::collections::BTreeMap;
use std::sync::Arc;

use piecemeal_metainfo::bencode::Bencode;
use piecemeal_metainfo::{FileIndex, Metainfo, PieceIndex, sha1};

use crate::{BlockRef, Done, FileStamp, Job, Layout, Place, Span, Trouble, TroubleKind};

/// A file of a test torrent: its length, and its attributes as BEP 47 has them.
pub(crate) type Entry = (u64, &'static str);

/// A torrent and its content.
pub(crate) struct Torrent {
    pub(crate) meta: Arc<Metainfo>,
    pub(crate) content: Vec<u8>,
}

impl Torrent {
    pub(crate) fn new(piece_length: u32, entries: &[Entry]) -> Torrent {
        let mut content = Vec::new();
        let mut files = Vec::new();
        for (at, (length, attr)) in entries.iter().enumerate() {
            let pad = attr.contains('p');
            let noise = (content.len() as u64..).map(|at| if pad { 0 } else { noise(at) });
            content.extend(noise.take(*length as usize));
            let path = Bencode::List(vec![Bencode::from(format!("f{at}").as_str())]);
            let mut file = Bencode::dict().with("length", *length as i64).with("path", path);
            if !attr.is_empty() {
                file = file.with("attr", *attr);
            }
            if attr.contains('l') {
                file = file.with("symlink path", Bencode::List(vec![Bencode::from("f0")]));
            }
            files.push(file);
        }
        let pieces: Vec<u8> = content.chunks(piece_length as usize).flat_map(sha1).collect();
        let info = Bencode::dict()
            .with("files", Bencode::List(files))
            .with("name", "t")
            .with("piece length", i64::from(piece_length))
            .with("pieces", pieces);
        let bytes = Bencode::dict().with("info", info).encode();
        Torrent { meta: Arc::new(Metainfo::parse(&bytes).expect("a good torrent")), content }
    }

    /// The right bytes of a Block.
    pub(crate) fn block(&self, at: BlockRef) -> &[u8] {
        let start = self.meta.piece_offset(at.piece) as usize + at.begin as usize;
        &self.content[start..start + at.len as usize]
    }

    /// All files wanted.
    pub(crate) fn all(&self) -> Arc<[bool]> {
        vec![true; self.meta.files().len()].into()
    }
}

/// Never zero, so that holes show.
fn noise(at: u64) -> u8 {
    (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8 | 1
}

/// A disk with one torrent on it.
pub(crate) struct Disk {
    layout: Layout,
    pub(crate) files: BTreeMap<Place, Stored>,
    clock: i128,
    /// Bytes read to be hashed.
    pub(crate) hashed: u64,
}

#[derive(Clone, Default)]
pub(crate) struct Stored {
    pub(crate) bytes: Vec<u8>,
    mtime: i128,
}

impl Disk {
    pub(crate) fn new(torrent: &Torrent, wanted: &Arc<[bool]>) -> Disk {
        let layout = Layout::new(torrent.meta.clone(), wanted.clone());
        Disk { layout, files: BTreeMap::new(), clock: 0, hashed: 0 }
    }

    /// With all wanted files whole.
    pub(crate) fn full(torrent: &Torrent, wanted: &Arc<[bool]>) -> Disk {
        let mut disk = Disk::new(torrent, wanted);
        for piece in disk.layout.wanted().clone().iter_ones() {
            let at = BlockRef { piece, begin: 0, len: disk.layout.piece_len(piece) };
            for (span, bytes) in disk.split(at, torrent.block(at)) {
                disk.write(span, bytes);
            }
        }
        disk
    }

    fn split<'a>(&self, at: BlockRef, mut bytes: &'a [u8]) -> Vec<(Span, &'a [u8])> {
        let mut spans = Vec::new();
        self.layout.spans(at.piece, at.begin, at.len, &mut spans);
        let cut = spans.into_iter().map(|span| {
            let (head, tail) = bytes.split_at(span.len as usize);
            bytes = tail;
            (span, head)
        });
        cut.collect()
    }

    /// Changes a file from outside.
    pub(crate) fn touch(&mut self, place: Place, change: impl FnOnce(&mut Vec<u8>)) {
        self.clock += 1;
        let stored = self.files.entry(place).or_default();
        change(&mut stored.bytes);
        stored.mtime = self.clock;
    }

    /// The bytes of a piece as they lie there; `None` if some are missing.
    pub(crate) fn piece(&self, piece: PieceIndex) -> Option<Vec<u8>> {
        let mut spans = Vec::new();
        self.layout.spans(piece, 0, u32::MAX, &mut spans);
        let mut bytes = Vec::new();
        spans.iter().try_for_each(|span| self.read(span, &mut bytes)).ok().map(|()| bytes)
    }

    pub(crate) fn run(&mut self, job: Job, refusal: Option<Trouble>) -> Done {
        let result = refusal.map_or(Ok(()), Err);
        match job {
            Job::Save(mut save) => {
                let bytes: Vec<u8> = save.blocks.iter().flat_map(|block| block.filled()).copied().collect();
                if let Some(hash) = &mut save.hash {
                    assert_eq!(hash.at(), save.begin, "a hash that the Blocks do not continue");
                    hash.update(&bytes);
                }
                let at = BlockRef { piece: save.piece, begin: save.begin, len: bytes.len() as u32 };
                let parts = self.split(at, &bytes);
                assert!(parts.iter().map(|(span, _)| *span).eq(save.spans.iter().copied()));
                let write = if result.is_ok() { parts.len() } else { parts.len() / 2 };
                parts.into_iter().take(write).for_each(|(span, bytes)| self.write(span, bytes));
                Done::Saved(save, result)
            }
            Job::Hash(mut hash) => {
                let mut bytes = Vec::new();
                let read = hash.spans.iter().try_for_each(|span| self.read(span, &mut bytes));
                hash.hash.update(&bytes);
                self.hashed += bytes.len() as u64;
                Done::Hashed(hash, result.and(read))
            }
            Job::Load(mut load) => {
                let mut bytes = Vec::new();
                let read = load.spans.iter().try_for_each(|span| self.read(span, &mut bytes));
                let result = result.and(read);
                if result.is_ok() {
                    load.into.fill(load.at.len).copy_from_slice(&bytes);
                }
                Done::Loaded(load, result)
            }
            Job::Warm(warm) => {
                assert!(Layout::in_files(&warm.spans));
                Done::Warmed(warm, result)
            }
            Job::Stat(_) => Done::Stated(self.stamps()),
            Job::Fence(fence) => Done::Fenced(fence, result),
        }
    }

    fn write(&mut self, span: Span, bytes: &[u8]) {
        let end = span.offset as usize + bytes.len();
        match span.place {
            Place::Pad => return,
            Place::Part => {}
            Place::File(file) => {
                assert!(self.layout.wanted_files()[file.at()], "{file:?} is not wanted");
                let entry = &self.layout.meta().files()[file.at()];
                assert!(!entry.pad && end as u64 <= entry.length, "{span:?} is not in {file:?}");
            }
        }
        self.touch(span.place, |stored| {
            stored.resize(stored.len().max(end), 0);
            stored[span.offset as usize..end].copy_from_slice(bytes);
        });
    }

    fn read(&self, span: &Span, into: &mut Vec<u8>) -> Result<(), Trouble> {
        if span.place == Place::Pad {
            into.resize(into.len() + span.len as usize, 0);
            return Ok(());
        }
        let stored = self.files.get(&span.place);
        let range = span.offset as usize..span.offset as usize + span.len as usize;
        let bytes =
            stored.and_then(|stored| stored.bytes.get(range)).ok_or_else(|| trouble(TroubleKind::Missing));
        bytes.map(|bytes| into.extend_from_slice(bytes))
    }

    pub(crate) fn stamps(&self) -> Vec<FileStamp> {
        let files = (0..self.layout.meta().files().len() as u32).map(|at| Place::File(FileIndex(at)));
        let stamp = |place| {
            let stored = self.files.get(&place);
            let mtime_nanos = stored.map_or(0, |stored| stored.mtime);
            let len = stored.map(|stored| stored.bytes.len() as u64);
            FileStamp { len, mtime_nanos, inode: u64::from(len.is_some()) }
        };
        files.chain([Place::Part]).map(stamp).collect()
    }
}

/// A refusal of this kind.
pub(crate) fn trouble(kind: TroubleKind) -> Trouble {
    Trouble { kind, path: "t/f".into(), text: "so the test wants".into() }
}
