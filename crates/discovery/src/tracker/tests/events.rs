//! `started`, `completed`, `stopped`, and what else an announce tells.

use super::*;
use Family::{V4, V6};

#[test]
fn an_announce_says_all_there_is_to_say() {
    let mut world = World::v4(&[&[C]]);
    (world.facts.uploaded, world.facts.downloaded, world.facts.want) = (5, 6, 9_999);
    world.beat();
    let fetch = &world.out[0];
    assert!(fetch.url.starts_with("https://c.example/tracker?passkey=1&info_hash=hhhhhhhhhhhhhhhhhhhh&"));
    let table = [
        ("peer_id", Some("pppppppppppppppppppp")),
        ("port", Some("6881")),
        ("uploaded", Some("5")),
        ("downloaded", Some("6")),
        ("left", Some("1000")),
        ("key", Some("DEADBEEF")),
        ("event", Some("started")),
        ("numwant", Some("500")),
        ("compact", Some("1")),
        ("no_peer_id", Some("1")),
        ("supportcrypto", None),
        ("trackerid", None),
        ("ip", None),
    ];
    for (name, value) in table {
        assert_eq!(field(&fetch.url, name), value, "{name}");
    }
    assert_eq!((fetch.family, fetch.timeout), (V4, 30 * SECOND));
}

#[test]
fn an_answer_tells_all_there_is_to_tell() {
    let mut world = World::v4(&[&[A]]);
    world.beat();
    let body = b"d8:completei3e11:external ip4:\x09\x08\x07\x0610:incompletei4e8:intervali900e5:peers\
        12:\x01\x02\x03\x04\x1a\xe1\x05\x06\x07\x08\x00\x0015:warning message4:hmm!e";
    let heard = world.answer(Ok(body)).unwrap();
    assert_eq!(heard.url, A);
    let outcome = Outcome::Answered {
        peers: vec!["1.2.3.4:6881".parse().unwrap()],
        interval: 900 * SECOND,
        warning: Some("hmm!".into()),
        external_ip: Some("9.8.7.6".parse().unwrap()),
    };
    assert_eq!(heard.outcome, outcome);
    let status = TrackerStatus {
        url: A.into(),
        tier: 0,
        state: TrackerState::Working,
        last_error: None,
        seeds: Some(3),
        leeches: Some(4),
        downloads: None,
        counted: Some(world.now),
        next: world.now + 900 * SECOND,
    };
    assert_eq!(world.trackers.status(), [status]);
}

#[test]
fn each_event_once_and_in_order() {
    let mut world = World::v4(&[&[A]]);
    world.beat();
    assert_eq!(world.said(), [('a', V4, "started")]);
    world.good();
    assert_eq!(world.wait(), INTERVAL);
    assert_eq!(world.said(), [('a', V4, "-")]);
    world.good();
    world.pass(SECOND);
    world.complete();
    assert_eq!(world.trackers.next_due(), world.now, "whatever the interval is");
    world.beat();
    assert_eq!(world.said(), [('a', V4, "completed")]);
    world.good();
    world.trackers.complete(world.now);
    assert_eq!(world.wait(), INTERVAL);
    assert_eq!(world.said(), [('a', V4, "-")]);
    world.good();
    world.stop();
    assert_eq!(world.said(), [('a', V4, "stopped")]);
    assert_eq!(field(&world.out[0].url, "numwant"), Some("0"));
    assert_eq!(world.out[0].timeout, 5 * SECOND);
    assert_eq!(world.trackers.next_due(), Time::NEVER);
    assert!(!world.trackers.is_quiet());
    assert_eq!(world.state(A), TrackerState::Announcing);
    assert_eq!(world.good(), None);
    assert!(world.trackers.is_quiet());
    assert_eq!(world.state(A), TrackerState::Idle);
    world.stop();
    assert_eq!(world.said(), []);
}

#[test]
fn started_until_it_is_heard() {
    let mut world = World::v4(&[&[A]]);
    for _ in 0..3 {
        world.wait();
        assert_eq!(world.said(), [('a', V4, "started")]);
        world.bad();
    }
    world.stop();
    assert_eq!(world.said(), [], "it does not know us");
    assert!(world.trackers.is_quiet());
}

#[test]
fn one_that_begins_complete_never_completes() {
    let mut world = World::v4(&[&[A]]);
    world.facts.left = 0;
    world.beat();
    world.good();
    world.complete();
    assert_eq!(world.wait(), INTERVAL);
    assert_eq!(world.said(), [('a', V4, "-")]);
}

#[test]
fn complete_while_an_announce_is_out() {
    // (`started` is out, its answer is good): what is said next.
    for (first, good, next) in
        [(true, true, "completed"), (true, false, "started"), (false, true, "completed")]
    {
        let mut world = World::v4(&[&[A]]);
        world.beat();
        if !first {
            world.good();
            world.wait();
        }
        world.complete();
        assert_eq!(world.trackers.next_due(), Time::NEVER, "one at a time");
        if good {
            world.good()
        } else {
            world.bad()
        };
        let waited = world.wait();
        assert_eq!((world.said(), waited == Duration::ZERO), (vec![('a', V4, next)], good));
        world.good();
        world.wait();
        assert_eq!(world.said(), [('a', V4, "-")], "after {first} {good}");
    }
}

