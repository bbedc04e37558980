//! kill -9 at any moment: the real binary downloads, dies, and starts again, until it has all.
//!
//! After each death two things must hold. The record on disk claims no piece that is not there, byte for byte. And the
//! next start has every piece again that the record claimed, none that is not there, and lacks of what is there no
//! more than five seconds of work.
//!
//! `PIECEMEAL_KILLS` and `PIECEMEAL_KILL_SEED` ask for more kills, or others; a failure names its seed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use piecemeal::api::{AddTorrent, Cancel, CreateRequest, EngineOptions, Format, Verify, Work};
use piecemeal::{Session, tools};
use piecemeal_metainfo::PieceIndex;
use piecemeal_package::ResumeFacts;
use serde_json::Value;

const PIECE: usize = 64 << 10;
const PIECES: usize = 400;
/// So slow that many kills fall into one download, in bytes per second.
const RATE: usize = 2_000_000;
/// What the promise allows to be lost, in pieces.
const MAY_LOSE: usize = 5 * RATE / PIECE;
/// What nightly runs have more of.
const KILLS: u64 = 50;
/// However the dice fall, the test ends.
const AT_MOST: Duration = Duration::from_secs(90);

#[test]
fn a_killed_download_never_claims_what_it_has_not_and_loses_little() {
    let kills = number("PIECEMEAL_KILLS").unwrap_or(KILLS);
    let seed = number("PIECEMEAL_KILL_SEED").unwrap_or(u64::from(std::process::id()));
    let at_most = AT_MOST * u32::try_from(kills.div_ceil(KILLS)).unwrap();
    let stage = Stage::new();
    let mut dice = Dice(seed);
    let began = Instant::now();
    let (mut done, mut restarts, mut completed, mut most_lost) = (0, 0, 0, 0);
    let mut last: Option<Left> = None;
    while done < kills && began.elapsed() < at_most {
        let mut child = stage.start();
        let killed = !wait(&mut child, dice.moment());
        if killed {
            child.kill().unwrap();
        }
        let ended = child.wait().unwrap();
        let left = stage.left();
        let why = || format!("after kill {done} of seed {seed}; see {}", stage.0.keep());
        for piece in (0..PIECES).filter(|piece| left.claimed[*piece]) {
            assert!(left.there[piece], "piece {piece} is claimed but not there {}", why());
        }
        if let (Some(before), Some(start)) = (&last, stage.first_have()) {
            restarts += 1;
            let (claimed, there) = (count(&before.claimed), count(&before.there));
            assert!(start <= there, "it began with {start} pieces, but {there} were there {}", why());
            assert!(start >= claimed, "it began with {start} pieces, but {claimed} were claimed {}", why());
            assert!(start + MAY_LOSE >= there, "of {there} pieces it began with {start} {}", why());
            most_lost = most_lost.max(there - start);
        }
        last = Some(left);
        if killed {
            done += 1;
        } else {
            assert!(ended.success(), "it failed by itself: {ended} {}", why());
            assert_eq!(last.take().map(|left| count(&left.there)), Some(PIECES), "{}", why());
            completed += 1;
            stage.clear();
        }
    }
    // The last one may end in peace.
    let mut child = stage.start();
    assert!(wait(&mut child, AT_MOST), "it does not end, seed {seed}");
    assert!(child.wait().unwrap().success(), "seed {seed}");
    assert_eq!(count(&stage.left().there), PIECES, "seed {seed}");
    let took = began.elapsed();
    println!("{done} kills, {restarts} restarts looked at, {completed} completed, {took:?}");
    println!("at most {most_lost} of {PIECES} pieces were fetched again after a kill");
    assert!(restarts > done / 3, "only {restarts} restarts got far enough to be looked at, seed {seed}");
}

/// A seed in this process, and a place for the download.
struct Stage(Place, Session);

struct Place {
    folder: tempfile::TempDir,
    content: Vec<u8>,
}

/// What a death left.
struct Left {
    there: Vec<bool>,
    claimed: Vec<bool>,
}

