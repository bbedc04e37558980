//! The disk against real files: what was saved is read back, and nothing outside the torrent's own files is touched.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::{Desk, PIECE_BYTES, Toy, content, mixed, spans, storage, torrent};
use piecemeal_metainfo::{FileIndex, Metainfo, PieceIndex, TorrentId, sha1};
use piecemeal_package::{
    BLOCK_LEN, BlockPool, BlockRef, Buf, Done, Fence, Hash, Job, Load, PieceHash, Place, Save, Span, Stat,
    Trouble, TroubleKind, Warm,
};

const T: TorrentId = TorrentId(1);

/// Blocks of `bytes`, cut as Blocks are.
fn blocks(pool: &mut BlockPool, bytes: &[u8]) -> Vec<Buf> {
    let cut = bytes.chunks(BLOCK_LEN as usize).map(|bytes| {
        let mut buf = pool.lend().expect("the test's pool is large enough");
        buf.append(bytes, BLOCK_LEN);
        buf
    });
    cut.collect()
}

fn save_job(
    pool: &mut BlockPool,
    meta: &Metainfo,
    id: TorrentId,
    piece: u32,
    hash: Option<PieceHash>,
) -> Job {
    let all = content(meta, id);
    let begin = u64::from(piece) * PIECE_BYTES;
    let len = u64::from(meta.piece_len(PieceIndex(piece)));
    let blocks = blocks(pool, &all[begin as usize..(begin + len) as usize]);
    Job::Save(Save { piece: PieceIndex(piece), begin: 0, blocks, spans: spans(meta, begin, len), hash })
}

fn load_job(pool: &mut BlockPool, spans: Vec<Span>, ticket: u64) -> Job {
    let len = spans.iter().map(|span| span.len).sum();
    let at = BlockRef { piece: PieceIndex(0), begin: 0, len };
    Job::Load(Load { at, spans, into: pool.lend().expect("a Buf for it"), ticket })
}

fn hash_job(meta: &Metainfo, piece: u32, idle: bool) -> Job {
    let (piece, begin) = (PieceIndex(piece), u64::from(piece) * PIECE_BYTES);
    let spans = spans(meta, begin, u64::from(meta.piece_len(piece)));
    Job::Hash(Hash { piece, spans, hash: PieceHash::default(), idle })
}

/// Gives the Bufs of an answer back and returns what became of it.
fn outcome(pool: &mut BlockPool, done: Done) -> Result<(), Trouble> {
    match done {
        Done::Saved(save, result) => {
            save.blocks.into_iter().for_each(|block| pool.give_back(block));
            result
        }
        Done::Loaded(load, result) => {
            pool.give_back(load.into);
            result
        }
        Done::Hashed(_, result) | Done::Warmed(_, result) | Done::Fenced(_, result) => result,
        Done::Stated(_) => Ok(()),
    }
}

fn kind(pool: &mut BlockPool, done: Done) -> Option<TroubleKind> {
    outcome(pool, done).err().map(|trouble| trouble.kind)
}

fn prepare(desk: &Desk, id: TorrentId, meta: &Metainfo) -> Result<(), Trouble> {
    let wanted: Arc<[bool]> = meta.files().iter().map(|_| true).collect();
    match desk.run(id, Job::Fence(Fence::Prepare { wanted })) {
        Done::Fenced(_, result) => result,
        other => panic!("a fence is answered by a fence, not {other:?}"),
    }
}