#[test]
fn completed_until_it_is_answered() {
    let mut world = World::v4(&[&[A]]);
    world.beat();
    world.good();
    world.complete();
    world.beat();
    assert!((30 * SECOND..=38 * SECOND).contains(&retry(world.bad())));
    world.trackers.complete(world.now);
    world.wait();
    assert_eq!(world.said(), [('a', V4, "completed")]);
    world.good();
    world.wait();
    assert_eq!(world.said(), [('a', V4, "-")]);
}

#[test]
fn a_recheck_does_not_complete_twice() {
    let mut world = World::v4(&[&[A]]);
    world.beat();
    world.good();
    world.complete();
    world.beat();
    world.good();
    world.facts.left = 77;
    world.wait();
    assert_eq!(world.said(), [('a', V4, "-")]);
    world.good();
    world.complete();
    world.wait();
    assert_eq!(world.said(), [('a', V4, "-")]);
}

#[test]
fn a_farewell_for_those_that_may_know_us() {
    let mut world = World::new(&[&[A], &[B], &[C]], true, true);
    world.start();
    world.beat();
    assert_eq!(world.out.len(), 6);
    world.good();
    world.bad();
    world.answer(Err(FetchFailure::NoAddress));
    // A knows us by IPv4 and failed by IPv6, B has no IPv4; the other three are out.
    let out = world.out.clone();
    world.out.clear();
    world.stop();
    let stopped = "stopped";
    assert_eq!(
        world.said(),
        [('a', V4, stopped), ('b', V6, stopped), ('c', V4, stopped), ('c', V6, stopped)]
    );
    for fetch in world.out.clone() {
        assert!(!world.trackers.is_quiet());
        assert_eq!(world.trackers.on_fetched(world.now, &mut world.rng, fetch.id, Ok(GOOD)), None);
    }
    assert!(world.trackers.is_quiet(), "what was cut off is not waited for");
    for fetch in out {
        assert_eq!(world.trackers.on_fetched(world.now, &mut world.rng, fetch.id, Ok(GOOD)), None);
    }
    assert_eq!(world.trackers.next_due(), Time::NEVER);
    world.out.clear();
    world.stop();
    assert_eq!(world.said(), []);
}

#[test]
fn a_new_start_waits_for_the_farewell() {
    let mut world = World::v4(&[&[A], &[B]]);
    world.beat();
    world.good();
    world.bad();
    world.stop();
    world.start();
    world.beat();
    assert_eq!(world.said(), [('a', V4, "stopped"), ('b', V4, "started")], "b has nothing to wait for");
    world.bad();
    assert_eq!(world.trackers.next_due(), world.now);
    world.beat();
    assert_eq!(world.said(), [('b', V4, "started"), ('a', V4, "started")]);
}

#[test]
fn a_new_start_waits_for_what_was_cut_off() {
    let mut world = World::v4(&[&[A]]);
    world.beat();
    world.stop();
    world.start();
    assert_eq!(world.said(), [('a', V4, "started"), ('a', V4, "stopped")]);
    world.out.swap(0, 1);
    world.good();
    assert!(!world.trackers.is_quiet());
    world.beat();
    assert_eq!(world.said(), [('a', V4, "started")], "still the old one");
    assert_eq!(world.good(), None);
    world.beat();
    assert_eq!(world.said(), [('a', V4, "started")]);
    // And again, from the other end: stopped before anything went out.
    world.good();
    world.stop();
    world.start();
    world.stop();
    assert_eq!(world.said(), [('a', V4, "stopped")], "once");
}

#[test]
fn bytes_are_counted_from_the_start() {
    let mut world = World::v4(&[&[A]]);
    let moved = |world: &World| {
        let url = &world.out[0].url;
        [field(url, "uploaded"), field(url, "downloaded")]
            .map(|number| number.unwrap().parse::<u64>().unwrap())
    };
    (world.facts.uploaded, world.facts.downloaded) = (10, 20);
    world.beat();
    assert_eq!(moved(&world), [10, 20]);
    world.good();
    world.facts.uploaded = 100;
    world.stop();
    assert_eq!(moved(&world), [100, 20]);
    world.good();
    world.start();
    world.facts.downloaded = 25;
    world.beat();
    assert_eq!(moved(&world), [0, 5]);
    world.good();
    world.stop();
    world.good();
    // Whoever counts began anew.
    world.start();
    (world.facts.uploaded, world.facts.downloaded) = (1, 2);
    world.beat();
    assert_eq!(moved(&world), [1, 2]);
    world.good();
    world.facts.uploaded = 200;
    world.wait();
    assert_eq!(moved(&world), [200, 2]);
}

#[test]
fn a_tracker_id_is_carried_back() {
    let mut world = World::v4(&[&[A]]);
    world.beat();
    world.answer(Ok(b"d8:intervali60e10:tracker id3:a&be"));
    for body in [&b"d8:intervali60ee"[..], b"d8:intervali60e10:tracker id1:ce"] {
        world.wait();
        assert_eq!(field(&world.out[0].url, "trackerid"), Some("a%26b"));
        world.answer(Ok(body));
    }
    world.stop();
    assert_eq!(field(&world.out[0].url, "trackerid"), Some("c"));
}

#[test]
fn who_listens_nowhere_names_no_port_0() {
    let tiers = [vec![A.to_owned()]];
    let mut world = World::v4(&[&[A]]);
    let identity = Identity { port: 0, ..world.trackers.voice.identity().clone() };
    world.trackers = Trackers::new(&tiers, identity, &mut world.rng);
    world.start();
    world.beat();
    assert_eq!(field(&world.out[0].url, "port"), Some("1"));
}
