//! A Package, a disk, and the laws between them.

mod fences;
mod model;
mod opening;
mod pieces;
mod troubles;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::test_kit::{Disk, Torrent};
use crate::{Done, Place};

pub(crate) const ID: TorrentId = TorrentId(5);
pub(crate) const BOOT: [u8; 16] = [1; 16];
const BUFS: usize = 1000;

/// A Package with what surrounds it.
struct World {
    torrent: Torrent,
    package: Package,
    pool: BlockPool,
    disk: Disk,
    /// Jobs that are out.
    jobs: Vec<Job>,
    /// Sent by the call that was just made.
    sent: Jobs,
    news: Vec<PackageNews>,
    now: Time,
    /// What the engine thinks came.
    received: BTreeSet<BlockRef>,
    /// Wrong Blocks among those.
    poisoned: BTreeSet<BlockRef>,
    /// Answers to come, by ticket.
    asked: BTreeMap<u64, BlockRef>,
    /// Held Bufs come on top of what can be counted from outside.
    opened: bool,
}

impl World {
    fn new(torrent: Torrent, wanted: Arc<[bool]>) -> World {
        let disk = Disk::new(&torrent, &wanted);
        World::with(torrent, wanted, disk, None, Start::Resume, BOOT)
    }

    fn with(
        torrent: Torrent,
        wanted: Arc<[bool]>,
        disk: Disk,
        facts: Option<ResumeFacts>,
        start: Start,
        boot: [u8; 16],
    ) -> World {
        let package = Package::new(ID, torrent.meta.clone(), wanted, facts, start, boot);
        World {
            torrent,
            package,
            pool: BlockPool::new(BUFS),
            disk,
            jobs: Vec::new(),
            sent: Vec::new(),
            news: Vec::new(),
            now: Time::ZERO,
            received: BTreeSet::new(),
            poisoned: BTreeSet::new(),
            asked: BTreeMap::new(),
            opened: false,
        }
    }

