//! What there is to make a torrent of.
//!
//! Owns the walk over directories and the decision what a link, a hidden file or a socket is worth. Order, names and
//! limits are judged by `metainfo::create`.

use super::OfflineError;
use piecemeal_metainfo::DEPTH_MAX;
use piecemeal_metainfo::create::{Content, Files, NewFile};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

/// What to make of what is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanOptions {
    /// Take files and directories whose name begins with a dot, as other makers of torrents do: leaving them out
    /// breaks content that needs them.
    pub hidden: bool,
    /// What to do with symbolic links below the path. The path itself is always followed.
    pub symlinks: Symlinks,
}

impl Default for ScanOptions {
    fn default() -> ScanOptions {
        ScanOptions { hidden: true, symlinks: Symlinks::Keep }
    }
}

/// What to do with symbolic links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Symlinks {
    /// Those that lead to a file of the same torrent stay links (BEP 47); others are left out, with a warning.
    Keep,
    /// What they lead to is taken as if it stood in their place.
    Follow,
    /// They are left out, with a warning.
    Skip,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scanned {
    /// For `create::Plan`.
    pub content: Content,
    /// What was left out, and why.
    pub warnings: Vec<Warning>,
}

/// Something that was left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning {
    /// What.
    pub path: PathBuf,
    /// Why.
    pub what: &'static str,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: left out: {}", self.path.display(), self.what)
    }
}

/// Lists the file or directory at `path`.
///
/// # Errors
/// If something can not be read, has a name that is not UTF-8, or links lead in a circle. Nothing to share is not
/// noticed here but by the plan.
pub fn scan(path: &Path, options: ScanOptions) -> Result<Scanned, OfflineError> {
    let seen = fs::metadata(path).map_err(|why| file_error(path, why))?;
    let real = fs::canonicalize(path).map_err(|why| file_error(path, why))?;
    // `.`, `..` and `/` have no name of their own; what they lead to may.
    let name = path.file_name().or(real.file_name());
    let name = name.ok_or(OfflineError::Unfit { path: path.into(), what: "has no name" })?;
    let name = name.to_str().ok_or_else(|| not_text(path))?.to_owned();
    let mut walk = Walk { options, files: Vec::new(), links: Vec::new(), warnings: Vec::new() };
    let files = if seen.is_dir() {
        walk.directory(path, &mut Vec::new(), &mut vec![real.clone()])?;
        walk.keep_links(&real);
        walk.files.sort_by(|a, b| a.path.cmp(&b.path));
        Files::Many(walk.files)
    } else if seen.is_file() {
        Files::Single(new_file(vec![name.clone()], &seen))
    } else {
        return Err(OfflineError::Unfit { path: path.into(), what: "neither a file nor a directory" });
    };
    walk.warnings.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Scanned { content: Content { name, files }, warnings: walk.warnings })
}

struct Walk {
    options: ScanOptions,
    files: Vec<NewFile>,
    /// Links to be kept: where they are, and their components.
    links: Vec<(PathBuf, Vec<String>)>,
    warnings: Vec<Warning>,
}

impl Walk {
    /// `below` are the components of `at` below the root, `above` the real paths of the directories it is in.
    fn directory(
        &mut self,
        at: &Path,
        below: &mut Vec<String>,
        above: &mut Vec<PathBuf>,
    ) -> Result<(), OfflineError> {
        if below.len() >= DEPTH_MAX {
            return Err(OfflineError::Unfit { path: at.into(), what: "too deep" });
        }
        for entry in fs::read_dir(at).map_err(|why| file_error(at, why))? {
            let path = entry.map_err(|why| file_error(at, why))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| not_text(&path))?;
            if !self.options.hidden && name.starts_with('.') {
                continue;
            }
            below.push(name.to_owned());
            self.entry(path, below, above)?;
            below.pop();
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: PathBuf,
        below: &mut Vec<String>,
        above: &mut Vec<PathBuf>,
    ) -> Result<(), OfflineError> {
        let mut seen = fs::symlink_metadata(&path).map_err(|why| file_error(&path, why))?;
        let linked = seen.is_symlink();
        match self.options.symlinks {
            _ if !linked => {}
            Symlinks::Follow => seen = fs::metadata(&path).map_err(|why| file_error(&path, why))?,
            Symlinks::Keep => {
                self.links.push((path, below.clone()));
                return Ok(());
            }
            Symlinks::Skip => {
                self.warn(path, "a symbolic link");
                return Ok(());
            }
        }
        if seen.is_dir() {
            let real = if linked { fs::canonicalize(&path) } else { Ok(path.clone()) };
            let real = real.map_err(|why| file_error(&path, why))?;
            if linked && above.iter().any(|above| same(above, &real)) {
                return Err(OfflineError::Unfit { path, what: "a link that leads to a directory it is in" });
            }
            above.push(real);
            self.directory(&path, below, above)?;
            above.pop();
        } else if seen.is_file() {
            self.files.push(new_file(below.clone(), &seen));
        } else {
            self.warn(path, "neither a file nor a directory");
        }
        Ok(())
    }

    /// Once all files are known: a link must lead to one of them.
    fn keep_links(&mut self, real_root: &Path) {
        let known: BTreeSet<Vec<String>> = self.files.iter().map(|file| file.path.clone()).collect();
        for (path, below) in std::mem::take(&mut self.links) {
            let target =
                fs::canonicalize(&path).ok().and_then(|real| components(real.strip_prefix(real_root).ok()?));
            match target.filter(|target| known.contains(target)) {
                Some(target) => {
                    self.files.push(NewFile { path: below, symlink: Some(target), ..NewFile::default() });
                }
                None => self.warn(path, "a symbolic link that leads to no file of this torrent"),
            }
        }
    }

    fn warn(&mut self, path: PathBuf, what: &'static str) {
        self.warnings.push(Warning { path, what });
    }
}

fn components(path: &Path) -> Option<Vec<String>> {
    path.iter().map(|part| part.to_str().map(str::to_owned)).collect()
}

/// Whether two directories are one, by whichever of their names.
fn same(one: &Path, other: &Path) -> bool {
    one == other || fs::canonicalize(one).is_ok_and(|one| one == *other)
}

fn new_file(path: Vec<String>, seen: &Metadata) -> NewFile {
    NewFile { path, length: seen.len(), executable: is_executable(seen), ..NewFile::default() }
}

#[cfg(unix)]
fn is_executable(seen: &Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&seen.permissions()) & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &Metadata) -> bool {
    false
}

fn not_text(path: &Path) -> OfflineError {
    OfflineError::Unfit { path: path.into(), what: "its name is not UTF-8, which a torrent needs" }
}

fn file_error(path: &Path, why: io::Error) -> OfflineError {
    OfflineError::File { path: path.into(), why }
}
