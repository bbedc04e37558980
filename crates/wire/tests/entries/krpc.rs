//! Messages of the DHT, and of peers about peers.

use piecemeal_metainfo::InfoHash;
use piecemeal_wire::krpc::{
    BLOOM_BYTES, Body, MAX_PACKET_BYTES, MAX_SALT_BYTES, MAX_TOKEN_BYTES, MAX_TRANSACTION_BYTES,
    MAX_VALUE_BYTES, Message, Method, NodeId, PutItem, PutSigned, Query, Response, Want, encode_node,
    info_hashes, nodes_v4, nodes_v6,
};
use piecemeal_wire::pex::{MAX_PEX_PEERS, PexMessage};

/// A datagram of the DHT. What is read costs no more than it says, is within the limits of the BEPs, and is written so
/// that it means the same.
pub fn krpc(bytes: &[u8]) {
    let Ok(message) = Message::decode(bytes) else { return };
    assert!(bytes.len() <= MAX_PACKET_BYTES);
    assert!((1..=MAX_TRANSACTION_BYTES).contains(&message.transaction.len()));
    match &message.body {
        Body::Query(query) => method(&query.method),
        Body::Response(response) => lists(response, bytes.len()),
        Body::Error { text, .. } => assert!(text.len() <= bytes.len()),
        Body::Malformed { .. } => {}
    }
    let written = message.encode();
    let again = Message::decode(&written).expect("what we write we read");
    if let Body::Malformed { code, why } = message.body {
        assert_eq!(again.body, Body::Error { code, text: why.as_bytes() });
    } else {
        assert_eq!(again, message);
        assert_eq!(again.encode(), written);
    }
}

fn method(method: &Method<'_>) {
    match method {
        Method::AnnouncePeer { port, implied_port, token, .. } => {
            assert!((*port != 0 || *implied_port) && token.len() <= MAX_TOKEN_BYTES);
        }
        Method::Put { token, item } => {
            assert!(token.len() <= MAX_TOKEN_BYTES && item.value.len() <= MAX_VALUE_BYTES);
            assert!(item.signed.is_none_or(|signed| signed.salt.len() <= MAX_SALT_BYTES && signed.seq >= 0));
        }
        _ => {}
    }
}

fn lists(response: &Response<'_>, bytes: usize) {
    let nodes = nodes_v4(response.nodes.unwrap_or_default()).count() * 26
        + nodes_v6(response.nodes6.unwrap_or_default()).count() * 38
        + info_hashes(response.samples.unwrap_or_default()).len() * 20;
    let peers = response.values.as_deref().unwrap_or_default();
    assert!(nodes <= 3 * bytes && peers.len() * 8 <= bytes);
    assert!(peers.iter().all(|peer| peer.port() != 0));
    assert!(response.token.is_none_or(|token| token.len() <= MAX_TOKEN_BYTES));
}

/// What a peer says about others. What is read is bounded, and what we write of it says the same.
pub fn pex(payload: &[u8]) {
    let Ok(message) = PexMessage::decode(payload) else { return };
    let PexMessage { added, dropped } = &message;
    assert!(added.len() <= 2 * MAX_PEX_PEERS && dropped.len() <= 2 * MAX_PEX_PEERS);
    assert!((added.len() + dropped.len()) * 6 <= payload.len());
    assert!(added.iter().map(|(addr, _)| addr).chain(dropped).all(|addr| addr.port() != 0));
    let again = PexMessage::decode(&message.encode()).expect("what we write we read");
    // IPv4 addresses out of IPv6 clothes go to the others; of one kind no more are read than ever.
    let mut added = added.clone();
    added.sort_by_key(|(addr, _)| addr.is_ipv6());
    let mut dropped = dropped.clone();
    dropped.sort_by_key(|addr| addr.is_ipv6());
    let v4 = (added.partition_point(|peer| peer.0.is_ipv4()), dropped.partition_point(|addr| addr.is_ipv4()));
    if v4.0 <= MAX_PEX_PEERS && v4.1 <= MAX_PEX_PEERS {
        assert_eq!(again, PexMessage { added, dropped });
    }
}

/// One of each question, answers with all there is, a refusal.
pub fn datagrams() -> Vec<Vec<u8>> {
    let (target, info_hash) = (NodeId([0x11; 20]), InfoHash([0x22; 20]));
    let signed = PutSigned { key: &[3; 32], signature: &[4; 64], seq: 7, salt: b"salt", cas: Some(6) };
    let methods = [
        Method::Ping,
        Method::FindNode { target },
        Method::GetPeers { info_hash, scrape: true, no_seed: true },
        Method::AnnouncePeer { info_hash, port: 6881, implied_port: true, seed: true, token: b"token" },
        Method::Get { target, seq: Some(5) },
        Method::Put { token: b"token", item: PutItem { value: b"d1:ai1ee", signed: None } },
        Method::Put { token: b"token", item: PutItem { value: b"5:value", signed: Some(signed) } },
        Method::SampleInfohashes { target },
        Method::Unknown { name: b"vote", target: Some(target) },
    ];
    let message =
        |body| Message { transaction: b"aa", version: Some(b"PM01"), ip: None, read_only: false, body };
    let query =
        |method| Body::Query(Query { id: NodeId([9; 20]), want: Want { v4: true, v6: true }, method });
    let mut all: Vec<_> = methods.into_iter().map(|method| message(query(method)).encode()).collect();
    let (mut nodes, mut nodes6) = (Vec::new(), Vec::new());
    let v4 = "1.2.3.4:5".parse().expect("an address");
    let v6 = "[2001:db8::1]:5".parse().expect("an address");
    encode_node(target, v4, &mut nodes);
    encode_node(target, v6, &mut nodes6);
    let bloom = [0x55; BLOOM_BYTES];
    let mut found = Response::new(NodeId([9; 20]));
    found.nodes = Some(&nodes);
    found.nodes6 = Some(&nodes6);
    found.values = Some(vec![v4, v6]);
    found.token = Some(b"token");
    found.bloom_seeds = Some(&bloom);
    found.bloom_peers = Some(&bloom);
    let mut stored = Response::new(NodeId([9; 20]));
    stored.value = Some(b"5:value");
    stored.key = Some(&[3; 32]);
    stored.signature = Some(&[4; 64]);
    stored.samples = Some(&[1; 40]);
    (stored.seq, stored.num, stored.interval) = (Some(7), Some(2), Some(60));
    all.push(Message { ip: Some(v4), ..message(Body::Response(found)) }.encode());
    all.push(Message { ip: Some(v6), read_only: true, ..message(Body::Response(stored)) }.encode());
    all.push(message(Body::Error { code: 203, text: b"bad token" }).encode());
    all
}
