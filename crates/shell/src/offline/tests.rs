//! Trees on a real file system: made, verified, damaged, verified again.

use super::*;
use piecemeal_metainfo::create::{Files, Options, Plan};
use piecemeal_metainfo::merkle::FileHasher;
use piecemeal_metainfo::{Metainfo, PieceIndex, Version};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tempfile::TempDir;

const VERSIONS: [Version; 3] = [Version::V1, Version::V2, Version::Hybrid];
const PIECE: u32 = 32 << 10;
/// Odd sizes around blocks, pieces, the reader's buffer and the workers' runs; the last is larger than two runs.
const SIZES: [(&str, u64); 11] = [
    ("a/one", 1),
    ("a/empty", 0),
    ("a/block", 16 << 10),
    ("b/block and one", (16 << 10) + 1),
    ("b/piece", 32 << 10),
    ("b/piece and one", (32 << 10) + 1),
    ("b/c/two and a bit", 82_020),
    ("b/c/d", 100_000),
    ("buffer", 512 << 10),
    ("buffer and one", (512 << 10) + 1),
    ("z", (17 << 20) + 12_345),
];

fn bytes(seed: u64, length: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn tree(sizes: &[(&str, u64)]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("content");
    for (at, (path, size)) in sizes.iter().enumerate() {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes(at as u64 + 1, *size)).unwrap();
    }
    (dir, root)
}

fn plan(root: &Path, version: Version) -> Plan {
    let scanned = scan(root, ScanOptions::default()).unwrap();
    assert_eq!(scanned.warnings, []);
    Plan::new(scanned.content, Options { piece_length: Some(PIECE), ..Options::new(version) }).unwrap()
}

fn make_of(root: &Path, version: Version, threads: usize) -> Metainfo {
    let torrent = make(plan(root, version), root, threads, &|_| {}, &AtomicBool::new(false)).unwrap();
    Metainfo::parse(&torrent).unwrap()
}

fn verify_at(meta: &Metainfo, dir: &Path) -> Verdict {
    verify(meta, dir, 2, &|_| {}, &AtomicBool::new(false)).unwrap()
}

fn damaged(verdict: &Verdict) -> Vec<&str> {
    verdict.files.iter().filter(|file| !file.complete()).map(|file| file.path.as_str()).collect()
}

#[test]
fn made_and_verified() {
    let (dir, root) = tree(&SIZES);
    for version in VERSIONS {
        let meta = make_of(&root, version, 3);
        assert_eq!(meta.raw_info(), make_of(&root, version, 1).raw_info(), "whatever the threads");
        let done = AtomicU64::new(0);
        let progress = |bytes| {
            done.fetch_max(bytes, Ordering::Relaxed);
        };
        let verdict = verify(&meta, dir.path(), 3, &progress, &AtomicBool::new(false)).unwrap();
        assert!(verdict.complete(), "{version:?}: {:?}", damaged(&verdict));
        assert_eq!(verdict.bad(), 0);
        assert_eq!(verdict.files.len(), SIZES.len());
        let total: u64 = SIZES.iter().map(|(_, size)| size).sum();
        assert_eq!(done.into_inner(), total);
        assert_eq!(verdict.files.iter().map(|file| file.good_bytes).sum::<u64>(), total);
    }
}

/// The straightforward way, from the plan's own words.
#[test]
fn hashes_are_those_of_the_plan() {
    use piecemeal_metainfo::create::Span;
    let (_dir, root) = tree(&SIZES);
    for version in VERSIONS {
        let plan = plan(&root, version);
        let read = |source: usize| fs::read(root.join(plan.sources()[source].path.join("/"))).unwrap();
        let contents: Vec<Vec<u8>> = (0..plan.sources().len()).map(read).collect();
        let v1 = (0..plan.pieces()).map(|piece| {
            let mut data = Vec::new();
            for span in plan.piece_spans(piece) {
                match span {
                    Span::Zeros(len) => data.resize(data.len() + len as usize, 0),
                    Span::File { source, offset, len } => {
                        data.extend_from_slice(&contents[source][offset as usize..][..len as usize]);
                    }
                }
            }
            piecemeal_metainfo::sha1(&data)
        });
        let v1: Vec<_> = if version.has_v1() { v1.collect() } else { Vec::new() };
        let v2 = plan.hashed_files().map(|source| {
            let mut hasher = FileHasher::new(PIECE);
            hasher.update(&contents[source]);
            let hashes = hasher.finish();
            (hashes.root.unwrap(), hashes.layer)
        });
        let slow = plan.finish(&v1, &v2.collect::<Vec<_>>()).unwrap();
        let fast = make(plan, &root, 2, &|_| {}, &AtomicBool::new(false)).unwrap();
        assert!(slow == fast, "{version:?}");
    }
}

