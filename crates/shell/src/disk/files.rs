//! From a file of a torrent to an open handle, and back to words when the system refuses.
//!
//! Owns: paths and handles. A path is made of a torrent's `SafePath` and opened beneath the root, where neither it nor
//! a folder on the way may be a link, so whatever someone planted in a download folder is refused, not followed.
//! Leaves to `worker` and `fences` what is done with a handle.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use piecemeal_metainfo::{FileIndex, Metainfo, TorrentId};
use piecemeal_package::{Place, Trouble, TroubleKind};
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Where a torrent lies.
#[derive(Clone, Debug)]
pub struct Storage {
    /// The folder below which the paths of the metainfo go. It may be reached through links; nothing below it may.
    pub root: PathBuf,
    /// The part file, made when it is first needed.
    pub part: PathBuf,
    /// What the files are.
    pub meta: Arc<Metainfo>,
}

/// A torrent as the disk knows it.
pub(crate) struct Torrent {
    pub(crate) id: TorrentId,
    pub(crate) storage: Storage,
    unsynced: Mutex<Unsynced>,
}

/// What a [`Fence::Sync`](piecemeal_package::Fence::Sync) has to flush. Bounded by the torrent's files.
#[derive(Default)]
pub(crate) struct Unsynced {
    /// Written since the last one.
    pub(crate) files: BTreeSet<Place>,
    /// Folders with new entries, beneath the root; the root itself is "".
    pub(crate) folders: BTreeSet<String>,
}

impl Torrent {
    pub(crate) fn new(id: TorrentId, storage: Storage) -> Torrent {
        Torrent { id, storage, unsynced: Mutex::default() }
    }

    pub(crate) fn unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a place to read, or to read and write. Writing makes the file, and folders above it, if they are not
    /// there; nothing is ever cut.
    pub(crate) fn open(&self, place: Place, write: bool) -> Result<Handle, Trouble> {
        let flags = if write { OFlags::RDWR | OFlags::CREATE } else { OFlags::RDONLY };
        let opened = match place {
            Place::File(file) => {
                let path = self.file_path(file)?;
                let fd = open_beneath(&self.storage.root, path, flags);
                if write && fd.as_ref().is_err_and(|why| *why == Errno::NOENT) {
                    self.make_folders_above(path)?;
                    open_beneath(&self.storage.root, path, flags)
                } else {
                    fd
                }
            }
            Place::Part => open_part(&self.storage.part, flags),
            Place::Pad => Err(Errno::INVAL),
        };
        let fd = opened.and_then(only_regular).map_err(|why| self.trouble(place, why))?;
        if let (true, Place::File(file)) = (write, place) {
            let folder = parent(self.file_path(file)?).unwrap_or_default();
            self.unsynced().folders.insert(folder.to_owned());
        }
        Ok(Handle { fd, write, dirty: AtomicBool::new(false) })
    }

    /// Makes the folders above `path` beneath the root; the root itself must be there.
    pub(crate) fn make_folders_above(&self, path: &str) -> Result<(), Trouble> {
        let Some(folder) = parent(path) else { return Ok(()) };
        let made = make_folders(&self.storage.root, folder, |made| {
            self.unsynced().folders.insert(parent(made).unwrap_or_default().to_owned());
        });
        made.map_err(|why| trouble(self.storage.root.join(folder), why))
    }

    /// Where the file lies beneath the root.
    pub(crate) fn file_path(&self, file: FileIndex) -> Result<&str, Trouble> {
        match self.storage.meta.file(file) {
            Some(entry) if !entry.pad => Ok(entry.path.as_str()),
            _ => Err(Trouble {
                kind: TroubleKind::Io,
                path: self.storage.root.display().to_string(),
                text: format!("the torrent has no file {} on disk", file.0),
            }),
        }
    }

    /// What went wrong at a place.
    pub(crate) fn trouble(&self, place: Place, why: Errno) -> Trouble {
        trouble(self.full_path(place), why)
    }

    /// The file is shorter than a read needs.
    pub(crate) fn too_short(&self, place: Place) -> Trouble {
        let path = self.full_path(place).display().to_string();
        Trouble { kind: TroubleKind::Missing, path, text: "the file is shorter than it should be".into() }
    }

    fn full_path(&self, place: Place) -> PathBuf {
        match place {
            Place::File(file) => match self.storage.meta.file(file) {
                Some(entry) => entry.path.join_to(&self.storage.root),
                None => self.storage.root.clone(),
            },
            Place::Part => self.storage.part.clone(),
            Place::Pad => self.storage.root.clone(),
        }
    }
}

