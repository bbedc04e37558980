//! The clients, each started the same way: as a seed of content that is there, or as a leech that fetches it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::net::Host;
use crate::run::{Running, ended, installed, root};

/// A client may take so long to start on a busy machine.
const START: Duration = Duration::from_secs(20);

/// And so long to end: Transmission says goodbye to its tracker first.
const LEAVE: Duration = Duration::from_secs(15);

/// Who swaps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    /// Ours.
    Piecemeal,
    /// libtorrent-rasterbar by its Python binding.
    Libtorrent,
    /// transmission-daemon.
    Transmission,
    /// aria2c.
    Aria2,
    /// rqbit: for benchmarks only, since it takes long to build.
    Rqbit,
}

/// Those that others wrote and that ours must get along with.
pub const OTHERS: [Client; 3] = [Client::Libtorrent, Client::Transmission, Client::Aria2];

/// What every client is told.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// Where it runs.
    pub host: &'a Host,
    /// What it swaps.
    pub torrent: &'a Path,
    /// The directory that holds the content, or will.
    pub dir: &'a Path,
    /// Its own directory, for state and logs.
    pub state: &'a Path,
    /// Who to talk to, beside those that a tracker names. Not every client can be told.
    pub peers: &'a [SocketAddr],
    /// Bytes a second it may send; 0 for all it can.
    pub up_limit: u64,
    /// As a leech, it ends when it is done rather than going on to upload.
    pub once: bool,
}

/// How a client may find peers beside what [`Task`] says and trackers that speak HTTP; by default not at all.
#[derive(Clone, Copy, Default)]
pub struct Ways {
    /// In the DHT, beginning at this node.
    pub dht: Option<SocketAddr>,
    /// On the local network.
    pub lsd: bool,
    /// From other peers. libtorrent and ours always do.
    pub pex: bool,
    /// By trackers that speak UDP.
    pub udp: bool,
    /// By which roads it reaches them, and they it.
    pub road: Road,
}

/// A road to a peer. A client that cannot close others is met by one that can.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Road {
    /// What carries the connection.
    pub carrier: Carrier,
    /// Whether it is encrypted.
    pub encryption: Encryption,
}

/// What carries a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Carrier {
    /// TCP alone.
    #[default]
    Tcp,
    /// uTP alone.
    Utp,
    /// TLS over TCP, with [`TLS_CERTIFICATE`] and [`TLS_KEY`].
    Tls,
}

/// A client's certificate, in its state directory.
pub const TLS_CERTIFICATE: &str = "peer.pem";
/// The key of [`TLS_CERTIFICATE`].
pub const TLS_KEY: &str = "peer.key";

/// Whether a client encrypts, both ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Encryption {
    /// Never, or only as others insist where it cannot be told otherwise.
    #[default]
    Off,
    /// If the other can.
    Prefer,
    /// Always, and all of it.
    Require,
}

impl Carrier {
    /// As in names of cases.
    pub fn name(self) -> &'static str {
        match self {
            Carrier::Tcp => "tcp",
            Carrier::Utp => "utp",
            Carrier::Tls => "tls",
        }
    }
}

impl Encryption {
    /// As in names of cases, and in options.
    pub fn name(self) -> &'static str {
        match self {
            Encryption::Off => "off",
            Encryption::Prefer => "prefer",
            Encryption::Require => "require",
        }
    }
}

/// A client at work.
pub struct Peer {
    /// Its process.
    pub running: Running,
    done: Done,
}

/// How a client tells that it has everything.
enum Done {
    /// A line that has this in it.
    Line(&'static str),
    /// A file that appears.
    File(PathBuf),
}

impl Client {
    /// As in tables.
    pub fn name(self) -> &'static str {
        match self {
            Client::Piecemeal => "piecemeal",
            Client::Libtorrent => "libtorrent",
            Client::Transmission => "transmission",
            Client::Aria2 => "aria2",
            Client::Rqbit => "rqbit",
        }
    }

    /// Why it cannot run here.
    pub fn missing(self) -> Option<String> {
        let program = match self {
            Client::Piecemeal => return None,
            Client::Libtorrent => {
                let found = python("lt.py").arg("version").output().is_ok_and(|out| out.status.success());
                return (!found).then(|| "no Python module libtorrent".to_owned());
            }
            Client::Transmission => "transmission-daemon",
            Client::Aria2 => "aria2c",
            Client::Rqbit => "rqbit",
        };
        (!installed(program)).then(|| format!("no program {program}"))
    }

