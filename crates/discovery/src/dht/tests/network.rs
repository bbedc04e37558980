//! Nodes that speak to one another.

use super::*;
use crate::dice;

/// A network in which every datagram arrives after 20 ms.
struct Network {
    nodes: Vec<(SocketAddr, Dht)>,
    places: BTreeMap<SocketAddr, usize>,
    /// When it arrives, a number to keep the order, from, to.
    flying: BTreeMap<(Time, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    /// When each node wants a beat.
    due: BTreeSet<(Time, usize)>,
    dues: Vec<Time>,
    sent: u64,
    now: Time,
    news: Vec<(usize, News)>,
}

impl Network {
    fn new(size: usize, family: Family, home: bool) -> Network {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let mut network = Network {
            nodes: Vec::new(),
            places: BTreeMap::new(),
            flying: BTreeMap::new(),
            due: (0..size).map(|at| (Time::ZERO, at)).collect(),
            dues: vec![Time::ZERO; size],
            sent: 0,
            now: Time::ZERO,
            news: Vec::new(),
        };
        for number in 0..size {
            let [high, low] = (number as u16).to_be_bytes();
            let addr = match (family, home) {
                (Family::V4, true) => SocketAddr::from(([127, 0, 0, 1], 1_000 + number as u16)),
                (Family::V4, false) => SocketAddr::from(([20 + high, low, 1, 1], 6_881)),
                (Family::V6, _) => {
                    SocketAddr::from(([0x2001, 0xd00 + number as u16, 0, 0, 0, 0, 0, 1], 6_881))
                }
            };
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            let mut dht = Dht::new(network.now, Settings::new(family), seed);
            if number > 0 {
                let known = dice::below(number, &mut rng);
                dht.add_node(network.nodes[known].0);
            }
            network.places.insert(addr, number);
            network.nodes.push((addr, dht));
        }
        network
    }

    fn send(&mut self, at: usize, out: DhtOut) {
        let from = self.nodes[at].0;
        self.news.extend(out.news.into_iter().map(|news| (at, news)));
        for (to, bytes) in out.datagrams {
            self.sent += 1;
            self.flying.insert((self.now + Duration::from_millis(20), self.sent), (from, to, bytes));
        }
    }

    fn command<T>(&mut self, at: usize, command: impl FnOnce(&mut Dht, Time, &mut DhtOut) -> T) -> T {
        let mut out = DhtOut::default();
        let result = command(&mut self.nodes[at].1, self.now, &mut out);
        self.due.remove(&(self.dues[at], at));
        self.dues[at] = self.nodes[at].1.next_due();
        self.due.insert((self.dues[at], at));
        self.send(at, out);
        result
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let (due, beat) = self.due.first().copied().unwrap_or((Time::NEVER, 0));
            let arrival = self.flying.first_key_value().map_or(Time::NEVER, |((when, _), _)| *when);
            if due.min(arrival) > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(due.min(arrival));
            if arrival <= due {
                let Some((_, (from, to, bytes))) = self.flying.pop_first() else { return };
                if let Some(at) = self.places.get(&to).copied() {
                    self.command(at, |dht, now, out| dht.on_packet(now, from, &bytes, None, out));
                }
            } else {
                self.command(beat, |dht, now, out| dht.heartbeat(now, out));
            }
        }
    }

    fn summary(&self, lookup: LookupId, at: usize) -> Summary {
        let done = self.news.iter().find_map(|(place, news)| match news {
            News::Done { lookup: done, summary } if (*place, *done) == (at, lookup) => Some(summary.clone()),
            _ => None,
        });
        done.expect("it has ended")
    }

    /// The `count` nodes nearest to `target` of all there are.
    fn nearest(&self, target: NodeId, count: usize) -> Vec<SocketAddr> {
        let mut all: Vec<_> =
            self.nodes.iter().map(|(addr, dht)| (dht.id().distance(target), *addr)).collect();
        all.sort_unstable();
        all.into_iter().take(count).map(|(_, addr)| addr).collect()
    }
}

