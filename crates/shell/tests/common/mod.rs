//! Torrents whose every byte is known, for tests against real files and sockets.
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use piecemeal_metainfo::{FileIndex, Metainfo, TorrentId};
use piecemeal_package::{Done, Job, Place, Span};
use piecemeal_shell::Storage;
use piecemeal_shell::disk::DiskPool;
use piecemeal_shell::mailbox::{Doorbell, Mailbox};

/// Far beyond what anything here takes; only a hang gets there.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const PIECE_BYTES: u64 = 32 * 1024;

/// One file of a test torrent.
pub enum Toy<'a> {
    File(&'a str, u64),
    Pad(u64),
    Link(&'a str, &'a str),
}

/// A v1 torrent named "t" with these files; its hashes are made up.
pub fn torrent(files: &[Toy<'_>]) -> Arc<Metainfo> {
    let mut list = String::new();
    let mut total = 0;
    for file in files {
        match file {
            Toy::File(path, length) => {
                list += &format!("d6:lengthi{length}e4:path{}e", bencoded_path(path));
                total += length;
            }
            Toy::Pad(length) => {
                list += &format!("d4:attr1:p6:lengthi{length}e4:path{}e", bencoded_path(".pad/x"));
                total += length;
            }
            Toy::Link(path, to) => {
                let (path, to) = (bencoded_path(path), bencoded_path(to));
                list += &format!("d4:attr1:l6:lengthi0e4:path{path}12:symlink path{to}e");
            }
        }
    }
    let hashes = 20 * total.div_ceil(PIECE_BYTES) as usize;
    let info = format!("d5:filesl{list}e4:name1:t12:piece lengthi{PIECE_BYTES}e6:pieces{hashes}:");
    let mut bytes = format!("d4:info{info}").into_bytes();
    bytes.extend(std::iter::repeat_n(b'h', hashes));
    bytes.extend_from_slice(b"ee");
    Arc::new(Metainfo::parse(&bytes).expect("a good torrent"))
}

fn bencoded_path(path: &str) -> String {
    let parts: String = path.split('/').map(|part| format!("{}:{part}", part.len())).collect();
    format!("l{parts}e")
}

/// Several files, pads between them, an empty file and a link.
pub fn mixed() -> Arc<Metainfo> {
    torrent(&[
        Toy::File("a", 10_000),
        Toy::Pad(PIECE_BYTES - 10_000),
        Toy::File("d/b", 50_001),
        Toy::File("d/e/c", 7),
        Toy::File("empty", 0),
        Toy::Link("l", "d/b"),
        Toy::File("z", 80_000),
    ])
}

/// What the byte at `offset` of torrent `id` is; pads are zeros.
pub fn content(meta: &Metainfo, id: TorrentId) -> Vec<u8> {
    let mut bytes = Vec::new();
    for file in meta.files() {
        let at = |i: u64| (i.wrapping_mul(2_654_435_761) >> 7) as u8 ^ id.0 as u8;
        let range = file.offset..file.offset + file.length;
        bytes.extend(range.map(|i| if file.pad { 0 } else { at(i) }));
    }
    bytes
}

/// Where bytes of the torrent lie, file by file.
pub fn spans(meta: &Metainfo, offset: u64, len: u64) -> Vec<Span> {
    let (mut offset, end) = (offset, offset + len);
    let mut spans = Vec::new();
    for (index, file) in (0..).map(FileIndex).zip(meta.files()) {
        let file_end = file.offset + file.length;
        if offset < end && file_end > offset && file.offset <= offset {
            let len = file_end.min(end) - offset;
            let place = if file.pad { Place::Pad } else { Place::File(index) };
            spans.push(Span { place, offset: offset - file.offset, len: len as u32 });
            offset += len;
        }
    }
    spans
}

pub fn storage(folder: &Path, meta: &Arc<Metainfo>) -> Storage {
    Storage { root: folder.join("root"), part: folder.join("state/t.part"), meta: meta.clone() }
}

/// A disk pool, and someone who waits for its answers.
pub struct Desk {
    pub pool: DiskPool,
    mailbox: Arc<Mailbox<(TorrentId, Done)>>,
    bell: Arc<Doorbell>,
    rung: Receiver<()>,
}

impl Desk {
    pub fn new(threads: usize) -> Desk {
        let (ring, rung) = crossbeam_channel::unbounded();
        let bell = Doorbell::new(move || ring.send(()).expect("the desk listens"));
        let mailbox = Mailbox::new(bell.clone());
        Desk { pool: DiskPool::start(threads, mailbox.clone()), mailbox, bell, rung }
    }

    /// Runs jobs; returns their answers in the order they came.
    pub fn run_all(&self, mut jobs: Vec<(TorrentId, Job)>) -> Vec<(TorrentId, Done)> {
        let wanted = jobs.len();
        self.pool.submit(&mut jobs);
        let mut dones = Vec::new();
        while dones.len() < wanted {
            self.bell.doze();
            if self.mailbox.is_empty() {
                self.rung.recv_timeout(PATIENCE).expect("every job is answered");
            }
            self.bell.wake();
            self.mailbox.drain(&mut dones);
        }
        assert_eq!(dones.len(), wanted, "one answer a job");
        dones
    }

    pub fn run(&self, torrent: TorrentId, job: Job) -> Done {
        self.run_all(vec![(torrent, job)]).pop().expect("one job has one answer").1
    }
}
