use super::*;
use proptest::prelude::*;

const T: Transaction = Transaction(0xdead_beef);
const C: ConnectionId = ConnectionId(0x0102_0304_0506_0708);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn announce() -> AnnounceRequest {
    AnnounceRequest {
        downloaded: 1,
        left: 2,
        uploaded: 3,
        event: Some(Event::Started),
        numwant: Some(50),
        key: 0xcafe_f00d,
        supportcrypto: false,
        ..AnnounceRequest::new(InfoHash([b'h'; 20]), PeerId([b'p'; 20]), 0x1ae1)
    }
}

/// The vector of the reliability table, and the layouts of BEP 15 written out.
#[test]
fn bytes_as_bep_15_has_them() {
    assert_eq!(hex(&connect_request(T)), "000004172710198000000000deadbeef");
    let expected = [
        "0102030405060708", // connection_id
        "00000001",         // action
        "deadbeef",         // transaction_id
        &"68".repeat(20),   // info_hash
        &"70".repeat(20),   // peer_id
        "0000000000000001", // downloaded
        "0000000000000002", // left
        "0000000000000003", // uploaded
        "00000002",         // event
        "00000000",         // IP address
        "cafef00d",         // key
        "00000032",         // num_want
        "1ae1",             // port
    ];
    assert_eq!(hex(&announce_request(C, T, &announce(), b"")), expected.concat());
    let no_wish = announce_request(C, T, &AnnounceRequest { numwant: None, ..announce() }, b"");
    assert_eq!((no_wish.len(), &no_wish[92..96]), (ANNOUNCE_BYTES, &[0xff; 4][..]));
    assert_eq!(
        hex(&scrape_request(C, T, &[InfoHash([0xaa; 20]), InfoHash([0xbb; 20])])),
        ["010203040506070800000002deadbeef", &"aa".repeat(20), &"bb".repeat(20)].concat()
    );

    let mut out = Vec::new();
    connected(T, C, &mut out);
    assert_eq!(hex(&out), "00000000deadbeef0102030405060708");
    out.clear();
    let peers = ["1.2.3.4:6881", "[::1]:1", "5.6.7.8:80"].map(|addr| addr.parse().unwrap());
    announced(T, (1800, 4, 3), peers.into_iter(), false, &mut out);
    assert_eq!(hex(&out), "00000001deadbeef000007080000000400000003010203041ae1050607080050");
    out.clear();
    announced(T, (1800, 4, 3), peers.into_iter(), true, &mut out);
    assert_eq!(hex(&out[ANNOUNCED_BYTES..]), "000000000000000000000000000000010001");
    out.clear();
    scraped(T, [ScrapeCounts { complete: 1, downloaded: 2, incomplete: 3 }].into_iter(), &mut out);
    assert_eq!(hex(&out), "00000002deadbeef000000010000000200000003");
    out.clear();
    failed(T, "no", &mut out);
    assert_eq!(hex(&out), "00000003deadbeef6e6f");
}

/// The examples of BEP 41, and lists that end early.
#[test]
fn options() {
    let table: &[(&[u8], &[u8])] = &[
        (b"", b""),
        (b"\x02\x0c/dir?a=b&c=d", b"/dir?a=b&c=d"),
        (b"\x02\x00", b""),
        (b"\x01\x01\x02\x02/a\x00\x02\x02/b", b"/a"),
        (b"\x02\x02/a\x01\x02\x02/b", b"/a/b"),
        (b"\x80\x03\x02\x01x\x02\x02/b", b"/b"),
        (b"\x02\x05/a", b""),
        (b"\x02", b""),
        (b"\x02\x01/\x03\xff", b"/"),
    ];
    for (options, data) in table {
        assert_eq!(UdpOptions(options).url_data(), *data, "{options:?}");
    }
    let long: Vec<u8> = (0..600_u32).map(|at| b'a' + (at % 26) as u8).collect();
    for len in [0, 1, 254, 255, 256, 510, 511, 600] {
        let bytes = announce_request(C, T, &announce(), &long[..len]);
        let Ok(UdpRequest::Announce { options, .. }) = UdpRequest::decode(&bytes) else { panic!("{len}") };
        assert_eq!(options.url_data(), &long[..len]);
    }
}

