//! The only way from a torrent's names to the disk.
//!
//! Owns the rules that make a name harmless: every name of a torrent file, a magnet link, a v2 file tree, a symlink
//! or a rename command becomes a [`SafePath`], and only its constructors sanitize, so no caller can forget to.
//! Where the root is, and what stands there already, is left to the shell.
//!
//! What a component can not be after this: empty, `.` or `..`, longer than [`COMPONENT_MAX_BYTES`], or contain a
//! separator of any system, a control character, or a character that is invisible or turns the reading direction.

mod dedupe;
#[cfg(test)]
mod tests;

pub(crate) use dedupe::resolve_duplicates;

use std::fmt;
use std::path::{Path, PathBuf};

/// Bytes of a component before its extension; as libtorrent, so that both make the same names.
const STEM_MAX_BYTES: usize = 240;
/// An extension is kept when a long name is cut if it has at most so many bytes, dot included; as libtorrent.
const EXTENSION_MAX_BYTES: usize = 10;
/// Bytes of a component; leaves room below the 255 of most file systems for a `.500` and a short working suffix.
pub const COMPONENT_MAX_BYTES: usize = STEM_MAX_BYTES + EXTENSION_MAX_BYTES;
/// Components of a path; as libtorrent's directory depth.
pub const DEPTH_MAX: usize = 100;
/// Bytes of a whole path: PATH_MAX of Linux (4096) less an allowance of 1024 for the root it is joined to.
pub const PATH_MAX_BYTES: usize = 3072;

/// Which system's taboos hold, on top of the rules for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameRules {
    /// Nothing more.
    Unix,
    /// Also `< > : " | ? *`, device names (`CON`, `LPT1.txt`), trailing dots and spaces. For Windows, and for
    /// FAT, NTFS and SMB under any system.
    Windows,
}

impl NameRules {
    /// What the system this was built for needs.
    pub const NATIVE: NameRules = if cfg!(windows) { NameRules::Windows } else { NameRules::Unix };
}

/// Why names make no path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PathError {
    /// No component at all.
    #[error("an empty path")]
    Empty,
    /// More than [`DEPTH_MAX`] components.
    #[error("deeper than {DEPTH_MAX} directories")]
    TooDeep,
    /// More than [`PATH_MAX_BYTES`].
    #[error("longer than {PATH_MAX_BYTES} bytes")]
    TooLong,
    /// So many names fall together that no free one was found.
    #[error("too many files of one name")]
    TooManyDuplicates,
}

/// A relative path of harmless components.
///
/// Held as one string with `/` between components, which no component contains: a torrent may have hundreds of
/// thousands of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SafePath(Box<str>);

impl SafePath {
    /// One component, whatever `raw` is.
    pub fn from_name(raw: &[u8], rules: NameRules) -> SafePath {
        SafePath(sanitize(raw, rules).into())
    }

