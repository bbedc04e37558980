use super::*;
use crate::FileEntry;
use crate::hash::sha1;
use crate::merkle::FileHasher;
use proptest::prelude::*;

/// The bytes of file `source`: any, but always the same.
fn byte(source: usize, at: u64) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 8) ^ (source as u64 * 7)) as u8
}

fn finish(plan: &Plan) -> Result<Vec<u8>, CreateError> {
    finish_with(plan, byte)
}

/// Does what a disk would.
fn finish_with(plan: &Plan, byte: impl Fn(usize, u64) -> u8) -> Result<Vec<u8>, CreateError> {
    let read = |span: &Span| -> Vec<u8> {
        match *span {
            Span::File { source, offset, len } => {
                (0..u64::from(len)).map(|i| byte(source, offset + i)).collect()
            }
            Span::Zeros(len) => vec![0; len as usize],
        }
    };
    let v1: Vec<[u8; 20]> = match plan.version().has_v1() {
        true => (0..plan.pieces())
            .map(|piece| sha1(&plan.piece_spans(piece).iter().flat_map(read).collect::<Vec<u8>>()))
            .collect(),
        false => Vec::new(),
    };
    let tree = |source: usize| {
        let mut hasher = FileHasher::new(plan.piece_length());
        let bytes: Vec<u8> = (0..plan.sources()[source].length).map(|at| byte(source, at)).collect();
        hasher.update(&bytes);
        let hashes = hasher.finish();
        (hashes.root.expect("files without bytes are not hashed"), hashes.layer)
    };
    let v2: Vec<_> = plan.hashed_files().map(tree).collect();
    plan.finish(&v1, &v2)
}

fn file(path: &str, length: u64) -> NewFile {
    NewFile { path: path.split('/').map(str::to_owned).collect(), length, ..NewFile::default() }
}

fn many(files: Vec<NewFile>) -> Content {
    Content { name: "root".to_owned(), files: Files::Many(files) }
}

fn options(version: Version, piece_length: u32) -> Options {
    Options { piece_length: Some(piece_length), ..Options::new(version) }
}

fn link(path: &str, to: &str) -> NewFile {
    NewFile { symlink: Some(file(to, 0).path), ..file(path, 0) }
}

#[test]
fn every_version_of_one_tree() {
    for version in [Version::V1, Version::V2, Version::Hybrid] {
        let files = vec![
            file("z", 0),
            NewFile { executable: true, ..file("b", 40_000) },
            file("sub/c", 70_000),
            NewFile { hidden: true, ..file("a", 100) },
            link("link", "sub/c"),
        ];
        let mut options = options(version, 16384);
        options.private = true;
        options.source = Some("SRC".to_owned());
        options.comment = Some("why".to_owned());
        options.trackers = vec![vec!["http://a/".into(), "http://b/".into()], vec!["udp://c:1".into()]];
        options.web_seeds = vec!["http://w/".into()];
        options.nodes = vec![("router.example".to_owned(), 6881)];
        options.created_by = Some("test".to_owned());
        options.creation_date = Some(1_700_000_000);
        let plan = Plan::new(many(files), options.clone()).unwrap();
        let torrent = Metainfo::parse(&finish(&plan).unwrap()).unwrap();
        assert_eq!(torrent.lints(), []);
        assert_eq!(torrent.info().version, version);
        assert!(torrent.info().private && !torrent.info().single_file);
        assert_eq!(torrent.info().source.as_deref(), Some("SRC"));
        assert_eq!(torrent.trackers(), options.trackers);
        assert_eq!(torrent.web_seeds(), options.web_seeds);
        assert_eq!(torrent.nodes(), options.nodes);
        assert_eq!(torrent.comment(), Some("why"));
        assert_eq!(torrent.created_by(), Some("test"));
        assert_eq!(torrent.creation_date(), Some(1_700_000_000));
        let shown: Vec<(&str, u64, u64)> =
            torrent.files().iter().map(|file| (file.path.as_str(), file.offset, file.length)).collect();
        if version == Version::V1 {
            let expected = [
                ("root/a", 0, 100),
                ("root/b", 100, 40_000),
                ("root/link", 40_100, 0),
                ("root/sub/c", 40_100, 70_000),
                ("root/z", 110_100, 0),
            ];
            assert_eq!(shown, expected);
        } else {
            let expected = [
                ("root/a", 0, 100),
                ("root/.pad/16284", 100, 16284),
                ("root/b", 16384, 40_000),
                ("root/.pad/9152", 56384, 9152),
                ("root/link", 65536, 0),
                ("root/sub/c", 65536, 70_000),
                ("root/.pad/11920", 135_536, 11920),
                ("root/z", 147_456, 0),
            ];
            assert_eq!(shown, expected);
        }
        let of = |name: &str| torrent.files().iter().find(|file| file.path.as_str() == name).unwrap();
        assert!(of("root/b").executable && !of("root/b").hidden && of("root/a").hidden);
        assert_eq!(of("root/link").symlink.as_ref().map(SafePath::as_str), Some("root/sub/c"));
        assert_eq!(Metainfo::parse(&torrent.to_bytes()).unwrap(), torrent);
    }
}

