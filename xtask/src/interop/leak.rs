//! Nothing leaves a host by another way than the one it was told to: counted by the kernel, through start, download,
//! loss of the way, its return, and restart.
//!
//! What would leak if it could is there to be tempted by: a second seed, trackers, nodes of the DHT and name servers on
//! the side where nobody may be spoken to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::cli::ask;
use super::content::{Content, NAME, Shape, same};
use super::net::{Host, Net};
use super::peers::ours;
use super::{Case, Stage};
use crate::run::{Running, installed};

/// Everything of a case, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// The promise: so long after its interface is there a client moves again.
const BACK: Duration = Duration::from_secs(5);
/// How long nothing may happen before we believe that nothing does: longer than dials and questions are repeated.
const QUIET: Duration = Duration::from_secs(3);
/// Bytes a piece.
const PIECE_LENGTH: u64 = 64 << 10;
/// Some 24 MiB.
const PIECES: u64 = 380;
/// What the seed sends: slow enough that the way can be lost in the middle, more than once.
const UP_LIMIT: u64 = 2 << 20;
/// The interface that may be used.
const TUNNEL: &str = "tun0";

/// The cases.
pub fn cases() -> Vec<Case> {
    let by = |carrier: &'static str| move |stage: &Stage<'_>| by_interface(stage, carrier);
    vec![
        Case::new("net/leak-interface/tcp", by("tcp")),
        Case::new("net/leak-interface/utp", by("utp")),
        Case::new("net/leak-proxy", by_proxy),
    ]
}

pub(super) fn lacking(stage: &Stage<'_>, programs: &[&str]) -> Result<Option<String>> {
    if stage.net == Net::Loopback {
        return Ok(Some("left out: it wants hosts with addresses of their own".to_owned()));
    }
    match programs.iter().find(|program| !installed(program)) {
        Some(program) => bail!("no program {program}; run .ci/install"),
        None => Ok(None),
    }
}

/// Packets that a host sent where it must not.
pub(super) struct Counter<'a> {
    host: &'a Host,
}

impl<'a> Counter<'a> {
    /// Counts what goes out by `rule`. What the kernel says by itself of IPv6 (neighbours, routers, groups) is not
    /// counted.
    pub(super) fn set(host: &'a Host, rule: &str) -> Result<Counter<'a>> {
        let table = format!(
            "table inet leak {{\n chain out {{\n type filter hook output priority 0;\n \
             meta l4proto ipv6-icmp accept;\n {rule} counter;\n }}\n}}\n"
        );
        let status = host.command("nft").arg(table).status().context("nft")?;
        if !status.success() {
            bail!("nft: no counter");
        }
        Ok(Counter { host })
    }

    /// Sees that it counts: a client that was told nothing goes where it must not. Then it begins anew.
    pub(super) fn prove(self, stage: &Stage<'_>, torrent: &str, rule: &str) -> Result<Counter<'a>> {
        let mut command = ours(self.host.command(stage.binary), stage.dir);
        command.args(["peers", torrent]).output().context("peers")?;
        if self.must_be_zero("").is_ok() {
            bail!("the counter does not count");
        }
        let host = self.host;
        drop(self);
        Counter::set(host, rule)
    }

    pub(super) fn must_be_zero(&self, when: &str) -> Result<()> {
        let output =
            self.host.command("nft").args(["list", "table", "inet", "leak"]).output().context("nft")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !text.contains("counter packets 0 bytes 0") {
            bail!("{when}: something leaked: {text}");
        }
        Ok(())
    }
}

impl Drop for Counter<'_> {
    fn drop(&mut self) {
        // The host's next case may count something else.
        let _ = self.host.command("nft").args(["delete", "table", "inet", "leak"]).status();
    }
}

/// A link between two hosts that is seen as `TUNNEL` on both.
struct Tunnel<'a> {
    near: &'a Host,
    far: &'a Host,
}

