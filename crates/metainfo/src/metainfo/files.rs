//! The files of an `info`: v1's list, v2's tree, and that both say the same in a hybrid.
//!
//! Owns lengths, offsets, pads, attributes (BEP 47), and that names go through [`SafePath`].

use super::error::{MetainfoError as Error, shown};
use super::{FILE_BYTES_END, FileEntry, Lint, TOTAL_BYTES_END, Version};
use crate::bencode::{Dict, Kind, Value};
use crate::merkle::Hash;
use crate::safe_path::resolve_duplicates;
use crate::{NameRules, SafePath};
use std::collections::BTreeMap;

/// Bytes of all names together. A v2 tree names a directory once however many files are in it, so that a small
/// tree could otherwise grow to gigabytes of paths.
const NAMES_MAX_BYTES: usize = 64 << 20;
/// Bytes of a raw name that are kept to be shown.
const RAW_MAX_BYTES: usize = 4096;

/// What the files come to.
pub(super) struct Content {
    pub(super) files: Vec<FileEntry>,
    /// Bytes, pads included; at least 1.
    pub(super) length: u64,
    pub(super) single_file: bool,
}

/// Reads the files of an `info` of that version.
pub(super) fn read(
    info: Value<'_>,
    name: &[u8],
    version: Version,
    piece_length: u32,
    lints: &mut Vec<Lint>,
) -> Result<Content, Error> {
    let mut list = List { name, piece_length: piece_length.into(), ..List::default() };
    let single_file = match version {
        Version::V2 => list.read_tree(info)?,
        Version::V1 | Version::Hybrid => list.read_v1(info, lints)?,
    };
    if list.files.iter().all(|file| file.pad || file.length == 0) {
        return Err(Error::value("info.length", "no bytes in all"));
    }
    if version == Version::Hybrid {
        list.compare_tree(info, single_file)?;
    }
    list.settle_names(lints)?;
    Ok(Content { files: list.files, length: list.length, single_file })
}

/// The letters of `attr` (BEP 47).
#[derive(Clone, Copy, Default)]
struct Attr {
    pad: bool,
    executable: bool,
    hidden: bool,
    symlink: bool,
}

impl Attr {
    fn of(dict: Value<'_>) -> Attr {
        let letters = dict.get_bytes(b"attr").unwrap_or_default();
        let has = |letter| letters.contains(&letter);
        Attr { pad: has(b'p'), executable: has(b'x'), hidden: has(b'h'), symlink: has(b'l') }
    }
}

/// The files so far.
#[derive(Default)]
struct List<'a> {
    name: &'a [u8],
    piece_length: u64,
    files: Vec<FileEntry>,
    length: u64,
    names_bytes: usize,
    /// Links whose targets are looked up when all files are known: file, and what it says.
    links: Vec<(usize, Option<SafePath>)>,
}

impl<'a> List<'a> {
    /// `length`, or `files`. Whether it is a single file.
    fn read_v1(&mut self, info: Value<'a>, lints: &mut Vec<Lint>) -> Result<bool, Error> {
        let Some(files) = info.get(b"files") else {
            let field = || "info".to_owned();
            self.push(&[], info, Attr::of(info), &field)?;
            return Ok(true);
        };
        if info.get(b"length").is_some() {
            lints.push(Lint::LengthAndFiles);
        }
        let files = files.as_list().ok_or_else(|| Error::kind("info.files", "a list"))?;
        let mut path = Vec::new();
        for (at, file) in files.enumerate() {
            let field = || format!("info.files[{at}]");
            if file.kind() != Kind::Dict {
                return Err(Error::kind(field(), "a dictionary"));
            }
            v1_path(file, &mut path, &field)?;
            self.push(&path, file, Attr::of(file), &field)?;
        }
        Ok(false)
    }

