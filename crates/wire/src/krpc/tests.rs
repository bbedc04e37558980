//! The examples of BEP 5, hostile datagrams, and that what is written is read again.

use super::*;
use proptest::prelude::*;

const PING: &[u8] = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";
const PONG: &[u8] = b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re";
const GET_PEERS: &[u8] =
    b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe";
const VALUES: &[u8] =
    b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re";
const ANNOUNCE: &[u8] =
    b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz123456\
    4:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe";
const ERROR: &[u8] = b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee";
const WHO: NodeId = NodeId(*b"abcdefghij0123456789");
const WHAT: InfoHash = InfoHash(*b"mnopqrstuvwxyz123456");

fn message(body: Body<'_>) -> Message<'_> {
    Message { transaction: b"aa", version: None, ip: None, read_only: false, body }
}

fn query(method: Method<'_>) -> Message<'_> {
    message(Body::Query(Query { id: WHO, want: Want::default(), method }))
}

#[test]
fn the_examples_of_bep_5() {
    let mut values = Response::new(WHO);
    values.token = Some(b"aoeusnth");
    let peers = [*b"axje.u", *b"idhtnm"].concat();
    values.values = Some(compact::decode_v4(&peers).collect());
    let announce = Method::AnnouncePeer {
        info_hash: WHAT,
        port: 6881,
        implied_port: true,
        seed: false,
        token: b"aoeusnth",
    };
    let table = [
        (PING, query(Method::Ping)),
        (PONG, message(Body::Response(Response::new(NodeId(WHAT.0))))),
        (GET_PEERS, query(Method::GetPeers { info_hash: WHAT, scrape: false, no_seed: false })),
        (VALUES, message(Body::Response(values))),
        (ANNOUNCE, query(announce)),
        (ERROR, message(Body::Error { code: 201, text: b"A Generic Error Ocurred" })),
    ];
    for (bytes, message) in table {
        assert_eq!(Message::decode(bytes).as_ref(), Ok(&message));
        assert_eq!(message.encode(), bytes);
    }
}

/// A query by name with these arguments beside the id.
fn asked(name: &str, args: &str) -> Vec<u8> {
    format!("d1:ad2:id20:abcdefghij0123456789{args}e1:q{}:{name}1:t2:aa1:y1:qe", name.len()).into_bytes()
}

#[test]
fn what_is_wrong_with_a_query_is_said() {
    let key = format!("1:k32:{}", "k".repeat(32));
    let sig = format!("3:sig64:{}", "s".repeat(64));
    let long = format!("1:v1001:{}", "x".repeat(1001));
    let table: Vec<(&str, String, i64)> = vec![
        ("find_node", String::new(), code::PROTOCOL),
        ("find_node", "6:target19:mnopqrstuvwxyz12345".into(), code::PROTOCOL),
        ("get_peers", "6:target20:mnopqrstuvwxyz123456".into(), code::PROTOCOL),
        ("announce_peer", "9:info_hash20:mnopqrstuvwxyz1234564:porti0e5:token1:x".into(), code::PROTOCOL),
        ("announce_peer", "9:info_hash20:mnopqrstuvwxyz1234564:porti65536e5:token1:x".into(), code::PROTOCOL),
        ("announce_peer", "9:info_hash20:mnopqrstuvwxyz1234564:porti1e".into(), code::PROTOCOL),
        ("put", "5:token1:x".into(), code::PROTOCOL),
        ("put", "5:token1:x1:vi01e".into(), code::PROTOCOL),
        ("put", "5:token1:x1:vd1:bi1e1:ai1ee".into(), code::PROTOCOL),
        ("put", format!("5:token1:x{long}"), code::VALUE_TOO_BIG),
        ("put", format!("{key}4:salt65:{}3:seqi1e{sig}5:token1:x1:v1:y", "a".repeat(65)), code::SALT_TOO_BIG),
        ("put", format!("{key}3:seqi1e5:token1:x1:v1:y"), code::SIGNATURE),
        ("put", format!("{key}3:seqi-1e{sig}5:token1:x1:v1:y"), code::PROTOCOL),
    ];
    for (name, args, code) in table {
        let packet = asked(name, &args);
        let got = Message::decode(&packet).unwrap();
        assert_eq!(got.transaction, b"aa");
        assert!(
            matches!(got.body, Body::Malformed { code: was, .. } if was == code),
            "{name} {args} {got:?}"
        );
    }
    let salt = asked("put", &format!("{key}4:salt64:{}3:seqi1e{sig}5:token1:x1:v1:y", "a".repeat(64)));
    assert!(matches!(Message::decode(&salt).unwrap().body, Body::Query(_)), "64 bytes of salt are allowed");
}

#[test]
fn an_unknown_method_has_its_target() {
    for args in ["6:target20:mnopqrstuvwxyz123456", "9:info_hash20:mnopqrstuvwxyz123456"] {
        let packet = asked("vote", args);
        let Body::Query(got) = Message::decode(&packet).unwrap().body else { panic!() };
        assert_eq!(got.method, Method::Unknown { name: b"vote", target: Some(NodeId(WHAT.0)) });
    }
    // The implied port needs no port at all.
    let packet =
        asked("announce_peer", "12:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti99999e5:token1:x");
    assert!(matches!(Message::decode(&packet).unwrap().body, Body::Query(_)));
}

#[test]
fn no_messages() {
    let table: [&[u8]; 12] = [
        b"",
        b"le",
        b"i1e",
        b"de",
        b"d1:y1:qe",
        b"d1:t2:aa1:y1:xe",
        b"d1:t2:aa1:y1:qe",
        b"d1:t2:aa1:y1:re",
        b"d1:rd2:id3:abce1:t2:aa1:y1:re",
        b"d1:rd2:id20:abcdefghij0123456789e1:t0:1:y1:re",
        b"d1:eli201e1:t2:aa1:y1:ee",
        b"d1:e3:2011:t2:aa1:y1:ee",
    ];
    for packet in table {
        assert!(Message::decode(packet).is_err(), "{}", packet.escape_ascii());
    }
    let long_t = format!("d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t33:{}1:y1:qe", "t".repeat(33));
    assert_eq!(Message::decode(long_t.as_bytes()), Err(KrpcError::Field("t")));
    let mut huge = PING.to_vec();
    huge.splice(1..1, format!("1:Z1500:{}", "z".repeat(1500)).into_bytes());
    assert_eq!(Message::decode(&huge), Err(KrpcError::TooLong(huge.len())));
    let mut tail = PING.to_vec();
    tail.resize(MAX_PACKET_BYTES, 0);
    assert!(Message::decode(&tail).is_ok());
    tail.push(0);
    assert_eq!(
        Message::decode(&tail),
        Err(KrpcError::TooLong(tail.len())),
        "behind the message, but too long"
    );
    let mut many = b"d1:Zl".to_vec();
    many.extend(b"0:".repeat(600));
    many.push(b'e');
    many.extend(&PING[1..]);
    assert!(matches!(Message::decode(&many), Err(KrpcError::Bencode(BencodeError::TooManyTokens(_)))));
}

#[test]
fn odd_fields_are_as_absent() {
    let packet = b"d2:ip5:xxxxx1:rd4:BFsd3:abc2:id20:abcdefghij01234567891:k3:abc3:numi-1e5:tokeni5e1:vi00e\
        6:valuesl3:abci5e6:axje\0\0ee1:t1:x1:y1:re";
    let got = Message::decode(packet).unwrap();
    let mut expected = Response::new(WHO);
    expected.values = Some(Vec::new());
    assert_eq!(got.body, Body::Response(expected));
    assert_eq!(got.ip, None);
}

#[test]
fn distances() {
    let (zero, mut one) = (NodeId([0; 20]), NodeId([0; 20]));
    assert_eq!(zero.shared_bits(one), 160);
    one.0[19] = 1;
    assert_eq!(zero.shared_bits(one), 159);
    assert_eq!(NodeId([0x80; 20]).shared_bits(zero), 0);
    assert!(zero.distance(one) < zero.distance(NodeId([1; 20])));
}

fn addr() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<([u8; 4], u16)>().prop_map(SocketAddr::from);
    // In 2001::/16, where no IPv4 address is in disguise.
    let v6 = any::<([u8; 14], u16)>().prop_map(|(tail, port)| {
        let mut ip = [0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        ip[2..].copy_from_slice(&tail);
        SocketAddr::from((ip, port))
    });
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn a_response_comes_back(
        id: [u8; 20], nodes in prop::option::of(prop::collection::vec(any::<u8>(), 0..208)),
        peers in prop::option::of(prop::collection::vec(addr(), 0..20)),
        token in prop::option::of(prop::collection::vec(any::<u8>(), 0..MAX_TOKEN_BYTES)),
        bloom in prop::option::of(any::<u8>()), key in prop::option::of(any::<[u8; 32]>()),
        seq: Option<i64>, num: Option<u32>, ip in prop::option::of(addr()), read_only: bool,
    ) {
        let bloom = bloom.map(|byte| [byte; BLOOM_BYTES]);
        let mut response = Response::new(NodeId(id));
        response.nodes = nodes.as_deref();
        response.nodes6 = token.as_deref();
        response.values = peers.map(|peers| peers.into_iter().filter(|peer| peer.port() != 0).collect());
        response.token = token.as_deref();
        response.bloom_seeds = bloom.as_ref();
        response.key = key.as_ref();
        response.value = Some(b"d1:ai1ee");
        (response.seq, response.num) = (seq, num);
        let sent = Message { transaction: b"x", version: Some(b"PM01"), ip, read_only, body: Body::Response(response) };
        let bytes = sent.encode();
        prop_assert_eq!(Message::decode(&bytes), Ok(sent));
    }

    #[test]
    fn a_query_comes_back(
        id: [u8; 20], target: [u8; 20], v4: bool, v6: bool, seq: Option<i64>, cas: Option<i64>, which in 0..8,
        salt in prop::collection::vec(any::<u8>(), 0..=MAX_SALT_BYTES), port in 1..=u16::MAX, flag: bool,
        key: [u8; 32], half: [u8; 32],
    ) {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&half);
        let (target, info_hash) = (NodeId(target), InfoHash(target));
        let signed = PutSigned { key: &key, signature: &signature, seq: seq.unwrap_or(0).max(0), salt: &salt, cas };
        let method = match which {
            0 => Method::Ping,
            1 => Method::FindNode { target },
            2 => Method::GetPeers { info_hash, scrape: flag, no_seed: !flag },
            3 => Method::AnnouncePeer { info_hash, port, implied_port: flag, seed: !flag, token: &salt },
            4 => Method::Get { target, seq },
            5 => Method::Put { token: &salt, item: PutItem { value: b"li1ee", signed: flag.then_some(signed) } },
            6 => Method::SampleInfohashes { target },
            _ => Method::Unknown { name: b"vote", target: flag.then_some(target) },
        };
        let sent = message(Body::Query(Query { id: NodeId(id), want: Want { v4, v6 }, method }));
        let bytes = sent.encode();
        prop_assert_eq!(Message::decode(&bytes), Ok(sent));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..1600)) {
        let _ = Message::decode(&bytes);
    }

    /// Good messages with one byte changed or cut: what is accepted can be written and means the same again.
    #[test]
    fn a_damaged_message_is_read_or_refused(which in 0..6_usize, at: usize, with: u8, cut: bool) {
        let mut bytes = [PING, PONG, GET_PEERS, VALUES, ANNOUNCE, ERROR][which].to_vec();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] ^= with }
        if let Ok(got) = Message::decode(&bytes) {
            let again = got.encode();
            let again = Message::decode(&again).unwrap();
            prop_assert_eq!(again.transaction, got.transaction);
            if !matches!(got.body, Body::Malformed { .. }) {
                prop_assert_eq!(again.body, got.body);
            }
        }
    }

    #[test]
    fn nodes_come_back(nodes: Vec<([u8; 20], [u8; 4], u16)>, tail in prop::collection::vec(any::<u8>(), 0..26)) {
        let nodes: Vec<_> = nodes.into_iter().map(|(id, ip, port)| (NodeId(id), SocketAddr::from((ip, port)))).collect();
        let mut bytes = Vec::new();
        nodes.iter().for_each(|(id, addr)| encode_node(*id, *addr, &mut bytes));
        bytes.extend(tail);
        prop_assert_eq!(nodes_v4(&bytes).collect::<Vec<_>>(), nodes);
    }
}
