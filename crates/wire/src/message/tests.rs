use super::*;
use proptest::prelude::*;

fn limits(pieces: Option<u32>) -> Limits {
    Limits { pieces, ..Limits::default() }
}

fn one(bytes: &[u8]) -> Result<Head<'_>, WireError> {
    decode_head(bytes, &Limits::default())
}

fn framed(id: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32 + 1).to_be_bytes().to_vec();
    bytes.push(id);
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn bytes_of_each_message() {
    let range = HashRange { root: [9; 32], base_layer: 1, index: 512, length: 256, proof_layers: 3 };
    let mut raw_range = vec![9; 32];
    raw_range.extend([0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 3]);
    let mut raw_hashes = raw_range.clone();
    raw_hashes.extend([7; 64]);
    let block = [0, 0, 0, 1, 0, 0, 0x40, 0, 0, 0, 0x20, 0];
    let (piece, begin, len) = (1, 0x4000, 0x2000);
    let table: Vec<(Message, u8, &[u8])> = vec![
        (Message::Choke, 0, &[]),
        (Message::Unchoke, 1, &[]),
        (Message::Interested, 2, &[]),
        (Message::NotInterested, 3, &[]),
        (Message::Have { piece: 258 }, 4, &[0, 0, 1, 2]),
        (Message::Bitfield(&[0xff, 0x80]), 5, &[0xff, 0x80]),
        (Message::Request { piece, begin, len }, 6, &block),
        (Message::Cancel { piece, begin, len }, 8, &block),
        (Message::Port(6881), 9, &[0x1a, 0xe1]),
        (Message::Suggest { piece: 258 }, 13, &[0, 0, 1, 2]),
        (Message::HaveAll, 14, &[]),
        (Message::HaveNone, 15, &[]),
        (Message::Reject { piece, begin, len }, 16, &block),
        (Message::AllowedFast { piece: 258 }, 17, &[0, 0, 1, 2]),
        (Message::Extended { id: 3, payload: b"de" }, 20, &[3, b'd', b'e']),
        (Message::Extended { id: 0, payload: b"" }, 20, &[0]),
        (Message::HashRequest(range), 21, &raw_range),
        (Message::Hashes(range, &[[7; 32], [7; 32]]), 22, &raw_hashes),
        (Message::HashReject(range), 23, &raw_range),
        (Message::Unknown { id: 10, payload: b"x" }, 10, b"x"),
        (Message::Unknown { id: 255, payload: b"" }, 255, b""),
    ];
    for (message, id, body) in table {
        let bytes = framed(id, body);
        let mut encoded = Vec::new();
        message.encode(&mut encoded);
        assert_eq!(encoded, bytes, "{message:?}");
        assert_eq!(message.encoded_len(), bytes.len());
        assert_eq!(one(&bytes), Ok(Head::Message { message, consumed: bytes.len() }));
    }
    assert_eq!(one(&KEEP_ALIVE), Ok(Head::KeepAlive));
}

#[test]
fn a_piece_shows_before_its_payload() {
    let header = piece_header(5, 0x8000, 0x4000);
    assert_eq!(header, [0, 0, 0x40, 9, 7, 0, 0, 0, 5, 0, 0, 0x80, 0]);
    for have in 0..13 {
        assert_eq!(one(&header[..have]), Ok(Head::NeedMore));
    }
    assert_eq!(one(&header), Ok(Head::Piece { piece: 5, begin: 0x8000, len: 0x4000, consumed: 13 }));
}

#[test]
fn a_length_no_message_has_is_refused_at_four_bytes() {
    for len in [u32::MAX, 1 << 31, (1 << 20) + 1] {
        assert_eq!(one(&len.to_be_bytes()), Err(WireError::TooLong { len }));
        assert_eq!(one(&len.to_be_bytes()[..3]), Ok(Head::NeedMore));
    }
    assert_eq!(one(&(1u32 << 20).to_be_bytes()), Ok(Head::NeedMore));
}

