//! Programs that make torrents.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use piecemeal_metainfo::Metainfo;

use super::peers::{ours, python};
use crate::run::ended;

/// Who makes a torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Maker {
    /// `piecemeal create`.
    Piecemeal,
    /// libtorrent's create_torrent.
    Libtorrent,
    /// mktorrent.
    Mktorrent,
    /// transmission-create.
    Transmission,
}

/// The formats, as both `piecemeal create` and `lt.py` name them.
pub const FORMATS: [&str; 3] = ["v1", "v2", "hybrid"];

/// What a torrent is to be.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// File or directory.
    pub content: &'a Path,
    /// The torrent's file.
    pub out: &'a Path,
    /// Bytes a piece.
    pub piece_length: u64,
    /// One of [`FORMATS`].
    pub format: &'a str,
    /// Its announce URL.
    pub tracker: Option<&'a str>,
}

impl Maker {
    /// As in tables.
    pub fn name(self) -> &'static str {
        match self {
            Maker::Piecemeal => "piecemeal",
            Maker::Libtorrent => "libtorrent",
            Maker::Mktorrent => "mktorrent",
            Maker::Transmission => "transmission-create",
        }
    }

    /// Makes it, and makes sure that it is what was ordered.
    pub fn make(self, binary: &Path, state: &Path, order: &Order<'_>) -> Result<Metainfo> {
        let output = self.command(binary, state, order).output().with_context(|| self.name())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("{} makes no torrent: {}: {said}", self.name(), ended(output.status));
        }
        let bytes = std::fs::read(order.out).with_context(|| order.out.display().to_string())?;
        let metainfo = Metainfo::parse(&bytes).with_context(|| format!("a torrent of {}", self.name()))?;
        if u64::from(metainfo.info().piece_length) != order.piece_length {
            bail!("{}: pieces of {} bytes", self.name(), metainfo.info().piece_length);
        }
        Ok(metainfo)
    }

    fn command(self, binary: &Path, state: &Path, order: &Order<'_>) -> Command {
        let length = order.piece_length;
        let mut command;
        match self {
            Maker::Piecemeal => {
                command = ours(Command::new(binary), state);
                command.arg("create").arg(order.content).arg("-o").arg(order.out);
                command.args([&format!("--{}", order.format), &format!("--piece-length={length}")]);
                command.args(order.tracker.map(|url| format!("--tracker={url}")));
            }
            Maker::Libtorrent => {
                command = python("lt.py");
                command.arg("create").arg("--path").arg(order.content).arg("--out").arg(order.out);
                command.args([&format!("--format={}", order.format), &format!("--piece-length={length}")]);
                command.args(order.tracker.map(|url| format!("--tracker={url}")));
            }
            Maker::Mktorrent => {
                command = Command::new("mktorrent");
                command.args(["-l", &length.ilog2().to_string()]).arg("-o").arg(order.out);
                command.args(order.tracker.map(|url| format!("--announce={url}"))).arg(order.content);
            }
            Maker::Transmission => {
                command = Command::new("transmission-create");
                command.args(["-s", &(length >> 10).to_string()]).arg("-o").arg(order.out);
                command.args(order.tracker.map(|url| format!("--tracker={url}"))).arg(order.content);
            }
        }
        command
    }
}
