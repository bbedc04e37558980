//! Peers, trackers and the DHT by way of proxies that others wrote, and nothing past them.
//!
//! The one who fetches may send to the proxy alone; the kernel counts what goes elsewhere.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::cli::ask;
use super::content::same;
use super::finding::{self, Part, wait_until_announced};
use super::leak::{self, Counter, Watched, lacking, text};
use super::matrix::our_tracker_at;
use super::net::Host;
use super::peers::{Carrier, Client, Road, Ways, dht_node};
use super::{Case, Stage};
use crate::run::Running;

/// Each is a few seconds' work.
const LIMIT: Duration = Duration::from_secs(60);
/// Where all of them listen.
const PORT: u16 = 1080;
/// Whom they let in.
const LOGIN: [&str; 2] = ["piecemeal", "a-pass-word"];

/// Some 24 MiB, and so many bytes a second: slow enough that the proxy can die in the middle.
const PIECES: u64 = 382;
const UP_LIMIT: u64 = 2 << 20;
/// How long nothing may happen before we believe that nothing does.
const QUIET: Duration = Duration::from_secs(3);
/// So long after the proxy is back a client moves again: it looked for it after 1 s, 2 s and 4 s.
const BACK: Duration = Duration::from_secs(10);
/// Names that the proxy alone knows.
const TRACKER: &str = "tracker.example";
const NODE: &str = "node.example";
/// Where nodes of the DHT and trackers are, which must not be spoken to directly.
const NODE_PORT: u16 = 6881;
const TRACKER_PORT: u16 = 6969;

/// A proxy, and how we speak to it.
#[derive(Clone, Copy)]
struct Proxy {
    program: &'static str,
    scheme: &'static str,
    login: bool,
}

/// By what the seed is found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Http,
    Udp,
    UdpByName,
    Dht,
}

/// The cases.
pub fn cases() -> Vec<Case> {
    use Carrier::{Tcp, Utp};
    use Found::{Dht, Http, Udp, UdpByName};
    let table = [
        ("socks5-tcp", "microsocks", "socks5", false, Tcp, Http),
        ("socks5-auth", "microsocks", "socks5", true, Tcp, Http),
        ("http-connect", "tinyproxy", "http", false, Tcp, Http),
        ("http-auth", "tinyproxy", "http", true, Tcp, Http),
        ("socks5-udp", "danted", "socks5", false, Utp, Udp),
        ("socks5-names", "danted", "socks5", false, Tcp, UdpByName),
        ("socks5-dht", "danted", "socks5", false, Utp, Dht),
    ];
    let case = |(at, (name, program, scheme, login, carrier, found)): (u64, _)| {
        let proxy = Proxy { program, scheme, login };
        Case::new(format!("proxy/{name}"), move |stage| swap(stage, proxy, carrier, found, 80 + at))
    };
    let mut cases: Vec<Case> = (0..).zip(table).map(case).collect();
    for (at, (program, carrier)) in (0..).zip([("microsocks", Tcp), ("danted", Tcp), ("danted", Utp)]) {
        let proxy = Proxy { program, scheme: "socks5", login: false };
        let name = format!("net/leak-proxy-{program}-{}", carrier.name());
        cases.push(Case::new(name, move |stage| dies(stage, proxy, carrier, PIECES + at)));
    }
    cases.push(Case::new("proxy/socks5-tools", |stage| tools(stage, 90)));
    for (at, (program, scheme, why)) in (91..).zip([
        ("microsocks", "socks5", "the proxy relays no datagrams: the proxy says: "),
        ("tinyproxy", "http", "an HTTP proxy carries no UDP"),
    ]) {
        let proxy = Proxy { program, scheme, login: false };
        let name = format!("proxy/{program}-tools");
        cases.push(Case::new(name, move |stage| tools_refused(stage, proxy, why, at)));
    }
    cases
}

impl Proxy {
    fn url(self, host: &Host) -> String {
        let [user, password] = LOGIN;
        let login = if self.login { format!("{user}:{password}@") } else { String::new() };
        format!("{}://{login}{}", self.scheme, SocketAddr::from((host.ip(), PORT)))
    }

    fn start(self, stage: &Stage<'_>, host: &Host) -> Result<Running> {
        let conf = stage.dir.join("proxy.conf");
        let command = match self.program {
            "microsocks" => self.microsocks(host),
            "tinyproxy" => self.tinyproxy(host, &conf)?,
            "danted" => self.danted(stage, host, &conf)?,
            other => bail!("no proxy {other}"),
        };
        let running = Running::start(self.program, command, &stage.dir.join("proxy.log"))?;
        stage.wait_for_port((host.ip(), PORT).into(), LIMIT)?;
        Ok(running)
    }

