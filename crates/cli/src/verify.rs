//! `piecemeal verify`: content on disk against its torrent.

use std::path::{Path, PathBuf};

use piecemeal_api::{FileState, FileVerdict, Tools, Verdict, VerifyRequest, Work};
use serde::Serialize;

use crate::args::Verify;
use crate::fail::Failure;
use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::progress::WorkScreen;
use crate::source::Torrent;
use crate::text::safe;
use crate::units::{count, percent, size};

/// Runs the command.
pub fn run(args: &Verify, tools: &dyn Tools, host: &mut Host, stop: &Interrupt) -> Result<(), Failure> {
    let torrent = Torrent::read(&host.at(&args.torrent))?;
    let given = host.at(&args.dir);
    if !given.is_dir() {
        return Err(Failure::failed(
            args.dir.display(),
            "is no directory",
            "give the one the content lies in",
        ));
    }
    let verdict = judge(&torrent, &content_dir(&torrent, &given), tools, host, stop)?;
    if args.json {
        host.say_json(&Judged { good: verdict.good(), verdict: &verdict })?;
    } else {
        print(&verdict, host)?;
    }
    if verdict.good() { Ok(()) } else { Err(Failure::Said) }
}

/// Hashes the content of `torrent` in `dir`, with progress on screen.
pub fn judge(
    torrent: &Torrent,
    dir: &Path,
    tools: &dyn Tools,
    host: &Host,
    stop: &Interrupt,
) -> Result<Verdict, Failure> {
    let screen = WorkScreen::new(host, format!("checking {}", torrent.name()));
    let report = |progress| screen.report(progress);
    let request = VerifyRequest { metainfo: torrent.bytes.clone(), dir: dir.to_owned() };
    let verdict = tools.verify(&request, &Work { progress: &report, cancel: stop.cancel() });
    screen.end();
    Ok(verdict?)
}

/// The directory that holds the content: the one given, unless that is the content's own.
pub fn content_dir(torrent: &Torrent, given: &Path) -> PathBuf {
    let own = !torrent.metainfo.info().single_file && torrent.place(given).symlink_metadata().is_err();
    let full = given.canonicalize().unwrap_or_else(|_| given.to_owned());
    let named = full.file_name().is_some_and(|name| name == torrent.metainfo.info().name.as_str());
    match full.parent() {
        Some(parent) if own && named => parent.to_owned(),
        _ => given.to_owned(),
    }
}

#[derive(Serialize)]
struct Judged<'a> {
    good: bool,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

fn print(verdict: &Verdict, host: &mut Host) -> Result<(), Failure> {
    for file in &verdict.files {
        host.say(format!("{:10}  {}{}", word(&file.state), safe(&file.path), remark(file)))?;
    }
    let good = verdict.files.iter().filter(|file| file.state == FileState::Good).count();
    let files = count(verdict.files.len() as u64, "file");
    let pieces = count(u64::from(verdict.pieces), "piece");
    let share = percent(verdict.good_bytes, verdict.size);
    Ok(host.say(format!(
        "{}: {good} of {files} good, {} of {pieces} good, {share} of {}",
        safe(&verdict.name),
        verdict.good_pieces,
        size(verdict.size)
    ))?)
}

fn word(state: &FileState) -> &'static str {
    match state {
        FileState::Good => "good",
        FileState::Bad { .. } => "bad",
        FileState::Missing => "missing",
        FileState::WrongSize { .. } => "wrong size",
        FileState::Unreadable { .. } => "unreadable",
    }
}

fn remark(file: &FileVerdict) -> String {
    match &file.state {
        FileState::Good | FileState::Missing => String::new(),
        FileState::Bad { bad_pieces } => format!(": {} bad", count(u64::from(*bad_pieces), "piece")),
        FileState::WrongSize { is_size } => format!(": {is_size} bytes instead of {}", file.size),
        FileState::Unreadable { reason } => format!(": {}", safe(reason)),
    }
}