/// An open file.
pub(crate) struct Handle {
    fd: OwnedFd,
    write: bool,
    /// Written through, and noted in [`Unsynced`].
    dirty: AtomicBool,
}

impl Handle {
    /// Notes that it is written to; cheap when it is not the first time.
    pub(crate) fn note_write(&self, torrent: &Torrent, place: Place) {
        if !self.dirty.load(Ordering::Relaxed) {
            self.dirty.store(true, Ordering::Relaxed);
            torrent.unsynced().files.insert(place);
        }
    }

    /// Notes that it is flushed; only while no write runs.
    pub(crate) fn note_sync(&self) {
        self.dirty.store(false, Ordering::Relaxed);
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Open handles, the least recently used closed beyond a limit. A handle in use stays open until its user is done.
pub(crate) struct Handles {
    limit: usize,
    open: HashMap<(TorrentId, Place), Entry>,
    uses: u64,
}

struct Entry {
    handle: Arc<Handle>,
    last_use: u64,
}

impl Handles {
    pub(crate) fn new(limit: usize) -> Handles {
        Handles { limit, open: HashMap::with_capacity(limit), uses: 0 }
    }

    /// The handle, if it is open, and for writing if that is asked.
    pub(crate) fn get(&mut self, torrent: TorrentId, place: Place, write: bool) -> Option<Arc<Handle>> {
        self.uses += 1;
        let entry = self.open.get_mut(&(torrent, place)).filter(|entry| entry.handle.write || !write)?;
        entry.last_use = self.uses;
        Some(entry.handle.clone())
    }

    /// Keeps a handle that was just opened. If another thread was quicker, theirs stays, unless this one can write.
    pub(crate) fn keep(&mut self, torrent: TorrentId, place: Place, handle: Handle) -> Arc<Handle> {
        if let Some(theirs) = self.get(torrent, place, handle.write) {
            return theirs;
        }
        if self.open.len() >= self.limit {
            let oldest = self.open.iter().min_by_key(|(_, entry)| entry.last_use).map(|(key, _)| *key);
            oldest.and_then(|key| self.open.remove(&key));
        }
        let handle = Arc::new(handle);
        self.open.insert((torrent, place), Entry { handle: handle.clone(), last_use: self.uses });
        handle
    }

    /// Closes all handles of a torrent.
    pub(crate) fn close(&mut self, torrent: TorrentId) {
        self.open.retain(|(of, _), _| *of != torrent);
    }
}

/// What to tell about a refusal.
pub(crate) fn trouble(path: impl AsRef<Path>, why: Errno) -> Trouble {
    let kind = match why {
        Errno::NOSPC | Errno::DQUOT => TroubleKind::NoSpace,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => TroubleKind::Permission,
        Errno::NOENT => TroubleKind::Missing,
        // A link, a way out of the root, a folder or device in a file's place, a file in a folder's place.
        Errno::LOOP | Errno::XDEV | Errno::ISDIR | Errno::NOTDIR | Errno::NXIO => TroubleKind::Unsafe,
        _ => TroubleKind::Io,
    };
    let text = std::io::Error::from(why).to_string();
    Trouble { kind, path: path.as_ref().display().to_string(), text }
}

/// The folder of a path beneath the root, unless that is the root.
pub(crate) fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(folder, _)| folder)
}

/// Flags of every open: a planted FIFO must not block, a terminal must not become ours.
const ALWAYS: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::NOFOLLOW);
/// Of new files; the umask takes its share.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
/// Of new folders; the umask takes its share.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o777);
/// Enough to reach what is below a folder.
#[cfg(target_os = "linux")]
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens the root; links on the way to it are the user's own.
pub(crate) fn open_root(root: &Path) -> Result<OwnedFd, Errno> {
    fs::open(root, FOLDER, Mode::empty())
}

/// Opens `path` beneath `root`, through no link.
pub(crate) fn open_beneath(root: &Path, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let root = open_root(root)?;
    #[cfg(target_os = "linux")]
    if let Some(answer) = open_by_kernel(root.as_fd(), path, flags) {
        return answer;
    }
    open_by_steps(root, path, flags)
}