    fn microsocks(self, host: &Host) -> Command {
        let mut command = host.command(self.program);
        command.args(["-i", &host.ip().to_string(), "-p", &PORT.to_string()]);
        if self.login {
            command.args(["-u", LOGIN[0], "-P", LOGIN[1]]);
        }
        command
    }

    fn tinyproxy(self, host: &Host, conf: &Path) -> Result<Command> {
        let mut lines =
            vec![format!("Listen {}", host.ip()), format!("Port {PORT}"), "Timeout 600".to_owned()];
        if self.login {
            lines.push(format!("BasicAuth {} {}", LOGIN[0], LOGIN[1]));
        }
        fs::write(conf, lines.join("\n") + "\n").context("tinyproxy's configuration")?;
        let mut command = host.command(self.program);
        command.arg("-d").arg("-c").arg(conf);
        Ok(command)
    }

    /// Dante relays datagrams, and knows names of its own.
    fn danted(self, stage: &Stage<'_>, host: &Host, conf: &Path) -> Result<Command> {
        let ip = host.ip();
        let lines = [
            "logoutput: stdout".to_owned(),
            format!("internal: {ip} port = {PORT}"),
            format!("external: {ip}"),
            "clientmethod: none\nsocksmethod: none\nuser.privileged: root\nuser.unprivileged: root"
                .to_owned(),
            "client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }".to_owned(),
            "socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }".to_owned(),
        ];
        fs::write(conf, lines.join("\n") + "\n").context("danted's configuration")?;
        let hosts = conf.with_extension("hosts");
        let names = format!("{} {TRACKER}\n{ip} {NODE}\n", stage.host(2).ip());
        fs::write(&hosts, names).context("the proxy's names")?;
        let mut command = host.command("unshare");
        command.args(["--mount", "--", "sh", "-c"]).arg(format!(
            "mount --bind '{}' /etc/hosts && exec danted -f '{}' -p '{}' -N 1",
            hosts.display(),
            conf.display(),
            conf.with_extension("pid").display()
        ));
        Ok(command)
    }
}

/// The whole life of a client whose proxy dies in the middle and comes back, with everything there to tempt it.
fn dies(stage: &Stage<'_>, proxy: Proxy, carrier: Carrier, pieces: u64) -> Result<String> {
    if let Some(why) = lacking(stage, &["nft", proxy.program])? {
        return Ok(why);
    }
    let (near, middle, far) = (stage.host(0), stage.host(1), stage.host(2));
    let rule = format!("ip daddr {} accept;\n", middle.ip());
    let counter = Counter::set(near, &rule)?;
    let mut running = proxy.start(stage, middle)?;
    let (_tracker, url) = our_tracker_at(stage, far)?;
    let (metainfo, for_seed, dir) = finding::torrent(stage, pieces, Some(&url))?;
    let seeds = stage.dir.join("seeds.torrent");
    fs::rename(&for_seed, &seeds)?;
    let udp = url.replace("http:", "udp:");
    let trackers = [&*url, &udp, "http://tracker.invalid/announce", "udp://tracker.invalid:1/announce"];
    let (torrent, _) = leak::torrent(stage, pieces, &trackers.map(str::to_owned))?;
    let counter = counter.prove(stage, text(&torrent)?, &rule)?;
    let ways = Ways { road: Road { carrier, ..Road::default() }, ..Ways::default() };
    let (client, peers) = (Client::Piecemeal, &[]);
    let part = Part { client, host: far, torrent: &seeds, dir: &dir, peers, up_limit: UP_LIMIT };
    let _seed = part.start(stage, true, &ways)?;
    stage.wait_for_seed(&url, metainfo.wire_hash(), LIMIT)?;

    let (by, transport) = (proxy.url(middle), format!("--transport={}", carrier.name()));
    let [peer, node] = ["peer", "dht-node"].map(|what| format!("--{what}={}", far.peer()));
    let target = stage.dir.join("leech");
    let base = ["get", text(&torrent)?, "-o", text(&target)?, "--json", "--proxy", &by, &transport];
    let get = [&base[..], &[&peer, &node, "--dht-node=router.invalid:6881"]].concat();
    let mut leech = Watched::start(stage, near, "first", &get)?;
    leech.moves(LIMIT)?;
    counter.must_be_zero("it moves")?;
    running.signal(rustix::process::Signal::KILL);
    running.wait(LIMIT)?;
    drop(running);
    std::thread::sleep(QUIET);
    counter.must_be_zero("the proxy died")?;
    let running = proxy.start(stage, middle)?;
    let took = leech.moves(BACK).context("the proxy is back")?;
    counter.must_be_zero("the proxy is back")?;
    leech.0.interrupt(LIMIT)?;
    counter.must_be_zero("left")?;
    drop(running);

    let mut dead = Watched::start(stage, near, "dead", &get)?;
    std::thread::sleep(QUIET);
    dead.0.interrupt(LIMIT)?;
    counter.must_be_zero("without the proxy")?;
    let _running = proxy.start(stage, middle)?;
    let mut again = Watched::start(stage, near, "again", &get)?;
    again.0.finish(LIMIT)?;
    counter.must_be_zero("started again, and done")?;
    same(&dir, &target)?;
    Ok(format!("moving {:.1} s after the proxy; 0 packets elsewhere", took.as_secs_f64()))
}

