//! Putting Pieces together.

use super::*;

const PIECE: u32 = 8 * BLOCK_LEN;

fn world() -> World {
    World::ready(PIECE, &[(3 * u64::from(PIECE) + 1, "")])
}

fn done(world: &mut World) -> Vec<u32> {
    world.heard(|news| match news {
        PackageNews::PieceDone(piece) => Some(piece.0),
        _ => None,
    })
}

#[test]
fn blocks_that_come_while_one_is_written_leave_together() {
    let mut world = world();
    (0..6).for_each(|block| world.save_good(0, block));
    assert_eq!(world.saves(), [(1, true)]);
    world.run(0, None);
    assert_eq!(world.saves(), [(5, true)]);
    world.save_good(0, 7);
    world.save_good(0, 6);
    world.run_all();
    assert_eq!(done(&mut world), [0]);
    assert_eq!(world.disk.hashed, 0, "nothing needed to be read back");
    world.have_is_true();
}

#[test]
fn a_save_is_no_larger_than_a_mebibyte() {
    let mut world = World::ready(100 * BLOCK_LEN, &[(100 * u64::from(BLOCK_LEN), "")]);
    (0..100).for_each(|block| world.save_good(0, block));
    world.run(0, None);
    assert_eq!(world.saves(), [(64, true)]);
    world.run_all();
    assert_eq!(done(&mut world), [0]);
}

#[test]
fn a_gap_is_waited_for_a_while() {
    let mut world = world();
    world.save_good(0, 1);
    world.save_good(0, 2);
    assert_eq!((world.jobs.len(), world.package.next_due()), (0, Time::ZERO + GAP_WAIT));
    world.tick(GAP_WAIT - Duration::from_millis(1), false);
    assert!(world.jobs.is_empty());
    world.save_good(0, 0);
    assert_eq!(world.saves(), [(3, true)]);
    world.run_all();
    assert_eq!(world.package.next_due(), Time::NEVER);
}

#[test]
fn behind_an_old_gap_is_written_unhashed_and_read_back() {
    let mut world = world();
    world.save_good(0, 1);
    world.save_good(0, 2);
    world.save_good(0, 5);
    world.tick(GAP_WAIT, false);
    assert_eq!(world.saves(), [(2, false)]);
    world.run(0, None);
    assert_eq!(world.saves(), [], "what came last waits on");
    world.tick(GAP_WAIT, false);
    assert_eq!(world.saves(), [(1, false)]);
    world.run_all();
    for block in [0, 3, 4, 6, 7] {
        world.save_good(0, block);
        world.run_all();
    }
    assert_eq!(done(&mut world), [0]);
    assert_eq!(world.disk.hashed, 3 * u64::from(BLOCK_LEN), "only what was written unhashed is read back");
}

#[test]
fn a_thirsty_pool_does_not_wait_for_gaps() {
    let mut world = world();
    world.save_good(0, 3);
    world.save_good(1, 4);
    world.tick(Duration::ZERO, true);
    assert_eq!(world.saves(), [(1, false), (1, false)]);
    world.run_all();
    assert_eq!(world.pool.lent(), 0);
}

#[test]
fn many_blocks_do_not_wait_for_a_gap() {
    let mut world = World::ready(100 * BLOCK_LEN, &[(100 * u64::from(BLOCK_LEN), "")]);
    (1..64).for_each(|block| world.save_good(0, block));
    assert!(world.jobs.is_empty());
    world.save_good(0, 64);
    assert_eq!(world.saves(), [(64, false)]);
    world.run_all();
    (65..100).chain([0]).for_each(|block| world.save_good(0, block));
    world.run_all();
    assert_eq!(done(&mut world), [0]);
}

#[test]
fn what_is_here_is_not_needed() {
    let mut world = world();
    let (first, third) = (world.at(0, 0), world.at(0, 2));
    assert!(world.save(first, true) && !world.save(first, true), "being written");
    assert!(world.save(third, true) && !world.save(third, true), "waiting");
    world.run_all();
    assert!(!world.save(first, true), "written");
    (1..8).filter(|block| *block != 2).for_each(|block| world.save_good(0, block));
    world.run_all();
    assert!(world.package.have().get(PieceIndex(0)) && !world.save(first, true), "had");
    let facts = world.package.piece_facts(PieceIndex(0));
    assert_eq!(facts, PieceFacts { have: true, wanted: true, len: PIECE, blocks: 8, received: 8 });
}

