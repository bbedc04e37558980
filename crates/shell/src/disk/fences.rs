//! What is done alone: making, flushing, closing and deleting the files of a torrent, and looking at them.
//!
//! Package sees to it that no other Job of the torrent is out. Nothing that exists is touched by [`Fence::Prepare`],
//! and [`Fence::Delete`] takes away regular files and links of the torrent's own names, and folders this empties.

use std::collections::BTreeSet;

use piecemeal_metainfo::{FileIndex, SafePath};
use piecemeal_package::{Fence, FileStamp, Place, Trouble};
use rustix::fs::{self, AtFlags, FileType, OFlags};
use rustix::io::Errno;

use super::files::{Torrent, Unsynced, open_beneath, open_folder, parent, reach_folder, trouble};
use super::lane::Lane;

impl Torrent {
    pub(crate) fn fence(&self, fence: &Fence, lane: &Lane) -> Result<(), Trouble> {
        match fence {
            Fence::Prepare { wanted } => self.prepare(wanted),
            Fence::Sync => self.sync(lane),
            Fence::Close => {
                lane.handles().close(self.id);
                Ok(())
            }
            Fence::Delete => {
                lane.handles().close(self.id);
                self.delete()
            }
        }
    }

    /// One stamp a file, and the part file's. What cannot be reached does not exist.
    pub(crate) fn stamps(&self) -> Vec<FileStamp> {
        let files = self.storage.meta.files().iter().map(|file| {
            let plain = !file.pad && file.symlink.is_none();
            if plain { self.stamp(file.path.as_str()) } else { FileStamp::default() }
        });
        let part = fs::lstat(&self.storage.part).map(stamp_of).unwrap_or_default();
        files.chain([part]).collect()
    }

    fn stamp(&self, path: &str) -> FileStamp {
        let look = || -> Result<fs::Stat, Errno> {
            #[cfg(target_os = "linux")]
            return fs::fstat(open_beneath(&self.storage.root, path, OFlags::PATH)?);
            #[cfg(not(target_os = "linux"))]
            {
                let folder = reach_folder(&self.storage.root, parent(path).unwrap_or_default())?;
                fs::statat(folder, name_of(path), AtFlags::SYMLINK_NOFOLLOW)
            }
        };
        look().map(stamp_of).unwrap_or_default()
    }

    fn prepare(&self, wanted: &[bool]) -> Result<(), Trouble> {
        let root = &self.storage.root;
        std::fs::create_dir_all(root)
            .map_err(|why| trouble(root, Errno::from_io_error(&why).unwrap_or(Errno::IO)))?;
        let files = || {
            let all = self.storage.meta.files().iter().enumerate();
            all.filter(|(at, file)| !file.pad && wanted.get(*at).copied().unwrap_or(false))
        };
        let mut folders = BTreeSet::new();
        for (_, file) in files() {
            let path = file.path.as_str();
            if parent(path).is_some_and(|folder| folders.insert(folder)) {
                self.make_folders_above(path)?;
            }
        }
        for (at, file) in files().filter(|(_, file)| file.symlink.is_none() && file.length == 0) {
            self.make_empty(FileIndex(at as u32), file.path.as_str())?;
        }
        // Last, so that nothing above was made through one of them.
        for (at, file) in files() {
            if let Some(target) = &file.symlink {
                let made = self.make_link(&file.path, target);
                made.map_err(|why| self.trouble(Place::File(FileIndex(at as u32)), why))?;
            }
        }
        Ok(())
    }

    fn make_empty(&self, file: FileIndex, path: &str) -> Result<(), Trouble> {
        match open_beneath(&self.storage.root, path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL) {
            Ok(_) => {
                self.unsynced().folders.insert(parent(path).unwrap_or_default().to_owned());
                Ok(())
            }
            Err(Errno::EXIST) => Ok(()),
            Err(why) => Err(self.trouble(Place::File(file), why)),
        }
    }

    fn make_link(&self, link: &SafePath, target: &SafePath) -> Result<(), Errno> {
        let folder = reach_folder(&self.storage.root, parent(link.as_str()).unwrap_or_default())?;
        match fs::symlinkat(target.as_seen_from(link), &folder, link.file_name()) {
            Err(Errno::EXIST) => Ok(()),
            answer => answer,
        }
    }

