//! `piecemeal seed`: upload content that is there; a torrent is made for content that has none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use piecemeal_api::{AddTorrent, CreateRequest, RunningTracker, TlsIdentity, Tools, TrackerOptions, Verify};
use serde::Serialize;

use crate::args::Seed;
use crate::create::{content_path, make, tiers};
use crate::fail::Failure;
use crate::get::{engine_options, say_listening};
use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::progress::Screen;
use crate::source::{Torrent, write_new};
use crate::text::safe;
use crate::tls::{identity_for, read_identity};
use crate::units::{percent, size};
use crate::verify::content_dir;
use crate::watch::{Course, End, Fleet, Goal};

/// Content to be seeded.
pub struct Offer {
    /// Its torrent.
    pub torrent: Torrent,
    /// Where that is, if it is a file.
    pub file: Option<PathBuf>,
    /// The directory the content lives in.
    pub dir: PathBuf,
    /// How far to believe what is there.
    pub verify: Verify,
    /// Who we are to its peers, if they want to know.
    pub tls: Option<TlsIdentity>,
}

/// Runs the command.
pub fn run(args: &Seed, tools: &dyn Tools, host: &mut Host, stop: &Interrupt) -> Result<(), Failure> {
    let mut tracker = match args.embedded_tracker {
        Some(addr) => {
            let options = TrackerOptions { listen: vec![addr], ..TrackerOptions::default() };
            Some(tools.start_tracker(&options)?)
        }
        None => None,
    };
    let mut fleet = Fleet::new(Screen::new(host, args.json));
    let result = seed(args, tracker.as_deref(), &mut fleet, tools, host, stop);
    // The tracker last: the engine says goodbye to it.
    fleet.leave(host, stop);
    if let Some(tracker) = &mut tracker {
        tracker.stop();
    }
    result
}

/// Adds content to an engine, waits until it is checked, and starts uploading what is whole. Refused when some is not:
/// seeding must never begin to download.
pub fn offer(
    offers: &[Offer],
    engine: usize,
    trackers: &[String],
    fleet: &mut Fleet,
    host: &mut Host,
    stop: &Interrupt,
) -> Result<(), Failure> {
    let first = fleet.items.len();
    for offer in offers {
        let place = offer.torrent.place(&offer.dir);
        if place.symlink_metadata().is_err() {
            let remedy = "name the directory it lies in with --dir";
            return Err(Failure::failed(place.display(), "the content is not there", remedy));
        }
        let add = AddTorrent {
            paused: true,
            verify: offer.verify,
            trackers: trackers.to_vec(),
            tls: offer.tls.clone(),
            ..AddTorrent::new(offer.torrent.bytes.clone(), &offer.dir)
        };
        fleet.add(engine, add, offer.torrent.name(), place, Goal::Checked)?;
    }
    if fleet.watch(host, stop, None)? == End::Interrupted {
        return Err(Failure::Interrupted);
    }
    for item in &fleet.items[first..] {
        if let Course::Failed(why) = &item.course {
            return Err(Failure::Failed(format!("{}: {why}", item.name)));
        }
        let status = item.status.as_ref().filter(|status| !status.complete());
        if let Some(status) = status {
            let missing = status.wanted_bytes.saturating_sub(status.have_bytes);
            let share = percent(status.have_bytes, status.wanted_bytes);
            let wrong = format_args!("{} missing or bad, only {share} good", size(missing));
            let remedy = "see which files with `piecemeal verify`, or complete it with `piecemeal get`";
            return Err(Failure::failed(item.place.display(), wrong, remedy));
        }
        fleet.engines[engine].client.resume(item.id)?;
    }
    Ok(())
}

fn seed(
    args: &Seed,
    tracker: Option<&dyn RunningTracker>,
    fleet: &mut Fleet,
    tools: &dyn Tools,
    host: &mut Host,
    stop: &Interrupt,
) -> Result<(), Failure> {
    let mut announce = tiers(&args.trackers);
    announce.extend(tracker.into_iter().flat_map(|tracker| tracker.urls()).map(|url| vec![url]));
    let offers = prepare(args, &announce, tools, host, stop)?;
    let engine = fleet.start(tools, &engine_options(&args.engine, None, host))?;
    let client = fleet.engines[engine].client.clone();
    say_listening(fleet, &*client, host)?;
    offer(&offers, engine, &announce.concat(), fleet, host, stop)?;
    for offer in &offers {
        introduce(offer, fleet, host)?;
    }
    fleet.items.iter_mut().for_each(|item| item.seed_until(args.goal));
    let end = fleet.watch(host, stop, None)?;
    conclude(fleet, host)?;
    let endless = args.goal.seed_ratio.is_none() && args.goal.seed_time.is_none();
    // Without a goal, Ctrl-C is how seeding is meant to end.
    if end == End::Done || endless { Ok(()) } else { Err(Failure::Interrupted) }
}

