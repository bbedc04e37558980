//! A scripted clock and scripted trackers.

use super::*;
use crate::tracker::{AnnounceFacts, Family, Heard, Identity, Outcome, TrackerState, Trackers};
use piecemeal_metainfo::{InfoHash, PeerId};
use piecemeal_wire::tracker::udp::{ConnectionId, UdpRequest};
use piecemeal_wire::tracker::{
    AnnounceReply, AnnounceRequest, Event, ScrapeCounts, ScrapeReply, announce_url, scrape_url,
};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

const SECOND: Duration = Duration::from_secs(1);
const C: ConnectionId = ConnectionId(0x0123_4567_89ab_cdef);

fn a() -> SocketAddr {
    "192.0.2.1:6969".parse().unwrap()
}

fn b() -> SocketAddr {
    "[2001:db8::1]:6969".parse().unwrap()
}

struct World {
    udp: UdpTrackers,
    rng: ChaCha8Rng,
    now: Time,
    out: UdpOut,
    asked: u64,
}

impl World {
    fn new() -> World {
        let rng = ChaCha8Rng::seed_from_u64(5);
        World { udp: UdpTrackers::new(), rng, now: Time::ZERO, out: UdpOut::default(), asked: 0 }
    }

    fn ask(&mut self, to: SocketAddr, event: Option<Event>) -> FetchId {
        let request = AnnounceRequest {
            left: 9,
            event,
            numwant: Some(50),
            ..AnnounceRequest::new(InfoHash([b'h'; 20]), PeerId([b'p'; 20]), 6881)
        };
        self.fetch(to, announce_url("udp://t.example:6969/announce?k=1", &request), event)
    }

    fn fetch(&mut self, to: SocketAddr, url: String, event: Option<Event>) -> FetchId {
        let id = FetchId(self.asked);
        self.asked += 1;
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        let timeout = if event == Some(Event::Stopped) { 5 * SECOND } else { PATIENCE };
        let fetch = Fetch { id, url, family, timeout };
        self.udp.ask(self.now, &mut self.rng, (TorrentId(1), &fetch), to, &mut self.out);
        id
    }

    /// Lets the clock run to the next beat; how long it was.
    fn wait(&mut self) -> Duration {
        let due = self.udp.next_due();
        assert_ne!(due, Time::NEVER, "nothing will happen");
        let waited = due.since(self.now);
        self.now = self.now.max(due);
        self.udp.heartbeat(self.now, &mut self.rng, &mut self.out);
        assert!(self.udp.next_due() > self.now, "a heartbeat leaves nothing due");
        waited
    }

    /// The one datagram that went out.
    fn sent(&mut self) -> Datagram {
        assert_eq!(self.out.datagrams.len(), 1, "{:?}", self.out);
        self.out.datagrams.remove(0)
    }

    /// The one outcome that was told.
    fn told(&mut self) -> (FetchId, Result<Vec<u8>, FetchFailure>) {
        assert_eq!(self.out.fetched.len(), 1, "{:?}", self.out);
        let fetched = self.out.fetched.remove(0);
        (fetched.id, fetched.result)
    }

    fn hear(&mut self, from: SocketAddr, bytes: &[u8]) -> bool {
        self.udp.on_datagram(self.now, &mut self.rng, from, bytes, &mut self.out)
    }

    /// Answers a datagram as a good tracker would, from where it went.
    fn answer(&mut self, datagram: &Datagram) {
        assert!(self.hear(datagram.to, &good(datagram)));
    }

    /// Asks, and goes on until the announce is out.
    fn announce(&mut self, to: SocketAddr) -> (FetchId, Datagram) {
        let id = self.ask(to, None);
        let hello = self.sent();
        self.answer(&hello);
        (id, self.sent())
    }
}

fn good(datagram: &Datagram) -> Vec<u8> {
    let mut out = Vec::new();
    match UdpRequest::decode(&datagram.bytes).unwrap() {
        UdpRequest::Connect { transaction } => wire::connected(transaction, C, &mut out),
        UdpRequest::Announce { transaction, .. } => {
            let peers = ["1.2.3.4:5", "[2001:db8::5]:5"].map(|addr| addr.parse().unwrap());
            wire::announced(transaction, (1800, 4, 3), peers.into_iter(), datagram.to.is_ipv6(), &mut out);
        }
        UdpRequest::Scrape { transaction, hashes, .. } => {
            let counts = hashes.iter().map(|_| ScrapeCounts { complete: 1, downloaded: 2, incomplete: 3 });
            wire::scraped(transaction, counts, &mut out);
        }
    }
    out
}

