//! Who is asked: tiers, failover, families, unfit URLs.

use super::*;
use Family::{V4, V6};

/// The hosts in the order they would be tried.
fn order(world: &World) -> String {
    world.trackers.status().iter().map(|status| host(&status.url)).collect()
}

#[test]
fn one_of_each_tier() {
    let mut world = World::v4(&[&[A, B], &[], &[C, "http://d.example/announce"]]);
    world.beat();
    assert_eq!(world.out.len(), 2);
    let tiers: Vec<u32> = world.trackers.status().iter().map(|status| status.tier).collect();
    assert_eq!(tiers, [0, 0, 2, 2]);
    world.good();
    world.good();
    world.wait();
    assert_eq!(world.out.len(), 2, "still one each, and both by their interval");
}

#[test]
fn a_tier_is_shuffled_once_and_tiers_are_not() {
    let mut first = [0; 3];
    for seed in 0..300 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let tiers = [vec![A.to_owned(), B.to_owned(), C.to_owned()], vec!["http://z/".to_owned()]];
        let identity = World::v4(&[]).trackers.voice.identity().clone();
        let trackers = Trackers::new(&tiers, identity, &mut rng);
        let urls: Vec<String> = trackers.status().into_iter().map(|status| status.url).collect();
        assert_eq!(urls[3], "http://z/");
        first[[A, B, C].iter().position(|url| *url == urls[0]).unwrap()] += 1;
    }
    assert!(first.iter().all(|count| (60..140).contains(count)), "{first:?}");
}

#[test]
fn the_next_of_the_tier_when_one_fails_and_who_answers_leads() {
    let mut world = World::v4(&[&[A, B, C]]);
    let before = order(&world);
    world.beat();
    let mut tried = String::new();
    for good in [false, false, true] {
        tried.push(host(&world.out[0].url));
        if good {
            world.good();
        } else {
            assert!(retry(world.bad()) >= 30 * SECOND);
            assert_eq!(world.wait(), Duration::ZERO, "the next does not wait");
        }
        assert!(world.out.len() <= 1);
    }
    assert_eq!(tried, before);
    let last = before.chars().last().unwrap();
    assert_eq!(order(&world), format!("{last}{}", &before[..2]));
    // Their pauses pass, but the one that works is enough, and only its next announce is known.
    assert_eq!(world.wait(), INTERVAL);
    assert_eq!(said(&world.out[0]), (last, V4, "-"));
    world.good();
    let next: Vec<bool> = world.trackers.status().iter().map(|status| status.next == Time::NEVER).collect();
    assert_eq!(next, [false, true, true]);
    // Once it fails the others have their turn, and hear `started`.
    world.wait();
    world.bad();
    world.wait();
    let second = before.chars().next().unwrap();
    assert_eq!(said(&world.out[0]), (second, V4, "started"));
}

#[test]
fn when_all_have_failed_each_is_tried_again_in_its_time() {
    let mut world = World::v4(&[&[A, B]]);
    let mut tried = String::new();
    for _ in 0..8 {
        world.wait();
        assert_eq!(world.out.len(), 1, "one of the tier at a time");
        tried.push(host(&world.out[0].url));
        world.bad();
    }
    assert_eq!(tried.matches('a').count(), 4, "{tried}");
    assert!([A, B].iter().all(|url| world.state(url) == TrackerState::Failing));
    assert!([A, B].iter().all(|url| world.status(url).next > world.now));
}

#[test]
fn one_that_was_replaced_hears_completed_once_and_stopped() {
    for good in [true, false] {
        let mut world = World::v4(&[&[A, B]]);
        world.beat();
        let old = host(&world.out[0].url);
        world.good();
        world.wait();
        world.bad();
        world.wait();
        let new = host(&world.out[0].url);
        assert_ne!(old, new);
        world.good();
        world.pass(SECOND);
        world.complete();
        world.beat();
        assert_eq!(world.said(), [(new, V4, "completed"), (old, V4, "completed")]);
        world.good();
        let heard = if good { world.good() } else { world.bad() };
        assert_eq!(heard.is_some(), good, "peers are welcome, failures no news");
        assert_eq!(order(&world).chars().next(), Some(new), "a courtesy is no promotion");
        let url = if old == 'a' { A } else { B };
        let state = if good { TrackerState::Idle } else { TrackerState::Failing };
        assert_eq!((world.state(url), world.status(url).next), (state, Time::NEVER));
        world.trackers.complete(world.now);
        assert_eq!(world.wait(), INTERVAL, "a courtesy is not repeated");
        assert_eq!(world.said(), [(new, V4, "-")]);
        // When its turn comes again it has it at once, and knows us still.
        world.bad();
        assert_eq!(world.wait(), Duration::ZERO);
        assert_eq!(world.said(), [(old, V4, "-")]);
        world.good();
        world.stop();
        assert_eq!(world.said(), [(old, V4, "stopped"), (new, V4, "stopped")]);
    }
}

#[test]
fn each_family_has_its_own_announces() {
    let mut world = World::new(&[&[A]], true, true);
    world.start();
    world.beat();
    assert_eq!(world.said(), [('a', V4, "started"), ('a', V6, "started")]);
    world.answer(Ok(b"d8:completei1e8:intervali600ee"));
    world.answer(Ok(b"d8:completei9e8:intervali900ee"));
    assert_eq!(world.status(A).seeds, Some(9));
    assert_eq!(world.wait(), 600 * SECOND);
    assert_eq!(world.said(), [('a', V4, "-")]);
    world.complete();
    world.beat();
    assert_eq!(world.said(), [('a', V4, "-"), ('a', V6, "completed")]);
    world.good();
    world.beat();
    assert_eq!(world.said(), [('a', V6, "completed"), ('a', V4, "completed")]);
}

