use super::*;
use crate::bencode::Bencode;
use crate::merkle::FileHasher;

fn list<const N: usize>(parts: [&str; N]) -> Bencode {
    Bencode::List(parts.into_iter().map(Bencode::from).collect())
}

fn v1_file(length: i64, path: Bencode) -> Bencode {
    Bencode::dict().with("length", length).with("path", path)
}

/// A v1 single file of 40 000 bytes in pieces of 16 KiB.
fn single() -> Bencode {
    Bencode::dict()
        .with("length", 40_000)
        .with("name", "file.txt")
        .with("piece length", 16384)
        .with("pieces", vec![7; 60])
}

/// A v1 directory with these files, which come to at most one piece of 1 MiB.
fn multi(files: Vec<Bencode>) -> Bencode {
    Bencode::dict()
        .with("files", files)
        .with("name", "dir")
        .with("piece length", 1 << 20)
        .with("pieces", vec![7; 20])
}

fn without(dict: Bencode, key: &str) -> Bencode {
    let Bencode::Dict(mut pairs) = dict else { return dict };
    pairs.remove(key.as_bytes());
    Bencode::Dict(pairs)
}

fn torrent(info: Bencode) -> Vec<u8> {
    Bencode::dict().with("announce", "http://t/announce").with("info", info).encode()
}

fn parse(info: Bencode) -> Result<Metainfo, MetainfoError> {
    both_ways(&torrent(info.clone()), &info.encode())
}

/// The file's and the magnet's way must come to the same judgement.
fn both_ways(file: &[u8], info: &[u8]) -> Result<Metainfo, MetainfoError> {
    let by_file = Metainfo::parse(file);
    let by_magnet = Metainfo::from_info(info, vec![vec!["http://t/announce".to_owned()]]);
    match (&by_file, &by_magnet) {
        (Ok(a), Ok(b)) => assert_eq!((a.info(), a.info_hashes()), (b.info(), b.info_hashes())),
        (a, b) => assert_eq!(a.as_ref().err(), b.as_ref().err()),
    }
    by_file
}

fn error(info: Bencode) -> String {
    let text = parse(info).map(|_| ()).unwrap_err().to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

fn paths(torrent: &Metainfo) -> Vec<&str> {
    torrent.files().iter().map(|file| file.path.as_str()).collect()
}

fn content(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at / 100) as u8).collect()
}

/// A file of a v2 tree, and its layer.
fn v2_file(length: usize) -> (Bencode, Hash, Vec<Hash>) {
    let mut hasher = FileHasher::new(16384);
    hasher.update(&content(length));
    let hashes = hasher.finish();
    let root = hashes.root.unwrap();
    let leaf = Bencode::dict().with("length", length as i64).with("pieces root", &root[..]);
    (Bencode::dict().with("", leaf), root, hashes.layer)
}

fn v2_info(tree: Bencode) -> Bencode {
    Bencode::dict()
        .with("file tree", tree)
        .with("meta version", 2)
        .with("name", "dir")
        .with("piece length", 16384)
}

fn v2_torrent(info: Bencode, layers: Vec<(&[u8], Vec<u8>)>) -> Result<Metainfo, MetainfoError> {
    let layers = layers.into_iter().map(|(root, layer)| (root.to_vec(), layer.into())).collect();
    let bytes = Bencode::dict().with("info", info).with("piece layers", Bencode::Dict(layers)).encode();
    Metainfo::parse(&bytes)
}

