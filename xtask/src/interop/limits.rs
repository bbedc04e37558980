//! What ours promises of the machine: a full disk is waited out, memory is bounded, and who has nothing to do sleeps.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::content::{Content, NAME, Shape, link, same};
use super::makers::{Maker, Order};
use super::net::Net;
use super::peers::{Client, Peer, Task, ours};
use super::{Case, Stage};
use crate::proc::{Thread, peak_memory, threads};
use crate::run::{Running, run};

/// Most memory `get` may hold: the promise of the command.
const GET_BYTES: u64 = 160 << 20;
/// And `verify`, without its stacks.
const VERIFY_BYTES: u64 = 64 << 20;
/// What a thread's stack may have touched.
const STACK_BYTES: u64 = 2 << 20;
/// An engine may wake so often in a second.
const WAKES_A_SECOND: f64 = 10.0;
/// And the command around it, which has a little to say now and then.
const COMMAND_WAKES_A_SECOND: f64 = 1.0;
/// How long an idle engine is watched.
const WATCH: Duration = Duration::from_secs(10);
/// Everything that starting leaves to be done is done then.
const SETTLE: Duration = Duration::from_secs(5);

/// All alone: they measure, or fill disks.
pub fn cases() -> Vec<Case> {
    vec![
        Case::alone("limits/disk-full", disk_full),
        Case::alone("limits/memory-get", memory_get),
        Case::alone("limits/memory-verify", memory_verify),
        Case::alone("limits/idle-alone", idle_alone),
        Case::alone("limits/idle-with-a-peer", idle_with_a_peer),
    ]
}

/// Seed and leech of ours, or one of them another's.
struct Pair {
    seed: Peer,
    leech: Option<Peer>,
}

fn order(stage: &Stage<'_>, dir: &Path, piece_length: u64) -> Result<std::path::PathBuf> {
    let torrent = stage.dir.join("x.torrent");
    let order = Order { content: &dir.join(NAME), out: &torrent, piece_length, format: "v1", tracker: None };
    Maker::Piecemeal.make(stage.binary, stage.dir, &order)?;
    Ok(torrent)
}

fn start(
    stage: &Stage<'_>,
    seeder: Client,
    from: &Path,
    to: Option<&Path>,
    piece_length: u64,
) -> Result<Pair> {
    let torrent = order(stage, from, piece_length)?;
    let states = [stage.dir.join("seed.state"), stage.dir.join("leech.state")];
    let task = |index: u16, dir, peers| Task {
        host: stage.host(index),
        torrent: &torrent,
        dir,
        state: &states[usize::from(index)],
        peers,
        up_limit: 0,
        once: false,
    };
    let seed = seeder.seed(stage.binary, &task(0, from, &[]))?;
    stage.wait_for_port(stage.host(0).peer(), Duration::from_secs(10))?;
    let told = [stage.host(0).peer()];
    let leech = to.map(|to| Client::Piecemeal.leech(stage.binary, &task(1, to, &told))).transpose()?;
    Ok(Pair { seed, leech })
}

/// `get` onto a disk that is too small stops with the reason, and goes on when it has grown.
fn disk_full(stage: &Stage<'_>) -> Result<String> {
    if stage.net == Net::Loopback {
        return Ok("left out: no mounts here".to_owned());
    }
    let content = Content { shape: Shape::One, piece_length: 256 << 10, pieces: 96 };
    let from = stage.dir.join("from");
    link(&stage.content(&content)?, &from)?;
    let to = stage.dir.join("to");
    fs::create_dir_all(&to)?;
    let place = to.to_str().context("a path in UTF-8")?;
    run(Path::new("/"), "mount", &["-t", "tmpfs", "-o", "size=8m", "tmpfs", place])?;
    let _unmount = Unmount(place);
    let mut pair = start(stage, Client::Piecemeal, &from, Some(&to), content.piece_length)?;
    let leech = pair.leech.as_mut().context("a leech")?;
    let full = |line: &str| line.contains("\"event\":\"trouble\"") && line.contains("disk_full");
    let trouble = leech.running.line(Duration::from_secs(30), full)?;
    if !trouble.contains("\"retries\":true") {
        bail!("it will not try again: {trouble}");
    }
    run(Path::new("/"), "mount", &["-o", "remount,size=64m", place])?;
    let began = Instant::now();
    leech.finish(Duration::from_secs(60)).context("there is room again")?;
    let after = began.elapsed();
    pair.leech.take().context("a leech")?.leave()?;
    same(&from, &to)?;
    Ok(format!("stopped with the reason, done {:.1} s after there was room", after.as_secs_f64()))
}

struct Unmount<'a>(&'a str);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        // Lazy: whoever still writes there is ended later. What stays mounted goes with our namespace.
        let _ = run(Path::new("/"), "umount", &["--lazy", self.0]);
    }
}

/// Content without a byte on disk: one file, all hole.
fn sparse(stage: &Stage<'_>) -> Result<u64> {
    let size = (stage.options.size_gib << 30) + 1;
    let dir = stage.dir.join("from");
    fs::create_dir_all(&dir)?;
    File::create(dir.join(NAME))?.set_len(size)?;
    Ok(size)
}

/// The largest pieces: whoever keeps whole pieces in memory is found out.
const LARGE_PIECES: u64 = 16 << 20;