#[test]
fn what_is_cut_off_or_foreign_is_refused() {
    let whole = [
        connect_request(T).to_vec(),
        announce_request(C, T, &announce(), b""),
        scrape_request(C, T, &[InfoHash([1; 20])]),
    ];
    for bytes in &whole {
        assert!(UdpRequest::decode(bytes).is_ok());
        for len in 0..bytes.len() {
            assert_eq!(
                UdpRequest::decode(&bytes[..len]),
                Err(UdpError::TooShort),
                "{len} of {}",
                bytes.len()
            );
        }
    }
    let mut odd = connect_request(T);
    odd[7] ^= 1;
    assert_eq!(UdpRequest::decode(&odd), Err(UdpError::Unknown));
    for action in [3_u32, 4, 0xffff_ffff] {
        let mut bytes = connect_request(T);
        bytes[8..12].copy_from_slice(&action.to_be_bytes());
        assert_eq!(UdpRequest::decode(&bytes), Err(UdpError::Unknown));
    }
    let lengths = [(0, 16), (1, 20), (2, 8), (3, 8)];
    for (action, least) in lengths {
        let bytes = [&[0, 0, 0, action][..], &[7; 30]].concat();
        for len in 0..bytes.len() {
            let wordless = action == 1 && len == 8;
            assert_eq!(UdpAnswer::decode(&bytes[..len]).is_ok(), len >= least || wordless, "{action} {len}");
            assert_eq!(
                matches!(UdpAnswer::decode(&bytes[..len]), Ok(UdpAnswer::Failed { message: [], .. })),
                wordless || (action == 3 && len == 8)
            );
        }
    }
    assert_eq!(UdpAnswer::decode(&[0, 0, 0, 4, 0, 0, 0, 0, 0]), Err(UdpError::Unknown));
}

#[test]
fn answers_are_told_from_the_dht_and_from_utp() {
    let mut out = Vec::new();
    connected(T, C, &mut out);
    assert!(UdpAnswer::is_likely(&out));
    assert!(!UdpAnswer::is_likely(b"d1:ad2:id20:aaaa"));
    for utp in [0x01, 0x11, 0x21, 0x31, 0x41] {
        assert!(!UdpAnswer::is_likely(&[utp, 0, 0, 0, 0, 0, 0, 0, 0]));
    }
    assert!(!UdpAnswer::is_likely(&[0, 0, 0, 1, 0, 0, 0]));
}

#[test]
fn numbers_that_should_not_be_negative() {
    let mut out = Vec::new();
    announced(T, (u32::MAX, u32::MAX, 0), std::iter::empty(), false, &mut out);
    let Ok(UdpAnswer::Announced { answer, .. }) = UdpAnswer::decode(&out) else { panic!() };
    assert_eq!((answer.interval, answer.leechers), (i32::MAX as u32, i32::MAX as u32));
    out[8..12].copy_from_slice(&(-1_i32).to_be_bytes());
    let Ok(UdpAnswer::Announced { answer, .. }) = UdpAnswer::decode(&out) else { panic!() };
    assert_eq!(answer.interval, 0);
}

#[test]
fn peers_are_bounded_and_can_be_dialled() {
    let mut bytes = [&[0, 0, 0, 1][..], &[0; 16]].concat();
    bytes.extend([1, 2, 3, 4, 0, 0]);
    (0..20_000_u32).for_each(|at| bytes.extend([1, 2, 3, 4, 1, at as u8]));
    let Ok(UdpAnswer::Announced { answer, .. }) = UdpAnswer::decode(&bytes) else { panic!() };
    let peers = answer.into_answer(false).peers;
    assert_eq!(peers.len(), MAX_PEERS);
    assert!(peers.iter().all(|peer| peer.addr.port() != 0));
}

