//! The door that bytes of a resume file come through, and good inputs to begin with.
//!
//! The property tests of this crate and a target of `fuzz/` call the same function.

use std::sync::{Arc, LazyLock};

use piecemeal_metainfo::bencode::Bencode;
use piecemeal_metainfo::{Bitfield, Metainfo, PieceIndex, Time, TorrentId, sha1};
use piecemeal_package::{
    BlockPool, Done, FileStamp, Job, Jobs, OpenPiece, Package, PackageState, ResumeFacts, Start,
};

/// Two files of zeros, the first of them with two Blocks a piece.
static TORRENT: LazyLock<Arc<Metainfo>> = LazyLock::new(|| {
    let lengths = [150_000u64, 20_000];
    let total: u64 = lengths.iter().sum();
    let files = lengths.iter().zip(["a", "b"]).map(|(length, name)| {
        let path = Bencode::List(vec![Bencode::from(name)]);
        Bencode::dict().with("length", *length as i64).with("path", path)
    });
    let zeros = vec![0; total as usize];
    let pieces: Vec<u8> = zeros.chunks(32_768).flat_map(sha1).collect();
    let info = Bencode::dict()
        .with("files", Bencode::List(files.collect()))
        .with("name", "t")
        .with("piece length", 32_768)
        .with("pieces", pieces);
    let bytes = Bencode::dict().with("info", info).encode();
    Arc::new(Metainfo::parse(&bytes).expect("a good torrent"))
});

const BOOT: [u8; 16] = *b"this boot of all";

/// Any bytes as resume facts. Whatever they claim, a Package that is given them comes to have all there is; the content
/// is zeros, as a disk would give them from anywhere.
pub fn resume_facts(body: &[u8]) {
    let _ = ResumeFacts::decode(body);
    let Ok(facts) = ResumeFacts::decode(&sealed(body)) else { return };
    assert_eq!(ResumeFacts::decode(&facts.encode()).as_ref(), Ok(&facts), "what is written can be read");
    for start in [Start::Resume, Start::Recheck, Start::Trust] {
        go_on(&facts, start);
    }
}

/// The rest of the form around a body, so that damage is not found out before it is read.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = [&[1], body].concat();
    let checksum = sha1(&bytes);
    bytes.extend(checksum);
    bytes
}

fn go_on(facts: &ResumeFacts, start: Start) {
    let (mut jobs, mut news) = (Jobs::new(), Vec::new());
    let mut pool = BlockPool::new(4);
    let wanted: Arc<[bool]> = [true, true].into();
    let mut package = Package::new(TorrentId(1), TORRENT.clone(), wanted, Some(facts.clone()), start, BOOT);
    let now = Time::ZERO;
    package.open(&mut jobs);
    run(&mut package, &mut pool, facts, &mut jobs);
    assert_eq!(package.state(), PackageState::Ready);
    let written: Vec<_> = package.written_blocks().collect();
    assert!(written.iter().all(|at| package.layout().is_block(*at) && !package.have().get(at.piece)));
    for piece in (0..TORRENT.piece_count()).map(PieceIndex) {
        for at in package.layout().blocks_of(piece).collect::<Vec<_>>() {
            let mut buf = pool.lend().expect("all came back");
            buf.fill(at.len).fill(0);
            if let Err(refused) = package.save(now, at, buf, &mut jobs) {
                assert!(written.contains(&at) || package.have().get(piece));
                pool.give_back(refused.into_buf());
            }
            run(&mut package, &mut pool, facts, &mut jobs);
        }
        package.tick(now, true, &mut jobs);
        run(&mut package, &mut pool, facts, &mut jobs);
    }
    assert!(package.is_complete(), "{package:?}");
    package.close(now, &mut pool, &mut jobs);
    while let Some((_, job)) = jobs.pop() {
        package.on_done(now, &mut pool, done(job, facts), &mut jobs, &mut news);
    }
    assert_eq!((package.state(), pool.lent()), (PackageState::Closed, 0));
}

fn run(package: &mut Package, pool: &mut BlockPool, facts: &ResumeFacts, jobs: &mut Jobs) {
    let mut news = Vec::new();
    while let Some((_, job)) = jobs.pop() {
        package.on_done(Time::ZERO, pool, done(job, facts), jobs, &mut news);
    }
}

/// What a disk of zeros answers, where files are as the facts say they were.
fn done(job: Job, facts: &ResumeFacts) -> Done {
    let zeros = [0; 32_768];
    match job {
        Job::Save(mut save) => {
            if let Some(hash) = &mut save.hash {
                save.blocks.iter().for_each(|buf| hash.update(buf.filled()));
            }
            Done::Saved(save, Ok(()))
        }
        Job::Hash(mut hash) => {
            hash.spans.iter().for_each(|span| hash.hash.update(&zeros[..span.len as usize]));
            Done::Hashed(hash, Ok(()))
        }
        Job::Stat(_) => Done::Stated(facts.stamps.clone()),
        Job::Fence(fence) => Done::Fenced(fence, Ok(())),
        Job::Load(load) => Done::Loaded(load, Ok(())),
        Job::Warm(warm) => Done::Warmed(warm, Ok(())),
    }
}

/// Good inputs: the bodies of facts of this torrent.
pub fn seeds() -> Vec<Vec<u8>> {
    let pieces = TORRENT.piece_count();
    let stamp = |len| FileStamp { len: Some(len), mtime_nanos: 1 << 60, inode: 7 };
    let mut have = Bitfield::new(pieces);
    have.set(PieceIndex(1));
    let begun = ResumeFacts {
        info_hash: TORRENT.wire_hash(),
        have: have.clone(),
        stamps: vec![stamp(150_000), stamp(20_000), FileStamp::default()],
        open: vec![OpenPiece { piece: PieceIndex(0), written: vec![2] }],
        wanted: vec![true, true],
        uploaded: 1,
        downloaded: 2,
        clean: false,
        boot: BOOT,
    };
    let short = ResumeFacts {
        stamps: vec![stamp(5), FileStamp::default(), FileStamp::default()],
        wanted: vec![true, false],
        ..begun.clone()
    };
    let whole = ResumeFacts { have: Bitfield::full(pieces), open: Vec::new(), clean: true, ..begun.clone() };
    let other_boot = ResumeFacts { boot: [0; 16], ..begun.clone() };
    let bytes = [begun, short, whole, other_boot].map(|facts| facts.encode());
    bytes.map(|bytes| bytes[1..bytes.len() - 20].to_vec()).to_vec()
}