#[test]
fn a_single_file() {
    let torrent = parse(single()).unwrap();
    assert!(torrent.info().single_file);
    assert_eq!(paths(&torrent), ["file.txt"]);
    assert_eq!(torrent.piece_count(), 3);
    assert_eq!(
        (0..4).map(|piece| torrent.piece_len(PieceIndex(piece))).collect::<Vec<_>>(),
        [16384, 16384, 7232, 0]
    );
    assert_eq!(torrent.piece_hash_v1(PieceIndex(2)), Some([7; 20]));
    assert_eq!(torrent.piece_hash_v1(PieceIndex(3)), None);
    assert_eq!((torrent.piece(2), torrent.piece(3)), (Some(PieceIndex(2)), None));
    assert_eq!(torrent.info_hashes().v1, Some(InfoHash(crate::sha1(&single().encode()))));
    assert_eq!(torrent.trackers(), [["http://t/announce"]]);
    let link =
        format!("magnet:?xt=urn:btih:{}&dn=file.txt&tr=http%3A%2F%2Ft%2Fannounce", torrent.wire_hash());
    assert_eq!(torrent.magnet(), link);
}

#[test]
fn fields_that_can_not_be() {
    let too_long = vec![7; 61];
    let table = [
        (Bencode::Int(1), "info: should be a dictionary"),
        (without(single(), "name"), "info.name: missing"),
        (single().with("name", 1), "info.name: missing"),
        (without(single(), "piece length"), "info.piece length: missing"),
        (single().with("piece length", "1"), "info.piece length: should be an integer"),
        (single().with("piece length", 0), "info.piece length: must be more than 0"),
        (single().with("piece length", -16384), "info.piece length: must be more than 0"),
        (
            single().with("piece length", 512 << 20),
            "info.piece length: 536870912 is too much, the limit is 536854528",
        ),
        (without(single(), "pieces"), "info.pieces: missing"),
        (single().with("pieces", 1), "info.pieces: should be a string"),
        (single().with("pieces", too_long), "info.pieces: 61 bytes, but 3 pieces need 60"),
        (single().with("pieces", vec![7; 40]), "info.pieces: 40 bytes, but 3 pieces need 60"),
        (single().with("pieces", vec![7; 80]), "info.pieces: 80 bytes, but 3 pieces need 60"),
        (without(single(), "length"), "info.length: missing"),
        (single().with("length", "1"), "info.length: should be an integer"),
        (single().with("length", -1), "info.length: negative"),
        (single().with("length", 0), "info.length: no bytes in all"),
        (
            single().with("length", 17_592_186_028_032),
            "info.length: 17592186028032 is too much, the limit is 17592186028031",
        ),
        (
            single().with("piece length", 1).with("length", 2_097_153),
            "info.piece length: number of pieces: 2097153 is too much, the limit is 2097152",
        ),
        (
            single().with("piece length", 1).with("length", 17_592_186_028_031),
            "info.piece length: number of pieces: 17592186028031 is too much, the limit is 2097152",
        ),
        (single().with("meta version", 3), "info.meta version: neither 1 nor 2; made for newer programs"),
        (single().with("meta version", "2"), "info.meta version: should be an integer"),
        (single().with("meta version", 2), "info.file tree: missing"),
    ];
    for (info, expected) in table {
        assert_eq!(error(info), expected);
    }
}

#[test]
fn lists_of_files_that_can_not_be() {
    let table = [
        (multi(vec![]), "info.length: no bytes in all"),
        (multi(vec![]).with("files", 1), "info.files: should be a list"),
        (multi(vec![Bencode::Int(1)]), "info.files[0]: should be a dictionary"),
        (multi(vec![Bencode::dict().with("length", 1)]), "info.files[0].path: missing"),
        (
            multi(vec![v1_file(1, Bencode::Int(1))]),
            "info.files[0].path: should be a list of strings, not empty",
        ),
        (multi(vec![v1_file(1, list([]))]), "info.files[0].path: should be a list of strings, not empty"),
        (
            multi(vec![v1_file(1, Bencode::List(vec![Bencode::Int(1)]))]),
            "info.files[0].path: should be a list of strings, not empty",
        ),
        (multi(vec![v1_file(1, list(["a"])), v1_file(-1, list(["b"]))]), "info.files[1].length: negative"),
        (multi(vec![v1_file(5, list([".pad", "5"])).with("attr", "p")]), "info.length: no bytes in all"),
        (
            multi(vec![v1_file(5, list(["a"])), v1_file(1, list(["l"])).with("attr", "l")]),
            "info.files[1].length: a link with bytes of its own",
        ),
        (
            multi(vec![v1_file(1, Bencode::List(vec!["d".into(); 200]))]),
            "info.files[0].path: deeper than 100 directories",
        ),
        (
            multi((0..17).map(|at| v1_file(17_592_186_028_031, list([&*at.to_string()]))).collect()),
            "info: bytes of all files: 299067162476527 is too much, the limit is 281474976710655",
        ),
    ];
    for (info, expected) in table {
        assert_eq!(error(info), expected);
    }
}

