//! Planning a new torrent: from a list of files to what must be read and hashed, and from the hashes to the bytes
//! of a .torrent (BEP 3, 27, 47, 52).
//!
//! Owns order, pads, piece length and the final document. Listing directories, reading and hashing are left to
//! whoever holds a disk: read the [`Plan::piece_spans`] of every piece through one SHA-1 each, and every one of
//! [`Plan::hashed_files`] through one [`crate::merkle::FileHasher`] each; one pass can feed both. Reading the plan
//! back with [`crate::Metainfo::parse`] gives the same files, or the plan would not have been made; only names that
//! differ in nothing but case are changed by readers.

use crate::bencode::Bencode;
use crate::merkle::{Hash, LEAF_BYTES};
use crate::metainfo::{
    FILE_BYTES_END, MAX_PIECE_BYTES, MAX_PIECES, MetainfoError, Outer, TOTAL_BYTES_END, Version,
};
use crate::{Metainfo, NameRules, SafePath};
use std::collections::{BTreeMap, BTreeSet};

/// An automatic piece length gives at most so many pieces, and so at least half as many: a torrent of some 40 kB,
/// and a first piece soon.
const AUTO_PIECES: u64 = 2_000;
/// Smallest automatic piece length: one block.
const AUTO_MIN_BYTES: u32 = LEAF_BYTES;
/// Largest automatic piece length, as long as there are no more than [`AUTO_MANY_PIECES`]; many programs hash and
/// keep whole pieces.
const AUTO_MAX_BYTES: u32 = 16 << 20;
/// With more pieces the torrent itself gets too large to be loaded everywhere, and pieces grow up to
/// [`AUTO_LAST_BYTES`].
const AUTO_MANY_PIECES: u64 = 100_000;
/// Largest power of two below [`MAX_PIECE_BYTES`].
const AUTO_LAST_BYTES: u32 = 256 << 20;
/// Of the 10 MiB that a torrent file may have (`Limits::TORRENT`), what the hashes of pieces may take.
const HASHES_MAX_BYTES: u64 = 9 << 20;

/// What to share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// Name of the file or directory.
    pub name: String,
    /// What is in it.
    pub files: Files,
}

/// One file, or a directory of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Files {
    /// `name` is a file of this length; the path of the entry is ignored.
    Single(NewFile),
    /// `name` is a directory.
    Many(Vec<NewFile>),
}

/// A file to share.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NewFile {
    /// Components below the torrent's directory.
    pub path: Vec<String>,
    /// Bytes; 0 for a link.
    pub length: u64,
    /// BEP 47 `x`.
    pub executable: bool,
    /// BEP 47 `h`.
    pub hidden: bool,
    /// BEP 47 `l`: the components, below the torrent's directory, of the file that this one is a link to.
    pub symlink: Option<Vec<String>>,
}

/// How to share it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Which hashes to make.
    pub version: Version,
    /// Bytes of a piece; `None` chooses.
    pub piece_length: Option<u32>,
    /// Peers come from the trackers alone (BEP 27).
    pub private: bool,
    /// `source` of private trackers.
    pub source: Option<String>,
    /// The root certificate, in PEM, by which its peers know each other.
    pub tls_root: Option<String>,
    /// Free text.
    pub comment: Option<String>,
    /// Announce URLs in tiers (BEP 12).
    pub trackers: Vec<Vec<String>>,
    /// HTTP sources (BEP 19).
    pub web_seeds: Vec<String>,
    /// DHT nodes (BEP 5).
    pub nodes: Vec<(String, u16)>,
    /// The program's name.
    pub created_by: Option<String>,
    /// Seconds since 1970; `None` leaves it out.
    pub creation_date: Option<i64>,
}

impl Options {
    /// Nothing but the version.
    pub fn new(version: Version) -> Options {
        Options {
            version,
            piece_length: None,
            private: false,
            source: None,
            tls_root: None,
            comment: None,
            trackers: Vec::new(),
            web_seeds: Vec::new(),
            nodes: Vec::new(),
            created_by: None,
            creation_date: None,
        }
    }
}

