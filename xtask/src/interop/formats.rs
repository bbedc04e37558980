//! Torrents of every maker and format: who reads what whom has made, and whether they call it the same.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::cli::ask;
use super::content::{Content, NAME, Shape, link};
use super::makers::{FORMATS, Maker, Order};
use super::peers::{Client, python};
use super::{Case, Stage};
use crate::run::ended;

/// Hashing a few MiB.
const LIMIT: Duration = Duration::from_secs(60);
/// Small pieces make deep trees, and every file a piece of its own in v2.
const PIECE_LENGTH: u64 = 16 << 10;

/// One case for each maker, format and shape.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for maker in [Maker::Piecemeal, Maker::Libtorrent, Maker::Mktorrent, Maker::Transmission] {
        for format in FORMATS {
            // The other two know v1 alone, and mktorrent no piece so small.
            let old = matches!(maker, Maker::Mktorrent | Maker::Transmission);
            if old && format != "v1" {
                continue;
            }
            let piece_length = if maker == Maker::Mktorrent { 2 * PIECE_LENGTH } else { PIECE_LENGTH };
            for shape in [Shape::One, Shape::Many] {
                let content = Content { shape, piece_length, pieces: 256 };
                let name = format!("formats/{}/{format}/{}", maker.name(), content.name());
                cases.push(Case::new(name, move |stage| judge(stage, maker, format, &content)));
            }
        }
    }
    cases
}

fn judge(stage: &Stage<'_>, maker: Maker, format: &str, content: &Content) -> Result<String> {
    if let Some(why) = Client::Libtorrent.missing() {
        bail!("{why}; run .ci/install");
    }
    link(&stage.content(content)?, stage.dir)?;
    let torrent = stage.dir.join("x.torrent");
    let order = Order {
        content: &stage.dir.join(NAME),
        out: &torrent,
        piece_length: content.piece_length,
        format,
        tracker: None,
    };
    maker.make(stage.binary, stage.dir, &order)?;
    let theirs = libtorrent_hashes(&torrent)?;
    let shown = ask(stage, &["show", "x.torrent", "--json"], LIMIT)?.expect(0, "show")?.json()?;
    let ours = [hash(&shown, "info_hash"), hash(&shown, "info_hash_v2")];
    if ours != theirs {
        bail!("info-hashes: libtorrent says {theirs:?}, we say {ours:?}");
    }
    let has = [format != "v2", format != "v1"];
    if [ours[0] != "-", ours[1] != "-"] != has {
        bail!("a {format} torrent with info-hashes {ours:?}");
    }
    libtorrent_check(&torrent, stage.dir)?;
    verify(stage)?;
    Ok(format!("{} pieces, same info-hashes, content good by both", shown["pieces"]))
}

fn hash(shown: &Value, key: &str) -> String {
    shown[key].as_str().unwrap_or("-").to_owned()
}

fn libtorrent_hashes(torrent: &Path) -> Result<[String; 2]> {
    let output = python("lt.py").arg("hashes").arg(torrent).output()?;
    if !output.status.success() {
        bail!("libtorrent does not load it: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_whitespace().map(str::to_owned);
    let pair = words.next().zip(words.next()).context("libtorrent names no hashes")?;
    Ok([pair.0, pair.1])
}

fn libtorrent_check(torrent: &Path, dir: &Path) -> Result<()> {
    let output = python("lt.py").arg("check").arg("--torrent").arg(torrent).arg("--dir").arg(dir).output()?;
    let share = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        Ok(())
    } else {
        bail!("libtorrent finds {share} good: {}", ended(output.status))
    }
}

/// Good content is good, and one wrong byte is found and named.
fn verify(stage: &Stage<'_>) -> Result<()> {
    let args = ["verify", "x.torrent", ".", "--json"];
    let good = ask(stage, &args, LIMIT)?.expect(0, "verify of good content")?.json()?;
    if good["good"] != true {
        bail!("verify: exit code 0, but {}", good["good"]);
    }
    let victim = largest(&stage.dir.join(NAME))?;
    // The content is linked from what others read: damage a copy.
    let bytes = fs::read(&victim)?;
    fs::remove_file(&victim)?;
    fs::write(&victim, &bytes)?;
    let file = fs::OpenOptions::new().write(true).open(&victim)?;
    file.write_all_at(&[!bytes[bytes.len() / 2]], bytes.len() as u64 / 2)?;
    let bad = ask(stage, &args, LIMIT)?.expect(1, "verify of a wrong byte")?.json()?;
    let name = victim.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let files = bad["files"].as_array().cloned().unwrap_or_default();
    let is_victim = |file: &&Value| file["path"].as_str().is_some_and(|path| path.ends_with(&name));
    match files.iter().find(is_victim) {
        Some(file) if file["result"] == "bad" && bad["good"] == false => {}
        other => bail!("verify of a wrong byte in {name} says {other:?}"),
    }
    Ok(())
}

fn largest(path: &Path) -> Result<std::path::PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let mut best = (0, path.to_owned());
    for entry in fs::read_dir(path)? {
        let file = largest(&entry?.path())?;
        let size = if file.is_file() { file.metadata()?.len() } else { 0 };
        if size > best.0 {
            best = (size, file);
        }
    }
    Ok(best.1)
}
