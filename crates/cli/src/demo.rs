//! `piecemeal demo`: proof in two minutes, with no network.
//!
//! A tracker, one seed and two leeches, each an engine of its own that knows of the others only what the tracker
//! tells. The parts are those of `create`, `seed`, `get` and `verify`; nothing joins seed and leech but sockets.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use piecemeal_api::{
    AddTorrent, CreateRequest, EngineOptions, Phase, Progress, RunningTracker, Tools, TrackerOptions, Verify,
};

use crate::args::Demo;
use crate::create::make;
use crate::fail::Failure;
use crate::get::conclude;
use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::progress::{Screen, WorkScreen};
use crate::seed::{Offer, offer};
use crate::source::{Torrent, reason};
use crate::units::{mean_rate, rate, size, span};
use crate::verify::judge;
use crate::watch::{End, Fleet, Goal};

/// Who downloads. Two, so that they also have something to give each other.
const LEECHES: [&str; 2] = ["leech 1", "leech 2"];
/// Content below this is no content; above, the sizes of the sample's files differ enough to be interesting.
const LEAST_BYTES: u64 = 64 << 10;
/// On loopback something moves every second, even while checking on a slow disk; this is a hang.
const PATIENCE: Duration = Duration::from_secs(60);
/// Content is made and compared in steps of this.
const STEP_BYTES: usize = 1 << 20;
/// Any free port of this machine, out of reach of others.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Runs the command.
pub fn run(args: &Demo, tools: &dyn Tools, host: &mut Host, stop: &Interrupt) -> Result<(), Failure> {
    if args.size < LEAST_BYTES {
        return Err(Failure::usage(
            "--size",
            format_args!("{} is too little", size(args.size)),
            "use 64KiB or more",
        ));
    }
    let place = Place::new(&host.temp_dir)?;
    let mut fleet = Fleet::new(Screen::new(host, false));
    let mut tracker =
        tools.start_tracker(&TrackerOptions { listen: vec![LOOPBACK], ..TrackerOptions::default() })?;
    let result = prove(args, &place, &*tracker, &mut fleet, tools, host, stop);
    fleet.leave(host, stop);
    tracker.stop();
    drop(place);
    if result.is_ok() {
        host.say("everything works; nothing was left behind")?;
    }
    result
}

fn prove(
    args: &Demo,
    place: &Place,
    tracker: &dyn RunningTracker,
    fleet: &mut Fleet,
    tools: &dyn Tools,
    host: &mut Host,
    stop: &Interrupt,
) -> Result<(), Failure> {
    let content = place.0.join("seed").join("sample");
    host.say(format!("making {} of sample content", size(args.size)))?;
    let files = make_content(&content, args.size, host, stop)?;
    let torrent = torrent_of(&content, tracker.urls(), tools, host, stop)?;
    host.say(format!("tracker at {}, one seed, {} leeches", tracker.urls().join(", "), LEECHES.len()))?;

    let seed = fleet.start(tools, &options())?;
    let dir = place.0.join("seed");
    let offers = [Offer { torrent: torrent.clone(), file: None, dir, verify: Verify::Full, tls: None }];
    offer(&offers, seed, &[], fleet, host, stop)?;
    fleet.items[0].name = "seed".to_owned();
    // Its goal is reached: from here on it is only shown, and the loop ends when the leeches are done.
    fleet.screen.end();

    let (began, cpu) = (Instant::now(), tools.cpu_time());
    for name in LEECHES {
        let engine = fleet.start(tools, &options())?;
        let dir = place.0.join(name);
        let add = AddTorrent::new(torrent.bytes.clone(), &dir);
        fleet.add(engine, add, name.to_owned(), torrent.place(&dir), Goal::Complete)?;
    }
    if fleet.watch(host, stop, Some(PATIENCE))? == End::Interrupted {
        return Err(Failure::Interrupted);
    }
    let took = began.elapsed();
    let cpu = tools.cpu_time().zip(cpu).map(|(after, before)| after.saturating_sub(before));
    conclude(fleet, host)?;
    report(args.size * LEECHES.len() as u64, took, cpu, host)?;
    check(place, &torrent, &files, tools, host, stop)
}

fn options() -> EngineOptions {
    EngineOptions { listen: vec![LOOPBACK], ..EngineOptions::default() }
}

fn torrent_of(
    content: &Path,
    urls: Vec<String>,
    tools: &dyn Tools,
    host: &Host,
    stop: &Interrupt,
) -> Result<Torrent, Failure> {
    let request = CreateRequest { trackers: vec![urls], ..CreateRequest::new(content) };
    let created = make(&request, tools, host, stop)?;
    Torrent::parse(created.metainfo, "the sample's torrent")
}

