//! What is said to whom: each question and its answer, tokens over time, limits on what an answer weighs.

use super::*;
use piecemeal_metainfo::sha1;
use piecemeal_wire::krpc::{PutItem, PutSigned, code};

const HASH: InfoHash = InfoHash([b'h'; 20]);

fn get_peers() -> Method<'static> {
    Method::GetPeers { info_hash: HASH, scrape: false, no_seed: false }
}

fn announce(port: u16, implied_port: bool, seed: bool, token: &[u8]) -> Method<'_> {
    Method::AnnouncePeer { info_hash: HASH, port, implied_port, seed, token }
}

#[test]
fn a_ping_is_answered_with_how_we_see_the_asker() {
    let mut one = One::new();
    let from = at("20.1.2.3:4567");
    let bytes = one.asked(from, Method::Ping);
    let message = Message::decode(&bytes).unwrap();
    assert_eq!(
        (message.transaction, message.ip, message.version),
        (&b"tt"[..], Some(from), Some(&VERSION[..]))
    );
    assert_eq!(response(&bytes), Response::new(one.dht.id()));
}

#[test]
fn announced_peers_are_told() {
    let mut one = One::new();
    let (a, b) = (at("20.1.2.3:1111"), at("20.9.2.3:2222"));
    let first = one.asked(a, get_peers());
    assert_eq!(response(&first).values, None);
    let token = response(&first).token.unwrap().to_vec();
    assert_eq!(token.len(), 8);
    one.asked(a, announce(7777, false, false, &token));
    let second = one.asked(b, get_peers());
    assert_eq!(response(&second).values, Some(vec![at("20.1.2.3:7777")]));
    let token = response(&second).token.unwrap().to_vec();
    one.asked(b, announce(7777, true, true, &token));
    let third = one.asked(b, get_peers());
    let mut peers = response(&third).values.unwrap();
    peers.sort_unstable();
    assert_eq!(peers, [at("20.1.2.3:7777"), at("20.9.2.3:2222")]);
    let leeches = one.asked(b, Method::GetPeers { info_hash: HASH, scrape: true, no_seed: true });
    let leeches = response(&leeches);
    assert_eq!(leeches.values, Some(vec![at("20.1.2.3:7777")]));
    let bits = |filter: Option<&[u8; 256]>| filter.unwrap().iter().map(|byte| byte.count_ones()).sum::<u32>();
    assert_eq!((bits(leeches.bloom_seeds), bits(leeches.bloom_peers)), (2, 2), "one each");
}

#[test]
fn a_token_is_good_for_its_address_and_for_five_minutes() {
    for (minutes, good) in [(4, true), (6, true), (11, false)] {
        let mut one = One::new();
        let from = at("20.1.2.3:1111");
        let token = response(&one.asked(from, get_peers())).token.unwrap().to_vec();
        one.pass(60 * minutes * SECOND);
        let other = one.asked(at("20.1.2.4:1111"), announce(1, false, false, &token));
        assert_eq!(error(&other), code::PROTOCOL);
        let bytes = one.asked(from, announce(1, false, false, &token));
        let was_good = matches!(Message::decode(&bytes).unwrap().body, Body::Response(_));
        assert_eq!(was_good, good, "after {minutes} minutes");
        let forged = one.asked(from, announce(1, false, false, b"aoeusnth"));
        assert_eq!(error(&forged), code::PROTOCOL);
        assert_eq!(one.dht.facts(one.now).peers, usize::from(good));
    }
}

#[test]
fn answers_from_elsewhere_are_dropped() {
    let mut one = One::new();
    let (friend, id) = (at("20.1.2.3:1111"), NodeId([1; 20]));
    let lookup = one.dht.ping(one.now, friend, &mut one.out).unwrap();
    let ping = one.sent_to(friend).unwrap();
    let transaction = Message::decode(&ping).unwrap().transaction.to_vec();
    assert_eq!(transaction.len(), 4);
    let pong = answer(&transaction, &Response::new(id));
    for other in ["20.1.2.3:1112", "20.1.2.4:1111"] {
        one.hear(at(other), &pong);
    }
    one.hear(friend, &answer(b"xxxx", &Response::new(id)));
    assert_eq!((one.out.news.len(), one.dht.facts(one.now).refused.unasked), (0, 3));
    one.hear(friend, &pong);
    let Some(News::Done { lookup: done, summary }) = one.out.news.pop() else { panic!() };
    assert_eq!((done, summary.nodes), (lookup, vec![(id, friend)]));
    assert_eq!(one.out.news, [News::Pong { lookup, id, version: None, sees_us_at: None }]);
    one.hear(friend, &pong);
    assert_eq!(one.dht.facts(one.now).refused.unasked, 4, "once");
}

