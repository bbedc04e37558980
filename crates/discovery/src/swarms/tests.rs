use super::*;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

/// Twice half an hour.
const LIFETIME: Duration = Duration::from_secs(3_600);

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

fn book(limits: SwarmLimits) -> Swarms {
    Swarms::new(limits, LIFETIME)
}

fn at(secs: u64) -> Time {
    Time::ZERO + Duration::from_secs(secs)
}

fn hash(number: u32) -> InfoHash {
    let mut hash = [0; 20];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    InfoHash(hash)
}

fn leech(peer: &str) -> Announce {
    Announce { info_hash: hash(1), peer: peer.parse().unwrap(), seed: false, event: None, want: 50 }
}

fn seed(peer: &str) -> Announce {
    Announce { seed: true, ..leech(peer) }
}

fn counts(seeds: u32, leeches: u32, completed: u32) -> SwarmCounts {
    SwarmCounts { seeds, leeches, completed }
}

fn sorted(told: &Told) -> Vec<String> {
    let mut peers: Vec<String> = told.peers.iter().map(SocketAddr::to_string).collect();
    peers.sort();
    peers
}

#[test]
fn peers_meet() {
    let (mut book, mut rng) = (book(SwarmLimits::default()), rng());
    let mut announce = |announce: &Announce| book.announce(at(1), announce, &mut rng);
    assert!(sorted(&announce(&seed("1.1.1.1:1"))).is_empty());
    assert_eq!(sorted(&announce(&leech("1.1.1.1:2"))), ["1.1.1.1:1"], "another port is another peer");
    assert_eq!(
        sorted(&announce(&leech("[2001::1]:3"))),
        ["1.1.1.1:1", "1.1.1.1:2"],
        "who has too few of his own"
    );
    let told = announce(&seed("2.2.2.2:4"));
    assert_eq!(sorted(&told), ["1.1.1.1:2", "[2001::1]:3"], "no seeds for seeds");
    assert_eq!((told.counts, told.listing), (counts(2, 2, 0), Listing::Listed));
    let told = announce(&Announce { want: 1, ..leech("[2001::2]:5") });
    assert_eq!(sorted(&told), ["[2001::1]:3"], "his own first");
    assert_eq!(sorted(&announce(&Announce { want: 0, ..leech("[2001::2]:5") })), Vec::<String>::new());
    // Mapped is IPv4.
    assert_eq!(announce(&seed("[::ffff:2.2.2.2]:4")).counts, counts(2, 3, 0));
    let other = Announce { info_hash: hash(2), ..leech("1.1.1.1:1") };
    assert_eq!((announce(&other).counts, sorted(&announce(&other)).len()), (counts(0, 1, 0), 0));
    assert_eq!((book.swarms(), book.peers()), (2, 6));
}

#[test]
fn events() {
    let (mut book, mut rng) = (book(SwarmLimits::default()), rng());
    let mut announce = |announce: Announce| book.announce(at(1), &announce, &mut rng);
    let completed = Some(Event::Completed);
    announce(leech("1.1.1.1:1"));
    assert_eq!(
        announce(Announce { event: completed, ..leech("1.1.1.1:1") }).counts,
        counts(0, 1, 0),
        "not yet"
    );
    assert_eq!(announce(Announce { event: completed, ..seed("1.1.1.1:1") }).counts, counts(1, 0, 1));
    assert_eq!(announce(Announce { event: completed, ..seed("1.1.1.1:1") }).counts, counts(1, 0, 1), "once");
    assert_eq!(
        announce(Announce { event: completed, ..seed("1.1.1.2:1") }).counts,
        counts(2, 0, 1),
        "unseen"
    );
    let told = announce(Announce { event: Some(Event::Stopped), ..leech("1.1.1.2:1") });
    assert_eq!((told.counts, told.listing, told.peers.len()), (counts(1, 0, 1), Listing::Unlisted, 0));
    assert_eq!(
        announce(Announce { event: Some(Event::Stopped), ..leech("9.9.9.9:1") }).counts,
        counts(1, 0, 1)
    );
    // A seed that lost something is a leech again.
    assert_eq!(announce(leech("1.1.1.1:1")).counts, counts(0, 1, 1));
    // The count outlives its peers, a swarm without one does not.
    announce(Announce { event: Some(Event::Stopped), ..leech("1.1.1.1:1") });
    announce(Announce { info_hash: hash(2), ..leech("1.1.1.1:1") });
    announce(Announce { info_hash: hash(2), event: Some(Event::Stopped), ..leech("1.1.1.1:1") });
    announce(Announce { info_hash: hash(3), event: Some(Event::Stopped), ..leech("1.1.1.1:1") });
    assert_eq!(book.counts(at(1), hash(1)), Some(counts(0, 0, 1)));
    assert_eq!([2, 3].map(|number| book.counts(at(1), hash(number))), [None, None]);
    assert_eq!((book.swarms(), book.peers(), book.swarms.len()), (0, 0, 1));
}