    /// A path from names as they come out of a torrent.
    pub fn from_components<'a>(
        raw: impl IntoIterator<Item = &'a [u8]>,
        rules: NameRules,
    ) -> Result<SafePath, PathError> {
        let mut text = String::new();
        for (at, component) in raw.into_iter().enumerate() {
            if at == DEPTH_MAX {
                return Err(PathError::TooDeep);
            }
            if at > 0 {
                text.push('/');
            }
            text.push_str(&sanitize(component, rules));
            if text.len() > PATH_MAX_BYTES {
                return Err(PathError::TooLong);
            }
        }
        if text.is_empty() { Err(PathError::Empty) } else { Ok(SafePath(text.into())) }
    }

    /// A path that was written out with [`SafePath::as_str`], or typed by a user: parts between `/`.
    pub fn parse(text: &str, rules: NameRules) -> Result<SafePath, PathError> {
        SafePath::from_components(text.split('/').map(str::as_bytes), rules)
    }

    /// The components, outermost first; at least one.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The components with `/` between them.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The path without its last component, if any remains.
    pub fn parent(&self) -> Option<SafePath> {
        self.0.rsplit_once('/').map(|(parent, _)| SafePath(parent.into()))
    }

    /// The same place under another last component.
    pub fn with_file_name(&self, raw: &[u8], rules: NameRules) -> Result<SafePath, PathError> {
        let parents = self.components().rev().skip(1).collect::<Vec<_>>().into_iter().rev();
        SafePath::from_components(parents.map(str::as_bytes).chain([raw]), rules)
    }

    /// The path below `root`.
    pub fn join_to(&self, root: &Path) -> PathBuf {
        let mut path = root.to_path_buf();
        path.extend(self.components());
        path
    }

    /// What a symlink at `link` must say to lead here, both under the same root: `../other/file`.
    pub fn as_seen_from(&self, link: &SafePath) -> PathBuf {
        let shared = self.components().zip(link.components()).take_while(|(a, b)| a == b).count();
        let shared = shared.min(self.components().count() - 1);
        let ups = link.components().count().saturating_sub(shared + 1);
        std::iter::repeat_n("..", ups).chain(self.components().skip(shared)).collect()
    }
}

impl fmt::Display for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What to do with one character of a name.
enum Fate {
    Keep,
    Drop,
    Replace,
}

fn sanitize(raw: &[u8], rules: NameRules) -> String {
    // Nearly all names: nothing in them to change, whatever the rules.
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_ ()[]+,&".contains(byte);
    if rules == NameRules::Unix && (1..=STEM_MAX_BYTES).contains(&raw.len()) && raw.iter().all(plain) {
        return String::from_utf8_lossy(raw).into_owned();
    }
    let mut name = String::with_capacity(raw.len().min(COMPONENT_MAX_BYTES));
    // A run of bytes that are no UTF-8 becomes one `_`.
    let mut in_broken_run = false;
    for chunk in raw.utf8_chunks() {
        for c in chunk.valid().chars() {
            in_broken_run = false;
            match fate(c, rules) {
                Fate::Keep => name.push(c),
                Fate::Drop => {}
                Fate::Replace => name.push('_'),
            }
        }
        if !chunk.invalid().is_empty() && !in_broken_run {
            name.push('_');
            in_broken_run = true;
        }
    }
    shorten(&mut name);
    if rules == NameRules::Windows {
        name.truncate(name.trim_end_matches(['.', ' ']).len());
        if is_device(&name) {
            name.insert(0, '_');
        }
    }
    if matches!(name.as_str(), "" | "." | "..") { "_".to_owned() } else { name }
}

fn fate(c: char, rules: NameRules) -> Fate {
    match c {
        '/' | '\\' => Fate::Drop,
        // Marks that join, hide, or turn the reading direction: `exe.gpj` would read as `jpg.exe`.
        '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' => Fate::Drop,
        '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => Fate::Drop,
        c if c.is_control() => Fate::Replace,
        '<' | '>' | ':' | '"' | '|' | '?' | '*' if rules == NameRules::Windows => Fate::Replace,
        _ => Fate::Keep,
    }
}

fn shorten(name: &mut String) {
    let extension = name.rfind('.').filter(|at| name.len() - at <= EXTENSION_MAX_BYTES);
    let stem_end = extension.unwrap_or(name.len());
    if stem_end > STEM_MAX_BYTES {
        name.replace_range(name.floor_char_boundary(STEM_MAX_BYTES)..stem_end, "");
    }
}

/// Names that Windows gives to devices, with any extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end_matches(' ').to_uppercase();
    match stem.as_str() {
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" => true,
        stem => ["COM", "LPT"].iter().any(|device| {
            let digit = stem.strip_prefix(device);
            digit.is_some_and(|digit| matches!(digit, "\u{b9}" | "\u{b2}" | "\u{b3}") || is_digit(digit))
        }),
    }
}

fn is_digit(text: &str) -> bool {
    text.len() == 1 && text.as_bytes()[0].is_ascii_digit()
}