#[test]
fn three_hundred_nodes_find_one_another() {
    let mut network = Network::new(300, Family::V4, false);
    network.run(120 * SECOND);
    assert!(network.nodes.iter().all(|(_, dht)| dht.facts(network.now).nodes >= 8));
    let (mut hits, mut rounds) = (0, 0);
    for number in 0..20_u8 {
        let target = NodeId([number.wrapping_mul(97); 20]);
        let at = usize::from(number) * 13 + 1;
        let lookup = network.command(at, |dht, now, out| dht.find_node(now, target, out).unwrap());
        network.run(30 * SECOND);
        let summary = network.summary(lookup, at);
        let nearest = network.nearest(target, 9);
        hits += summary.nodes.iter().filter(|(_, addr)| nearest.contains(addr)).count();
        rounds = rounds.max(summary.rounds);
    }
    assert!(hits >= 150 && rounds <= 6, "{hits} of 160 in {rounds} rounds");
}

#[test]
fn a_network_at_home_finds_announced_peers_and_items() {
    for (family, home) in [(Family::V4, true), (Family::V6, false)] {
        let mut network = Network::new(40, family, home);
        network.run(60 * SECOND);
        let info_hash = InfoHash([0x5a; 20]);
        let announce = Some(Announce { port: 7_777, implied_port: false, seed: true });
        let search = PeerSearch { info_hash, announce, scrape: false, no_seed: false };
        let lookup = network.command(7, |dht, now, out| dht.get_peers(now, search, out).unwrap());
        network.run(20 * SECOND);
        assert_eq!(network.summary(lookup, 7).stored, 8);

        let search = PeerSearch { info_hash, announce: None, scrape: true, no_seed: false };
        let lookup = network.command(31, |dht, now, out| dht.get_peers(now, search, out).unwrap());
        network.run(20 * SECOND);
        let (seeds, leeches) = network.summary(lookup, 31).scrape.unwrap();
        assert!((seeds - 1.0).abs() < 0.1 && leeches == 0.0, "{seeds} {leeches}");
        let found = network.news.iter().find_map(|(at, news)| match news {
            News::PeersFound { lookup: by, peers, .. } if (*at, *by) == (31, lookup) => Some(peers.clone()),
            _ => None,
        });
        assert_eq!(found, Some(vec![SocketAddr::new(network.nodes[7].0.ip(), 7_777)]));

        let secret = SecretKey::from_seed(&[9; 32]);
        let long = [b"900:", &[b'x'; 900][..]].concat();
        let items =
            [Item::immutable(long.clone()).unwrap(), Item::sign(&secret, b"s".to_vec(), 1, long).unwrap()];
        for item in items {
            let target = item.target();
            let salt = item.signed.as_ref().map_or(vec![], |signed| signed.salt.clone());
            let put = item.clone();
            let lookup = network.command(3, |dht, now, out| dht.put(now, put, None, out).unwrap());
            network.run(20 * SECOND);
            assert_eq!(network.summary(lookup, 3).stored, 8);
            let lookup = network.command(20, |dht, now, out| dht.get(now, target, &salt, out).unwrap());
            network.run(20 * SECOND);
            network.summary(lookup, 20);
            let got: Vec<_> = network.news.iter().filter(|(_, news)| {
                matches!(news, News::Value { lookup: by, item: got } if *by == lookup && *got == item)
            }).collect();
            assert_eq!(got.len(), 1, "told once");
        }
        let older = Item::sign(&secret, b"s".to_vec(), 0, b"1:a".to_vec()).unwrap();
        let lookup = network.command(3, |dht, now, out| dht.put(now, older, None, out).unwrap());
        network.run(20 * SECOND);
        let summary = network.summary(lookup, 3);
        assert_eq!((summary.stored, summary.refused), (0, Some(302)));
        let lookup = network
            .command(5, |dht, now, out| dht.sample_infohashes(now, info_hash.into(), None, out).unwrap());
        network.run(20 * SECOND);
        network.summary(lookup, 5);
        let sampled = network.news.iter().any(
            |(_, news)| matches!(news, News::Samples { info_hashes, .. } if info_hashes.contains(&info_hash)),
        );
        assert!(sampled);
    }
}