fn swap(stage: &Stage<'_>, proxy: Proxy, carrier: Carrier, found: Found, pieces: u64) -> Result<String> {
    if let Some(why) = lacking(stage, &["nft", proxy.program])? {
        return Ok(why);
    }
    let (near, middle, far) = (stage.host(0), stage.host(1), stage.host(2));
    // The relay of datagrams has a port of its own each time.
    let relayed = if found == Found::Http { String::new() } else { format!("udp dport != {NODE_PORT}") };
    let to_proxy = format!("ip daddr {}", middle.ip());
    let mut rule = format!("{to_proxy} tcp dport {PORT} accept;\n");
    if !relayed.is_empty() {
        rule += &format!("{to_proxy} {relayed} accept;\n");
    }
    let counter = Counter::set(near, &rule)?;
    let _proxy = proxy.start(stage, middle)?;
    let (_tracker, url) = our_tracker_at(stage, far)?;
    let announce = match found {
        Found::Http => Some(url.clone()),
        Found::Udp => Some(url.replace("http:", "udp:")),
        Found::UdpByName => Some(format!("udp://{TRACKER}:{TRACKER_PORT}/announce")),
        Found::Dht => None,
    };
    // Where trackers are does not change which torrent it is.
    let (metainfo, for_seed, dir) = finding::torrent(stage, pieces, announce.as_ref().map(|_| &*url))?;
    let seeds = stage.dir.join("seeds.torrent");
    fs::rename(&for_seed, &seeds)?;
    let (_, torrent, _) = finding::torrent(stage, pieces, announce.as_deref())?;
    let mut ways = Ways { road: Road { carrier, ..Road::default() }, ..Ways::default() };
    let _node = match found {
        Found::Dht => {
            let (node, addr) = dht_node(middle, 0, &stage.dir.join("node.log"))?;
            ways.dht = Some(addr);
            Some(node)
        }
        _ => None,
    };
    let client = Client::Libtorrent;
    let part = Part { client, host: far, torrent: &seeds, dir: &dir, peers: &[], up_limit: 0 };
    let _seed = part.start(stage, true, &ways)?;
    match ways.dht {
        Some(node) => wait_until_announced(node, metainfo.wire_hash(), LIMIT)?,
        None => stage.wait_for_seed(&url, metainfo.wire_hash(), LIMIT)?,
    }
    let (by, transport) = (proxy.url(middle), format!("--transport={}", carrier.name()));
    let (node, target) = (format!("--dht-node={NODE}:{NODE_PORT}"), stage.dir.join("leech"));
    let began = Instant::now();
    let get = ["get", text(&torrent)?, "-o", text(&target)?, "--json", "--proxy", &by, &transport, &node];
    let mut leech = Watched::start(stage, near, "leech", &get)?;
    leech.0.finish(LIMIT)?;
    let took = began.elapsed();
    counter.must_be_zero("swapped")?;
    same(&dir, &target)?;
    Ok(format!("{:.1} s to swap", took.as_secs_f64()))
}

