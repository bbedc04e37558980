//! When the disk refuses.

use super::*;
use crate::TroubleKind;
use crate::test_kit::trouble;

const PIECE: u32 = 4 * BLOCK_LEN;

fn world() -> World {
    World::ready(PIECE, &[(4 * u64::from(PIECE), "")])
}

fn lost(world: &mut World) -> Vec<(u32, u32)> {
    world.heard(|news| match news {
        PackageNews::Lost(at) => Some((at.piece.0, at.begin / BLOCK_LEN)),
        _ => None,
    })
}

fn count(world: &mut World, which: impl Fn(&PackageNews) -> bool) -> usize {
    world.heard(|news| which(news).then_some(())).len()
}

#[test]
fn a_full_disk_stops_writing_and_loses_no_more_than_it_did_not_write() {
    let mut world = world();
    (0..4).for_each(|block| world.save_good(3, block));
    world.run_all();
    world.save_good(0, 0);
    world.run_all();
    world.save_good(0, 1);
    world.save_good(0, 2);
    world.save_good(1, 2);
    world.run(0, Some(trouble(TroubleKind::NoSpace)));
    assert_eq!(world.package.state(), PackageState::Stopped(trouble(TroubleKind::NoSpace)));
    assert_eq!(lost(&mut world), [(0, 1), (0, 2), (1, 2)]);
    assert_eq!(world.pool.lent(), 0, "the pool does not wait for the disk");
    let at = world.at(0, 1);
    assert!(!world.save(at, true));
    assert!(world.load(BlockRef { piece: PieceIndex(3), ..at }, 1), "what is had is given");
    world.run_all();
    assert_eq!(count(&mut world, |news| matches!(news, PackageNews::Trouble(_))), 1);

    world.resume();
    assert!(world.package.is_ready());
    world.save_good(0, 1);
    world.run(0, Some(trouble(TroubleKind::NoSpace)));
    assert_eq!(count(&mut world, |news| matches!(news, PackageNews::Trouble(_))), 1, "said again");
    world.resume();
    world.fetch_all();
    assert_eq!(count(&mut world, |news| matches!(news, PackageNews::Recovered)), 1);
    assert!(world.package.is_complete());
    world.have_is_true();
}

#[test]
fn trouble_of_many_is_told_once() {
    let mut world = world();
    (0..3).for_each(|piece| world.save_good(piece, 0));
    (0..3).for_each(|_| world.run(0, Some(trouble(TroubleKind::Io))));
    assert_eq!(count(&mut world, |news| matches!(news, PackageNews::Trouble(_))), 1);
    assert_eq!(lost(&mut world).len(), 3);
}

#[test]
fn what_cannot_be_read_back_is_fetched_again() {
    let mut world = world();
    world.save_good(0, 1);
    world.tick(GAP_WAIT, false);
    world.run_all();
    [0, 2, 3].iter().for_each(|block| world.save_good(0, *block));
    world.run(0, None);
    assert!(matches!(world.jobs[..], [Job::Hash(_)]), "caught up");
    world.run(0, Some(trouble(TroubleKind::Io)));
    assert_eq!(world.package.piece_facts(PieceIndex(0)).received, 0);
    let mut blocks = lost(&mut world);
    blocks.sort();
    assert_eq!(blocks, [(0, 0), (0, 1), (0, 2), (0, 3)]);
    world.resume();
    world.fetch_all();
    assert!(world.package.is_complete());
}

#[test]
fn what_cannot_be_loaded_is_not_had() {
    let mut world = world();
    world.fetch_all();
    world.disk.touch(file(0), |bytes| bytes.truncate(2 * PIECE as usize + 5));
    for piece in 1..4 {
        let at = world.at(piece, 0);
        assert!(world.load(at, u64::from(piece)));
    }
    world.run_all();
    let gone = world.heard(|news| match news {
        PackageNews::Unhave(piece) => Some(piece.0),
        _ => None,
    });
    assert_eq!(gone, [2, 3]);
    assert!(world.package.is_ready() && !world.package.is_complete());
    assert!(world.package.unhave(PieceIndex(0)) && !world.package.unhave(PieceIndex(0)));
    world.fetch_all();
    world.have_is_true();
}

#[test]
fn a_load_that_is_not_allowed_takes_nothing_away() {
    let mut world = world();
    world.fetch_all();
    let at = world.at(0, 0);
    assert!(world.load(at, 1));
    world.run(0, Some(trouble(TroubleKind::Permission)));
    assert!(world.package.is_complete());
    assert_eq!(world.package.state(), PackageState::Stopped(trouble(TroubleKind::Permission)));
}

#[test]
fn a_failed_fence_is_tried_again() {
    let torrent = Torrent::new(PIECE, &[(5, "")]);
    let wanted = torrent.all();
    let mut world = World::new(torrent, wanted);
    world.package.open(&mut world.sent);
    world.look();
    world.run(0, None);
    assert!(matches!(world.jobs[..], [Job::Fence(Fence::Prepare { .. })]));
    world.run(0, Some(trouble(TroubleKind::Permission)));
    assert_eq!(world.package.state(), PackageState::Stopped(trouble(TroubleKind::Permission)));
    world.resume();
    world.run_all();
    assert!(world.opened && world.package.is_ready());
    assert_eq!(count(&mut world, |news| matches!(news, PackageNews::Recovered)), 1);
}

#[test]
fn each_failed_fence_is_tried_again() {
    let torrent = Torrent::new(PIECE, &[(5, "")]);
    let wanted = torrent.all();
    let mut world = World::new(torrent, wanted);
    world.package.open(&mut world.sent);
    world.look();
    world.fence(Fence::Sync);
    world.run(0, None);
    world.run(0, Some(trouble(TroubleKind::NoSpace)));
    while !world.jobs.is_empty() {
        world.run(0, Some(trouble(TroubleKind::NoSpace)));
    }
    world.resume();
    world.run_all();
    assert!(world.opened && world.package.is_ready());
    assert_eq!(count(&mut world, |news| matches!(news, PackageNews::Fenced(Fence::Sync, Ok(())))), 1);
}

#[test]
fn trouble_before_a_fence_does_not_hold_it_up() {
    let mut world = world();
    world.save_good(0, 0);
    world.save_good(0, 1);
    world.save_good(1, 1);
    world.fence(Fence::Sync);
    world.save_good(2, 0);
    world.run(0, Some(trouble(TroubleKind::NoSpace)));
    world.run_all();
    assert_eq!(count(&mut world, |news| matches!(news, PackageNews::Fenced(Fence::Sync, Ok(())))), 1);
    assert_eq!(world.pool.lent(), 0);
    assert_eq!(lost(&mut world), [(0, 0), (0, 1), (2, 0)]);
    world.resume();
    world.fetch_all();
    assert!(world.package.is_complete());
}

#[test]
fn closing_in_trouble_closes() {
    let mut world = world();
    world.save_good(0, 0);
    world.run(0, Some(trouble(TroubleKind::NoSpace)));
    world.close();
    world.run_all();
    assert_eq!(world.package.state(), PackageState::Closed);
}