/// A line for each torrent: what was sent, and at what ratio.
fn conclude(fleet: &mut Fleet, host: &mut Host) -> Result<(), Failure> {
    fleet.screen.end();
    let mut failed = false;
    for item in &fleet.items {
        if let Course::Failed(why) = &item.course {
            failed = true;
            host.err.line(&format!("piecemeal: {}: {}", item.name, safe(why)));
        } else if !fleet.screen.is_json() {
            let (sent, ratio) =
                item.status.as_ref().map_or((0, 0.0), |status| (status.totals.uploaded, status.ratio()));
            host.say(format!("{}: {} sent in all, ratio {ratio:.2}", item.name, size(sent)))?;
        }
    }
    if failed { Err(Failure::Said) } else { Ok(()) }
}

/// Finds or makes the torrent of each path.
fn prepare(
    args: &Seed,
    announce: &[Vec<String>],
    tools: &dyn Tools,
    host: &Host,
    stop: &Interrupt,
) -> Result<Vec<Offer>, Failure> {
    let identity = read_identity(&args.engine, host)?;
    let mut offers = Vec::new();
    for path in &args.paths {
        let full = host.at(path);
        let is_torrent =
            full.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("torrent")) && !full.is_dir();
        offers.push(if is_torrent {
            let torrent = Torrent::read(&full)?;
            let dir = match &args.dir {
                Some(dir) => content_dir(&torrent, &host.at(dir)),
                None => full.parent().unwrap_or(&host.cwd).to_owned(),
            };
            let tls = identity_for(&torrent, identity.as_ref());
            Offer { torrent, file: Some(full), dir, verify: Verify::Resume, tls }
        } else {
            make_torrent(path, announce, tools, host, stop)?
        });
    }
    Ok(offers)
}

/// Makes the torrent of bare content and stores it in the current directory, unless it is there already.
fn make_torrent(
    path: &Path,
    announce: &[Vec<String>],
    tools: &dyn Tools,
    host: &Host,
    stop: &Interrupt,
) -> Result<Offer, Failure> {
    let content = content_path(host, path)?;
    let dir = content.parent().map_or_else(|| host.cwd.clone(), Path::to_owned);
    let mut name = content.file_name().unwrap_or_default().to_owned();
    name.push(".torrent");
    let file = host.at(Path::new(&name));
    // Without a date, so that seeding the same content again finds the same torrent.
    let request = CreateRequest {
        trackers: announce.to_vec(),
        created_by: Some(tools.program()),
        ..CreateRequest::new(content)
    };
    let created = make(&request, tools, host, stop)?;
    let made = Torrent::parse(Arc::clone(&created.metainfo), &file.display().to_string())?;
    if file.symlink_metadata().is_err() {
        write_new(&file, &made.bytes, false)?;
        return Ok(Offer { torrent: made, file: Some(file), dir, verify: Verify::Trust, tls: None });
    }
    let there =
        Torrent::read(&file).ok().filter(|there| there.metainfo.info_hashes() == made.metainfo.info_hashes());
    // The same content under the same name: its own trackers stay, ours are added.
    let Some(torrent) = there else {
        let wrong = "exists already and is another torrent";
        return Err(Failure::failed(file.display(), wrong, "move it away, or seed from another directory"));
    };
    Ok(Offer { torrent, file: Some(file), dir, verify: Verify::Trust, tls: None })
}

/// Tells what is seeded, and how others get it.
fn introduce(offer: &Offer, fleet: &Fleet, host: &mut Host) -> Result<(), Failure> {
    let name = offer.torrent.name();
    let file = offer.file.as_ref().map(|file| file.display().to_string());
    let magnet = offer.torrent.metainfo.magnet();
    if fleet.screen.is_json() {
        return Ok(fleet
            .screen
            .json(host, &Offered { event: "offered", name, torrent_file: file, magnet })?);
    }
    host.say(format!("seeding {name}"))?;
    if let Some(file) = file {
        host.say(safe(&file))?;
    }
    Ok(host.say(safe(&magnet))?)
}

#[derive(Serialize)]
struct Offered {
    event: &'static str,
    name: String,
    torrent_file: Option<String>,
    magnet: String,
}
