use super::*;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

const OWN: PeerId = PeerId([0; 20]);

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(3)
}

fn at(secs: u64) -> Time {
    Time::ZERO + Duration::from_secs(secs)
}

/// Address number `n` of 1.0.0.0/8.
fn host(n: u32) -> SocketAddr {
    SocketAddr::new(std::net::Ipv4Addr::from(0x0100_0000 + n).into(), 6881)
}

fn id(n: u8) -> PeerId {
    PeerId([n; 20])
}

fn swarm() -> Swarm {
    Swarm::new(OWN, SwarmLimits::default())
}

#[test]
fn learns_what_can_be_dialed_once() {
    let mut swarm = swarm();
    assert!(swarm.learn("[::ffff:1.2.3.4]:5".parse().unwrap(), PeerSource::Pex, at(0)));
    assert!(!swarm.learn("1.2.3.4:5".parse().unwrap(), PeerSource::Tracker, at(0)));
    assert!(!swarm.learn("1.2.3.4:0".parse().unwrap(), PeerSource::Tracker, at(0)));
    assert!(swarm.learn("1.2.3.4:6".parse().unwrap(), PeerSource::Tracker, at(0)));
    assert_eq!(swarm.counts(), SwarmCounts { known: 2, waiting: 2, ..SwarmCounts::default() });
}

#[test]
fn dials_each_once_and_manual_first() {
    let (mut swarm, mut rng) = (swarm(), rng());
    for n in 0..10 {
        swarm.learn(host(n), PeerSource::Tracker, at(0));
    }
    swarm.learn(host(99), PeerSource::Manual, at(0));
    let order: Vec<_> =
        std::iter::from_fn(|| swarm.next_to_dial(at(0), &mut rng, &Outside::default())).collect();
    assert_eq!(order[0], host(99));
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_ne!(order[1..], sorted[..10], "not in order of addresses");
    assert_eq!(sorted.len(), 11);
    assert_eq!((swarm.counts().dialing, swarm.next_due()), (11, Time::NEVER));
}

#[test]
fn when_the_network_is_back_everybody_who_waits_is_due_and_has_failed_never() {
    let (mut swarm, mut rng) = (swarm(), rng());
    for n in 0..3 {
        swarm.learn(host(n), PeerSource::Tracker, at(0));
    }
    let mut dial = |swarm: &mut Swarm, now| swarm.next_to_dial(now, &mut rng, &Outside::default());
    let (one, two) = (dial(&mut swarm, at(0)).unwrap(), dial(&mut swarm, at(0)).unwrap());
    swarm.dial_failed(one, at(1));
    assert_eq!(swarm.connected(two, id(2), false, at(1)), Ok(()));
    // Six failures in a row would make it forgotten; here is one less.
    for failure in 1..SwarmLimits::default().failures - 1 {
        let due = at(u64::from(failure) * 10_000);
        swarm.dialed(one);
        swarm.dial_failed(one, due);
    }
    assert_eq!(dial(&mut swarm, at(1)).map(|third| third != one && third != two), Some(true));
    assert_eq!(dial(&mut swarm, at(40_001)), None, "a pause of an hour, at most");
    swarm.reconsider(at(40_001));
    assert_eq!(dial(&mut swarm, at(40_001)), Some(one));
    assert_eq!(dial(&mut swarm, at(40_001)), None, "neither who is dialed nor who is connected");
    swarm.dial_failed(one, at(40_001));
    assert_eq!(swarm.counts().known, 3, "it begins to count anew");
}

#[test]
fn of_those_due_the_one_worth_most_is_dialed_first() {
    let (mut swarm, mut rng) = (swarm(), rng());
    let [high, low]: [SocketAddr; 2] =
        ["98.76.54.32:1", "123.213.32.234:1"].map(|addr| addr.parse().unwrap());
    swarm.learn(low, PeerSource::Tracker, at(0));
    swarm.learn(high, PeerSource::Tracker, at(0));
    let outside = Outside { v4: Some("123.213.32.10".parse().unwrap()), ..Outside::at(1) };
    let order: Vec<_> = std::iter::from_fn(|| swarm.next_to_dial(at(0), &mut rng, &outside)).collect();
    assert_eq!(order, [high, low]);
}