fn transaction(datagram: &Datagram) -> Transaction {
    match UdpRequest::decode(&datagram.bytes).unwrap() {
        UdpRequest::Connect { transaction }
        | UdpRequest::Announce { transaction, .. }
        | UdpRequest::Scrape { transaction, .. } => transaction,
    }
}

fn is_connect(datagram: &Datagram) -> bool {
    matches!(UdpRequest::decode(&datagram.bytes), Ok(UdpRequest::Connect { .. }))
}

fn refusal_of(datagram: &Datagram, why: &str) -> Vec<u8> {
    let mut out = Vec::new();
    wire::failed(transaction(datagram), why, &mut out);
    out
}

#[test]
fn an_announce_by_each_family() {
    for (to, peer) in [(a(), "1.2.3.4:5"), (b(), "[2001:db8::5]:5")] {
        let mut world = World::new();
        let id = world.ask(to, Some(Event::Started));
        let hello = world.sent();
        assert!(is_connect(&hello) && hello.to == to && world.out.fetched.is_empty());
        world.answer(&hello);
        let announce = world.sent();
        let Ok(UdpRequest::Announce { announce: read, options, .. }) = UdpRequest::decode(&announce.bytes)
        else {
            panic!()
        };
        assert_eq!((read.left, read.event, read.numwant), (9, Some(Event::Started), Some(50)));
        assert_eq!(options.url_data(), b"/announce?k=1");
        world.answer(&announce);
        let (told, body) = world.told();
        let Ok(AnnounceReply::Answer(answer)) = AnnounceReply::decode(&body.unwrap()) else { panic!() };
        assert_eq!(told, id);
        assert_eq!((answer.interval, answer.complete, answer.incomplete), (Some(1800), Some(3), Some(4)));
        let peers: Vec<_> = answer.peers.iter().map(|peer| peer.addr.to_string()).collect();
        assert_eq!(peers, [peer]);
        assert!(world.udp.is_empty());
    }
}

#[test]
fn a_scrape() {
    let mut world = World::new();
    let hashes = [InfoHash([1; 20]), InfoHash([2; 20])];
    world.fetch(a(), scrape_url("udp://t.example:6969", &hashes).unwrap(), None);
    let hello = world.sent();
    world.answer(&hello);
    let scrape = world.sent();
    world.answer(&scrape);
    let (_, body) = world.told();
    let Ok(ScrapeReply::Answer(answer)) = ScrapeReply::decode(&body.unwrap()) else { panic!() };
    let counts = ScrapeCounts { complete: 1, downloaded: 2, incomplete: 3 };
    assert_eq!(answer.files, hashes.map(|hash| (hash, counts)));
}

#[test]
fn a_connection_is_shared_for_a_minute() {
    let mut world = World::new();
    world.ask(a(), None);
    let hello = world.sent();
    // Another torrent asks while the first still connects.
    world.ask(a(), None);
    assert!(world.out.datagrams.is_empty());
    world.answer(&hello);
    assert_eq!(world.out.datagrams.len(), 2);
    for announce in std::mem::take(&mut world.out.datagrams) {
        world.answer(&announce);
    }
    world.now = world.now + 59 * SECOND;
    world.ask(a(), None);
    let announce = world.sent();
    assert!(!is_connect(&announce));
    world.answer(&announce);
    world.now = world.now + SECOND;
    world.ask(a(), None);
    assert!(is_connect(&world.sent()), "a minute is over");
    world.ask(b(), None);
    assert!(is_connect(&world.sent()), "another address");
}

#[test]
fn a_known_address_is_forgotten_after_a_minute() {
    let mut world = World::new();
    let (_, announce) = world.announce(a());
    world.answer(&announce);
    assert_eq!((world.udp.hosts.len(), world.wait()), (1, 60 * SECOND));
    assert!(world.udp.hosts.is_empty() && world.udp.next_due() == Time::NEVER);
}

#[test]
fn a_silent_tracker_is_asked_four_times() {
    let mut world = World::new();
    let id = world.ask(a(), None);
    let hello = world.sent();
    for wait in [15, 30, 60] {
        assert_eq!(world.wait(), wait * SECOND);
        assert_eq!(world.sent(), hello, "the same again, so that a late answer counts");
    }
    assert_eq!(world.wait(), 120 * SECOND);
    assert_eq!(world.told(), (id, Err(FetchFailure::TimedOut)));
    assert!(world.udp.is_empty() && world.udp.hosts.is_empty() && world.udp.next_due() == Time::NEVER);
    assert!(!world.hear(a(), &good(&hello)));
    assert_eq!(world.udp.ignored().strange, 1);
}