    /// `file tree`, with pads where the next file would not be aligned. Whether it is a single file.
    fn read_tree(&mut self, info: Value<'a>) -> Result<bool, Error> {
        let tree = tree_of(info)?;
        let single_file = is_single(tree, self.name);
        walk(tree, |path, leaf| {
            let field = || tree_field(path);
            self.align()?;
            let attr = Attr::of(leaf);
            if attr.pad {
                return Err(Error::value(field(), "a pad in a v2 tree"));
            }
            self.push(if single_file { &[] } else { path }, leaf, attr, &field)?;
            let root = pieces_root(leaf, &field)?;
            self.set_root(self.files.len() - 1, root, &field)
        })?;
        Ok(single_file)
    }

    /// That the tree of a hybrid has the files of its list, and the list is padded as the tree demands.
    fn compare_tree(&mut self, info: Value<'a>, single_file: bool) -> Result<(), Error> {
        let differs = |field: String| Error::value(field, "differs from the v1 files");
        let mut v1 = info.get(b"files").and_then(|files| files.as_list()).into_iter().flatten();
        let (mut at, mut aligned) = (0, 0);
        let mut v1_names = Vec::new();
        walk(tree_of(info)?, |path, leaf| {
            let field = || tree_field(path);
            while self.files.get(at).is_some_and(|file| file.pad) {
                at += 1;
                v1.next();
            }
            let Some(file) = self.files.get(at) else { return Err(differs(field())) };
            let same_name = if single_file {
                path == [self.name]
            } else {
                let file = v1.next().ok_or_else(|| differs(field()))?;
                v1_path(file, &mut v1_names, &field)?;
                v1_names == path
            };
            let attr = Attr::of(leaf);
            let length = length_of(leaf, attr, &field)?;
            let is_link = self.links.binary_search_by_key(&at, |(link, _)| *link).is_ok();
            if !same_name || length != file.length || attr.symlink != is_link || attr.pad {
                return Err(differs(field()));
            }
            if length > 0 && file.offset != aligned {
                return Err(Error::value(field(), "not aligned to a piece in the v1 files"));
            }
            aligned = (file.offset + length).next_multiple_of(self.piece_length).max(aligned);
            let root = pieces_root(leaf, &field)?;
            self.set_root(at, root, &field)?;
            at += 1;
            Ok(())
        })?;
        if self.files[at..].iter().any(|file| !file.pad) {
            return Err(differs("info.file tree".to_owned()));
        }
        if self.length > aligned {
            return Err(Error::value("info.files", "pads reach past the last piece"));
        }
        Ok(())
    }

    /// One more entry; an empty `path` is the torrent's name itself.
    fn push(
        &mut self,
        path: &[&[u8]],
        dict: Value<'_>,
        attr: Attr,
        field: &dyn Fn() -> String,
    ) -> Result<(), Error> {
        let length = length_of(dict, attr, field)?;
        let raw = || std::iter::once(self.name).chain(path.iter().copied());
        let bad_path = |why| Error::Path { field: format!("{}.path", field()), why };
        let safe = SafePath::from_components(raw(), NameRules::NATIVE).map_err(bad_path)?;
        let changed = !safe.components().map(str::as_bytes).eq(raw());
        let raw_path = changed.then(|| join_raw(raw()));
        if attr.symlink && !attr.pad {
            self.links.push((self.files.len(), self.link_target(dict)));
        }
        self.names_bytes += safe.as_str().len() + raw_path.as_ref().map_or(0, |raw| raw.len());
        if self.names_bytes > NAMES_MAX_BYTES {
            let (value, limit) = (self.names_bytes as u64, NAMES_MAX_BYTES as u64);
            return Err(Error::too_much("info: bytes of all file names", value, limit));
        }
        let (executable, hidden) = (attr.executable, attr.hidden);
        let entry =
            FileEntry { raw_path, pad: attr.pad, executable, hidden, ..blank(safe, self.length, length) };
        self.add(entry)
    }

    fn add(&mut self, entry: FileEntry) -> Result<(), Error> {
        // Both are below 2^48 here, so the sum can not overflow.
        self.length += entry.length;
        if self.length >= TOTAL_BYTES_END {
            return Err(Error::too_much("info: bytes of all files", self.length, TOTAL_BYTES_END - 1));
        }
        self.files.push(entry);
        Ok(())
    }

