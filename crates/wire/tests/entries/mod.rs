//! Every door that bytes of strangers come through, as one function each, and good inputs to begin with.
//!
//! The property tests of this crate and the targets of `fuzz/` call the same functions. Nothing may panic, and what is
//! accepted must make sense.

mod krpc;

pub use krpc::{krpc, pex};
use piecemeal_metainfo::{InfoHash, PeerId};
use piecemeal_wire::extension::{
    Extension, ExtensionHandshake, ExtensionIds, decode_dont_have, decode_upload_only,
};
use piecemeal_wire::message::{HashRange, KEEP_ALIVE};
use piecemeal_wire::metadata::{MetadataMessage, metadata_piece_len};
use piecemeal_wire::peer_id::client_name;
use piecemeal_wire::pex::{MAX_PEX_PEERS, PexFlags, PexMessage};
use piecemeal_wire::tracker::udp::{self, ConnectionId, Transaction, UdpAnswer, UdpRequest};
use piecemeal_wire::tracker::{
    AnnounceAnswer, AnnounceFailure, AnnounceReply, AnnounceRequest, Event, MAX_PEERS, MAX_SCRAPE_HASHES,
    PeerForm, RetryIn, ScrapeAnswer, ScrapeCounts, ScrapeReply, TrackerPeer, announce_url,
    parse_announce_query, parse_scrape_query, scrape_url,
};
use piecemeal_wire::{
    Handshake, Head, Limits, Message, Progress, Reserved, decode_head, needed, piece_header,
};

/// Bytes of a handshake.
pub const HANDSHAKE: usize = 68;

/// The first bytes of a connection, as they come: each one more than before. What was known stays known.
pub fn handshake(bytes: &[u8]) {
    let mut known = None;
    for len in 0..=bytes.len().min(HANDSHAKE + 1) {
        match Handshake::decode(&bytes[..len]) {
            Err(_) => {
                assert!(Handshake::decode(bytes).is_err(), "more bytes do not make it better");
                return;
            }
            Ok(Progress::Partial { reserved, info_hash }) => {
                assert!(len < HANDSHAKE);
                assert_eq!((reserved.is_some(), info_hash.is_some()), (len >= 28, len >= 48));
                assert!(known.is_none() || known == info_hash);
                known = info_hash;
            }
            Ok(Progress::Whole(whole)) => {
                assert!(len >= HANDSHAKE);
                assert_eq!(whole.encode(), bytes[..HANDSHAKE]);
                assert_eq!(known, Some(whole.info_hash));
                assert!(!client_name(&whole.peer_id).is_empty());
            }
        }
    }
}

/// Messages of a peer whose torrent has as many pieces as the first byte says; 0: it is not known yet.
pub fn peer_wire(bytes: &[u8]) {
    let Some((pieces, messages_)) = bytes.split_first() else { return };
    let pieces = (*pieces > 0).then_some(u32::from(*pieces));
    messages(messages_, &Limits { pieces, ..Limits::default() });
}