/// The tools with one question, to trackers by UDP and to the DHT, each by address and by a name that the proxy alone knows.
fn tools(stage: &Stage<'_>, pieces: u64) -> Result<String> {
    let proxy = Proxy { program: "danted", scheme: "socks5", login: false };
    if let Some(why) = lacking(stage, &["nft", proxy.program])? {
        return Ok(why);
    }
    let (near, middle, far) = (stage.host(0), stage.host(1), stage.host(2));
    let to_proxy = format!("ip daddr {}", middle.ip());
    let rule = format!("{to_proxy} tcp dport {PORT} accept;\n{to_proxy} udp dport != {NODE_PORT} accept;\n");
    let counter = Counter::set(near, &rule)?;
    let _proxy = proxy.start(stage, middle)?;
    let (_tracker, url) = our_tracker_at(stage, far)?;
    let (metainfo, for_seed, dir) = finding::torrent(stage, pieces, Some(&url))?;
    let seeds = stage.dir.join("seeds.torrent");
    fs::rename(&for_seed, &seeds)?;
    let urls = [url.replace("http:", "udp:"), format!("udp://{TRACKER}:{TRACKER_PORT}/announce")];
    let (torrent, _) = leak::torrent(stage, pieces, &urls)?;
    let counter = counter.prove(stage, text(&torrent)?, &rule)?;
    let (client, peers) = (Client::Piecemeal, &[]);
    let part = Part { client, host: far, torrent: &seeds, dir: &dir, peers, up_limit: 0 };
    let _seed = part.start(stage, true, &Ways::default())?;
    stage.wait_for_seed(&url, metainfo.wire_hash(), LIMIT)?;

    let by = format!("--proxy={}", proxy.url(middle));
    let answer = ask(stage, &["peers", text(&torrent)?, "--json", &by], LIMIT)?.expect(0, "peers")?;
    let seed = far.peer().to_string();
    for (line, url) in answer.out.lines().zip(&urls) {
        let said: Value = serde_json::from_str(line).context("peers")?;
        let found = said["peers"].as_array().is_some_and(|peers| peers.iter().any(|peer| *peer == *seed));
        if said["url"] != **url || !found {
            bail!("no peer {seed} of {url}: {line}");
        }
    }
    counter.must_be_zero("trackers were asked")?;

    let (_node, addr) = dht_node(middle, 0, &stage.dir.join("node.log"))?;
    let hash = metainfo.wire_hash().to_string();
    for (place, port) in [(format!("{NODE}:{NODE_PORT}"), "4321"), (addr.to_string(), "4322")] {
        let node = format!("--node={place}");
        ask(stage, &["dht", "ping", &place, &by], LIMIT)?.expect(0, "ping")?;
        let announce = ["dht", "get-peers", &hash, "--announce", port, &node, &by];
        ask(stage, &announce, LIMIT)?.expect(0, "announce")?;
        let found = ask(stage, &["dht", "get-peers", &hash, &node, &by], LIMIT)?.expect(0, "get-peers")?.out;
        // As the node sees us: by the proxy.
        let ours = format!("{}:{port}", middle.ip());
        if !found.lines().any(|line| line == ours) {
            bail!("{place}: no {ours} in {found:?}");
        }
    }
    counter.must_be_zero("the DHT was asked")?;
    Ok("0 packets elsewhere".to_owned())
}

/// The same by a proxy that carries no datagrams: one line says why, and nothing is sent.
fn tools_refused(stage: &Stage<'_>, proxy: Proxy, why: &str, pieces: u64) -> Result<String> {
    if let Some(why) = lacking(stage, &["nft", proxy.program])? {
        return Ok(why);
    }
    let (near, middle, far) = (stage.host(0), stage.host(1), stage.host(2));
    let rule = format!("ip daddr {} tcp dport {PORT} accept;\n", middle.ip());
    let counter = Counter::set(near, &rule)?;
    let _proxy = proxy.start(stage, middle)?;
    let (_tracker, url) = our_tracker_at(stage, far)?;
    let urls = [url.replace("http:", "udp:"), format!("udp://{TRACKER}:{TRACKER_PORT}/announce")];
    let (torrent, _) = leak::torrent(stage, pieces, &urls)?;
    let counter = counter.prove(stage, text(&torrent)?, &rule)?;
    let by = format!("--proxy={}", proxy.url(middle));
    let answer = ask(stage, &["peers", text(&torrent)?, &by], LIMIT)?.expect(1, "peers")?;
    if answer.out.lines().count() != urls.len() || !answer.out.lines().all(|line| line.contains(why)) {
        bail!("peers: not {why:?}: {:?}", answer.out);
    }
    let node = format!("{}:{NODE_PORT}", far.ip());
    for place in [&*node, "node.invalid:6881"] {
        let node = format!("--node={place}");
        for question in [&["dht", "ping", place, &by][..], &["dht", "find", &"1".repeat(40), &node, &by]] {
            let answer = ask(stage, question, LIMIT)?.expect(1, "dht")?;
            if answer.err.lines().count() != 1 || !answer.err.contains(why) {
                bail!("{question:?}: not {why:?}: {:?}", answer.err);
            }
        }
    }
    counter.must_be_zero("refused")?;
    Ok("0 packets to anybody but the proxy".to_owned())
}