fn memory_get(stage: &Stage<'_>) -> Result<String> {
    let size = sparse(stage)?;
    let (from, to) = (stage.dir.join("from"), stage.dir.join("to"));
    let began = Instant::now();
    let mut pair = start(stage, Client::Piecemeal, &from, Some(&to), LARGE_PIECES)?;
    let leech = pair.leech.as_mut().context("a leech")?;
    // 20 MB/s is slow for a disk, and all this is for.
    leech.finish(Duration::from_secs(60 + size / 20_000_000))?;
    let took = began.elapsed();
    let (get, _) = peak_memory(leech.running.pid())?;
    let (seed, _) = peak_memory(pair.seed.running.pid())?;
    let on_disk = to.join(NAME).metadata()?.len();
    if on_disk != size {
        bail!("{on_disk} of {size} bytes");
    }
    let note = format!(
        "{} GiB in {:.0} s: get {} MiB, seed {} MiB; at most {} MiB",
        stage.options.size_gib,
        took.as_secs_f64(),
        get >> 20,
        seed >> 20,
        GET_BYTES >> 20
    );
    if get.max(seed) > GET_BYTES { bail!("{note}") } else { Ok(note) }
}

fn memory_verify(stage: &Stage<'_>) -> Result<String> {
    sparse(stage)?;
    let torrent = order(stage, &stage.dir.join("from"), LARGE_PIECES)?;
    let mut command = ours(stage.host(0).command(stage.binary), stage.dir);
    command.arg("verify").arg(&torrent).arg(stage.dir.join("from"));
    let began = Instant::now();
    let mut running = Running::start("verify", command, &stage.dir.join("verify.log"))?;
    let mut peak = (0, 0);
    while running.poll()?.is_none() {
        // Gone between two looks: the last look counts.
        if let Ok(now) = peak_memory(running.pid()) {
            peak = (peak.0.max(now.0), peak.1.max(now.1));
        }
        thread::sleep(Duration::from_millis(5));
    }
    running.finish(Duration::ZERO)?;
    let bound = VERIFY_BYTES + peak.1 * STACK_BYTES;
    let rate = (stage.options.size_gib << 10) as f64 / began.elapsed().as_secs_f64();
    let note =
        format!("{} MiB, {rate:.0} MiB/s; at most {} MiB with {} threads", peak.0 >> 20, bound >> 20, peak.1);
    if peak.0 > bound { bail!("{note}") } else { Ok(note) }
}

/// Seeding with nobody there and no tracker: nothing is due, so nobody wakes.
fn idle_alone(stage: &Stage<'_>) -> Result<String> {
    let content = Content { shape: Shape::One, piece_length: 16 << 10, pieces: 256 };
    let from = stage.dir.join("from");
    link(&stage.content(&content)?, &from)?;
    let pair = start(stage, Client::Piecemeal, &from, None, content.piece_length)?;
    let woke = watch(pair.seed.running.pid())?;
    if woke.engine + woke.command > 0 {
        bail!("nothing is due, yet it woke; {}", woke.note);
    }
    Ok(woke.note)
}

/// Complete on both sides and connected: keep-alives and rounds of choking, no more.
fn idle_with_a_peer(stage: &Stage<'_>) -> Result<String> {
    let content = Content { shape: Shape::One, piece_length: 16 << 10, pieces: 256 };
    let (from, to) = (stage.dir.join("from"), stage.dir.join("to"));
    link(&stage.content(&content)?, &from)?;
    let mut pair = start(stage, Client::Piecemeal, &from, Some(&to), content.piece_length)?;
    let leech = pair.leech.as_mut().context("a leech")?;
    leech.finish(Duration::from_secs(30))?;
    let mut notes = Vec::new();
    for (name, running) in [("seed", &pair.seed.running), ("get", &leech.running)] {
        let woke = watch(running.pid())?;
        let many = |wakes: u64, a_second: f64| wakes as f64 > a_second * WATCH.as_secs_f64();
        if many(woke.engine, WAKES_A_SECOND) || many(woke.command, COMMAND_WAKES_A_SECOND) {
            bail!("{name} {}", woke.note);
        }
        notes.push(format!("{name} {}", woke.note));
    }
    Ok(notes.join("; "))
}

/// How often a process woke in a while.
struct Woke {
    /// The threads of the engine.
    engine: u64,
    /// The main thread, which is the command's: it hears events and Ctrl-C, and draws.
    command: u64,
    /// A line about all threads.
    note: String,
}

fn watch(pid: u32) -> Result<Woke> {
    thread::sleep(SETTLE);
    let before = threads(pid)?;
    thread::sleep(WATCH);
    let after = threads(pid)?;
    let woke = |thread: &Thread| {
        let start = before.iter().find(|old| old.id == thread.id).map_or(0, |old| old.sleeps);
        thread.sleeps - start
    };
    let (own, engine): (Vec<_>, Vec<_>) = after.iter().partition(|thread| thread.id == pid);
    let total = engine.iter().map(|thread| woke(thread)).sum();
    let busy: Vec<_> = engine
        .iter()
        .filter(|thread| woke(thread) > 0)
        .map(|thread| format!("{} {}", thread.name, woke(thread)))
        .collect();
    let seconds = WATCH.as_secs();
    let command: u64 = own.iter().map(|thread| woke(thread)).sum();
    let note = format!("in {seconds} s: engine {total} wakes ({}), command {command}", busy.join(", "));
    Ok(Woke { engine: total, command, note })
}