proptest! {
    #[test]
    fn a_server_reads_what_a_client_writes(
        hash: [u8; 20], id: [u8; 20], numbers: (u64, u64, u64), event in 0..4_usize, key: u32, port: u16,
        numwant in prop::option::of(0..=i32::MAX as u32), path in prop::collection::vec(any::<u8>(), 0..700),
    ) {
        let events = [None, Some(Event::Completed), Some(Event::Started), Some(Event::Stopped)];
        let sent = AnnounceRequest {
            downloaded: numbers.0, left: numbers.1, uploaded: numbers.2, event: events[event], key, numwant,
            supportcrypto: false, ..AnnounceRequest::new(InfoHash(hash), PeerId(id), port)
        };
        let bytes = announce_request(C, T, &sent, &path);
        let Ok(UdpRequest::Announce { connection, transaction, announce, options }) = UdpRequest::decode(&bytes)
        else { panic!() };
        prop_assert_eq!((connection, transaction, announce), (C, T, sent));
        prop_assert_eq!(options.url_data(), path);
    }

    #[test]
    fn scrapes_both_ways(hashes in prop::collection::vec(any::<[u8; 20]>(), 1..100), counts: Vec<(u32, u32, u32)>) {
        let hashes: Vec<_> = hashes.into_iter().map(InfoHash).collect();
        let bytes = scrape_request(C, T, &hashes);
        let Ok(UdpRequest::Scrape { hashes: read, .. }) = UdpRequest::decode(&bytes) else { panic!() };
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), &hashes[..hashes.len().min(MAX_SCRAPE_HASHES)]);

        let half = |number: u32| number >> 1;
        let counts: Vec<_> = counts.into_iter().map(|(a, b, c)| {
            ScrapeCounts { complete: half(a), downloaded: half(b), incomplete: half(c) }
        }).collect();
        let mut out = Vec::new();
        scraped(T, counts.iter().copied(), &mut out);
        let Ok(UdpAnswer::Scraped { transaction, counts: read }) = UdpAnswer::decode(&out) else { panic!() };
        prop_assert_eq!(transaction, T);
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), counts);
    }

    #[test]
    fn a_client_reads_what_a_server_writes(
        numbers: (u32, u32, u32), v6: bool, peers in prop::collection::vec((any::<[u8; 4]>(), 1..=u16::MAX), 0..90),
    ) {
        let numbers = (numbers.0 >> 1, numbers.1 >> 1, numbers.2 >> 1);
        let peers: Vec<SocketAddr> = peers.into_iter().map(|([a, b, c, d], port)| {
            let v6_ip = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d];
            if v6 { (v6_ip, port).into() } else { ([a, b, c, d], port).into() }
        }).collect();
        let mut out = Vec::new();
        announced(T, numbers, peers.iter().copied(), v6, &mut out);
        let Ok(UdpAnswer::Announced { answer, .. }) = UdpAnswer::decode(&out) else { panic!() };
        prop_assert_eq!((answer.interval, answer.leechers, answer.seeders), numbers);
        let read: Vec<_> = answer.into_answer(v6).peers.into_iter().map(|peer| peer.addr).collect();
        prop_assert_eq!(read, peers);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), action in 0..5_u8) {
        for bytes in [bytes.clone(), [&[0, 0, 0, action][..], &bytes].concat()] {
            let _ = UdpRequest::decode(&bytes);
            if let Ok(UdpAnswer::Failed { message, .. }) = UdpAnswer::decode(&bytes) {
                prop_assert!(!words(message).contains('\n'));
            }
            let mut request = [&[9; 8][..], &bytes].concat();
            set_connection(&mut request, C);
            if let Ok(UdpRequest::Announce { options, connection, .. }) = UdpRequest::decode(&request) {
                prop_assert!(options.url_data().len() < request.len());
                prop_assert_eq!(connection, C);
            }
        }
    }
}