#[test]
fn a_silent_node_ends_a_ping() {
    let mut one = One::new();
    one.dht.ping(one.now, at("20.1.2.3:1"), &mut one.out).unwrap();
    one.dht.ping(one.now, at("[2001:db8::1]:1"), &mut one.out).unwrap();
    assert_eq!(one.out.news.len(), 1, "another family is not even asked");
    one.pass(20 * SECOND);
    assert_eq!(one.out.news.len(), 2);
    for news in &one.out.news {
        assert!(matches!(news, News::Done { summary, .. } if summary.answered == 0));
    }
}

#[test]
fn who_does_not_answer_is_not_in_the_table() {
    let mut one = One::new();
    let from = at("20.1.2.3:1111");
    let body = Body::Query(Query { id: NodeId([1; 20]), want: Want::default(), method: Method::Ping });
    let mut message = Message { transaction: b"tt", version: None, ip: None, read_only: true, body };
    one.hear(from, &message.encode());
    assert_eq!(one.out.datagrams.len(), 1, "a read-only node is answered and left alone");
    message.read_only = false;
    one.hear(from, &message.encode());
    assert_eq!(one.out.datagrams.len(), 3, "an answer and a question");
    assert_eq!(one.dht.facts(one.now).nodes, 0);
    let ping = one.out.datagrams.pop().unwrap().1;
    let transaction = Message::decode(&ping).unwrap().transaction;
    one.hear(from, &answer(transaction, &Response::new(NodeId([1; 20]))));
    assert_eq!(one.dht.facts(one.now).nodes, 1);
    // Found out later that it has gone: asked thrice, then dropped.
    one.pass(20 * 60 * SECOND);
    assert_eq!(one.dht.facts(one.now).nodes, 0);
}

#[test]
fn a_read_only_node_asks_and_says_so() {
    let mut one = One::with(Settings { read_only: true, ..Settings::new(Family::V4) });
    one.hear(at("20.1.2.3:1"), &question(Method::Ping));
    assert!(one.out.datagrams.is_empty());
    one.dht.ping(one.now, at("20.1.2.3:1"), &mut one.out).unwrap();
    assert!(Message::decode(&one.out.datagrams[0].1).unwrap().read_only);
}

#[test]
fn a_brief_node_sends_nothing_but_its_questions() {
    let mut one = One::with(Settings { brief: true, read_only: true, ..Settings::new(Family::V4) });
    let known: Vec<_> = (0..20).map(|number| SocketAddr::from(([20 + number, 1, 1, 1], 1))).collect();
    one.dht.load(&known.iter().map(|addr| (NodeId([0; 20]), *addr)).collect::<Vec<_>>());
    one.pass(60 * SECOND);
    assert!(one.out.datagrams.is_empty() && one.dht.next_due() == Time::NEVER);
    let mut asked = std::collections::BTreeSet::new();
    for target in [1, 2] {
        one.dht.find_node(one.now, NodeId([target; 20]), &mut one.out).unwrap();
        one.pass(60 * SECOND);
        asked.extend(one.out.datagrams.drain(..).map(|(to, _)| to));
    }
    assert_eq!(asked.len(), known.len(), "nobody was there, so the second search begins with the rest");
}