/// Info-hashes that libtorrent 2.1.1 gave the same files; the last file fills its piece, since by
/// default it would pad that one too.
#[test]
fn info_hashes_as_libtorrent_makes_them() {
    let vec = vec![
        file("a", 100),
        file("b.bin", 82020),
        file("empty", 0),
        file("sub/c", 32768),
        file("sub/d", 32768),
    ];
    let vec = Content { name: "vec".to_owned(), files: Files::Many(vec) };
    let alone = Content { name: "vector.bin".to_owned(), files: Files::Single(file("ignored", 82020)) };
    let table = [
        (&alone, Version::V1, "396b1596feeceefe6e94b06017afe3ee57710f1b"),
        (&alone, Version::V2, "35fee31cddcb11cd4e12207ee6f87bba0a9b4dd4efd174c0e3a40b32849fd8a4"),
        (&alone, Version::Hybrid, "8d777eef9902fbaecd48471fb80560038b882459dddca1df1186e4057bc13ae0"),
        (&vec, Version::V2, "d835265f958e9e347dcf90fbfa14963d9a6267ec077d2215bf04005b423a2832"),
        (&vec, Version::Hybrid, "a8b32ec860cfde264c2fb9dde9400f2d100443dd0a5231d55b6c0d7a2a9415c2"),
    ];
    for (content, version, expected) in table {
        let plan = Plan::new(content.clone(), options(version, 32768)).unwrap();
        let torrent = Metainfo::parse(&finish_with(&plan, |_, at| (7 * at + 3) as u8).unwrap()).unwrap();
        let hashes = torrent.info_hashes();
        let shown = hashes.v2.map(|hash| hash.to_string()).or(hashes.v1.map(|hash| hash.to_string()));
        assert_eq!(shown.as_deref(), Some(expected), "{} {version:?}", content.name);
    }
}

#[test]
fn refusals() {
    let new = |files: Vec<NewFile>, version| Plan::new(many(files), options(version, 16384)).map(|_| ());
    let table = [
        (vec![], CreateError::NoContent),
        (vec![file("a", 0)], CreateError::NoContent),
        (vec![file("a", 1), file("a", 1)], CreateError::Twice("a".into())),
        (vec![file("a", 1), file("a/b", 1)], CreateError::Twice("a/b".into())),
        (vec![file("a/../b", 1)], CreateError::BadName("..".into())),
        (vec![file("a//b", 1)], CreateError::BadName("".into())),
        (vec![file("a\\b", 1)], CreateError::BadName("a\\b".into())),
        (vec![file("a\n", 1)], CreateError::BadName("a\n".into())),
        (
            vec![NewFile { path: vec!["a/b".into()], length: 1, ..NewFile::default() }],
            CreateError::BadName("a/b".into()),
        ),
        (vec![NewFile { length: 1, ..NewFile::default() }], CreateError::BadName("".into())),
        (vec![file("a", 1), link("l", "b")], CreateError::BadLink("l".into())),
        (vec![file("a", 1), link("k", "a"), link("l", "k")], CreateError::BadLink("l".into())),
        (vec![file("a", FILE_BYTES_END)], CreateError::TooLarge("a".into())),
        (
            vec![file("a", FILE_BYTES_END - 1)],
            CreateError::TooManyPieces { pieces: 1_073_741_823, limit: 471_859 },
        ),
    ];
    for (files, why) in table {
        assert_eq!(new(files, Version::V1), Err(why));
    }
    assert_eq!(new(vec![file("root", 1)], Version::V2), Err(CreateError::Ambiguous("root".into())));
    assert_eq!(new(vec![file("root", 1)], Version::V1), Ok(()));
    for (version, length) in
        [(Version::V1, 0), (Version::V2, 8192), (Version::V2, 49152), (Version::V1, 1 << 29)]
    {
        let plan = Plan::new(many(vec![file("a", 1)]), options(version, length));
        assert_eq!(plan.map(|_| ()), Err(CreateError::PieceLength(length)));
    }
    let plan = Plan::new(many(vec![file("a", 1)]), options(Version::Hybrid, 16384)).unwrap();
    assert!(matches!(plan.finish(&[], &[([1; 32], vec![])]), Err(CreateError::Hashes(_))));
    assert!(matches!(plan.finish(&[[0; 20]], &[]), Err(CreateError::Hashes(_))));
    assert!(matches!(plan.finish(&[[0; 20]], &[([0; 32], vec![])]), Err(CreateError::Unreadable(_))));
}

