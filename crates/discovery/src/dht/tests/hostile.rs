//! Strangers who mean no good.

use super::*;
use crate::local::is_local;
use proptest::prelude::*;

fn forged(number: u32) -> SocketAddr {
    let [_, a, b, c] = number.wrapping_mul(0x9e37_79b1).to_be_bytes();
    SocketAddr::from(([20 + a % 100, b, c, 1], 1))
}

#[test]
fn a_forged_flood_is_not_reflected() {
    let mut one = One::new();
    for number in 0..30_u8 {
        one.befriend(NodeId([number + 1; 20]), SocketAddr::from(([20 + number, 1, 1, 1], 1)));
    }
    one.out.datagrams.clear();
    let hash = InfoHash([1; 20]);
    let target = NodeId([1; 20]);
    let methods = [
        Method::Ping,
        Method::FindNode { target },
        Method::GetPeers { info_hash: hash, scrape: true, no_seed: false },
        Method::Get { target, seq: None },
    ];
    // 50 000 datagrams a second, for two seconds.
    for number in 0..100_000_u32 {
        one.now = one.now + Duration::from_micros(20);
        let body = Body::Query(Query {
            id: NodeId([number as u8; 20]),
            want: Want { v4: true, v6: true },
            method: methods[number as usize % 4].clone(),
        });
        let message = Message { transaction: b"tt", version: None, ip: None, read_only: false, body };
        one.hear(forged(number), &message.encode());
        if one.dht.next_due() <= one.now {
            one.dht.heartbeat(one.now, &mut one.out);
        }
    }
    let bytes: usize = one.out.datagrams.iter().map(|(_, datagram)| datagram.len()).sum();
    // A full budget at the start, and what flows in over two seconds.
    assert!(bytes <= (3 + 2) * 8_000, "{bytes}");
    assert!(one.dht.heap_bytes() < 2 << 20, "{}", one.dht.heap_bytes());
    // Who is known is still answered: some budget is kept for it.
    one.asked(at("20.1.1.1:1"), Method::Ping);
}

#[test]
fn an_answer_full_of_nodes_does_not_make_us_ask_them_all() {
    let mut one = One::new();
    let friend = at("20.1.1.1:1");
    one.befriend(NodeId([1; 20]), friend);
    let lookup = one.dht.find_node(one.now, NodeId([0; 20]), &mut one.out).unwrap();
    let mut nodes = Vec::new();
    for number in 0..55 {
        piecemeal_wire::krpc::encode_node(NodeId([0; 20]), forged(number), &mut nodes);
    }
    for home in ["127.0.0.1:80", "192.168.1.1:53", "10.0.0.1:1", "0.0.0.0:1"] {
        nodes.splice(0..0, {
            let mut entry = Vec::new();
            piecemeal_wire::krpc::encode_node(NodeId([0; 20]), at(home), &mut entry);
            entry
        });
    }
    while let Some(question) = one.sent_to(friend) {
        let mut response = Response::new(NodeId([1; 20]));
        response.nodes = Some(&nodes);
        one.hear(friend, &answer(Message::decode(&question).unwrap().transaction, &response));
    }
    one.pass(120 * SECOND);
    let asked: BTreeSet<SocketAddr> = one.out.datagrams.iter().map(|(to, _)| *to).collect();
    assert!(asked.len() <= 17 && asked.iter().all(|addr| !is_local(addr.ip())), "{asked:?}");
    assert!(
        one.out.news.iter().any(|news| matches!(news, News::Done { lookup: done, .. } if *done == lookup))
    );
}

#[test]
fn forged_items_are_not_told() {
    let mut one = One::new();
    let friend = at("20.1.1.1:1");
    one.befriend(NodeId([1; 20]), friend);
    let secret = SecretKey::from_seed(&[1; 32]);
    let item = Item::sign(&secret, Vec::new(), 5, b"1:a".to_vec()).unwrap();
    let signed = item.signed.clone().unwrap();
    for (value, key, seq) in [
        (&b"1:b"[..], &signed.key, 5),
        (b"1:a", &signed.key, 6),
        (b"1:a", &[0; 32], 5),
        (b"1:z", &signed.key, 5),
    ] {
        one.out = DhtOut::default();
        one.dht.get(one.now, item.target(), b"", &mut one.out).unwrap();
        let question = one.sent_to(friend).unwrap();
        let mut response = Response::new(NodeId([1; 20]));
        (response.value, response.key) = (Some(value), Some(key));
        (response.signature, response.seq) = (Some(&signed.signature), Some(seq));
        one.hear(friend, &answer(Message::decode(&question).unwrap().transaction, &response));
        assert!(one.out.news.iter().all(|news| matches!(news, News::Done { .. })), "{:?}", one.out.news);
    }
}

