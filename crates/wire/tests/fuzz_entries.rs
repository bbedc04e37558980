//! Every entry point that bytes of strangers reach, fed with valid inputs that were damaged: cut, doubled, flipped,
//! spliced and with numbers replaced by extreme ones. Nothing may panic, and what is accepted must make sense.
//!
//! The functions `peer_wire`, `extended`, `tracker_answer` and `tracker_query` are what a coverage-guided fuzzer would
//! call, too.

use piecemeal_metainfo::{InfoHash, PeerId};
use piecemeal_wire::extension::{Extension, ExtensionHandshake, ExtensionIds};
use piecemeal_wire::message::{HashRange, KEEP_ALIVE};
use piecemeal_wire::metadata::{MetadataMessage, metadata_piece_len};
use piecemeal_wire::peer_id::client_name;
use piecemeal_wire::pex::{MAX_PEX_PEERS, PexFlags, PexMessage};
use piecemeal_wire::tracker::{
    AnnounceAnswer, AnnounceFailure, AnnounceReply, AnnounceRequest, Event, MAX_PEERS, MAX_SCRAPE_HASHES,
    PeerForm, RetryIn, ScrapeAnswer, ScrapeCounts, ScrapeReply, TrackerPeer, announce_url,
    parse_announce_query, parse_scrape_query, scrape_url,
};
use piecemeal_wire::{
    Handshake, Head, Limits, Message, Progress, Reserved, decode_head, needed, piece_header,
};
use proptest::prelude::*;

/// A connection's bytes from the first on. Whatever they are, each step eats something, ends or asks for more, and
/// what was read is written again as it stood.
fn peer_wire(bytes: &[u8], limits: &Limits) {
    let Ok(progress) = Handshake::decode(bytes) else { return };
    let Progress::Whole(handshake) = progress else {
        assert!(bytes.len() < 68);
        return;
    };
    assert_eq!(handshake.encode(), bytes[..68]);
    assert!(!client_name(&handshake.peer_id).is_empty());
    let mut rest = &bytes[68..];
    while let Ok(head) = decode_head(rest, limits) {
        let eaten = match head {
            Head::NeedMore => {
                let needed = needed(rest);
                assert!(needed > rest.len() && needed <= (1 << 20) + 4);
                return;
            }
            Head::KeepAlive => 4,
            Head::Message { message, consumed } => {
                let mut again = Vec::new();
                message.encode(&mut again);
                assert_eq!(again, rest[..consumed]);
                if let Message::Extended { payload, .. } = message {
                    extended(payload);
                }
                consumed
            }
            Head::Piece { piece, begin, len, consumed } => {
                assert!(len <= limits.max_block);
                assert_eq!(piece_header(piece, begin, len), rest[..consumed]);
                (consumed + len as usize).min(rest.len())
            }
        };
        assert!(eaten > 0 && eaten <= rest.len());
        rest = &rest[eaten..];
    }
}

/// A payload as each extension might read it.
fn extended(payload: &[u8]) {
    if let Ok(handshake) = ExtensionHandshake::decode(payload) {
        let again = ExtensionHandshake::decode(&handshake.encode()).expect("what we write we read");
        // A name that was cut in the middle of broken UTF-8 may be cut once more: U+FFFD has three bytes.
        assert_eq!(
            ExtensionHandshake { client: None, ..again },
            ExtensionHandshake { client: None, ..handshake }
        );
    }
    if let Ok(MetadataMessage::Data { piece, total_size, data }) = MetadataMessage::decode(payload) {
        assert_eq!(metadata_piece_len(piece, total_size), Some(data.len() as u32));
    }
    if let Ok(pex) = PexMessage::decode(payload) {
        assert!(pex.added.len() <= 2 * MAX_PEX_PEERS && pex.dropped.len() <= 2 * MAX_PEX_PEERS);
    }
}

fn tracker_answer(body: &[u8]) {
    match AnnounceReply::decode(body) {
        Ok(AnnounceReply::Answer(answer)) => {
            assert!(answer.peers.len() <= MAX_PEERS && answer.peers.iter().all(|peer| peer.addr.port() != 0));
            // A peer costs at least six bytes: nothing is made up.
            assert!(answer.peers.len() * 6 <= body.len());
            let again = AnnounceReply::decode(&answer.encode(PeerForm::Dicts { peer_ids: true }));
            let Ok(AnnounceReply::Answer(again)) = again else { panic!("what we write we read") };
            assert_eq!((again.peers, again.interval), (answer.peers, answer.interval));
        }
        Ok(AnnounceReply::Failure(failure)) => assert!(!failure.reason.contains(char::is_control)),
        Err(_) => {}
    }
    if let Ok(ScrapeReply::Answer(answer)) = ScrapeReply::decode(body) {
        assert!(answer.files.len() <= MAX_SCRAPE_HASHES);
    }
}