impl Stage {
    fn new() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed/film");
        fs::create_dir(folder.path().join("seed")).unwrap();
        let mut dice = Dice(1);
        let content: Vec<u8> = (0..PIECES * PIECE / 8).flat_map(|_| dice.roll().to_le_bytes()).collect();
        fs::write(&path, &content).unwrap();
        let request = CreateRequest {
            piece_length: Some(PIECE as u64),
            format: Format::V1,
            ..CreateRequest::new(path)
        };
        let work = Work { progress: &|_| {}, cancel: &Cancel::default() };
        let torrent = tools::create(&request, &work).unwrap().metainfo;
        fs::write(folder.path().join("film.torrent"), &torrent).unwrap();
        let options =
            EngineOptions { listen: vec!["127.0.0.1:0".parse().unwrap()], ..EngineOptions::default() };
        let session = Session::start(&options).unwrap();
        let seed = AddTorrent::new(torrent, folder.path().join("seed"));
        session.add(AddTorrent { verify: Verify::Trust, ..seed }).unwrap();
        Stage(Place { folder, content }, session)
    }

    fn start(&self) -> Child {
        let path = |name: &str| self.0.folder.path().join(name);
        Command::new(env!("CARGO_BIN_EXE_piecemeal"))
            .args(["get", "--json", "--listen", "127.0.0.1:0"])
            .args(["--down-limit", &RATE.to_string(), "--peer", &self.1.listening()[0].to_string()])
            .args([path("film.torrent").as_os_str(), "-o".as_ref(), path("get").as_os_str()])
            .env("XDG_STATE_HOME", path("state"))
            .stdin(Stdio::null())
            .stdout(File::create(path("out")).unwrap())
            .stderr(File::create(path("err")).unwrap())
            .spawn()
            .unwrap()
    }

    fn left(&self) -> Left {
        let is = fs::read(self.0.folder.path().join("get/film")).unwrap_or_default();
        let pieces = self.0.content.chunks(PIECE).enumerate();
        let there = pieces.map(|(at, piece)| is.get(at * PIECE..(at + 1) * PIECE) == Some(piece)).collect();
        let claimed = match self.record() {
            Some(path) => {
                let facts = ResumeFacts::decode(&fs::read(path).unwrap()).expect("a record is never torn");
                (0..PIECES).map(|piece| facts.have.get(PieceIndex(piece as u32))).collect()
            }
            None => vec![false; PIECES],
        };
        Left { there, claimed }
    }

    fn record(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(self.0.folder.path().join("state/piecemeal")).ok()?;
        let mut paths = entries.map(|entry| entry.unwrap().path());
        paths.find(|path| path.extension().is_some_and(|extension| extension == "facts"))
    }

    /// The pieces that the program that just ended began with; `None` if it did not get so far.
    fn first_have(&self) -> Option<usize> {
        let out = fs::read_to_string(self.0.folder.path().join("out")).unwrap();
        // The last line may be cut.
        let events = out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let snapshots = events.filter(|event| event["event"] == "snapshot");
        let snapshots: Vec<Value> = snapshots.map(|event| event["status"].clone()).collect();
        let open = |status: &&Value| matches!(status["state"].as_str(), Some("downloading" | "seeding"));
        let first = snapshots.iter().find(open)?;
        // If something came in before the first look, it does not show what it began with.
        let received = |status: &Value| status["totals"]["downloaded"].as_u64().unwrap();
        let nothing_new = received(first) == received(&snapshots[0]);
        nothing_new.then(|| first["have_pieces"].as_u64().unwrap() as usize)
    }

    fn clear(&self) {
        for name in ["get", "state"] {
            let _ = fs::remove_dir_all(self.0.folder.path().join(name));
        }
    }
}

impl Place {
    /// For who looks into a failure.
    fn keep(&self) -> String {
        let copy = std::env::temp_dir().join(format!("piecemeal-kill-{}", std::process::id()));
        let from = self.folder.path();
        let copied = copy_all(from, &copy);
        copied.map_or_else(|why| format!("nothing: {why}"), |()| copy.display().to_string())
    }
}

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Whether it ends by itself within `span`.
fn wait(child: &mut Child, span: Duration) -> bool {
    let until = Instant::now() + span;
    while Instant::now() < until {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

fn count(bits: &[bool]) -> usize {
    bits.iter().filter(|bit| **bit).count()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Steele, Lea, Flood: SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Mostly while it starts, opens or downloads a little; now and then when facts were just written or are.
    fn moment(&mut self) -> Duration {
        let ms = match self.roll() % 10 {
            0 => 4_800 + self.roll() % 900,
            1..=3 => self.roll() % 150,
            _ => 100 + self.roll() % 1_100,
        };
        Duration::from_millis(ms)
    }
}
