//! Every door that bytes of strangers come through, as one function each, and good inputs to begin with.
//!
//! The property tests of this crate and the targets of `fuzz/` call the same functions. Whatever the bytes are, every
//! reader answers, and answers the same twice.

use std::path::{Component, Path};

use piecemeal_metainfo::bencode::{Bencode, Limits, decode, decode_prefix};
use piecemeal_metainfo::create::{Content, Files, NewFile, Options, Plan, Span};
use piecemeal_metainfo::merkle::FileHasher;
use piecemeal_metainfo::{
    Bitfield, FileIndex, Magnet, Metainfo, NameRules, PieceIndex, SafePath, Version, sha1,
};

/// Any bytes as bencode.
pub fn bencode(bytes: &[u8]) {
    for limits in [Limits::TORRENT, Limits::DHT, Limits::PEER_EXTENSION, Limits::TRACKER, Limits::RESUME] {
        let Ok((tape, used)) = decode_prefix(bytes, limits) else { continue };
        let again = Bencode::from(tape.root()).encode();
        assert_eq!(tape.flags().canonical(), again == bytes[..used]);
        assert!(decode(&again, limits).is_ok(), "what was read can be written and read");
        assert_eq!(tape.root().raw(), &bytes[..used]);
    }
}

/// Any bytes as a torrent file, and as the `info` of a magnet link.
pub fn metainfo(bytes: &[u8]) {
    for torrent in [Metainfo::parse(bytes), Metainfo::from_info(bytes, Vec::new())] {
        match torrent {
            Ok(torrent) => laws(&torrent),
            Err(why) => assert_eq!(why.to_string().lines().count(), 1),
        }
    }
}

/// What holds for every torrent that was let in.
pub fn laws(torrent: &Metainfo) {
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
pub fn seed(version: Version) -> Vec<u8> {
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

/// Any bytes as a magnet link, as a name and as a bitfield.
pub fn magnet(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(magnet) = Magnet::parse(&text) {
        assert_eq!(Magnet::parse(&magnet.to_string()).as_ref(), Ok(&magnet), "what is written can be read");
    }
    for rules in [NameRules::Unix, NameRules::Windows] {
        if let Ok(path) = SafePath::parse(&text, rules) {
            let joined = path.join_to(Path::new("/root"));
            let below = joined.strip_prefix("/root").expect("below the root");
            assert!(below.components().all(|part| matches!(part, Component::Normal(_))), "{path}");
        }
    }
    for pieces in [0, 1, bytes.len() as u32 * 8, u32::MAX] {
        if let Ok(field) = Bitfield::from_wire(bytes, pieces) {
            assert_eq!(field.to_wire(), bytes);
        }
    }
}

/// All there are.
pub const VERSIONS: [Version; 3] = [Version::V1, Version::V2, Version::Hybrid];

/// Good inputs for the function of this name.
pub fn seeds(entry: &str) -> Vec<Vec<u8>> {
    let torrents = VERSIONS.map(seed);
    match entry {
        "bencode" => [&b"d1:ali1e2:bbe1:bd1:ci-5eee"[..], b"i0e", b"lllleeee", b"3:abc", b"d1:ai1e1:ai01ee"]
            .map(<[u8]>::to_vec)
            .to_vec(),
        "metainfo" => torrents
            .into_iter()
            .flat_map(|torrent| {
                let tape = decode(&torrent, Limits::TORRENT).expect("a good torrent");
                let info = tape.root().get(b"info").expect("a good torrent").raw().to_vec();
                [torrent.clone(), info]
            })
            .collect(),
        "magnet" => {
            let link = |torrent: &Vec<u8>| Metainfo::parse(torrent).expect("a good torrent").magnet();
            let select =
                "magnet:?xt=urn:btih:MFRGCYTBMJQWEYLCMFRGCYTBMJQWEYLC&x.pe=[::1]:6&so=0,2,4-6&dn=a%20b";
            torrents.iter().map(link).chain([select.to_owned()]).map(String::into_bytes).collect()
        }
        _ => Vec::new(),
    }
}
