//! Hashing without a swarm: making and checking torrents, by the clock, on all cores.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::floor::PIECE_BYTES;
use super::table::Sample;
use crate::interop::content::NAME;
use crate::interop::peers::{Client, ours, python};
use crate::run::{Running, installed};

/// Nobody hashes slower.
const LEAST_RATE: u64 = 50_000_000;

/// One program to measure: its name and how it is called.
pub struct Job {
    /// As in tables.
    pub name: &'static str,
    command: Box<dyn Fn() -> Command>,
}

/// What all jobs share.
pub struct Place<'a> {
    /// Our binary.
    pub binary: &'a Path,
    /// The floor programs.
    pub floors: &'a Path,
    /// Where the content is: `from/content`.
    pub from: &'a Path,
    /// Where torrents may be written.
    pub dir: &'a Path,
    /// A torrent of the content.
    pub torrent: &'a Path,
    /// Bytes of it.
    pub size: u64,
}

impl Place<'_> {
    /// Making a torrent; the floor first, then ours.
    pub fn create(&self, cores: usize) -> Vec<Job> {
        let content = self.from.join(NAME);
        let out = self.dir.join("made.torrent");
        let mut jobs = vec![self.floor(cores)];
        let (binary, state, path, to) =
            (self.binary.to_owned(), self.dir.to_owned(), content.clone(), out.clone());
        jobs.push(Job::new("piecemeal create", move || {
            let mut command = ours(Command::new(&binary), &state);
            command.arg("create").arg(&path).args(["--v1", "--force", "--no-date"]);
            command.arg(format!("--piece-length={PIECE_BYTES}")).arg("-o").arg(&to);
            command
        }));
        if installed("mktorrent") {
            let (path, to) = (content.clone(), out.clone());
            jobs.push(Job::new("mktorrent -t", move || {
                // It refuses to write over what is there.
                let _ = std::fs::remove_file(&to);
                let mut command = Command::new("mktorrent");
                command.args(["-t", &cores.to_string(), "-l", &PIECE_BYTES.ilog2().to_string()]);
                command.arg("-o").arg(&to).arg(&path);
                command
            }));
        }
        if Client::Libtorrent.missing().is_none() {
            jobs.push(Job::new("libtorrent create", move || {
                let mut command = python("lt.py");
                command.arg("create").arg("--path").arg(&content).arg("--out").arg(&out);
                command.args(["--format=v1", &format!("--piece-length={PIECE_BYTES}")]);
                command
            }));
        }
        jobs
    }

    /// Checking content; the floor first, then ours.
    pub fn verify(&self, cores: usize) -> Vec<Job> {
        let mut jobs = vec![self.floor(cores)];
        let (binary, state) = (self.binary.to_owned(), self.dir.to_owned());
        let (torrent, from) = (self.torrent.to_owned(), self.from.to_owned());
        jobs.push(Job::new("piecemeal verify", move || {
            let mut command = ours(Command::new(&binary), &state);
            command.arg("verify").arg(&torrent).arg(&from);
            command
        }));
        if Client::Libtorrent.missing().is_none() {
            let (torrent, from) = (self.torrent.to_owned(), self.from.to_owned());
            jobs.push(Job::new("libtorrent check", move || {
                let mut command = python("lt.py");
                command.arg("check").arg("--torrent").arg(&torrent).arg("--dir").arg(&from);
                command
            }));
        }
        jobs
    }

    /// Measures one job.
    pub fn run(&self, job: &Job) -> Result<Sample> {
        let began = Instant::now();
        let mut running = Running::start(job.name, (job.command)(), &self.dir.join("offline.log"))?;
        let cpu = running.finish_counting(Duration::from_secs(30 + self.size / LEAST_RATE))?;
        let gib = self.size as f64 / f64::from(1 << 30);
        Ok(Sample { cpu: cpu.as_secs_f64() / gib, wall: began.elapsed().as_secs_f64() })
    }

    fn floor(&self, cores: usize) -> Job {
        let (floors, content) = (self.floors.to_owned(), self.from.join(NAME));
        Job::new("floor: read and SHA-1", move || {
            let mut command = Command::new(&floors);
            command.args(["floor", "hash"]).arg(&content).arg(cores.to_string());
            command
        })
    }
}

impl Job {
    fn new(name: &'static str, command: impl Fn() -> Command + 'static) -> Job {
        Job { name, command: Box::new(command) }
    }
}