#[test]
fn what_is_saved_is_hashed_read_and_lies_in_the_files() {
    let (folder, meta, desk) = (tempfile::tempdir().unwrap(), mixed(), Desk::new(2));
    let mut pool = BlockPool::new(64);
    desk.pool.register(T, storage(folder.path(), &meta)).unwrap();
    prepare(&desk, T, &meta).unwrap();
    let all = content(&meta, T);
    for piece in 0..meta.piece_count() {
        let begin = piece as usize * PIECE_BYTES as usize;
        let want = sha1(&all[begin..all.len().min(begin + PIECE_BYTES as usize)]);
        let job = save_job(&mut pool, &meta, T, piece, Some(PieceHash::default()));
        let Done::Saved(mut save, Ok(())) = desk.run(T, job) else { panic!("piece {piece} was not saved") };
        assert_eq!(save.hash.take().unwrap().finish(), want, "hashed while warm, piece {piece}");
        save.blocks.into_iter().for_each(|block| pool.give_back(block));
        for idle in [false, true] {
            let Done::Hashed(hash, Ok(())) = desk.run(T, hash_job(&meta, piece, idle)) else { panic!() };
            assert_eq!(hash.hash.finish(), want, "read back, piece {piece}");
        }
    }
    for begin in (0..all.len() as u64).step_by(5_000) {
        let len = (all.len() as u64 - begin).min(5_000);
        let job = load_job(&mut pool, spans(&meta, begin, len), begin);
        let Done::Loaded(load, Ok(())) = desk.run(T, job) else { panic!("{begin} was not read") };
        assert_eq!(load.into.filled(), &all[begin as usize..(begin + len) as usize]);
        assert_eq!(load.ticket, begin);
        pool.give_back(load.into);
    }
    for file in meta.files().iter().filter(|file| !file.pad && file.symlink.is_none()) {
        let on_disk = fs::read(file.path.join_to(&folder.path().join("root"))).unwrap();
        assert_eq!(
            on_disk,
            &all[file.offset as usize..(file.offset + file.length) as usize],
            "{:?}",
            file.path
        );
    }
    assert!(!folder.path().join("root/t/.pad").exists(), "pads are nowhere");
    assert_eq!(kind(&mut pool, desk.run(T, Job::Fence(Fence::Sync))), None);
    assert_eq!(pool.lent(), 0);
}

#[test]
fn a_hash_goes_on_where_it_stands() {
    let (folder, meta, desk) = (tempfile::tempdir().unwrap(), mixed(), Desk::new(1));
    let mut pool = BlockPool::new(64);
    desk.pool.register(T, storage(folder.path(), &meta)).unwrap();
    prepare(&desk, T, &meta).unwrap();
    let all = content(&meta, T);
    let job = save_job(&mut pool, &meta, T, 1, None);
    assert_eq!(kind(&mut pool, desk.run(T, job)), None);
    let piece = &all[PIECE_BYTES as usize..2 * PIECE_BYTES as usize];
    let mut hash = PieceHash::default();
    hash.update(&piece[..1_000]);
    let spans = spans(&meta, PIECE_BYTES + 1_000, PIECE_BYTES - 1_000);
    let job = Job::Hash(Hash { piece: PieceIndex(1), spans, hash, idle: false });
    let Done::Hashed(hash, Ok(())) = desk.run(T, job) else { panic!() };
    assert_eq!(hash.hash.finish(), sha1(piece));
}

/// All that can stand where a file or a folder should be. A FIFO must not even make us wait.
#[test]
fn links_and_other_traps_are_refused() {
    type Trap = fn(&Path, &Path);
    let traps: [(&str, Trap); 6] = [
        ("file is a link", |root, outside| symlink(outside.join("victim"), root.join("t/d/b")).unwrap()),
        ("file is a dangling link", |root, outside| {
            symlink(outside.join("new"), root.join("t/d/b")).unwrap()
        }),
        ("folder is a link", |root, outside| {
            fs::remove_dir(root.join("t/d")).unwrap();
            symlink(outside, root.join("t/d")).unwrap();
        }),
        ("folder is a file", |root, _| {
            fs::remove_dir(root.join("t/d")).unwrap();
            fs::write(root.join("t/d"), b"x").unwrap();
        }),
        ("file is a folder", |root, _| fs::create_dir(root.join("t/d/b")).unwrap()),
        ("file is a FIFO", |root, _| {
            assert!(Command::new("mkfifo").arg(root.join("t/d/b")).status().unwrap().success());
        }),
    ];
    for (name, trap) in traps {
        let (folder, meta, desk) =
            (tempfile::tempdir().unwrap(), torrent(&[Toy::File("d/b", 40_000)]), Desk::new(1));
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        fs::create_dir_all(root.join("t/d")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("victim"), b"precious").unwrap();
        fs::write(outside.join("b"), b"precious").unwrap();
        trap(&root, &outside);
        let mut pool = BlockPool::new(64);
        desk.pool.register(T, storage(folder.path(), &meta)).unwrap();
        let span = Span { place: Place::File(FileIndex(0)), offset: 0, len: 8 };
        let jobs = [
            save_job(&mut pool, &meta, T, 0, None),
            load_job(&mut pool, vec![span], 0),
            hash_job(&meta, 0, false),
            Job::Warm(Warm { spans: vec![span], ticket: 0 }),
        ];
        for job in jobs {
            let what = format!("{name}: {job:?}");
            let said = kind(&mut pool, desk.run(T, job));
            let dangling = name.contains("dangling") || said == Some(TroubleKind::Unsafe);
            assert!(dangling && said.is_some(), "{said:?} for {}", &what[..60.min(what.len())]);
        }
        let Done::Stated(stamps) = desk.run(T, Job::Stat(Stat)) else { panic!() };
        assert!(stamps.iter().all(|stamp| stamp.len.is_none()), "{name}: {stamps:?}");
        assert_eq!(kind(&mut pool, desk.run(T, Job::Fence(Fence::Delete))), None, "{name}");
        assert_eq!(fs::read(outside.join("victim")).unwrap(), b"precious", "{name}");
        assert_eq!(fs::read(outside.join("b")).unwrap(), b"precious", "{name}");
        assert!(!outside.join("new").exists(), "{name}");
        assert_eq!(pool.lent(), 0);
    }
}