fn report(bytes: u64, took: Duration, cpu: Option<Duration>, host: &mut Host) -> Result<(), Failure> {
    let moved = format!("together {} in {}, {}", size(bytes), span(took), rate(mean_rate(bytes, took)));
    let Some(cpu) = cpu else { return Ok(host.say(moved)?) };
    let gib = bytes as f64 / (1_u64 << 30) as f64;
    let each = cpu.as_secs_f64() / gib;
    // All three engines run in this process, so this is both ends of every byte.
    Ok(host.say(format!("{moved}; {:.1} s of CPU for both ends, {each:.1} s per GiB", cpu.as_secs_f64()))?)
}

/// Twice, by different means: the bytes against the original's, and the hashes against the torrent's.
fn check(
    place: &Place,
    torrent: &Torrent,
    files: &[PathBuf],
    tools: &dyn Tools,
    host: &mut Host,
    stop: &Interrupt,
) -> Result<(), Failure> {
    for name in LEECHES {
        for file in files {
            let (original, copy) =
                (place.0.join("seed/sample").join(file), place.0.join(name).join("sample").join(file));
            let same = same_bytes(&original, &copy, stop);
            if !same.map_err(|why| {
                Failure::failed(copy.display(), reason(&why), "see whether the disk is well")
            })? {
                let remedy = "this is a fault in the program; please report it";
                return Err(Failure::failed(copy.display(), "differs from the original", remedy));
            }
        }
        let verdict = judge(torrent, &place.0.join(name), tools, host, stop)?;
        if !verdict.good() {
            let remedy = "this is a fault in the program; please report it";
            return Err(Failure::failed(name, "the copy does not match the torrent", remedy));
        }
        host.say(format!("{name}: every byte the same, all {} pieces good", verdict.pieces))?;
    }
    Ok(())
}

/// A directory that is gone when the value is, whatever happens.
struct Place(PathBuf);

impl Place {
    fn new(temp: &Path) -> Result<Place, Failure> {
        let failed =
            |why: &io::Error| Failure::failed(temp.display(), reason(why), "set TMPDIR to a place with room");
        for attempt in 0..1000 {
            let dir = temp.join(format!("piecemeal-demo-{}-{attempt}", std::process::id()));
            match fs::create_dir(&dir) {
                Ok(()) => return Ok(Place(dir)),
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
                Err(why) => return Err(failed(&why)),
            }
        }
        Err(Failure::failed(temp.display(), "is full of old demonstrations", "remove piecemeal-demo-*"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Files of different sizes that share pieces, in directories, one of them empty; their paths below `dir`.
fn make_content(dir: &Path, total: u64, host: &Host, stop: &Interrupt) -> Result<Vec<PathBuf>, Failure> {
    let small = 10_007;
    let middle = total / 16 + 1;
    let files = [
        ("big.bin", total - middle - small),
        ("empty", 0),
        ("papers/middle.bin", middle),
        ("papers/small.txt", small),
    ];
    let screen = WorkScreen::new(host, "making sample");
    let mut random = SplitMix(total);
    let mut done = 0;
    for (name, bytes) in files {
        let path = dir.join(name);
        let mut write = || -> io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(dir))?;
            let mut file = BufWriter::with_capacity(STEP_BYTES, File::create(&path)?);
            let mut step = vec![0; STEP_BYTES];
            let mut left = bytes;
            while left > 0 && stop.count() == 0 {
                let now = left.min(STEP_BYTES as u64) as usize;
                random.fill(&mut step[..now]);
                file.write_all(&step[..now])?;
                left -= now as u64;
                done += now as u64;
                screen.report(Progress { phase: Phase::Scanning, done, total });
            }
            file.flush()
        };
        let written = write();
        written.map_err(|why| {
            Failure::failed(path.display(), reason(&why), "free some room, or use a smaller --size")
        })?;
    }
    screen.end();
    if stop.count() > 0 {
        return Err(Failure::Interrupted);
    }
    Ok(files.iter().map(|(name, _)| PathBuf::from(name)).collect())
}

fn same_bytes(one: &Path, other: &Path, stop: &Interrupt) -> io::Result<bool> {
    let (mut one, mut other) = (
        BufReader::with_capacity(STEP_BYTES, File::open(one)?),
        BufReader::with_capacity(STEP_BYTES, File::open(other)?),
    );
    let (mut left, mut right) = (vec![0; STEP_BYTES], vec![0; STEP_BYTES]);
    while stop.count() == 0 {
        let (n, m) = (read_full(&mut one, &mut left)?, read_full(&mut other, &mut right)?);
        if left[..n] != right[..m] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
    Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"))
}

fn read_full(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match from.read(&mut into[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Bytes that no disk or link can compress, the same on every run (Steele, Lea, Flood: SplitMix64).
struct SplitMix(u64);

impl SplitMix {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.0;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}