#[test]
fn documents_that_can_not_be() {
    let table: &[(&[u8], &str)] = &[
        (b"", "bencode: ends too early, at byte 0"),
        (b"<html>", "bencode: unexpected byte at 0"),
        (b"le", "torrent: should be a dictionary"),
        (b"de", "info: missing"),
        (b"d4:infodee", "info.piece length: missing"),
        (b"d4:infodee0:", "bencode: extra bytes after the value, from byte 10"),
        (b"d4:infode4:infodee", "torrent: a key stands twice"),
        (b"d4:infod4:name1:a4:name1:bee", "info: a key stands twice in one dictionary"),
        (
            b"d4:infod4:name1:a12:piece lengthi18446744073709567616eee",
            "bencode: integer at byte 32 does not fit in 64 bits",
        ),
    ];
    for (bytes, expected) in table {
        assert_eq!(Metainfo::parse(bytes).unwrap_err().to_string(), *expected);
    }
    let deep = [b"d4:infod4:name".to_vec(), vec![b'l'; 100_000]].concat();
    assert!(Metainfo::parse(&deep).unwrap_err().to_string().contains("nested too deep"));
    assert!(Metainfo::parse(&vec![b'l'; 11 << 20]).unwrap_err().to_string().contains("bytes are too many"));
}

#[test]
fn names_are_made_safe_on_every_way() {
    let part = |raw: &[u8]| Bencode::List(vec![raw.into()]);
    let torrent = parse(
        multi(vec![
            v1_file(1, list(["..", "..", "etc", "passwd"])),
            v1_file(1, part(b"/abs/olute")),
            v1_file(1, part(b"C:\\x")),
            v1_file(1, part(b"nul\0\x1b[31m")),
            v1_file(1, part(b"gpj\xe2\x80\xae.exe")),
            v1_file(1, part(b"bad\xff\xfeutf")),
            v1_file(1, part(b"")),
            v1_file(1, list(["Twice"])),
            v1_file(1, list(["twice"])),
            v1_file(1, list(["twice", "inside"])),
        ])
        .with("name", "../../up"),
    )
    .unwrap();
    let expected = [
        "....up/_/_/etc/passwd",
        "....up/absolute",
        "....up/C:x",
        "....up/nul__[31m",
        "....up/gpj.exe",
        "....up/bad_utf",
        "....up/_.1",
        "....up/Twice.1",
        "....up/twice.2",
        "....up/twice/inside",
    ];
    assert_eq!(paths(&torrent), expected);
    assert!(torrent.lints().iter().any(|lint| matches!(lint, Lint::Renamed { .. })));
    assert_eq!(torrent.files()[1].raw_path.as_deref(), Some(&b"../../up//abs/olute"[..]));
    for name in ["..", ".", "/", "", "\\..\\"] {
        assert_eq!(parse(single().with("name", name)).unwrap().info().name.as_str(), "_", "{name}");
    }
}

#[test]
fn utf8_names_win() {
    let file = v1_file(1, Bencode::List(vec![(&b"\xe9"[..]).into()])).with("path.utf-8", list(["é"]));
    let info = multi(vec![file]).with("name", &b"\xfc"[..]).with("name.utf-8", "ü");
    assert_eq!(paths(&parse(info).unwrap()), ["ü/é"]);
}

