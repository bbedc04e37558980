//! What a user asks of a torrent, judged before the engine hears of it.
//!
//! Owns the refusals of a bad request and the making of the content's directory. What a valid request does is the
//! engine's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use piecemeal_api::{AddTorrent, Limits, Refusal, Selection, TlsIdentity, Totals, Transports, Verify};
use piecemeal_engine::cx::{Options, Seating};
use piecemeal_metainfo::{InfoHashes, MAX_SOURCES, Metainfo, MetainfoError, TorrentId, Version};
use piecemeal_package::Start;
use piecemeal_shell::Storage;
use piecemeal_shell::tls::Identity;

use crate::place;
use crate::store::Store;
use crate::table::{Table, Torrent};
use crate::words;

/// A request that makes sense.
pub(crate) struct Checked {
    meta: Arc<Metainfo>,
    wanted: Arc<[bool]>,
    options: Options,
    dir: PathBuf,
    real_dir: PathBuf,
    identity: Option<Identity>,
}

/// All that the engine, the disk and the table want of a torrent; its number is still to be filled in.
pub(crate) struct Prepared {
    pub(crate) storage: Storage,
    pub(crate) seating: Seating,
    /// Who we are to peers that speak TLS.
    pub(crate) identity: Option<Identity>,
    pub(crate) torrent: Torrent,
}

/// Judges a request by itself.
pub(crate) fn check(add: &AddTorrent) -> Result<Checked, Refusal> {
    let meta = judge(Metainfo::parse(&add.metainfo), "torrent")?;
    if add.trackers.len() > MAX_SOURCES {
        let reason = format!("{} are too many, the limit is {MAX_SOURCES}", add.trackers.len());
        return Err(Refusal::invalid("trackers", reason, "leave some out"));
    }
    let (down_limit, up_limit) = limits(add.limits)?;
    let dir = std::path::absolute(&add.dir)
        .map_err(|why| Refusal::file(&add.dir, words::reason(&why), "name a directory"))?;
    Ok(Checked {
        wanted: wanted(&meta, &add.select)?,
        identity: identity(&meta, add.tls.as_ref())?,
        meta: Arc::new(meta),
        options: Options { paused: add.paused, sequential: add.sequential, down_limit, up_limit },
        real_dir: real(&dir),
        dir,
    })
}

/// A torrent that can be swapped, from a file or from peers; `what` is its name until it says its own.
pub(crate) fn judge(read: Result<Metainfo, MetainfoError>, what: &str) -> Result<Metainfo, Refusal> {
    let meta = read.map_err(|why| Refusal::BadTorrent { what: what.to_owned(), reason: why.to_string() })?;
    if meta.info().version == Version::V2 { Err(v2_alone(meta.info().name.as_str())) } else { Ok(meta) }
}

/// What is not done yet.
pub(crate) fn v2_alone(name: &str) -> Refusal {
    Refusal::Unsupported {
        what: format!("{name}: a torrent of BitTorrent v2 alone"),
        instead: "get a v1 or hybrid torrent of the same content".into(),
    }
}

/// That nobody here has a torrent of these hashes, or seeks one.
pub(crate) fn unclaimed(hashes: InfoHashes, name: &str, table: &Table) -> Result<(), Refusal> {
    let swarms: Vec<_> = hashes.swarms().collect();
    for (id, torrent) in table.iter() {
        let same = torrent.meta.info_hashes().swarms().any(|swarm| swarms.contains(&swarm));
        if same && torrent.leaving {
            let reason = "the same torrent was removed and has not left yet";
            return Err(Refusal::invalid(torrent.name(), reason, "add it again when it is gone"));
        }
        if same {
            return Err(Refusal::AlreadyAdded { torrent: id, name: torrent.name() });
        }
    }
    if table.seeks.seek(hashes) {
        let reason = "a magnet link of the same torrent is being resolved";
        return Err(Refusal::invalid(name, reason, "wait for that, or stop it"));
    }
    Ok(())
}

/// Judges it beside the torrents that are here.
pub(crate) fn free(new: &Checked, table: &Table) -> Result<(), Refusal> {
    unclaimed(new.meta.info_hashes(), new.meta.info().name.as_str(), table)?;
    for (id, torrent) in table.iter() {
        if let Some(path) = place::overlap((&new.meta, &new.real_dir), (&torrent.meta, &torrent.real_dir)) {
            let reason = format!("torrent {} ({}) has this file already", id.0, torrent.name());
            return Err(Refusal::file(
                path,
                reason,
                "choose another directory, or remove that torrent first",
            ));
        }
    }
    Ok(())
}

