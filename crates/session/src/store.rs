//! Resume facts in files: one for each torrent and place of its content.
//!
//! Owns the folder's files, their locks, and the thread that writes them. What facts mean, and how far they are
//! believed, is `package`'s.
//!
//! A file is replaced as a whole: written beside itself, flushed, renamed, and the folder flushed. So whenever the
//! process or the machine dies, the facts of before or those of after are there. What cannot be read is put aside as
//! `*.bad`, and the content is checked instead.
//!
//! The name is the info-hash and a mark of the content's folder. So one program may seed a torrent while another
//! fetches it to elsewhere, with the same folder of facts; for one and the same content a lock lets only one have
//! it. A locked file costs a handle a torrent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use piecemeal_api::Refusal;
use piecemeal_metainfo::bencode::Limits;
use piecemeal_metainfo::{InfoHash, Metainfo, sha1, to_hex};
use piecemeal_package::ResumeFacts;

use crate::words;

/// Facts tell what a user has; nobody else's business.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// Of the mark of a folder: two folders of one user will not share it.
const MARK_BYTES: usize = 8;
/// Version byte and checksum around the bencode of facts.
const FRAME_BYTES: u64 = 1 + 20;
/// Files flushed at once: a flush is mostly waiting for the device, and file systems do many as one.
const WRITERS: usize = 8;
/// For fewer files it is not worth a thread.
const SHARE: usize = 8;
/// Another may have taken a lock's file away while we locked it; more often than this it is not chance.
const LOCK_TRIES: usize = 16;
/// A torrent that was just removed may still be written for so long.
const OWN_WRITE: Duration = Duration::from_secs(5);

/// The folder and its writer.
pub(crate) struct Store {
    inner: Arc<Inner>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// The right to one torrent's file. Given back when the last holder lets go, after what was to be written is.
pub(crate) struct Claim {
    name: String,
    /// Locked; the lock ends with the handle.
    _lock: File,
}

struct Inner {
    folder: PathBuf,
    desk: Mutex<Desk>,
    changed: Condvar,
}

/// What is to be written. Bounded by the torrents: of each the latest only.
#[derive(Default)]
struct Desk {
    waiting: BTreeMap<String, Errand>,
    /// What the writer has in hand.
    writing: BTreeSet<String>,
    /// What the system refused the last time.
    failed: BTreeSet<String>,
    ending: bool,
}

struct Errand {
    claim: Arc<Claim>,
    /// `None`: they are to be forgotten.
    facts: Option<Box<ResumeFacts>>,
}

impl Store {
    /// Opens the folder, made if need be, and starts the writer.
    ///
    /// # Errors
    /// The folder cannot be made, or the system has no thread left.
    pub(crate) fn open(folder: &Path) -> Result<Store, Refusal> {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&folder);
        made.map_err(|why| {
            Refusal::file(&folder, words::reason(&why), "name another folder for resume facts, or none")
        })?;
        let inner = Arc::new(Inner { folder, desk: Mutex::default(), changed: Condvar::new() });
        let its = inner.clone();
        let writer = std::thread::Builder::new().name("piecemeal-facts".into()).spawn(move || its.write());
        let writer = writer.map_err(|why| Refusal::System {
            what: "a thread to write resume facts".into(),
            reason: words::reason(&why),
        })?;
        Ok(Store { inner, writer: Mutex::new(Some(writer)) })
    }

    /// Takes the right to the facts of a torrent whose content lies in `dir`, an absolute path without links.
    ///
    /// # Errors
    /// Another session has it, in this process or another, or the lock's file cannot be made.
    pub(crate) fn claim(&self, torrent: InfoHash, dir: &Path) -> Result<Arc<Claim>, Refusal> {
        let mark = to_hex(&sha1(dir.as_os_str().as_bytes())[..MARK_BYTES]);
        let name = format!("{torrent}-{mark}");
        let path = self.inner.path(&name, "lock");
        let mut waited = false;
        for _ in 0..LOCK_TRIES {
            let open =
                OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(&path);
            let lock = open.map_err(|why| {
                Refusal::file(&path, words::reason(&why), "make its folder writable, or name another one")
            })?;
            match lock.try_lock() {
                Ok(()) if is_at(&lock, &path) => return Ok(Arc::new(Claim { name, _lock: lock })),
                Ok(()) => {}
                // Ours of a moment ago, on its way to the disk; or it got there since we tried.
                Err(TryLockError::WouldBlock) if !waited => {
                    waited = true;
                    self.inner.wait(Instant::now() + OWN_WRITE, |desk| !desk.has(&name));
                }
                Err(TryLockError::WouldBlock) => {
                    let reason = "another piecemeal has this torrent here";
                    return Err(Refusal::file(dir, reason, "stop that one, or choose another directory"));
                }
                // Some network file systems have no locks: better to go on than to do nothing at all.
                Err(TryLockError::Error(_)) => return Ok(Arc::new(Claim { name, _lock: lock })),
            }
        }
        Err(Refusal::file(&path, "cannot be locked: someone keeps removing it", "see who uses this folder"))
    }

    /// What was kept of a torrent; `None` if there is nothing that can be believed.
    pub(crate) fn load(&self, claim: &Claim, meta: &Metainfo) -> Option<ResumeFacts> {
        let path = self.inner.path(&claim.name, "facts");
        let bytes = read(&path).ok()?;
        let facts = ResumeFacts::decode(&bytes).ok().filter(|facts| {
            facts.info_hash == meta.wire_hash()
                && facts.have.pieces() == meta.piece_count()
                && facts.wanted.len() == meta.files().len()
        });
        if facts.is_none() {
            // If this fails too, the next facts replace it.
            let _ = fs::rename(&path, self.inner.path(&claim.name, "bad"));
        }
        facts
    }