#[test]
fn links_lead_to_plain_files_of_the_torrent_only() {
    let link = |name: &str, to: Bencode| v1_file(0, list([name])).with("attr", "l").with("symlink path", to);
    let torrent = parse(multi(vec![
        link("good", list(["sub", "File"])),
        v1_file(5, list(["sub", "file"])),
        v1_file(5, list(["sub", "File"])),
        link("up", list(["..", "..", "etc", "passwd"])),
        link("absolute", list(["/etc/passwd"])),
        link("directory", list(["sub"])),
        link("chain", list(["good"])),
        link("self", list(["self"])),
        link("nothing", list([])),
        v1_file(0, list(["untold"])).with("attr", "l"),
    ]))
    .unwrap();
    let links: Vec<Option<&str>> =
        torrent.files().iter().map(|file| file.symlink.as_ref().map(SafePath::as_str)).collect();
    // The target was renamed, and the link follows.
    assert_eq!(links[0], Some("dir/sub/File.1"));
    assert_eq!(links[1..], [None; 9]);
    assert!(torrent.lints().contains(&Lint::LinkDropped { files: 7 }));
}

#[test]
fn pads_are_not_files() {
    let pad = |length| v1_file(length, list([".pad", &length.to_string()])).with("attr", "p");
    let files =
        vec![v1_file(100, list(["a"])), pad(16284), v1_file(5, list(["b"])), pad(7), v1_file(1, list(["c"]))];
    let torrent = parse(multi(files).with("piece length", 16384).with("pieces", vec![7; 40])).unwrap();
    assert_eq!((torrent.info().length, torrent.info().content_length), (16397, 106));
    assert_eq!(
        torrent.files().iter().map(|file| file.pad).collect::<Vec<_>>(),
        [false, true, false, true, false]
    );
    assert_eq!(torrent.lints(), [Lint::OddPad { files: 1 }]);
    assert_eq!(torrent.file_pieces(FileIndex(0)), 0..1);
    assert_eq!(torrent.file_pieces(FileIndex(4)), 1..2);
}

#[test]
fn uneven_pieces_and_empty_files_are_legal() {
    let files = vec![v1_file(0, list(["empty"])), v1_file(50_000, list(["a"])), v1_file(0, list(["last"]))];
    let torrent = parse(multi(files).with("piece length", 20_001).with("pieces", vec![7; 60])).unwrap();
    assert_eq!(torrent.piece_len(PieceIndex(2)), 9_998);
    assert_eq!(torrent.lints(), [Lint::UnevenPieceLength(20_001)]);
    assert_eq!(torrent.file_pieces(FileIndex(0)), 0..0);
    assert_eq!(torrent.file_pieces(FileIndex(1)), 0..3);
}

/// A torrent for those alone who have a certificate is never taken for one for everybody.
#[test]
fn root_certificates() {
    let with = |value: &str| {
        let info = format!(
            "d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:{}8:ssl-cert{value}e",
            "a".repeat(20)
        );
        Metainfo::from_info(info.as_bytes(), vec![]).map(|meta| meta.info().tls_root.clone())
    };
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(with(&format!("{}:{pem}", pem.len())).unwrap().as_deref(), Some(pem));
    for (value, why) in
        [("3:abc", "no certificate in the PEM format"), ("0:", "no certificate"), ("i1e", "a string")]
    {
        let said = with(value).unwrap_err().to_string();
        assert!(said.contains("info.ssl-cert") && said.contains(why), "{said}");
    }
}