/// Gets the right to its resume facts, reads them, and makes the directory.
pub(crate) fn prepare(
    add: AddTorrent,
    checked: Checked,
    store: Option<&Store>,
    boot: [u8; 16],
) -> Result<Prepared, Refusal> {
    let Checked { meta, wanted, options, dir, real_dir, identity } = checked;
    let claim = store.map(|store| store.claim(meta.wire_hash(), &real_dir)).transpose()?;
    let facts = store.zip(claim.as_deref()).and_then(|(store, claim)| store.load(claim, &meta));
    let verified = facts.as_ref().is_some_and(|facts| !facts.have.none());
    make_directory(&dir, verified)?;
    let before = facts.as_ref().map_or_else(Totals::default, |facts| Totals {
        downloaded: facts.downloaded,
        uploaded: facts.uploaded,
        ..Totals::default()
    });
    Ok(Prepared {
        identity,
        storage: Storage { root: dir.clone(), part: place::part_file(&meta, &dir), meta: meta.clone() },
        seating: Seating {
            torrent: TorrentId(0),
            meta: meta.clone(),
            wanted: wanted.clone(),
            facts,
            start: match add.verify {
                Verify::Resume => Start::Resume,
                Verify::Full => Start::Recheck,
                Verify::Trust => Start::Trust,
            },
            boot,
            options,
            peers: add.peers,
            known: add.known,
            trackers: add.trackers,
        },
        torrent: Torrent::new(meta, (dir, real_dir), wanted, options, claim, before),
    })
}

/// Who we are to the peers of a torrent that has a root certificate.
fn identity(meta: &Metainfo, ours: Option<&TlsIdentity>) -> Result<Option<Identity>, Refusal> {
    let name = meta.info().name.as_str();
    let refuse = |reason: &dyn std::fmt::Display, remedy| Err(Refusal::invalid(name, reason, remedy));
    match (&meta.info().tls_root, ours) {
        (None, None) => Ok(None),
        (Some(root), Some(ours)) => {
            let identity = Identity::new(root, name, ours.certificate.as_bytes(), ours.key.as_bytes());
            let remedy = "give one that its root signed, made out to its name or to *, and the key";
            identity.map_or_else(|why| refuse(&why, remedy), |identity| Ok(Some(identity)))
        }
        (Some(_), None) => {
            let reason = "only those are let in who have a certificate of this torrent, and speak TLS";
            refuse(&reason, "ask its publisher for one, and give it with its key")
        }
        (None, Some(_)) => {
            let reason = "this torrent has no root certificate, and is for everybody";
            refuse(&reason, "add it without one")
        }
    }
}

/// That this engine can speak to its peers at all.
pub(crate) fn reachable(new: &Checked, transports: Transports) -> Result<(), Refusal> {
    if new.identity.is_none() || transports != Transports::Utp {
        return Ok(());
    }
    let reason = "its peers speak TLS, and that by TCP alone, which is off";
    Err(Refusal::invalid(new.meta.info().name.as_str(), reason, "allow TCP"))
}

/// By file: whether it is wanted. Pads never are.
pub(crate) fn wanted(meta: &Metainfo, select: &Selection) -> Result<Arc<[bool]>, Refusal> {
    let Selection::Only { files } = select else {
        return Ok(meta.files().iter().map(|file| !file.pad).collect());
    };
    let remedy = "look up the numbers of the torrent's files";
    if files.is_empty() {
        return Err(Refusal::invalid(
            "select",
            "no file is selected",
            "select at least one, or leave it out",
        ));
    }
    let mut wanted = vec![false; meta.files().len()];
    for index in files {
        match meta.file(*index) {
            Some(file) if !file.pad => wanted[index.at()] = true,
            Some(_) => {
                let reason = format!("file {} is only padding", index.0);
                return Err(Refusal::invalid("select", reason, remedy));
            }
            None => {
                let reason = format!("there is no file {}, only 0 to {}", index.0, wanted.len() - 1);
                return Err(Refusal::invalid("select", reason, remedy));
            }
        }
    }
    Ok(wanted.into())
}

/// Download and upload as the engine has them: 0 is none.
pub(crate) fn limits(limits: Limits) -> Result<(u64, u64), Refusal> {
    let field = |limit: Option<u64>, name: &str| match limit {
        Some(0) => Err(Refusal::invalid(
            name,
            "a limit of 0 would stop everything",
            "leave it out for no limit, or pause",
        )),
        limit => Ok(limit.unwrap_or(0)),
    };
    Ok((field(limits.down, "limits.down")?, field(limits.up, "limits.up")?))
}

/// A directory that is gone although there was verified content in it is more likely on a disk that is not mounted
/// than deleted; made anew, it would be filled on the wrong disk.
fn make_directory(dir: &Path, verified: bool) -> Result<(), Refusal> {
    let refuse = |reason: &str, remedy: &str| Err(Refusal::file(dir, reason, remedy));
    match fs::metadata(dir) {
        Ok(there) if there.is_dir() => Ok(()),
        Ok(_) => refuse("is no directory", "choose another one"),
        Err(why) if why.kind() == io::ErrorKind::NotFound && verified => {
            let remedy = "mount its disk, or make the directory to download everything again";
            refuse("is not there, but content in it was verified before", remedy)
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => fs::create_dir_all(dir)
            .or_else(|why| refuse(&words::reason(&why), "make it yourself, or choose another one")),
        Err(why) => refuse(&words::reason(&why), "choose another one"),
    }
}

/// The path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    for there in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (there.canonicalize(), path.strip_prefix(there)) {
            // Joining nothing would add a slash.
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests;
