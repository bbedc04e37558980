//! Files of secret keys: hex digits and nothing else.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use piecemeal_api::{DhtSecret, Tools};
use piecemeal_metainfo::{from_hex, to_hex};

use crate::fail::Failure;
use crate::source::reason;

/// Longer than any key, so that a file of something else is seen to be that.
const MAX_BYTES: u64 = 1024;

/// The key in a file.
pub fn read(path: &Path) -> Result<DhtSecret, Failure> {
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text)).map_err(|why| {
        Failure::failed(path.display(), reason(&why), "check the path, or make a key with --new-key")
    })?;
    let text = text.trim();
    let key = from_hex(text).map(DhtSecret::Seed).or_else(|| from_hex(text).map(DhtSecret::Expanded));
    key.ok_or_else(|| {
        let wrong = "is no secret key, which has 64 or 128 hex digits";
        Failure::failed(path.display(), wrong, "name another file, or make a key with --new-key")
    })
}

/// A new key, kept in a file that was not there and that nobody else may read.
pub fn make(path: &Path, tools: &dyn Tools) -> Result<DhtSecret, Failure> {
    let seed = tools.new_dht_key()?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(format!("{}\n", to_hex(&seed)).as_bytes()))
        .map_err(|why| match why.kind() {
            std::io::ErrorKind::AlreadyExists => {
                let remedy = "use the key in it with --secret-key, or name a new file";
                Failure::failed(path.display(), "is there already", remedy)
            }
            _ => Failure::failed(path.display(), reason(&why), "name a file that can be written"),
        })?;
    Ok(DhtSecret::Seed(seed))
}