#[test]
fn each_kind_has_its_length_at_the_fifth_byte() {
    const FIXED: &[(u8, u32)] = &[
        (0, 1),
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 5),
        (6, 13),
        (8, 13),
        (9, 3),
        (13, 5),
        (14, 1),
        (15, 1),
        (16, 13),
        (17, 5),
        (21, 49),
        (23, 49),
    ];
    let judged = |id: u8, len: u32, limits: &Limits| {
        let mut bytes = len.to_be_bytes().to_vec();
        bytes.push(id);
        decode_head(&bytes, limits).map(|_| ()).map_err(|error| {
            assert_eq!(error, WireError::BadLength { id, len });
        })
    };
    let any = Limits::default();
    for &(id, right) in FIXED {
        for len in 1..200 {
            assert_eq!(judged(id, len, &any).is_ok(), len == right, "{id} of {len}");
        }
        assert!(judged(id, 1 << 20, &any).is_err());
    }
    let table = [
        (7, 8, None, false),
        (7, 9, None, true),
        (7, 9 + 16384, None, true),
        (7, 10 + 16384, None, false),
        (5, 1, None, true),
        (5, 1 + 2_097_152 / 8, None, true),
        (5, 2 + 2_097_152 / 8, None, false),
        (5, 1, Some(9), false),
        (5, 2, Some(9), false),
        (5, 3, Some(9), true),
        (5, 4, Some(9), false),
        (5, 2, Some(8), true),
        (20, 1, None, false),
        (20, 2, None, true),
        (20, 1 << 20, None, true),
        (22, 48, None, false),
        (22, 49, None, true),
        (22, 50, None, false),
        (22, 49 + 32 * 576, None, true),
        (22, 49 + 32 * 577, None, false),
        (99, 1, None, true),
        (99, 1 << 20, None, true),
    ];
    for (id, len, pieces, allowed) in table {
        assert_eq!(judged(id, len, &limits(pieces)).is_ok(), allowed, "{id} of {len} with {pieces:?}");
    }
}

#[test]
fn extreme_limits_do_not_overflow() {
    let wide = Limits { pieces: Some(u32::MAX), max_block: u32::MAX, max_extended: u32::MAX };
    for id in 0..=255 {
        let mut bytes = u32::MAX.to_be_bytes().to_vec();
        bytes.push(id);
        let _ = decode_head(&bytes, &wide);
        let _ = needed(&bytes);
    }
    let none = Limits { pieces: Some(0), max_block: 0, max_extended: 0 };
    assert!(decode_head(&framed(5, &[]), &none).is_ok());
    assert!(decode_head(&framed(5, &[0]), &none).is_err());
    assert!(decode_head(&framed(20, &[0]), &none).is_err());
}

/// What a receiver makes of a stream, blocks put together again.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Heard {
    KeepAlive,
    Bytes(Vec<u8>),
    Block { piece: u32, begin: u32, payload: Vec<u8> },
}

/// The least a connection needs: bytes not yet eaten, and the block that is coming in.
#[derive(Default)]
struct Receiver {
    waiting: Vec<u8>,
    block: Option<(u32, u32, usize, Vec<u8>)>,
    heard: Vec<Heard>,
}

impl Receiver {
    fn feed(&mut self, bytes: &[u8], limits: &Limits) -> Result<(), WireError> {
        self.waiting.extend_from_slice(bytes);
        loop {
            if let Some((piece, begin, missing, mut payload)) = self.block.take() {
                let take = missing.min(self.waiting.len());
                payload.extend(self.waiting.drain(..take));
                if take < missing {
                    self.block = Some((piece, begin, missing - take, payload));
                    return Ok(());
                }
                self.heard.push(Heard::Block { piece, begin, payload });
            }
            let eaten = match decode_head(&self.waiting, limits)? {
                Head::NeedMore => {
                    assert!(needed(&self.waiting) > self.waiting.len());
                    return Ok(());
                }
                Head::KeepAlive => {
                    self.heard.push(Heard::KeepAlive);
                    4
                }
                Head::Message { message, consumed } => {
                    let mut bytes = Vec::new();
                    message.encode(&mut bytes);
                    assert_eq!(bytes, self.waiting[..consumed]);
                    self.heard.push(Heard::Bytes(bytes));
                    consumed
                }
                Head::Piece { piece, begin, len, consumed } => {
                    self.block = Some((piece, begin, len as usize, Vec::new()));
                    consumed
                }
            };
            self.waiting.drain(..eaten);
        }
    }
}

