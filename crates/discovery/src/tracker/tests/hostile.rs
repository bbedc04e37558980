//! Trackers that lie, and torrents' lives in any order.

use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

#[test]
fn garbage_is_a_failure_in_words() {
    let deep = vec![b'l'; 300_000];
    let table: [(&[u8], &str); 7] = [
        (b"", "not a tracker's answer"),
        (b"<html>", "not a tracker's answer"),
        (b"le", "not a tracker's answer"),
        (b"i5e", "not a tracker's answer"),
        (b"d8:interval", "not a tracker's answer"),
        (&deep, "not a tracker's answer"),
        (b"d14:failure reason2:noe", "no"),
    ];
    for (body, words) in table {
        let mut world = World::v4(&[&[A]]);
        world.beat();
        let why = reason(world.answer(Ok(body)));
        assert!(why.starts_with(words), "{why}");
        assert_eq!(world.status(A).last_error, Some(why));
    }
}

#[test]
fn a_flood_of_peers_is_cut() {
    let mut body = b"d8:intervali1800e5:peers600000:".to_vec();
    body.extend((0..100_000_u32).flat_map(|at| {
        let mut entry = [1; 6];
        entry[..4].copy_from_slice(&at.to_be_bytes());
        entry
    }));
    body.push(b'e');
    let mut world = World::v4(&[&[A]]);
    world.beat();
    match world.answer(Ok(&body)).unwrap().outcome {
        Outcome::Answered { peers, .. } => assert_eq!(peers.len(), 500),
        other => panic!("{other:?}"),
    }
}

#[test]
fn numbers_that_are_not_out_mean_nothing() {
    let mut world = World::v4(&[&[A]]);
    world.beat();
    let id = world.out[0].id;
    for other in [FetchId(99), FetchId(u64::MAX)] {
        assert_eq!(world.trackers.on_fetched(world.now, &mut world.rng, other, Ok(GOOD)), None);
    }
    assert!(world.good().is_some());
    assert_eq!(world.trackers.on_fetched(world.now, &mut world.rng, id, Ok(GOOD)), None, "once");
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Start,
    Stop,
    Complete,
    Wish,
    Look,
    /// Beat at `next_due`, if that is within a day.
    Wait,
    /// Let seconds pass, and beat.
    Pass(u32),
    /// Answer one of those that are out.
    Answer(usize, usize),
    Facts(AnnounceFacts),
}

/// What trackers say, by number.
fn reply(number: usize) -> Result<&'static [u8], FetchFailure> {
    match number {
        0 => Err(FetchFailure::NoAddress),
        1 => Err(FetchFailure::TimedOut),
        2 => Err(FetchFailure::Unreachable("no".into())),
        3 => Err(FetchFailure::Status(500, b"d14:failure reason1:x8:retry ini3ee".into())),
        4 => Ok(b"d14:failure reason1:x8:retry in5:nevere"),
        5 => Ok(b"\xff\xff"),
        6 => Ok(b"d8:intervali0ee"),
        7 => Ok(b"d8:intervali900e12:min intervali700e10:tracker id1:xe"),
        _ => Ok(GOOD),
    }
}

const REPLIES: usize = 12;

fn step() -> impl Strategy<Value = Step> {
    let facts = (0..9_u64, 0..9_u64, 0..2_u64, 0..60_u32).prop_map(|(uploaded, downloaded, left, want)| {
        Step::Facts(AnnounceFacts { uploaded, downloaded, left, want })
    });
    prop_oneof![
        2 => Just(Step::Start),
        1 => Just(Step::Stop),
        1 => Just(Step::Complete),
        1 => Just(Step::Wish),
        1 => Just(Step::Look),
        6 => Just(Step::Wait),
        3 => (0..4_000_u32).prop_map(Step::Pass),
        8 => (0..8_usize, 0..REPLIES).prop_map(|(which, reply)| Step::Answer(which, reply)),
        1 => facts,
    ]
}

/// What a tracker that keeps strict books would object to, in one family.
#[derive(Default)]
struct Ledger {
    /// Announces out, farewells apart, of this run.
    out: Option<(FetchId, String)>,
    /// Such as `stop` cut off.
    cut: Option<FetchId>,
    farewell: Option<FetchId>,
    /// It took a `started`; with something missing.
    known: Option<bool>,
    /// Seconds of patience it asked for, and from when.
    patience: Option<(Time, Duration)>,
    completed_in_run: u32,
}

/// Checks each request against the books.
struct Books {
    ledgers: BTreeMap<(char, Family), Ledger>,
    /// Scrapes that are out, and when the last one left. One that found no address bothered nobody.
    scrapes: BTreeMap<char, (bool, Option<Time>)>,
}