    /// Has facts written, instead of those of this torrent that still wait.
    pub(crate) fn save(&self, claim: &Arc<Claim>, facts: Box<ResumeFacts>) {
        self.inner.put(claim, Some(facts));
    }

    /// Has the facts of a torrent removed.
    pub(crate) fn forget(&self, claim: &Arc<Claim>) {
        self.inner.put(claim, None);
    }

    /// Ends the writer once all is written, or leaves it at `until`. Gives the names of those whose last facts did not
    /// reach the disk.
    pub(crate) fn close(&self, until: Instant) -> BTreeSet<String> {
        self.inner.desk().ending = true;
        self.inner.changed.notify_all();
        let done = self.inner.wait(until, |desk| desk.waiting.is_empty() && desk.writing.is_empty());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (true, Some(writer)) = (done, writer) {
            // A panic there has been reported by the thread itself.
            let _ = writer.join();
        }
        let desk = self.inner.desk();
        desk.waiting.keys().chain(&desk.writing).chain(&desk.failed).cloned().collect()
    }
}

impl Claim {
    /// Without extension.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Inner {
    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.folder.join(format!("{name}.{extension}"))
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Whoever panicked did so outside of any change to the desk.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, claim: &Arc<Claim>, facts: Option<Box<ResumeFacts>>) {
        self.desk().waiting.insert(claim.name.clone(), Errand { claim: claim.clone(), facts });
        self.changed.notify_all();
    }

    /// Waits until it is so; false if it was not by `until`.
    fn wait(&self, until: Instant, so: impl Fn(&Desk) -> bool) -> bool {
        let mut desk = self.desk();
        while !so(&desk) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            desk = self.changed.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The writer's life.
    fn write(&self) {
        loop {
            let mut desk = self.desk();
            while desk.waiting.is_empty() {
                if desk.ending {
                    return;
                }
                desk = self.changed.wait(desk).unwrap_or_else(PoisonError::into_inner);
            }
            let errands = std::mem::take(&mut desk.waiting);
            desk.writing = errands.keys().cloned().collect();
            drop(desk);
            let mut failed = self.run_all(&errands);
            if flush_folder(&self.folder).is_err() {
                failed = errands.keys().map(|name| &**name).collect();
            }
            let mut desk = self.desk();
            for name in errands.keys() {
                desk.failed.remove(name);
            }
            desk.failed.extend(failed.into_iter().map(str::to_owned));
            // The locks first, so that who waits for these names can have them.
            drop(errands);
            desk.writing.clear();
            drop(desk);
            self.changed.notify_all();
        }
    }

    /// Runs what there is, several at once if it is much; the names of those that failed.
    fn run_all<'a>(&self, errands: &'a BTreeMap<String, Errand>) -> BTreeSet<&'a str> {
        let all: Vec<(&str, &Errand)> = errands.iter().map(|(name, errand)| (&**name, errand)).collect();
        let run = |part: &[(&'a str, &'a Errand)]| -> Vec<&'a str> {
            let failed = part.iter().filter(|(_, errand)| self.run(errand).is_err());
            failed.map(|(name, _)| *name).collect()
        };
        let share = all.len().div_ceil(WRITERS).max(SHARE);
        std::thread::scope(|scope| {
            let (first, others) = all.split_at(share.min(all.len()));
            let helpers: Vec<_> = others
                .chunks(share)
                .map(|part| (part, std::thread::Builder::new().spawn_scoped(scope, move || run(part))))
                .collect();
            let mut failed: BTreeSet<&str> = run(first).into_iter().collect();
            for (part, helper) in helpers {
                match helper {
                    Ok(helper) => failed.extend(helper.join().unwrap_or_else(|_| run(part))),
                    // No thread to be had: then one after the other.
                    Err(_) => failed.extend(run(part)),
                }
            }
            failed
        })
    }

    fn run(&self, errand: &Errand) -> io::Result<()> {
        let name = &errand.claim.name;
        let (facts, part) = (self.path(name, "facts"), self.path(name, "part"));
        match &errand.facts {
            Some(new) => replace(&facts, &part, &new.encode()),
            None => {
                let gone =
                    [facts, part, self.path(name, "bad"), self.path(name, "lock")].map(fs::remove_file);
                let real = |why: &io::Error| why.kind() != io::ErrorKind::NotFound;
                gone.into_iter().find_map(|gone| gone.err().filter(real)).map_or(Ok(()), Err)
            }
        }
    }
}

impl Desk {
    fn has(&self, name: &str) -> bool {
        self.waiting.contains_key(name) || self.writing.contains(name)
    }
}

/// Puts `bytes` in the place of `file`, by way of `part`. The folder is still to be flushed.
pub(crate) fn replace(file: &Path, part: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_by(file, part, &[bytes])
}

/// The same, with one behind the other.
pub(crate) fn replace_by(file: &Path, part: &Path, all: &[&[u8]]) -> io::Result<()> {
    // One that is left of a run that was killed; made anew, its mode is ours whatever it was.
    match fs::remove_file(part) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let mut to = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(part)?;
    all.iter().try_for_each(|bytes| to.write_all(bytes))?;
    to.sync_all()?;
    fs::rename(part, file)
}

fn flush_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than can be right is read, and refused as damaged.
    let most = Limits::RESUME.bytes as u64 + FRAME_BYTES + 1;
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether the file still lies under its name.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (held.dev(), held.ino()) == (there.dev(), there.ino())
}

#[cfg(test)]
mod tests;