#[test]
fn nearest_nodes_of_the_wanted_families() {
    let mut one = One::new();
    for number in 0..20_u8 {
        let mut id = NodeId([number; 20]);
        id.0[0] = number << 3;
        one.befriend(id, SocketAddr::from(([20 + number, 1, 1, 1], 1)));
    }
    let mut other = One::with(Settings::new(Family::V6));
    other.befriend(NodeId([9; 20]), at("[2001:db8::1]:1"));
    let from = at("20.1.1.1:1");
    let mut ask = |want, target: NodeId| {
        one.out.datagrams.clear();
        let body = Body::Query(Query { id: NodeId([b'q'; 20]), want, method: Method::FindNode { target } });
        let message = Message { transaction: b"tt", version: None, ip: None, read_only: true, body };
        one.dht.on_packet(one.now, from, &message.encode(), Some(&other.dht), &mut one.out);
        let bytes = one.sent_to(from).unwrap();
        let response = response(&bytes);
        let v4 = response.nodes.map(|nodes| piecemeal_wire::krpc::nodes_v4(nodes).collect::<Vec<_>>());
        let v6 = response.nodes6.map(|nodes| piecemeal_wire::krpc::nodes_v6(nodes).collect::<Vec<_>>());
        (v4, v6)
    };
    let (v4, v6) = ask(Want::default(), NodeId([5 << 3; 20]));
    let v4 = v4.unwrap();
    assert_eq!((v4.len(), v6), (8, None));
    assert_eq!(v4[0].1, at("25.1.1.1:1"));
    let (v4, v6) = ask(Want { v4: false, v6: true }, NodeId([0; 20]));
    assert_eq!((v4, v6.unwrap().len()), (None, 1));
    let (v4, v6) = ask(Want { v4: true, v6: true }, NodeId([0; 20]));
    assert!(v4.unwrap().len() >= 3 && v6.unwrap().len() == 1);
}

#[test]
fn unknown_methods() {
    let mut one = One::new();
    let from = at("20.1.2.3:1");
    let target = Some(NodeId([1; 20]));
    assert!(response(&one.asked(from, Method::Unknown { name: b"vote", target })).nodes.is_some());
    assert_eq!(error(&one.asked(from, Method::Unknown { name: b"vote", target: None })), code::METHOD);
    one.hear(from, b"d1:ad2:id3:abce1:q4:ping1:t2:aa1:y1:qe");
    assert_eq!(error(&one.sent_to(from).unwrap()), code::PROTOCOL);
}

#[test]
fn samples() {
    let mut one = One::new();
    for number in 0..30_u8 {
        let from = at("20.1.2.3:1");
        let info_hash = InfoHash([number; 20]);
        let tokens = one.asked(from, Method::GetPeers { info_hash, scrape: false, no_seed: false });
        let token = response(&tokens).token.unwrap();
        let announce = Method::AnnouncePeer { info_hash, port: 1, implied_port: false, seed: false, token };
        one.asked(from, announce);
        one.pass(SECOND);
    }
    let bytes = one.asked(at("20.1.2.3:1"), Method::SampleInfohashes { target: NodeId([0; 20]) });
    let answer = response(&bytes);
    let samples: Vec<_> = piecemeal_wire::krpc::info_hashes(answer.samples.unwrap()).collect();
    assert_eq!((samples.len(), answer.num), (20, Some(30)));
    assert!(answer.nodes.is_some() && answer.interval.is_some());
    // To a stranger fewer are told.
    let packet = question(Method::SampleInfohashes { target: NodeId([0; 20]) });
    let bytes = one.asked(at("20.5.5.5:1"), Method::SampleInfohashes { target: NodeId([0; 20]) });
    assert!(bytes.len() <= 3 * packet.len());
    assert!(response(&bytes).samples.is_some_and(|samples| !samples.is_empty()));
}

/// Puts as `from`, with a token; the code of the refusal, if it is one.
fn put(one: &mut One, from: SocketAddr, target: NodeId, item: PutItem<'_>) -> Result<(), i64> {
    let token = response(&one.asked(from, Method::Get { target, seq: None })).token.unwrap().to_vec();
    let bytes = one.asked(from, Method::Put { token: &token, item });
    match Message::decode(&bytes).unwrap().body {
        Body::Error { code, .. } => Err(code),
        _ => Ok(()),
    }
}