    /// A pad up to the next piece, if one is needed.
    fn align(&mut self) -> Result<(), Error> {
        let length = self.length.next_multiple_of(self.piece_length) - self.length;
        if length == 0 {
            return Ok(());
        }
        let text = length.to_string();
        let parts = [self.name, b".pad", text.as_bytes()];
        let path = SafePath::from_components(parts, NameRules::NATIVE)
            .map_err(|why| Error::Path { field: "info.name".to_owned(), why })?;
        self.add(FileEntry { pad: true, ..blank(path, self.length, length) })
    }

    fn set_root(&mut self, at: usize, root: Option<Hash>, field: &dyn Fn() -> String) -> Result<(), Error> {
        let file = &mut self.files[at];
        file.pieces_root = if file.length == 0 { None } else { root };
        if file.length > 0 && root.is_none() {
            return Err(Error::missing(format!("{}.pieces root", field())));
        }
        Ok(())
    }

    fn link_target(&self, dict: Value<'_>) -> Option<SafePath> {
        let parts = dict.get(b"symlink path")?.as_list()?;
        let parts: Option<Vec<&[u8]>> = parts.map(|part| part.as_bytes()).collect();
        let path = std::iter::once(self.name).chain(parts?);
        SafePath::from_components(path, NameRules::NATIVE).ok()
    }

    /// Makes the names differ, and lets links lead only to a plain file of this torrent.
    fn settle_names(&mut self, lints: &mut Vec<Lint>) -> Result<(), Error> {
        let targets = self.find_targets();
        let mut on_disk: Vec<&mut SafePath> =
            self.files.iter_mut().filter(|file| !file.pad).map(|file| &mut file.path).collect();
        let before: usize = on_disk.len();
        let renamed = resolve_duplicates(&mut on_disk)
            .map_err(|why| Error::Path { field: "info: file names".to_owned(), why })?;
        debug_assert!(renamed.len() <= before, "more renamed than there are");
        let mut dropped = 0;
        for ((link, _), target) in self.links.iter().zip(targets) {
            dropped += usize::from(target.is_none());
            self.files[*link].symlink = target.map(|target| self.files[target].path.clone());
        }
        if dropped > 0 {
            lints.push(Lint::LinkDropped { files: dropped });
        }
        let unsafe_names = self.files.iter().filter(|file| !file.pad && file.raw_path.is_some()).count();
        if unsafe_names + renamed.len() > 0 {
            lints.push(Lint::Renamed { files: unsafe_names + renamed.len() });
        }
        Ok(())
    }

    /// The file each link leads to, by the names before double ones were changed.
    fn find_targets(&self) -> Vec<Option<usize>> {
        if self.links.is_empty() {
            return Vec::new();
        }
        let mut plain: BTreeMap<&SafePath, usize> = BTreeMap::new();
        for (at, file) in self.files.iter().enumerate().filter(|(_, file)| !file.pad) {
            if self.links.binary_search_by_key(&at, |(link, _)| *link).is_err() {
                plain.entry(&file.path).or_insert(at);
            }
        }
        self.links
            .iter()
            .map(|(_, target)| target.as_ref().and_then(|path| plain.get(path).copied()))
            .collect()
    }
}

fn blank(path: SafePath, offset: u64, length: u64) -> FileEntry {
    let (pad, executable, hidden) = (false, false, false);
    let (raw_path, symlink, pieces_root) = (None, None, None);
    FileEntry { path, raw_path, offset, length, pad, executable, hidden, symlink, pieces_root }
}

fn join_raw<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Box<[u8]> {
    let mut joined = Vec::new();
    for (at, part) in parts.enumerate() {
        if at > 0 {
            joined.push(b'/');
        }
        joined.extend_from_slice(&part[..part.len().min(RAW_MAX_BYTES)]);
        joined.truncate(RAW_MAX_BYTES);
    }
    joined.into()
}

