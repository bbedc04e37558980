//! Counts: when they are asked for, and what is made of them.

use super::*;
use Family::{V4, V6};
use piecemeal_wire::tracker::{ScrapeAnswer, ScrapeCounts};

const A: &str = "http://a.example/announce";
const B: &str = "http://b.example/announce";
const C: &str = "https://c.example/announce?passkey=1";
const BARE: &[u8] = b"d8:intervali1800ee";
const HALF_HOUR: Duration = Duration::from_secs(1_800);

fn counts(complete: u32, incomplete: u32, downloaded: u32) -> Vec<u8> {
    waiting(complete, incomplete, downloaded, None)
}

fn waiting(complete: u32, incomplete: u32, downloaded: u32, min_request_interval: Option<u32>) -> Vec<u8> {
    let others = (InfoHash([b'a'; 20]), ScrapeCounts { complete: 99, downloaded: 99, incomplete: 99 });
    let ours = (InfoHash([b'h'; 20]), ScrapeCounts { complete, downloaded, incomplete });
    ScrapeAnswer { files: vec![others, ours], min_request_interval }.encode()
}

fn told(world: &World, url: &str) -> (Option<u32>, Option<u32>, Option<u32>, Option<Time>) {
    let status = world.status(url);
    (status.seeds, status.leeches, status.downloads, status.counted)
}

fn look(world: &mut World) -> usize {
    let before = world.out.len();
    world.trackers.look(world.now, &mut world.out);
    world.out.len() - before
}

#[test]
fn an_announce_without_counts_is_followed_by_a_scrape() {
    let mut world = World::v4(&[&[C]]);
    world.beat();
    world.answer(Ok(BARE));
    assert_eq!(world.wait(), Duration::ZERO);
    let url = "https://c.example/scrape?passkey=1&info_hash=hhhhhhhhhhhhhhhhhhhh";
    assert_eq!((&world.out[0].url[..], world.out.len()), (url, 1));
    assert_eq!(world.state(C), TrackerState::Working);
    assert_eq!(world.trackers.next_due(), world.now + HALF_HOUR, "the announce");
    assert_eq!(world.answer(Ok(&counts(3, 4, 50))), None);
    assert_eq!(told(&world, C), (Some(3), Some(4), Some(50), Some(world.now)));
    // The next announce brings counts, and what only a scrape tells stays.
    world.wait();
    world.answer(Ok(b"d8:completei7e10:incompletei8e8:intervali60ee"));
    assert_eq!(told(&world, C), (Some(7), Some(8), Some(50), Some(world.now)));
    assert_eq!(world.wait(), 60 * SECOND);
    assert!(world.out[0].url.contains("/announce?"));
    // Half of the counts is not enough; the other half is the scrape's.
    let now = world.now;
    world.answer(Ok(b"d8:completei9e8:intervali60ee"));
    assert_eq!(world.wait(), Duration::ZERO, "half an hour is over");
    assert_eq!(now, world.now);
    world.answer(Ok(&counts(1, 2, 51)));
    assert_eq!(told(&world, C), (Some(1), Some(2), Some(51), Some(world.now)));
}

#[test]
fn scrapes_are_half_an_hour_apart() {
    for (answer, apart) in [
        (Ok(counts(1, 1, 1)), 1_800),
        (Ok(waiting(1, 1, 1, Some(0))), 1_800),
        (Ok(waiting(1, 1, 1, Some(7_200))), 7_200),
        (Ok(waiting(1, 1, 1, Some(u32::MAX))), 86_400),
        (Ok(b"de".to_vec()), 1_800),
        (Ok(b"rubbish".to_vec()), 1_800),
        (Ok(b"d14:failure reason2:noe".to_vec()), 1_800),
        (Err(FetchFailure::TimedOut), 1_800),
        (Err(FetchFailure::NoAddress), 1_800),
        (Err(FetchFailure::Status(404, vec![])), 1_800),
    ] {
        let mut world = World::v4(&[&[A]]);
        let mut scrapes = Vec::new();
        while scrapes.len() < 3 {
            world.wait();
            let is_scrape = world.out[0].url.contains("/scrape?");
            if is_scrape {
                scrapes.push(world.now);
                assert_eq!(world.answer(answer.as_deref().map_err(Clone::clone)), None);
            } else {
                world.answer(Ok(b"d8:intervali60ee"));
            }
            assert_eq!(world.status(A).last_error, None);
        }
        let apart = Duration::from_secs(apart);
        assert!(scrapes[1].since(scrapes[0]) >= apart);
        assert!(scrapes[2].since(scrapes[1]) < apart + 61 * SECOND, "{answer:?}");
    }
}

