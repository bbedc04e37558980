//! `cargo xtask bench`: CPU seconds per GiB beside other clients doing the same job, and beside the plainest program.
//!
//! All take turns, so that what the machine does to one it does to all. A round counts only if the floor stood still:
//! page cache, other load and the host below a virtual machine can change every figure by a factor of two.

pub mod floor;
mod offline;
mod quiet;
mod roads;
mod swap;
mod table;
mod tracker;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use offline::Place;
use swap::{Field, Who};
use table::{By, Row, Sample, Table, median};

use crate::interop::build_release;
use crate::interop::content::{NAME, Noise};
use crate::interop::makers::{Maker, Order};
use crate::interop::net::Net;
use crate::interop::peers::{Client, python};
use crate::interop::tracker::Tracker;
use crate::run::{output, root, run as run_program};

const HELP: &str = "\
cargo xtask bench tracker [OPTIONS]    the tracker beside others; `--help` for more
cargo xtask bench utp [OPTIONS]        TCP, encrypted TCP and uTP beside libtorrent's; `--help` for more
cargo xtask bench [OPTIONS]
  --size SIZE     content, such as 2GiB or 64MiB [default: 2GiB]
  --runs N        rounds that count [default: 5]
  --only WORD     download, seed, create or verify [default: all]
  --dir DIR       where content lies and goes: a disk, or a tmpfs [default: target/bench]
  --out FILE      [default: bench/results.md]
  --binary FILE   the piecemeal to measure [default: a release build of this workspace]
  --force         also on a busy machine: for trying the harness, not for figures";

/// A round whose floor is further than this from the others is thrown away.
const FLOOR_MOVES: f64 = 0.20;
/// So many rounds for each that counts, then we give up.
const PATIENCE: usize = 3;
/// All clients, in the order of turns; ours is the first, as `table` wants it.
const CLIENTS: [Client; 4] = [Client::Piecemeal, Client::Libtorrent, Client::Rqbit, Client::Aria2];

struct Options {
    size: u64,
    runs: usize,
    only: String,
    dir: PathBuf,
    out: PathBuf,
    binary: Option<PathBuf>,
    force: bool,
}

/// Runs the command.
pub fn run(args: &[String]) -> Result<()> {
    match args.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("tracker", rest)) => return tracker::run(rest),
        Some(("utp", rest)) => return roads::run(rest),
        _ => {}
    }
    let Some(options) = parse(args)? else { return Ok(()) };
    quiet::no_forgotten_peers()?;
    let root = root();
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => build_release()?,
    };
    let floors = build_floors(&root)?;
    let from = options.dir.join("from");
    fs::create_dir_all(&from)?;
    println!("making {} MiB of content", options.size >> 20);
    Noise(1).write(&from.join(NAME), options.size)?;
    let tracker = Tracker::start(Net::Loopback.own_ip())?;
    let torrent = options.dir.join("x.torrent");
    let order = Order {
        content: &from.join(NAME),
        out: &torrent,
        piece_length: floor::PIECE_BYTES,
        format: "v1",
        tracker: Some(&tracker.url()),
    };
    // By another's hand: what is measured is not what makes the job.
    Maker::Libtorrent.make(&binary, &options.dir, &order)?;
    let bench = Bench { options: &options, binary, floors, from, torrent, tracker };
    let tables = bench.tables()?;
    bench.report(&tables)?;
    Ok(fs::remove_dir_all(&options.dir)?)
}

struct Bench<'a> {
    options: &'a Options,
    binary: PathBuf,
    floors: PathBuf,
    from: PathBuf,
    torrent: PathBuf,
    tracker: Tracker,
}

