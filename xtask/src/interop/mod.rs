//! `cargo xtask interop`: real clients swap files with ours, and ours keeps what it promises a user.
//!
//! Installs nothing and leaves nothing behind: see `net`. Cases run a few at a time, each on hosts of its own; those
//! that measure run alone. Everything is bounded in time.

mod cli;
pub mod content;
mod dht;
mod filter;
mod finding;
mod formats;
mod inputs;
mod leak;
mod limits;
mod magnet;
pub mod makers;
mod matrix;
mod mixed;
pub mod net;
pub mod peers;
mod proxies;
mod punch;
mod reach;
mod roads;
mod tls;
pub mod tracker;

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use content::Content;
use net::{Host, Net, enter};
use piecemeal_metainfo::InfoHash;
use tracker::Tracker;

use crate::run::{output, root, run as run_program};

const HELP: &str = "\
cargo xtask interop [OPTIONS]
  --only PATTERN    cases whose name has this in it; `others/` are run only when asked for by name
  --jobs N          cases at a time [default: 6; most of their time is the others' patience]
  --size GIB        content of the memory cases, in GiB [default: 2; the promise is made for 20]
  --binary FILE     the piecemeal to test [default: a release build of this workspace]
  --loopback        no namespaces: ports of 127.0.0.1, without Transmission and mounts
  --again           run cases that failed once more, alone, and say so: others' clients have bad days too
  --keep            leave the files of failed cases in target/interop
  --list            the names of all cases";

/// If more cases than this fail, the fault is not a bad day of others, and none is run again.
const MOST_AGAIN: usize = 4;
/// Hosts a case may have.
const HOSTS_A_CASE: u16 = 3;
/// Hosts in all: what the mixed swarm needs, and at least as many cases at a time.
const HOSTS: u16 = 18;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    only: String,
    jobs: u16,
    size_gib: u64,
    binary: Option<PathBuf>,
    loopback: bool,
    again: bool,
    keep: bool,
    list: bool,
}

/// Something to try.
pub struct Case {
    name: String,
    alone: bool,
    act: Box<Act>,
}

/// What a case does; gives a remark for the table.
type Act = dyn Fn(&Stage<'_>) -> Result<String> + Send + Sync;

/// Where a case plays.
pub struct Stage<'a> {
    /// Its directory, empty when it begins.
    pub dir: &'a Path,
    /// Our binary.
    pub binary: &'a Path,
    /// The plain tracker, which every host reaches.
    pub tracker: &'a Tracker,
    /// The kind of network.
    pub net: Net,
    /// What was asked for.
    pub options: &'a Options,
    hosts: &'a [Host],
    contents: &'a Path,
}

/// How a case ended.
struct Verdict {
    name: String,
    took: Duration,
    note: Result<String>,
    /// Why it failed at first, if it was run again.
    at_first: Option<String>,
}

