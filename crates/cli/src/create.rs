//! `piecemeal create`: a .torrent file for content on disk, or that of a magnet link.
//!
//! Hashing is the tools', and finding the engine's; where the file goes, and that no half of one is left, is decided
//! here.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use piecemeal_api::{CreateRequest, Created, Format, Tools, Work};
use piecemeal_metainfo::Metainfo;

use crate::args::{Create, Tier};
use crate::fail::Failure;
use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::progress::WorkScreen;
use crate::seek::{self, Link};
use crate::source::{Torrent, reason, taken, write_new};
use crate::text;
use crate::tls::read_pem;
use crate::units::{count, size};

/// Runs the command.
pub fn run(args: &Create, tools: &dyn Tools, host: &mut Host, stop: &Interrupt) -> Result<(), Failure> {
    let Some(path) = &args.path else { return save(args, tools, host, stop) };
    let content = content_path(host, path)?;
    let output = output_path(host, args.output.as_deref(), &content);
    // Known before hours of hashing.
    free(args, &output)?;
    let tls_root = args.tls_root.as_deref().map(|root| read_pem(&host.at(root))).transpose()?;
    let request = CreateRequest { tls_root, ..request(args, content, tools) };
    let created = make(&request, tools, host, stop)?;
    write_new(&output, &created.metainfo, args.force)?;
    host.say(format!("{}", output.display()))?;
    describe(&created, host)
}

/// Saves the torrent of a magnet link.
fn save(args: &Create, tools: &dyn Tools, host: &mut Host, stop: &Interrupt) -> Result<(), Failure> {
    let link = Link::parse(args.from.as_deref().unwrap_or_default())?;
    // Its name is still to be found out, unless it was chosen.
    if let Some(file) = args.output.as_deref().map(|file| host.at(file)).filter(|file| !file.is_dir()) {
        free(args, &file)?;
    }
    let resolved = seek::resolve(&link, &args.find, tools, host, stop)?;
    let torrent = Torrent::parse(resolved.metainfo, &link.name())?;
    let content = torrent.place(&host.cwd);
    let output = output_path(host, args.output.as_deref(), &content);
    write_new(&output, &torrent.bytes, args.force)?;
    host.say(text::safe(&output.display().to_string()))?;
    describe(&facts(&torrent), host)
}

/// That nothing is there, or may be replaced.
fn free(args: &Create, output: &Path) -> Result<(), Failure> {
    if !args.force && output.symlink_metadata().is_ok() { Err(taken(output)) } else { Ok(()) }
}

fn facts(torrent: &Torrent) -> Created {
    let metainfo: &Metainfo = &torrent.metainfo;
    let (info, hashes) = (metainfo.info(), metainfo.info_hashes());
    let files = metainfo.files().iter().filter(|file| !file.pad).count();
    Created {
        metainfo: torrent.bytes.clone(),
        name: info.name.to_string(),
        size: info.content_length,
        files: u32::try_from(files).unwrap_or(u32::MAX),
        piece_length: u64::from(info.piece_length),
        pieces: info.piece_count,
        info_hash: hashes.v1,
        info_hash_v2: hashes.v2,
        magnet: metainfo.magnet(),
        warnings: Vec::new(),
    }
}

/// Makes a torrent, with progress on screen.
pub fn make(
    request: &CreateRequest,
    tools: &dyn Tools,
    host: &Host,
    stop: &Interrupt,
) -> Result<Created, Failure> {
    let name = request.content.file_name().unwrap_or_default().to_string_lossy();
    let screen = WorkScreen::new(host, format!("hashing {}", text::safe(&name)));
    let report = |progress| screen.report(progress);
    let created = tools.create(request, &Work { progress: &report, cancel: stop.cancel() });
    screen.end();
    let created = created?;
    for warning in &created.warnings {
        host.err.line(&format!("piecemeal: {}: warning: {}", text::safe(&name), text::safe(warning)));
    }
    Ok(created)
}

/// The absolute path of content whose last component is a name, or why there is none.
pub fn content_path(host: &Host, path: &Path) -> Result<PathBuf, Failure> {
    let full = host.at(path);
    let failed = |why| Failure::failed(path.display(), reason(&why), "give a file or directory that exists");
    full.metadata().map_err(failed)?;
    // `.` and `dir/..` have no name of their own.
    if path.file_name().is_some() { Ok(full) } else { full.canonicalize().map_err(failed) }
}

/// What was made, for a person: name, size, hashes, magnet link.
pub fn describe(created: &Created, host: &mut Host) -> Result<(), Failure> {
    let files = count(u64::from(created.files), "file");
    let pieces = count(u64::from(created.pieces), "piece");
    let piece = size(created.piece_length);
    host.say(format!(
        "{}: {} in {files}, {pieces} of {piece}",
        text::safe(&created.name),
        size(created.size)
    ))?;
    if let Some(hash) = created.info_hash {
        host.say(format!("info-hash v1: {hash}"))?;
    }
    if let Some(hash) = created.info_hash_v2 {
        host.say(format!("info-hash v2: {hash}"))?;
    }
    Ok(host.say(text::safe(&created.magnet))?)
}

/// The tiers of a command line.
pub fn tiers(trackers: &[Tier]) -> Vec<Vec<String>> {
    trackers.iter().map(|tier| tier.0.clone()).collect()
}

fn request(args: &Create, content: PathBuf, tools: &dyn Tools) -> CreateRequest {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
    CreateRequest {
        format: match args {
            Create { v1: true, .. } => Format::V1,
            Create { v2: true, .. } => Format::V2,
            _ => Format::Hybrid,
        },
        trackers: tiers(&args.trackers),
        web_seeds: args.web_seeds.clone(),
        piece_length: args.piece_length,
        private: args.private,
        source: args.source.clone(),
        comment: args.comment.clone(),
        created_by: Some(tools.program()),
        created: if args.no_date { None } else { now() },
        skip_hidden: args.no_hidden,
        ..CreateRequest::new(content)
    }
}

/// `-o` may name the file or the directory it goes into.
fn output_path(host: &Host, output: Option<&Path>, content: &Path) -> PathBuf {
    let mut name = content.file_name().unwrap_or_default().to_owned();
    name.push(".torrent");
    match output {
        None => host.at(Path::new(&name)),
        Some(dir) if host.at(dir).is_dir() => host.at(dir).join(name),
        Some(file) => host.at(file),
    }
}
