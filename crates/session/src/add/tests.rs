use super::*;
use crate::test_kit::{facts, torrent_of};
use piecemeal_metainfo::FileIndex;

#[test]
fn selections_are_judged_file_by_file() {
    let meta = torrent_of("show", &["1.mkv", "2.mkv", "extras/a"]);
    let only = |files: &[u32]| {
        let files = files.iter().copied().map(FileIndex).collect();
        wanted(&meta, &Selection::Only { files }).map(|wanted| wanted.to_vec())
    };
    assert_eq!(wanted(&meta, &Selection::All).unwrap()[..], [true, true, true]);
    assert_eq!(only(&[2, 0, 2]), Ok(vec![true, false, true]));
    for (files, line) in [(&[][..], "no file is selected"), (&[0, 3], "there is no file 3, only 0 to 2")] {
        let refused = only(files).unwrap_err().to_string();
        assert!(refused.starts_with("select: ") && refused.contains(line), "{refused}");
    }
}

#[test]
fn a_limit_of_nothing_is_refused() {
    assert_eq!(limits(Limits::default()), Ok((0, 0)));
    assert_eq!(limits(Limits { down: Some(5), up: Some(6) }), Ok((5, 6)));
    let refused = limits(Limits { down: None, up: Some(0) }).unwrap_err().to_string();
    assert!(refused.starts_with("limits.up: "), "{refused}");
}

#[test]
fn what_is_no_torrent_for_us_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |bytes: &[u8]| check(&AddTorrent::new(bytes.to_vec(), dir.path())).map(drop).unwrap_err();
    let line = refused(b"d4:infod6:lengthi5e4:name1:aee").to_string();
    assert!(line.starts_with("torrent: ") && line.contains("info.piece length: missing"), "{line}");
    assert!(matches!(refused(b"<html>"), Refusal::BadTorrent { .. }));
    let v2 = {
        use piecemeal_metainfo::create::{Content, Files, NewFile, Options, Plan};
        let content =
            Content { name: "a".into(), files: Files::Single(NewFile { length: 5, ..NewFile::default() }) };
        Plan::new(content, Options::new(Version::V2)).unwrap().finish(&[], &[([1; 32], vec![])]).unwrap()
    };
    let line = refused(&v2).to_string();
    assert!(line.contains("v2 alone: not supported yet; "), "{line}");
}

#[test]
fn a_directory_is_made_unless_content_in_it_was_verified() {
    let folder = tempfile::tempdir().unwrap();
    let meta = torrent_of("show", &["1.mkv"]);
    let store = Store::open(&folder.path().join("state")).unwrap();
    let (new, gone) = (folder.path().join("a/b"), folder.path().join("gone"));
    let request = |dir: &Path| AddTorrent::new(meta.to_bytes(), dir);
    let ready = |dir: &Path| {
        let request = request(dir);
        let checked = check(&request).unwrap();
        prepare(request, checked, Some(&store), [0; 16])
    };
    ready(&new).map(drop).unwrap();
    assert!(new.is_dir());

    let claim = store.claim(meta.wire_hash(), &real(&gone)).unwrap();
    store.save(&claim, Box::new(facts(&meta, &[0])));
    drop(claim);
    let refused = ready(&gone).map(drop).unwrap_err().to_string();
    assert!(refused.contains("gone: is not there, but content in it was verified before; "), "{refused}");
    assert!(!gone.exists());
    fs::create_dir(&gone).unwrap();
    let prepared = ready(&gone).map_err(|why| why.to_string()).unwrap();
    assert_eq!(prepared.seating.facts, Some(facts(&meta, &[0])));
    drop(prepared);

    fs::write(folder.path().join("file"), b"").unwrap();
    let refused = ready(&folder.path().join("file")).map(drop).unwrap_err().to_string();
    assert!(refused.contains("file: is no directory; "), "{refused}");
}

#[test]
fn the_real_path_is_the_same_before_and_after_it_exists() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    fs::create_dir(base.join("d")).unwrap();
    std::os::unix::fs::symlink(base.join("d"), base.join("link")).unwrap();
    let path = base.join("link/a/b");
    let before = real(&path);
    assert_eq!(before, base.join("d/a/b"));
    fs::create_dir_all(&path).unwrap();
    assert_eq!(real(&path), before);
}
