//! Files that say what is served, and to whom: info-hashes that are allowed or denied, and passkeys.
//!
//! Owns their form and what they decide. They are read at the start and when their owner says so; a file that can not
//! be read or has a wrong line changes nothing, so that a slip of the pen does not open or close a tracker.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use piecemeal_metainfo::InfoHash;
use thiserror::Error;

/// Where the lists are. Each has one entry a line; what follows a `#`, and empty lines, are passed over.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ListFiles {
    /// Info-hashes that are served, none else; absent: all are. In hex, 40 digits (v1) or 64 (v2, of which trackers
    /// know the first 40).
    pub allow: Option<PathBuf>,
    /// Info-hashes that are not served, whatever `allow` says.
    pub deny: Option<PathBuf>,
    /// Who may announce, by what stands in the URL: `/PASSKEY/announce`. Letters, digits, `-` and `_`, at most
    /// 128 a key; absent: everybody may, without a key.
    pub passkeys: Option<PathBuf>,
}

/// Why a list was not taken.
#[derive(Debug, Error)]
pub enum ListError {
    /// The file can not be read.
    #[error("{path}: {why}", path = path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// A line is no entry.
    #[error("{path}:{line}: {wanted}", path = path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What should stand there.
        wanted: &'static str,
    },
}

/// What the files say.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Lists {
    allow: Option<BTreeSet<InfoHash>>,
    deny: BTreeSet<InfoHash>,
    passkeys: Option<BTreeSet<String>>,
}

impl Lists {
    /// Reads the files.
    pub(crate) fn read(files: &ListFiles) -> Result<Lists, ListError> {
        let hashes = |path: &Option<PathBuf>| {
            let wanted = "an info-hash of 40 or 64 hex digits belongs here";
            path.as_deref().map(|path| entries(path, wanted, info_hash)).transpose()
        };
        let keys = files.passkeys.as_deref().map(|path| {
            let wanted = "a key of letters, digits, - and _ belongs here, at most 128";
            entries(path, wanted, |key| is_key(key).then(|| key.to_owned()))
        });
        Ok(Lists {
            allow: hashes(&files.allow)?,
            deny: hashes(&files.deny)?.unwrap_or_default(),
            passkeys: keys.transpose()?,
        })
    }

    /// Whether this torrent is served.
    pub(crate) fn serves(&self, info_hash: InfoHash) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.contains(&info_hash)) && !self.deny.contains(&info_hash)
    }

    /// Whether a passkey is needed.
    pub(crate) fn are_closed(&self) -> bool {
        self.passkeys.is_some()
    }

    /// Whether who shows this passkey, or none, may ask.
    pub(crate) fn admit(&self, passkey: Option<&str>) -> bool {
        match (&self.passkeys, passkey) {
            (Some(known), Some(key)) => known.contains(key),
            (Some(_), None) => false,
            (None, _) => true,
        }
    }
}

/// The passkey and the door of a path: `/KEY/announce` or `/announce`. `None` for another form.
pub(crate) fn door(path: &str) -> Option<(Option<&str>, &str)> {
    let path = path.strip_prefix('/')?;
    match path.split_once('/') {
        None => Some((None, path)),
        Some((key, door)) => is_key(key).then_some((Some(key), door)),
    }
}

fn is_key(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c))
}

fn entries<T: Ord>(
    path: &Path,
    wanted: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<BTreeSet<T>, ListError> {
    let text =
        fs::read_to_string(path).map_err(|why| ListError::Unreadable { path: path.to_owned(), why })?;
    let lines = (1..)
        .zip(text.lines())
        .map(|(line, text)| (line, text.split_once('#').map_or(text, |(entry, _)| entry).trim()));
    lines
        .filter(|(_, entry)| !entry.is_empty())
        .map(|(line, entry)| {
            parse(entry).ok_or_else(|| ListError::Line { path: path.to_owned(), line, wanted })
        })
        .collect()
}

fn info_hash(hex: &str) -> Option<InfoHash> {
    if !matches!(hex.len(), 40 | 64) || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = InfoHash([0; 20]);
    for (at, byte) in hash.0.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, name: &str, text: &str) -> Option<PathBuf> {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        Some(path)
    }

    #[test]
    fn what_the_files_say() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, c) = ("aa".repeat(20), "BB".repeat(20), "cc".repeat(32));
        let allow = file(dir.path(), "allow", &format!("# ours\n{a}\n  {b} # film\r\n\n{c}\n"));
        let deny = file(dir.path(), "deny", &b);
        let passkeys = file(dir.path(), "keys", "k-1_A\n#k2\n");
        let hash = |byte| InfoHash([byte; 20]);

        let open = Lists::read(&ListFiles::default()).unwrap();
        assert!(open.serves(hash(1)) && open.admit(None) && open.admit(Some("x")) && !open.are_closed());
        let lists = Lists::read(&ListFiles { allow, deny: deny.clone(), passkeys }).unwrap();
        assert_eq!([0xaa, 0xbb, 0xcc, 1].map(|byte| lists.serves(hash(byte))), [true, false, true, false]);
        assert_eq!(
            ["k-1_A", "k2", "", "k-1_a"].map(|key| lists.admit(Some(key))),
            [true, false, false, false]
        );
        assert!(!lists.admit(None) && lists.are_closed());
        let denied = Lists::read(&ListFiles { deny, ..ListFiles::default() }).unwrap();
        assert!(denied.serves(hash(0xaa)) && !denied.serves(hash(0xbb)));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let long = "a".repeat(129);
        for (hashes, text) in [
            (true, "aa".repeat(19)),
            (true, "zz".repeat(20)),
            (true, "é".repeat(20)),
            (false, "a b".to_owned()),
            (false, "a/b".to_owned()),
            (false, long),
        ] {
            let path = file(dir.path(), "list", &format!("#\n{text}"));
            let files = match hashes {
                true => ListFiles { allow: path, ..ListFiles::default() },
                false => ListFiles { passkeys: path, ..ListFiles::default() },
            };
            let why = Lists::read(&files).unwrap_err().to_string();
            assert!(why.contains("list:2: a"), "{why}");
        }
        let gone = ListFiles { deny: Some(dir.path().join("gone")), ..ListFiles::default() };
        assert!(Lists::read(&gone).unwrap_err().to_string().contains("gone"));
    }

    #[test]
    fn doors() {
        let table = [
            ("/announce", Some((None, "announce"))),
            ("/KEY-1/announce", Some((Some("KEY-1"), "announce"))),
            ("/KEY/x/announce", Some((Some("KEY"), "x/announce"))),
            ("/k%20/announce", None),
            ("//announce", None),
            ("/", Some((None, ""))),
            ("", None),
            ("announce", None),
        ];
        for (path, expected) in table {
            assert_eq!(door(path), expected, "{path}");
        }
    }
}