#[test]
fn a_family_without_address_is_no_failure() {
    // Whichever comes first, and however IPv6 fails while IPv4 works.
    for swap in [false, true] {
        for failure in [FetchFailure::NoAddress, FetchFailure::Unreachable("no route to host".into())] {
            let mut world = World::new(&[&[A, B]], true, true);
            world.start();
            world.beat();
            let url = if host(&world.out[0].url) == 'a' { A } else { B };
            if swap {
                world.out.swap(0, 1);
                assert_eq!(world.answer(Err(failure)), None);
                assert!(world.good().is_some());
            } else {
                assert!(world.good().is_some());
                assert_eq!(world.answer(Err(failure)), None);
            }
            let status = world.status(url);
            assert_eq!((status.state, status.last_error), (TrackerState::Working, None));
            assert!(world.said().is_empty());
            // The other of the tier is not asked, nor is this by IPv6 all the time.
            let mut v6 = 0;
            while world.now < Time::ZERO + 6 * INTERVAL {
                world.wait();
                let (host, family, _) = said(&world.out[0]);
                assert_eq!(host, super::host(url));
                v6 += u32::from(family == V6);
                if family == V4 {
                    world.good()
                } else {
                    world.answer(Err(FetchFailure::NoAddress))
                };
            }
            assert!((1..=8).contains(&v6), "{v6}");
        }
    }
}

#[test]
fn a_tracker_fails_when_all_its_families_have() {
    let refused = || FetchFailure::Unreachable("refused".into());
    let table = [
        (FetchFailure::NoAddress, refused(), "refused"),
        (refused(), FetchFailure::NoAddress, "refused"),
        (FetchFailure::TimedOut, refused(), "no answer in time"),
        (FetchFailure::NoAddress, FetchFailure::NoAddress, "the tracker's name has no address"),
    ];
    for (first, second, why) in table {
        let mut world = World::new(&[&[A]], true, true);
        world.start();
        world.beat();
        assert_eq!(world.answer(Err(first)), None);
        assert_eq!(world.state(A), TrackerState::Announcing);
        let heard = world.answer(Err(second));
        assert!((30 * SECOND..=38 * SECOND).contains(&retry(heard.clone())), "{heard:?}");
        assert_eq!(reason(heard), why);
        let status = world.status(A);
        assert_eq!((status.state, status.last_error.as_deref()), (TrackerState::Failing, Some(why)));
    }
}

#[test]
fn what_can_not_be_asked_is_listed_with_a_reason() {
    let long = format!("http://{}/announce", "a".repeat(5_000));
    let table = [
        ("udp://t.example/announce", "the URL names no host and port"),
        ("udp://:6969/announce", "the URL names no host and port"),
        ("wss://t.example/", "WebTorrent trackers are not supported by this version"),
        ("ftp://t.example/", "not an HTTP or UDP tracker"),
        ("http://", "the URL names no host"),
        ("http:///announce", "the URL names no host"),
        ("https://:80/announce", "the URL names no host"),
        ("http://a b/announce", "not a URL"),
        ("http://a\u{0}b/announce", "not a URL"),
        ("http:/a/announce", "not a URL"),
        ("announce", "not a URL"),
        ("\u{fffd}://", "not an HTTP or UDP tracker"),
        ("://", "not an HTTP or UDP tracker"),
        (&long, "the URL is too long"),
    ];
    for (url, why) in table {
        let mut world = World::new(&[&[url, A]], true, true);
        world.start();
        world.beat();
        assert_eq!(world.said(), [('a', V4, "started"), ('a', V6, "started")], "{url}");
        let status = world.status(url);
        assert_eq!((status.state, status.next), (TrackerState::Failing, Time::NEVER));
        assert_eq!(status.last_error.as_deref(), Some(why), "{url}");
        world.stop();
        assert_eq!(world.out.len(), 4);
    }
}

#[test]
fn nobody_to_ask() {
    let mut world = World::new(&[&[A]], false, false);
    world.start();
    assert_eq!(world.trackers.next_due(), Time::NEVER);
    assert_eq!(world.state(A), TrackerState::Failing);
    let mut none = World::v4(&[&[], &["  ", ""]]);
    assert_eq!(none.trackers.next_due(), Time::NEVER);
    none.beat();
    none.complete();
    none.trackers.announce_now(none.now);
    none.stop();
    assert!(none.trackers.is_quiet() && none.trackers.status().is_empty());
}

#[test]
fn doubles_and_floods_are_bounded() {
    let world = World::v4(&[&[A, " http://a.example/tracker ", B], &[B, A], &["HTTP://C.example/announce"]]);
    assert_eq!(world.trackers.status().len(), 3);
    let flood: Vec<Vec<String>> =
        (0..5_000).map(|at| vec![format!("http://{at}.example/announce")]).collect();
    let identity = world.trackers.voice.identity().clone();
    let trackers = Trackers::new(&flood, identity, &mut ChaCha8Rng::seed_from_u64(1));
    assert_eq!(trackers.status().len(), MAX_SOURCES);
}
