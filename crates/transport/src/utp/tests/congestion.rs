//! How much of a path is used, and how readily it is left to others.

use super::link::*;
use super::*;

/// The part of a path's bytes that were payload, between two moments in seconds.
fn used(world: &mut World, from: u64, to: u64) -> f64 {
    world.connect();
    world.ends[0].to_send = u64::MAX;
    world.run(from * SECOND, |_| false);
    let before = world.ends[1].read;
    world.run(to * SECOND, |_| false);
    (world.ends[1].read - before) as f64 / (world.paths[0].rate * (to - from)) as f64
}

#[test]
fn a_free_path_is_filled() {
    // Bytes a second, delay one way in ms, after how many seconds it is full.
    let table = [
        (1_000_000, 10, 1),
        (2_000_000, 50, 2),
        (125_000_000, 1, 1),
        (20_000_000, 40, 3),
        (10_000_000, 150, 6),
    ];
    for (rate, delay, full_after) in table {
        let path = Path { rate, delay: delay * MILLI, queue: rate, ..Path::default() };
        let mut world = World::new(path, 1);
        let used = used(&mut world, full_after, full_after + 8);
        assert!(used > 0.9, "{rate} {delay}: {used} {:?}", world.ends[0].facts());
        let waiting = world.ends[0].facts().queuing_delay;
        assert!(waiting < Duration::from_millis(130), "{rate} {delay}: {waiting:?}");
        assert_eq!(world.ends[0].utp.counters().timeouts, 0, "{:#?}", said(&world));
    }
}

/// What an ideal LEDBAT carries under random loss, in bytes a second. It knows at once what arrived and what was lost,
/// waits for no timer and repeats nothing: in each time there and back it sends its window, grows by the 3000 bytes of
/// BEP 29 while nothing waits, by nothing above what the path holds, and halves if anything was lost. Averaged over
/// many rounds of the same chance.
fn ideal(path: &Path, seed: u64) -> f64 {
    const PAYLOAD: f64 = 1452.0;
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let rtt = 2.0 * path.delay as f64 / SECOND as f64;
    let holds = path.rate as f64 * rtt;
    let (mut window, mut carried, rounds) = (14_600.0_f64, 0.0, 100_000);
    for _ in 0..rounds {
        let packets = (window / PAYLOAD) as u32;
        let lost = (0..packets).filter(|_| rng.next_u32() % 1000 < path.lost).count();
        carried += window - lost as f64 * PAYLOAD;
        window = if lost > 0 { window / 2.0 } else { (window + 3000.0).min(holds) }.max(2.0 * PAYLOAD);
    }
    carried / (f64::from(rounds) * rtt)
}

/// 1 % loss at 100 ms there and back, on a path of 4 MB/s: at least 70 % of what the ideal carries.
#[test]
fn random_loss_is_borne() {
    for seed in 1..6 {
        let path = Path { rate: 4_000_000, delay: 50 * MILLI, lost: 10, queue: 1_000_000, ..Path::default() };
        let ideal = ideal(&path, seed);
        // Acknowledgements are lost as well.
        let mut world = World::new(path, seed);
        let carried = used(&mut world, 5, 125) * world.paths[0].rate as f64;
        assert!(carried >= 0.7 * ideal, "{carried} of {ideal}: {:#?}", said(&world));
    }
}

/// The part of a path that TCP has beside uTP, between the 200th and the 300th second: TCP itself takes minutes to fill a
/// long path after its first losses, by a packet each time there and back.
fn left_to_tcp(settings: Settings, path: Path, tcp_first: bool) -> f64 {
    let mut world = World::with(settings, path, 3);
    world.ends[0].to_send = u64::MAX;
    if tcp_first {
        world.reno = Some(Reno::new());
        world.run(10 * SECOND, |_| false);
    }
    world.connect();
    world.run(20 * SECOND, |_| false);
    world.reno.get_or_insert_with(Reno::new);
    world.run(200 * SECOND, |_| false);
    let before = world.reno.as_ref().expect("is there").delivered;
    world.run(300 * SECOND, |_| false);
    let tcp = (world.reno.as_ref().expect("is there").delivered - before) * 1500;
    tcp as f64 / (world.paths[0].rate * 100) as f64
}

/// TCP keeps at least 80 % of the path, whether it comes later or was there before.
#[test]
fn others_go_first() {
    let table = [
        (1_250_000, 20, 300, true),
        (1_250_000, 20, 300, false),
        (1_250_000, 20, 1000, true),
        (1_250_000, 20, 1000, false),
        (5_000_000, 40, 200, true),
        (5_000_000, 40, 200, false),
        (500_000, 10, 500, true),
        (500_000, 10, 500, false),
    ];
    for (rate, delay, queue_ms, tcp_first) in table {
        let path = Path { rate, delay: delay * MILLI, queue: rate * queue_ms / 1000, ..Path::default() };
        let part = left_to_tcp(Settings::default(), path, tcp_first);
        assert!(part >= 0.8, "{rate} {queue_ms} {tcp_first}: {part}");
    }
}

/// One that is told not to yield has its part, and leaves TCP the like of it.
#[test]
fn one_that_does_not_yield_shares() {
    let settings = Settings { target_delay: Duration::MAX, ..Settings::default() };
    for (rate, delay, queue_ms, tcp_first) in
        [(1_250_000, 20, 300, true), (1_250_000, 20, 300, false), (5_000_000, 40, 200, true)]
    {
        let path = Path { rate, delay: delay * MILLI, queue: rate * queue_ms / 1000, ..Path::default() };
        let part = left_to_tcp(settings, path, tcp_first);
        assert!((0.2..=0.65).contains(&part), "{rate} {queue_ms} {tcp_first}: {part}");
    }
}

/// A path that is never shared is not filled ever deeper as its best minute is forgotten.
#[test]
fn a_queue_of_ours_is_not_taken_for_the_path() {
    let mut world = World::new(Path { rate: 1_000_000, queue: 5_000_000, ..Path::default() }, 4);
    let used = used(&mut world, 10, 1200);
    assert!(used > 0.9, "{used}");
    let queue = world.paths[0].busy_until.saturating_sub(world.now) / MILLI;
    assert!(queue < 150, "{queue} ms");
}

/// A lone probe that is lost makes no window smaller.
#[test]
fn lost_probes_are_no_congestion() {
    let mut world = World::new(Path { mtu: 1000, queue: 3_000_000, ..Path::default() }, 5);
    used(&mut world, 1, 5);
    assert_eq!(world.ends[0].utp.counters().losses, 0, "{:#?}", said(&world));
}

/// A queue so short that packets never wait long: only losses tell, as where a socket's buffer is small.
#[test]
fn a_short_queue_is_used() {
    for (rate, delay_us, queue) in
        [(200_000_000, 50, 150_000), (10_000_000, 10_000, 50_000), (2_000_000, 20_000, 40_000)]
    {
        let path = Path { rate, delay: delay_us * 1000, queue, ..Path::default() };
        let mut world = World::new(path, 6);
        let used = used(&mut world, 2, 8);
        let counters = world.ends[0].utp.counters();
        assert!(used > 0.7, "{rate} {queue}: {used} {counters:?}");
        assert!(counters.again_out * 50 < counters.packets_out, "{rate} {queue}: {counters:?}");
    }
}