#[test]
fn failures_double_the_pause_and_end_in_oblivion() {
    let (mut swarm, mut rng, mut now) = (swarm(), rng(), at(0));
    swarm.learn(host(1), PeerSource::Tracker, now);
    for minutes in [1, 2, 4, 8, 16, 32] {
        assert_eq!(swarm.next_to_dial(now, &mut rng, &Outside::default()), Some(host(1)));
        swarm.dial_failed(host(1), now);
        swarm.dial_failed(host(1), now);
        let pause = swarm.next_due().since(now);
        let least = Duration::from_secs(minutes * 60);
        assert!(pause >= least && pause <= least * 5 / 4, "{minutes} min: {pause:?}");
        assert_eq!(swarm.next_to_dial(now, &mut rng, &Outside::default()), None);
        assert!(
            !swarm.learn(host(1), PeerSource::Dht, now),
            "hearing of it again does not shorten the pause"
        );
        assert_eq!(swarm.next_due().since(now), pause);
        now = swarm.next_due();
    }
    swarm.next_to_dial(now, &mut rng, &Outside::default());
    swarm.dial_failed(host(1), now);
    assert_eq!(swarm.counts(), SwarmCounts::default());
}

#[test]
fn manual_peers_are_retried_for_ever() {
    let (mut swarm, mut rng, mut now) = (swarm(), rng(), at(0));
    swarm.learn(host(1), PeerSource::Manual, now);
    let mut pauses = Vec::new();
    for _ in 0..40 {
        assert_eq!(swarm.next_to_dial(now, &mut rng, &Outside::default()), Some(host(1)));
        swarm.dial_failed(host(1), now);
        pauses.push(swarm.next_due().since(now).as_millis());
        now = swarm.next_due();
    }
    assert!((1_000..=1_250).contains(&pauses[0]) && (2_000..=2_500).contains(&pauses[1]), "{pauses:?}");
    assert!(pauses[10..].iter().all(|pause| *pause == 30_000), "{pauses:?}");
    assert_eq!(swarm.next_to_dial(now, &mut rng, &Outside::default()), Some(host(1)));
    swarm.connected(host(1), id(1), false, now).unwrap();
    swarm.disconnected(host(1), now, Why::Normal);
    assert_eq!(swarm.next_due(), now + Duration::from_secs(1));
    // An address the user names after it failed is due at once.
    swarm.learn(host(2), PeerSource::Tracker, now);
    swarm.dialed(host(2));
    swarm.dial_failed(host(2), now);
    swarm.learn(host(2), PeerSource::Manual, now);
    assert_eq!(swarm.next_to_dial(now, &mut rng, &Outside::default()), Some(host(2)));
}

#[test]
fn how_a_connection_ended_decides_when_it_is_dialed_again() {
    let rows = [(Why::Normal, 60, 60), (Why::Idle, 600, 600), (Why::Fault, 60, 75)];
    for (why, least, most) in rows {
        let mut swarm = swarm();
        swarm.learn(host(1), PeerSource::Tracker, at(0));
        swarm.dialed(host(1));
        swarm.connected(host(1), id(1), false, at(5)).unwrap();
        assert!(swarm.is_connected(host(1)) && swarm.next_due() == Time::NEVER);
        swarm.dial_failed(host(1), at(9));
        swarm.disconnected(host(1), at(10), why);
        let pause = swarm.next_due().since(at(10)).as_secs();
        assert!((least..=most).contains(&pause), "{why:?}: {pause}");
        swarm.disconnected(host(1), at(99), Why::Normal);
        assert_eq!(swarm.next_due().since(at(10)).as_secs(), pause, "told twice, heard once");
    }
}

#[test]
fn a_peer_that_always_faults_is_forgotten() {
    let (mut swarm, mut rng, mut now) = (swarm(), rng(), at(0));
    swarm.learn(host(1), PeerSource::Tracker, now);
    for _ in 0..7 {
        assert_eq!(swarm.next_to_dial(now, &mut rng, &Outside::default()), Some(host(1)));
        swarm.connected(host(1), id(1), false, now).unwrap();
        swarm.disconnected(host(1), now, Why::Fault);
        now = swarm.next_due();
    }
    assert_eq!(swarm.counts().known, 0);
}