#[test]
fn one_file_alone() {
    let (dir, root) = tree(&[("film", 200_001)]);
    let file = root.join("film");
    for version in VERSIONS {
        let meta = make_of(&file, version, 2);
        assert!(meta.info().single_file);
        assert!(verify_at(&meta, &root).complete());
        assert_eq!(damaged(&verify_at(&meta, dir.path())), ["film"]);
    }
}

#[test]
fn a_wrong_byte_is_found_where_it_is() {
    let (dir, root) = tree(&SIZES);
    for version in VERSIONS {
        let meta = make_of(&root, version, 2);
        let mut file = fs::File::options().write(true).open(root.join("z")).unwrap();
        let wrong = 9_000_000;
        file.seek(SeekFrom::Start(wrong)).unwrap();
        let right = bytes(11, wrong + 1)[wrong as usize];
        file.write_all(&[!right]).unwrap();
        let verdict = verify_at(&meta, dir.path());
        assert_eq!(damaged(&verdict), ["content/z"], "{version:?}");
        let z = meta.files().iter().find(|file| file.path.as_str() == "content/z").unwrap();
        let piece = PieceIndex(((z.offset + wrong) / u64::from(PIECE)) as u32);
        assert_eq!(verdict.good.iter_zeros().collect::<Vec<_>>(), [piece]);
        let file_verdict = verdict.files.last().unwrap();
        assert_eq!((file_verdict.bad_pieces, file_verdict.good_bytes), (1, z.length - u64::from(PIECE)));
        file.seek(SeekFrom::Start(wrong)).unwrap();
        file.write_all(&[right]).unwrap();
        assert!(verify_at(&meta, dir.path()).complete());
    }
}

#[test]
fn missing_short_and_long_files() {
    let (dir, root) = tree(&SIZES);
    for version in VERSIONS {
        let meta = make_of(&root, version, 2);
        let find = |verdict: &Verdict, name: &str| {
            verdict.files.iter().find(|file| file.path.as_str() == format!("content/{name}")).unwrap().clone()
        };
        fs::remove_file(root.join("buffer")).unwrap();
        fs::remove_file(root.join("a/empty")).unwrap();
        fs::File::options().append(true).open(root.join("b/c/d")).unwrap().write_all(b"more").unwrap();
        fs::File::options().write(true).open(root.join("z")).unwrap().set_len(1_000_000).unwrap();
        let verdict = verify_at(&meta, dir.path());
        assert!(!verdict.complete());
        assert_eq!(find(&verdict, "buffer").found, Found::Missing);
        assert_eq!(find(&verdict, "a/empty").found, Found::Missing);
        let long = find(&verdict, "b/c/d");
        assert_eq!((long.found.clone(), long.complete()), (Found::Length(100_004), false));
        let short = find(&verdict, "z");
        assert_eq!(short.found, Found::Length(1_000_000));
        assert!(short.good_bytes > 900_000 && short.good_bytes <= 1_000_000, "{}", short.good_bytes);
        if version.has_v2() {
            // Files do not share pieces, so only the broken ones suffer.
            assert_eq!(long.good_bytes, 100_000);
            assert_eq!(find(&verdict, "buffer").bad_pieces, 16);
            assert!(find(&verdict, "buffer and one").complete());
        }
        let _ = fs::remove_dir_all(&root);
        let nothing = verify_at(&meta, dir.path());
        assert!(nothing.files.iter().all(|file| file.found == Found::Missing && file.good_bytes == 0));
        for (at, (path, size)) in SIZES.iter().enumerate() {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), bytes(at as u64 + 1, *size)).unwrap();
        }
    }
}