#[test]
fn others_tell_a_node_its_address_and_it_takes_the_id_for_it() {
    let mut network = Network::new(60, Family::V4, false);
    network.run(180 * SECOND);
    for (addr, dht) in &network.nodes {
        assert_eq!(dht.external_ip(), Some(addr.ip()));
        assert!(id::is_bound(dht.id(), addr.ip()));
    }
    let changes = network.news.iter().filter(|(_, news)| matches!(news, News::NewId { .. })).count();
    assert_eq!(changes, 60);
}

#[test]
fn a_node_comes_back_with_what_it_saved() {
    let mut network = Network::new(60, Family::V4, false);
    network.run(120 * SECOND);
    let (saved, own) = (network.nodes[9].1.save(), network.nodes[9].1.id());
    assert!(saved.len() >= 8);
    let settings = Settings { id: Some(own), ..Settings::new(Family::V4) };
    network.command(9, |dht, now, _| {
        *dht = Dht::new(now, settings, [77; 32]);
        dht.load(&saved);
    });
    assert_eq!(network.nodes[9].1.facts(network.now).nodes, 0, "nobody is believed by name");
    network.run(20 * SECOND);
    assert!(network.nodes[9].1.facts(network.now).good_nodes >= 8);
    assert_eq!(network.nodes[9].1.id(), own);
}

#[test]
fn a_network_stays_alive() {
    let mut network = Network::new(50, Family::V4, true);
    network.run(120 * SECOND);
    let before: Vec<_> = network.nodes.iter().map(|(_, dht)| dht.facts(network.now).nodes).collect();
    let sent = network.sent;
    network.run(3_600 * SECOND);
    for ((_, dht), before) in network.nodes.iter().zip(before) {
        let facts = dht.facts(network.now);
        assert!(facts.nodes >= before && facts.good_nodes * 10 >= facts.nodes * 9, "{facts:?}");
    }
    let a_minute = (network.sent - sent) / 60 / 50;
    assert!(a_minute < 60, "{a_minute} datagrams a node and minute in an idle network");
}

#[test]
fn many_lookups_take_turns() {
    let mut network = Network::new(20, Family::V4, true);
    network.run(60 * SECOND);
    let busy = network.command(0, |dht, now, out| {
        let all = (0..2_000_u16).map(|number| {
            let mut target = [0; 20];
            target[..2].copy_from_slice(&number.to_be_bytes());
            dht.find_node(now, NodeId(target), out)
        });
        let all: Vec<_> = all.collect();
        assert!(dht.asks.heap_bytes() < 10_000);
        all.iter().filter(|lookup| lookup.is_err()).count()
    });
    assert!((900..1_000).contains(&busy), "{busy}");
    network.command(0, |dht, now, out| {
        let first = *dht.lookups.keys().next().unwrap();
        dht.cancel(now, first, out);
    });
    network.run(300 * SECOND);
    let done = network.news.iter().filter(|(at, news)| *at == 0 && matches!(news, News::Done { .. })).count();
    assert!(done + busy + 1 >= 1_999, "{done} {busy}");
    assert!(network.nodes[0].1.lookups.len() <= 1);
}

#[test]
fn lookups_that_can_ask_nobody_end_at_once() {
    let now = Time::ZERO;
    let mut out = DhtOut::default();
    let mut dht = Dht::new(now, Settings::new(Family::V4), [1; 32]);
    // Sixteen wait for silent nodes, a thousand for their turn; then there is nobody left to ask.
    for number in 0..1_024_u16 {
        let addr = SocketAddr::from(([20, 1, 1, 1], number + 1));
        match number < 16 {
            true => dht.ping(now, addr, &mut out),
            false => dht.find_node(now, NodeId([1; 20]), &mut out),
        }
        .unwrap();
    }
    assert_eq!((dht.lookups.len(), out.news.len()), (1_024, 0));
    while dht.next_due() != Time::NEVER {
        let now = dht.next_due();
        dht.heartbeat(now, &mut out);
    }
    assert_eq!((dht.lookups.len(), out.news.len()), (0, 1_024));
}
