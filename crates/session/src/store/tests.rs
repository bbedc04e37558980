use super::*;
use crate::test_kit::{facts, torrent};
use std::os::unix::fs::PermissionsExt;

const HERE: &str = "/here";

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn facts_come_back_and_nobody_else_may_read_them() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state/piecemeal");
    let meta = torrent("film", 3);
    let store = Store::open(&state).unwrap();
    let claim = store.claim(meta.wire_hash(), Path::new(HERE)).unwrap();
    assert_eq!(store.load(&claim, &meta), None);
    store.save(&claim, Box::new(facts(&meta, &[0])));
    store.save(&claim, Box::new(facts(&meta, &[0, 2])));
    assert!(store.close(soon()).is_empty());
    drop((store, claim));

    let store = Store::open(&state).unwrap();
    let claim = store.claim(meta.wire_hash(), Path::new(HERE)).unwrap();
    assert_eq!(store.load(&claim, &meta), Some(facts(&meta, &[0, 2])));
    let elsewhere = store.claim(meta.wire_hash(), Path::new("/there")).unwrap();
    assert_eq!(store.load(&elsewhere, &meta), None);
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    for name in names(&state) {
        assert_eq!(fs::metadata(state.join(&name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn only_one_has_a_torrent_in_one_place() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (Store::open(folder.path()).unwrap(), Store::open(folder.path()).unwrap());
    let meta = torrent("film", 3);
    let claim = one.claim(meta.wire_hash(), Path::new(HERE)).unwrap();
    let refused = other.claim(meta.wire_hash(), Path::new(HERE)).map(drop).unwrap_err();
    assert!(refused.to_string().starts_with("/here: another piecemeal has this torrent here; "), "{refused}");
    other.claim(meta.wire_hash(), Path::new("/there")).unwrap();
    drop(claim);
    other.claim(meta.wire_hash(), Path::new(HERE)).unwrap();
}

#[test]
fn a_torrent_removed_and_added_again_has_its_own_lock_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let meta = torrent("film", 3);
    // Often enough that the writer is met in all that it does.
    for _ in 0..200 {
        let claim = store.claim(meta.wire_hash(), Path::new(HERE)).unwrap();
        assert_eq!(store.load(&claim, &meta), None);
        store.save(&claim, Box::new(facts(&meta, &[1])));
        store.forget(&claim);
    }
    assert!(store.close(soon()).is_empty());
    assert_eq!(names(folder.path()), [""; 0]);
}

/// Any flipped bit and any missing end: no facts, never wrong ones; the file is kept aside.
#[test]
fn damaged_facts_are_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let meta = torrent("film", 3);
    let claim = store.claim(meta.wire_hash(), Path::new(HERE)).unwrap();
    store.save(&claim, Box::new(facts(&meta, &[0, 2])));
    assert!(store.close(soon()).is_empty());
    let path = store.inner.path(&claim.name, "facts");
    let bad = store.inner.path(&claim.name, "bad");
    let whole = fs::read(&path).unwrap();
    let flipped = (0..whole.len()).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    let cut = (0..whole.len()).map(|len| whole[..len].to_vec());
    for bytes in flipped.chain(cut) {
        fs::write(&path, &bytes).unwrap();
        assert_eq!(store.load(&claim, &meta), None);
        assert!(!path.exists());
        assert_eq!(fs::read(&bad).unwrap(), bytes);
    }
    fs::write(&path, &whole).unwrap();
    assert!(store.load(&claim, &meta).is_some());
    // Whole, but of another torrent.
    assert_eq!(store.load(&claim, &torrent("other", 3)), None);
    assert_eq!(store.load(&claim, &meta), None);
}

#[test]
fn what_cannot_be_written_is_counted_and_the_old_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let meta = torrent("film", 3);
    let claim = store.claim(meta.wire_hash(), Path::new(HERE)).unwrap();
    store.save(&claim, Box::new(facts(&meta, &[0])));
    assert!(store.inner.wait(soon(), |desk| !desk.has(&claim.name)));
    // A folder in the way of the part stands for every reason the system may have.
    let part = store.inner.path(&claim.name, "part");
    fs::create_dir(&part).unwrap();
    store.save(&claim, Box::new(facts(&meta, &[0, 1])));
    assert!(store.inner.wait(soon(), |desk| desk.failed.len() == 1));
    assert_eq!(store.load(&claim, &meta), Some(facts(&meta, &[0])));
    fs::remove_dir(&part).unwrap();
    store.save(&claim, Box::new(facts(&meta, &[0, 1, 2])));
    assert!(store.close(soon()).is_empty());
    assert_eq!(store.load(&claim, &meta), Some(facts(&meta, &[0, 1, 2])));
}

#[test]
fn a_folder_that_cannot_be_made_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), b"").unwrap();
    let refused = Store::open(&folder.path().join("file/state")).map(drop).unwrap_err();
    assert!(refused.to_string().contains("file/state: "), "{refused}");
}
