//! What is done alone.

use super::*;

const PIECE: u32 = 4 * BLOCK_LEN;

fn world() -> World {
    World::ready(PIECE, &[(4 * u64::from(PIECE), "")])
}

fn fenced(world: &mut World) -> Vec<Fence> {
    world.heard(|news| match news {
        PackageNews::Fenced(fence, Ok(())) => Some(fence.clone()),
        _ => None,
    })
}

#[test]
fn blocks_that_wait_leave_before_it_and_later_ones_after_it() {
    let mut world = world();
    world.save_good(0, 0);
    world.save_good(0, 1);
    world.save_good(1, 2);
    world.fence(Fence::Sync);
    assert_eq!(world.saves(), [(1, true), (1, false)], "the gap is not waited for");
    world.save_good(2, 0);
    world.run(0, None);
    assert_eq!(world.saves(), [(1, false), (1, true)]);
    world.run(0, None);
    world.run(0, None);
    assert!(matches!(world.jobs[..], [Job::Fence(Fence::Sync)]));
    world.save_good(2, 1);
    world.run(0, None);
    assert_eq!(fenced(&mut world), [Fence::Sync]);
    assert_eq!(world.saves(), [(1, true)], "what was held goes on in order");
    world.fetch_all();
    assert!(world.package.is_complete());
}

#[test]
fn what_is_held_is_answered() {
    let mut world = world();
    (0..4).for_each(|block| world.save_good(0, block));
    world.run_all();
    world.save_good(1, 0);
    world.fence(Fence::Sync);
    let at = world.at(0, 1);
    assert!(world.load(at, 7) && world.package.warm(at, 8, &mut world.sent));
    let twice = world.at(1, 1);
    assert!(world.save(twice, true) && !world.save(twice, true), "held");
    assert_eq!(world.jobs.len(), 1);
    world.run_all();
    assert!(world.asked.is_empty());
    assert_eq!(world.pool.lent(), 0);
}

#[test]
fn equal_ones_that_wait_are_one() {
    let mut world = world();
    world.save_good(0, 0);
    for _ in 0..3 {
        world.fence(Fence::Sync);
        world.package.ask_facts(world.now, &mut world.sent);
    }
    world.run_all();
    assert_eq!(fenced(&mut world), [Fence::Sync]);
    world.facts();
    assert!(world.heard(|news| matches!(news, PackageNews::Facts(_)).then_some(())).is_empty());
}

#[test]
fn facts_do_not_disturb_gaps() {
    let mut world = world();
    world.save_good(0, 1);
    world.save_good(1, 0);
    world.package.ask_facts(world.now, &mut world.sent);
    world.look();
    assert_eq!(world.saves(), [(1, true)]);
    world.save_good(0, 0);
    world.run_all();
    assert_eq!(world.disk.hashed, 0);
    let facts = world.facts();
    assert!(!facts.clean && facts.have.none() && facts.boot == BOOT);
    world.fetch_all();
}

#[test]
fn close_finishes_full_pieces_and_gives_back_the_rest() {
    let mut world = world();
    (0..4).for_each(|block| world.save_good(0, block));
    world.save_good(1, 0);
    world.save_good(1, 1);
    world.save_good(2, 3);
    world.close();
    let at = world.at(3, 0);
    assert!(!world.save(at, true), "nothing is taken any more");
    world.run_all();
    assert_eq!(world.package.state(), PackageState::Closed);
    assert_eq!(world.pool.lent(), 0);
    assert_eq!(fenced(&mut world), [Fence::Sync, Fence::Close]);
    let facts = world.facts();
    assert!(facts.clean && facts.have.iter_ones().map(|piece| piece.0).eq([0]));
    assert!(!world.load(BlockRef { piece: PieceIndex(0), ..at }, 1));
}

#[test]
fn facts_of_a_close_that_could_not_sync_are_not_clean() {
    let mut world = world();
    world.fetch_all();
    world.close();
    // Should the flush take longer than there is time, these are good enough until the machine crashes.
    world.run(0, None);
    let before = world.facts();
    assert!(!before.clean && before.have.all() && before.stamps[0].len.is_some());
    world.run(0, Some(crate::test_kit::trouble(crate::TroubleKind::Io)));
    world.run_all();
    assert_eq!(world.package.state(), PackageState::Closed);
    let facts = world.facts();
    assert!(!facts.clean && facts.have.all());
}

#[test]
fn delete_waits_only_for_what_is_out() {
    let mut world = world();
    world.save_good(0, 0);
    world.save_good(0, 1);
    world.save_good(1, 1);
    world.fence(Fence::Sync);
    world.save_good(2, 1);
    world.package.delete(world.now, &mut world.pool, &mut world.sent);
    world.look();
    world.run(0, None);
    world.run(0, None);
    assert!(matches!(world.jobs[..], [Job::Fence(Fence::Delete)]));
    world.run_all();
    assert_eq!(world.package.state(), PackageState::Closed);
    assert_eq!(world.pool.lent(), 0);
    assert_eq!(fenced(&mut world), [Fence::Delete]);
}

#[test]
fn a_bare_close_writes_what_waits() {
    let mut world = world();
    world.save_good(0, 2);
    world.fence(Fence::Close);
    assert_eq!(world.saves(), [(1, false)]);
    world.run_all();
    assert_eq!(world.package.state(), PackageState::Closed);
    assert_eq!(world.pool.lent(), 0);
}

#[test]
fn closing_an_unopened_one_keeps_its_facts() {
    let torrent = Torrent::new(PIECE, &[(4 * u64::from(PIECE), "")]);
    let mut before = World::ready(PIECE, &[(4 * u64::from(PIECE), "")]);
    before.fetch_all();
    before.close();
    before.run_all();
    let facts = before.facts();
    let wanted = torrent.all();
    let disk = Disk::full(&torrent, &wanted);
    let mut world = World::with(torrent, wanted, disk, Some(facts.clone()), Start::Resume, [2; 16]);
    world.close();
    world.run_all();
    assert_eq!(world.facts(), facts);
}
