//! When: intervals, pauses, wishes.

use super::*;

#[test]
fn intervals_are_clamped() {
    let table: [(&[u8], u64, u64); 12] = [
        // (answer, seconds until the next announce, seconds until one may be wished for)
        (b"d8:intervali1800ee", 1_800, 60),
        (b"d8:intervali0ee", 60, 60),
        (b"d8:intervali-1ee", 60, 60),
        (b"d8:intervali-9223372036854775808ee", 60, 60),
        (b"d8:intervali59ee", 60, 60),
        (b"d8:intervali2147483648ee", 86_400, 60),
        (b"d8:intervali9223372036854775807ee", 86_400, 60),
        (b"d8:interval5:helloe", 1_800, 60),
        (b"de", 1_800, 60),
        (b"d8:intervali900e12:min intervali300ee", 900, 300),
        (b"d8:intervali900e12:min intervali2000ee", 2_000, 2_000),
        (b"d8:intervali60e12:min intervali4294967295ee", 86_400, 86_400),
    ];
    for (body, seconds, at_least) in table {
        let shown = String::from_utf8_lossy(body).into_owned();
        let mut world = World::v4(&[&[A]]);
        world.beat();
        assert_eq!(interval(world.answer(Ok(body))), u32::try_from(seconds).unwrap() * SECOND, "{shown}");
        assert_eq!(world.status(A).next, Time::ZERO + Duration::from_secs(seconds), "{shown}");
        world.pass(10 * SECOND);
        world.trackers.announce_now(world.now);
        assert_eq!(world.trackers.next_due(), Time::ZERO + Duration::from_secs(at_least), "{shown}");
    }
}

#[test]
fn pauses_grow_to_an_hour_and_one_success_forgives() {
    let mut world = World::v4(&[&[A]]);
    for base in [30, 60, 120, 240, 480, 960, 1_920, 2_880, 2_880, 2_880] {
        world.wait();
        let base = Duration::from_secs(base);
        let heard = world.answer(Err(FetchFailure::Status(503, b"<html>".into())));
        let pause = retry(heard.clone());
        assert_eq!(reason(heard), "the server answered 503");
        assert!((base..=base + base / 4).contains(&pause), "{pause:?} {base:?}");
        assert_eq!(world.trackers.next_due(), world.now + pause);
    }
    world.wait();
    world.good();
    assert_eq!(world.state(A), TrackerState::Working);
    world.wait();
    assert!(retry(world.bad()) < 38 * SECOND);
}

#[test]
fn pauses_jitter() {
    let pauses: BTreeSet<Duration> = (0..20)
        .map(|seed| {
            let mut world = World::v4(&[&[A]]);
            world.rng = ChaCha8Rng::seed_from_u64(seed);
            world.beat();
            retry(world.bad())
        })
        .collect();
    assert!(pauses.len() > 15, "{pauses:?}");
}

#[test]
fn failures_never_end_the_trying() {
    let mut world = World::v4(&[&[A]]);
    for _ in 0..1_000 {
        assert!(world.wait() <= Duration::from_secs(3_600));
        world.bad();
    }
}

#[test]
fn retry_in_is_obeyed() {
    // (answer, the retry)
    let table: [(&[u8], Duration); 6] = [
        (b"d14:failure reason4:busy8:retry ini5ee", 300 * SECOND),
        (b"d14:failure reason4:busy8:retry in1:5e", 300 * SECOND),
        (b"d14:failure reason4:busy8:retry ini0ee", 60 * SECOND),
        (b"d14:failure reason4:busy8:retry ini4294967295ee", 86_400 * SECOND),
        (b"d14:failure reason4:busy8:retry in5:nevere", Duration::MAX),
        (b"d14:failure reason0:8:retry in5:nevere", Duration::MAX),
    ];
    for (body, expected) in table {
        for status in [false, true] {
            let mut world = World::v4(&[&[A]]);
            world.beat();
            let result = if status { Err(FetchFailure::Status(403, body.to_vec())) } else { Ok(body) };
            let heard = world.answer(result);
            assert_eq!(retry(heard.clone()), expected);
            assert!(["busy", "refused without a reason"].contains(&reason(heard).as_str()));
            assert_eq!(world.state(A), TrackerState::Failing);
            let next = if expected == Duration::MAX { Time::NEVER } else { world.now + expected };
            assert_eq!((world.trackers.next_due(), world.status(A).next), (next, next));
            // The user may overrule `never`, but not a date.
            world.trackers.announce_now(world.now);
            let wished = if expected == Duration::MAX { world.now + 30 * SECOND } else { next };
            assert_eq!(world.trackers.next_due(), wished);
        }
    }
    // The next of the tier has its turn, and a new start forgives.
    let mut world = World::v4(&[&[A, B]]);
    world.beat();
    let first = world.said()[0].0;
    world.answer(Ok(b"d14:failure reason4:gone8:retry in5:nevere"));
    assert_eq!(world.wait(), Duration::ZERO);
    assert_ne!(world.said()[0].0, first);
    world.answer(Ok(b"d14:failure reason4:gone8:retry in5:nevere"));
    assert_eq!(world.trackers.next_due(), Time::NEVER);
    world.stop();
    world.start();
    world.beat();
    assert_eq!(world.said(), [(first, Family::V4, "started")]);
}