#[test]
fn duplicates_are_found_by_address_and_by_id() {
    let mut swarm = swarm();
    swarm.learn(host(1), PeerSource::Tracker, at(0));
    swarm.learn(host(2), PeerSource::Tracker, at(0));
    swarm.connected(host(1), id(1), false, at(0)).unwrap();
    assert_eq!(swarm.connected(host(1), id(2), true, at(0)), Err(Refusal::Duplicate));
    assert_eq!(swarm.connected(host(3), id(1), true, at(0)), Err(Refusal::Duplicate));
    assert_eq!(swarm.counts().known, 2, "a refused caller leaves no trace");
    // The same peer under a second address: not dialed until the connection ends.
    swarm.dialed(host(2));
    assert_eq!(swarm.connected(host(2), id(1), false, at(0)), Err(Refusal::Duplicate));
    assert_eq!(swarm.next_due(), Time::NEVER);
    assert_eq!(swarm.counts().connected, 1);
    swarm.disconnected(host(1), at(10), Why::Normal);
    assert_eq!((swarm.counts().waiting, swarm.next_due()), (2, at(70)));
    swarm.connected(host(2), id(1), false, at(80)).unwrap();
}

#[test]
fn a_caller_is_dialed_only_where_it_listens() {
    let (mut swarm, mut rng) = (swarm(), rng());
    let caller: SocketAddr = "9.9.9.9:50000".parse().unwrap();
    let listens: SocketAddr = "9.9.9.9:6881".parse().unwrap();
    swarm.connected(caller, id(1), true, at(0)).unwrap();
    swarm.disconnected(caller, at(1), Why::Normal);
    assert_eq!(swarm.counts(), SwarmCounts::default());

    swarm.learn(listens, PeerSource::Tracker, at(2));
    assert_eq!(swarm.next_to_dial(at(2), &mut rng, &Outside::default()), Some(listens));
    swarm.connected(caller, id(1), true, at(2)).unwrap();
    swarm.listens_at(caller, 6881, at(3));
    swarm.set_seed(caller, true);
    assert_eq!(swarm.connected(listens, id(1), false, at(4)), Err(Refusal::Duplicate), "both called at once");
    assert_eq!(swarm.next_due(), Time::NEVER);
    swarm.disconnected(caller, at(10), Why::Idle);
    assert_eq!(swarm.next_due(), at(610));
    assert_eq!(swarm.counts(), SwarmCounts { known: 1, waiting: 1, seeds: 1, ..SwarmCounts::default() });
    // uTP calls from the port it listens at.
    swarm.connected(host(7), id(7), true, at(20)).unwrap();
    swarm.listens_at(host(7), 6881, at(20));
    swarm.disconnected(host(7), at(20), Why::Normal);
    assert_eq!(swarm.next_due(), at(80));
    swarm.listens_at(host(8), 1, at(20));
    assert_eq!(swarm.counts().known, 2);
}

#[test]
fn we_do_not_dial_ourselves_twice() {
    let mut swarm = swarm();
    swarm.learn(host(1), PeerSource::Manual, at(0));
    swarm.dialed(host(1));
    assert_eq!(swarm.connected(host(1), OWN, false, at(0)), Err(Refusal::Ourselves));
    assert_eq!(swarm.connected(host(2), OWN, true, at(0)), Err(Refusal::Ourselves));
    assert_eq!(swarm.counts().known, 0);
    assert!(!swarm.learn(host(1), PeerSource::Tracker, at(1)));
    assert!(swarm.learn(host(2), PeerSource::Tracker, at(1)), "a caller's port says nothing");
    for n in 100..300 {
        swarm.connected(host(n), OWN, false, at(0)).unwrap_err();
    }
    assert!(swarm.own.len() <= MOST_OWN);
}