#[test]
fn what_is_missing_or_short_is_told_so() {
    let (folder, desk) = (tempfile::tempdir().unwrap(), Desk::new(1));
    let meta = torrent(&[Toy::File("a", 40_000), Toy::File("gone", 10)]);
    let mut pool = BlockPool::new(8);
    desk.pool.register(T, storage(folder.path(), &meta)).unwrap();
    fs::create_dir_all(folder.path().join("root/t")).unwrap();
    fs::write(folder.path().join("root/t/a"), vec![1; 20_000]).unwrap();
    let span = |file, offset, len| Span { place: Place::File(FileIndex(file)), offset, len };
    for (span, missing) in [
        (span(0, 0, 16_384), false),
        (span(0, 3_616, 16_384), false),
        (span(0, 3_617, 16_384), true),
        (span(0, 16_384, 16_384), true),
        (span(0, 20_000, 1), true),
        (span(0, 30_000, 1_000), true),
        (span(1, 0, 10), true),
    ] {
        let hash = Hash { piece: PieceIndex(0), spans: vec![span], hash: PieceHash::default(), idle: false };
        let warm = Warm { spans: vec![span], ticket: 0 };
        let load = load_job(&mut pool, vec![span], 0);
        for job in [Job::Hash(hash), load, Job::Warm(warm)] {
            let want = missing.then_some(TroubleKind::Missing);
            assert_eq!(kind(&mut pool, desk.run(T, job)), want, "{span:?}");
        }
    }
    // Without its root a torrent is missing; it is not made anew on a disk that happens to be mounted there.
    fs::remove_dir_all(folder.path().join("root")).unwrap();
    assert_eq!(kind(&mut pool, desk.run(T, Job::Fence(Fence::Close))), None);
    let job = save_job(&mut pool, &meta, T, 0, None);
    assert_eq!(kind(&mut pool, desk.run(T, job)), Some(TroubleKind::Missing));
    assert!(!folder.path().join("root").exists());
}

