//! The questions against an engine of this process, over loopback.

use super::*;
use crate::Session;
use piecemeal_api::{EngineOptions, NetOptions};
use std::net::UdpSocket;

/// An engine whose DHT knows nobody, and its address.
fn engine() -> (Session, String) {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let session = Session::start(&EngineOptions { listen, dht: true, ..EngineOptions::default() }).unwrap();
    let addr = session.listening()[0].to_string();
    (session, addr)
}

fn ask(ask: DhtAsk, nodes: &[&str], wait_s: u32) -> Result<(DhtSummary, Vec<DhtFinding>), Refusal> {
    let nodes = nodes.iter().map(ToString::to_string).collect();
    let request =
        DhtRequest { ask, nodes, state_dir: None, family: None, wait_s, net: NetOptions::default() };
    let mut findings = Vec::new();
    dht(&request, &mut |finding| findings.push(finding), &Cancel::default())
        .map(|summary| (summary, findings))
}

#[test]
fn an_engine_answers_all_questions() {
    let (session, addr) = engine();
    let node = &[&addr[..]];
    let (summary, findings) = ask(DhtAsk::Ping { addr: addr.clone() }, &[], 30).unwrap();
    let Some(DhtFinding::Pong { node: pong, client, sees_us_at, .. }) = findings.first() else {
        panic!("{findings:?}")
    };
    assert_eq!((summary.answered, pong.addr.to_string()), (1, addr.clone()));
    assert_eq!(client.as_deref(), Some(&b"PM\x00\x01"[..]));
    assert!(sees_us_at.unwrap().ip().is_loopback() && pong.binding == DhtBinding::Local);

    let target = DhtId([3; 20]);
    let (summary, _) = ask(DhtAsk::Find { target }, node, 30).unwrap();
    assert_eq!((summary.nodes.len(), summary.nodes[0].id, summary.complete), (1, pong.id, true));

    let peers = |announce| DhtAsk::GetPeers { info_hash: target, scrape: false, announce };
    let (summary, findings) = ask(peers(Some(7)), node, 30).unwrap();
    assert_eq!((summary.stored, findings), (1, vec![]));
    let (_, findings) = ask(peers(None), node, 30).unwrap();
    assert_eq!(findings, [DhtFinding::Peers { peers: vec!["127.0.0.1:7".parse().unwrap()] }]);
    let (_, findings) = ask(DhtAsk::Sample { addr: addr.clone() }, &[], 30).unwrap();
    assert!(matches!(&findings[..], [DhtFinding::Samples { info_hashes, .. }] if info_hashes == &[target]));
    session.shutdown(EngineOptions::MAX_FAREWELL);
}

#[test]
fn the_next_version_is_found_out() {
    let (session, addr) = engine();
    let node = &[&addr[..]];
    let put = |value: &[u8], seq, cas| {
        let sign = DhtSign { secret: DhtSecret::Seed([5; 32]), salt: b"s".to_vec(), seq, cas };
        ask(DhtAsk::Put { value: value.to_vec(), sign: Some(sign) }, node, 30)
    };
    for (value, seq) in [(&b"1:a"[..], 1), (b"1:b", 2)] {
        let (summary, _) = put(value, None, None).unwrap();
        assert_eq!((summary.stored, summary.signed.unwrap().seq), (1, seq));
    }
    let (summary, _) = put(b"1:c", Some(1), None).unwrap();
    assert_eq!((summary.stored, summary.refused), (0, Some(302)));
    let (summary, _) = put(b"1:c", Some(9), Some(7)).unwrap();
    assert_eq!((summary.stored, summary.refused), (0, Some(301)));
    let (summary, _) = put(b"1:d", Some(9), Some(2)).unwrap();
    let key = summary.signed.unwrap().key;
    let (_, findings) =
        ask(DhtAsk::Get { of: DhtKey::Owner { key, salt: b"s".to_vec() } }, node, 30).unwrap();
    assert_eq!(findings, [DhtFinding::Value { value: b"1:d".to_vec(), seq: Some(9) }]);

    let (summary, _) = ask(DhtAsk::Put { value: b"i3e".to_vec(), sign: None }, node, 30).unwrap();
    let of = DhtKey::Target(summary.target);
    let (_, findings) = ask(DhtAsk::Get { of }, node, 30).unwrap();
    assert_eq!(findings, [DhtFinding::Value { value: b"i3e".to_vec(), seq: None }]);
    session.shutdown(EngineOptions::MAX_FAREWELL);
}