#[test]
fn the_banned_stay_out() {
    let mut swarm = swarm();
    let mapped: IpAddr = "::ffff:1.0.0.1".parse().unwrap();
    let second = SocketAddr::new(host(1).ip(), 7_000);
    swarm.learn(host(1), PeerSource::Tracker, at(0));
    swarm.connected(second, id(1), false, at(0)).unwrap();
    swarm.learn(host(2), PeerSource::Tracker, at(0));
    swarm.ban(mapped);
    swarm.ban(mapped);
    assert!(swarm.is_banned(host(1).ip()) && swarm.is_banned(mapped) && !swarm.is_banned(host(2).ip()));
    assert!(swarm.is_connected(second) && !swarm.learn(host(1), PeerSource::Manual, at(0)));
    assert_eq!(swarm.connected(host(1), id(9), true, at(0)), Err(Refusal::Banned));
    swarm.disconnected(second, at(1), Why::Fault);
    assert_eq!(swarm.counts(), SwarmCounts { known: 1, waiting: 1, banned: 1, ..SwarmCounts::default() });
    assert_eq!(swarm.banned().collect::<Vec<_>>(), [host(1).ip()]);
    (0..10_000).for_each(|n| swarm.ban(host(n).ip()));
    assert_eq!((swarm.counts().banned, swarm.ban_order.len()), (MOST_BANS, MOST_BANS));
    assert!(swarm.is_banned(host(9_999).ip()) && !swarm.is_banned(host(1).ip()));
}

#[test]
fn an_ip_address_may_be_crowded() {
    let mut swarm = Swarm::new(OWN, SwarmLimits { per_ip: 2, ..SwarmLimits::default() });
    let mut rng = rng();
    let local = |port| SocketAddr::new("127.0.0.1".parse().unwrap(), port);
    for port in 1..=40 {
        swarm.learn(local(port), PeerSource::Tracker, at(0));
    }
    swarm.learn(host(1), PeerSource::Tracker, at(1));
    for n in 1..=2 {
        let addr = swarm.next_to_dial(at(0), &mut rng, &Outside::default()).unwrap();
        swarm.connected(addr, id(n), false, at(0)).unwrap();
    }
    assert_eq!(swarm.connected(local(99), id(3), true, at(0)), Err(Refusal::Crowded));
    assert!(swarm.connected(local(40), id(3), false, at(0)).is_err());
    assert_eq!(
        swarm.next_to_dial(at(1), &mut rng, &Outside::default()),
        Some(host(1)),
        "the crowd does not hide who stands behind"
    );
    assert_eq!(swarm.next_to_dial(at(1), &mut rng, &Outside::default()), None);
    let (one, _) = swarm.known.iter().find(|(_, known)| known.state == State::Connected).unwrap();
    swarm.disconnected(*one, at(2), Why::Normal);
    assert!(swarm.next_to_dial(at(61), &mut rng, &Outside::default()).is_some());
}

#[test]
fn seeds_are_not_dialed_by_seeds() {
    let (mut swarm, mut rng) = (swarm(), rng());
    swarm.learn(host(1), PeerSource::Tracker, at(0));
    swarm.learn(host(2), PeerSource::Tracker, at(0));
    swarm.set_seed(host(1), true);
    swarm.set_seeding(true);
    assert_eq!(swarm.next_to_dial(at(0), &mut rng, &Outside::default()), Some(host(2)));
    assert_eq!(
        (swarm.next_to_dial(at(0), &mut rng, &Outside::default()), swarm.next_due()),
        (None, Time::NEVER)
    );
    swarm.set_seeding(false);
    assert_eq!(swarm.next_to_dial(at(0), &mut rng, &Outside::default()), Some(host(1)));
}

#[test]
fn a_full_list_keeps_the_better() {
    let mut swarm = Swarm::new(OWN, SwarmLimits { addresses: 3, ..SwarmLimits::default() });
    for n in 1..=3 {
        assert!(swarm.learn(host(n), PeerSource::Dht, at(0)));
    }
    assert!(!swarm.learn(host(4), PeerSource::Dht, at(0)), "no better");
    assert!(swarm.learn(host(4), PeerSource::Tracker, at(0)), "more trusted");
    swarm.dialed(host(4));
    swarm.dial_failed(host(4), at(0));
    assert!(swarm.learn(host(5), PeerSource::Pex, at(0)), "the failed one goes");
    assert!(!swarm.known.contains_key(&host(4)));
    for n in [6, 7, 8] {
        assert!(swarm.learn(host(n), PeerSource::Manual, at(0)));
    }
    assert!(!swarm.learn(host(9), PeerSource::Manual, at(0)), "the user's own are never dropped");
    assert_eq!(swarm.counts().known, 3);
}