/// Why no torrent can be made of this.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CreateError {
    /// Nothing to share.
    #[error("there are no bytes to share")]
    NoContent,
    /// A name that those who read the torrent would have to change.
    #[error("{0:?} can not be a name in a torrent")]
    BadName(String),
    /// Two files in one place, or a file where a directory is.
    #[error("{0:?} is there twice")]
    Twice(String),
    /// A directory whose only file has its name: v2 can not tell it from the file alone (BEP 52).
    #[error("a directory that only holds a file of its own name, {0:?}, can not be a v2 torrent")]
    Ambiguous(String),
    /// A link that leads nowhere in this torrent, or has bytes.
    #[error("{0:?} is a link, but not to a file of this torrent")]
    BadLink(String),
    /// A piece length that the version does not allow.
    #[error("piece length {0} is not allowed: from 16384 to {MAX_PIECE_BYTES}, and for v2 a power of two")]
    PieceLength(u32),
    /// Too large, or pieces too small.
    #[error("{pieces} pieces are too many, the limit is {limit}; use larger pieces")]
    TooManyPieces {
        /// How many there would be.
        pieces: u64,
        /// How many there may be.
        limit: u64,
    },
    /// A file, or all of them, beyond the limits of this program.
    #[error("{0:?} is too large")]
    TooLarge(String),
    /// The hashes given do not fit the plan.
    #[error("hashes do not fit the plan: {0}")]
    Hashes(&'static str),
    /// The finished torrent is not one this program would load; its one line says why.
    #[error("the torrent would not load: {0}")]
    Unreadable(#[from] MetainfoError),
}

/// One entry of the torrent to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedFile {
    /// Which of the files given; `None` for a pad.
    pub source: Option<usize>,
    /// First byte in the torrent's byte space.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// Bytes to be hashed, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Span {
    /// From one of the files given.
    File {
        /// Which, by its place in the list given.
        source: usize,
        /// First byte in the file.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// Zeros that stand for a pad.
    Zeros(u32),
}

/// A torrent that only lacks its hashes.
#[derive(Clone, Debug)]
pub struct Plan {
    name: String,
    single: bool,
    sources: Vec<NewFile>,
    options: Options,
    piece_length: u32,
    entries: Vec<PlannedFile>,
    length: u64,
}

impl Plan {
    /// Puts the files in the order the version demands and checks that a torrent of them can be read again.
    pub fn new(content: Content, options: Options) -> Result<Plan, CreateError> {
        let (single, sources) = match content.files {
            Files::Single(file) => (true, vec![NewFile { path: vec![content.name.clone()], ..file }]),
            Files::Many(files) => (false, files),
        };
        check_name(&content.name)?;
        check_files(&content.name, &sources, single)?;
        let total = sources.iter().fold(0u64, |sum, file| sum.saturating_add(file.length));
        if options.version.has_v2()
            && !single
            && sources.len() == 1
            && sources[0].path == [content.name.as_str()]
        {
            return Err(CreateError::Ambiguous(content.name));
        }
        let piece_length = options.piece_length.unwrap_or_else(|| auto_piece_length(total));
        let power = piece_length.is_power_of_two() || !options.version.has_v2();
        if !power || !(LEAF_BYTES..=MAX_PIECE_BYTES).contains(&piece_length) {
            return Err(CreateError::PieceLength(piece_length));
        }
        let (name, entries) = (content.name, Vec::new());
        let mut plan = Plan { name, single, sources, options, piece_length, entries, length: 0 };
        plan.lay_out()?;
        Ok(plan)
    }

    /// Bytes of a piece.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// How many pieces; for v1 and hybrid so many SHA-1 hashes are wanted.
    pub fn pieces(&self) -> u32 {
        self.length.div_ceil(self.piece_length.into()) as u32
    }

    /// Bytes of the content, without pads.
    pub fn content_length(&self) -> u64 {
        self.sources.iter().map(|file| file.length).sum()
    }

    /// Which hashes are wanted.
    pub fn version(&self) -> Version {
        self.options.version
    }

    /// The files given, as [`Span::File`] and [`PlannedFile::source`] number them.
    pub fn sources(&self) -> &[NewFile] {
        &self.sources
    }

    /// Files and pads in the order of the torrent.
    pub fn entries(&self) -> &[PlannedFile] {
        &self.entries
    }

    /// What to read and hash for one piece, in order: for v1 and hybrid together with the zeros, for v2 the bytes
    /// of its one file without them. Empty beyond the end.
    pub fn piece_spans(&self, piece: u32) -> Vec<Span> {
        let start = u64::from(piece) * u64::from(self.piece_length);
        let end = (start + u64::from(self.piece_length)).min(self.length);
        let first = self.entries.partition_point(|entry| entry.offset + entry.length <= start);
        let inside = self.entries[first..].iter().take_while(|entry| entry.offset < end);
        let span = |entry: &PlannedFile| {
            let from = start.max(entry.offset);
            let len = end.min(entry.offset + entry.length).saturating_sub(from) as u32;
            match entry.source {
                _ if len == 0 => None,
                Some(source) => Some(Span::File { source, offset: from - entry.offset, len }),
                None => self.options.version.has_v1().then_some(Span::Zeros(len)),
            }
        };
        inside.filter_map(span).collect()
    }

    /// The files that want a merkle tree, in the order of the torrent, by their place in the list given; none for
    /// v1.
    pub fn hashed_files(&self) -> impl Iterator<Item = usize> + '_ {
        let files = self.entries.iter().filter(|entry| entry.length > 0 && self.options.version.has_v2());
        files.filter_map(|entry| entry.source)
    }

    /// The .torrent. `v1`: the SHA-1 of every piece, none for v2. `v2`: root and piece layer (empty for a file of
    /// at most one piece) of each of [`Plan::hashed_files`], in that order.
    pub fn finish(&self, v1: &[[u8; 20]], v2: &[(Hash, Vec<Hash>)]) -> Result<Vec<u8>, CreateError> {
        let want = if self.options.version.has_v1() { self.pieces() as usize } else { 0 };
        if v1.len() != want {
            return Err(CreateError::Hashes("not one SHA-1 a piece"));
        }
        if v2.len() != self.hashed_files().count() {
            return Err(CreateError::Hashes("not one root a file"));
        }
        let roots: BTreeMap<usize, Hash> =
            self.hashed_files().zip(v2.iter().map(|(root, _)| *root)).collect();
        let raw_info = self.info(v1, &roots).encode();
        let layers = v2.iter().filter(|(_, layer)| !layer.is_empty()).cloned().collect();
        let outer = Outer {
            raw_info: &raw_info,
            trackers: &self.options.trackers,
            web_seeds: &self.options.web_seeds,
            nodes: &self.options.nodes,
            comment: self.options.comment.as_deref(),
            created_by: self.options.created_by.as_deref(),
            creation_date: self.options.creation_date,
            layers: self.options.version.has_v2().then_some(&layers),
            extra: None,
        };
        let bytes = outer.to_bytes();
        let read = Metainfo::parse(&bytes)?;
        if read.missing_layers().next().is_some() {
            return Err(CreateError::Hashes("a piece layer is missing"));
        }
        Ok(bytes)
    }

    /// Order, offsets and pads.
    fn lay_out(&mut self) -> Result<(), CreateError> {
        // By the raw bytes of the components: the order of a v2 tree, which a hybrid's list must share (BEP 52).
        let mut order: Vec<usize> = (0..self.sources.len()).collect();
        order.sort_by(|a, b| self.sources[*a].path.cmp(&self.sources[*b].path));
        let piece = u64::from(self.piece_length);
        for source in order {
            let pad = self.length.next_multiple_of(piece) - self.length;
            if pad > 0 && self.options.version.has_v2() {
                self.push(None, pad)?;
            }
            self.push(Some(source), self.sources[source].length)?;
        }
        let pieces = self.length.div_ceil(piece);
        let version = self.options.version;
        let hashes = 20 * u64::from(version.has_v1()) + 32 * u64::from(version.has_v2());
        let limit = (HASHES_MAX_BYTES / hashes).min(MAX_PIECES.into());
        if pieces > limit { Err(CreateError::TooManyPieces { pieces, limit }) } else { Ok(()) }
    }

    fn push(&mut self, source: Option<usize>, length: u64) -> Result<(), CreateError> {
        self.entries.push(PlannedFile { source, offset: self.length, length });
        self.length += length;
        if self.length >= TOTAL_BYTES_END { Err(CreateError::TooLarge(self.name.clone())) } else { Ok(()) }
    }

    fn info(&self, v1: &[[u8; 20]], roots: &BTreeMap<usize, Hash>) -> Bencode {
        let mut info = Bencode::dict()
            .with("name", self.name.as_str())
            .with("piece length", i64::from(self.piece_length));
        if self.options.private {
            info = info.with("private", 1);
        }
        if let Some(source) = &self.options.source {
            info = info.with("source", source.as_str());
        }
        if let Some(root) = &self.options.tls_root {
            info = info.with("ssl-cert", root.as_str());
        }
        if self.options.version.has_v1() {
            info = info.with("pieces", v1.concat());
            info = match self.single {
                true => attributes(info.with("length", self.length as i64), &self.sources[0]),
                false => info
                    .with("files", self.entries.iter().map(|entry| self.v1_file(entry)).collect::<Vec<_>>()),
            };
        }
        if self.options.version.has_v2() {
            info = info.with("meta version", 2).with("file tree", self.tree(roots));
        }
        info
    }

    fn v1_file(&self, entry: &PlannedFile) -> Bencode {
        let dict = Bencode::dict().with("length", entry.length as i64);
        match entry.source {
            Some(source) => {
                let file = &self.sources[source];
                attributes(dict.with("path", strings(&file.path)), file)
            }
            None => {
                dict.with("attr", "p").with("path", strings(&[".pad".to_owned(), entry.length.to_string()]))
            }
        }
    }

    fn tree(&self, roots: &BTreeMap<usize, Hash>) -> Bencode {
        let mut tree = Bencode::dict();
        for (at, file) in self.sources.iter().enumerate() {
            let mut leaf = Bencode::dict();
            // A link has no length in the tree; libtorrent writes none either.
            if file.symlink.is_none() {
                leaf = leaf.with("length", file.length as i64);
            }
            if let Some(root) = roots.get(&at) {
                leaf = leaf.with("pieces root", &root[..]);
            }
            let leaf = Bencode::dict().with("", attributes(leaf, file));
            let mut place = &mut tree;
            for component in &file.path {
                let Bencode::Dict(entries) = place else { break };
                place = entries.entry(component.as_bytes().to_vec()).or_insert_with(Bencode::dict);
            }
            *place = leaf;
        }
        tree
    }
}

