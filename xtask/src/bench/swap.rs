//! One client's turn at downloading from, or seeding to, a libtorrent peer; and the floor's.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::table::Sample;
use crate::interop::content::NAME;
use crate::interop::net::{Host, Net};
use crate::interop::peers::{Client, Peer, Task};
use crate::interop::tracker::Tracker;
use crate::proc::cpu_time;
use crate::run::Running;

/// A seed has settled when it used no CPU time for so long: it has checked what it has, or whatever it does.
const FLAT: Duration = Duration::from_secs(1);
/// Slower than this no client is.
const LEAST_RATE: u64 = 10_000_000;

/// What all turns share.
pub struct Field<'a> {
    /// Our binary.
    pub binary: &'a Path,
    /// The floor programs: this very program, optimised.
    pub floors: &'a Path,
    /// Where content comes from: `from/content`.
    pub from: &'a Path,
    /// Where turns may write.
    pub dir: &'a Path,
    /// The torrent.
    pub torrent: &'a Path,
    /// Its tracker.
    pub tracker: &'a Tracker,
    /// Bytes of its content.
    pub size: u64,
}

/// Who takes a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// The plainest program.
    Floor,
    /// A client.
    Client(Client),
}

impl Who {
    /// As in tables.
    pub fn name(self) -> &'static str {
        match self {
            Who::Floor => "floor",
            Who::Client(client) => client.name(),
        }
    }
}

impl Field<'_> {
    /// A turn at downloading.
    pub fn download(&self, who: Who) -> Result<Sample> {
        let to = self.fresh("to")?;
        let (seed, leech) = (self.host(1), self.host(2));
        let began;
        let cpu = match who {
            Who::Floor => {
                let _sender = self.floor_sender(&seed)?;
                began = Instant::now();
                self.floor_receiver(&seed, &to)?.finish_counting(self.limit())?
            }
            Who::Client(client) => {
                let _seed = self.seed(Client::Libtorrent, &seed)?;
                self.tracker.wait_for(seed.peer(), Duration::from_secs(20))?;
                began = Instant::now();
                self.leech(client, &leech, &seed, &to)?.running.finish_counting(self.limit())?
            }
        };
        let sample = self.sample(cpu, began.elapsed());
        self.received(&to, who)?;
        self.clear(&to)?;
        Ok(sample)
    }

    /// A turn at seeding.
    pub fn upload(&self, who: Who) -> Result<Sample> {
        let to = self.fresh("to")?;
        let (seed, leech) = (self.host(1), self.host(2));
        let sample = match who {
            Who::Floor => {
                let sender = self.floor_sender(&seed)?;
                self.measure(sender.pid(), || {
                    self.floor_receiver(&seed, &to)?.finish_counting(self.limit()).map(drop)
                })?
            }
            Who::Client(client) => {
                let seeder = self.seed(client, &seed)?;
                settle(seeder.running.pid())?;
                self.measure(seeder.running.pid(), || {
                    let mut leech = self.leech(Client::Libtorrent, &leech, &seed, &to)?;
                    leech.running.finish_counting(self.limit()).map(drop)
                })?
            }
        };
        self.received(&to, who)?;
        self.clear(&to)?;
        Ok(sample)
    }

    fn measure(&self, pid: u32, job: impl FnOnce() -> Result<()>) -> Result<Sample> {
        let (before, began) = (cpu_time(pid)?, Instant::now());
        job()?;
        Ok(self.sample(cpu_time(pid)?.saturating_sub(before), began.elapsed()))
    }

    fn sample(&self, cpu: Duration, wall: Duration) -> Sample {
        let gib = self.size as f64 / f64::from(1 << 30);
        Sample { cpu: cpu.as_secs_f64() / gib, wall: wall.as_secs_f64() }
    }

    fn host(&self, number: u16) -> Host {
        Net::Loopback.host(number)
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(30 + self.size / LEAST_RATE)
    }

    fn seed(&self, client: Client, host: &Host) -> Result<Peer> {
        self.tracker.forget(host.peer());
        let state = self.fresh("seed.state")?;
        client.seed(self.binary, &self.task(host, self.from, &state, &[]))
    }

    fn leech(&self, client: Client, host: &Host, seed: &Host, to: &Path) -> Result<Peer> {
        self.tracker.forget(host.peer());
        let state = self.fresh("leech.state")?;
        client.leech(self.binary, &self.task(host, to, &state, &[seed.peer()]))
    }

    fn task<'a>(
        &'a self,
        host: &'a Host,
        dir: &'a Path,
        state: &'a Path,
        peers: &'a [std::net::SocketAddr],
    ) -> Task<'a> {
        Task { host, torrent: self.torrent, dir, state, peers, up_limit: 0, once: true }
    }

    fn floor_sender(&self, host: &Host) -> Result<Running> {
        let mut command = host.command(self.floors);
        command.args(["floor", "send", &host.peer().to_string()]).arg(self.from.join(NAME));
        let mut running = Running::start("floor send", command, &self.dir.join("send.log"))?;
        running.line(Duration::from_secs(10), |line| line == "READY")?;
        Ok(running)
    }

    fn floor_receiver(&self, from: &Host, to: &Path) -> Result<Running> {
        let mut command = from.command(self.floors);
        command.args(["floor", "receive", &from.peer().to_string()]).arg(to.join(NAME));
        Running::start("floor receive", command, &self.dir.join("receive.log"))
    }

    fn received(&self, to: &Path, who: Who) -> Result<()> {
        let path = to.join(NAME);
        let size = path.metadata().with_context(|| path.display().to_string())?.len();
        if size == self.size {
            Ok(())
        } else {
            bail!("{}: {size} of {} bytes arrived", who.name(), self.size)
        }
    }

    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        self.clear(&dir)?;
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    fn clear(&self, dir: &Path) -> Result<()> {
        if dir.exists() { fs::remove_dir_all(dir).with_context(|| dir.display().to_string()) } else { Ok(()) }
    }
}

/// Waits until a process has nothing to do.
pub fn settle(pid: u32) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(120);
    let mut last = cpu_time(pid)?;
    while Instant::now() < until {
        thread::sleep(FLAT);
        let now = cpu_time(pid)?;
        if now.saturating_sub(last) <= Duration::from_millis(20) {
            return Ok(());
        }
        last = now;
    }
    bail!("process {pid} is busy before anybody asks it for anything")
}