impl<'a> Tunnel<'a> {
    fn lay(near: &'a Host, far: &'a Host) -> Result<Tunnel<'a>> {
        let tunnel = Tunnel { near, far };
        let [here, there] = tunnel.ips();
        let other = format!("netns host{}", far.number);
        near.ip_tool(&format!("link add name {TUNNEL} type veth peer name {TUNNEL} {other}"))?;
        for (host, ip) in [(near, here), (far, there)] {
            host.ip_tool(&format!("addr add {ip}/24 dev {TUNNEL}"))?;
            host.ip_tool(&format!("link set {TUNNEL} up"))?;
        }
        Ok(tunnel)
    }

    fn ips(&self) -> [String; 2] {
        [self.near, self.far].map(|host| format!("10.98.{}.{}", self.near.number, host.number))
    }
}

impl Drop for Tunnel<'_> {
    fn drop(&mut self) {
        let _ = self.near.ip_tool(&format!("link del {TUNNEL}"));
    }
}

/// A client that is watched by its JSON.
pub(super) struct Watched(pub(super) Running);

impl Watched {
    pub(super) fn start(stage: &Stage<'_>, host: &Host, name: &str, args: &[&str]) -> Result<Watched> {
        let mut command: Command = ours(host.command(stage.binary), &stage.dir.join(name));
        command.args(args).current_dir(stage.dir);
        Ok(Watched(Running::start(name, command, &stage.dir.join(format!("{name}.log")))?))
    }