#[test]
fn what_answered_is_worth_keeping() {
    let mut swarm = swarm();
    for n in 1..=5 {
        swarm.learn(host(n), PeerSource::Tracker, at(0));
    }
    for (n, now) in [(2, 10), (3, 20), (4, 15)] {
        swarm.connected(host(n), id(n as u8), false, at(now)).unwrap();
    }
    swarm.disconnected(host(3), at(30), Why::Normal);
    swarm.disconnected(host(4), at(30), Why::Fault);
    swarm.connected(host(50), id(50), true, at(40)).unwrap();
    assert_eq!(swarm.worth_keeping(9), [host(2), host(3), host(1), host(5)]);
    assert_eq!(swarm.worth_keeping(1), [host(2)]);
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Learn(u32, PeerSource),
    Dial,
    Failed(u32),
    Connected(u32, u8, bool),
    Listens(u32, u32),
    Disconnected(u32, Why),
    Ban(u32),
    Seed(u32, bool),
    Seeding(bool),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    use PeerSource::*;
    let source = prop::sample::select(vec![Manual, Resume, Lsd, Incoming, Tracker, Dht, Pex]);
    let why = prop::sample::select(vec![Why::Fault, Why::Idle, Why::Normal]);
    prop_oneof![
        4 => (0u32..30, source).prop_map(|(n, source)| Op::Learn(n, source)),
        6 => Just(Op::Dial),
        3 => (0u32..30).prop_map(Op::Failed),
        5 => (0u32..30, 0u8..12, any::<bool>()).prop_map(|(n, id, incoming)| Op::Connected(n, id, incoming)),
        2 => (0u32..30, 0u32..30).prop_map(|(n, port)| Op::Listens(n, port)),
        4 => (0u32..30, why).prop_map(|(n, why)| Op::Disconnected(n, why)),
        1 => (0u32..10).prop_map(Op::Ban),
        1 => (0u32..30, any::<bool>()).prop_map(|(n, seed)| Op::Seed(n, seed)),
        1 => any::<bool>().prop_map(Op::Seeding),
        3 => (0u64..300).prop_map(Op::Wait),
    ]
}

/// Ten hosts with three ports each.
fn place(n: u32) -> SocketAddr {
    SocketAddr::new(host(n % 10).ip(), (n / 10 + 1) as u16)
}

proptest! {
    #[test]
    fn laws(ops in prop::collection::vec(op(), 1..200), per_ip in 1usize..4, addresses in 1usize..20) {
        let mut swarm = Swarm::new(OWN, SwarmLimits { addresses, per_ip, failures: 2 });
        let (mut rng, mut now) = (rng(), at(0));
        for op in ops {
            match op {
                Op::Learn(n, source) => drop(swarm.learn(place(n), source, now)),
                Op::Dial => {
                    if let Some(addr) = swarm.next_to_dial(now, &mut rng, &Outside::default()) {
                        prop_assert!(!swarm.is_banned(addr.ip()) && !swarm.is_connected(addr));
                        prop_assert!(swarm.known[&addr].due <= now);
                    } else {
                        prop_assert!(swarm.next_due() > now);
                    }
                }
                Op::Failed(n) => swarm.dial_failed(place(n), now),
                Op::Connected(n, who, incoming) => {
                    let twin = swarm.twin(place(n), id(who), incoming, now);
                    if let Twin::Yields(other) = twin {
                        swarm.disconnected(other, now, Why::Normal);
                    }
                    let before = swarm.counts().connected;
                    let stood = swarm.is_connected(place(n));
                    let admitted = swarm.connected(place(n), id(who), incoming, now).is_ok();
                    prop_assert!(!(admitted && (who == 0 || stood)));
                    match twin {
                        Twin::Yields(other) => {
                            prop_assert!(admitted);
                            swarm.replaced(place(n), other);
                        }
                        Twin::Stays => prop_assert!(!admitted),
                        Twin::None => {}
                    }
                    prop_assert_eq!(swarm.counts().connected, before + usize::from(admitted));
                }
                Op::Listens(n, port) => swarm.listens_at(place(n), (port % 4) as u16, now),
                Op::Disconnected(n, why) => {
                    swarm.disconnected(place(n), now, why);
                    prop_assert!(!swarm.is_connected(place(n)));
                }
                Op::Ban(n) => swarm.ban(place(n).ip()),
                Op::Seed(n, seed) => swarm.set_seed(place(n), seed),
                Op::Seeding(seeding) => swarm.set_seeding(seeding),
                Op::Wait(secs) => now = now + Duration::from_secs(secs),
            }
            check(&swarm)?;
        }
    }
}

