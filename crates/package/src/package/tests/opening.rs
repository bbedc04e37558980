//! What is believed, and what is checked.

use super::*;
use crate::TroubleKind;
use crate::test_kit::trouble;

const PIECE: u32 = 2 * BLOCK_LEN;
/// Three files of 2.5, 3 and 2.5 pieces; pieces 2 and 5 lie in two of them.
const ENTRIES: [(u64, &str); 3] = [(81_920, ""), (98_304, ""), (81_920, "")];

fn torrent() -> Torrent {
    Torrent::new(PIECE, &ENTRIES)
}

/// A run that fetched everything: its disk, and its facts.
fn earlier(wanted: &[bool], close: bool) -> (Disk, ResumeFacts) {
    let mut world = World::new(torrent(), wanted.into());
    world.open();
    world.fetch_all();
    if close {
        world.close();
    } else {
        world.package.ask_facts(world.now, &mut world.sent);
    }
    world.run_all();
    let facts = world.facts();
    world.disk.hashed = 0;
    (world.disk, facts)
}

fn open(disk: Disk, wanted: &[bool], facts: Option<ResumeFacts>, start: Start, boot: [u8; 16]) -> World {
    let mut world = World::with(torrent(), wanted.into(), disk, facts, start, boot);
    world.open();
    world
}

fn resume(disk: Disk, facts: ResumeFacts) -> World {
    open(disk, &[true; 3], Some(facts), Start::Resume, BOOT)
}

fn had(world: &World) -> Vec<u32> {
    world.package.have().iter_ones().map(|piece| piece.0).collect()
}

/// Pieces that were read.
fn read(world: &World) -> u64 {
    world.disk.hashed / u64::from(PIECE)
}

#[test]
fn nothing_there_is_nothing_to_check() {
    let world = World::ready(PIECE, &ENTRIES);
    assert_eq!((had(&world), read(&world)), (vec![], 0));
}

#[test]
fn unchanged_files_are_believed() {
    for close in [true, false] {
        let (disk, facts) = earlier(&[true; 3], close);
        assert_eq!(facts.clean, close);
        let mut world = resume(disk, facts);
        assert!(world.package.is_complete());
        assert_eq!(read(&world), 0);
        world.have_is_true();
        world.package.ask_facts(world.now, &mut world.sent);
        world.run_all();
        assert!(world.facts().have.all());
    }
}

#[test]
fn a_changed_file_is_checked_whole() {
    let (mut disk, facts) = earlier(&[true; 3], true);
    disk.touch(file(1), |bytes| bytes[40_000] ^= 1);
    let world = resume(disk, facts);
    assert_eq!(read(&world), 4);
    assert_eq!(had(&world), [0, 1, 2, 4, 5, 6, 7]);
    world.have_is_true();
}

#[test]
fn work_after_the_facts_is_found_again() {
    let mut world = World::new(torrent(), [true; 3].into());
    world.open();
    world.package.ask_facts(world.now, &mut world.sent);
    world.run_all();
    let facts = world.facts();
    assert!(facts.have.none());
    world.fetch_all();
    let World { mut disk, .. } = world;
    disk.hashed = 0;
    let world = resume(disk, facts);
    assert!(world.package.is_complete());
    assert_eq!(read(&world), 8);
}

#[test]
fn pieces_of_a_missing_file_are_not_had_and_not_checked() {
    let (mut disk, facts) = earlier(&[true; 3], true);
    disk.files.remove(&file(1));
    let world = resume(disk, facts);
    assert_eq!((had(&world), read(&world)), (vec![0, 1, 6, 7], 0));
}

#[test]
fn a_short_file_is_checked_as_far_as_it_goes() {
    let (mut disk, facts) = earlier(&[true; 3], true);
    disk.touch(file(2), |bytes| bytes.truncate(BLOCK_LEN as usize + PIECE as usize));
    let world = resume(disk, facts);
    assert_eq!((had(&world), read(&world)), (vec![0, 1, 2, 3, 4, 5, 6], 2));
}

#[test]
fn after_power_loss_what_was_claimed_is_checked() {
    let (mut disk, mut facts) = earlier(&[true; 3], false);
    facts.have.unset(PieceIndex(0));
    // Lost without a trace in the stamps.
    disk.files.get_mut(&file(2)).unwrap().bytes[70_000] = 0;
    let world = open(disk, &[true; 3], Some(facts), Start::Resume, [9; 16]);
    assert_eq!((had(&world), read(&world)), (vec![1, 2, 3, 4, 5, 6], 7));
    world.have_is_true();
}

#[test]
fn a_clean_end_is_believed_after_a_boot() {
    let (disk, facts) = earlier(&[true; 3], true);
    let world = open(disk, &[true; 3], Some(facts), Start::Resume, [9; 16]);
    assert!(world.package.is_complete());
    assert_eq!(read(&world), 0);
}