#[test]
fn who_has_no_scrape_url_is_never_scraped() {
    for url in
        ["http://a.example/a", "http://a.example/announce/x", "ftp://a.example/announce", "wss://a/announce"]
    {
        let mut world = World::new(&[&[url]], true, true);
        assert_eq!(look(&mut world), 0, "{url}");
        world.start();
        if world.trackers.next_due() == Time::NEVER {
            continue;
        }
        world.beat();
        world.answer(Ok(BARE));
        world.answer(Ok(BARE));
        assert!(world.out.is_empty() && world.trackers.next_due() == world.now + HALF_HOUR, "{url}");
    }
}

#[test]
fn a_look_at_a_torrent_that_does_not_run() {
    let mut world = World::new(&[&[A], &["udp://b.example:1/announce"]], true, false);
    assert_eq!(look(&mut world), 2);
    assert_eq!(look(&mut world), 0, "they are out");
    assert!(world.trackers.is_quiet() && world.trackers.next_due() == Time::NEVER);
    assert_eq!(world.out[1].url, "udp://b.example:1/announce?info_hash=hhhhhhhhhhhhhhhhhhhh");
    assert_eq!((world.out[0].timeout, world.out[1].timeout), (30 * SECOND, crate::udp::PATIENCE));
    world.answer(Ok(&counts(5, 6, 7)));
    world.bad();
    assert_eq!(told(&world, A), (Some(5), Some(6), Some(7), Some(Time::ZERO)));
    assert_eq!((world.state(A), told(&world, "udp://b.example:1/announce").0), (TrackerState::Idle, None));
    world.pass(HALF_HOUR - SECOND);
    assert_eq!(look(&mut world), 0);
    world.pass(SECOND);
    assert_eq!(look(&mut world), 2);
    // What is out when it starts again is heard all the same, and while it runs nobody needs to look.
    world.start();
    assert_eq!(look(&mut world), 0);
    world.answer(Ok(&counts(8, 9, 9)));
    assert_eq!(told(&world, A).0, Some(8));
    assert_eq!(world.answer(Err(FetchFailure::TimedOut)), None);
}

#[test]
fn counts_of_announces_are_good_for_half_an_hour_after_them() {
    let mut world = World::v4(&[&[A]]);
    world.beat();
    world.good();
    world.pass(10 * SECOND);
    world.stop();
    world.bad();
    assert_eq!(look(&mut world), 0);
    world.pass(HALF_HOUR);
    assert_eq!(look(&mut world), 1);
}

#[test]
fn one_tracker_of_a_tier_and_the_next_if_it_fails() {
    let mut world = World::new(&[&[A, B]], true, false);
    assert_eq!(look(&mut world), 1);
    let first = host(&world.out[0].url);
    world.bad();
    assert_eq!(look(&mut world), 1);
    assert_ne!(host(&world.out[0].url), first);
    world.answer(Ok(&counts(1, 0, 0)));
    world.pass(HALF_HOUR - SECOND);
    assert_eq!(look(&mut world), 0, "one is enough, and the other is left alone");
}

#[test]
fn the_other_family_has_a_try_where_there_is_no_address() {
    let mut world = World::new(&[&[A]], true, true);
    assert_eq!((look(&mut world), world.out[0].family), (1, V4));
    world.answer(Err(FetchFailure::NoAddress));
    assert_eq!((look(&mut world), world.out[0].family), (1, V6));
    world.answer(Err(FetchFailure::NoAddress));
    assert_eq!(look(&mut world), 0, "it lives nowhere");
    world.pass(HALF_HOUR);
    assert_eq!((look(&mut world), world.out[0].family), (1, V4));
    world.bad();
    assert_eq!(look(&mut world), 0, "the tracker was asked");
    world.pass(HALF_HOUR);
    assert_eq!((look(&mut world), world.out[0].family), (1, V6));
}