    /// Flushes files, then the folders that got new entries, so that a name never outlives its content.
    fn sync(&self, lane: &Lane) -> Result<(), Trouble> {
        let Unsynced { files, folders } = std::mem::take(&mut *self.unsynced());
        let result = self.sync_all(&files, &folders, lane);
        if result.is_err() {
            // Still to be flushed; the next one tries again.
            let mut unsynced = self.unsynced();
            unsynced.files.extend(files);
            unsynced.folders.extend(folders);
        }
        result
    }

    fn sync_all(
        &self,
        files: &BTreeSet<Place>,
        folders: &BTreeSet<String>,
        lane: &Lane,
    ) -> Result<(), Trouble> {
        for &place in files {
            let handle = self.handle(lane, place, false)?;
            handle.note_sync();
            fs::fdatasync(&*handle).map_err(|why| self.trouble(place, why))?;
        }
        for folder in folders {
            let path = || self.storage.root.join(folder);
            let opened = open_folder(&self.storage.root, folder, OFlags::RDONLY);
            match opened.and_then(|folder| fs::fsync(&folder)) {
                // Some file systems cannot flush a folder, and say so by INVAL.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(why) => return Err(trouble(path(), why)),
            }
        }
        Ok(())
    }

    /// Goes on where something cannot be deleted, and tells the first such.
    fn delete(&self) -> Result<(), Trouble> {
        let mut first = Ok(());
        let mut note = |result: Result<(), Trouble>| {
            if first.is_ok() {
                first = result;
            }
        };
        let mut folders = BTreeSet::new();
        for (at, file) in self.storage.meta.files().iter().enumerate().filter(|(_, file)| !file.pad) {
            let gone = self.unlink(&file.path, file.symlink.as_ref());
            note(gone.map_err(|why| self.trouble(Place::File(FileIndex(at as u32)), why)));
            let mut above = parent(file.path.as_str());
            while let Some(folder) = above.filter(|folder| folders.insert(*folder)) {
                above = parent(folder);
            }
        }
        note(unlink_part(self).map_err(|why| self.trouble(Place::Part, why)));
        // A folder sorts before what is in it.
        for folder in folders.into_iter().rev() {
            let gone = self.remove_folder(folder);
            note(gone.map_err(|why| trouble(self.storage.root.join(folder), why)));
        }
        *self.unsynced() = Unsynced::default();
        first
    }

    fn unlink(&self, path: &SafePath, target: Option<&SafePath>) -> Result<(), Errno> {
        let Some(folder) =
            there(reach_folder(&self.storage.root, parent(path.as_str()).unwrap_or_default()))?
        else {
            return Ok(());
        };
        let name = path.file_name();
        let Some(stat) = there(fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW))? else { return Ok(()) };
        let ours = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => target.is_none(),
            FileType::Symlink => target.is_some_and(|target| {
                let says = fs::readlinkat(&folder, name, Vec::new());
                says.is_ok_and(|says| {
                    says.to_bytes() == target.as_seen_from(path).as_os_str().as_encoded_bytes()
                })
            }),
            _ => false,
        };
        if ours { there(fs::unlinkat(&folder, name, AtFlags::empty())).map(|_| ()) } else { Ok(()) }
    }

    fn remove_folder(&self, folder: &str) -> Result<(), Errno> {
        let Some(above) = there(reach_folder(&self.storage.root, parent(folder).unwrap_or_default()))? else {
            return Ok(());
        };
        match fs::unlinkat(&above, name_of(folder), AtFlags::REMOVEDIR) {
            // Not empty, or not a folder: then it is not ours to take.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::BUSY) => Ok(()),
            answer => there(answer).map(|_| ()),
        }
    }
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What does not exist, or lies behind a link, is not there for us.
fn there<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Ok(it) => Ok(Some(it)),
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => Ok(None),
        Err(why) => Err(why),
    }
}

fn unlink_part(torrent: &Torrent) -> Result<(), Errno> {
    let part = &torrent.storage.part;
    let Some(stat) = there(fs::lstat(part))? else { return Ok(()) };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(());
    }
    there(fs::unlink(part)).map(|_| ())
}

fn stamp_of(stat: fs::Stat) -> FileStamp {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return FileStamp::default();
    }
    #[allow(clippy::unnecessary_cast, reason = "their width differs between systems")]
    let (seconds, nanos, inode) = (stat.st_mtime as i128, stat.st_mtime_nsec as i128, stat.st_ino as u64);
    FileStamp { len: u64::try_from(stat.st_size).ok(), mtime_nanos: seconds * 1_000_000_000 + nanos, inode }
}
