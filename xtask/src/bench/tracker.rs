//! `cargo xtask bench tracker`: UDP announces per CPU second, and memory per peer, beside other trackers.
//!
//! One load for all: peers at many loopback addresses connect and announce (BEP 15), each question waits for its answer,
//! some hundred are on their way at once. The tracker has one core and the load another. What is counted is the CPU
//! time of the tracker's process as the kernel tells it, user and system; system time is most of it, and the same for
//! each answer, whoever sends it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::quiet;
use super::table::median;
use crate::interop::build_release;
use crate::proc::{cpu_time, memory};
use crate::run::{Running, installed, root};

const HELP: &str = "\
cargo xtask bench tracker [OPTIONS]
  --torrents N    swarms [default: 1000]
  --peers N       peers in each, at most 4096 [default: 200]
  --announces N   announces a run that count [default: 1000000]
  --runs N        runs of each tracker [default: 5]
  --binary FILE   the piecemeal to measure [default: a release build of this workspace]
  --force         also on a busy machine: for trying the harness, not for figures";

/// Addresses peers live at. Each swarm has at most 64 peers of one, as trackers may bound that.
const HOSTS: usize = 64;
const PEERS_PER_HOST: usize = 64;
/// Announces of one address on their way at once.
const DEPTH: usize = 4;
/// Peers each asks for.
const WANT: u32 = 30;
/// An answer that takes longer is lost. Loopback loses none unless a buffer is full.
const PATIENCE: Duration = Duration::from_secs(2);
/// A connection id is used for so long (BEP 15).
const CONNECTION_LIFE: Duration = Duration::from_secs(50);
/// How long a tracker may take to start.
const START: Duration = Duration::from_secs(10);

struct Options {
    torrents: usize,
    peers: usize,
    announces: u64,
    runs: usize,
    binary: Option<PathBuf>,
    force: bool,
}

/// Who is measured.
#[derive(Clone, Copy, PartialEq)]
enum Server {
    Ours,
    Opentracker,
    /// As its authors advise for more than a toy: a thread that blocks on the socket, no event loop around it.
    OpentrackerWorker,
    /// One socket worker, no statistics.
    Aquatic,
}

/// What one run showed.
struct Figures {
    announces_per_cpu_s: f64,
    announces_per_s: f64,
    bytes_per_peer: f64,
    lost: u64,
}

/// Runs the command.
pub fn run(args: &[String]) -> Result<()> {
    let Some(options) = parse(args)? else { return Ok(()) };
    let dir = root().join("target/bench-tracker");
    fs::create_dir_all(&dir)?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => build_release()?,
    };
    let load = Load::new(&options);
    let list = dir.join("torrents");
    fs::write(&list, load.hashes.iter().map(|hash| hex(hash) + "\n").collect::<String>())?;
    let mut servers = vec![Server::Ours];
    if installed("opentracker") {
        servers.extend([Server::Opentracker, Server::OpentrackerWorker]);
    } else {
        println!("without opentracker: not installed (apt-get install opentracker)");
    }
    if installed("aquatic_udp") {
        servers.push(Server::Aquatic);
    } else {
        println!("without aquatic_udp: not installed (.ci/install bench)");
    }
    let mut rows: Vec<Vec<Figures>> = servers.iter().map(|_| Vec::new()).collect();
    for round in 1..=options.runs {
        for (server, row) in servers.iter().zip(&mut rows) {
            if !options.force {
                quiet::wait()?;
            }
            let figures = measure(*server, &binary, &dir, &list, &load)?;
            println!(
                "run {round} {:24} {:8.0} announces/CPU s {:8.0} announces/s {:6.1} B/peer, {} lost",
                server.name(),
                figures.announces_per_cpu_s,
                figures.announces_per_s,
                figures.bytes_per_peer,
                figures.lost,
            );
            row.push(figures);
        }
    }
    report(&options, &servers, &rows);
    Ok(fs::remove_dir_all(&dir)?)
}

fn report(options: &Options, servers: &[Server], rows: &[Vec<Figures>]) {
    println!(
        "\n{} swarms of {} peers, {} announces for {WANT} peers each; median of {} runs (least to most)\n",
        options.torrents, options.peers, options.announces, options.runs
    );
    println!("| tracker | announces / CPU s | announces / s | bytes / peer |\n|---|---|---|---|");
    for (server, row) in servers.iter().zip(rows) {
        let column = |of: fn(&Figures) -> f64| {
            let mut values: Vec<f64> = row.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            let (least, most) = (values.first().unwrap_or(&0.0), values.last().unwrap_or(&0.0));
            format!("{:.0} ({least:.0} to {most:.0})", median(values.clone()))
        };
        println!(
            "| {} | {} | {} | {} |",
            server.name(),
            column(|figures| figures.announces_per_cpu_s),
            column(|figures| figures.announces_per_s),
            column(|figures| figures.bytes_per_peer),
        );
    }
}

