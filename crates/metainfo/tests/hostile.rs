//! Bytes from strangers: whatever they are, every reader answers, and answers the same twice.
//!
//! Each function here is also the body of a fuzz target; the properties are the corpus-free version of it.

use piecemeal_metainfo::bencode::{Bencode, Limits, decode, decode_prefix};
use piecemeal_metainfo::create::{Content, Files, NewFile, Options, Plan, Span};
use piecemeal_metainfo::merkle::FileHasher;
use piecemeal_metainfo::{
    Bitfield, FileIndex, Magnet, Metainfo, NameRules, PieceIndex, SafePath, Version, sha1,
};
use proptest::prelude::*;
use proptest::sample::Index;
use std::path::{Component, Path};

/// Any bytes as bencode.
fn bencode(bytes: &[u8]) {
    for limits in [Limits::TORRENT, Limits::DHT, Limits::PEER_EXTENSION, Limits::TRACKER, Limits::RESUME] {
        let Ok((tape, used)) = decode_prefix(bytes, limits) else { continue };
        let again = Bencode::from(tape.root()).encode();
        assert_eq!(tape.flags().canonical(), again == bytes[..used]);
        assert!(decode(&again, limits).is_ok(), "what was read can be written and read");
        assert_eq!(tape.root().raw(), &bytes[..used]);
    }
}

/// Any bytes as a torrent file, and as the `info` of a magnet link.
fn metainfo(bytes: &[u8]) {
    for torrent in [Metainfo::parse(bytes), Metainfo::from_info(bytes, Vec::new())] {
        match torrent {
            Ok(torrent) => laws(&torrent),
            Err(why) => assert_eq!(why.to_string().lines().count(), 1),
        }
    }
}

/// What holds for every torrent that was let in.
fn laws(torrent: &Metainfo) {
    let info = torrent.info();
    let root = Path::new("/root");
    let mut end = 0;
    for (at, file) in torrent.files().iter().enumerate() {
        assert_eq!(file.offset, end, "no gaps");
        end += file.length;
        let path = file.path.join_to(root);
        let below = path.strip_prefix(root).expect("below the root");
        assert!(below.components().all(|part| matches!(part, Component::Normal(_))), "{}", file.path);
        let pieces = torrent.file_pieces(FileIndex(at as u32));
        assert!(pieces.end <= info.piece_count && pieces.is_empty() == (file.length == 0));
        if let Some(target) = &file.symlink {
            assert!(torrent.files().iter().any(|other| other.path == *target && other.symlink.is_none()));
        }
    }
    assert_eq!(end, info.length);
    assert_eq!(info.length.div_ceil(info.piece_length.into()), u64::from(info.piece_count));
    let mut paths: Vec<String> = torrent
        .files()
        .iter()
        .filter(|file| !file.pad)
        .map(|file| file.path.as_str().to_lowercase())
        .collect();
    paths.sort();
    assert!(paths.windows(2).all(|pair| pair[0] != pair[1]), "no two files in one place");
    for piece in [0, info.piece_count / 2, info.piece_count - 1, info.piece_count, u32::MAX] {
        let len = torrent.piece_len(PieceIndex(piece));
        assert_eq!(len > 0, torrent.piece(piece).is_some());
        assert!(len <= info.piece_length);
        let inside = torrent.piece(piece).is_some();
        assert_eq!(torrent.piece_hash_v1(PieceIndex(piece)).is_some(), inside && info.version.has_v1());
        let _ = torrent.piece_hash_v2(PieceIndex(piece));
    }
    let again = Metainfo::parse(&torrent.to_bytes()).expect("what is written can be read");
    assert_eq!((again.info(), again.info_hashes()), (info, torrent.info_hashes()));
    let link = Magnet::parse(&torrent.magnet()).expect("its own link can be read");
    assert_eq!(link.hashes, torrent.info_hashes());
}

/// A valid torrent of every version, as a seed to mutate.
fn seed(version: Version) -> Vec<u8> {
    let file = |path: &[&str], length| NewFile {
        path: path.iter().map(|part| (*part).to_owned()).collect(),
        length,
        ..NewFile::default()
    };
    let link = NewFile { symlink: Some(vec!["sub".into(), "c".into()]), ..file(&["l"], 0) };
    let files =
        vec![file(&["a"], 100), file(&["b"], 40_000), file(&["sub", "c"], 33_000), file(&["e"], 0), link];
    let mut options = Options::new(version);
    options.piece_length = Some(16384);
    options.trackers = vec![vec!["http://a/".into()], vec!["http://b/".into()]];
    options.web_seeds = vec!["http://w/".into()];
    options.nodes = vec![("n".into(), 1)];
    let plan = Plan::new(Content { name: "name".into(), files: Files::Many(files) }, options).unwrap();
    let zeros = |span: &Span| match span {
        Span::File { len, .. } | Span::Zeros(len) => *len as usize,
    };
    let piece = |piece| sha1(&vec![0; plan.piece_spans(piece).iter().map(zeros).sum()]);
    let v1: Vec<_> = (0..plan.pieces()).filter(|_| version.has_v1()).map(piece).collect();
    let tree = |source: usize| {
        let mut hasher = FileHasher::new(plan.piece_length());
        hasher.update(&vec![0; plan.sources()[source].length as usize]);
        let hashes = hasher.finish();
        (hashes.root.unwrap(), hashes.layer)
    };
    let v2: Vec<_> = plan.hashed_files().map(tree).collect();
    plan.finish(&v1, &v2).unwrap()
}

const VERSIONS: [Version; 3] = [Version::V1, Version::V2, Version::Hybrid];

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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        bencode(&bytes);
        metainfo(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = Magnet::parse(&text);
        let _ = SafePath::parse(&text, NameRules::Windows);
        for pieces in [0, 1, bytes.len() as u32 * 8, u32::MAX] {
            if let Ok(field) = Bitfield::from_wire(&bytes, pieces) {
                prop_assert_eq!(field.to_wire(), &bytes[..]);
            }
        }
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