    /// Whether it dials addresses that it is told.
    pub fn dials(self) -> bool {
        matches!(self, Client::Piecemeal | Client::Libtorrent | Client::Rqbit)
    }

    /// Starts it with content that is there. Ready when this returns, but for its announce.
    pub fn seed(self, binary: &Path, task: &Task<'_>) -> Result<Peer> {
        self.start(binary, task, true, &Ways::default())
    }

    /// Starts it with nothing. It goes on uploading when it is done.
    pub fn leech(self, binary: &Path, task: &Task<'_>) -> Result<Peer> {
        self.start(binary, task, false, &Ways::default())
    }

    /// Starts it as either, with these ways of finding peers.
    pub fn start(self, binary: &Path, task: &Task<'_>, seed: bool, ways: &Ways) -> Result<Peer> {
        for dir in [task.dir, task.state] {
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        match self {
            Client::Piecemeal => piecemeal(binary, task, seed, ways),
            Client::Libtorrent => libtorrent(task, seed, ways),
            Client::Transmission => transmission(task, seed, ways),
            Client::Aria2 => aria2(task, seed, ways),
            Client::Rqbit => rqbit(task, seed),
        }
    }
}

impl Peer {
    /// Whether it has everything. Fails when it ended without.
    pub fn done(&mut self) -> Result<bool> {
        let over = self.running.poll()?;
        let done = match &self.done {
            Done::Line(word) => self.running.lines().iter().any(|line| line.contains(word)),
            Done::File(path) => path.exists(),
        };
        match over {
            Some(status) if !done => {
                let said = self.running.lines().join(" / ");
                bail!("{}: {} before it was done: {}", self.running.name, ended(status), tail(&said));
            }
            _ => Ok(done),
        }
    }