#[test]
fn the_silent_are_forgotten() {
    let (mut book, mut rng) = (book(SwarmLimits::default()), rng());
    book.announce(at(0), &seed("1.1.1.1:1"), &mut rng);
    book.announce(at(0), &leech("[2001::1]:1"), &mut rng);
    for other in 2..100 {
        book.announce(at(1), &Announce { info_hash: hash(other), ..leech("1.1.1.1:1") }, &mut rng);
    }
    book.announce(at(1_800), &seed("1.1.1.1:1"), &mut rng);
    assert_eq!(book.counts(at(3_600), hash(1)), Some(counts(1, 1, 0)), "a lifetime is not over");
    assert_eq!(book.counts(at(3_600 + 226), hash(1)), Some(counts(1, 0, 0)));
    // Looking at one swarm again and again sweeps all.
    for _ in 0..20 {
        book.counts(at(5_000), hash(1));
    }
    assert_eq!((book.swarms(), book.peers()), (1, 1));
    book.counts(at(1 << 40), hash(1));
    assert_eq!((book.swarms(), book.peers(), book.heap_bytes()), (0, 0, 0));
}

#[test]
fn limits_refuse_newcomers_and_keep_those_who_are_here() {
    let limits = SwarmLimits { swarms: 2, peers: 5, peers_per_swarm: 4, peers_per_network: 2 };
    let (mut book, mut rng) = (book(limits), rng());
    let mut listing = |number: u32, peer: &str| {
        let told = book.announce(at(1), &Announce { info_hash: hash(number), ..leech(peer) }, &mut rng);
        (told.listing, told.peers.len())
    };
    assert_eq!(listing(1, "1.1.1.1:0"), (Listing::Unlisted, 0));
    assert_eq!(listing(1, "1.1.1.1:1"), (Listing::Listed, 0));
    assert_eq!(listing(1, "1.1.1.1:2"), (Listing::Listed, 1));
    assert_eq!(listing(1, "1.1.1.1:3"), (Listing::Crowded, 2), "but is told");
    assert_eq!(listing(1, "1.1.1.1:0"), (Listing::Unlisted, 2));
    assert_eq!(listing(1, "[2001::1]:1").0, Listing::Listed);
    assert_eq!(listing(1, "[2001::2]:1").0, Listing::Listed);
    assert_eq!(listing(1, "[2001::3]:1"), (Listing::Full, 4), "the swarm is");
    assert_eq!(listing(1, "1.1.1.1:2").0, Listing::Listed, "who is here stays");
    assert_eq!(listing(2, "1.1.1.1:1").0, Listing::Listed);
    assert_eq!(listing(2, "1.1.1.2:1"), (Listing::Full, 1), "the book is");
    let gone = Announce { event: Some(Event::Stopped), ..leech("1.1.1.1:2") };
    book.announce(at(1), &gone, &mut rng);
    let third = Announce { info_hash: hash(3), ..leech("1.1.1.1:1") };
    assert_eq!(book.announce(at(1), &third, &mut rng).listing, Listing::Full, "no third swarm");
    assert_eq!(book.counts(at(1), hash(3)), None);
    assert_eq!(book.peers(), 4);
}