fn check(swarm: &Swarm) -> Result<(), TestCaseError> {
    let counts = swarm.counts();
    let waiting: BTreeSet<_> = swarm
        .known
        .iter()
        .filter(|(_, known)| known.may_queue(swarm.seeding))
        .map(|(addr, known)| (known.due, mixed(*addr, &OWN), *addr))
        .collect();
    prop_assert_eq!(&waiting, &swarm.queue);
    prop_assert_eq!(swarm.ids.len(), counts.connected);
    prop_assert_eq!(swarm.crowd.values().sum::<usize>(), counts.connected);
    prop_assert!(swarm.crowd.values().all(|count| (1..=swarm.limits.per_ip).contains(count)));
    let listed = |known: &&Known| known.state != State::Connected && known.source != PeerSource::Manual;
    prop_assert!(swarm.known.values().filter(listed).count() <= swarm.limits.addresses);
    for (addr, known) in &swarm.known {
        prop_assert_eq!(known.id.is_some(), known.state == State::Connected);
        prop_assert!(known.dialable || known.state == State::Connected);
        if known.state == State::Elsewhere {
            let holders = swarm.known.values().filter(|other| other.also == Some(*addr)).count();
            prop_assert!(holders >= 1, "{} waits for nobody", addr);
        }
    }
    Ok(())
}

mod twins {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Takes a connection as a Controller does; whether it stays.
    fn meets(swarm: &mut Swarm, at_addr: SocketAddr, peer_id: PeerId, incoming: bool, now: Time) -> bool {
        let twin = swarm.twin(at_addr, peer_id, incoming, now);
        if let Twin::Yields(other) = twin {
            swarm.disconnected(other, now, Why::Normal);
        }
        let stays = swarm.connected(at_addr, peer_id, incoming, now).is_ok();
        assert_eq!(stays, twin != Twin::Stays, "{twin:?}");
        if let Twin::Yields(other) = twin {
            swarm.replaced(at_addr, other);
        }
        stays
    }

    /// A connection as its two ends see it: who dialed, and the other's address at the one with the low and the one
    /// with the high id.
    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Link(bool, &'static str, &'static str);

    /// The connection that stays at one end, when it hears of them in this order.
    fn kept(high: bool, order: [Link; 2], apart: u64) -> Link {
        let (own, other) = if high { (id(9), id(3)) } else { (id(3), id(9)) };
        let mut swarm = Swarm::new(own, SwarmLimits::default());
        let mut kept = order[0];
        for (nth, link) in order.into_iter().enumerate() {
            let Link(high_dialed, to_high, to_low) = link;
            let peer = addr(if high { to_low } else { to_high });
            if high_dialed == high {
                swarm.learn(peer, PeerSource::Tracker, at(0));
                swarm.dialed(peer);
            }
            if meets(&mut swarm, peer, other, high_dialed != high, at(nth as u64 * apart)) {
                kept = link;
            }
            assert_eq!(swarm.counts().connected, 1);
            check(&swarm).unwrap();
        }
        kept
    }

    #[test]
    fn of_two_dials_at_once_both_ends_keep_the_same_in_whatever_order_they_hear_of_them() {
        // The one with the low id is at 1.1.1.1 and ::1, the other at 2.2.2.2 and ::2.
        let (low, high) =
            (Link(false, "2.2.2.2:6881", "1.1.1.1:50001"), Link(true, "2.2.2.2:50002", "1.1.1.1:6881"));
        // uTP: all comes from the port that is listened on.
        let (low_utp, high_utp) =
            (Link(false, "2.2.2.2:6881", "1.1.1.1:6881"), Link(true, "2.2.2.2:6881", "1.1.1.1:6881"));
        let (low_v6, high_v6) =
            (Link(false, "[2::2]:6881", "[1::1]:50001"), Link(true, "[2::2]:50002", "[1::1]:6881"));
        let rows = [
            (low, high, high),
            (low_utp, high_utp, high_utp),
            (low, high_utp, high_utp),
            (low_utp, high, high),
            (low_v6, high_v6, high_v6),
            // Each by another family: who dials counts for more than how.
            (low_v6, high, high),
            (low, high_v6, high_v6),
            // One dials the other twice.
            (low, low_v6, low_v6),
            (high, high_v6, high_v6),
        ];
        for (one, two, expected) in rows {
            for end in [false, true] {
                for order in [[one, two], [two, one]] {
                    assert_eq!(kept(end, order, 0), expected, "{order:?} at the one with the high id: {end}");
                    assert_eq!(kept(end, order, 1), expected, "{order:?} at the one with the high id: {end}");
                }
            }
        }
    }

