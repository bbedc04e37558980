//! `cargo xtask bench utp`: what each road to a peer costs: TCP, TCP with a stream that is encrypted, and uTP.
//!
//! Two of the same client swap content over loopback, one road at a time, and take turns with two of another client.
//! Each end's CPU time is counted from when it is ready until the leech has everything, hashing and writing included,
//! as the kernel tells it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::table::median;
use super::{circumstances, quiet, size};
use crate::interop::build_release;
use crate::interop::content::{NAME, Noise, same};
use crate::interop::makers::{Maker, Order};
use crate::interop::net::Net;
use crate::interop::peers::{Carrier, Client, Encryption, Road, Task, Ways};
use crate::interop::tracker::Tracker;
use crate::proc::cpu_time;
use crate::run::root;

const HELP: &str = "\
cargo xtask bench utp [OPTIONS]
  --size SIZE     content of our turns, such as 1GiB [default: 1GiB]
  --runs N        rounds [default: 5]
  --only WORD     tcp, rc4 or utp [default: all]
  --out FILE      [default: bench/roads.md]
  --binary FILE   the piecemeal to measure [default: a release build of this workspace]
  --force         also on a busy machine: for trying the harness, not for figures";

/// Bytes a piece.
const PIECE_LENGTH: u64 = 1 << 20;
/// libtorrent's uTP is slow on loopback, so its turns have this much less to swap.
const LESS_FOR_OTHERS: u64 = 4;
/// Nobody is slower.
const LEAST_RATE: u64 = 2_000_000;

struct Options {
    size: u64,
    runs: usize,
    only: String,
    out: PathBuf,
    binary: Option<PathBuf>,
    force: bool,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// CPU seconds per GiB of each end.
    seed: f64,
    leech: f64,
    /// MiB/s.
    rate: f64,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
struct Contest {
    name: &'static str,
    word: &'static str,
    road: Road,
}

const ROADS: [Contest; 3] = [
    Contest { name: "TCP", word: "tcp", road: Road { carrier: Carrier::Tcp, encryption: Encryption::Off } },
    Contest {
        name: "TCP, all of it encrypted (RC4)",
        word: "rc4",
        road: Road { carrier: Carrier::Tcp, encryption: Encryption::Require },
    },
    Contest { name: "uTP", word: "utp", road: Road { carrier: Carrier::Utp, encryption: Encryption::Off } },
];

/// Runs the command.
pub fn run(args: &[String]) -> Result<()> {
    let Some(options) = parse(args)? else { return Ok(()) };
    if !options.force {
        quiet::no_forgotten_peers()?;
    }
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => build_release()?,
    };
    let dir = root().join("target/bench-roads");
    let mut text = String::from("# Roads to a peer\n\nWritten by `cargo xtask bench utp`; do not edit.\n\n");
    text.push_str(&circumstances(&binary, &dir, options.runs));
    for contest in ROADS.iter().filter(|contest| options.only.is_empty() || contest.word == options.only) {
        text.push_str(&table(&options, &binary, &dir, contest)?);
    }
    println!("\n{text}");
    fs::write(&options.out, text).with_context(|| options.out.display().to_string())?;
    Ok(fs::remove_dir_all(&dir)?)
}

fn table(options: &Options, binary: &Path, dir: &Path, contest: &Contest) -> Result<String> {
    let clients = [Client::Piecemeal, Client::Libtorrent];
    let mut samples: [Vec<Sample>; 2] = Default::default();
    for round in 1..=options.runs {
        for (client, samples) in clients.into_iter().zip(&mut samples) {
            if !options.force {
                quiet::wait()?;
            }
            let size =
                if client == Client::Piecemeal { options.size } else { options.size / LESS_FOR_OTHERS };
            let sample = turn(binary, dir, client, contest.road, size)?;
            let Sample { seed, leech, rate } = sample;
            println!(
                "round {round} {:8} {:12} seed {seed:5.2} leech {leech:5.2} CPU s/GiB {rate:7.1} MiB/s",
                contest.word,
                client.name()
            );
            samples.push(sample);
        }
    }
    let mut text = format!(
        "\n## {}\n\n| who | seed, CPU s/GiB | least - most | leech, CPU s/GiB | least - most | MiB/s | x ours, both ends |\n\
         |---|--:|--:|--:|--:|--:|--:|\n",
        contest.name
    );
    let both = |samples: &[Sample]| median(samples.iter().map(|sample| sample.seed + sample.leech).collect());
    for (client, own) in clients.into_iter().zip(&samples) {
        let of = |what: fn(&Sample) -> f64| -> (f64, f64, f64) {
            let all: Vec<f64> = own.iter().map(what).collect();
            let least = all.iter().copied().fold(f64::INFINITY, f64::min);
            let most = all.iter().copied().fold(0.0, f64::max);
            (median(all), least, most)
        };
        let (seed, leech, rate) = (of(|s| s.seed), of(|s| s.leech), of(|s| s.rate));
        let ratio = both(own) / both(&samples[0]);
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.2} - {:.2} | {:.2} | {:.2} - {:.2} | {:.1} | {ratio:.2} |",
            client.name(),
            seed.0,
            seed.1,
            seed.2,
            leech.0,
            leech.1,
            leech.2,
            rate.0
        );
    }
    Ok(text)
}