/// The power of two that cuts `total` bytes into 1000 to 2000 pieces, between 16 KiB and 16 MiB; more only for what
/// would else be more than 100 000 pieces.
pub fn auto_piece_length(total: u64) -> u32 {
    let mut length = AUTO_MIN_BYTES;
    loop {
        let pieces = total.div_ceil(length.into());
        let small = length < AUTO_MAX_BYTES && pieces > AUTO_PIECES;
        let many = length < AUTO_LAST_BYTES && pieces > AUTO_MANY_PIECES;
        if !small && !many {
            return length;
        }
        length *= 2;
    }
}

fn strings(list: &[String]) -> Vec<Bencode> {
    list.iter().map(|text| text.as_str().into()).collect()
}

fn attributes(dict: Bencode, file: &NewFile) -> Bencode {
    let letters = [(file.executable, 'x'), (file.hidden, 'h'), (file.symlink.is_some(), 'l')];
    let attr: String = letters.iter().filter(|(is, _)| *is).map(|(_, letter)| *letter).collect();
    let dict = if attr.is_empty() { dict } else { dict.with("attr", attr.as_str()) };
    match &file.symlink {
        Some(target) => dict.with("symlink path", strings(target)),
        None => dict,
    }
}

fn check_name(name: &str) -> Result<(), CreateError> {
    if SafePath::from_name(name.as_bytes(), NameRules::Unix).as_str() == name {
        Ok(())
    } else {
        Err(CreateError::BadName(name.to_owned()))
    }
}