fn measure(server: Server, binary: &Path, dir: &Path, list: &Path, load: &Load) -> Result<Figures> {
    let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let process = Running::start(server.name(), server.command(binary, dir, list, to)?, &dir.join("log"))?;
    let mut peers = Peers::start(to)?;
    // Once through the door, so that what is there before the first peer is not counted as his. Opentracker may not have
    // read its list yet.
    let until = Instant::now() + START;
    while let Err(why) = peers.announce(load, 0).and_then(|()| peers.collect_all()) {
        if Instant::now() > until {
            return Err(why);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = memory(process.pid())?;
    for number in 1..load.everybody() {
        peers.announce(load, number)?;
    }
    peers.collect_all()?;
    let bytes = memory(process.pid())?.saturating_sub(before);
    ensure!(peers.lost == 0, "{}: {} answers were lost while it was filled", server.name(), peers.lost);
    let mut dice = Dice(7);
    let (cpu, start) = (cpu_time(process.pid())?, Instant::now());
    for _ in 0..load.announces {
        peers.announce(load, dice.below(load.everybody()))?;
    }
    peers.collect_all()?;
    let (cpu, wall) = (cpu_time(process.pid())? - cpu, start.elapsed());
    let answered = load.announces.saturating_sub(peers.lost) as f64;
    ensure!(peers.told > 0, "{} told nobody of anybody", server.name());
    Ok(Figures {
        announces_per_cpu_s: answered / cpu.as_secs_f64(),
        announces_per_s: answered / wall.as_secs_f64(),
        bytes_per_peer: bytes as f64 / load.everybody() as f64,
        lost: peers.lost,
    })
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Server::Ours => "piecemeal tracker",
            Server::Opentracker => "opentracker",
            Server::OpentrackerWorker => "opentracker, 1 UDP worker",
            Server::Aquatic => "aquatic_udp, 1 worker",
        }
    }

    /// On the first core alone; the scheduler finds others for the load.
    fn command(self, binary: &Path, dir: &Path, list: &Path, to: SocketAddr) -> Result<Command> {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]);
        match self {
            Server::Ours => {
                command.arg(binary).args(["tracker", "--listen", &to.to_string(), "--allow"]).arg(list);
            }
            Server::Opentracker | Server::OpentrackerWorker => {
                let workers = usize::from(self == Server::OpentrackerWorker);
                let conf = dir.join("opentracker.conf");
                let text = format!(
                    "listen.udp.workers {workers}\nlisten.tcp_udp {to}\naccess.whitelist {}\n\
                    tracker.user nobody\n",
                    list.display()
                );
                fs::write(&conf, text)?;
                command.arg("opentracker").arg("-f").arg(conf);
            }
            Server::Aquatic => {
                let conf = dir.join("aquatic.toml");
                let text = format!(
                    "socket_workers = 1\n[network]\naddress = \"{to}\"\n[statistics]\ninterval = 0\n\
                    [access_list]\nmode = \"allow\"\npath = \"{}\"\n",
                    list.display()
                );
                fs::write(&conf, text)?;
                command.arg("aquatic_udp").arg("-c").arg(conf);
            }
        }
        Ok(command)
    }
}

/// Who announces what.
struct Load {
    hashes: Vec<[u8; 20]>,
    peers: usize,
    announces: u64,
}

impl Load {
    fn new(options: &Options) -> Load {
        let mut dice = Dice(1);
        let hashes = (0..options.torrents).map(|_| {
            let mut hash = [0; 20];
            hash.chunks_mut(8)
                .for_each(|part| part.copy_from_slice(&dice.next().to_be_bytes()[..part.len()]));
            hash
        });
        Load { hashes: hashes.collect(), peers: options.peers, announces: options.announces }
    }

    fn everybody(&self) -> usize {
        self.hashes.len() * self.peers
    }

    /// The announce of one peer in one swarm, and the host it lives at. Every fourth is a seed.
    fn datagram(&self, number: usize, connection: [u8; 8], transaction: u32) -> [u8; 98] {
        let peer = number / self.hashes.len();
        let mut bytes = [0; 98];
        let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
        put(0, &connection);
        put(8, &1_u32.to_be_bytes());
        put(12, &transaction.to_be_bytes());
        put(16, &self.hashes[number % self.hashes.len()]);
        put(36, b"-XX0001-");
        put(44, &(number as u64).to_be_bytes());
        put(64, &u64::from(!peer.is_multiple_of(4)).to_be_bytes());
        put(92, &WANT.to_be_bytes());
        put(96, &(1024 + (peer / HOSTS) as u16).to_be_bytes());
        bytes
    }