#[test]
fn a_wish_is_granted_as_soon_as_allowed() {
    let mut world = World::v4(&[&[A], &[B]]);
    world.beat();
    world.trackers.announce_now(world.now);
    world.beat();
    assert_eq!(world.out.len(), 2, "it is under way already");
    world.answer(Ok(b"d8:intervali1800e12:min intervali600ee"));
    world.bad();
    world.pass(10 * SECOND);
    for _ in 0..100 {
        world.trackers.announce_now(world.now);
    }
    assert!(world.wait() <= 20 * SECOND, "the pause of one that failed may be cut short, not left out");
    assert_eq!(world.said(), [('b', Family::V4, "started")]);
    world.good();
    world.trackers.announce_now(world.now);
    while host(&world.out.first().map_or("http://b".into(), |fetch| fetch.url.clone())) == 'b' {
        if !world.out.is_empty() {
            world.good();
        }
        world.wait();
    }
    assert_eq!(world.now, Time::ZERO + 600 * SECOND);
    // Before the start and after the end there is nothing to wish for.
    world.good();
    world.stop();
    world.trackers.announce_now(world.now);
    assert_eq!(world.trackers.next_due(), Time::NEVER);
}

#[test]
fn few_peers_are_no_reason_to_hurry() {
    let mut world = World::v4(&[&[A]]);
    world.facts.want = 200;
    world.beat();
    world.answer(Ok(b"d8:intervali1200e5:peers0:e"));
    for _ in 0..1_199 {
        world.pass(SECOND);
        world.beat();
        assert!(world.out.is_empty());
    }
    world.pass(SECOND);
    world.beat();
    assert_eq!(world.out.len(), 1);
}

#[test]
fn a_dead_tracker_costs_little() {
    let mut world = World::new(&[&[A]], true, true);
    world.start();
    let mut asked = 0;
    while world.now < Time::ZERO + Duration::from_secs(24 * 3_600) {
        world.wait();
        while !world.out.is_empty() {
            asked += 1;
            world.pass(30 * SECOND);
            world.bad();
        }
    }
    assert!((40..80).contains(&asked), "{asked} announces a day by both families");
}

#[test]
fn the_clock_may_stand_at_its_end() {
    let mut world = World::v4(&[&[A]]);
    world.now = Time::from_nanos(u64::MAX - 5);
    world.beat();
    world.good();
    world.beat();
    world.stop();
    assert_eq!(world.said().len(), 1);
}

#[test]
fn who_moved_is_announced_as_soon_as_each_tracker_allows() {
    let mut world = World::v4(&[&[A], &[B], &[C]]);
    world.beat();
    let ports =
        |world: &World| world.out.iter().map(|fetch| field(&fetch.url, "port") == Some("7000")).collect();
    // A took the old place, B is hearing of it, C fails.
    world.good();
    world.pass(SECOND);
    world.trackers.moved(world.now, 7000);
    world.good();
    let again = retry(world.bad());
    assert!(again < 60 * SECOND);
    assert_eq!(world.status(C).next, world.now + again, "who fails is not hurried");
    assert_eq!(world.status(A).next, Time::ZERO + 60 * SECOND);
    assert_eq!(world.status(B).next, Time::ZERO + 61 * SECOND);
    while world.out.len() < 3 {
        world.wait();
    }
    let news: Vec<bool> = ports(&world);
    assert_eq!(news, [true; 3]);
    // Said once: after that it is the interval again.
    world.good();
    let heard_at = world.now;
    world.good();
    world.good();
    assert_eq!(world.trackers.next_due(), heard_at + INTERVAL);
}

#[test]
fn who_moves_while_nothing_runs_says_so_at_the_next_start() {
    let mut world = World::new(&[&[A]], true, false);
    world.trackers.moved(world.now, 7000);
    assert_eq!(world.trackers.next_due(), Time::NEVER);
    world.start();
    world.beat();
    assert_eq!(field(&world.out[0].url, "port"), Some("7000"));
    // A tracker that said "never again" is not asked for that.
    world.answer(Ok(b"d14:failure reason2:no8:retry in5:nevere"));
    world.trackers.moved(world.now, 7001);
    assert_eq!(world.trackers.next_due(), Time::NEVER);
}
