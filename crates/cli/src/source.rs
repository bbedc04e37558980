//! Where torrents come from, and where new ones are written.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use piecemeal_api::{NetOptions, Tools};
use piecemeal_metainfo::Metainfo;

use crate::fail::Failure;
use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::seek::Link;
use crate::text;

/// The largest .torrent file read: beyond what the most pieces and files that `metainfo` takes can need.
const MAX_TORRENT_BYTES: u64 = 128 << 20;

/// A torrent as read: its bytes, and what they say.
#[derive(Clone, Debug)]
pub struct Torrent {
    /// The .torrent file.
    pub bytes: Arc<[u8]>,
    /// What it says.
    pub metainfo: Arc<Metainfo>,
}

/// What a word of the command line names.
pub enum Source {
    /// A torrent that was read.
    Torrent(Torrent),
    /// A link, whose torrent is still to be found.
    Link(Link),
}

impl Source {
    /// A .torrent file, the address of one, or a magnet link.
    pub fn read(
        source: &OsStr,
        net: &NetOptions,
        host: &Host,
        tools: &dyn Tools,
        stop: &Interrupt,
    ) -> Result<Source, Failure> {
        match source.to_str() {
            Some(text) if is_magnet(text) => Link::parse(text).map(Source::Link),
            _ => Torrent::from_source(source, net, host, tools, stop).map(Source::Torrent),
        }
    }
}

impl Torrent {
    /// Judges bytes; `what` is the file or address they came from.
    pub fn parse(bytes: impl Into<Arc<[u8]>>, what: &str) -> Result<Torrent, Failure> {
        let bytes = bytes.into();
        let parsed = Metainfo::parse(&bytes);
        let metainfo = parsed.map_err(|why| {
            Failure::failed(
                what,
                format_args!("no usable torrent: {why}"),
                "get the file again, or another one",
            )
        })?;
        Ok(Torrent { bytes, metainfo: Arc::new(metainfo) })
    }

    /// A .torrent file.
    pub fn read(path: &Path) -> Result<Torrent, Failure> {
        let what = path.display().to_string();
        let unreadable = |why: io::Error| Failure::failed(&what, reason(&why), "check the path");
        if path.is_dir() {
            return Err(Failure::failed(
                &what,
                "is a directory, not a .torrent file",
                "give the .torrent file itself",
            ));
        }
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_TORRENT_BYTES + 1).read_to_end(&mut bytes))
            .map_err(unreadable)?;
        if bytes.len() as u64 > MAX_TORRENT_BYTES {
            return Err(Failure::failed(
                &what,
                "is too large for a .torrent file",
                "give the .torrent file itself",
            ));
        }
        Torrent::parse(bytes, &what)
    }

    /// A .torrent file, or the address of one.
    fn from_source(
        source: &OsStr,
        net: &NetOptions,
        host: &Host,
        tools: &dyn Tools,
        stop: &Interrupt,
    ) -> Result<Torrent, Failure> {
        let Some(text) = source.to_str() else { return Torrent::read(&host.at(Path::new(source))) };
        match text.split_once("://") {
            Some((scheme, _)) if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
                Torrent::parse(tools.fetch_torrent(text, net, stop.cancel())?, text)
            }
            Some((scheme, _)) if !host.at(Path::new(source)).exists() => Err(Failure::failed(
                text,
                format_args!("cannot fetch from {scheme}://"),
                "give an http or https address, or a file",
            )),
            _ => Torrent::read(&host.at(Path::new(source))),
        }
    }

    /// Its name, safe to print.
    pub fn name(&self) -> String {
        text::safe(self.metainfo.info().name.as_str())
    }

    /// Where its content lies when it lives in `dir`.
    pub fn place(&self, dir: &Path) -> PathBuf {
        self.metainfo.info().name.join_to(dir)
    }
}

/// Whether a word of the command line is a magnet link.
pub fn is_magnet(text: &str) -> bool {
    text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("magnet:"))
}

/// Writes `bytes` to `path` so that either the whole file is there or nothing. Without `replace`, a file that is there
/// already is left alone and refused.
pub fn write_new(path: &Path, bytes: &[u8], replace: bool) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = Part(path.with_file_name(format!(".{name}.{}.part", std::process::id())));
    let failed =
        |why: io::Error| Failure::failed(path.display(), reason(&why), "choose another place with -o");
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&part.0)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(failed)?;
    if replace {
        return fs::rename(&part.0, path).map_err(failed);
    }
    // A hard link, unlike a rename, fails when the name is taken.
    match fs::hard_link(&part.0, path) {
        Ok(()) => Ok(()),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Err(taken(path)),
        Err(_) if path.symlink_metadata().is_ok() => Err(taken(path)),
        // No hard links on this file system.
        Err(_) => fs::rename(&part.0, path).map_err(failed),
    }
}

/// The error for an output that is there already.
pub fn taken(path: &Path) -> Failure {
    Failure::failed(path.display(), "exists already", "move it, use --force, or choose another name with -o")
}

/// An error of the system in a few words, without its number.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "not found".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or_default().to_owned()
        }
    }
}

/// A file that is removed again unless it was renamed away.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn whole_or_nothing_and_never_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.torrent");
        write_new(&path, b"one", false).unwrap();
        assert!(matches!(write_new(&path, b"two", false), Err(Failure::Failed(_))));
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_new(&path, b"two", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["a.torrent"]);
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(write_new(&dir.path().join("d"), b"x", true).is_err());
        assert!(write_new(&dir.path().join("none/x"), b"x", false).is_err());
        assert_eq!(names(dir.path()), ["a.torrent", "d"]);
    }

    #[test]
    fn what_is_no_torrent_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("junk"), b"junk").unwrap();
        for (name, word) in [("none", "not found"), ("junk", "no usable torrent"), (".", "directory")] {
            let Err(Failure::Failed(line)) = Torrent::read(&dir.path().join(name)) else { panic!("{name}") };
            assert!(line.contains(word) && line.contains("; "), "{line}");
        }
    }
}