#[test]
fn a_hybrid_needs_both_hashes() {
    let (dir, root) = tree(&[("a", 100_000), ("b", 50_000)]);
    let meta = make_of(&root, Version::Hybrid, 1);
    // Another v1 hash, the v2 tree untouched.
    let mut raw = meta.raw_info().to_vec();
    let at = raw.windows(20).position(|window| window == &meta.v1_pieces()[..20]).unwrap();
    raw[at] ^= 1;
    let mut forged = Metainfo::from_info(&raw, Vec::new()).unwrap();
    let root_of_a = meta.files()[0].pieces_root.unwrap();
    forged.add_layer(root_of_a, meta.layer(&root_of_a).unwrap().to_vec()).unwrap();
    assert_eq!(verify_at(&forged, dir.path()).good.iter_zeros().collect::<Vec<_>>(), [PieceIndex(0)]);
    // Without any layer a hybrid still has its v1 hashes; v2 alone has nothing to go by.
    let bare = Metainfo::from_info(meta.raw_info(), Vec::new()).unwrap();
    assert!(verify_at(&bare, dir.path()).complete());
    let v2 = make_of(&root, Version::V2, 1);
    let bare = Metainfo::from_info(v2.raw_info(), Vec::new()).unwrap();
    let refused = verify(&bare, dir.path(), 1, &|_| {}, &AtomicBool::new(false));
    assert!(matches!(refused, Err(OfflineError::NoLayer { path }) if path == "content/a"));
}

#[test]
fn changes_while_hashing_are_noticed() {
    let (_dir, root) = tree(&[("a", 100_000), ("b", 50_000)]);
    let no = AtomicBool::new(false);
    let grow =
        |by: &[u8]| fs::File::options().append(true).open(root.join("b")).unwrap().write_all(by).unwrap();
    let stale = plan(&root, Version::V1);
    grow(b"x");
    let error = make(stale, &root, 1, &|_| {}, &no).unwrap_err();
    assert!(error.to_string().ends_with("content/b: changed while it was read"), "{error}");
    // Between the reading and the end; the last word of progress comes in between.
    let error = make(plan(&root, Version::Hybrid), &root, 1, &|_| grow(b"y"), &no).unwrap_err();
    assert!(matches!(error, OfflineError::Changed { path } if path.ends_with("b")));
    let gone = plan(&root, Version::V2);
    fs::remove_file(root.join("a")).unwrap();
    let error = make(gone, &root, 1, &|_| {}, &no).unwrap_err();
    assert!(matches!(&error, OfflineError::File { path, .. } if path.ends_with("a")), "{error}");
}

#[test]
fn cancelled_at_once_or_on_the_way() {
    let (dir, root) = tree(&SIZES);
    let meta = make_of(&root, Version::V1, 2);
    let cancelled = AtomicBool::new(true);
    assert!(matches!(verify(&meta, dir.path(), 2, &|_| {}, &cancelled), Err(OfflineError::Cancelled)));
    let cancel = AtomicBool::new(false);
    let stop = |_| cancel.store(true, Ordering::Relaxed);
    let outcome = make(plan(&root, Version::V1), &root, 2, &stop, &cancel);
    assert!(matches!(outcome, Err(OfflineError::Cancelled)));
}