fn length_of(dict: Value<'_>, attr: Attr, field: &dyn Fn() -> String) -> Result<u64, Error> {
    let field = || format!("{}.length", field());
    let Some(value) = dict.get(b"length") else {
        return if attr.symlink { Ok(0) } else { Err(Error::missing(field())) };
    };
    let length = value.as_int().ok_or_else(|| Error::kind(field(), "an integer"))?;
    let length = u64::try_from(length).map_err(|_| Error::value(field(), "negative"))?;
    if length >= FILE_BYTES_END {
        return Err(Error::too_much(field(), length, FILE_BYTES_END - 1));
    }
    if attr.symlink && length > 0 {
        return Err(Error::value(field(), "a link with bytes of its own"));
    }
    Ok(length)
}

fn v1_path<'a>(file: Value<'a>, path: &mut Vec<&'a [u8]>, field: &dyn Fn() -> String) -> Result<(), Error> {
    let value = file.get(b"path.utf-8").or(file.get(b"path"));
    let value = value.ok_or_else(|| Error::missing(format!("{}.path", field())))?;
    let wrong = || Error::kind(format!("{}.path", field()), "a list of strings, not empty");
    path.clear();
    for part in value.as_list().ok_or_else(wrong)? {
        path.push(part.as_bytes().ok_or_else(wrong)?);
    }
    if path.is_empty() { Err(wrong()) } else { Ok(()) }
}

fn pieces_root(leaf: Value<'_>, field: &dyn Fn() -> String) -> Result<Option<Hash>, Error> {
    let Some(value) = leaf.get(b"pieces root") else { return Ok(None) };
    let field = || format!("{}.pieces root", field());
    let root: Option<Hash> = value.as_bytes().and_then(|bytes| bytes.try_into().ok());
    let root = root.ok_or_else(|| Error::kind(field(), "a string of 32 bytes"))?;
    if root == [0; 32] { Err(Error::value(field(), "all zeros")) } else { Ok(Some(root)) }
}

fn tree_of(info: Value<'_>) -> Result<Value<'_>, Error> {
    let tree = info.get(b"file tree").ok_or_else(|| Error::missing("info.file tree"))?;
    if tree.kind() == Kind::Dict { Ok(tree) } else { Err(Error::kind("info.file tree", "a dictionary")) }
}

fn tree_field(path: &[&[u8]]) -> String {
    format!("info.file tree/{}", shown(&path.join(&b'/')))
}

/// One file at the top, with the torrent's own name (BEP 52, "name").
fn is_single(tree: Value<'_>, name: &[u8]) -> bool {
    let mut entries = tree.as_dict().into_iter().flatten();
    let first = entries.next();
    entries.next().is_none() && first.is_some_and(|(key, entry)| key == name && entry.get(b"").is_some())
}

/// Calls `leaf` for every file of a v2 tree, with its path, in the order of the tree. The depth of the tree is
/// bounded by that of the bencoding.
fn walk<'a>(
    tree: Value<'a>,
    mut leaf: impl FnMut(&[&'a [u8]], Value<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut open: Vec<Dict<'a>> = tree.as_dict().into_iter().collect();
    let mut path: Vec<&[u8]> = Vec::new();
    while let Some(entries) = open.last_mut() {
        let Some((name, entry)) = entries.next() else {
            open.pop();
            path.pop();
            continue;
        };
        path.push(name);
        let inside = entry.as_dict().ok_or_else(|| Error::kind(tree_field(&path), "a dictionary"))?;
        if name.is_empty() {
            return Err(Error::value(tree_field(&path), "an empty name"));
        }
        let mut keys = inside;
        match keys.next() {
            Some((b"", file)) => {
                if keys.next().is_some() {
                    return Err(Error::value(tree_field(&path), "a file and a directory at once"));
                }
                if file.kind() != Kind::Dict {
                    return Err(Error::kind(tree_field(&path), "a dictionary"));
                }
                leaf(&path, file)?;
                path.pop();
            }
            _ => open.push(inside),
        }
    }
    Ok(())
}