/// Opens the folder `path` beneath `root`, to work on its entries; "" is the root.
pub(crate) fn open_folder(root: &Path, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    if path.is_empty() {
        return fs::open(root, flags | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    }
    open_beneath(root, path, flags | OFlags::DIRECTORY)
}

/// As [`open_folder`], only to reach its entries.
pub(crate) fn reach_folder(root: &Path, path: &str) -> Result<OwnedFd, Errno> {
    open_folder(root, path, FOLDER)
}

/// `None` where the kernel or a sandbox has no `openat2`.
#[cfg(target_os = "linux")]
fn open_by_kernel(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Option<Result<OwnedFd, Errno>> {
    use fs::ResolveFlags;
    static ABSENT: AtomicBool = AtomicBool::new(false);
    if ABSENT.load(Ordering::Relaxed) {
        return None;
    }
    let mode = if flags.contains(OFlags::CREATE) { FILE_MODE } else { Mode::empty() };
    // With O_PATH the kernel takes few flags beside it.
    let flags = if flags.contains(OFlags::PATH) {
        flags | OFlags::CLOEXEC | OFlags::NOFOLLOW
    } else {
        flags | ALWAYS
    };
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match fs::openat2(root, path, flags, mode, how) {
        Err(Errno::NOSYS) => {
            ABSENT.store(true, Ordering::Relaxed);
            None
        }
        // A sandbox says PERM for a call it does not know, and so may a file; AGAIN is a rename that interfered.
        Err(Errno::PERM | Errno::AGAIN) => None,
        answer => Some(answer),
    }
}

/// One component at a time, none of them a link.
fn open_by_steps(root: OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut at = root;
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
        at = step_into(at.as_fd(), folder)?;
    }
    let mode = if flags.contains(OFlags::CREATE) { FILE_MODE } else { Mode::empty() };
    fs::openat(&at, name, flags | ALWAYS, mode)
}

fn step_into(at: BorrowedFd<'_>, folder: &str) -> Result<OwnedFd, Errno> {
    fs::openat(at, folder, FOLDER | OFlags::NOFOLLOW, Mode::empty())
}

/// Makes the folders of `path`, from the outermost, and calls `made` with each that was not there.
fn make_folders(root: &Path, path: &str, mut made: impl FnMut(&str)) -> Result<(), Errno> {
    let mut at = open_root(root)?;
    let mut end = 0;
    for folder in path.split('/') {
        end += folder.len();
        match fs::mkdirat(&at, folder, FOLDER_MODE) {
            Ok(()) => made(&path[..end]),
            Err(Errno::EXIST) => {}
            Err(why) => return Err(why),
        }
        at = step_into(at.as_fd(), folder)?;
        end += 1;
    }
    Ok(())
}

/// The part file is ours: its folder is made if need be, and reached as the user set it up.
fn open_part(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let open = || fs::open(path, flags | ALWAYS, FILE_MODE);
    match open() {
        Err(Errno::NOENT) if flags.contains(OFlags::CREATE) => {
            let folder = path.parent().ok_or(Errno::NOENT)?;
            std::fs::create_dir_all(folder).map_err(|why| Errno::from_io_error(&why).unwrap_or(Errno::IO))?;
            open()
        }
        answer => answer,
    }
}

fn only_regular(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    let stat = fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile { Ok(fd) } else { Err(Errno::ISDIR) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Where the kernel has no `openat2`, the steps must refuse what it would.
    #[test]
    fn step_by_step_no_link_is_followed_either() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("d/e")).unwrap();
        std::fs::write(folder.path().join("outside"), b"x").unwrap();
        std::fs::write(root.join("d/e/f"), b"x").unwrap();
        symlink("../outside", root.join("link")).unwrap();
        symlink("d", root.join("folder")).unwrap();
        let cases: [(&str, Result<(), TroubleKind>); 6] = [
            ("d/e/f", Ok(())),
            ("link", Err(TroubleKind::Unsafe)),
            ("folder/e/f", Err(TroubleKind::Unsafe)),
            ("d/e/f/g", Err(TroubleKind::Unsafe)),
            ("d/gone", Err(TroubleKind::Missing)),
            ("gone/f", Err(TroubleKind::Missing)),
        ];
        for (path, want) in cases {
            let by_steps = open_by_steps(open_root(&root).unwrap(), path, OFlags::RDONLY);
            let said = by_steps.map(|_| ()).map_err(|why| trouble(path, why).kind);
            assert_eq!(said, want, "{path}");
            let said = open_beneath(&root, path, OFlags::RDONLY);
            assert_eq!(
                said.map(|_| ()).map_err(|why| trouble(path, why).kind),
                want,
                "{path}, by the kernel"
            );
        }
    }
}