    #[test]
    fn of_an_old_connection_only_its_own_address_can_be_rid() {
        let (low, high) =
            (Link(false, "2.2.2.2:6881", "1.1.1.1:50001"), Link(true, "2.2.2.2:50002", "1.1.1.1:6881"));
        let stranger = Link(true, "6.6.6.6:50002", "6.6.6.6:6881");
        for end in [false, true] {
            assert_eq!(kept(end, [low, high], 3600), high);
            assert_eq!(kept(end, [high, low], 3600), high);
            assert_eq!(kept(end, [low, stranger], 29), stranger);
            assert_eq!(kept(end, [low, stranger], 30), low);
        }
    }

    #[test]
    fn who_took_a_place_holds_both_addresses() {
        let mut swarm = Swarm::new(id(3), SwarmLimits::default());
        let (listens, calls) = (addr("2.2.2.2:6881"), addr("2.2.2.2:50000"));
        swarm.learn(listens, PeerSource::Tracker, at(0));
        swarm.dialed(listens);
        assert!(meets(&mut swarm, listens, id(9), false, at(0)));
        assert!(meets(&mut swarm, calls, id(9), true, at(1)));
        assert_eq!(swarm.next_due(), Time::NEVER, "it is connected, and not to be dialed");
        swarm.disconnected(calls, at(10), Why::Normal);
        assert_eq!(swarm.next_due(), at(70));
    }

    #[test]
    fn nobody_yields_to_whom_will_be_refused() {
        let limits = SwarmLimits { per_ip: 1, ..SwarmLimits::default() };
        let mut swarm = Swarm::new(id(3), limits);
        swarm.connected(addr("2.2.2.2:6881"), id(9), false, at(0)).unwrap();
        swarm.connected(addr("4.4.4.4:1"), id(4), true, at(0)).unwrap();
        assert_eq!(swarm.twin(addr("4.4.4.4:2"), id(9), true, at(0)), Twin::Stays);
        assert_eq!(swarm.twin(addr("4.4.4.4:1"), id(9), true, at(0)), Twin::Stays);
        assert_eq!(swarm.twin(addr("2.2.2.2:6881"), id(5), true, at(0)), Twin::Stays);
        assert_eq!(swarm.twin(addr("5.5.5.5:2"), id(5), true, at(0)), Twin::None);
        assert_eq!(swarm.twin(addr("2.2.2.2:7"), id(9), true, at(0)), Twin::Yields(addr("2.2.2.2:6881")));
        swarm.ban(addr("5.5.5.5:2").ip());
        assert_eq!(swarm.twin(addr("5.5.5.5:2"), id(9), true, at(0)), Twin::Stays);
    }
}

#[test]
fn those_never_met_are_dialed_before_those_met_long_ago() {
    let (mut swarm, mut rng) = (swarm(), rng());
    for n in 1..4 {
        swarm.learn(host(n), PeerSource::Tracker, at(0));
    }
    for (n, now) in [(1, 5), (2, 1)] {
        swarm.connected(host(n), id(n as u8), false, at(now)).unwrap();
        swarm.disconnected(host(n), at(now), Why::Idle);
    }
    assert_eq!((swarm.due(at(10), 9), swarm.due(at(900), 9), swarm.due(at(900), 2)), (1, 3, 2));
    let order: Vec<_> =
        std::iter::from_fn(|| swarm.next_to_dial(at(900), &mut rng, &Outside::default())).collect();
    assert_eq!(order, [host(3), host(2), host(1)]);
}

#[test]
fn the_users_own_are_known_by_either_address() {
    let mut swarm = swarm();
    swarm.learn(host(1), PeerSource::Manual, at(0));
    let calls = SocketAddr::new(host(1).ip(), 50_000);
    swarm.connected(calls, id(1), true, at(0)).unwrap();
    assert!(!swarm.is_manual(calls));
    swarm.listens_at(calls, 6881, at(0));
    assert!(swarm.is_manual(calls) && swarm.is_manual(host(1)) && !swarm.is_manual(host(2)));
}
