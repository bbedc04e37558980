//! Copies of lists that were fetched, which the next run begins with.
//!
//! Owns their form: a few lines with what the server said by which it knows this list, an empty one, and the list as it came;
//! together, so that the one is never taken for another's. A list without those lines is one too. When a copy was
//! fetched, or found to be what there still is, the time of its file says.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::SystemTime;

use piecemeal_metainfo::{from_hex, to_hex};
use piecemeal_shell::http::Validators;

use super::{Parsed, read};
use crate::store::replace_by;
use crate::words;

/// How a copy begins.
const BEGINS: &str = "piecemeal-list 1\n";
/// The words before what the server said.
const URL: &str = "url-sha1 ";
const ETAG: &str = "etag ";
const LAST_MODIFIED: &str = "last-modified ";
/// Bytes of the lines before a list: two validators of 1 KiB, and room.
const MOST_HEAD_BYTES: u64 = 4096;

/// Keeps a list.
///
/// # Errors
/// The file cannot be written; the old one stays.
pub(super) fn write(copy: &Path, body: &[u8], validators: &Validators) -> std::io::Result<()> {
    let mut head = format!("{BEGINS}{URL}{}\n", to_hex(&validators.url_hash));
    for (word, text) in [(ETAG, &validators.etag), (LAST_MODIFIED, &validators.last_modified)] {
        text.iter().for_each(|text| head += &format!("{word}{text}\n"));
    }
    copy.parent().map_or(Ok(()), fs::create_dir_all)?;
    replace_by(copy, &copy.with_extension("part"), &[head.as_bytes(), b"\n", body])
}

/// What was kept.
///
/// # Errors
/// There is none, or it is damaged; why, in words.
pub(super) fn read(copy: &Path) -> Result<(Parsed, Validators), String> {
    let mut from = BufReader::new(File::open(copy).map_err(|why| words::reason(&why))?);
    let mut validators = Validators::default();
    if from.fill_buf().map_err(|why| words::reason(&why))?.starts_with(BEGINS.as_bytes()) {
        let mut head = from.by_ref().take(MOST_HEAD_BYTES);
        let mut line = String::new();
        while line != "\n" {
            line.clear();
            head.read_line(&mut line).map_err(|why| words::reason(&why))?;
            let text = line.strip_suffix('\n').ok_or("it is damaged: it ends too early")?;
            if let Some(hash) = text.strip_prefix(URL).and_then(from_hex) {
                validators.url_hash = hash;
            }
            let value = |word| text.strip_prefix(word).map(str::to_owned);
            validators.etag = validators.etag.or_else(|| value(ETAG));
            validators.last_modified = validators.last_modified.or_else(|| value(LAST_MODIFIED));
        }
    }
    Ok((read::parsed(from)?, validators))
}

/// It is still what there is.
pub(super) fn is_fresh(copy: &Path) -> std::io::Result<()> {
    File::options().write(true).open(copy)?.set_modified(SystemTime::now())
}
