//! The doors in `entries`, fed with torrents whose bytes or values were exchanged, and with what a coverage-guided
//! fuzzer found worth keeping.

mod doors;
mod entries;

use doors::*;
use entries::*;
use piecemeal_metainfo::Metainfo;
use piecemeal_metainfo::bencode::{Bencode, Limits, decode};
use proptest::prelude::*;
use proptest::sample::Index;

const ENTRIES: [(&str, Entry); 3] = [("bencode", bencode), ("metainfo", metainfo), ("magnet", magnet)];

#[derive(Clone, Debug)]
enum Edit {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Copy(Index, Index, usize),
}

/// Bits of syntax and of hostility that random bytes would hardly hit.
const SNIPPETS: &[&str] = &[
    "i-1e",
    "i0e",
    "i9223372036854775807e",
    "le",
    "de",
    "1:p",
    "4:attr1:l",
    "4:attr1:p",
    "0:",
    "2:..",
    "1:/",
    "6:lengthi0e",
    "12:meta versioni2e",
    "7:privatei1e",
    "e",
    "l",
    "d",
    "i",
    "99999999999999999999:",
    "5:filesle",
];

fn edit() -> impl Strategy<Value = Edit> {
    let bytes = prop_oneof![
        proptest::sample::select(SNIPPETS).prop_map(|text| text.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 1..4),
    ];
    prop_oneof![
        (any::<Index>(), prop_oneof![any::<u8>(), proptest::sample::select(&b"0123456789eildp:/."[..])])
            .prop_map(|(at, byte)| Edit::Set(at, byte)),
        (any::<Index>(), bytes).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (any::<Index>(), 1usize..30).prop_map(|(at, len)| Edit::Remove(at, len)),
        (any::<Index>(), any::<Index>(), 1usize..60).prop_map(|(from, to, len)| Edit::Copy(from, to, len)),
    ]
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    if bytes.is_empty() {
        return;
    }
    match edit {
        Edit::Set(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Edit::Insert(at, more) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, more.iter().copied());
        }
        Edit::Remove(at, len) => {
            let at = at.index(bytes.len());
            bytes.drain(at..(at + len).min(bytes.len()));
        }
        Edit::Copy(from, to, len) => {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            let piece = bytes[from..(from + len).min(bytes.len())].to_vec();
            bytes.splice(to..to, piece);
        }
    }
}

/// Edits of the value tree instead of the bytes, so that the result is still bencode.
fn graft(value: Bencode, at: &mut usize, with: &Bencode) -> Bencode {
    if *at == 0 {
        *at = usize::MAX;
        return with.clone();
    }
    *at = at.saturating_sub(usize::from(*at != usize::MAX));
    match value {
        Bencode::List(items) => Bencode::List(items.into_iter().map(|item| graft(item, at, with)).collect()),
        Bencode::Dict(pairs) => {
            Bencode::Dict(pairs.into_iter().map(|(key, value)| (key, graft(value, at, with))).collect())
        }
        leaf => leaf,
    }
}

fn small() -> impl Strategy<Value = Bencode> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Bencode::Int),
        (-2i64..70_000).prop_map(Bencode::Int),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bencode::Bytes),
        proptest::sample::select(&["", "..", "a", "p", "l", "xhlp", "sub", "/"][..]).prop_map(Bencode::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = proptest::sample::select(
            &["", "a", "length", "path", "attr", "symlink path", "pieces root", "files", "name"][..],
        );
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Bencode::List),
            proptest::collection::btree_map(key.prop_map(|key| key.as_bytes().to_vec()), inner, 0..4)
                .prop_map(Bencode::Dict),
        ]
    })
}

#[test]
fn the_seeds_are_lawful() {
    for version in VERSIONS {
        let bytes = seed(version);
        laws(&Metainfo::parse(&bytes).unwrap());
        for cut in 0..bytes.len() {
            assert!(Metainfo::parse(&bytes[..cut]).is_err());
        }
    }
}

#[test]
fn bombs_are_refused_at_once() {
    let bombs = [
        vec![b'l'; 10 << 20],
        b"d1:a".repeat(1_000_000),
        [b"d4:info".to_vec(), b"d1:a".repeat(1_000_000)].concat(),
        [b"l".to_vec(), b"0:".repeat(5_000_000), b"e".to_vec()].concat(),
        [b"d4:infod5:filesl".to_vec(), b"de".repeat(2_000_000), b"eee".to_vec()].concat(),
        b"d4:infod6:pieces99999999999:".to_vec(),
        b"d2143289344:a4:aaaae".to_vec(),
    ];
    for bomb in bombs {
        assert!(Metainfo::parse(&bomb).is_err());
        assert!(Metainfo::from_info(&bomb, Vec::new()).is_err());
    }
}

#[test]
fn good_inputs_cut_anywhere_survive() {
    for (name, entry) in ENTRIES {
        for seed in seeds(name) {
            (0..=seed.len()).for_each(|cut| entry(&seed[..cut]));
        }
    }
}

#[test]
fn what_a_fuzzer_kept_survives() {
    kept_survives(&ENTRIES);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        bencode(&bytes);
        metainfo(&bytes);
        magnet(&bytes);
    }

    #[test]
    fn torrents_with_broken_bytes(version in proptest::sample::select(&VERSIONS[..]),
                                  edits in proptest::collection::vec(edit(), 1..6)) {
        let mut bytes = seed(version);
        edits.iter().for_each(|edit| apply(&mut bytes, edit));
        bencode(&bytes);
        metainfo(&bytes);
    }

    #[test]
    fn torrents_with_foreign_values(version in proptest::sample::select(&VERSIONS[..]),
                                    grafts in proptest::collection::vec((0usize..70, small()), 1..4)) {
        let bytes = seed(version);
        let mut value = Bencode::from(decode(&bytes, Limits::TORRENT).unwrap().root());
        for (at, with) in &grafts {
            value = graft(value, &mut at.clone(), with);
        }
        metainfo(&value.encode());
        if let Bencode::Dict(pairs) = &value && let Some(info) = pairs.get(&b"info"[..]) {
            metainfo(&info.encode());
        }
    }
}