#[test]
fn what_is_no_block_is_refused() {
    let mut world = world();
    let good = world.at(0, 0);
    for at in [
        BlockRef { begin: 1, len: 100, ..good },
        BlockRef { len: 100, ..good },
        BlockRef { begin: PIECE, ..good },
        BlockRef { begin: u32::MAX, ..good },
        BlockRef { piece: PieceIndex(4), ..good },
        BlockRef { piece: PieceIndex(3), ..good },
        BlockRef { len: 0, ..good },
    ] {
        let buf = world.buf(&[7; 100]);
        let refused = world.package.save(world.now, at, buf, &mut world.sent).unwrap_err();
        assert!(matches!(refused, Refused::NotNow(_)), "{at:?}");
        world.pool.give_back(refused.into_buf());
    }
    let buf = world.buf(&[7; 100]);
    let refused = world.package.save(world.now, good, buf, &mut world.sent).unwrap_err();
    world.pool.give_back(refused.into_buf());
    world.look();
}

#[test]
fn a_wrong_piece_is_begun_again() {
    let mut world = world();
    for block in 0..8 {
        let at = world.at(1, block);
        assert!(world.save(at, block != 3));
    }
    world.run_all();
    let bad = world.heard(|news| matches!(news, PackageNews::PieceBad(PieceIndex(1))).then_some(()));
    assert_eq!(bad.len(), 1);
    assert_eq!(world.package.piece_facts(PieceIndex(1)).received, 0);
    (0..8).for_each(|block| world.save_good(1, block));
    world.run_all();
    assert_eq!(done(&mut world), [1]);
}

#[test]
fn the_last_byte_is_a_piece() {
    let mut world = world();
    world.save_good(3, 0);
    world.run_all();
    assert_eq!(done(&mut world), [3]);
    assert_eq!(world.package.have_bytes(), 1);
    world.fetch_all();
    assert!(world.package.is_complete());
    assert_eq!(world.package.left_bytes(), 0);
}

#[test]
fn a_lying_hash_is_not_believed() {
    let mut world = world();
    (0..8).for_each(|block| world.save_good(0, block));
    // The runner forgets to feed the hash, and answers all the same.
    let Job::Save(save) = world.jobs.remove(0) else { panic!("a Save") };
    let feedless = save.hash.clone();
    let Done::Saved(save, result) = world.disk.run(Job::Save(save), None) else { panic!("of a Save") };
    world.done(Done::Saved(Save { hash: feedless, ..save }, result));
    world.run_all();
    assert_eq!(done(&mut world), [0], "read back from the start");
    world.have_is_true();
}

#[test]
fn loads_and_sends_only_what_is_had() {
    let mut world = World::ready(PIECE, &[(5, ""), (u64::from(PIECE) - 5, "p"), (100, "")]);
    let whole = BlockRef { piece: PieceIndex(1), begin: 0, len: 100 };
    assert!(!world.load(whole, 1) && !world.package.warm(whole, 1, &mut world.sent));
    assert!(!world.package.file_spans(whole, &mut Vec::new()));
    world.fetch_all();
    assert!(world.load(whole, 1));
    assert!(!world.load(BlockRef { len: 101, ..whole }, 2) && !world.load(BlockRef { len: 0, ..whole }, 2));
    let padded = BlockRef { piece: PieceIndex(0), begin: 0, len: BLOCK_LEN };
    assert!(!world.package.warm(padded, 3, &mut world.sent) && world.load(padded, 3));
    assert!(!world.load(BlockRef { len: BLOCK_LEN + 1, ..padded }, 4));
    let mut spans = Vec::new();
    assert!(!world.package.file_spans(padded, &mut spans) && spans.is_empty());
    assert!(world.package.file_spans(BlockRef { begin: 1, len: 4, ..padded }, &mut spans));
    assert_eq!(spans, [Span { place: file(0), offset: 1, len: 4 }]);
    assert!(world.package.warm(whole, 5, &mut world.sent));
    world.run_all();
    assert!(world.asked.is_empty());
    assert_eq!(
        world.heard(|news| matches!(news, PackageNews::Warmed { ticket: 5, .. }).then_some(())).len(),
        1
    );
}

#[test]
fn edges_of_unwanted_files_go_to_the_part_file() {
    let torrent = Torrent::new(PIECE, &[(1000, ""), (2 * u64::from(PIECE), ""), (1000, "")]);
    let mut world = World::new(torrent, [true, false, true].into());
    world.open();
    world.fetch_all();
    assert!(world.package.is_complete());
    assert_eq!(world.disk.files.keys().copied().collect::<Vec<_>>(), [file(0), file(2), Place::Part]);
    assert!(!world.package.wants(PieceIndex(1)) && !world.package.have().get(PieceIndex(1)));
    assert_eq!(world.package.have_bytes(), 2000);
    world.have_is_true();
}