    /// All files wanted, open, nothing there.
    fn ready(piece_length: u32, entries: &[(u64, &'static str)]) -> World {
        let torrent = Torrent::new(piece_length, entries);
        let wanted = torrent.all();
        let mut world = World::new(torrent, wanted);
        world.open();
        world
    }

    fn open(&mut self) {
        self.package.open(&mut self.sent);
        self.run_all();
        assert!(self.opened, "{:?}", self.package.state());
        self.news.clear();
    }

    fn at(&self, piece: u32, block: u32) -> BlockRef {
        let piece = PieceIndex(piece);
        let begin = block * BLOCK_LEN;
        BlockRef { piece, begin, len: self.package.layout().block_len(piece, begin) }
    }

    fn buf(&mut self, bytes: &[u8]) -> Buf {
        let mut buf = self.pool.lend().expect("Bufs enough");
        buf.append(bytes, BLOCK_LEN);
        buf
    }

    /// Whether it was taken. A wrong one is wrong where it is kept: of a pad file nothing is, so a Piece that is read
    /// back is good whatever was sent for it. A Block of nothing else is always a good one.
    fn save(&mut self, at: BlockRef, good: bool) -> bool {
        let mut bytes = self.torrent.block(at).to_vec();
        let kept = self.kept_byte(at);
        let good = good || kept.is_none();
        if let Some(kept) = kept.filter(|_| !good) {
            bytes[kept] ^= 0x40;
        }
        let buf = self.buf(&bytes);
        let result = self.package.save(self.now, at, buf, &mut self.sent);
        match result {
            Ok(()) => {
                self.received.insert(at);
                if !good {
                    self.poisoned.insert(at);
                }
            }
            Err(refused) => {
                if let Refused::NotNeeded(_) = refused {
                    assert!(
                        self.received.contains(&at) || self.package.have().get(at.piece),
                        "{at:?} is needed"
                    );
                }
                self.pool.give_back(refused.into_buf());
                self.look();
                return false;
            }
        }
        self.look();
        true
    }

    /// The first byte of a Block that is not of a pad file.
    fn kept_byte(&self, at: BlockRef) -> Option<usize> {
        let mut spans = Vec::new();
        self.package.layout().spans(at.piece, at.begin, at.len, &mut spans);
        let before = spans.iter().take_while(|span| span.place == Place::Pad);
        let first = before.map(|span| span.len as usize).sum();
        (first < at.len as usize).then_some(first)
    }

    fn save_good(&mut self, piece: u32, block: u32) {
        let at = self.at(piece, block);
        assert!(self.save(at, true), "{at:?} refused");
    }

    fn load(&mut self, at: BlockRef, ticket: u64) -> bool {
        let buf = self.pool.lend().expect("Bufs enough");
        let result = self.package.load(at, buf, ticket, &mut self.sent);
        let taken = result.is_ok();
        match result {
            Ok(()) => assert_eq!(self.asked.insert(ticket, at), None),
            Err(buf) => self.pool.give_back(buf),
        }
        self.look();
        taken
    }

    /// Answers one of the Jobs that are out.
    fn run(&mut self, which: usize, refusal: Option<Trouble>) {
        let job = self.jobs.remove(which);
        let done = self.disk.run(job, refusal);
        self.done(done);
    }

    fn done(&mut self, done: Done) {
        let mut news = Vec::new();
        self.package.on_done(self.now, &mut self.pool, done, &mut self.sent, &mut news);
        self.hear(news);
        self.look();
    }

    fn run_all(&mut self) {
        self.look();
        while !self.jobs.is_empty() {
            self.run(0, None);
        }
    }

    fn tick(&mut self, later: Duration, thirsty: bool) {
        self.now = self.now + later;
        self.package.tick(self.now, thirsty, &mut self.sent);
        self.look();
    }

    fn fence(&mut self, fence: Fence) {
        self.package.fence(self.now, fence, &mut self.sent);
        self.look();
    }

    fn recheck(&mut self) {
        self.package.recheck(self.now, &mut self.sent);
        self.received.clear();
        self.poisoned.clear();
        self.opened = false;
        self.look();
    }

    fn resume(&mut self) {
        self.package.resume_after_trouble(self.now, &mut self.sent);
        self.look();
    }

    fn close(&mut self) {
        self.package.close(self.now, &mut self.pool, &mut self.sent);
        self.look();
    }

    /// News of one kind, taken out.
    fn heard<T>(&mut self, which: impl Fn(&PackageNews) -> Option<T>) -> Vec<T> {
        let found = self.news.iter().filter_map(&which).collect();
        self.news.retain(|news| which(news).is_none());
        found
    }

    /// Facts that were told.
    fn facts(&mut self) -> ResumeFacts {
        let facts = self.heard(|news| match news {
            PackageNews::Facts(facts) => Some(facts.clone()),
            _ => None,
        });
        *facts.into_iter().next_back().expect("facts")
    }

    /// Believes the news, as an engine would.
    fn hear(&mut self, all: Vec<PackageNews>) {
        for news in all {
            match news {
                PackageNews::Loaded { ticket, at, buf, result } => {
                    assert_eq!(self.asked.remove(&ticket), Some(at), "an answer to no question");
                    assert!(result.is_err() || buf.filled() == self.torrent.block(at), "{at:?} is wrong");
                    self.pool.give_back(buf);
                    continue;
                }
                PackageNews::Lost(at) => {
                    assert!(self.received.remove(&at) || !self.opened, "{at:?}");
                    self.poisoned.remove(&at);
                }
                PackageNews::PieceDone(piece) => assert!(self.poisoned.iter().all(|at| at.piece != piece)),
                PackageNews::PieceBad(piece) => {
                    let wrong = self.poisoned.len();
                    self.poisoned.retain(|at| at.piece != piece);
                    assert!(self.poisoned.len() < wrong, "{piece:?} was good");
                    self.received.retain(|at| at.piece != piece);
                }
                PackageNews::Unhave(piece) => self.received.retain(|at| at.piece != piece),
                PackageNews::Checked { piece, good: true } => {
                    self.received.extend(self.package.layout().blocks_of(piece));
                }
                PackageNews::Opened => self.opened = true,
                _ => {}
            }
            self.news.push(news);
        }
    }

    /// Takes what was sent, and looks whether the laws hold.
    fn look(&mut self) {
        self.jobs.extend(self.sent.drain(..).map(|(torrent, job)| {
            assert_eq!(torrent, ID);
            job
        }));
        let mut lent = self.package.waiting + self.package.fences.held_bufs();
        let mut pieces = BTreeSet::new();
        let mut alone = false;
        for job in &self.jobs {
            match job {
                Job::Save(save) => {
                    lent += save.blocks.len();
                    assert!((1..=64).contains(&save.blocks.len()));
                    assert!(pieces.insert(save.piece), "two Jobs are out for {:?}", save.piece);
                }
                Job::Hash(hash) => assert!(pieces.insert(hash.piece), "two Jobs for {:?}", hash.piece),
                Job::Load(_) => lent += 1,
                Job::Warm(_) => {}
                Job::Stat(_) | Job::Fence(_) => alone = true,
            }
        }
        assert!(!alone || self.jobs.len() == 1, "a fence is not alone: {:?}", self.jobs);
        assert_eq!(self.pool.lent(), lent, "Bufs were lost");
        assert_eq!(self.package.waiting, self.package.pieces.values().map(Piece::waiting).sum::<usize>());
        assert!(self.package.is_quiet() || !self.jobs.is_empty() || self.package.waiting > 0);
        self.count();
    }

    /// Whether the package's sums are right.
    fn count(&self) {
        let layout = self.package.layout();
        let had = layout.wanted().iter_ones().filter(|piece| self.package.have().get(*piece));
        let bytes: u64 = had.map(|piece| u64::from(layout.wanted_bytes_in(piece))).sum();
        assert_eq!(self.package.have_bytes(), bytes);
        assert_eq!(self.package.left_bytes(), layout.wanted_bytes() - bytes);
        let missing = layout.wanted().iter_missing_in(self.package.have()).next();
        assert_eq!(self.package.is_complete(), missing.is_none());
    }

    /// What is had lies on the disk.
    fn have_is_true(&self) {
        for piece in self.package.have().iter_ones() {
            let at = BlockRef { piece, begin: 0, len: self.package.layout().piece_len(piece) };
            let there = self.disk.piece(piece);
            assert!(there.as_deref() == Some(self.torrent.block(at)), "{piece:?} is claimed falsely");
        }
    }

    /// The sizes of the Saves that are out, in Blocks, and whether they are hashed.
    fn saves(&self) -> Vec<(usize, bool)> {
        let saves = self.jobs.iter().filter_map(|job| match job {
            Job::Save(save) => Some((save.blocks.len(), save.hash.is_some())),
            _ => None,
        });
        saves.collect()
    }

    /// Fetches all that is wanted and missing.
    fn fetch_all(&mut self) {
        let missing = self.package.layout().wanted().iter_missing_in(self.package.have());
        let blocks: Vec<BlockRef> =
            missing.flat_map(|piece| self.package.layout().blocks_of(piece)).collect();
        for at in blocks {
            self.save(at, true);
            self.run_all();
        }
    }
}

/// The file of this number.
fn file(at: u32) -> Place {
    Place::File(piecemeal_metainfo::FileIndex(at))
}