#[test]
fn trackers_and_sources() {
    let outer = Bencode::dict().with("announce", "http://ignored/").with("info", single().with("private", 1));
    let tiers =
        Bencode::List(vec![list([" http://a/ ", "http://b/", ""]), list([]), list(["udp://c", "http://a/"])]);
    let nodes = Bencode::List(vec![
        Bencode::List(vec!["h".into(), 1.into()]),
        Bencode::List(vec!["h".into(), 70_000.into()]),
        list(["x"]),
    ]);
    let bytes =
        outer.clone().with("announce-list", tiers).with("nodes", nodes).with("url-list", list(["http://w/"]));
    let torrent = Metainfo::parse(&bytes.with("azureus_properties", Bencode::dict()).encode()).unwrap();
    assert_eq!(torrent.trackers(), [vec!["http://a/", "http://b/"], vec!["udp://c"]]);
    assert_eq!(torrent.web_seeds(), ["http://w/"]);
    assert_eq!(torrent.nodes(), [("h".to_owned(), 1)]);
    assert_eq!(torrent.lints(), [Lint::SourcesDropped { count: 4 }]);
    assert_eq!(torrent.extra().get(&b"azureus_properties"[..]).map(Vec::as_slice), Some(&b"de"[..]));
    assert_eq!(Metainfo::parse(&torrent.to_bytes()).unwrap().extra(), torrent.extra());
    let empty_list =
        outer.clone().with("announce-list", Bencode::List(vec![list([""])])).with("url-list", "");
    assert_eq!(Metainfo::parse(&empty_list.encode()).unwrap().trackers(), [["http://ignored/"]]);
    let flood: Vec<Bencode> = (0..5_000).map(|at| list([&*format!("http://{at}/")])).collect();
    let flooded = Metainfo::parse(&outer.with("announce-list", flood).encode()).unwrap();
    assert_eq!(flooded.trackers().len(), MAX_SOURCES);
}

#[test]
fn private_in_doubt() {
    let table =
        [(Bencode::Int(1), true), (Bencode::Int(0), false), (Bencode::Int(2), true), ("1".into(), true)];
    for (value, private) in table {
        assert_eq!(parse(single().with("private", value)).unwrap().info().private, private);
    }
    assert!(!parse(single()).unwrap().info().private);
    let alone = Metainfo::from_info(&single().with("private", 1).encode(), vec![]).unwrap();
    assert_eq!(alone.lints(), [Lint::PrivateWithoutTracker]);
}

#[test]
fn oddities_keep_the_raw_info() {
    let raw = b"d6:pieces20:aaaaaaaaaaaaaaaaaaaa4:name1:a6:lengthi05e12:piece lengthi16384ee";
    let bytes = [b"d4:info", &raw[..], b"e"].concat();
    let torrent = both_ways(&bytes, raw).unwrap();
    assert_eq!(torrent.info_hashes().v1, Some(InfoHash(crate::sha1(raw))));
    assert_eq!(torrent.lints(), [Lint::UnsortedKeys, Lint::OddInts]);
    assert_eq!(torrent.info().length, 5);
    let again = Metainfo::parse(&torrent.to_bytes()).unwrap();
    assert_eq!(again.info_hashes(), torrent.info_hashes());
    assert_eq!(torrent.extra_info_keys(), Vec::<Vec<u8>>::new());
    let extra = parse(single().with("x_cross_seed", "abc")).unwrap();
    assert_eq!(extra.extra_info_keys(), [b"x_cross_seed"]);
}