#[test]
fn piece_length_follows_size() {
    let table = [
        (1, 16 << 10),
        (2000 * (16 << 10), 16 << 10),
        (2000 * (16 << 10) + 1, 32 << 10),
        (1 << 30, 1 << 20),
        (4 << 30, 4 << 20),
        (32 << 30, 16 << 20),
        (1 << 40, 16 << 20),
        (2 << 40, 32 << 20),
        (1 << 47, 256 << 20),
    ];
    for (total, expected) in table {
        assert_eq!(auto_piece_length(total), expected, "{total} bytes");
    }
}

fn tree() -> impl Strategy<Value = Vec<NewFile>> {
    let name = proptest::sample::select(&["a", "b", "c.txt", "ü", "sub", "x y", "-"][..]);
    let path = proptest::collection::vec(name, 1..4);
    let length = prop_oneof![Just(0u64), 1u64..100, Just(16384u64), Just(32768u64), 1u64..150_000];
    let files = proptest::collection::btree_map(path, (length, any::<bool>(), any::<bool>()), 1..8);
    files.prop_map(|files| {
        let mut kept: Vec<NewFile> = Vec::new();
        for (path, (length, executable, hidden)) in files {
            let path: Vec<String> = path.into_iter().map(str::to_owned).collect();
            if !kept.iter().any(|other| path.starts_with(&other.path)) {
                kept.push(NewFile { path, length, executable, hidden, symlink: None });
            }
        }
        kept.reverse();
        kept
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_planned_is_read(files in tree(), shift in 0u32..4,
                               version in proptest::sample::select(&[Version::V1, Version::V2, Version::Hybrid][..])) {
        let total: u64 = files.iter().map(|file| file.length).sum();
        let plan = match Plan::new(many(files.clone()), options(version, 16384 << shift)) {
            Ok(plan) => plan,
            Err(why) => {
                prop_assert_eq!(why, CreateError::NoContent);
                prop_assert_eq!(total, 0);
                return Ok(());
            }
        };
        let torrent = Metainfo::parse(&finish(&plan).unwrap()).unwrap();
        prop_assert_eq!(torrent.info().content_length, total);
        prop_assert_eq!(torrent.piece_count(), plan.pieces());
        let mut read: Vec<NewFile> = torrent.files().iter().filter(|file| !file.pad).map(|file: &FileEntry| NewFile {
            path: file.path.components().skip(1).map(str::to_owned).collect(),
            length: file.length,
            executable: file.executable,
            hidden: file.hidden,
            symlink: None,
        }).collect();
        let mut given = files;
        given.sort_by(|a, b| a.path.cmp(&b.path));
        read.sort_by(|a, b| a.path.cmp(&b.path));
        prop_assert_eq!(read, given);
        // The byte space has no gaps, and pieces cover it.
        let mut end = 0;
        for file in torrent.files() {
            prop_assert_eq!(file.offset, end);
            end += file.length;
        }
        prop_assert_eq!(end, torrent.info().length);
        for piece in 0..torrent.piece_count() {
            let index = torrent.piece(piece).unwrap();
            let spans = plan.piece_spans(piece);
            let bytes: u32 = spans.iter().map(|span| match span {
                Span::File { len, .. } | Span::Zeros(len) => *len,
            }).sum();
            prop_assert_eq!(torrent.piece_len(index), bytes);
            prop_assert_eq!(torrent.piece_hash_v1(index).is_some(), version.has_v1());
            prop_assert_eq!(torrent.piece_hash_v2(index).is_some(), version.has_v2());
            if let Some(subtree) = torrent.piece_hash_v2(index) {
                let data: Vec<u8> = spans.iter().flat_map(|span| match *span {
                    Span::File { source, offset, len } => (offset..offset + u64::from(len)).map(|at| byte(source, at)).collect(),
                    Span::Zeros(_) => Vec::new(),
                }).collect();
                let leaves: Vec<Hash> = data.chunks(LEAF_BYTES as usize).map(crate::merkle::leaf).collect();
                prop_assert_eq!(crate::merkle::root(&leaves, 0, subtree.width as usize), subtree.hash);
            }
        }
        prop_assert_eq!(torrent.piece(torrent.piece_count()), None);
        prop_assert_eq!(Metainfo::parse(&torrent.to_bytes()).unwrap(), torrent);
    }
}