#[test]
fn who_claims_to_be_us_gets_nowhere() {
    let mut one = One::new();
    let friend = at("20.1.1.1:1");
    one.dht.add_node(friend);
    one.pass(SECOND);
    let own = one.dht.id();
    while let Some(question) = one.sent_to(friend) {
        one.hear(friend, &answer(Message::decode(&question).unwrap().transaction, &Response::new(own)));
    }
    assert_eq!(one.dht.facts(one.now).nodes, 0);
}

/// What happens to a node.
#[derive(Clone, Debug)]
enum Step {
    Packet(u8, Vec<u8>),
    /// A question of ours is answered with these bytes in place of lists and tokens.
    Answer(usize, Vec<u8>, u8),
    Ask(u8, [u8; 20]),
    Pass(u32),
    AddNode(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        (any::<u8>(), bytes()).prop_map(|(from, bytes)| Step::Packet(from, bytes)),
        (any::<usize>(), bytes(), any::<u8>()).prop_map(|(which, bytes, id)| Step::Answer(which, bytes, id)),
        (0..8_u8, any::<[u8; 20]>()).prop_map(|(what, target)| Step::Ask(what, target)),
        (0..2_000_000_u32).prop_map(Step::Pass),
        any::<u8>().prop_map(Step::AddNode),
    ]
}

impl One {
    fn step(&mut self, step: Step) {
        match step {
            Step::Packet(from, bytes) => self.hear(forged(from.into()), &bytes),
            Step::Answer(which, bytes, id) => {
                let Some(which) = which.checked_rem(self.out.datagrams.len()) else { return };
                let (to, datagram) = self.out.datagrams.remove(which);
                let mut response = Response::new(NodeId([id; 20]));
                (response.nodes, response.nodes6) = (Some(&bytes[..]), Some(&bytes[..]));
                (response.token, response.samples) = (bytes.get(..8), Some(&bytes[..]));
                response.values = Some(piecemeal_wire::compact::decode_v4(&bytes).collect());
                response.value = Some(b"1:a");
                let transaction = Message::decode(&datagram).unwrap().transaction.to_vec();
                self.hear(to, &answer(&transaction, &response));
            }
            Step::Ask(what, target) => self.ask(what, target),
            Step::Pass(millis) => self.pass(Duration::from_millis(millis.into())),
            Step::AddNode(number) => self.dht.add_node(forged(number.into())),
        }
    }

    fn ask(&mut self, what: u8, target: [u8; 20]) {
        let (dht, now, out) = (&mut self.dht, self.now, &mut self.out);
        let search =
            |announce| PeerSearch { info_hash: InfoHash(target), announce, scrape: true, no_seed: false };
        let _ = match what {
            0 => dht.ping(now, forged(target[0].into()), out),
            1 => dht.find_node(now, NodeId(target), out),
            2 => dht.get_peers(now, search(None), out),
            3 => {
                let announce = Announce { port: 1, implied_port: true, seed: false };
                dht.get_peers(now, search(Some(announce)), out)
            }
            4 => dht.get(now, NodeId(target), b"", out),
            5 => dht.put(now, Item::immutable(b"1:a".to_vec()).unwrap(), None, out),
            6 => dht.sample_infohashes(now, NodeId(target), None, out),
            _ => dht.sample_infohashes(now, NodeId(target), Some(forged(1)), out),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes, nothing panics, memory stays small, every datagram is a message, and all lookups end.
    #[test]
    fn any_life(steps in prop::collection::vec(step(), 1..60)) {
        let mut one = One::new();
        for step in steps {
            one.step(step);
            for (_, datagram) in &one.out.datagrams {
                prop_assert!(datagram.len() <= 1_400 && Message::decode(datagram).is_ok());
            }
            prop_assert!(one.dht.heap_bytes() < 300_000, "{}", one.dht.heap_bytes());
        }
        one.pass(600 * SECOND);
        prop_assert!(one.dht.lookups.values().all(|lookup| matches!(lookup.kind, commands::Kind::Refresh)));
    }

    #[test]
    fn any_packets(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1_600), 1..20)) {
        let mut one = One::new();
        for packet in packets {
            one.hear(at("20.1.2.3:1"), &packet);
        }
        prop_assert!(one.dht.heap_bytes() < 100_000, "{}", one.dht.heap_bytes());
    }
}