#[test]
fn prepare_makes_what_is_wanted_and_touches_nothing_that_exists() {
    let (folder, meta, desk) = (tempfile::tempdir().unwrap(), mixed(), Desk::new(1));
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("t/d")).unwrap();
    fs::write(root.join("t/empty"), b"not so empty").unwrap();
    fs::write(root.join("t/d/b"), b"mine").unwrap();
    let before = fs::metadata(root.join("t/empty")).unwrap();
    desk.pool.register(T, storage(folder.path(), &meta)).unwrap();
    for _ in 0..2 {
        prepare(&desk, T, &meta).unwrap();
    }
    assert_eq!(fs::read(root.join("t/empty")).unwrap(), b"not so empty");
    assert_eq!(fs::metadata(root.join("t/empty")).unwrap().ino(), before.ino());
    assert_eq!(fs::read(root.join("t/d/b")).unwrap(), b"mine");
    assert!(root.join("t/d/e").is_dir());
    assert_eq!(fs::read_link(root.join("t/l")).unwrap(), Path::new("d/b"));
    assert!(!root.join("t/z").exists(), "files come with their first byte");
    // Only what is wanted.
    let other = tempfile::tempdir().unwrap();
    let id = TorrentId(2);
    desk.pool.register(id, storage(other.path(), &meta)).unwrap();
    let wanted: Arc<[bool]> = meta.files().iter().map(|file| file.path.as_str() == "t/a").collect();
    assert!(matches!(desk.run(id, Job::Fence(Fence::Prepare { wanted })), Done::Fenced(_, Ok(()))));
    assert!(other.path().join("root/t").is_dir());
    assert_eq!(fs::read_dir(other.path().join("root/t")).unwrap().count(), 0);
}

#[test]
fn delete_takes_its_own_and_leaves_the_rest() {
    let (folder, meta, desk) = (tempfile::tempdir().unwrap(), mixed(), Desk::new(2));
    let (root, mut pool) = (folder.path().join("root"), BlockPool::new(64));
    desk.pool.register(T, storage(folder.path(), &meta)).unwrap();
    prepare(&desk, T, &meta).unwrap();
    for piece in 0..meta.piece_count() {
        let job = save_job(&mut pool, &meta, T, piece, None);
        assert_eq!(kind(&mut pool, desk.run(T, job)), None);
    }
    let part = Span { place: Place::Part, offset: 100_000, len: 3 };
    let save = Save {
        piece: PieceIndex(3),
        begin: 0,
        blocks: blocks(&mut pool, b"abc"),
        spans: vec![part],
        hash: None,
    };
    assert_eq!(kind(&mut pool, desk.run(T, Job::Save(save))), None);
    let Done::Stated(stamps) = desk.run(T, Job::Stat(Stat)) else { panic!() };
    let lens: Vec<_> = stamps.iter().map(|stamp| stamp.len).collect();
    assert_eq!(lens, [Some(10_000), None, Some(50_001), Some(7), Some(0), None, Some(80_000), Some(100_003)]);
    assert!(stamps[0].mtime_nanos > 0 && stamps[0].inode > 0);

    fs::write(root.join("t/d/foreign"), b"not ours").unwrap();
    fs::write(root.join("beside"), b"not ours").unwrap();
    assert_eq!(kind(&mut pool, desk.run(T, Job::Fence(Fence::Delete))), None);
    assert_eq!(fs::read(root.join("t/d/foreign")).unwrap(), b"not ours");
    assert_eq!(fs::read_dir(root.join("t")).unwrap().count(), 1, "only the foreign file's folder is left");
    assert_eq!(fs::read_dir(root.join("t/d")).unwrap().count(), 1);
    assert!(!folder.path().join("state/t.part").exists());
    fs::remove_file(root.join("t/d/foreign")).unwrap();
    assert_eq!(kind(&mut pool, desk.run(T, Job::Fence(Fence::Delete))), None);
    assert!(!root.join("t").exists() && root.join("beside").exists());
}

/// A small file system of its own, gone with the value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        mount.is_ok_and(|mount| mount.status.success()).then_some(SmallDisk(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_says_so_and_works_again_once_there_is_room() {
    let Some(disk) = SmallDisk::mount("64k") else {
        eprintln!("SKIPPED: no tmpfs can be mounted here");
        return;
    };
    let (meta, desk) = (torrent(&[Toy::File("a", 64 * 1024)]), Desk::new(1));
    let mut pool = BlockPool::new(64);
    desk.pool.register(T, storage(disk.0.path(), &meta)).unwrap();
    prepare(&desk, T, &meta).unwrap();
    fs::write(disk.0.path().join("ballast"), vec![1; 40 * 1024]).unwrap();
    let job = save_job(&mut pool, &meta, T, 0, None);
    assert_eq!(kind(&mut pool, desk.run(T, job)), Some(TroubleKind::NoSpace));
    fs::remove_file(disk.0.path().join("ballast")).unwrap();
    let job = save_job(&mut pool, &meta, T, 0, None);
    assert_eq!(kind(&mut pool, desk.run(T, job)), None);
    // Else the mount is busy.
    assert_eq!(kind(&mut pool, desk.run(T, Job::Fence(Fence::Close))), None);
}