impl Bench<'_> {
    fn tables(&self) -> Result<Vec<Table>> {
        let mut tables = Vec::new();
        let size = size_name(self.options.size);
        let who: Vec<_> =
            [Who::Floor].into_iter().chain(self.clients().into_iter().map(Who::Client)).collect();
        let names: Vec<_> = who.iter().map(|who| who.name()).collect();
        let field = self.field();
        if self.wants("download") {
            let rows = self.rounds(&names, By::Cpu, |index| field.download(who[index]))?;
            tables.push(Table {
                title: format!("Downloading {size} from a libtorrent seed"),
                rows,
                by: By::Cpu,
            });
        }
        if self.wants("seed") {
            let rows = self.rounds(&names, By::Cpu, |index| field.upload(who[index]))?;
            tables.push(Table { title: format!("Seeding {size} to a libtorrent leech"), rows, by: By::Cpu });
        }
        let cores = std::thread::available_parallelism()?.get();
        let place = self.place();
        for (word, title, jobs) in [
            ("create", "Making a torrent of", place.create(cores)),
            ("verify", "Checking", place.verify(cores)),
        ] {
            if self.wants(word) {
                let names: Vec<_> = jobs.iter().map(|job| job.name).collect();
                let rows = self.rounds(&names, By::Wall, |index| place.run(&jobs[index]))?;
                tables.push(Table { title: format!("{title} {size}, by the clock"), rows, by: By::Wall });
            }
        }
        Ok(tables)
    }

    /// Rounds of turns until enough count. The floor, which is index 0, opens and closes each round.
    fn rounds(&self, names: &[&str], by: By, turn: impl Fn(usize) -> Result<Sample>) -> Result<Vec<Row>> {
        let mut rows: Vec<_> =
            names.iter().map(|name| Row { name: (*name).to_owned(), samples: Vec::new() }).collect();
        for round in 1..=self.options.runs * PATIENCE {
            if rows[0].samples.len() == self.options.runs {
                break;
            }
            let mut samples = Vec::new();
            for (index, name) in names.iter().enumerate() {
                samples.push(self.turn(name, round, || turn(index))?);
            }
            let last = self.turn(names[0], round, || turn(0))?;
            let of = |sample: &Sample| if by == By::Cpu { sample.cpu } else { sample.wall };
            let known = rows[0].samples.iter().map(of).chain([of(&samples[0])]).collect();
            if moved(median(known), of(&last)) || moved(of(&last), of(&samples[0])) {
                println!("round {round} does not count: the floor moved");
                continue;
            }
            rows.iter_mut().zip(samples).for_each(|(row, sample)| row.samples.push(sample));
        }
        if rows[0].samples.len() < self.options.runs {
            bail!("the floor never stood still: this machine is no place for figures now");
        }
        Ok(rows)
    }

    fn turn(&self, name: &str, round: usize, turn: impl Fn() -> Result<Sample>) -> Result<Sample> {
        if !self.options.force {
            quiet::wait()?;
        }
        let sample = turn().with_context(|| name.to_owned())?;
        println!("round {round} {name:24} {:6.2} CPU s/GiB {:6.1} s", sample.cpu, sample.wall);
        Ok(sample)
    }

    fn report(&self, tables: &[Table]) -> Result<()> {
        let mut text = String::from("# Benchmarks\n\nWritten by `cargo xtask bench`; do not edit.\n\n");
        text.push_str(&circumstances(&self.binary, &self.options.dir, self.options.runs));
        for table in tables {
            text.push('\n');
            text.push_str(&table.markdown());
        }
        println!("\n{text}");
        if let Some(parent) = self.options.out.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&self.options.out, text).with_context(|| self.options.out.display().to_string())
    }

    fn clients(&self) -> Vec<Client> {
        let mut clients = Vec::new();
        for client in CLIENTS {
            match client.missing() {
                None => clients.push(client),
                Some(why) => println!("without {}: {why}", client.name()),
            }
        }
        clients
    }

    fn wants(&self, word: &str) -> bool {
        self.options.only.is_empty() || self.options.only == word
    }

    fn field(&self) -> Field<'_> {
        Field {
            binary: &self.binary,
            floors: &self.floors,
            from: &self.from,
            dir: &self.options.dir,
            torrent: &self.torrent,
            tracker: &self.tracker,
            size: self.options.size,
        }
    }

    fn place(&self) -> Place<'_> {
        Place {
            binary: &self.binary,
            floors: &self.floors,
            from: &self.from,
            dir: &self.options.dir,
            torrent: &self.torrent,
            size: self.options.size,
        }
    }
}

