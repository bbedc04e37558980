//! The doors in `entries`, fed with valid inputs that were damaged: cut, doubled, flipped, spliced and with numbers
//! replaced by extreme ones; and with what a coverage-guided fuzzer found worth keeping.

#[path = "../../metainfo/tests/doors/mod.rs"]
mod doors;
mod entries;

use doors::*;
use entries::*;
use piecemeal_wire::tracker::{AnnounceReply, parse_announce_query};
use piecemeal_wire::{Head, Limits, decode_head};
use proptest::prelude::*;

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

const ENTRIES: [(&str, Entry); 8] = [
    ("handshake", handshake),
    ("peer_wire", peer_wire),
    ("extension", extension),
    ("tracker_answer", tracker_answer),
    ("tracker_query", tracker_query),
    ("udp_tracker", udp_tracker),
    ("krpc", krpc),
    ("pex", pex),
];

#[test]
fn undamaged_inputs_are_read_to_their_end() {
    let bytes = conversation();
    let (mut rest, mut heard) = (&bytes[HANDSHAKE..], 0);
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

#[test]
fn what_a_fuzzer_kept_survives() {
    kept_survives(&ENTRIES);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_inputs_survive(damages in damages()) {
        for (name, entry) in ENTRIES {
            seeds(name).into_iter().for_each(|seed| entry(&damaged(seed, &damages)));
        }
    }

    #[test]
    fn a_damaged_conversation_survives(damages in damages(), pieces in prop::option::of(0u32..40)) {
        let bytes = conversation();
        messages(&damaged(bytes[HANDSHAKE..].to_vec(), &damages), &Limits { pieces, ..Limits::default() });
    }

    #[test]
    fn noise_survives(bytes: Vec<u8>) {
        ENTRIES.iter().for_each(|(_, entry)| entry(&bytes));
    }
}