#[test]
fn one_network_is_an_ipv6_64() {
    let limits = SwarmLimits { peers_per_network: 1, ..SwarmLimits::default() };
    let (mut book, mut rng) = (book(limits), rng());
    let mut listing = |peer: &str| book.announce(at(1), &leech(peer), &mut rng).listing;
    assert_eq!(listing("[2001:0:0:1::1]:1"), Listing::Listed);
    assert_eq!(listing("[2001:0:0:1:ffff::1]:1"), Listing::Crowded);
    assert_eq!(listing("[2001:0:0:2::1]:1"), Listing::Listed);
}

#[test]
fn empty_swarms_make_room_oldest_first() {
    let limits = SwarmLimits { swarms: 3, ..SwarmLimits::default() };
    let (mut book, mut rng) = (book(limits), rng());
    let mut lived = |book: &mut Swarms, number: u32, secs: u64| {
        let one = Announce { info_hash: hash(number), ..leech("1.1.1.1:1") };
        book.announce(at(secs), &one, &mut rng);
        let done = Announce { seed: true, event: Some(Event::Completed), ..one };
        book.announce(at(secs), &done, &mut rng);
        book.announce(at(secs), &Announce { event: Some(Event::Stopped), ..one }, &mut rng);
    };
    lived(&mut book, 2, 1);
    lived(&mut book, 1, 2);
    lived(&mut book, 3, 3);
    // The first two are used again: now 1 has been empty longest.
    lived(&mut book, 2, 4);
    assert_eq!(book.counts(at(5), hash(2)), Some(counts(0, 0, 2)));
    lived(&mut book, 4, 5);
    let known: Vec<bool> = (1..=4).map(|number| book.counts(at(6), hash(number)).is_some()).collect();
    assert_eq!(known, [false, true, true, true]);
    assert_eq!((book.swarms.len(), book.empty.len()), (3, 3));
}

#[test]
fn everybody_is_told_of_equally_often() {
    let (mut book, mut rng) = (book(SwarmLimits::default()), rng());
    for port in 1..=20 {
        let peer = SocketAddr::new([1, 1, 1, 1].into(), port);
        book.announce(at(1), &Announce { peer, seed: port > 10, ..leech("1.1.1.1:1") }, &mut rng);
    }
    let mut told = [0_u32; 21];
    for _ in 0..2_000 {
        for peer in book.announce(at(1), &Announce { want: 5, ..leech("1.1.1.1:7") }, &mut rng).peers {
            told[usize::from(peer.port())] += 1;
        }
    }
    assert_eq!(told[7], 0, "itself");
    // 526 expected with a deviation of 20.
    let others = (1..=20).filter(|port| *port != 7).map(|port| told[port]);
    assert!(others.into_iter().all(|count| count.abs_diff(526) < 110), "{told:?}");
}

#[test]
fn a_million_invented_swarms_take_bounded_memory_and_drive_nobody_out() {
    let limits = SwarmLimits { swarms: 10_000, ..SwarmLimits::default() };
    let (mut book, mut rng) = (book(limits), rng());
    book.announce(at(0), &leech("9.9.9.9:9"), &mut rng);
    for number in 0..1_000_000_u32 {
        let [a, b, c, d] = number.wrapping_mul(0x9e37_79b1).to_be_bytes();
        let peer = SocketAddr::new([a, b, c, d].into(), 1);
        let flood = Announce { info_hash: hash(number + 2), peer, ..leech("1.1.1.1:1") };
        book.announce(at(u64::from(number) / 1_000), &flood, &mut rng);
    }
    assert_eq!((book.swarms.len(), book.peers()), (10_000, 10_000));
    assert!(book.heap_bytes() < 10_000 * 200, "{}", book.heap_bytes());
    assert_eq!(book.counts(at(1_000), hash(1)), Some(counts(0, 1, 0)));
    // And when it is over, all is forgotten.
    for _ in 0..2_000 {
        book.counts(at(10_000), hash(1));
    }
    assert_eq!((book.swarms.len(), book.peers()), (0, 0));
}

