use super::*;
use crate::torrent::Shape;
use crate::world::World;

/// A fetcher calls a peer of this kind, and time passes.
fn meet(seed: u64, manner: Manner, seconds: u64) -> (World, HostId, HostId) {
    let mut world = World::new(seed, false);
    let torrent = world.torrent(&Shape::plain(300_000, 32 << 10));
    let fetcher = world.peer(Manner::Fetcher, torrent);
    let other = world.peer(manner, torrent);
    let to = world.addr(other);
    world.call(fetcher, to);
    world.run_for(seconds).unwrap();
    (world, fetcher, other)
}

#[test]
fn an_honest_peer_gives_all() {
    for seed in 0..50 {
        let (world, fetcher, other) = meet(seed, Manner::Honest, 60);
        assert_eq!(world.scripted(fetcher).received, 19, "seed {seed}");
        assert_eq!((world.scripted(other).served, world.scripted(other).lies), (19, 0));
    }
}

#[test]
fn a_liar_lies_and_a_mute_is_mute() {
    let (world, fetcher, other) = meet(1, Manner::Liar(100), 60);
    assert_eq!((world.scripted(fetcher).received, world.scripted(other).lies), (19, 19));
    let (world, fetcher, _) = meet(1, Manner::Mute, 60);
    assert_eq!((world.scripted(fetcher).received, world.scripted(fetcher).conns()), (0, 1));
}

#[test]
fn nonsense_is_heard_as_such() {
    let (world, fetcher, other) = meet(1, Manner::Garbage, 60);
    assert_eq!((world.scripted(fetcher).conns(), world.scripted(other).conns()), (0, 0));
}

#[test]
fn a_slowloris_takes_its_time() {
    let (mut world, fetcher, _) = meet(3, Manner::Slowloris, 60);
    assert_eq!(world.scripted(fetcher).received, 0);
    world.run_for(9 * 70).unwrap();
    assert_eq!(world.scripted(fetcher).conns(), 1);
}

#[test]
fn who_calls_nobody_is_refused() {
    let mut world = World::new(1, false);
    let torrent = world.torrent(&Shape::plain(300_000, 32 << 10));
    let fetcher = world.peer(Manner::Fetcher, torrent);
    world.call(fetcher, "10.9.9.9:1".parse().unwrap());
    assert_eq!(world.scripted(fetcher).conns(), 1);
    world.run_for(1).unwrap();
    assert_eq!(world.scripted(fetcher).conns(), 0);
}

#[test]
fn one_seed_is_one_trace() {
    let words = |seed| {
        let (world, fetcher, _) = meet(seed, Manner::Honest, 60);
        (world.events(), world.scripted(fetcher).received)
    };
    assert_eq!(words(7), words(7));
    assert_ne!(words(7), words(8));
}
