use super::*;
use proptest::prelude::*;

const HASH: InfoHash =
    InfoHash(*b"\x12\x34\x56\x78\x9a\xbc\xde\xf1\x23\x45\x67\x89\xab\xcd\xef\x12\x34\x56\x78\x9a");
const ID: PeerId = PeerId(*b"-PM0100-abc~._-+ %&=");

fn request() -> AnnounceRequest {
    AnnounceRequest::new(HASH, ID, 6881)
}

#[test]
fn the_url_of_an_announce_byte_for_byte() {
    let mut request = request();
    request.left = 1000;
    request.key = 0xbeef;
    request.event = Some(Event::Started);
    request.numwant = Some(80);
    let query = "info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A\
        &peer_id=-PM0100-abc~._-%2B%20%25%26%3D&port=6881&uploaded=0&downloaded=0&left=1000&key=0000BEEF\
        &event=started&numwant=80&compact=1&no_peer_id=1&supportcrypto=1";
    let table = [
        ("http://t.example/announce", "http://t.example/announce?"),
        ("http://t.example/announce?", "http://t.example/announce?"),
        ("http://t.example/a?passkey=x", "http://t.example/a?passkey=x&"),
        ("http://t.example/a?passkey=x&", "http://t.example/a?passkey=x&"),
        ("http://t.example/announce#top", "http://t.example/announce?"),
        ("https://t.example", "https://t.example?"),
    ];
    for (base, start) in table {
        assert_eq!(announce_url(base, &request), format!("{start}{query}"));
    }
}

#[test]
fn scrape_urls_by_convention() {
    let table = [
        ("http://example.com/announce", Some("http://example.com/scrape")),
        ("http://example.com/x/announce", Some("http://example.com/x/scrape")),
        ("http://example.com/announce.php", Some("http://example.com/scrape.php")),
        ("http://example.com/a", None),
        ("http://example.com/announce?x2%0644", Some("http://example.com/scrape?x2%0644")),
        ("http://example.com/x%064announce", None),
        ("http://example.com/announce/key", None),
        ("http://announce", None),
        ("udp://example.com:1", Some("udp://example.com:1")),
        ("UDP://example.com:1/x?k=1", Some("UDP://example.com:1/x?k=1")),
        ("announce", None),
        ("", None),
    ];
    for (announce, scrape) in table {
        assert_eq!(scrape_url(announce, &[]).as_deref(), scrape, "{announce}");
    }
    let two = scrape_url("http://e/announce?k=1", &[InfoHash([b'a'; 20]), InfoHash([0; 20])])
        .expect("has a scrape");
    assert_eq!(
        two,
        format!("http://e/scrape?k=1&info_hash={}&info_hash={}", "a".repeat(20), "%00".repeat(20))
    );
    let (_, query) = two.split_once('?').expect("has a query");
    assert_eq!(parse_scrape_query(query), Ok(vec![InfoHash([b'a'; 20]), InfoHash([0; 20])]));
}

/// A good announce with `field` replaced, or left out where it is empty.
fn with(name: &str, field: &str) -> Result<AnnounceRequest, QueryError> {
    let fields = [
        ("info_hash", "info_hash=aaaaaaaaaaaaaaaaaaaa"),
        ("peer_id", "peer_id=bbbbbbbbbbbbbbbbbbbb"),
        ("port", "port=1"),
        ("left", "left=0"),
    ];
    let mut query: Vec<&str> = fields.iter().filter(|(n, _)| *n != name).map(|(_, f)| *f).collect();
    query.push(field);
    parse_announce_query(&query.join("&"))
}

#[test]
fn announces_a_server_refuses() {
    use QueryError::*;
    let table = [
        ("info_hash", "", Missing("info_hash")),
        ("peer_id", "", Missing("peer_id")),
        ("port", "", Missing("port")),
        ("left", "", Missing("left")),
        ("info_hash", "info_hash=", Malformed("info_hash")),
        ("info_hash", "info_hash=aaaaaaaaaaaaaaaaaaa", Malformed("info_hash")),
        ("info_hash", "info_hash=aaaaaaaaaaaaaaaaaaaaa", Malformed("info_hash")),
        ("info_hash", "info_hash=aaaaaaaaaaaaaaaaaaa%", BadEscape),
        ("info_hash", "info_hash=aaaaaaaaaaaaaaaaaaa%1", BadEscape),
        ("info_hash", "info_hash=aaaaaaaaaaaaaaaaaaa%+1", BadEscape),
        ("info_hash", "info_hash=aaaaaaaaaaaaaaaaaaa%é", BadEscape),
        ("", "info_hash=cccccccccccccccccccc", Repeated("info_hash")),
        ("port", "port=65536", Malformed("port")),
        ("port", "port=-1", Malformed("port")),
        ("left", "left=18446744073709551616", Malformed("left")),
        ("left", "left=--1", Malformed("left")),
        ("", "uploaded=x", Malformed("uploaded")),
        ("", "downloaded=-1", Malformed("downloaded")),
        ("", "numwant=many", Malformed("numwant")),
    ];
    for (name, field, error) in table {
        assert_eq!(with(name, field), Err(error), "{field}");
    }
    assert_eq!(parse_announce_query(&"a".repeat(MAX_QUERY_BYTES + 1)), Err(TooLong));
    let many = "info_hash=aaaaaaaaaaaaaaaaaaaa&".repeat(MAX_SCRAPE_HASHES + 1);
    assert_eq!(parse_scrape_query(&many), Err(TooMany));
}