#[test]
fn a_lost_announce_is_sent_again_and_the_connection_renewed() {
    let mut world = World::new();
    let (id, announce) = world.announce(a());
    for wait in [15, 30] {
        assert_eq!(world.wait(), wait * SECOND);
        assert_eq!(world.sent(), announce);
    }
    // The connection id expires; nothing happens at once.
    assert_eq!(world.wait(), 15 * SECOND);
    assert!(world.out.datagrams.is_empty());
    assert_eq!(world.wait(), 45 * SECOND);
    let hello = world.sent();
    assert!(is_connect(&hello));
    world.answer(&hello);
    assert_eq!(world.sent().bytes[16..], announce.bytes[16..]);
    // 105 s of its 225 are over.
    let waits = [15, 30, 15, 45].map(|_| world.wait().as_secs());
    assert_eq!(waits, [15, 30, 15, 45], "renewed once more");
    assert_eq!(world.wait(), 15 * SECOND);
    assert_eq!(world.told(), (id, Err(FetchFailure::TimedOut)));
}

#[test]
fn only_the_answer_counts() {
    let mut world = World::new();
    world.ask(a(), None);
    let hello = world.sent();
    let answer = good(&hello);
    let other_port = SocketAddr::new(a().ip(), 6970);
    assert!(!world.hear(b(), &answer) && !world.hear(other_port, &answer));
    let mut other = answer.clone();
    other[7] ^= 1;
    assert!(!world.hear(a(), &other));
    for len in 0..16 {
        assert!(!world.hear(a(), &answer[..len]));
    }
    let mut wrong = Vec::new();
    wire::announced(transaction(&hello), (0, 0, 0), std::iter::empty(), false, &mut wrong);
    assert!(world.hear(a(), &wrong));
    let ignored = Ignored { strange: 3, malformed: 16, wrong_kind: 1 };
    assert_eq!(world.udp.ignored(), ignored);
    assert!(world.out.datagrams.is_empty() && world.out.fetched.is_empty());

    // Mapped into IPv6 by a socket for both families, it is the same address.
    let mapped = SocketAddr::new("::ffff:192.0.2.1".parse().unwrap(), 6969);
    assert!(world.hear(mapped, &answer));
    let announce = world.sent();
    let mut wrong = Vec::new();
    wire::connected(transaction(&announce), C, &mut wrong);
    assert!(world.hear(a(), &wrong) && !world.hear(b(), &good(&announce)));
    assert!(!world.hear(a(), &answer), "it was answered already");
    assert!(world.out.fetched.is_empty());
    world.answer(&announce);
    assert!(world.told().1.is_ok());
    assert!(!world.hear(a(), &good(&announce)));
}

#[test]
fn a_refusal_is_told_in_its_words() {
    let mut world = World::new();
    let (_, announce) = world.announce(a());
    world.hear(a(), &refusal_of(&announce, "not here\n"));
    let Ok(AnnounceReply::Failure(failure)) = AnnounceReply::decode(&world.told().1.unwrap()) else {
        panic!()
    };
    assert_eq!(failure.reason, "not here");

    // To a request to connect, it is for all.
    let mut world = World::new();
    world.ask(a(), None);
    world.ask(a(), None);
    let hello = world.sent();
    world.hear(a(), &refusal_of(&hello, "full"));
    assert_eq!(world.out.fetched.len(), 2);
    assert!(world.udp.is_empty() && world.udp.hosts.is_empty() && world.udp.next_due() == Time::NEVER);
}

#[test]
fn a_connection_that_is_no_longer_known_is_renewed_once() {
    let mut world = World::new();
    let (_, announce) = world.announce(a());
    world.hear(a(), &refusal_of(&announce, "Connection ID missmatch."));
    let hello = world.sent();
    assert!(is_connect(&hello) && world.out.fetched.is_empty());
    world.answer(&hello);
    let announce = world.sent();
    world.hear(a(), &refusal_of(&announce, "Connection ID missmatch."));
    assert!(world.told().1.is_ok(), "the second time it is a refusal");
    assert!(world.udp.is_empty());
}

