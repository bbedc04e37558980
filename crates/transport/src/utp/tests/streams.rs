//! Over whatever path, the stream arrives as it was written.

use super::link::*;
use super::*;
use proptest::prelude::*;

/// Both ways at once, closed by both; everything must have arrived.
fn swap(mut world: World, bytes: [u64; 2], until: u64) -> World {
    world.connect();
    let world = all_arrives(world, bytes, until);
    assert!(world.ends.iter().all(|end| end.closed == Some(Why::Done)), "{:#?}", said(&world));
    world
}

fn all_arrives(mut world: World, bytes: [u64; 2], until: u64) -> World {
    for (end, bytes) in world.ends.iter_mut().zip(bytes) {
        (end.to_send, end.close_when_sent) = (bytes, true);
    }
    let done = world.run(until, |world| world.ends.iter().all(|end| end.closed.is_some()));
    let read = [world.ends[0].read, world.ends[1].read];
    assert!(done, "not done at {} ms: read {read:?}, {:#?}", world.now / MILLI, said(&world));
    assert_eq!(read, [bytes[1], bytes[0]], "at {} ms: {:#?}", world.now / MILLI, said(&world));
    world
}

#[test]
fn a_clean_path() {
    let path = Path { queue: 2_000_000, ..Path::default() };
    let world = swap(World::new(path, 1), [5_000_000, 300_000], 60 * SECOND);
    let counters = world.ends[0].utp.counters();
    assert_eq!((counters.again_out, counters.timeouts, counters.disbelieved), (0, 0, 0), "{counters:?}");
}

#[test]
fn lossy_paths() {
    for (seed, lost) in [(1, 10), (2, 10), (3, 50), (4, 50), (5, 200), (6, 200)] {
        let path = Path { lost, ..Path::default() };
        swap(World::new(path, seed), [400_000, 100_000], 1200 * SECOND);
    }
}

#[test]
fn paths_with_every_fault() {
    for seed in 10..26 {
        let path = Path {
            lost: [0, 10, 50, 200][seed as usize % 4],
            doubled: 50,
            late: 100,
            jitter: 40 * MILLI,
            delay: if seed % 3 == 0 { 150 * MILLI } else { 5 * MILLI },
            rate: if seed % 2 == 0 { 300_000 } else { 20_000_000 },
            queue: if seed % 5 == 0 { 20_000 } else { 300_000 },
            ..Path::default()
        };
        swap(World::new(path, seed), [300_000, 200_000], 2000 * SECOND);
    }
}