#[test]
fn v2_layers_are_checked() {
    let (small, ..) = v2_file(100);
    let (large, root, layer) = v2_file(40_000);
    let info = v2_info(Bencode::dict().with("a", small).with("b", large));
    let layers = |root: &'static [u8], layer: Vec<u8>| v2_torrent(info.clone(), vec![(root, layer)]);
    let key: &'static [u8] = Box::leak(Box::new(root));
    let good = layers(key, layer.concat()).unwrap();
    assert_eq!(good.lints(), []);
    assert_eq!(good.info().version, Version::V2);
    assert_eq!(paths(&good), ["dir/a", "dir/.pad/16284", "dir/b"]);
    assert_eq!(
        (0..4).map(|piece| good.piece_len(PieceIndex(piece))).collect::<Vec<_>>(),
        [100, 16384, 16384, 7232]
    );
    assert_eq!(good.piece_hash_v2(PieceIndex(0)).map(|tree| tree.width), Some(1));
    assert_eq!(good.piece_hash_v2(PieceIndex(3)), Some(Subtree { hash: layer[2], width: 1 }));
    assert_eq!(good.piece_hash_v1(PieceIndex(0)), None);
    assert!(good.magnet().starts_with("magnet:?xt=urn:btmh:1220"));

    let mut forged = layer.concat();
    forged[70] ^= 1;
    let table: [(&'static [u8], Vec<u8>, &str); 6] = [
        (key, forged, "piece layers: a layer that does not come to its root"),
        (key, layer[..2].concat(), "piece layers: a layer that does not come to its root"),
        (key, [layer.concat(), vec![0; 32]].concat(), "piece layers: a layer that does not come to its root"),
        (key, layer.concat()[1..].to_vec(), "piece layers: a layer that is no multiple of 32 bytes"),
        (&[9; 32], layer.concat(), "piece layers: a root that no file has"),
        (&[9; 31], layer.concat(), "piece layers: a key that is not 32 bytes"),
    ];
    for (root, layer, expected) in table {
        assert_eq!(layers(root, layer).unwrap_err().to_string(), expected);
    }

    let mut bare = Metainfo::from_info(&info.encode(), vec![]).unwrap();
    assert_eq!(bare.missing_layers().collect::<Vec<_>>(), [FileIndex(2)]);
    assert_eq!(bare.lints(), [Lint::MissingLayers { files: 1 }]);
    assert_eq!(bare.piece_hash_v2(PieceIndex(1)), None);
    assert!(bare.add_layer(root, layer[..2].to_vec()).is_err());
    assert!(bare.add_layer([1; 32], layer.clone()).is_err());
    bare.add_layer(root, layer.clone()).unwrap();
    assert_eq!(bare.missing_layers().count(), 0);
    assert_eq!(bare.piece_hash_v2(PieceIndex(3)), good.piece_hash_v2(PieceIndex(3)));
    assert_eq!(bare, Metainfo { trackers: vec![], ..good });
}

#[test]
fn what_a_link_says_besides_is_written_with_the_info_byte_for_byte() {
    let info = single().encode();
    let tiers = vec![vec!["http://t/announce".to_owned()], vec!["udp://u:1".to_owned()]];
    let mut torrent = Metainfo::from_info(&info, tiers).unwrap();
    torrent.add_web_seeds(["http://w/", "", "http://w/", "http://v/"].map(str::to_owned).to_vec());
    assert_eq!(torrent.web_seeds(), ["http://w/", "http://v/"]);
    assert_eq!(torrent.lints(), [Lint::SourcesDropped { count: 2 }]);
    let again = Metainfo::parse(&torrent.to_bytes()).unwrap();
    assert_eq!((&again.raw_info()[..], again.trackers()), (&info[..], torrent.trackers()));
    assert_eq!(again.web_seeds(), torrent.web_seeds());
}

#[test]
fn v2_trees_that_can_not_be() {
    let leaf = |length: i64, root: &[u8]| {
        Bencode::dict().with("", Bencode::dict().with("length", length).with("pieces root", root))
    };
    let tree = |name: &str, entry: Bencode| v2_info(Bencode::dict().with(name, entry));
    let no_root = Bencode::dict().with("", Bencode::dict().with("length", 5));
    let pad = Bencode::dict().with("", Bencode::dict().with("length", 5).with("attr", "p"));
    let both = leaf(5, &[1; 32]).with("x", leaf(5, &[1; 32]));
    let table = [
        (v2_info(Bencode::Int(1)), "info.file tree: should be a dictionary"),
        (tree("a", Bencode::Int(1)), "info.file tree/a: should be a dictionary"),
        (tree("a", Bencode::dict().with("", 1)), "info.file tree/a: should be a dictionary"),
        (tree("a", no_root), "info.file tree/a.pieces root: missing"),
        (tree("a", leaf(5, &[0; 32])), "info.file tree/a.pieces root: all zeros"),
        (tree("a", leaf(5, &[1; 31])), "info.file tree/a.pieces root: should be a string of 32 bytes"),
        (tree("a", leaf(-5, &[1; 32])), "info.file tree/a.length: negative"),
        (tree("a", leaf(0, &[1; 32])), "info.length: no bytes in all"),
        (tree("a", pad), "info.file tree/a: a pad in a v2 tree"),
        (tree("a\n", both), "info.file tree/a\\n: a file and a directory at once"),
        (tree("", leaf(5, &[1; 32])), "info.file tree/: an empty name"),
        (
            tree("a", leaf(17_592_186_028_032, &[1; 32])),
            "info.file tree/a.length: 17592186028032 is too much, the limit is 17592186028031",
        ),
        (
            tree("a", leaf(17_592_186_028_031, &[1; 32])),
            "info.piece length: number of pieces: 1073741823 is too much, the limit is 2097152",
        ),
        (
            tree("a", leaf(5, &[1; 32])).with("piece length", 8192),
            "info.piece length: must be a power of two of at least 16384 for v2",
        ),
        (
            tree("a", leaf(5, &[1; 32])).with("piece length", 49152),
            "info.piece length: must be a power of two of at least 16384 for v2",
        ),
        (v2_info(Bencode::dict()), "info.length: no bytes in all"),
        (
            v2_info(Bencode::dict().with("a", leaf(5, &[1; 32])).with("b", leaf(6, &[1; 32]))),
            "info.file tree: files of one root and different lengths",
        ),
    ];
    for (info, expected) in table {
        assert_eq!(error(info), expected);
    }
    let raw = v2_info(Bencode::dict().with("a", leaf(5, &[1; 32]))).encode();
    let raw = String::from_utf8_lossy(&raw).replace("i16384e", "i016384e");
    let expected = "info: keys unsorted or numbers with leading zeros, which v2 forbids";
    assert_eq!(Metainfo::from_info(raw.as_bytes(), vec![]).unwrap_err().to_string(), expected);
}

#[test]
fn a_v2_single_file_has_no_directory() {
    let (file, ..) = v2_file(100);
    let alone = parse(v2_info(Bencode::dict().with("dir", file.clone()))).unwrap();
    assert!(alone.info().single_file);
    assert_eq!(paths(&alone), ["dir"]);
    let other = parse(v2_info(Bencode::dict().with("file", file.clone()))).unwrap();
    assert!(!other.info().single_file);
    assert_eq!(paths(&other), ["dir/file"]);
    let deeper = parse(v2_info(Bencode::dict().with("dir", Bencode::dict().with("dir", file)))).unwrap();
    assert_eq!(paths(&deeper), ["dir/dir/dir"]);
}

#[test]
fn hybrids_must_agree() {
    let (a, ..) = v2_file(100);
    let (b, ..) = v2_file(200);
    let tree = Bencode::dict().with("a", a).with("b", b);
    let pad = |length| v1_file(length, list([".pad", &length.to_string()])).with("attr", "p");
    let info = |files: Vec<Bencode>, pieces: usize| {
        v2_info(tree.clone()).with("files", files).with("pieces", vec![7; pieces * 20])
    };
    let a = v1_file(100, list(["a"]));
    let b = v1_file(200, list(["b"]));
    for files in [vec![a.clone(), pad(16284), b.clone()], vec![a.clone(), pad(16284), b.clone(), pad(16184)]]
    {
        let hybrid = parse(info(files, 2)).unwrap();
        assert_eq!(hybrid.info().version, Version::Hybrid);
        assert_eq!(hybrid.piece_len(PieceIndex(0)), 16384);
        assert!(hybrid.info_hashes().v1.is_some() && hybrid.info_hashes().v2.is_some());
        assert_eq!(hybrid.info_hashes().swarms().count(), 2);
        assert_eq!(Some(hybrid.wire_hash()), hybrid.info_hashes().v1);
        assert_eq!(hybrid.piece_hash_v2(PieceIndex(1)).map(|tree| tree.width), Some(1));
        assert_eq!(hybrid.lints(), []);
    }
    let unaligned = "info.file tree/b: not aligned to a piece in the v1 files";
    let table = [
        (vec![a.clone(), b.clone()], 1, unaligned),
        (vec![a.clone(), pad(16283), b.clone()], 2, unaligned),
        (vec![a.clone(), pad(16284 + 16384), b.clone()], 3, unaligned),
        (
            vec![pad(16384), a.clone(), pad(16284), b.clone()],
            3,
            "info.file tree/a: not aligned to a piece in the v1 files",
        ),
        (vec![a.clone(), pad(16284), b.clone(), pad(16185)], 3, "info.files: pads reach past the last piece"),
        (vec![b.clone(), pad(16184), a.clone()], 2, "info.file tree/a: differs from the v1 files"),
        (vec![a.clone()], 1, "info.file tree/b: differs from the v1 files"),
        (
            vec![a.clone(), pad(16284), v1_file(201, list(["b"]))],
            2,
            "info.file tree/b: differs from the v1 files",
        ),
        (
            vec![a.clone(), pad(16284), v1_file(200, list(["c"]))],
            2,
            "info.file tree/b: differs from the v1 files",
        ),
        (
            vec![a.clone(), pad(16284), b.clone(), v1_file(1, list(["c"]))],
            2,
            "info.file tree: differs from the v1 files",
        ),
        (
            vec![a.clone(), pad(16284), b.clone(), v1_file(0, list(["c"]))],
            2,
            "info.file tree: differs from the v1 files",
        ),
    ];
    for (files, pieces, expected) in table {
        assert_eq!(error(info(files, pieces)), expected);
    }
}

#[test]
fn hybrids_of_one_file_must_agree() {
    let (only, ..) = v2_file(40_000);
    let single =
        v2_info(Bencode::dict().with("dir", only)).with("length", 40_000).with("pieces", vec![7; 60]);
    assert_eq!(paths(&parse(single.clone()).unwrap()), ["dir"]);
    assert_eq!(error(single.clone().with("name", "other")), "info.file tree/dir: differs from the v1 files");
    assert_eq!(error(single.with("length", 40_001)), "info.file tree/dir: differs from the v1 files");
}

#[test]
fn a_small_tree_can_not_grow_to_gigabytes_of_paths() {
    // Twelve directories of 240 bytes, and in the innermost 100 000 files.
    let mut tree = Bencode::Dict(
        (0..100_000u32)
            .map(|at| {
                (at.to_string().into_bytes(), Bencode::dict().with("", Bencode::dict().with("length", 0)))
            })
            .collect(),
    );
    for _ in 0..12 {
        tree = Bencode::dict().with("d".repeat(240), tree);
    }
    let why = Metainfo::from_info(&v2_info(tree).encode(), vec![]).unwrap_err().to_string();
    assert!(why.starts_with("info: bytes of all file names: "));
}

#[test]
fn many_files_of_one_root_cost_one_check() {
    let (file, root, layer) = v2_file(16384 * 100);
    let tree = Bencode::Dict((0..20_000u32).map(|at| (at.to_string().into_bytes(), file.clone())).collect());
    let torrent = v2_torrent(v2_info(tree), vec![(&root, layer.concat())]).unwrap();
    assert_eq!(torrent.missing_layers().count(), 0);
    assert_eq!(torrent.piece_count(), 2_000_000);
}