    fn events(&self, name: &str) -> Vec<Value> {
        let lines = self.0.lines();
        let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["event"] == name).collect()
    }

    /// Waits until the client was told `count` times that its interface went or came.
    fn interface(&mut self, count: usize, there: bool) -> Result<()> {
        self.until(LIMIT, "word of the interface", |client| {
            let told = client.events("interface");
            told.len() == count && told.last().is_some_and(|event| event["there"] == there)
        })
    }

    /// Waits until a tracker is told to have done this.
    fn hears(&mut self, outcome: &str) -> Result<()> {
        self.until(LIMIT, "word of a tracker", |client| {
            client.events("tracker").iter().any(|event| event["outcome"] == outcome)
        })
    }

    fn have_bytes(&self) -> u64 {
        let of = |event: &Value| event["status"]["have_bytes"].as_u64();
        self.events("snapshot").iter().filter_map(of).max().unwrap_or(0)
    }

    /// Waits until more has come than has.
    pub(super) fn moves(&mut self, limit: Duration) -> Result<Duration> {
        let (began, before) = (Instant::now(), self.have_bytes());
        self.until(limit, "content", |client| client.have_bytes() > before)?;
        Ok(began.elapsed())
    }

    pub(super) fn until(
        &mut self,
        limit: Duration,
        what: &str,
        done: impl Fn(&Watched) -> bool,
    ) -> Result<()> {
        let until = Instant::now() + limit;
        while !done(self) {
            if let Some(status) = self.0.poll()? {
                bail!("{} ended before {what}: {status}", self.0.name);
            }
            if Instant::now() > until {
                let last: Vec<_> = self.0.lines().into_iter().rev().take(3).collect();
                bail!("{}: no {what} in {} s: {last:?}", self.0.name, limit.as_secs());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// A torrent of the case's content with these trackers, each a tier.
pub(super) fn torrent(stage: &Stage<'_>, pieces: u64, trackers: &[String]) -> Result<(PathBuf, PathBuf)> {
    let content = Content { shape: Shape::One, piece_length: PIECE_LENGTH, pieces };
    let (dir, torrent) = (stage.content(&content)?, stage.dir.join("x.torrent"));
    let mut command = ours(stage.host(0).command(stage.binary), stage.dir);
    command.arg("create").arg(dir.join(NAME)).arg("-o").arg(&torrent).args([
        "--piece-length",
        "64KiB",
        "--v1",
    ]);
    command.args(trackers.iter().map(|url| format!("--tracker={url}")));
    let output = command.current_dir(stage.dir).output().context("create")?;
    if !output.status.success() {
        bail!("create: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok((torrent, dir))
}

pub(super) fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

fn tracker(stage: &Stage<'_>, host: &Host, log: &str) -> Result<Running> {
    let mut command = ours(host.command(stage.binary), &stage.dir.join(log));
    command.args(["tracker", "--listen=0.0.0.0:6969"]);
    let mut running = Running::start(log, command, &stage.dir.join(format!("{log}.log")))?;
    running.line(LIMIT, |line| line.starts_with("http://"))?;
    Ok(running)
}

fn start_proxy(stage: &Stage<'_>, host: &Host, at: SocketAddr, log: &str) -> Result<Running> {
    let mut command = host.command("microsocks");
    command.args(["-i", &at.ip().to_string(), "-p", &at.port().to_string()]);
    let running = Running::start("microsocks", command, &stage.dir.join(log))?;
    stage.wait_for_port(at, LIMIT)?;
    Ok(running)
}

fn by_interface(stage: &Stage<'_>, carrier: &str) -> Result<String> {
    if let Some(why) = lacking(stage, &["nft"])? {
        return Ok(why);
    }
    let (near, good, bad) = (stage.host(0), stage.host(1), stage.host(2));
    let rule = "oifname \"eth0\"";
    let counter = Counter::set(near, rule)?;
    let tunnel = Tunnel::lay(near, good)?;
    let [_, far] = tunnel.ips();
    let _trackers = [tracker(stage, good, "good-tracker")?, tracker(stage, bad, "bad-tracker")?];
    let open = format!("{}:6969/announce", bad.ip());
    let trackers = [
        format!("http://{far}:6969/announce"),
        format!("http://{open}"),
        format!("udp://{open}"),
        "udp://tracker.example:1/announce".into(),
    ];
    let (torrent, dir) = torrent(stage, PIECES, &trackers)?;
    let target = stage.dir.join("leech");
    let (torrent, from, to) = (text(&torrent)?, text(&dir)?, text(&target)?);
    let counter = counter.prove(stage, torrent, rule)?;
    let limit = format!("--up-limit={UP_LIMIT}");
    let seed =
        ["seed", torrent, "-o", from, "--json", "--no-dht", "--no-lsd", "--listen=0.0.0.0:6881", &limit];
    let mut seeds = Vec::new();
    for (host, name) in [(good, "good"), (bad, "bad")] {
        let mut seed = Watched::start(stage, host, name, &seed)?;
        seed.until(LIMIT, "offer", |seed| !seed.events("offered").is_empty())?;
        seeds.push(seed);
    }
    drop(tunnel);

    let peers = [format!("{far}:6881"), format!("{}:6881", bad.ip())].map(|addr| format!("--peer={addr}"));
    let node = format!("--dht-node={}:6881", bad.ip());
    let tied = ["--interface", TUNNEL, "--dht-node=router.example:6881", &node, "--transport", carrier];
    let get = [&["get", torrent, "-o", to, "--json", &peers[0], &peers[1]][..], &tied[..]].concat();
    let times = lose_and_find(stage, &get, &counter)?;

    let _tunnel = Tunnel::lay(near, good)?;
    let mut leech = Watched::start(stage, near, "again", &get)?;
    leech.0.finish(LIMIT)?;
    counter.must_be_zero("started again, and done")?;
    same(&dir, &target)?;
    examine_interface(stage)?;
    counter.must_be_zero("examined")?;
    let bad_log = seeds.pop().map(|bad| bad.events("snapshot"));
    let sent = |event: &Value| event["status"]["totals"]["uploaded"].as_u64().unwrap_or(0);
    if bad_log.iter().flatten().map(sent).any(|sent| sent > 0) {
        bail!("the seed on the other side sent something");
    }
    let times: Vec<_> = times.iter().map(|time| format!("{:.1}", time.as_secs_f64())).collect();
    Ok(format!("moving after {} s; 0 packets elsewhere", times.join(", ")))
}

fn examine_interface(stage: &Stage<'_>) -> Result<()> {
    let found = doctor(stage, &["--interface", TUNNEL], true)?;
    let interface = &found["interface"];
    if interface["tied"] != true || interface["addrs"].as_array().is_none_or(Vec::is_empty) {
        bail!("the doctor does not see the interface: {found}");
    }
    doctor(stage, &["--interface", "tun9"], false).map(drop)
}

/// What `net doctor` finds, and whether it is content.
fn doctor(stage: &Stage<'_>, args: &[&str], well: bool) -> Result<Value> {
    let words = [&["net", "doctor", "--json", "--timeout=2s"][..], args].concat();
    ask(stage, &words, LIMIT)?.expect(i32::from(!well), "net doctor")?.json()
}

/// A client that starts without its interface, gets it, loses it and gets it back twice, the second time as another one.
/// Tells how long it took to move each time it was there.
fn lose_and_find(stage: &Stage<'_>, get: &[&str], counter: &Counter<'_>) -> Result<[Duration; 3]> {
    let (near, good) = (stage.host(0), stage.host(1));
    let mut leech = Watched::start(stage, near, "away", get)?;
    leech.interface(1, false)?;
    thread::sleep(QUIET);
    counter.must_be_zero("started without its interface")?;

    let tunnel = Tunnel::lay(near, good)?;
    leech.interface(2, true)?;
    let first = leech.moves(BACK).context("the interface came")?;
    near.ip_tool(&format!("link set {TUNNEL} down"))?;
    leech.interface(3, false)?;
    thread::sleep(QUIET);
    counter.must_be_zero("interface down")?;

    near.ip_tool(&format!("link set {TUNNEL} up"))?;
    leech.interface(4, true)?;
    let second = leech.moves(BACK).context("the interface is up again")?;
    drop(tunnel);
    leech.interface(5, false)?;
    thread::sleep(QUIET);
    counter.must_be_zero("interface gone")?;

    let _tunnel = Tunnel::lay(near, good)?;
    leech.interface(6, true)?;
    let third = leech.moves(BACK).context("the interface was made anew")?;
    leech.0.interrupt(LIMIT)?;
    counter.must_be_zero("left")?;
    Ok([first, second, third])
}

fn by_proxy(stage: &Stage<'_>) -> Result<String> {
    if let Some(why) = lacking(stage, &["nft", "microsocks"])? {
        return Ok(why);
    }
    let (near, middle, far) = (stage.host(0), stage.host(1), stage.host(2));
    let proxy: SocketAddr = (middle.ip(), 1080).into();
    // Everything but the way to the proxy; what stays inside the host, too, or a name server there could ask on.
    let rule = format!("ip daddr {} tcp dport {} accept;\n", proxy.ip(), proxy.port());
    let counter = Counter::set(near, &rule)?;
    let start_proxy = |log| start_proxy(stage, middle, proxy, log);
    let running = start_proxy("proxy.log")?;
    let _tracker = tracker(stage, far, "tracker")?;
    let urls = [
        format!("http://{}:6969/announce", far.ip()),
        format!("udp://{}:6969/announce", far.ip()),
        "http://tracker.invalid/announce".to_owned(),
        "udp://tracker.invalid:1/announce".to_owned(),
    ];
    let (torrent, _) = torrent(stage, PIECES + 1, &urls)?;
    let target = stage.dir.join("leech");
    let (torrent, to) = (text(&torrent)?, text(&target)?);
    let counter = counter.prove(stage, torrent, &rule)?;
    let by = format!("--proxy=socks5://{proxy}");
    let peer = format!("--peer={}:6881", far.ip());
    let node = format!("--dht-node={}:6881", far.ip());
    let get = ["get", torrent, "-o", to, "--json", &by, &peer, &node, "--dht-node=router.invalid:6881"];
    let alive = |name: &str| -> Result<Watched> {
        let mut leech = Watched::start(stage, near, name, &get)?;
        leech.hears("answered")?;
        counter.must_be_zero("the tracker answered by the proxy")?;
        Ok(leech)
    };
    let examined = |well: bool| -> Result<()> {
        let found = doctor(stage, &[&by, &node], well)?;
        if found["proxy"]["connects"]["error"].is_null() != well {
            bail!("the doctor is wrong about the proxy: {found}");
        }
        counter.must_be_zero("examined")
    };
    let mut leech = alive("first")?;
    running.signal(rustix::process::Signal::KILL);
    thread::sleep(QUIET);
    counter.must_be_zero("the proxy died")?;
    leech.0.interrupt(LIMIT)?;
    counter.must_be_zero("left")?;
    examined(false)?;

    let mut leech = Watched::start(stage, near, "dead", &get)?;
    leech.hears("failed")?;
    leech.0.interrupt(LIMIT)?;
    counter.must_be_zero("started with a dead proxy")?;

    let _running = start_proxy("proxy-again.log")?;
    let mut leech = alive("restarted")?;
    thread::sleep(QUIET);
    leech.0.interrupt(LIMIT)?;
    counter.must_be_zero("left again")?;
    examined(true)?;
    Ok("0 packets to anybody but the proxy".to_owned())
}
