use std::time::Duration;

use piecemeal_metainfo::FileIndex;
use piecemeal_package::{BlockPool, BlockRef, Fence, PieceHash, Stat};

use super::*;
use crate::torrent::Shape;

const T: TorrentId = TorrentId(7);

struct Bench {
    torrent: Arc<Torrent>,
    disk: SimDisk,
    pool: BlockPool,
    now: Time,
}

fn bench(shape: &Shape, knobs: Knobs) -> Bench {
    let mut dice = Dice::new(5);
    let torrent = Torrent::new(shape, &mut dice);
    let mut disk = SimDisk::new(knobs, dice);
    disk.know(T, &torrent);
    Bench { torrent, disk, pool: BlockPool::new(64), now: Time::ZERO }
}

impl Bench {
    fn run(&mut self, job: Job) -> Done {
        let (ticket, when) = self.disk.submit(self.now, T, job);
        self.now = when;
        self.disk.finish(when, ticket).expect("it is out").1
    }

    fn save_job(&mut self, piece: u32) -> Job {
        let piece = PieceIndex(piece);
        let bytes = self.torrent.piece(piece).to_vec();
        let blocks = bytes.chunks(16 << 10).map(|chunk| {
            let mut buf = self.pool.lend().unwrap();
            buf.append(chunk, u32::MAX);
            buf
        });
        let blocks = blocks.collect();
        let spans = self.disk.store(T).spans_of(piece);
        Job::Save(Save { piece, begin: 0, blocks, spans, hash: Some(PieceHash::default()) })
    }

    fn save(&mut self, piece: u32) -> Result<(), TroubleKind> {
        let job = self.save_job(piece);
        let Done::Saved(save, result) = self.run(job) else { panic!() };
        save.blocks.into_iter().for_each(|buf| self.pool.give_back(buf));
        let digest = save.hash.unwrap().finish();
        assert_eq!(Some(digest), self.torrent.meta.piece_hash_v1(PieceIndex(piece)));
        result.map_err(|trouble| trouble.kind)
    }

    fn load(&mut self, piece: u32) -> Result<Vec<u8>, TroubleKind> {
        let at = BlockRef { piece: PieceIndex(piece), begin: 0, len: 16 << 10 };
        let mut spans = Vec::new();
        self.disk.store(T).layout.spans(at.piece, at.begin, at.len, &mut spans);
        let into = self.pool.lend().unwrap();
        let Done::Loaded(load, result) = self.run(Job::Load(Load { at, spans, into, ticket: 3 })) else {
            panic!()
        };
        let bytes = load.into.filled().to_vec();
        self.pool.give_back(load.into);
        result.map(|()| bytes).map_err(|trouble| trouble.kind)
    }
}

fn three_pieces() -> Shape {
    Shape {
        piece: 32 << 10,
        files: vec![(40_000, false), (25_536, true), (30_000, false)],
        ..Shape::plain(0, 0).trackerless()
    }
}

#[test]
fn what_is_saved_is_held_and_can_be_read() {
    let mut bench = bench(&three_pieces(), Knobs::default());
    assert!(!bench.disk.holds(T, PieceIndex(1)));
    bench.save(1).unwrap();
    assert!(bench.disk.holds(T, PieceIndex(1)));
    assert!(!bench.disk.holds(T, PieceIndex(0)), "a hole is not content");
    assert_eq!(bench.load(1).unwrap(), bench.torrent.stretch(1, 0, 16 << 10).unwrap());
    let mut hash = Hash {
        piece: PieceIndex(1),
        spans: bench.disk.store(T).spans_of(PieceIndex(1)),
        hash: PieceHash::default(),
        idle: false,
    };
    bench.disk.hash(T, &mut hash).unwrap();
    assert_eq!(Some(hash.hash.finish()), bench.torrent.meta.piece_hash_v1(PieceIndex(1)));
}

#[test]
fn a_full_disk_has_room_again_when_it_is_given() {
    let mut bench = bench(&Shape::plain(200_000, 64 << 10), Knobs::default().space(70_000));
    bench.save(0).unwrap();
    assert_eq!(bench.save(1), Err(TroubleKind::NoSpace));
    bench.save(0).expect("what is written over takes no room");
    bench.disk.knobs.space = 1 << 20;
    bench.save(1).unwrap();
}

#[test]
fn nothing_gets_done_during_a_stall() {
    let (from, to) = (Time::from_nanos(5_000_000_000), Time::from_nanos(35_000_000_000));
    let mut bench = bench(&Shape::plain(200_000, 64 << 10), Knobs::default().stall(from, to));
    bench.save(0).unwrap();
    assert!(bench.now < from);
    bench.now = from;
    bench.save(1).unwrap();
    assert!(bench.now > to && bench.now.since(to) < Duration::from_millis(10));
}

#[test]
fn rot_and_loss_show_when_content_is_read() {
    let mut bench = bench(&Shape::plain(200_000, 64 << 10), Knobs::default().corrupt_after(1));
    bench.save(0).unwrap();
    bench.save(1).unwrap();
    assert!(bench.disk.holds(T, PieceIndex(0)));
    assert!(!bench.disk.holds(T, PieceIndex(1)));
    bench.disk.lose_file(T, Place::File(FileIndex(0)));
    assert_eq!(bench.load(0), Err(TroubleKind::Missing));
}

#[test]
fn a_power_cut_spares_what_was_flushed() {
    for seed in 0..20 {
        let mut bench = bench(&Shape::plain(500_000, 64 << 10), Knobs::default());
        bench.disk.dice = Dice::new(seed);
        (0..3).for_each(|piece| bench.save(piece).unwrap());
        bench.run(Job::Fence(Fence::Sync));
        (3..7).for_each(|piece| bench.save(piece).unwrap());
        bench.disk.power_cut();
        assert!((0..3).all(|piece| bench.disk.holds(T, PieceIndex(piece))));
        assert!((3..7).any(|piece| !bench.disk.holds(T, PieceIndex(piece))));
    }
}

#[test]
fn stamps_tell_of_every_change() {
    let mut bench = bench(&three_pieces(), Knobs::default());
    let stamps = |bench: &mut Bench| match bench.run(Job::Stat(Stat)) {
        Done::Stated(stamps) => stamps,
        other => panic!("{other:?}"),
    };
    assert!(stamps(&mut bench).iter().all(|stamp| stamp.len.is_none()));
    bench.save(2).unwrap();
    let one = stamps(&mut bench);
    assert_eq!(one.iter().map(|stamp| stamp.len.is_some()).collect::<Vec<_>>(), [false, false, true, false]);
    assert_eq!(stamps(&mut bench), one);
    bench.save(2).unwrap();
    assert_ne!(stamps(&mut bench), one);
}

#[test]
#[should_panic(expected = "done alone")]
fn a_job_beside_a_fence_breaks_the_contract() {
    let mut bench = bench(&three_pieces(), Knobs::default());
    bench.disk.submit(Time::ZERO, T, Job::Fence(Fence::Sync));
    bench.disk.submit(Time::ZERO, T, Job::Warm(Warm { spans: vec![], ticket: 0 }));
}

#[test]
fn a_dead_process_loses_its_jobs_and_owes_nothing() {
    let mut bench = bench(&three_pieces(), Knobs::default());
    let job = bench.save_job(0);
    let (ticket, when) = bench.disk.submit(Time::ZERO, T, job);
    bench.disk.process_died();
    assert!(bench.disk.finish(when, ticket).is_none());
}