#[test]
fn a_long_way() {
    for (seed, lost) in [(30, 0), (31, 10), (32, 50)] {
        let path = Path { delay: 150 * MILLI, queue: 1_000_000, lost, ..Path::default() };
        swap(World::new(path, seed), [2_000_000, 10_000], 600 * SECOND);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any path that lets something through.
    #[test]
    fn any_path(
        seed: u64,
        (lost, doubled, late) in (0u32..250, 0u32..300, 0u32..300),
        (rate, queue) in (50_000u64..20_000_000, 3_000u64..2_000_000),
        (delay, jitter) in (0u64..200, 0u64..100),
        mtu in 548usize..1480,
        reader in prop::option::of((200usize..5_000, 1u64..50)),
        bytes in (0u64..150_000, 0u64..150_000),
    ) {
        let path = Path {
            lost, doubled, late, rate, queue, delay: delay * MILLI, jitter: jitter * MILLI, mtu, ..Path::default()
        };
        let mut world = World::new(path, seed);
        world.ends[1].reader = reader.map(|(bytes, every)| (bytes, every * MILLI));
        // Where a quarter is lost it is no fault that there is no connection, nor that one end does not hear that its
        // last packet arrived.
        world.connect();
        if world.run(30 * SECOND, |world| world.ends.iter().all(|end| end.id.is_some())) {
            all_arrives(world, [bytes.0, bytes.1], 7200 * SECOND);
        }
    }
}

/// More packets than there are numbers.
#[test]
fn numbers_wrap() {
    let settings = Settings { most_packet_bytes_v4: 548, ..Settings::default() };
    let path =
        Path { rate: 50_000_000, delay: 5 * MILLI, queue: 2_000_000, lost: 1, late: 2, ..Path::default() };
    let world = swap(World::with(settings, path, 40), [40_000_000, 0], 300 * SECOND);
    assert!(world.ends[0].packets > 70_000);
}

/// Both ends begin to count just before numbers wrap.
#[test]
fn numbers_wrap_among_the_first() {
    for (seed, first) in (41..).zip([u16::MAX, u16::MAX - 1, u16::MAX - 40, u16::MAX - 500]) {
        let settings = Settings { first_number: Some(first), ..Settings::default() };
        let path = Path { lost: 50, doubled: 50, late: 100, ..Path::default() };
        swap(World::with(settings, path, seed), [400_000, 100_000], 600 * SECOND);
    }
}

#[test]
fn a_slow_reader_closes_the_window() {
    for (seed, lost) in [(50, 0), (51, 50)] {
        let settings = Settings {
            receive_window_bytes: 20_000,
            most_receive_window_bytes: 20_000,
            ..Settings::default()
        };
        let mut world = World::with(settings, Path { lost, ..Path::default() }, seed);
        // 700 bytes each 50 ms; and once, for a while, nothing at all.
        world.ends[1].reader = Some((700, 50 * MILLI));
        let world = swap(world, [200_000, 0], 300 * SECOND);
        assert!(world.ends[1].utp.counters().no_room < 20, "{:#?}", said(&world));
    }
}

/// A reader that sleeps for ten minutes is waited for: its stack answers.
#[test]
fn a_sleeping_reader_is_waited_for() {
    let settings =
        Settings { receive_window_bytes: 20_000, most_receive_window_bytes: 20_000, ..Settings::default() };
    let mut world = World::with(settings, Path::default(), 52);
    world.ends[1].reader = Some((1 << 20, 600 * SECOND));
    let world = swap(world, [50_000, 0], 3600 * SECOND);
    assert!(world.now > 1200 * SECOND);
}

/// Each size of a path is found out, and the stream is whole meanwhile. Nothing needs to be fragmented.
#[test]
fn narrow_paths() {
    for (seed, mtu) in [(60, 548), (61, 1252), (62, 1400), (63, 1471), (64, 1472)] {
        let path = Path { mtu, queue: 2_000_000, ..Path::default() };
        let world = swap(World::new(path, seed), [3_000_000, 3_000_000], 100 * SECOND);
        for end in &world.ends {
            let counters = end.utp.counters();
            assert_eq!(
                (end.fragmented, counters.losses, counters.timeouts),
                (0, 0, 0),
                "{mtu}: {counters:?}"
            );
        }
    }
}

/// The path becomes narrow while all is on its way: what is too large already goes in fragments, what follows does not.
#[test]
fn a_path_becomes_narrow() {
    for (seed, mtu, lost) in [(70, 1252, 0), (71, 548, 0), (72, 1252, 10)] {
        let mut world = World::new(Path { queue: 2_000_000, lost, ..Path::default() }, seed);
        world.connect();
        world.ends[0].to_send = 20_000_000;
        assert!(!world.run(800 * MILLI, |world| world.ends[1].read == 20_000_000));
        assert_eq!(world.ends[0].facts().packet_bytes, 1472);
        world.paths[0].mtu = mtu;
        assert!(world.run(100 * SECOND, |world| world.ends[1].read == 20_000_000), "{:#?}", said(&world));
        let size = world.ends[0].facts().packet_bytes;
        assert!(size <= mtu && size + 16 > mtu, "{size} for {mtu}");
        assert!(world.ends[0].fragmented < 3000, "{}", world.ends[0].fragmented);
    }
}

/// Clocks that begin anywhere and run at other speeds. A ten-thousandth is more than real ones are off.
#[test]
fn clocks_of_their_own() {
    for (seed, fast, ahead) in
        [(80, 100, 0), (81, -100, 4_294_000 * MILLI), (82, 1000, 7), (83, -1000, 3 * SECOND)]
    {
        let mut world = World::new(Path { rate: 2_000_000, ..Path::default() }, seed);
        world.ends[1].clock = Clock { fast, ahead };
        world.connect();
        world.ends[0].to_send = u64::MAX;
        world.run(240 * SECOND, |_| false);
        // Of 480 MB.
        assert!(
            world.ends[1].read > 380_000_000,
            "{fast}: {} {:?}",
            world.ends[1].read,
            world.ends[0].facts()
        );
    }
}

/// The way becomes long within a packet, as it does where a queue fills at once: nothing comes back in time, and nothing
/// is lost. Hardly anything is sent twice for that, and soon it is known how long the way is. (By default a long way looks
/// like a queue, to which streams give way.)
#[test]
fn what_is_late_is_not_sent_again() {
    let target_delay = Duration::from_secs(60);
    let settings = Settings { target_delay, send_buffer_bytes: 200_000, ..Settings::default() };
    for (seed, later) in (86..).zip([500, 900, 3000]) {
        let mut world = World::with(settings, Path::default(), seed);
        world.connect();
        world.ends[0].to_send = 10_000_000;
        assert!(!world.run(SECOND, |world| world.ends[1].read == 10_000_000));
        world.paths[0].delay += later * MILLI;
        assert!(world.run(200 * SECOND, |world| world.ends[1].read == 10_000_000), "{:#?}", said(&world));
        let counters = world.ends[0].utp.counters();
        assert!((1..5).contains(&counters.timeouts) && counters.again_out < 20, "{later}: {counters:?}");
    }
}

#[test]
fn both_ask_at_once() {
    for seed in 90..99 {
        let mut world = World::new(Path::default(), seed);
        let (to_a, to_b) = (world.ends[0].addr, world.ends[1].addr);
        let a = world.ends[0].utp.connect(to_b).expect("there is room");
        let b = world.ends[1].utp.connect(to_a).expect("there is room");
        world.run(SECOND, |_| false);
        for (end, own) in world.ends.iter().zip([a, b]) {
            assert!(end.events.contains(&Event::Connected { id: own }));
            assert!(end.events.iter().any(|event| matches!(event, Event::Accepted { id, .. } if *id != own)));
            assert_eq!(end.utp.conns(), 2);
        }
    }
}

/// Idle for an hour: a packet each half minute, and nothing is lost by it.
#[test]
fn an_idle_connection_is_kept_alive() {
    let mut world = World::new(Path::default(), 100);
    world.connect();
    world.run(SECOND, |_| false);
    let before = world.ends[0].packets;
    world.run(3600 * SECOND, |_| false);
    let sent = world.ends[0].packets - before;
    assert!((100..=130).contains(&sent), "{sent}");
    world.ends[0].to_send = 1000;
    world.ends[0].use_it(world.now, &pattern());
    assert!(world.run(3602 * SECOND, |world| world.ends[1].read == 1000));
}

#[test]
fn nobody_is_there() {
    let mut world = World::new(Path { lost: 1000, ..Path::default() }, 101);
    world.connect();
    assert!(world.run(60 * SECOND, |world| world.ends[0].closed.is_some()));
    assert_eq!((world.ends[0].closed, world.ends[0].packets), (Some(Why::NoAnswer), 3));
    assert_eq!(world.now / MILLI, 21_000);
    assert_eq!((world.ends[0].utp.conns(), world.ends[0].utp.next_due()), (0, Time::NEVER));
}

#[test]
fn a_peer_that_vanishes_is_given_up() {
    let mut world = World::new(Path::default(), 102);
    world.connect();
    world.ends[0].to_send = 50_000_000;
    world.run(SECOND, |_| false);
    world.paths[0].lost = 1000;
    assert!(world.run(200 * SECOND, |world| world.ends[0].closed.is_some()));
    assert_eq!(world.ends[0].closed, Some(Why::Silent));
    assert!(world.now > 30 * SECOND, "{}", world.now / MILLI);
}

/// A reset tells the other end, which still has not read everything.
#[test]
fn resets_tell_the_other_end() {
    let mut world = World::new(Path::default(), 103);
    world.connect();
    world.ends[0].to_send = 50_000_000;
    world.run(SECOND, |_| false);
    let id = world.ends[1].id.expect("accepted");
    world.ends[1].utp.reset(Time::from_nanos(world.now), id);
    assert_eq!(world.ends[1].utp.readable(id), b"");
    assert_eq!(world.ends[1].utp.write(Time::from_nanos(world.now), id, b"x"), 0);
    world.run(2 * SECOND, |world| world.ends[0].closed.is_some());
    assert_eq!(world.ends[0].closed, Some(Why::Reset));
    assert_eq!([world.ends[0].utp.conns(), world.ends[1].utp.conns()], [0, 0]);
}

/// The first stack was restarted and knows nothing: the second hears so.
#[test]
fn a_restarted_peer_says_so() {
    let mut world = World::new(Path::default(), 104);
    world.connect();
    world.ends[0].to_send = 50_000_000;
    world.run(SECOND, |_| false);
    world.ends[1].utp = Utp::new(Settings::default(), [77; 32]);
    world.ends[1].id = None;
    assert!(world.run(3 * SECOND, |world| world.ends[0].closed.is_some()));
    assert_eq!(world.ends[0].closed, Some(Why::Reset));
}

/// What the first end wrote before it closed is read in full, though the second reads slowly and never closes.
#[test]
fn a_close_delivers_what_was_written() {
    let mut world = World::new(Path::default(), 105);
    world.ends[1].reader = Some((10_000, 100 * MILLI));
    world.connect();
    world.ends[0].to_send = 300_000;
    world.run(60 * SECOND, |world| world.ends[0].sent == 300_000);
    let id = world.ends[0].id.expect("connected");
    world.ends[0].utp.close(Time::from_nanos(world.now), id);
    assert!(world.run(60 * SECOND, |world| world.ends[0].closed.is_some()));
    assert_eq!(world.ends[0].closed, Some(Why::Done));
    assert!(world.run(60 * SECOND, |world| world.ends[1].read == 300_000));
    assert!(world.ends[1].ended);
}