#[test]
fn what_makes_no_sense_is_refused_in_one_line() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let (summary, findings) = ask(DhtAsk::Ping { addr: addr.clone() }, &[], 0).unwrap();
    assert_eq!((summary.answered, findings), (0, vec![]));
    let sign = DhtSign { secret: DhtSecret::Seed([5; 32]), salt: vec![0; 65], seq: Some(1), cas: None };
    let rows = [
        (DhtAsk::Put { value: vec![b'0'; 1001], sign: None }, "item: a value of 1001 bytes is too big; "),
        (
            DhtAsk::Put { value: b"rubbish".to_vec(), sign: None },
            "item: the value is not canonical bencode; ",
        ),
        (DhtAsk::Put { value: b"i1e".to_vec(), sign: Some(sign) }, "item: a salt of 65 bytes is too long; "),
    ];
    for (question, words) in rows {
        let line = ask(question, &[&addr], 1).unwrap_err().to_string();
        assert!(line.starts_with(words) && !line.contains('\n'), "{line}");
    }
    let none = ask(DhtAsk::Find { target: DhtId([1; 20]) }, &["host.invalid:1"], 20).unwrap_err().to_string();
    assert!(none.starts_with("host.invalid:1: "), "{none}");
    let six = DhtRequest {
        ask: DhtAsk::Ping { addr },
        nodes: vec![],
        state_dir: None,
        family: Some(IpFamily::V6),
        wait_s: 1,
        net: NetOptions::default(),
    };
    let line = dht(&six, &mut |_| {}, &Cancel::default()).unwrap_err().to_string();
    assert!(line.contains("it has no IPv6 address"), "{line}");
    let cancel = Cancel::default();
    cancel.cancel();
    assert_eq!(dht(&six, &mut |_| {}, &cancel), Err(Refusal::Cancelled));
}

#[test]
fn a_proxy_that_carries_nothing_is_named_in_one_line() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (node, name) = ("192.0.2.1:6881", "node.example:6881");
    let find = DhtAsk::Find { target: DhtId([1; 20]) };
    let ping = |addr: &str| DhtAsk::Ping { addr: addr.to_owned() };
    let relays = "the proxy relays no datagrams: Connection refused; ";
    let rows = [
        ("socks5", ping(node), None, format!("{node}: {relays}")),
        ("socks5", ping(name), None, format!("{name}: {relays}")),
        ("socks5", find.clone(), Some(node), format!("DHT: {relays}")),
        ("socks5", find.clone(), Some(name), format!("{name}: {relays}")),
        // The hosts that everybody knows are the proxy's to look up too.
        ("socks5", find.clone(), None, format!("DHT: {relays}")),
        ("http", find, Some(node), "DHT: an HTTP proxy carries no UDP; ".to_owned()),
    ];
    for (scheme, ask, node, expected) in rows {
        let proxy = Some(piecemeal_api::Proxy::parse(&format!("{scheme}://{dead}")).unwrap());
        let request = DhtRequest {
            ask,
            nodes: node.into_iter().map(str::to_owned).collect(),
            state_dir: None,
            family: None,
            wait_s: 30,
            net: NetOptions { proxy, ..NetOptions::default() },
        };
        let line = dht(&request, &mut |_| {}, &Cancel::default()).unwrap_err().to_string();
        assert!(line.starts_with(&expected) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn both_families_together_tell_each_thing_once() {
    let peer = |number: u16| SocketAddr::from(([1, 2, 3, 4], number));
    let mut filter = Filter::default();
    let peers = |numbers: &[u16]| DhtFinding::Peers { peers: numbers.iter().map(|n| peer(*n)).collect() };
    assert_eq!(filter.fresh(peers(&[1, 2])), Some(peers(&[1, 2])));
    assert_eq!(filter.fresh(peers(&[2, 3])), Some(peers(&[3])));
    assert_eq!(filter.fresh(peers(&[1])), None);
    let value = |seq| DhtFinding::Value { value: vec![], seq };
    for (seq, told) in [(Some(3), true), (Some(2), false), (Some(3), false), (Some(4), true)] {
        assert_eq!(filter.fresh(value(seq)).is_some(), told, "{seq:?}");
    }
    let mut filter = Filter::default();
    assert!(filter.fresh(value(None)).is_some() && filter.fresh(value(None)).is_none());
    let summary = |node: u8| Summary { nodes: vec![(NodeId([node; 20]), peer(1))], ..Summary::default() };
    let one = |node, complete| Ended { summary: summary(node), complete };
    let all = told(DhtId([0; 20]), &[one(9, true), one(1, false)]);
    assert_eq!((all.nodes[0].id, all.complete, all.scrape), (DhtId([1; 20]), false, None));
}