#[test]
fn mutable_items_and_how_they_are_refused() {
    let mut one = One::new();
    let from = at("20.1.2.3:1");
    let secret = SecretKey::from_seed(&[3; 32]);
    let item =
        |seq, value: &[u8]| Item::sign(&secret, b"salt".to_vec(), seq, value.to_vec()).expect("an item");
    let target = item(0, b"1:a").target();
    let table = [
        (5, &b"1:a"[..], None, Ok(())),
        (4, b"1:a", None, Err(code::SEQ)),
        (6, b"1:b", Some(4), Err(code::CAS)),
        (6, b"1:b", Some(5), Ok(())),
    ];
    for (seq, value, cas, expected) in table {
        assert_eq!(put(&mut one, from, target, item(seq, value).as_put(cas)), expected, "{seq} {cas:?}");
    }
    let mut forged = item(7, b"1:c");
    forged.value = b"1:d".to_vec();
    assert_eq!(put(&mut one, from, target, forged.as_put(None)), Err(code::SIGNATURE));
    let (long, key, signature) = ([b's'; 65], [0; 32], [0; 64]);
    let signed = PutSigned { key: &key, signature: &signature, seq: 1, salt: &long, cas: None };
    let salted = PutItem { value: b"1:a", signed: Some(signed) };
    assert_eq!(put(&mut one, from, target, salted), Err(code::SALT_TOO_BIG));
    let bad_token = one.asked(from, Method::Put { token: b"12345678", item: item(9, b"1:a").as_put(None) });
    assert_eq!(error(&bad_token), code::PROTOCOL);

    let bytes = one.asked(from, Method::Get { target, seq: None });
    let found = response(&bytes);
    assert_eq!((found.value, found.seq), (Some(&b"1:b"[..]), Some(6)));
    let bytes = one.asked(from, Method::Get { target, seq: Some(6) });
    assert_eq!((response(&bytes).value, response(&bytes).seq), (None, Some(6)));
    let bytes = one.asked(from, Method::Get { target, seq: Some(5) });
    assert_eq!(response(&bytes).value, Some(&b"1:b"[..]));
}

#[test]
fn a_stranger_shows_itself_before_it_gets_much() {
    let mut one = One::new();
    let (friend, stranger) = (at("20.1.2.3:1"), at("20.7.7.7:7"));
    let value = [b"996:", &[b'x'; 996][..]].concat();
    let target = NodeId(sha1(&value));
    assert_eq!(put(&mut one, friend, target, PutItem { value: &value, signed: None }), Ok(()));
    let packet = question(Method::Get { target, seq: None });
    let first = one.asked(stranger, Method::Get { target, seq: None });
    assert!(first.len() <= packet.len(), "it is no answer but a ping");
    let Message { transaction, body: Body::Query(ping), .. } = Message::decode(&first).unwrap() else {
        panic!()
    };
    assert_eq!(ping.method, Method::Ping);
    one.hear(stranger, &answer(transaction, &Response::new(NodeId([4; 20]))));
    let bytes = one.sent_to(stranger).expect("what it asked for");
    assert_eq!(response(&bytes).value, Some(&value[..]));
    assert_eq!(Message::decode(&bytes).unwrap().transaction, b"tt");
    // Now it is known. And who never shows itself gets nothing.
    assert!(one.asked(stranger, Method::Get { target, seq: None }).len() > 1_000);
    one.asked(at("20.8.8.8:8"), Method::Get { target, seq: None });
    one.out.datagrams.clear();
    one.pass(60 * SECOND);
    assert!(one.sent_to(at("20.8.8.8:8")).is_none() && one.dht.held.is_empty());
}

#[test]
fn an_answer_is_at_most_three_times_the_question() {
    let mut one = One::new();
    for number in 0..200_u8 {
        let from = SocketAddr::from(([30, number, 1, 1], 1));
        let token = response(&one.asked(from, get_peers())).token.unwrap().to_vec();
        one.asked(from, announce(1, false, false, &token));
        one.pass(SECOND);
    }
    for number in 0..20_u8 {
        one.befriend(NodeId([number + 1; 20]), SocketAddr::from(([20 + number, 1, 1, 1], 1)));
    }
    let target = NodeId([1; 20]);
    let all = [
        Method::Ping,
        Method::FindNode { target },
        get_peers(),
        Method::Get { target, seq: None },
        Method::SampleInfohashes { target },
        Method::Unknown { name: b"x", target: None },
        announce(1, false, false, b""),
    ];
    for (number, method) in (100..).zip(all) {
        let packet = question(method.clone()).len();
        one.pass(10 * SECOND);
        let stranger = one.asked(SocketAddr::from(([60, number, 1, 1], 1)), method.clone());
        assert!(stranger.len() <= 3 * packet, "{method:?}: {} of {packet}", stranger.len());
        let friend = one.asked(at("20.1.1.1:1"), method.clone());
        assert!(friend.len() <= MAX_ANSWER_BYTES);
    }
    let peers = one.asked(at("20.1.1.1:1"), get_peers());
    assert!(response(&peers).values.unwrap().len() > 60 && response(&peers).nodes.is_some());
    let peers = one.asked(at("60.200.1.1:1"), get_peers());
    assert!(response(&peers).values.unwrap().len() >= 8 && response(&peers).nodes.unwrap().len() >= 2 * 26);
}