#[test]
fn fifty_at_once_and_farewells_before_them() {
    let mut world = World::new();
    (0..120).for_each(|_| {
        world.ask(a(), None);
    });
    let hello = world.sent();
    world.answer(&hello);
    assert_eq!(world.out.datagrams.len(), WINDOW);
    let goodbye = world.ask(a(), Some(Event::Stopped));
    assert_eq!(world.out.datagrams.len(), WINDOW + 1);
    let last = world.out.datagrams.pop().unwrap();
    world.answer(&last);
    assert_eq!(world.told().0, goodbye);
    let mut order = Vec::new();
    while !world.out.datagrams.is_empty() {
        assert!(world.out.datagrams.len() <= WINDOW);
        let first = world.out.datagrams.remove(0);
        world.answer(&first);
        order.push(world.told().0.0);
    }
    // Those who waited for the connection together may leave in any order.
    order[..WINDOW].sort_unstable();
    assert_eq!(order, (0..120).collect::<Vec<_>>(), "by arrival");
    assert!(world.udp.is_empty());
}

#[test]
fn who_does_not_connect_fails_for_all() {
    let mut world = World::new();
    (0..120).for_each(|_| {
        world.ask(a(), None);
    });
    world.now = world.now + 220 * SECOND;
    world.udp.heartbeat(world.now, &mut world.rng, &mut world.out);
    (0..10).for_each(|_| {
        world.ask(a(), None);
    });
    while world.out.fetched.is_empty() {
        world.wait();
    }
    while world.out.fetched.len() < 130 {
        assert!(world.wait() <= PATIENCE);
    }
    assert!(world.udp.is_empty() && world.udp.hosts.is_empty() && world.udp.next_due() == Time::NEVER);
}

#[test]
fn a_farewell_is_not_waited_for() {
    let mut world = World::new();
    let id = world.ask(a(), Some(Event::Stopped));
    world.sent();
    assert_eq!(world.wait(), 5 * SECOND);
    assert_eq!(world.told(), (id, Err(FetchFailure::TimedOut)));
    assert_eq!(world.udp.next_due(), Time::NEVER);
}

#[test]
fn what_can_not_be_sent_or_asked() {
    let mut world = World::new();
    world.ask(a(), None);
    world.ask(b(), None);
    world.udp.on_unreachable(b(), "no route", &mut world.out);
    assert_eq!(world.told(), (FetchId(1), Err(FetchFailure::Unreachable("no route".into()))));
    assert_eq!(world.udp.len(), 1);
    for url in ["udp://t/announce", "http://t:1/announce", "udp://t:1", ""] {
        world.fetch(a(), url.to_owned(), None);
        assert!(matches!(world.told().1, Err(FetchFailure::Unreachable(_))), "{url}");
    }
    (0..REQUESTS_MAX).for_each(|_| {
        world.ask(a(), None);
    });
    assert_eq!((world.udp.len(), world.out.fetched.len()), (REQUESTS_MAX, 1));
}

/// The whole client: a tier whose UDP tracker is dead goes on to the next within minutes, and back by itself.
#[test]
fn failover_from_udp_to_another_tracker() {
    let mut world = World::new();
    let identity = Identity {
        info_hash: InfoHash([b'h'; 20]),
        peer_id: PeerId([b'p'; 20]),
        port: 6881,
        key: 1,
        ipv4: true,
        ipv6: false,
    };
    let urls = ["udp://dead.example:1/announce", "udp://alive.example:2/announce"];
    let tiers = [urls.map(str::to_owned).to_vec()];
    let (dead, alive): (SocketAddr, SocketAddr) =
        ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
    // A seed with which the dead one is first.
    let mut rng = (0..)
        .map(ChaCha8Rng::seed_from_u64)
        .find(|rng| Trackers::new(&tiers, identity.clone(), &mut rng.clone()).status()[0].url == urls[0]);
    let rng = rng.as_mut().unwrap();
    let mut trackers = Trackers::new(&tiers, identity, rng);
    trackers.start(world.now);
    let facts = AnnounceFacts { left: 1, want: 50, ..AnnounceFacts::default() };
    let heard = loop {
        let mut fetches = Vec::new();
        trackers.heartbeat(world.now, rng, &facts, &mut fetches);
        for fetch in &fetches {
            let to = if fetch.url.contains("dead") { dead } else { alive };
            world.udp.ask(world.now, rng, (TorrentId(1), fetch), to, &mut world.out);
        }
        world.out.datagrams.retain(|datagram| datagram.to == alive);
        while !world.out.datagrams.is_empty() {
            let first = world.out.datagrams.remove(0);
            world.answer(&first);
        }
        let fetched = std::mem::take(&mut world.out.fetched);
        let heard: Vec<Heard> = fetched
            .into_iter()
            .filter_map(|fetched| {
                let result = match &fetched.result {
                    Ok(body) => Ok(&body[..]),
                    Err(why) => Err(why.clone()),
                };
                trackers.on_fetched(world.now, rng, fetched.id, result)
            })
            .collect();
        if let Some(heard) = heard.into_iter().find(|heard| matches!(heard.outcome, Outcome::Answered { .. }))
        {
            break heard;
        }
        world.now = world.udp.next_due().min(trackers.next_due()).max(world.now);
        world.udp.heartbeat(world.now, rng, &mut world.out);
    };
    assert_eq!(heard.url, urls[1]);
    assert_eq!(world.now, Time::ZERO + PATIENCE);
    assert_eq!(trackers.status()[0].state, TrackerState::Working);
}