/// Rule 19: a figure names the machine, the command and the spread.
fn circumstances(binary: &Path, dir: &Path, runs: usize) -> String {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let first = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.ok().and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or("-".to_owned())
    };
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("-");
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 20;
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let place = dir.display().to_string();
    let rows = [
        ("command", format!("`cargo xtask {}`", args.join(" "))),
        ("commit", first("git", &["rev-parse", "--short", "HEAD"])),
        ("machine", format!("{cores} x {}, {memory} GiB", model.trim_start_matches([' ', '\t', ':']))),
        ("kernel", first("uname", &["-sr"])),
        ("file system", first("stat", &["--file-system", "--format=%T", &place])),
        ("piecemeal", first(&binary.display().to_string(), &["--version"])),
        ("libtorrent", libtorrent_version()),
        ("rqbit", first("rqbit", &["--version"])),
        ("aria2", first("aria2c", &["--version"])),
        ("rounds", format!("{}; medians, and all took turns", runs)),
    ];
    let rows = rows.map(|(name, value)| format!("| {name} | {value} |\n"));
    format!("| | |\n|---|---|\n{}", rows.concat())
}

fn parse(args: &[String]) -> Result<Option<Options>> {
    let mut options = Options {
        size: 2 << 30,
        runs: 5,
        only: String::new(),
        dir: root().join("target/bench"),
        out: root().join("bench/results.md"),
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
            // A folder of its own inside: it is removed at the end.
            "--dir" => options.dir = std::path::absolute(value()?)?.join("piecemeal-bench"),
            "--out" => options.out = std::path::absolute(value()?)?,
            "--binary" => options.binary = Some(std::path::absolute(value()?)?),
            "--force" => options.force = true,
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(None);
            }
            other => bail!("{other}: no such option\n{HELP}"),
        }
    }
    if !["", "download", "seed", "create", "verify"].contains(&options.only.as_str()) {
        bail!("--only {}: no such benchmark\n{HELP}", options.only);
    }
    Ok(Some(options))
}

fn size(text: &str) -> Result<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit {
        "GiB" => 30,
        "MiB" => 20,
        _ => bail!("--size {text}: write it like 2GiB or 64MiB"),
    };
    Ok(number.parse::<u64>().with_context(|| format!("--size {text}"))? << shift)
}

fn size_name(bytes: u64) -> String {
    if bytes >= 1 << 30 { format!("{} GiB", bytes >> 30) } else { format!("{} MiB", bytes >> 20) }
}

fn moved(from: f64, to: f64) -> bool {
    (to / from - 1.0).abs() > FLOOR_MOVES
}

fn libtorrent_version() -> String {
    let output = python("lt.py").arg("version").output();
    output.map_or("-".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// This program as an optimised build: the floors must not carry the weight of a debug build.
fn build_floors(root: &Path) -> Result<PathBuf> {
    run_program(root, "cargo", &["build", "--quiet", "--release", "--package=xtask"])?;
    let metadata = output(root, "cargo", &["metadata", "--format-version=1", "--no-deps"])?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target = metadata["target_directory"].as_str().context("cargo metadata has no target directory")?;
    Ok(Path::new(target).join("release/xtask"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_moves() {
        assert_eq!(size("2GiB").unwrap(), 2 << 30);
        assert_eq!(size("64MiB").unwrap(), 64 << 20);
        assert!(size("2").is_err() && size("GiB").is_err());
        assert!(moved(1.0, 1.21) && moved(1.0, 0.79) && !moved(1.0, 1.19));
    }
}