#[test]
fn without_facts_what_is_there_is_checked() {
    let (mut disk, _) = earlier(&[true; 3], true);
    disk.files.remove(&file(0));
    disk.touch(file(1), |bytes| bytes.clear());
    let world = open(disk, &[true; 3], None, Start::Resume, BOOT);
    assert_eq!((had(&world), read(&world)), (vec![6, 7], 2));
}

#[test]
fn facts_of_another_torrent_are_not_believed() {
    let (disk, facts) = earlier(&[true; 3], true);
    let mut others = facts.clone();
    others.info_hash.0[0] ^= 1;
    let world = resume(disk, others);
    assert_eq!((world.package.is_complete(), read(&world)), (true, 8));
    let mut short = facts.clone();
    short.stamps.pop();
    let mut few = facts.clone();
    few.wanted.pop();
    for odd in [short, few, ResumeFacts { have: Bitfield::full(9), ..facts }] {
        let world =
            open(Disk::new(&torrent(), &[true; 3].into()), &[true; 3], Some(odd), Start::Resume, BOOT);
        assert_eq!(had(&world), []);
    }
}

#[test]
fn a_recheck_at_the_start_believes_nothing() {
    let (mut disk, facts) = earlier(&[true; 3], true);
    disk.files.get_mut(&file(0)).unwrap().bytes[0] = 0;
    let world = open(disk, &[true; 3], Some(facts), Start::Recheck, BOOT);
    assert_eq!((had(&world), read(&world)), (vec![1, 2, 3, 4, 5, 6, 7], 8));
}

#[test]
fn trust_claims_what_has_its_length() {
    let torrent = torrent();
    let mut disk = Disk::full(&torrent, &torrent.all());
    disk.files.get_mut(&file(0)).unwrap().bytes[0] = 0;
    disk.touch(file(2), |bytes| bytes.truncate(81_919));
    let world = open(disk, &[true; 3], None, Start::Trust, BOOT);
    assert_eq!((had(&world), read(&world)), (vec![0, 1, 2, 3, 4, 5, 6], 0));
}

#[test]
fn other_wishes_are_other_places() {
    let (disk, facts) = earlier(&[true, true, false], true);
    assert!(facts.stamps[3].len.is_some(), "an edge lies in the part file");
    // The third file is wanted now: the edge that lay in the part file is not in it.
    let world = open(disk, &[true; 3], Some(facts), Start::Resume, BOOT);
    assert_eq!(had(&world), [0, 1, 2, 3, 4]);
    world.have_is_true();
    // The second one is wanted no longer: its edges are not in the part file.
    let (disk, facts) = earlier(&[true; 3], true);
    let world = open(disk, &[true, false, true], Some(facts), Start::Resume, BOOT);
    assert_eq!(had(&world), [0, 1, 6, 7]);
    world.have_is_true();
}

#[test]
fn holes_of_the_part_file_are_not_read() {
    let entries = [(100, ""), (100 * u64::from(PIECE), ""), (100, "")];
    let mut world = World::new(Torrent::new(PIECE, &entries), [true, false, true].into());
    world.open();
    world.fetch_all();
    assert_eq!(world.package.have().count(), 2);
    world.disk.hashed = 0;
    world.recheck();
    world.run_all();
    assert_eq!(world.package.have().count(), 2);
    assert!(world.disk.hashed < 3 * u64::from(PIECE));
}

#[test]
fn a_recheck_finds_what_rotted() {
    let mut world = World::ready(PIECE, &ENTRIES);
    world.fetch_all();
    world.disk.files.get_mut(&file(1)).unwrap().bytes[0] = 0;
    let at = world.at(0, 0);
    assert!(world.load(at, 1));
    world.recheck();
    assert_eq!((had(&world), world.package.state()), (vec![], PackageState::Opening));
    assert!(!world.save(at, true) && !world.load(at, 2));
    world.run(0, None);
    world.run(0, None);
    assert_eq!(world.package.state(), PackageState::Checking { done: 0, total: 8 });
    assert_eq!(world.jobs.len(), 4, "some at a time");
    world.run_all();
    assert_eq!(had(&world), [0, 1, 3, 4, 5, 6, 7]);
    assert_eq!(world.heard(|news| matches!(news, PackageNews::CheckedAll).then_some(())).len(), 1);
    world.fetch_all();
    assert!(world.package.is_complete());
}

#[test]
fn a_verdict_during_a_recheck_does_not_count() {
    let mut world = World::ready(PIECE, &ENTRIES);
    world.save_good(0, 0);
    world.save_good(0, 1);
    world.save_good(1, 1);
    world.recheck();
    world.run(0, None);
    world.run(0, None);
    assert!(world.news.is_empty() && had(&world).is_empty());
    world.run_all();
    assert_eq!(had(&world), [0], "it is found by looking");
    world.fetch_all();
    assert!(world.package.is_complete());
    world.have_is_true();
}

