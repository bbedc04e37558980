//! Content to swap, and whether two trees are the same byte for byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// The name of all content.
pub const NAME: &str = "content";
/// As many files as the issue of real peers asks for.
pub const MANY: usize = 3000;
/// Files in one folder.
const FOLDER_FILES: usize = 100;

/// How content is cut into files.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Shape {
    /// One file.
    One,
    /// Many small files in folders, some of them empty.
    Many,
}

/// Content with this shape, whose last piece has one byte.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Content {
    /// Its files.
    pub shape: Shape,
    /// Bytes a piece.
    pub piece_length: u64,
    /// Whole pieces before the last one.
    pub pieces: u64,
}

impl Content {
    /// Bytes in all.
    pub fn size(&self) -> u64 {
        self.piece_length * self.pieces + 1
    }

    /// `3000x1MiB`.
    pub fn name(&self) -> String {
        let files = if self.shape == Shape::One { 1 } else { MANY };
        format!("{files}x{}", size_name(self.piece_length))
    }

    /// Writes it to `dir/content`.
    pub fn make(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        let top = dir.join(NAME);
        let mut noise = Noise(self.piece_length ^ self.pieces.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15);
        if self.shape == Shape::One {
            return noise.write(&top, self.size());
        }
        let mut left = self.size();
        for index in 0..MANY {
            let folder = top.join(format!("folder {:02}", index / FOLDER_FILES));
            if index % FOLDER_FILES == 0 {
                fs::create_dir_all(&folder)?;
            }
            let mean = left / (MANY - index) as u64;
            let size = match index {
                _ if index + 1 == MANY => left,
                _ if index % 97 == 5 => 0,
                _ => (noise.next() % (2 * mean + 1)).min(left),
            };
            left -= size;
            noise.write(&folder.join(format!("file {index:04}.bin")), size)?;
        }
        Ok(())
    }
}

/// `16KiB`, `1MiB`.
pub fn size_name(bytes: u64) -> String {
    if bytes >= 1 << 20 { format!("{}MiB", bytes >> 20) } else { format!("{}KiB", bytes >> 10) }
}

/// Fails unless both directories hold the same content; names a file that differs.
pub fn same(a: &Path, b: &Path) -> Result<()> {
    compare(tree(a)?, tree(b)?, b)
}

/// The same for content whose empty files may be missing: not all programs care for them.
pub fn same_but_empty(a: &Path, b: &Path) -> Result<()> {
    let (mut wanted, mut found) = (tree(a)?, tree(b)?);
    for tree in [&mut wanted, &mut found] {
        tree.retain(|_, file| file.0 > 0);
    }
    compare(wanted, found, b)
}

type Tree = BTreeMap<PathBuf, (u64, String)>;

fn compare(wanted: Tree, found: Tree, b: &Path) -> Result<()> {
    let differs = |path: &&PathBuf| wanted.get(*path) != found.get(*path);
    let wrong: Vec<_> = wanted.keys().chain(found.keys()).filter(differs).collect();
    let Some(first) = wrong.first() else { return Ok(()) };
    let what = match (wanted.get(*first), found.get(*first)) {
        (Some(_), None) => "is missing".to_owned(),
        (None, _) => "is not in the torrent".to_owned(),
        (Some(wanted), Some(found)) if wanted.0 != found.0 => {
            format!("has {} of {} bytes", found.0, wanted.0)
        }
        _ => "differs".to_owned(),
    };
    bail!("{} {what}; {} of {} files wrong", b.join(first).display(), wrong.len(), wanted.len())
}

/// The files below `dir/content`: size and hash by path.
fn tree(dir: &Path) -> Result<Tree> {
    let mut paths = Vec::new();
    walk(&dir.join(NAME), &mut paths)?;
    let mut tree = BTreeMap::new();
    for path in paths {
        let mut hash = Sha256::new();
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        let bytes = io::copy(&mut &file, &mut HashWriter(&mut hash))?;
        tree.insert(path.strip_prefix(dir)?.to_owned(), (bytes, HEXLOWER.encode(&hash.finalize())));
    }
    Ok(tree)
}

/// The content of `from` in `to` as well, without copying it.
pub fn link(from: &Path, to: &Path) -> Result<()> {
    let mut paths = Vec::new();
    walk(&from.join(NAME), &mut paths)?;
    for path in paths {
        let copy = to.join(path.strip_prefix(from)?);
        if let Some(parent) = copy.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::hard_link(&path, &copy).with_context(|| copy.display().to_string())?;
    }
    Ok(())
}

fn walk(path: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        into.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        walk(&entry?.path(), into)?;
    }
    Ok(())
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that look random and are the same in every run: splitmix64.
pub struct Noise(pub u64);

impl Noise {
    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A file of them.
    pub fn write(&mut self, path: &Path, size: u64) -> Result<()> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let mut left = size;
        while left > 0 {
            let bytes = self.next().to_le_bytes();
            let take = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            out.write_all(&bytes[..take])?;
            left -= take as u64;
        }
        Ok(out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_piece_has_one_byte_and_every_byte_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for shape in [Shape::One, Shape::Many] {
            let content = Content { shape, piece_length: 16 << 10, pieces: 40 };
            assert_eq!(content.size() % content.piece_length, 1);
            content.make(&a).unwrap();
            let mut paths = Vec::new();
            walk(&a.join(NAME), &mut paths).unwrap();
            assert_eq!(paths.len(), if shape == Shape::One { 1 } else { MANY });
            let size: u64 = paths.iter().map(|path| path.metadata().unwrap().len()).sum();
            assert_eq!(size, content.size());
            content.make(&b).unwrap();
            same(&a, &b).unwrap();
            paths.sort();
            let last = b.join(paths.last().unwrap().strip_prefix(&a).unwrap());
            fs::OpenOptions::new().append(true).open(last).unwrap().write_all(b"x").unwrap();
            assert!(same(&a, &b).is_err());
            fs::remove_dir_all(b.join(NAME)).or_else(|_| fs::remove_file(b.join(NAME))).unwrap();
            link(&a, &b).unwrap();
            same(&a, &b).unwrap();
            for dir in [&a, &b] {
                fs::remove_dir_all(dir).unwrap();
            }
        }
    }
}