fn any_range() -> impl Strategy<Value = HashRange> {
    any::<([u8; 32], u32, u32, u32, u32)>().prop_map(|(root, base_layer, index, length, proof_layers)| {
        HashRange { root, base_layer, index, length, proof_layers }
    })
}

/// One message of a stream: its bytes and what must be heard.
fn any_message() -> impl Strategy<Value = (Vec<u8>, Heard)> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..80);
    let hashes = prop::collection::vec(any::<[u8; 32]>(), 0..4);
    let plain = |message: Message| {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        (bytes.clone(), Heard::Bytes(bytes))
    };
    let fixed = any::<(u8, u32, u32, u32)>().prop_map(move |(pick, piece, begin, len)| {
        plain(match pick % 14 {
            0 => Message::Choke,
            1 => Message::Unchoke,
            2 => Message::Interested,
            3 => Message::NotInterested,
            4 => Message::Have { piece },
            5 => Message::Request { piece, begin, len },
            6 => Message::Cancel { piece, begin, len },
            7 => Message::Port(piece as u16),
            8 => Message::Suggest { piece },
            9 => Message::HaveAll,
            10 => Message::HaveNone,
            11 => Message::Reject { piece, begin, len },
            12 => Message::AllowedFast { piece },
            _ => Message::Bitfield(&[0x5a; 20][..(len % 20) as usize]),
        })
    });
    prop_oneof![
        4 => fixed,
        1 => (any::<u8>(), bytes()).prop_map(move |(id, payload)| plain(Message::Extended { id, payload: &payload })),
        1 => (24u8.., bytes()).prop_map(move |(id, payload)| plain(Message::Unknown { id, payload: &payload })),
        1 => any_range().prop_map(move |range| plain(Message::HashRequest(range))),
        1 => any_range().prop_map(move |range| plain(Message::HashReject(range))),
        1 => (any_range(), hashes).prop_map(move |(range, hashes)| plain(Message::Hashes(range, &hashes))),
        1 => Just((KEEP_ALIVE.to_vec(), Heard::KeepAlive)),
        3 => (any::<u32>(), any::<u32>(), bytes()).prop_map(|(piece, begin, payload)| {
            let mut bytes = piece_header(piece, begin, payload.len() as u32).to_vec();
            bytes.extend_from_slice(&payload);
            (bytes, Heard::Block { piece, begin, payload })
        }),
    ]
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_decodes_the_same(
        messages in prop::collection::vec(any_message(), 0..12),
        cuts in prop::collection::vec(1usize..40, 1..20),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let expected: Vec<Heard> = messages.into_iter().map(|(_, heard)| heard).collect();
        let limits = Limits::default();

        let mut whole = Receiver::default();
        whole.feed(&stream, &limits).unwrap();
        prop_assert_eq!(&whole.heard, &expected);
        prop_assert!(whole.waiting.is_empty());

        let mut pieces = Receiver::default();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            pieces.feed(now, &limits).unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(&pieces.heard, &expected);

        let mut bytewise = Receiver::default();
        for byte in &stream {
            bytewise.feed(&[*byte], &limits).unwrap();
        }
        prop_assert_eq!(&bytewise.heard, &expected);
    }

    /// An error is final: no prefix that was refused is accepted with more bytes, and none that was accepted changes.
    #[test]
    fn more_bytes_never_change_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..80), small in 0u32..100) {
        let mut bytes = bytes;
        if bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&small.to_be_bytes());
        }
        let limits = Limits::default();
        let mut verdict = None;
        for have in 0..=bytes.len() {
            let head = decode_head(&bytes[..have], &limits);
            match verdict {
                None if head != Ok(Head::NeedMore) => verdict = Some(head),
                None => {
                    let more = needed(&bytes[..have]);
                    prop_assert!(more > have && more <= 104);
                }
                Some(was) => prop_assert_eq!(was, head),
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>, pieces: Option<u32>, max_block: u32, max_extended: u32) {
        let _ = decode_head(&bytes, &Limits { pieces, max_block, max_extended });
        let _ = needed(&bytes);
    }
}