fn tracker_query(query: &str) {
    if let Ok(request) = parse_announce_query(query) {
        let url = announce_url("http://t.example/announce", &request);
        let (_, again) = url.split_once('?').expect("has a query");
        assert_eq!(parse_announce_query(again), Ok(request));
    }
    if let Ok(hashes) = parse_scrape_query(query) {
        assert!(hashes.len() <= MAX_SCRAPE_HASHES);
    }
    let _ = scrape_url(query, &[]);
}

/// One way to damage bytes; positions are taken modulo the length.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u8),
    Cut(usize),
    Remove(usize, usize),
    Insert(usize, Vec<u8>),
    Double(usize, usize),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len().max(1);
        match self {
            Damage::Flip(at, with) => {
                if let Some(byte) = bytes.get_mut(at % len) {
                    *byte ^= with;
                }
            }
            Damage::Cut(at) => bytes.truncate(at % len),
            Damage::Remove(at, count) => {
                let start = (at % len).min(bytes.len());
                bytes.drain(start..(start + count).min(bytes.len()));
            }
            Damage::Insert(at, what) => {
                let at = (at % len).min(bytes.len());
                bytes.splice(at..at, what.iter().copied());
            }
            Damage::Double(at, count) => {
                let start = (at % len).min(bytes.len());
                let copy = bytes[start..(start + count).min(bytes.len())].to_vec();
                bytes.splice(start..start, copy);
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let extremes = prop::sample::select(
        [
            &b"\xff\xff\xff\xff"[..],
            b"\0\0\0\0",
            b"\x80\0\0\0",
            b"i-1e",
            b"i9223372036854775807e",
            b"9999999999:",
            b"d",
            b"l",
        ]
        .concat()
        .chunks(4)
        .map(<[u8]>::to_vec)
        .chain([
            b"i9223372036854775807e".to_vec(),
            b"99999999999999999999:".to_vec(),
            b"%".to_vec(),
            b"&".to_vec(),
        ])
        .chain([b"e".to_vec(), vec![b'l'; 200], b"d1:a".repeat(200), b"0:".to_vec(), b"=-1".to_vec()])
        .collect::<Vec<_>>(),
    );
    prop_oneof![
        3 => (any::<usize>(), 1u8..).prop_map(|(at, with)| Damage::Flip(at, with)),
        1 => any::<usize>().prop_map(Damage::Cut),
        1 => (any::<usize>(), 1usize..20).prop_map(|(at, count)| Damage::Remove(at, count)),
        2 => (any::<usize>(), extremes).prop_map(|(at, what)| Damage::Insert(at, what)),
        1 => (any::<usize>(), 1usize..60).prop_map(|(at, count)| Damage::Double(at, count)),
    ]
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    prop::collection::vec(damage(), 0..6)
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    damages.iter().for_each(|damage| damage.apply(&mut bytes));
    bytes
}

/// One of each message, blocks and keep-alives among them.
fn conversation() -> Vec<u8> {
    let handshake = Handshake {
        reserved: Reserved::NONE.with_fast().with_extension().with_dht().with_v2(),
        info_hash: InfoHash([0xaa; 20]),
        peer_id: PeerId(*b"-PM0100-abcdefghijkl"),
    };
    let range = HashRange { root: [3; 32], base_layer: 0, index: 0, length: 2, proof_layers: 1 };
    let extension = extension_handshake();
    let pex = pex();
    let mut bytes = handshake.encode().to_vec();
    let messages = [
        Message::Bitfield(&[0xff, 0xe0]),
        Message::Extended { id: 0, payload: &extension },
        Message::Port(6881),
        Message::HaveAll,
        Message::HaveNone,
        Message::Interested,
        Message::Unchoke,
        Message::AllowedFast { piece: 3 },
        Message::Suggest { piece: 4 },
        Message::Request { piece: 1, begin: 16384, len: 16384 },
        Message::Cancel { piece: 1, begin: 16384, len: 16384 },
        Message::Reject { piece: 1, begin: 16384, len: 16384 },
        Message::Extended { id: 2, payload: &pex },
        Message::Extended { id: 1, payload: b"d8:msg_typei1e5:piecei0e10:total_sizei5ee12345" },
        Message::HashRequest(range),
        Message::Hashes(range, &[[1; 32], [2; 32], [3; 32]]),
        Message::HashReject(range),
        Message::Have { piece: 9 },
        Message::NotInterested,
        Message::Choke,
        Message::Unknown { id: 77, payload: b"hello" },
    ];
    for message in messages {
        message.encode(&mut bytes);
    }
    bytes.extend(KEEP_ALIVE);
    bytes.extend(piece_header(1, 0, 32));
    bytes.extend([0x55; 32]);
    Message::Have { piece: 10 }.encode(&mut bytes);
    bytes
}

fn extension_handshake() -> Vec<u8> {
    ExtensionHandshake {
        ids: ExtensionIds::own(Extension::ALL),
        client: Some("piecemeal 0.1".to_owned()),
        port: Some(6881),
        your_ip: Some([192, 0, 2, 1].into()),
        ipv4: Some([192, 0, 2, 2].into()),
        ipv6: Some([1; 16].into()),
        reqq: Some(500),
        metadata_size: Some(31235),
        upload_only: Some(false),
    }
    .encode()
}

fn pex() -> Vec<u8> {
    let v4 = "1.2.3.4:5".parse().expect("an address");
    let v6 = "[2001:db8::1]:5".parse().expect("an address");
    PexMessage { added: vec![(v4, PexFlags::SEED), (v6, PexFlags::UTP)], dropped: vec![v4, v6] }.encode()
}

fn answers() -> Vec<Vec<u8>> {
    let peer = |addr: &str| TrackerPeer {
        addr: addr.parse().expect("an address"),
        peer_id: Some(PeerId([b'x'; 20])),
    };
    let answer = AnnounceAnswer {
        interval: Some(1800),
        min_interval: Some(60),
        warning: Some("slow down".to_owned()),
        tracker_id: Some(vec![1, 2, 3]),
        external_ip: Some([192, 0, 2, 9].into()),
        complete: Some(1),
        incomplete: Some(2),
        downloaded: Some(3),
        peers: vec![peer("1.2.3.4:5"), peer("5.6.7.8:9"), peer("[2001:db8::1]:5")],
    };
    let files = vec![(InfoHash([b'a'; 20]), ScrapeCounts { complete: 1, downloaded: 2, incomplete: 3 })];
    vec![
        answer.encode(PeerForm::Compact),
        answer.encode(PeerForm::Dicts { peer_ids: true }),
        AnnounceFailure { reason: "not here".to_owned(), retry_in: Some(RetryIn::Never) }.encode(),
        AnnounceFailure { reason: "not now".to_owned(), retry_in: Some(RetryIn::Minutes(5)) }.encode(),
        ScrapeAnswer { files, min_request_interval: Some(900) }.encode(),
    ]
}

fn queries() -> Vec<Vec<u8>> {
    let mut request = AnnounceRequest::new(InfoHash([0x12; 20]), PeerId([b'p'; 20]), 6881);
    let plain = announce_url("", &request);
    request.event = Some(Event::Started);
    request.numwant = Some(80);
    request.tracker_id = Some(b"a b".to_vec());
    request.ip = Some([192, 0, 2, 1].into());
    request.ipv6 = Some([1; 16].into());
    let full = announce_url("", &request);
    let scrape =
        scrape_url("http://t/announce", &[InfoHash([0; 20]), InfoHash([1; 20])]).expect("has a scrape");
    [plain, full, scrape, "http://t.example/x/announce.php?k=1".to_owned()].map(String::into_bytes).to_vec()
}

#[test]
fn undamaged_inputs_are_read_to_their_end() {
    let bytes = conversation();
    let (mut rest, mut heard) = (&bytes[68..], 0);
    while !rest.is_empty() {
        let eaten = match decode_head(rest, &Limits::default()).expect("well formed") {
            Head::NeedMore => panic!("all is here"),
            Head::KeepAlive => 4,
            Head::Message { consumed, .. } => consumed,
            Head::Piece { consumed, len, .. } => consumed + len as usize,
        };
        rest = &rest[eaten..];
        heard += 1;
    }
    assert_eq!(heard, 24);
    assert!(answers().iter().all(|body| AnnounceReply::decode(body).is_ok()));
    assert!(
        queries()[..2]
            .iter()
            .all(|query| { parse_announce_query(str::from_utf8(query).expect("a URL is text")).is_ok() })
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn peer_wire_survives(damages in damages(), pieces in prop::option::of(0u32..40)) {
        let mut bytes = conversation();
        let messages = damaged(bytes.split_off(68), &damages);
        bytes.extend(messages);
        peer_wire(&bytes, &Limits { pieces, ..Limits::default() });
        peer_wire(&damaged(conversation(), &damages), &Limits::default());
    }

    #[test]
    fn extensions_survive(damages in damages()) {
        extended(&damaged(extension_handshake(), &damages));
        extended(&damaged(pex(), &damages));
        extended(&damaged(b"d8:msg_typei1e5:piecei0e10:total_sizei5ee12345".to_vec(), &damages));
    }

    #[test]
    fn tracker_answers_survive(damages in damages()) {
        answers().into_iter().for_each(|body| tracker_answer(&damaged(body, &damages)));
    }

    #[test]
    fn tracker_queries_survive(damages in damages()) {
        queries().into_iter().for_each(|query| {
            tracker_query(&String::from_utf8_lossy(&damaged(query, &damages)));
        });
    }

    #[test]
    fn noise_survives(bytes: Vec<u8>) {
        peer_wire(&bytes, &Limits::default());
        extended(&bytes);
        tracker_answer(&bytes);
        tracker_query(&String::from_utf8_lossy(&bytes));
    }
}