    fn host(&self, number: usize) -> usize {
        number / self.hashes.len() % HOSTS
    }
}

/// All peers: a socket for each address they live at.
struct Peers {
    hosts: Vec<Host>,
    transaction: u32,
    lost: u64,
    told: u64,
}

struct Host {
    socket: UdpSocket,
    connection: [u8; 8],
    connected: Instant,
    /// Announces without an answer so far.
    out: usize,
}

impl Peers {
    /// Waits until the tracker answers, and connects everybody.
    fn start(to: SocketAddr) -> Result<Peers> {
        let until = Instant::now() + START;
        let mut hosts = Vec::new();
        for number in 0..HOSTS {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 1, 0, number as u8 + 1), 0))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let mut host = Host { socket, connection: [0; 8], connected: Instant::now(), out: 0 };
            // Until it listens, the system says that nobody does.
            while let Err(why) = host.connect() {
                if Instant::now() > until {
                    return Err(why);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            hosts.push(host);
        }
        Ok(Peers { hosts, transaction: 0, lost: 0, told: 0 })
    }

    /// Sends one announce; where too many are without an answer, after waiting for those.
    fn announce(&mut self, load: &Load, number: usize) -> Result<()> {
        let index = load.host(number);
        if self.hosts[index].out >= DEPTH {
            self.collect(index)?;
        }
        let host = &mut self.hosts[index];
        if host.connected.elapsed() > CONNECTION_LIFE {
            host.connect()?;
        }
        self.transaction = self.transaction.wrapping_add(1);
        host.socket.send(&load.datagram(number, host.connection, self.transaction))?;
        host.out += 1;
        Ok(())
    }

    fn collect_all(&mut self) -> Result<()> {
        (0..HOSTS).try_for_each(|index| self.collect(index))
    }

    /// Waits for all answers to one address.
    fn collect(&mut self, index: usize) -> Result<()> {
        let host = &mut self.hosts[index];
        let mut buffer = [0; 2048];
        while host.out > 0 {
            match host.socket.recv(&mut buffer) {
                Ok(len) if len >= 20 && buffer[..4] == [0, 0, 0, 1] => {
                    host.out -= 1;
                    self.told += (len - 20) as u64 / 6;
                }
                Ok(len) => {
                    host.out -= 1;
                    bail!("refused: {}", String::from_utf8_lossy(&buffer[8.min(len)..len]));
                }
                Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {
                    self.lost += host.out as u64;
                    host.out = 0;
                }
                Err(why) => return Err(why.into()),
            }
        }
        Ok(())
    }
}

impl Host {
    fn connect(&mut self) -> Result<()> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&0x0417_2710_1980_u64.to_be_bytes());
        self.socket.send(&bytes)?;
        let len = self.socket.recv(&mut bytes).context("no answer to a request to connect")?;
        ensure!(len == 16 && bytes[..8] == [0; 8], "no answer to a request to connect");
        self.connection.copy_from_slice(&bytes[8..]);
        self.connected = Instant::now();
        Ok(())
    }
}

/// SplitMix64: the same load for everybody.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn parse(args: &[String]) -> Result<Option<Options>> {
    let mut options =
        Options { torrents: 1_000, peers: 200, announces: 1_000_000, runs: 5, binary: None, force: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--torrents" => options.torrents = value()?.parse().context("--torrents")?,
            "--peers" => options.peers = value()?.parse().context("--peers")?,
            "--announces" => options.announces = value()?.parse().context("--announces")?,
            "--runs" => options.runs = value()?.parse().context("--runs")?,
            "--binary" => options.binary = Some(std::path::absolute(value()?)?),
            "--force" => options.force = true,
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(None);
            }
            other => bail!("{other}: no such option\n{HELP}"),
        }
    }
    ensure!((2..=HOSTS * PEERS_PER_HOST).contains(&options.peers), "--peers: from 2 to 4096");
    ensure!(options.torrents > 0 && options.announces > 0 && options.runs > 0, "0 is too little");
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address has at most 64 peers in a swarm, and each peer one place.
    #[test]
    fn everybody_lives_somewhere() {
        let options = parse(&["--torrents".into(), "2".into(), "--peers".into(), "4096".into()]);
        let load = Load::new(&options.unwrap().unwrap());
        let mut places = std::collections::BTreeMap::new();
        for number in 0..load.everybody() {
            let bytes = load.datagram(number, [9; 8], 7);
            let ports: &mut std::collections::BTreeSet<_> =
                places.entry((bytes[16..36].to_vec(), load.host(number))).or_default();
            assert!(ports.insert(bytes[96..98].to_vec()));
        }
        assert_eq!(places.len(), 2 * HOSTS);
        assert!(places.values().all(|ports| ports.len() == PEERS_PER_HOST));
    }
}