#[test]
fn a_name_must_be_text_and_something_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let missing = scan(&dir.path().join("none"), ScanOptions::default()).unwrap_err();
    assert!(missing.to_string().contains("none: "), "{missing}");
    let empty = scan(dir.path(), ScanOptions::default()).unwrap();
    assert_eq!(empty.content.files, Files::Many(vec![]));
    assert!(Plan::new(empty.content, Options::new(Version::V1)).is_err());
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn scanned(root: &Path, options: ScanOptions) -> (Vec<String>, Vec<String>) {
        let scanned = scan(root, options).unwrap();
        let Files::Many(files) = scanned.content.files else { panic!("a directory") };
        let show = |file: &piecemeal_metainfo::create::NewFile| match &file.symlink {
            Some(target) => format!("{} -> {}", file.path.join("/"), target.join("/")),
            None => format!("{} {}", file.path.join("/"), file.length),
        };
        let name = |warning: &Warning| warning.path.strip_prefix(root).unwrap().display().to_string();
        (files.iter().map(show).collect(), scanned.warnings.iter().map(name).collect())
    }

    #[test]
    fn links_sockets_and_hidden_files() {
        let (dir, root) = tree(&[("a/x", 1), ("b", 2), (".git/c", 3), ("d/.e", 4)]);
        fs::write(dir.path().join("outside"), "secret").unwrap();
        symlink("../b", root.join("a/in")).unwrap();
        symlink("../../outside", root.join("a/out")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        symlink("a", root.join("to a directory")).unwrap();
        symlink("a/in", root.join("twice")).unwrap();
        let _socket = UnixListener::bind(root.join("socket")).unwrap();

        let (files, left_out) = scanned(&root, ScanOptions::default());
        assert_eq!(files, [".git/c 3", "a/in -> b", "a/x 1", "b 2", "d/.e 4", "twice -> b"]);
        assert_eq!(left_out, ["a/out", "dangling", "socket", "to a directory"]);
        let few = ScanOptions { hidden: false, symlinks: Symlinks::Skip };
        let (files, left_out) = scanned(&root, few);
        assert_eq!(files, ["a/x 1", "b 2"]);
        assert_eq!(left_out, ["a/in", "a/out", "dangling", "socket", "to a directory", "twice"]);

        fs::remove_file(root.join("dangling")).unwrap();
        let follow = ScanOptions { symlinks: Symlinks::Follow, hidden: false };
        let (files, left_out) = scanned(&root, follow);
        let expected = [
            "a/in 2",
            "a/out 6",
            "a/x 1",
            "b 2",
            "to a directory/in 2",
            "to a directory/out 6",
            "to a directory/x 1",
            "twice 2",
        ];
        assert_eq!(
            (&files[..], &left_out[..]),
            (&expected.map(String::from)[..], &["socket".to_owned()][..])
        );
        for circle in ["../a", "..", "../../content/a"] {
            symlink(circle, root.join("a/circle")).unwrap();
            let error = scan(&root, follow).unwrap_err();
            assert!(matches!(error, OfflineError::Unfit { .. }), "{error}");
            fs::remove_file(root.join("a/circle")).unwrap();
        }
    }

    #[test]
    fn kept_links_go_through_a_torrent() {
        let (dir, root) = tree(&[("a/x", 40_000), ("b", 2)]);
        symlink("../b", root.join("a/in")).unwrap();
        for version in VERSIONS {
            let meta = make_of(&root, version, 1);
            assert!(verify_at(&meta, dir.path()).complete(), "{version:?}");
            assert!(
                meta.files()
                    .iter()
                    .any(|file| file.symlink.as_ref().is_some_and(|to| to.as_str() == "content/b"))
            );
        }
    }

    #[test]
    fn the_path_itself_is_followed() {
        let (dir, root) = tree(&[("a", 5)]);
        symlink(&root, dir.path().join("link")).unwrap();
        let found = scan(&dir.path().join("link"), ScanOptions::default()).unwrap().content;
        assert_eq!(found.name, "link");
        let found = scan(&root.join("."), ScanOptions::default()).unwrap().content;
        assert_eq!(found.name, "content");
    }

    #[test]
    fn names_that_are_no_text_are_refused() {
        let (_dir, root) = tree(&[("a", 5)]);
        if fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff")), "x").is_ok() {
            let error = scan(&root, ScanOptions::default()).unwrap_err();
            assert!(error.to_string().contains("not UTF-8"), "{error}");
        }
    }

    #[test]
    fn a_pipe_is_no_file() {
        let (dir, root) = tree(&[("a", 40_000), ("b", 5)]);
        let meta = make_of(&root, Version::V2, 1);
        fs::remove_file(root.join("a")).unwrap();
        let _socket = UnixListener::bind(root.join("a")).unwrap();
        let verdict = verify_at(&meta, dir.path());
        assert_eq!(verdict.files[0].found, Found::Unreadable("not a file".into()));
        assert!(verdict.files[1].complete());
    }
}