#[test]
fn a_block_held_before_a_recheck_is_forgotten_with_the_rest() {
    let mut world = World::ready(PIECE, &ENTRIES);
    world.save_good(0, 0);
    world.fence(Fence::Sync);
    world.save_good(0, 1);
    world.recheck();
    world.run_all();
    assert!(world.opened && world.pool.lent() == 0);
    assert_eq!(world.package.piece_facts(PieceIndex(0)).received, 0);
    let at = world.at(0, 1);
    assert!(world.save(at, true), "it is to be fetched again");
    world.fetch_all();
    assert!(world.package.is_complete());
}

#[test]
fn a_second_recheck_begins_anew() {
    let mut world = World::ready(PIECE, &ENTRIES);
    world.fetch_all();
    world.recheck();
    world.run(0, None);
    world.run(0, None);
    world.recheck();
    assert!(had(&world).is_empty());
    world.run_all();
    assert!(world.package.is_complete() && world.opened);
}

#[test]
fn facts_made_while_checking_lead_to_a_check() {
    let (disk, facts) = earlier(&[true; 3], false);
    let mut world = World::with(torrent(), [true; 3].into(), disk, Some(facts), Start::Resume, [9; 16]);
    world.package.open(&mut world.sent);
    world.look();
    (0..3).for_each(|_| world.run(0, None));
    world.close();
    world.run_all();
    let facts = world.facts();
    assert!(!facts.clean && facts.have.count() < 8);
    let World { disk, .. } = world;
    assert!(resume(disk, facts).package.is_complete(), "nothing is lost");
}

#[test]
fn a_check_that_is_refused_goes_on_later() {
    let torrent = torrent();
    let wanted = torrent.all();
    let disk = Disk::full(&torrent, &wanted);
    let mut world = World::with(torrent, wanted, disk, None, Start::Resume, BOOT);
    world.package.open(&mut world.sent);
    world.look();
    world.run(0, None);
    world.run(1, Some(trouble(TroubleKind::Permission)));
    while !world.jobs.is_empty() {
        world.run(0, None);
    }
    assert_eq!(world.package.state(), PackageState::Stopped(trouble(TroubleKind::Permission)));
    world.resume();
    world.run(0, Some(trouble(TroubleKind::Io)));
    world.run_all();
    assert_eq!(had(&world), [0, 2, 3, 4, 5, 6, 7], "what cannot be read is not had");
    assert!(world.package.is_ready());
}

/// A run that left three Blocks of two Pieces, and its facts.
fn begun() -> (Disk, ResumeFacts) {
    let mut world = World::new(torrent(), [true; 3].into());
    world.open();
    for (piece, block) in [(3, 1), (6, 0), (0, 0), (0, 1)] {
        let at = world.at(piece, block);
        world.save(at, true);
    }
    world.package.tick(world.now, true, &mut world.sent);
    world.run_all();
    world.package.ask_facts(world.now, &mut world.sent);
    world.run_all();
    let facts = world.facts();
    assert_eq!(facts.open.len(), 2);
    (world.disk, facts)
}

fn written(world: &World) -> Vec<BlockRef> {
    world.package.written_blocks().collect()
}

#[test]
fn begun_pieces_are_gone_on_with() {
    let (disk, facts) = begun();
    let mut world = resume(disk, ResumeFacts::decode(&facts.encode()).unwrap());
    assert_eq!(had(&world), [0]);
    let found = [world.at(3, 1), world.at(6, 0)];
    assert_eq!(written(&world), found);
    world.received.extend(&found);
    for (piece, block) in [(3, 0), (6, 1)] {
        let at = world.at(piece, block);
        assert!(world.save(at, true));
    }
    world.run_all();
    assert_eq!(had(&world), [0, 3, 6]);
    world.have_is_true();
}

#[test]
fn begun_pieces_are_not_believed_after_a_crash_of_the_machine_or_in_other_places() {
    let (disk, facts) = begun();
    let world = open(disk, &[true; 3], Some(facts.clone()), Start::Resume, [9; 16]);
    assert_eq!(written(&world), []);
    let (disk, _) = begun();
    let world = open(disk, &[true, true, false], Some(facts.clone()), Start::Resume, BOOT);
    assert_eq!(written(&world), []);
    let (mut disk, _) = begun();
    disk.touch(file(2), |bytes| bytes.truncate(10));
    assert_eq!(written(&resume(disk, facts)).len(), 1);
}

#[test]
fn a_begun_piece_that_was_spoiled_meanwhile_is_fetched_again() {
    let (mut disk, facts) = begun();
    disk.touch(file(1), |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
    let mut world = resume(disk, facts);
    let found = written(&world);
    assert!(found.contains(&world.at(3, 1)));
    world.received.extend(&found);
    world.poisoned.extend(&found);
    let at = world.at(3, 0);
    world.save(at, true);
    world.run_all();
    assert!(!world.package.have().get(PieceIndex(3)));
    assert!(world.package.written_blocks().all(|at| at.piece != PieceIndex(3)));
}