#[test]
fn odd_announces_a_server_accepts() {
    let good = with("", "").expect("a plain announce");
    assert_eq!((good.compact, good.no_peer_id, good.supportcrypto, good.key), (false, false, false, 0));
    assert_eq!(with("left", "left=-1").map(|r| r.left), Ok(u64::MAX));
    assert_eq!(with("", "numwant=-1").map(|r| r.numwant), Ok(None));
    assert_eq!(with("", "numwant=99999999999").map(|r| r.numwant), Ok(Some(u32::MAX)));
    assert_eq!(with("", "event=").map(|r| r.event), Ok(None));
    assert_eq!(with("", "event=paused").map(|r| r.event), Ok(Some(Event::Paused)));
    assert_eq!(with("", "ip=some.host.example").map(|r| r.ip), Ok(None));
    assert_eq!(with("", "ip=192.0.2.1").map(|r| r.ip), Ok(Some([192, 0, 2, 1].into())));
    let v6 = Some("2001:db8::1".parse().expect("an address"));
    assert_eq!(with("", "ipv6=2001%3Adb8%3A%3A1").map(|r| r.ipv6), Ok(v6));
    assert_eq!(with("", "ipv6=%5B2001%3Adb8%3A%3A1%5D%3A6881").map(|r| r.ipv6), Ok(v6));
    assert_eq!(with("", "key=DEADbeef").map(|r| r.key), Ok(0xdead_beef));
    assert_eq!(with("", "key=not-hex").map(|r| r.key), with("", "key=not%2Dhex").map(|r| r.key));
    assert_ne!(with("", "key=not-hex").map(|r| r.key), with("", "key=not-hey").map(|r| r.key));
    assert_eq!(with("info_hash", "info_hash=+aaaaaaaaaaaaaaaaaa%2b").map(|r| r.info_hash.0[0]), Ok(b'+'));
    assert!(with("", "&&unknown&=x&corrupt=0").is_ok());
    let long = format!("trackerid={}", "x".repeat(257));
    assert_eq!(with("", &long).map(|r| r.tracker_id), Ok(None));
}

fn any_request() -> impl Strategy<Value = AnnounceRequest> {
    let who = any::<([u8; 20], [u8; 20], u16, u32, Option<u32>)>();
    let bytes = any::<(u64, u64, u64)>();
    let event = prop::option::of(prop::sample::select(vec![
        Event::Started,
        Event::Completed,
        Event::Stopped,
        Event::Paused,
    ]));
    let id = prop::option::of(prop::collection::vec(any::<u8>(), 0..MAX_TRACKER_ID_BYTES));
    let flags = any::<(bool, bool, bool)>();
    let addresses = any::<(Option<[u8; 4]>, Option<[u8; 16]>)>();
    (who, bytes, event, id, flags, addresses).prop_map(|(who, bytes, event, tracker_id, flags, addresses)| {
        AnnounceRequest {
            info_hash: InfoHash(who.0),
            peer_id: PeerId(who.1),
            port: who.2,
            key: who.3,
            numwant: who.4,
            uploaded: bytes.0,
            downloaded: bytes.1,
            left: bytes.2,
            event,
            tracker_id,
            compact: flags.0,
            no_peer_id: flags.1,
            supportcrypto: flags.2,
            ip: addresses.0.map(IpAddr::from),
            ipv6: addresses.1.map(Ipv6Addr::from),
        }
    })
}

proptest! {
    #[test]
    fn a_server_reads_what_a_client_writes(request in any_request(), own_query: bool) {
        let base = if own_query { "http://t.example/announce?passkey=1" } else { "http://t.example/announce" };
        let url = announce_url(base, &request);
        prop_assert!(url.bytes().all(|c| c.is_ascii_graphic()));
        let (_, query) = url.split_once('?').expect("has a query");
        prop_assert_eq!(parse_announce_query(query), Ok(request));
    }

    #[test]
    fn random_queries_never_panic(
        query in "(info_hash|peer_id|left|port|key|ip|ipv6|numwant|.{0,3}|=|&|%|%[0-9a-f]{2}|[0-9]{1,3}|-1){0,40}",
    ) {
        let _ = parse_announce_query(&query);
        let _ = parse_scrape_query(&query);
        let _ = scrape_url(&query, &[]);
        let _ = announce_url(&query, &request());
    }

    #[test]
    fn random_text_never_panics(text: String) {
        let _ = parse_announce_query(&text);
        let _ = scrape_url(&text, &[]);
    }
}