impl Case {
    /// A case that may run beside others.
    pub fn new(
        name: impl Into<String>,
        act: impl Fn(&Stage<'_>) -> Result<String> + Send + Sync + 'static,
    ) -> Case {
        Case { name: name.into(), alone: false, act: Box::new(act) }
    }

    /// A case that measures or needs all hosts.
    pub fn alone(
        name: impl Into<String>,
        act: impl Fn(&Stage<'_>) -> Result<String> + Send + Sync + 'static,
    ) -> Case {
        Case { alone: true, ..Case::new(name, act) }
    }
}

impl Stage<'_> {
    /// A host, from 0. Cases that run alone have all of them.
    pub fn host(&self, index: u16) -> &Host {
        &self.hosts[usize::from(index)]
    }

    /// Content, made once for all cases: nobody may write to it.
    pub fn content(&self, content: &Content) -> Result<PathBuf> {
        static MAKING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.contents.join(format!("{}x{}", content.name(), content.pieces));
        if !dir.exists() {
            let part = dir.with_extension("part");
            content.make(&part)?;
            fs::rename(&part, &dir)?;
        }
        Ok(dir)
    }

    /// Waits until somebody listens.
    pub fn wait_for_port(&self, addr: SocketAddr, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        while TcpStream::connect_timeout(&addr, Duration::from_secs(1)).is_err() {
            if Instant::now() > until {
                bail!("nobody listens at {addr}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits until a tracker's scrape knows somebody who has everything.
    pub fn wait_for_seed(&self, announce: &str, hash: InfoHash, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        let addr = announce.trim_start_matches("http://").split('/').next().unwrap_or_default();
        loop {
            let answer = scrape(addr, hash).unwrap_or_default();
            if answer.contains("8:completei") && !answer.contains("8:completei0e") {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("no seed at {announce} after {} s; it says {answer:?}", limit.as_secs());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Runs the command.
pub fn run(args: &[String]) -> Result<()> {
    let Some(options) = parse(args)? else { return Ok(()) };
    let cases: Vec<_> = all().into_iter().filter(|case| options.wants(&case.name)).collect();
    if options.list {
        cases.iter().for_each(|case| println!("{}", case.name));
        return Ok(());
    }
    if cases.is_empty() {
        bail!("no case has {:?} in its name; see --list", options.only);
    }
    let binary = binary(&options)?;
    if let Some(code) = enter(options.loopback)? {
        // The run inside has said everything.
        std::process::exit(code);
    }
    let work = Work::new(&options, binary)?;
    let mut verdicts = work.play(cases);
    if options.again {
        work.play_again(&mut verdicts);
    }
    work.clear();
    conclude(&verdicts)
}

fn all() -> Vec<Case> {
    let mut cases = matrix::cases();
    cases.extend(formats::cases());
    cases.extend(magnet::cases());
    cases.extend(inputs::cases());
    cases.extend(finding::cases());
    cases.extend(reach::cases());
    cases.extend(dht::cases());
    cases.extend(punch::cases());
    cases.extend(roads::cases());
    cases.extend(tls::cases());
    cases.extend(mixed::cases());
    cases.extend(leak::cases());
    cases.extend(filter::cases());
    cases.extend(proxies::cases());
    cases.extend(limits::cases());
    cases.extend(matrix::others());
    cases
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        name.contains(&self.only) && (!name.starts_with("others/") || self.only.contains("others"))
    }
}

fn parse(args: &[String]) -> Result<Option<Options>> {
    let mut options = Options {
        only: String::new(),
        jobs: 6,
        size_gib: 2,
        binary: None,
        loopback: false,
        again: false,
        keep: false,
        list: false,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--only" => options.only.clone_from(value()?),
            "--jobs" => options.jobs = value()?.parse().context("--jobs")?,
            "--size" => options.size_gib = value()?.trim_end_matches("GiB").parse().context("--size")?,
            "--binary" => options.binary = Some(std::path::absolute(value()?)?),
            "--loopback" => options.loopback = true,
            "--again" => options.again = true,
            "--keep" => options.keep = true,
            "--list" => options.list = true,
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(None);
            }
            other => bail!("{other}: no such option\n{HELP}"),
        }
    }
    options.jobs = options.jobs.clamp(1, HOSTS / HOSTS_A_CASE);
    Ok(Some(options))
}

/// The binary to test, built unless given. Not needed when others play among themselves.
fn binary(options: &Options) -> Result<PathBuf> {
    if let Some(binary) = &options.binary {
        return Ok(binary.clone());
    }
    if options.only.starts_with("others") {
        return Ok(PathBuf::from("/nonexistent"));
    }
    build_release()
}

/// Builds our binary as users get it; gives its path.
pub fn build_release() -> Result<PathBuf> {
    let root = root();
    run_program(&root, "cargo", &["build", "--quiet", "--release", "--package=piecemeal-app"])?;
    let metadata = output(&root, "cargo", &["metadata", "--format-version=1", "--no-deps"])?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target = metadata["target_directory"].as_str().context("cargo metadata has no target directory")?;
    Ok(Path::new(target).join("release/piecemeal"))
}

/// What all cases share.
struct Work {
    options: Options,
    binary: PathBuf,
    dir: PathBuf,
    net: Net,
    tracker: Tracker,
}

impl Work {
    fn new(options: &Options, binary: PathBuf) -> Result<Work> {
        let dir = root().join("target/interop");
        // Of an earlier run that was killed.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let net = Net::build(HOSTS)?;
        let tracker = Tracker::start(net.own_ip())?;
        Ok(Work { options: options.clone(), binary, dir, net, tracker })
    }

    fn play(&self, cases: Vec<Case>) -> Vec<Verdict> {
        let began = Instant::now();
        let (alone, beside): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.alone);
        let verdicts = Mutex::new(Vec::new());
        let queue = Mutex::new(VecDeque::from(beside));
        thread::scope(|scope| {
            for lane in 0..self.options.jobs {
                let (queue, verdicts) = (&queue, &verdicts);
                scope.spawn(move || {
                    let first = lane * HOSTS_A_CASE;
                    // A function, so that the lock is free while the case runs.
                    let next = || lock(queue).pop_front();
                    while let Some(case) = next() {
                        let verdict = self.one(&case, first + 1..=first + HOSTS_A_CASE);
                        lock(verdicts).push(verdict);
                    }
                });
            }
        });
        for case in alone {
            let verdict = self.one(&case, 1..=HOSTS);
            lock(&verdicts).push(verdict);
        }
        println!("in {:.0} s", began.elapsed().as_secs_f64());
        verdicts.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs what failed once more. What failed first is told all the same, for somebody to look into.
    fn play_again(&self, verdicts: &mut [Verdict]) {
        let failed: Vec<_> = verdicts.iter_mut().filter(|verdict| verdict.note.is_err()).collect();
        if failed.len() > MOST_AGAIN {
            return;
        }
        for verdict in failed {
            let Some(case) = all().into_iter().find(|case| case.name == verdict.name) else { continue };
            println!("again: {}", case.name);
            let second = self.one(&case, 1..=HOSTS);
            if second.note.is_ok() {
                let first = std::mem::replace(&mut verdict.note, second.note);
                verdict.at_first = first.err().map(|why| format!("{why:#}"));
            }
        }
    }

    fn clear(&self) {
        if !self.options.keep {
            // What cannot be removed is in target/ and stays there.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }

    fn one(&self, case: &Case, hosts: std::ops::RangeInclusive<u16>) -> Verdict {
        let hosts: Vec<_> = hosts.map(|number| self.net.host(number)).collect();
        hosts.iter().for_each(|host| self.tracker.forget(host.peer()));
        let dir = self.dir.join(case.name.replace(['/', '>', ' '], "_"));
        let stage = Stage {
            dir: &dir,
            binary: &self.binary,
            tracker: &self.tracker,
            net: self.net,
            options: &self.options,
            hosts: &hosts,
            contents: &self.dir.join("contents"),
        };
        let began = Instant::now();
        let note = fs::create_dir_all(&dir).map_err(Into::into).and_then(|()| (case.act)(&stage));
        let verdict = Verdict { name: case.name.clone(), took: began.elapsed(), note, at_first: None };
        verdict.print();
        if verdict.note.is_ok() || !self.options.keep {
            let _ = fs::remove_dir_all(&dir);
        }
        verdict
    }
}

impl Verdict {
    fn print(&self) {
        let (word, mut note) = match &self.note {
            Ok(note) => ("ok  ", note.clone()),
            Err(why) => ("FAIL", format!("{why:#}")),
        };
        if let Some(why) = &self.at_first {
            note.push_str("; UNSTEADY, at first: ");
            note.push_str(why);
        }
        println!("{word} {:48} {:6.1} s  {note}", self.name, self.took.as_secs_f64());
    }
}

fn conclude(verdicts: &[Verdict]) -> Result<()> {
    let failed: Vec<_> = verdicts.iter().filter(|verdict| verdict.note.is_err()).collect();
    if !failed.is_empty() {
        println!("\nfailed:");
        failed.iter().for_each(|verdict| verdict.print());
    }
    verdicts.iter().filter(|verdict| verdict.at_first.is_some()).for_each(Verdict::print);
    println!("interop: {} passed, {} failed", verdicts.len() - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("interop: {} failed", failed.len()) }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn scrape(addr: &str, hash: InfoHash) -> Result<String> {
    let hex = hash.to_string();
    let hash: String = (0..hex.len()).step_by(2).map(|at| format!("%{}", &hex[at..at + 2])).collect();
    let mut stream = TcpStream::connect_timeout(&addr.parse()?, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET /scrape?info_hash={hash} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