/// Messages one after another. Each step eats something, ends or asks for more, and what was read is written again as
/// it stood; of a message that is not all here nothing is made up.
pub fn messages(bytes: &[u8], limits: &Limits) {
    let mut rest = bytes;
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
                assert_eq!(again.len(), message.encoded_len());
                assert!(matches!(decode_head(&rest[..consumed - 1], limits), Ok(Head::NeedMore)));
                if let Message::Extended { payload, .. } = message {
                    extension(payload);
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
pub fn extension(payload: &[u8]) {
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
    let _ = (decode_dont_have(payload), decode_upload_only(payload));
}

/// The body of an answer, as that to an announce and to a scrape.
pub fn tracker_answer(body: &[u8]) {
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

/// The path and query of a request to a tracker of ours.
pub fn tracker_query(bytes: &[u8]) {
    let query = &String::from_utf8_lossy(bytes);
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

/// A datagram between client and tracker, read from both ends. What is read costs no more than it says.
pub fn udp_tracker(bytes: &[u8]) {
    match UdpRequest::decode(bytes) {
        Ok(UdpRequest::Announce { connection, transaction, announce, options }) => {
            assert!(bytes.len() >= udp::ANNOUNCE_BYTES);
            assert!(options.url_data().len() <= bytes.len() - udp::ANNOUNCE_BYTES);
            let again = udp::announce_request(connection, transaction, &announce, b"");
            // All but an event we do not know, and a number that is negative, is written as it stood.
            assert_eq!(
                (&again[..80], &again[84..92], &again[96..]),
                (&bytes[..80], &bytes[84..92], &bytes[96..98])
            );
        }
        Ok(UdpRequest::Scrape { connection, transaction, hashes }) => {
            let hashes: Vec<InfoHash> = hashes.iter().collect();
            assert!(bytes.starts_with(&udp::scrape_request(connection, transaction, &hashes)));
        }
        Ok(UdpRequest::Connect { transaction }) => {
            assert!(bytes.starts_with(&udp::connect_request(transaction)))
        }
        Err(_) => {}
    }
    match UdpAnswer::decode(bytes) {
        Ok(UdpAnswer::Announced { answer, .. }) => {
            for (v6, entry) in [(false, 6), (true, 18)] {
                let answer = answer.into_answer(v6);
                assert!(answer.peers.len() <= MAX_PEERS && answer.peers.len() * entry <= bytes.len());
                tracker_answer(&answer.encode(PeerForm::Compact));
            }
        }
        Ok(UdpAnswer::Scraped { counts, .. }) => assert!(counts.iter().len() * 12 <= bytes.len()),
        Ok(UdpAnswer::Failed { message, .. }) => assert!(!udp::words(message).contains(char::is_control)),
        Ok(UdpAnswer::Connected { .. }) | Err(_) => {}
    }
}

/// Good inputs for the function of this name.
pub fn seeds(entry: &str) -> Vec<Vec<u8>> {
    let conversation = conversation();
    let (hello, messages) = conversation.split_at(HANDSHAKE);
    match entry {
        "handshake" => vec![hello.to_vec(), hello[..48].to_vec(), conversation.clone()],
        // Eleven pieces fit its bitfield.
        "peer_wire" => [0, 11].map(|pieces| [&[pieces][..], messages].concat()).to_vec(),
        "extension" => vec![
            extension_handshake(),
            pex_message(),
            b"d8:msg_typei0e5:piecei0ee".to_vec(),
            METADATA.to_vec(),
            b"d8:msg_typei2e5:piecei0ee".to_vec(),
            vec![0, 0, 0, 9],
        ],
        "tracker_answer" => answers(),
        "tracker_query" => queries(),
        "udp_tracker" => datagrams(),
        "krpc" => krpc::datagrams(),
        "pex" => vec![pex_message(), PexMessage::default().encode()],
        _ => Vec::new(),
    }
}

/// A `data` message of the metadata extension.
pub const METADATA: &[u8] = b"d8:msg_typei1e5:piecei0e10:total_sizei5ee12345";

/// One of each message, blocks and keep-alives among them.
pub fn conversation() -> Vec<u8> {
    let handshake = Handshake {
        reserved: Reserved::NONE.with_fast().with_extension().with_dht().with_v2(),
        info_hash: InfoHash([0xaa; 20]),
        peer_id: PeerId(*b"-PM0100-abcdefghijkl"),
    };
    let range = HashRange { root: [3; 32], base_layer: 0, index: 0, length: 2, proof_layers: 1 };
    let extension = extension_handshake();
    let pex = pex_message();
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
        Message::Extended { id: 1, payload: METADATA },
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

/// All fields.
pub fn extension_handshake() -> Vec<u8> {
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

/// Both families, added and dropped.
pub fn pex_message() -> Vec<u8> {
    let v4 = "1.2.3.4:5".parse().expect("an address");
    let v6 = "[2001:db8::1]:5".parse().expect("an address");
    PexMessage { added: vec![(v4, PexFlags::SEED), (v6, PexFlags::UTP)], dropped: vec![v4, v6] }.encode()
}

/// An answer in each form, refusals and a scrape.
pub fn answers() -> Vec<Vec<u8>> {
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

/// Announces, a scrape and a URL that is neither.
pub fn queries() -> Vec<Vec<u8>> {
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

/// Each request and each answer.
pub fn datagrams() -> Vec<Vec<u8>> {
    let (connection, transaction) = (ConnectionId(0x0102_0304_0506_0708), Transaction(0xdead_beef));
    let announce = AnnounceRequest {
        event: Some(Event::Started),
        numwant: Some(50),
        ..AnnounceRequest::new(InfoHash([0x12; 20]), PeerId([b'p'; 20]), 6881)
    };
    let hashes = [InfoHash([0; 20]), InfoHash([1; 20])];
    let peers = ["1.2.3.4:5", "[2001:db8::1]:5"].map(|addr| addr.parse().expect("an address"));
    let counts = ScrapeCounts { complete: 1, downloaded: 2, incomplete: 3 };
    let mut answers = [(); 5].map(|()| Vec::new());
    udp::connected(transaction, connection, &mut answers[0]);
    udp::announced(transaction, (1800, 2, 3), peers.into_iter(), false, &mut answers[1]);
    udp::announced(transaction, (1800, 2, 3), peers.into_iter(), true, &mut answers[2]);
    udp::scraped(transaction, [counts, counts].into_iter(), &mut answers[3]);
    udp::failed(transaction, "not here", &mut answers[4]);
    let mut all = vec![
        udp::connect_request(transaction).to_vec(),
        udp::announce_request(connection, transaction, &announce, b"/announce?key=1"),
        udp::scrape_request(connection, transaction, &hashes),
    ];
    all.extend(answers);
    all
}