#[test]
fn closed_handles_follow_the_name_not_the_file() {
    let (folder, desk) = (tempfile::tempdir().unwrap(), Desk::new(2));
    let meta = torrent(&[Toy::File("a", 4)]);
    let path = folder.path().join("root/t/a");
    let mut pool = BlockPool::new(4);
    desk.pool.register(T, storage(folder.path(), &meta)).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, b"once").unwrap();
    let mut read = |desk: &Desk| {
        let job = load_job(&mut pool, spans(&meta, 0, 4), 0);
        let Done::Loaded(load, Ok(())) = desk.run(T, job) else { panic!() };
        let bytes = load.into.filled().to_vec();
        pool.give_back(load.into);
        bytes
    };
    assert_eq!(read(&desk), b"once");
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"more").unwrap();
    assert_eq!(read(&desk), b"once", "the handle was kept");
    assert!(matches!(desk.run(T, Job::Fence(Fence::Close)), Done::Fenced(_, Ok(()))));
    assert_eq!(read(&desk), b"more");
}

#[test]
fn many_jobs_of_many_torrents_at_once_are_each_answered_rightly() {
    let (folder, meta, desk) = (tempfile::tempdir().unwrap(), mixed(), Desk::new(4));
    let mut pool = BlockPool::new(1_000);
    let ids: Vec<_> = (1..=20).map(TorrentId).collect();
    for &id in &ids {
        desk.pool.register(id, storage(&folder.path().join(id.0.to_string()), &meta)).unwrap();
        prepare(&desk, id, &meta).unwrap();
    }
    let mut jobs = Vec::new();
    for piece in 0..meta.piece_count() {
        for &id in &ids {
            jobs.push((id, save_job(&mut pool, &meta, id, piece, Some(PieceHash::default()))));
        }
    }
    for (id, done) in desk.run_all(jobs) {
        assert_eq!(outcome(&mut pool, done), Ok(()), "{id:?}");
    }
    let mut jobs = Vec::new();
    let mut want = BTreeMap::new();
    for &id in &ids {
        let all = content(&meta, id);
        for begin in (0..all.len() as u64).step_by(16_384) {
            let len = (all.len() as u64 - begin).min(16_384);
            want.insert((id, begin), all[begin as usize..(begin + len) as usize].to_vec());
            jobs.push((id, load_job(&mut pool, spans(&meta, begin, len), begin)));
            jobs.push((id, Job::Warm(Warm { spans: spans(&meta, begin, len), ticket: begin })));
        }
        jobs.extend((0..meta.piece_count()).map(|piece| (id, hash_job(&meta, piece, true))));
    }
    for (id, done) in desk.run_all(jobs) {
        if let Done::Loaded(load, _) = &done {
            assert_eq!(want.remove(&(id, load.ticket)).as_deref(), Some(load.into.filled()));
        }
        assert_eq!(outcome(&mut pool, done), Ok(()), "{id:?}");
    }
    assert!(want.is_empty());
    assert_eq!(pool.lent(), 0);
}

#[test]
fn a_torrent_nobody_registered_is_refused() {
    let (desk, mut pool) = (Desk::new(1), BlockPool::new(4));
    let job = load_job(&mut pool, Vec::new(), 0);
    assert_eq!(kind(&mut pool, desk.run(TorrentId(9), job)), Some(TroubleKind::Io));
    assert_eq!(kind(&mut pool, desk.run(TorrentId(9), Job::Fence(Fence::Sync))), Some(TroubleKind::Io));
}

#[test]
fn a_stop_waits_for_what_is_queued() {
    let (folder, meta, desk) = (tempfile::tempdir().unwrap(), mixed(), Desk::new(2));
    desk.pool.register(T, storage(folder.path(), &meta)).unwrap();
    prepare(&desk, T, &meta).unwrap();
    assert!(desk.pool.stop(std::time::Instant::now() + common::PATIENCE));
}