impl Books {
    fn sent(&mut self, fetch: &Fetch, now: Time, left: u64) {
        let (host, family, event) = said(fetch);
        if is_scrape(fetch) {
            let (out, last) = self.scrapes.entry(host).or_default();
            assert!(!*out, "two scrapes out");
            assert!(last.is_none_or(|last| now.since(last) >= INTERVAL), "scraped too often");
            (*out, *last) = (true, Some(now));
            return;
        }
        let ledger = self.ledgers.entry((host, family)).or_default();
        if event == "stopped" {
            assert!(ledger.farewell.is_none(), "two farewells");
            assert!(ledger.known.is_some() || ledger.out.is_some(), "stopped without started");
            ledger.cut = ledger.out.take().map(|(id, _)| id);
            ledger.farewell = Some(fetch.id);
            ledger.known = None;
            ledger.completed_in_run = 0;
            return;
        }
        assert!(ledger.out.is_none() && ledger.cut.is_none(), "two announces out for {host} {family:?}");
        assert!(ledger.farewell.is_none(), "an announce overtakes a farewell");
        match event {
            "started" => assert_eq!(ledger.known, None, "started twice"),
            "completed" => {
                assert_eq!(ledger.known, Some(true), "completed to one that saw no download");
                assert_eq!(ledger.completed_in_run, 0, "completed twice");
            }
            _ => {
                assert!(ledger.known.is_some(), "{host} did not hear started");
                let (from, patience) = ledger.patience.unwrap();
                assert!(now >= from + patience, "sooner than it allows");
            }
        }
        let what = if event == "started" && left > 0 { "began" } else { event };
        ledger.out = Some((fetch.id, what.to_owned()));
    }

    fn answered(&mut self, fetch: &Fetch, now: Time, number: usize) {
        let (host, family, _) = said(fetch);
        if is_scrape(fetch) {
            let (out, last) = self.scrapes.get_mut(&host).unwrap();
            *out = false;
            last.take_if(|_| number == 0);
            return;
        }
        let ledger = self.ledgers.get_mut(&(host, family)).unwrap();
        ledger.cut.take_if(|id| *id == fetch.id);
        ledger.farewell.take_if(|id| *id == fetch.id);
        let Some((_, event)) = ledger.out.take_if(|(id, _)| *id == fetch.id) else { return };
        if number >= 6 {
            let seconds = if number == 7 { 700 } else { 60 };
            ledger.patience = Some((now, Duration::from_secs(seconds)));
            match event.as_str() {
                "began" => ledger.known = Some(true),
                "started" => ledger.known = Some(false),
                "completed" => ledger.completed_in_run += 1,
                _ => {}
            }
        }
    }

    /// After `stop`: whoever may know us has a farewell out.
    fn all_ended(&self) {
        for (who, ledger) in &self.ledgers {
            assert!(ledger.known.is_none() && ledger.out.is_none(), "{who:?} was not told");
        }
    }
}

fn is_scrape(fetch: &Fetch) -> bool {
    fetch.url.contains("/scrape?")
}

fn live(steps: &[Step], seed: u64) {
    let mut world =
        World::new(&[&[A, B], &[C], &["udp://d/", "http://e/announce"]], true, seed.is_multiple_of(2));
    world.rng = ChaCha8Rng::seed_from_u64(seed);
    let mut books = Books { ledgers: BTreeMap::new(), scrapes: BTreeMap::new() };
    for step in steps {
        let known = world.out.len();
        match step {
            Step::Start => world.start(),
            Step::Stop => world.stop(),
            Step::Complete => world.complete(),
            Step::Wish => world.trackers.announce_now(world.now),
            Step::Look => world.trackers.look(world.now, &mut world.out),
            Step::Facts(facts) => world.facts = *facts,
            Step::Pass(seconds) => {
                world.pass(*seconds * SECOND);
                world.beat();
            }
            Step::Wait => {
                if world.trackers.next_due() <= world.now + Duration::from_secs(86_400) {
                    world.wait();
                }
            }
            Step::Answer(which, number) if known > 0 => {
                let fetch = world.out.remove(which % known);
                world.pass(SECOND);
                world.trackers.on_fetched(world.now, &mut world.rng, fetch.id, reply(*number));
                books.answered(&fetch, world.now, *number);
            }
            Step::Answer(..) => {}
        }
        for fetch in world.out.iter().skip(known) {
            books.sent(fetch, world.now, world.facts.left);
        }
        if matches!(step, Step::Stop) {
            books.all_ended();
            assert_eq!(world.trackers.next_due(), Time::NEVER);
        }
        let farewells = books.ledgers.values().filter(|ledger| ledger.farewell.is_some()).count();
        assert!(farewells == 0 || !world.trackers.is_quiet());
        assert!(world.out.is_empty() == world.trackers.is_quiet() || farewells == 0);
    }
    // In the end all is answered and told.
    world.stop();
    for fetch in std::mem::take(&mut world.out) {
        world.trackers.on_fetched(world.now, &mut world.rng, fetch.id, Ok(GOOD));
    }
    assert!(world.trackers.is_quiet());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_life_keeps_the_rules(steps in prop::collection::vec(step(), 0..120), seed in any::<u64>()) {
        live(&steps, seed);
    }

    #[test]
    fn no_body_and_no_url_panics(body in prop::collection::vec(any::<u8>(), 0..200), url in ".{0,40}") {
        let mut world = World::v4(&[&[A], &[&url]]);
        world.beat();
        while !world.out.is_empty() {
            world.answer(Ok(&body));
        }
        world.wait();
        let _ = world.trackers.status();
        world.stop();
    }

    #[test]
    fn bodies_that_look_like_answers_do_not_panic(
        interval in any::<i64>(),
        least in any::<i64>(),
        retry in any::<i64>(),
        failure in any::<bool>(),
    ) {
        let failure = if failure { "14:failure reason1:x" } else { "" };
        let body = format!("d{failure}8:intervali{interval}e12:min intervali{least}e8:retry ini{retry}ee");
        let mut world = World::v4(&[&[A]]);
        world.beat();
        world.answer(Ok(body.as_bytes()));
        let waited = world.trackers.next_due().since(world.now);
        prop_assert!((Duration::from_secs(30)..=Duration::from_secs(86_400)).contains(&waited), "{waited:?}");
    }
}