/// What may happen, in any order.
#[derive(Clone, Debug)]
enum Step {
    Ask { v6: bool, farewell: bool },
    Answer { which: usize, damage: Option<(usize, u8)> },
    Refuse { which: usize, connection: bool },
    Lose { which: usize },
    Noise { v6: bool, bytes: Vec<u8> },
    Unreachable { v6: bool },
    Pass { seconds: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), any::<bool>()).prop_map(|(v6, farewell)| Step::Ask { v6, farewell }),
        6 => (any::<usize>(), prop::option::weighted(0.2, (any::<usize>(), 1..=u8::MAX)))
            .prop_map(|(which, damage)| Step::Answer { which, damage }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(which, connection)| Step::Refuse { which, connection }),
        2 => any::<usize>().prop_map(|which| Step::Lose { which }),
        1 => (any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(v6, bytes)| Step::Noise { v6, bytes }),
        1 => any::<bool>().prop_map(|v6| Step::Unreachable { v6 }),
        3 => (0..90_u32).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes, each request has one outcome, none waits beyond its time, and nothing is left behind.
    #[test]
    fn each_request_ends_once(steps in prop::collection::vec(step(), 0..200)) {
        let mut world = World::new();
        let (mut net, mut ended) = (Vec::<Datagram>::new(), BTreeSet::new());
        let place = |v6: bool| if v6 { b() } else { a() };
        for step in steps {
            match step {
                Step::Ask { v6, farewell } => {
                    world.ask(place(v6), farewell.then_some(Event::Stopped));
                }
                Step::Answer { which, damage } if !net.is_empty() => {
                    let datagram = net.remove(which % net.len());
                    // An old datagram may carry a connection id of before.
                    let mut bytes = good(&datagram);
                    if let Some((at, with)) = damage {
                        let at = at % bytes.len();
                        bytes[at] ^= with;
                    }
                    world.hear(datagram.to, &bytes);
                }
                Step::Refuse { which, connection } if !net.is_empty() => {
                    let datagram = net.remove(which % net.len());
                    let why = if connection { "bad connection" } else { "no" };
                    world.hear(datagram.to, &refusal_of(&datagram, why));
                }
                Step::Lose { which } if !net.is_empty() => {
                    net.remove(which % net.len());
                }
                Step::Noise { v6, bytes } => {
                    world.hear(place(v6), &bytes);
                }
                Step::Unreachable { v6 } => world.udp.on_unreachable(place(v6), "no", &mut world.out),
                Step::Pass { seconds } => world.now = world.now + seconds * SECOND,
                _ => {}
            }
            world.udp.heartbeat(world.now, &mut world.rng, &mut world.out);
            prop_assert!(world.udp.next_due() > world.now);
            net.append(&mut world.out.datagrams);
            for fetched in world.out.fetched.drain(..) {
                prop_assert!(ended.insert(fetched.id));
            }
            prop_assert_eq!(ended.len() as u64 + world.udp.len() as u64, world.asked);
            let out: usize = world.udp.hosts.values().map(|host| host.out + host.line.len()).sum();
            prop_assert_eq!(out, world.udp.len());
        }
        let end = world.now + 2 * PATIENCE;
        while world.udp.next_due() != Time::NEVER {
            world.wait();
            prop_assert!(world.now <= end);
        }
        prop_assert!(world.udp.is_empty() && world.udp.hosts.is_empty());
        prop_assert_eq!(ended.len() + world.out.fetched.len(), world.asked as usize);
    }
}
