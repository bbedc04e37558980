use super::*;
use proptest::prelude::*;

fn answer(body: &[u8]) -> AnnounceAnswer {
    match AnnounceReply::decode(body) {
        Ok(AnnounceReply::Answer(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

fn failure(body: &[u8]) -> AnnounceFailure {
    match AnnounceReply::decode(body) {
        Ok(AnnounceReply::Failure(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

fn addrs(answer: &AnnounceAnswer) -> Vec<String> {
    answer.peers.iter().map(|peer| peer.addr.to_string()).collect()
}

#[test]
fn a_compact_answer() {
    let body =
        b"d8:completei3e10:downloadedi9e11:external ip4:\xc0\x00\x02\x0110:incompletei4e8:intervali1800e\
        12:min intervali300e5:peers12:\x01\x02\x03\x04\x1a\xe1\x05\x06\x07\x08\x00\x01\
        6:peers618:\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe110:tracker id2:\xff\0\
        15:warning message5:be\x07 ke";
    let got = answer(body);
    assert_eq!((got.complete, got.incomplete, got.downloaded), (Some(3), Some(4), Some(9)));
    assert_eq!((got.interval, got.min_interval), (Some(1800), Some(300)));
    assert_eq!(got.external_ip, Some([192, 0, 2, 1].into()));
    assert_eq!(got.tracker_id.as_deref(), Some(&b"\xff\0"[..]));
    assert_eq!(got.warning.as_deref(), Some("be  k"));
    assert_eq!(addrs(&got), ["1.2.3.4:6881", "5.6.7.8:1", "[2001:db8::1]:6881"]);
}

#[test]
fn a_list_answer_with_names_and_nonsense() {
    let body = b"d5:peersl\
        d2:ip7:1.2.3.47:peer id20:-PM0100-abcdefghijkl4:porti6881ee\
        d2:ip11:2001:db8::14:porti1ee\
        d2:ip16:::ffff:127.0.0.14:porti2ee\
        d2:ip12:host.example4:porti6881ee\
        d2:ip7:1.2.3.54:porti65536ee\
        d2:ip7:1.2.3.54:porti-1ee\
        d2:ip7:1.2.3.54:porti0ee\
        d4:porti5ee\
        d2:ip7:1.2.3.67:peer id3:abc4:porti7ee\
        i5e4:spamle\
        ee";
    let got = answer(body);
    assert_eq!(addrs(&got), ["1.2.3.4:6881", "[2001:db8::1]:1", "127.0.0.1:2", "1.2.3.6:7"]);
    assert_eq!(got.peers[0].peer_id, Some(PeerId(*b"-PM0100-abcdefghijkl")));
    assert_eq!(got.peers[3].peer_id, None);
}

#[test]
fn failures() {
    let table: &[(&[u8], &str, Option<RetryIn>)] = &[
        (b"d14:failure reason4:nopee", "nope", None),
        (b"d14:failure reason4:nope8:retry in5:nevere", "nope", Some(RetryIn::Never)),
        (b"d14:failure reason4:nope8:retry ini5ee", "nope", Some(RetryIn::Minutes(5))),
        (b"d14:failure reason4:nope8:retry in2:15e", "nope", Some(RetryIn::Minutes(15))),
        (b"d14:failure reason4:nope8:retry ini-5ee", "nope", None),
        (b"d14:failure reason4:nope8:retry in5:latere", "nope", None),
        (b"d14:failure reason4:no\x1b[5:peers0:e", "no [", None),
        (b"d14:failure reasoni7e8:intervali1ee", "", None),
    ];
    for (body, reason, retry_in) in table {
        let got = failure(body);
        assert_eq!((got.reason.as_str(), got.retry_in), (*reason, *retry_in));
    }
}

#[test]
fn odd_answers_are_taken_as_far_as_they_go() {
    let intervals: &[(&[u8], Option<u32>)] = &[
        (b"de", None),
        (b"d8:intervali0ee", Some(0)),
        (b"d8:intervali-1ee", Some(0)),
        (b"d8:intervali2147483648ee", Some(1 << 31)),
        (b"d8:intervali9223372036854775807ee", Some(u32::MAX)),
        (b"d8:interval2:30e", None),
    ];
    for (body, interval) in intervals {
        assert_eq!(answer(body).interval, *interval);
    }
    assert_eq!(
        addrs(&answer(b"d5:peers8:\x01\x02\x03\x04\x00\x05abe")),
        ["1.2.3.4:5"],
        "a torn entry is none"
    );
    assert_eq!(answer(b"d8:intervali5ee\r\n").interval, Some(5), "scripts like to end with a newline");
    assert!(AnnounceReply::decode(b"d8:intervali5ee<!-- 3 ms -->").is_err());
    assert!(answer(b"d5:peersi1ee").peers.is_empty());
    assert!(answer(b"d5:peersdee").peers.is_empty());
    assert!(answer(b"d6:peers617:aaaaaaaaaaaaaaaaae").peers.is_empty());
    assert_eq!(answer(b"d11:external ip3:abce").external_ip, None);
    let long = format!("d10:tracker id257:{}e", "x".repeat(257));
    assert_eq!(answer(long.as_bytes()).tracker_id, None);
}

#[test]
fn what_is_no_answer() {
    let table: &[&[u8]] = &[
        b"",
        b"<html>502 Bad Gateway</html>",
        b"le",
        b"4:spam",
        b"d8:intervali1800e",
        b"dee",
        b"d14:failure reason119:The tracker was unable to process your request, please try again.e",
        b"d8:intervali18446744073709551615ee",
    ];
    for body in table {
        assert!(AnnounceReply::decode(body).is_err(), "{}", body.escape_ascii());
    }
    assert!(AnnounceReply::decode(&[b'l'; 1 << 20]).is_err());
    assert!(AnnounceReply::decode(&vec![b' '; (1 << 20) + 1]).is_err());
}

#[test]
fn at_most_500_peers_and_neither_family_starves() {
    let body = |v4: usize, v6: usize| {
        let mut answer = AnnounceAnswer::default();
        let peer = |addr| TrackerPeer { addr, peer_id: None };
        answer.peers.extend((0..v4).map(|_| peer("1.2.3.4:5".parse().expect("an address"))));
        answer.peers.extend((0..v6).map(|_| peer("[2001:db8::1]:5".parse().expect("an address"))));
        answer
    };
    for (v4, v6, kept4, kept6) in [
        (10_000, 0, 500, 0),
        (0, 10_000, 0, 500),
        (600, 600, 250, 250),
        (600, 10, 490, 10),
        (100, 600, 100, 400),
    ] {
        let got = answer(&body(v4, v6).encode(PeerForm::Compact));
        let have4 = got.peers.iter().filter(|peer| peer.addr.is_ipv4()).count();
        assert_eq!((have4, got.peers.len() - have4), (kept4, kept6));
    }
    let got = answer(&body(5000, 0).encode(PeerForm::Dicts { peer_ids: false }));
    assert_eq!(got.peers.len(), MAX_PEERS);
}

fn any_answer() -> impl Strategy<Value = AnnounceAnswer> {
    let peer = any::<(bool, [u8; 4], [u8; 16], u16, [u8; 20])>().prop_map(|(v4, a, b, port, id)| {
        let ip = if v4 { IpAddr::from(a) } else { IpAddr::from(b).to_canonical() };
        TrackerPeer { addr: SocketAddr::new(ip, port.max(1)), peer_id: Some(PeerId(id)) }
    });
    let numbers = any::<(Option<u32>, Option<u32>, Option<u32>, Option<u32>, Option<u32>)>();
    let rest = (
        prop::option::of("[a-z]{1,80}"),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..256)),
        any::<Option<[u8; 4]>>(),
    );
    (numbers, rest, prop::collection::vec(peer, 0..60)).prop_map(|(n, (warning, tracker_id, ip), peers)| {
        AnnounceAnswer {
            interval: n.0,
            min_interval: n.1,
            complete: n.2,
            incomplete: n.3,
            downloaded: n.4,
            warning,
            tracker_id,
            external_ip: ip.map(IpAddr::from),
            peers,
        }
    })
}

proptest! {
    #[test]
    fn a_client_reads_what_a_server_writes(sent in any_answer()) {
        let dicts = answer(&sent.encode(PeerForm::Dicts { peer_ids: true }));
        prop_assert_eq!(&dicts, &sent);

        let mut nameless = sent.clone();
        nameless.peers.iter_mut().for_each(|peer| peer.peer_id = None);
        prop_assert_eq!(&answer(&sent.encode(PeerForm::Dicts { peer_ids: false })), &nameless);

        nameless.peers.sort_by_key(|peer| peer.addr.is_ipv6());
        prop_assert_eq!(&answer(&sent.encode(PeerForm::Compact)), &nameless);
    }

    #[test]
    fn a_client_reads_why_a_server_refuses(reason in "[a-z]{0,80}", minutes: Option<u32>, never: bool) {
        let retry_in = if never { Some(RetryIn::Never) } else { minutes.map(RetryIn::Minutes) };
        let sent = AnnounceFailure { reason, retry_in };
        prop_assert_eq!(failure(&sent.encode()), sent);
    }
}