#[test]
fn a_million_peers_in_one_swarm_take_bounded_memory() {
    let limits = SwarmLimits { peers_per_swarm: 5_000, ..SwarmLimits::default() };
    let (mut book, mut rng) = (book(limits), rng());
    for number in 0..1_000_000_u32 {
        let mixed = number.wrapping_mul(0x9e37_79b1);
        let peer = match number % 2 {
            0 => SocketAddr::new(mixed.to_be_bytes().into(), 1),
            _ => SocketAddr::new((u128::from(mixed) << 64).to_be_bytes().into(), 1),
        };
        let flood = Announce { peer, seed: number % 3 == 0, want: 0, ..leech("1.1.1.1:1") };
        book.announce(at(1), &flood, &mut rng);
    }
    assert_eq!(book.peers(), 5_000);
    assert!(book.heap_bytes() < 5_000 * 2 * 24 + 1_000, "{}", book.heap_bytes());
}

/// The promise is 64 bytes a peer. Heap that is asked for counts in full, and so do the nodes of the tree, which are on
/// average two thirds full; what the allocator adds is in the benchmark.
#[test]
fn a_peer_of_a_small_swarm_takes_few_bytes() {
    for (peers, most) in [(5_u8, 56), (20, 24), (100, 24)] {
        let (mut book, mut rng) = (book(SwarmLimits::default()), rng());
        for number in 0..1_000 {
            for peer in 0..peers {
                let address = SocketAddr::new([1, 1, 1, peer].into(), 1);
                let one = Announce {
                    info_hash: hash(number),
                    seed: peer % 4 == 0,
                    peer: address,
                    ..leech("1.1.1.1:1")
                };
                book.announce(at(1), &one, &mut rng);
            }
        }
        let nodes = book.swarms() * size_of::<(InfoHash, Swarm)>() / 2;
        let each = (book.heap_bytes() + nodes) / book.peers();
        assert!(each <= most, "{peers} peers a swarm: {each} bytes each");
    }
}

/// Also where the last peer by IPv6 leaves others, and where it was refused.
#[test]
fn a_swarm_without_ipv6_has_no_room_for_it() {
    let (mut book, mut rng) = (book(SwarmLimits { peers_per_swarm: 2, ..SwarmLimits::default() }), rng());
    book.announce(at(1), &leech("1.1.1.1:1"), &mut rng);
    let plain = book.heap_bytes();
    let six = leech("[2001:db8::1]:1");
    assert_eq!(book.announce(at(1), &six, &mut rng).counts, counts(0, 2, 0));
    assert!(book.heap_bytes() > plain);
    let gone = Announce { event: Some(Event::Stopped), ..six };
    for _ in 0..2 {
        assert_eq!(book.announce(at(1), &gone, &mut rng).counts, counts(0, 1, 0));
        assert_eq!(book.heap_bytes(), plain);
    }
    book.announce(at(1), &leech("1.1.1.2:1"), &mut rng);
    let (full, told) = (book.heap_bytes(), book.announce(at(1), &six, &mut rng));
    assert_eq!((told.listing, book.heap_bytes()), (Listing::Full, full));
    book.announce(at(1), &Announce { event: Some(Event::Stopped), ..leech("1.1.1.2:1") }, &mut rng);
    book.announce(at(1), &six, &mut rng);
    // In time, the silent one is forgotten.
    book.announce(at(4_000), &leech("1.1.1.1:1"), &mut rng);
    assert_eq!((book.peers(), book.heap_bytes()), (1, plain));
}