/// Two of one client swap `size` bytes.
fn turn(binary: &Path, dir: &Path, client: Client, road: Road, size: u64) -> Result<Sample> {
    let fresh = |name: &str| -> Result<PathBuf> {
        let path = dir.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(path)
    };
    let from = dir.join(format!("from-{size}"));
    if !from.join(NAME).exists() {
        fs::create_dir_all(&from)?;
        Noise(1).write(&from.join(NAME), size)?;
    }
    let (to, states) = (fresh("to")?, [fresh("seed.state")?, fresh("leech.state")?]);
    let tracker = Tracker::start(Net::Loopback.own_ip())?;
    let torrent = dir.join(format!("{size}.torrent"));
    let order = Order {
        content: &from.join(NAME),
        out: &torrent,
        piece_length: PIECE_LENGTH,
        format: "v1",
        tracker: Some(&tracker.url()),
    };
    let _ = fs::remove_file(&torrent);
    Maker::Libtorrent.make(binary, dir, &order)?;
    let (seed_host, leech_host) = (Net::Loopback.host(1), Net::Loopback.host(2));
    let task = |host, dir, state, peers| Task {
        host,
        torrent: &torrent,
        dir,
        state,
        peers,
        up_limit: 0,
        once: false,
    };
    let ways = Ways { road, ..Ways::default() };
    let limit = Duration::from_secs(30 + size / LEAST_RATE);
    let told = [seed_host.peer()];
    let seed = client.start(binary, &task(&seed_host, &from, &states[0], &[]), true, &ways)?;
    tracker.wait_for(seed_host.peer(), Duration::from_secs(20))?;
    super::swap::settle(seed.running.pid())?;
    let before = cpu_time(seed.running.pid())?;
    let mut leech = client.start(binary, &task(&leech_host, &to, &states[1], &told), false, &ways)?;
    let (own_before, began) = (cpu_time(leech.running.pid())?, Instant::now());
    leech.finish(limit)?;
    let wall = began.elapsed().as_secs_f64();
    let gib = size as f64 / f64::from(1 << 30);
    let per_gib = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64() / gib;
    let sample = Sample {
        seed: per_gib(cpu_time(seed.running.pid())?, before),
        leech: per_gib(cpu_time(leech.running.pid())?, own_before),
        rate: size as f64 / f64::from(1 << 20) / wall,
    };
    leech.leave()?;
    drop(seed);
    same(&from, &to)?;
    Ok(sample)
}

fn parse(args: &[String]) -> Result<Option<Options>> {
    let mut options = Options {
        size: 1 << 30,
        runs: 5,
        only: String::new(),
        out: root().join("bench/roads.md"),
        binary: None,
        force: false,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--size" => options.size = size(value()?)?,
            "--runs" => options.runs = value()?.parse().context("--runs")?,
            "--only" => options.only.clone_from(value()?),
            "--out" => options.out = std::path::absolute(value()?)?,
            "--binary" => options.binary = Some(std::path::absolute(value()?)?),
            "--force" => options.force = true,
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(None);
            }
            other => anyhow::bail!("{other}: no such option\n{HELP}"),
        }
    }
    ensure!(options.runs > 0 && options.size >= 64 << 20, "0 is too little, and so is less than 64MiB");
    let known = options.only.is_empty() || ROADS.iter().any(|contest| contest.word == options.only);
    ensure!(known, "--only {}: no such road\n{HELP}", options.only);
    Ok(Some(options))
}