fn check_files(root: &str, files: &[NewFile], single: bool) -> Result<(), CreateError> {
    let mut paths: BTreeSet<&[String]> = BTreeSet::new();
    for file in files {
        let shown = || file.path.join("/");
        file.path.iter().try_for_each(|name| check_name(name))?;
        let path = [root].into_iter().chain(file.path.iter().map(String::as_str)).map(str::as_bytes);
        if file.path.is_empty() || SafePath::from_components(path, NameRules::Unix).is_err() {
            return Err(CreateError::BadName(shown()));
        }
        if file.length >= FILE_BYTES_END {
            return Err(CreateError::TooLarge(shown()));
        }
        if !paths.insert(&file.path) {
            return Err(CreateError::Twice(shown()));
        }
    }
    let plain: BTreeSet<&[String]> =
        files.iter().filter(|file| file.symlink.is_none()).map(|file| file.path.as_slice()).collect();
    for file in files {
        let shown = || file.path.join("/");
        if (1..file.path.len()).any(|depth| paths.contains(&file.path[..depth])) {
            return Err(CreateError::Twice(shown()));
        }
        if file.symlink.as_ref().is_some_and(|to| single || file.length > 0 || !plain.contains(to.as_slice()))
        {
            return Err(CreateError::BadLink(shown()));
        }
    }
    if files.iter().all(|file| file.length == 0) { Err(CreateError::NoContent) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