#[test]
fn those_who_left_leave_no_memory_behind() {
    let (mut book, mut rng) = (book(SwarmLimits::default()), rng());
    let peers: Vec<SocketAddr> =
        (0..1_000_u32).map(|number| SocketAddr::new(number.to_be_bytes().into(), 1)).collect();
    for event in [Event::Started, Event::Completed, Event::Stopped] {
        for peer in &peers {
            let seed = event == Event::Completed;
            let one = Announce { peer: *peer, seed, event: Some(event), ..leech("1.1.1.1:1") };
            book.announce(at(1), &one, &mut rng);
        }
    }
    assert_eq!(book.counts(at(1), hash(1)), Some(counts(0, 0, 1_000)));
    assert!(book.heap_bytes() < 256, "{}", book.heap_bytes());
}

/// One thing that happens: tenths of a second that pass, then an announce.
type Step = (u32, u32, u8, u16, bool, Option<Event>, usize);

fn step() -> impl Strategy<Value = Step> {
    let event = prop_oneof![
        4 => Just(None),
        1 => Just(Some(Event::Started)),
        2 => Just(Some(Event::Completed)),
        2 => Just(Some(Event::Stopped)),
        1 => Just(Some(Event::Paused)),
    ];
    (0..6_u32, 0..5_u32, 0..6_u8, 0..4_u16, any::<bool>(), event, 0..8_usize)
}

/// The plainest book there is, which looks at everything each time.
#[derive(Default)]
struct Model {
    /// Peers with whether they seed and when they were heard; the count; since when the swarm is empty.
    swarms: BTreeMap<InfoHash, (ModelPeers, u32, u32)>,
}

type ModelPeers = BTreeMap<SocketAddr, (bool, u32)>;

impl Model {
    fn expire(&mut self, now: u32, lifetime: u32) {
        for (peers, _, empty) in self.swarms.values_mut() {
            let before = peers.len();
            peers.retain(|_, (_, heard)| *heard + lifetime >= now);
            if before > 0 && peers.is_empty() {
                *empty = now;
            }
        }
        self.swarms.retain(|_, (peers, completed, _)| !peers.is_empty() || *completed > 0);
    }

    fn peers(&self) -> usize {
        self.swarms.values().map(|(peers, ..)| peers.len()).sum()
    }

    fn network(peer: &SocketAddr) -> Vec<u8> {
        match peer.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets()[..8].to_vec(),
        }
    }

    fn announce(&mut self, now: u32, limits: &SwarmLimits, announce: &Announce) -> Listing {
        let Announce { info_hash, peer, seed, event, .. } = *announce;
        if event == Some(Event::Stopped) {
            if let Some((peers, _, empty)) = self.swarms.get_mut(&info_hash)
                && peers.remove(&peer).is_some()
                && peers.is_empty()
            {
                *empty = now;
            }
            self.swarms.retain(|_, (peers, completed, _)| !peers.is_empty() || *completed > 0);
            return Listing::Unlisted;
        }
        let here = self.swarms.get(&info_hash).map(|(peers, ..)| peers.clone()).unwrap_or_default();
        if !here.contains_key(&peer) {
            let neighbours = here.keys().filter(|other| Self::network(other) == Self::network(&peer)).count();
            if peer.port() == 0 {
                return Listing::Unlisted;
            }
            if self.peers() >= limits.peers || here.len() >= limits.peers_per_swarm {
                return Listing::Full;
            }
            if neighbours >= limits.peers_per_network {
                return Listing::Crowded;
            }
            if !self.swarms.contains_key(&info_hash) && self.swarms.len() >= limits.swarms {
                let empties = self.swarms.iter().filter(|(_, (peers, ..))| peers.is_empty());
                let oldest = empties.map(|(hash, (_, _, since))| (*since, *hash)).min();
                let Some((_, oldest)) = oldest else { return Listing::Full };
                self.swarms.remove(&oldest);
            }
        }
        let (peers, completed, _) = self.swarms.entry(info_hash).or_default();
        let was = peers.insert(peer, (seed, now));
        if seed && event == Some(Event::Completed) && was.is_some_and(|(seed, _)| !seed) {
            *completed += 1;
        }
        Listing::Listed
    }

    fn counts(&self, info_hash: InfoHash) -> Option<SwarmCounts> {
        let (peers, completed, _) = self.swarms.get(&info_hash)?;
        let seeds = peers.values().filter(|(seed, _)| *seed).count() as u32;
        Some(counts(seeds, peers.len() as u32 - seeds, *completed))
    }

    /// Whom the asker may be told.
    fn others(&self, announce: &Announce) -> BTreeSet<SocketAddr> {
        let peers = self.swarms.get(&announce.info_hash).map(|(peers, ..)| peers.clone()).unwrap_or_default();
        let useful = peers.into_iter().filter(|(_, (seed, _))| !(announce.seed && *seed));
        useful.map(|(peer, _)| peer).filter(|peer| *peer != announce.peer).collect()
    }
}