    /// Waits until it has everything.
    pub fn finish(&mut self, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        while !self.done()? {
            if Instant::now() > until {
                let said = self.running.lines().join(" / ");
                bail!("{}: not done after {} s: {}", self.running.name, limit.as_secs(), tail(&said));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Asks it to end, as a user would, and waits: some write the last of what they have only then.
    pub fn leave(mut self) -> Result<()> {
        self.running.interrupt(LEAVE).map(drop)
    }
}

/// One of the Python programs beside this crate, with what `.ci/install` put in place.
pub fn python(script: &str) -> Command {
    python_of(Command::new("python3"), script)
}

/// The same by a command that runs Python somewhere.
pub fn python_of(mut command: Command, script: &str) -> Command {
    command
        .args(["-W", "ignore"])
        .arg(root().join("xtask/peers").join(script))
        .env("PYTHONPATH", root().join("target/peers-python"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// A node of libtorrent's DHT that swaps nothing, and as many more on the ports after its own, which begin at it.
pub fn dht_node(host: &Host, more: u16, log: &Path) -> Result<(Running, SocketAddr)> {
    let addr = host.peer();
    let mut command = python_of(host.command("python3"), "lt.py");
    command.arg("node").arg(format!("--listen={addr}")).arg(format!("--more={more}"));
    let mut running = Running::start("DHT node", command, log)?;
    running.line(START, |line| line == "READY")?;
    Ok((running, addr))
}

/// Our binary, with a home of its own so that no resume facts of another run are found.
pub fn ours(mut command: Command, state: &Path) -> Command {
    command.env("HOME", state);
    for (name, dir) in [("XDG_STATE_HOME", "state"), ("XDG_DATA_HOME", "data"), ("XDG_CONFIG_HOME", "config")]
    {
        command.env(name, state.join(dir));
    }
    command.env("TMPDIR", state);
    command
}

fn piecemeal(binary: &Path, task: &Task<'_>, seed: bool, ways: &Ways) -> Result<Peer> {
    let mut command = ours(task.host.command(binary), task.state);
    command.arg(if seed { "seed" } else { "get" }).arg(task.torrent).arg("-o").arg(task.dir);
    command.arg("--json").arg(format!("--listen={}", task.host.peer()));
    if !seed {
        command.args((!task.once).then_some("--seed"));
        command.args(task.peers.iter().map(|peer| format!("--peer={peer}")));
    }
    if task.up_limit > 0 {
        command.arg(format!("--up-limit={}", task.up_limit));
    }
    match ways.dht {
        Some(node) => command.arg(format!("--dht-node={node}")),
        None => command.arg("--no-dht"),
    };
    command.args((!ways.lsd).then_some("--no-lsd"));
    if ways.road.carrier == Carrier::Tls {
        command.arg("--tls-cert").arg(task.state.join(TLS_CERTIFICATE));
        command.arg("--tls-key").arg(task.state.join(TLS_KEY));
    } else {
        command.arg(format!("--transport={}", ways.road.carrier.name()));
    }
    // A plain road is taken as users have it, unless that is what is under test.
    if ways.road.carrier != Carrier::Tls && ways.road != Road::default() {
        command.arg(format!("--encryption={}", ways.road.encryption.name()));
    }
    let mut running = Running::start("piecemeal", command, &task.state.join("log"))?;
    let ready = if seed { "\"event\":\"offered\"" } else { "\"event\":\"listening\"" };
    running.line(START, |line| line.contains(ready))?;
    Ok(Peer { running, done: Done::Line("\"event\":\"complete\"") })
}

fn libtorrent(task: &Task<'_>, seed: bool, ways: &Ways) -> Result<Peer> {
    let mut command = python_of(task.host.command("python3"), "lt.py");
    command.arg("peer").arg("--torrent").arg(task.torrent).arg("--dir").arg(task.dir);
    command.arg(format!("--listen={}", task.host.peer())).arg(format!("--up-limit={}", task.up_limit));
    command.args(seed.then_some("--seed")).args((task.once && !seed).then_some("--once"));
    command.args(task.peers.iter().map(|peer| format!("--connect={peer}")));
    command.args(ways.dht.map(|node| format!("--dht={node}"))).args(ways.lsd.then_some("--lsd"));
    command.arg(format!("--encryption={}", ways.road.encryption.name()));
    command.args((ways.road.carrier == Carrier::Utp).then_some("--utp"));
    if ways.road.carrier == Carrier::Tls {
        command.arg("--tls").arg(task.state.join(TLS_CERTIFICATE)).arg(task.state.join(TLS_KEY));
    }
    let mut running = Running::start("libtorrent", command, &task.state.join("log"))?;
    running.line(START, |line| line == "READY")?;
    Ok(Peer { running, done: Done::Line("DONE") })
}

fn aria2(task: &Task<'_>, seed: bool, ways: &Ways) -> Result<Peer> {
    let done = task.state.join("done");
    let hook = hook(&task.state.join("hook"), &done)?;
    let mut command = task.host.command("aria2c");
    command
        .arg(format!("--dir={}", task.dir.display()))
        .arg(format!("--interface={}", task.host.ip()))
        .arg(format!("--listen-port={}", task.host.peer().port()))
        .arg(format!("--on-bt-download-complete={}", hook.display()))
        .arg(format!("--max-upload-limit={}", task.up_limit))
        .args(["--no-conf", "--enable-dht6=false", "--seed-ratio=0.0"])
        .arg(format!("--disable-ipv6={}", task.host.ip().is_ipv4()))
        // Its trackers over UDP are part of its DHT.
        .arg(format!("--enable-dht={}", ways.dht.is_some() || ways.udp))
        .args(ways.dht.map(|node| format!("--dht-entry-point={node}")))
        .arg(format!("--dht-listen-port={}", task.host.peer().port()))
        .arg(format!("--dht-file-path={}", task.state.join("dht.dat").display()))
        .arg(format!("--enable-peer-exchange={}", ways.pex))
        .arg(format!("--bt-enable-lpd={}", ways.lsd))
        .args((ways.road.encryption == Encryption::Require).then_some("--bt-force-encryption=true"))
        .args(["--allow-overwrite=true", "--file-allocation=none", "--summary-interval=0"])
        .args(["--console-log-level=notice", "--download-result=hide", "--follow-torrent=mem"]);
    command
        .args(seed.then_some("--bt-seed-unverified=true"))
        .args((task.once && !seed).then_some("--seed-time=0"));
    command.arg(task.torrent).env("HOME", task.state);
    let mut running = Running::start("aria2", command, &task.state.join("log"))?;
    running.line(START, |line| line.contains("listening on TCP port"))?;
    Ok(Peer { running, done: Done::File(done) })
}

fn rqbit(task: &Task<'_>, seed: bool) -> Result<Peer> {
    let mut command = task.host.command("rqbit");
    command
        .args(["-v", "info", "--disable-dht", "--disable-lsd", "--disable-upnp-port-forward", "--ipv4-only"])
        .arg("--disable-trackers")
        .arg(format!("--listen-ip={}", task.host.ip()))
        .arg(format!("--listen-port={}", task.host.peer().port()))
        .args(["download", "--overwrite", "--disable-http-api"])
        .arg(format!("--output-folder={}", task.dir.display()));
    let peers: Vec<_> = task.peers.iter().map(ToString::to_string).collect();
    if !peers.is_empty() {
        command.arg(format!("--initial-peers={}", peers.join(",")));
    }
    command
        .args((task.once && !seed).then_some("--exit-on-finish"))
        .arg(task.torrent)
        .env("HOME", task.state);
    let running = Running::start("rqbit", command, &task.state.join("log"))?;
    Ok(Peer { running, done: Done::Line("torrent finished") })
}

fn transmission(task: &Task<'_>, seed: bool, ways: &Ways) -> Result<Peer> {
    let done = task.state.join("done");
    let settings = transmission_settings(task, &hook(&task.state.join("hook"), &done)?, ways);
    fs::write(task.state.join("settings.json"), settings.to_string())?;
    if let Some(node) = ways.dht {
        fs::write(task.state.join("dht.bootstrap"), format!("{} {}\n", node.ip(), node.port()))?;
    }
    let mut command = task.host.command("transmission-daemon");
    command.args(["--foreground", "--log-info", "--config-dir"]).arg(task.state).env("HOME", task.state);
    let mut running = Running::start("transmission", command, &task.state.join("log"))?;
    let until = Instant::now() + START;
    loop {
        let mut remote = task.host.command("transmission-remote");
        remote.arg(task.host.control().to_string()).arg("--add").arg(task.torrent);
        let answer = remote.output().context("transmission-remote")?;
        if answer.status.success() && String::from_utf8_lossy(&answer.stdout).contains("success") {
            break;
        }
        if let Some(status) = running.poll()? {
            bail!("transmission: {}: {}", ended(status), tail(&running.lines().join(" / ")));
        }
        if Instant::now() > until {
            bail!("transmission takes no torrent: {}", tail(&String::from_utf8_lossy(&answer.stderr)));
        }
        thread::sleep(Duration::from_millis(100));
    }
    if seed {
        running.line(START, |line| line.contains("Verifying torrent") || line.contains("State changed")).ok();
    }
    Ok(Peer { running, done: Done::File(done) })
}

fn transmission_settings(task: &Task<'_>, hook: &Path, ways: &Ways) -> Value {
    let own = task.host.ip();
    // Its tracker is asked from the IPv4 address unless that is no certain one.
    let (four, six): (IpAddr, IpAddr) = match own {
        IpAddr::V4(_) => (own, Ipv6Addr::LOCALHOST.into()),
        IpAddr::V6(_) => (Ipv4Addr::UNSPECIFIED.into(), own),
    };
    json!({
        "bind-address-ipv4": four.to_string(),
        "bind-address-ipv6": six.to_string(),
        "peer-port": task.host.peer().port(),
        "rpc-bind-address": task.host.control().ip().to_string(),
        "rpc-port": task.host.control().port(),
        "rpc-whitelist-enabled": false,
        "rpc-host-whitelist-enabled": false,
        "download-dir": task.dir,
        "incomplete-dir-enabled": false,
        "script-torrent-done-enabled": true,
        "script-torrent-done-filename": hook,
        "speed-limit-up-enabled": task.up_limit > 0,
        "speed-limit-up": task.up_limit.div_ceil(1000),
        "ratio-limit-enabled": false,
        "dht-enabled": ways.dht.is_some(),
        "lpd-enabled": ways.lsd,
        "pex-enabled": ways.pex,
        "utp-enabled": ways.road.carrier == Carrier::Utp,
        "port-forwarding-enabled": false,
        "encryption": ways.road.encryption as u8,
        "preallocation": 0,
        "rename-partial-files": false,
        "start-added-torrents": true,
    })
}

/// A program that leaves a file behind when a client calls it.
fn hook(path: &Path, leaves: &Path) -> Result<PathBuf> {
    fs::write(path, format!("#!/bin/sh\n: > '{}'\n", leaves.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(path.to_owned())
}

fn tail(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(400);
    text.chars().skip(skip).collect()
}