fn peer_of(host: u8, port: u16) -> SocketAddr {
    match host {
        0..3 => SocketAddr::new([1, 1, 1, host].into(), port),
        _ => SocketAddr::new([0x2001, 0, 0, u16::from(host / 5), u16::from(host), 0, 0, 1].into(), port),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn as_the_plainest_book(
        steps in prop::collection::vec(step(), 0..150),
        swarms in 0..5_usize,
        peers in 0..12_usize,
        peers_per_swarm in 0..7_usize,
        peers_per_network in 0..4_usize,
    ) {
        // Short enough to be swept at every call, with few enough swarms for all to be.
        const SHORT: u32 = 15;
        let limits = SwarmLimits { swarms, peers, peers_per_swarm, peers_per_network };
        let mut book = Swarms::new(limits, Duration::from_millis(u64::from(SHORT) * 100));
        let (mut model, mut rng, mut now) = (Model::default(), rng(), 0);
        for (pause, number, host, port, seed, event, want) in steps {
            now += pause;
            let time = Time::from_nanos(u64::from(now) * 100_000_000 + 7);
            let peer = peer_of(host, port);
            let announce = Announce { info_hash: hash(number), peer, seed, event, want };
            model.expire(now, SHORT);
            let expected = model.announce(now, &limits, &announce);
            let told = book.announce(time, &announce, &mut rng);
            prop_assert_eq!(told.listing, expected);
            prop_assert_eq!(told.counts, model.counts(announce.info_hash).unwrap_or_default());
            let others = if event == Some(Event::Stopped) { BTreeSet::new() } else { model.others(&announce) };
            prop_assert_eq!(told.peers.len(), want.min(others.len()));
            let distinct: BTreeSet<SocketAddr> = told.peers.iter().copied().collect();
            prop_assert_eq!(distinct.len(), told.peers.len());
            prop_assert!(distinct.is_subset(&others), "{:?} {:?}", distinct, others);
            prop_assert_eq!(book.peers(), model.peers());
            let filled = model.swarms.values().filter(|(peers, ..)| !peers.is_empty()).count();
            prop_assert_eq!(book.swarms(), filled);
            prop_assert!(book.swarms.len() <= swarms && book.peers() <= peers);
            for number in 0..5 {
                prop_assert_eq!(book.counts(time, hash(number)), model.counts(hash(number)));
            }
        }
    }

    #[test]
    fn odd_addresses_times_and_wants_do_not_panic(
        steps in prop::collection::vec(
            (any::<u64>(), any::<u8>(), any::<[u8; 16]>(), any::<bool>(), any::<u16>(), any::<bool>(), any::<usize>()),
            0..60,
        ),
        lifetime in any::<u64>(),
    ) {
        // Times go backwards, too: nothing may rely on the caller's clock.
        let mut book = Swarms::new(SwarmLimits::default(), Duration::from_nanos(lifetime));
        let mut rng = rng();
        for (nanos, number, ip, short, port, seed, want) in steps {
            let ip: IpAddr = if short { [ip[0], ip[1], ip[2], ip[3]].into() } else { ip.into() };
            let announce =
                Announce { info_hash: hash(number.into()), peer: SocketAddr::new(ip, port), seed, event: None, want };
            let told = book.announce(Time::from_nanos(nanos), &announce, &mut rng);
            prop_assert!(told.peers.len() <= 60);
            prop_assert_eq!(told.listing == Listing::Listed, port != 0);
        }
    }
}
