//! Peers, trackers and the DHT by way of proxies that others wrote, and nothing past them.
//!
//! The one who fetches may send to the proxy alone; the kernel counts what goes elsewhere.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::content::{Content, NAME, Shape, link, same};
use super::leak::{Counter, Watched, lacking, text};
use super::makers::{Maker, Order};
use super::net::Host;
use super::peers::{Carrier, Client, Road, Task, Ways};
use super::{Case, Stage};
use crate::run::Running;

/// Each is a few seconds' work.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes a piece.
const PIECE_LENGTH: u64 = 64 << 10;
/// Where all of them listen.
const PORT: u16 = 1080;
/// Whom they let in.
const LOGIN: [&str; 2] = ["piecemeal", "a-pass-word"];

/// A proxy, and how we speak to it.
#[derive(Clone, Copy)]
struct Proxy {
    program: &'static str,
    scheme: &'static str,
    login: bool,
    carrier: Carrier,
}

/// The cases.
pub fn cases() -> Vec<Case> {
    use Carrier::Tcp;
    let table = [
        ("socks5-tcp", "microsocks", "socks5", false, Tcp),
        ("socks5-auth", "microsocks", "socks5", true, Tcp),
        ("http-connect", "tinyproxy", "http", false, Tcp),
        ("http-auth", "tinyproxy", "http", true, Tcp),
    ];
    let case = |(at, (name, program, scheme, login, carrier)): (u64, _)| {
        let proxy = Proxy { program, scheme, login, carrier };
        Case::new(format!("proxy/{name}"), move |stage| swap(stage, proxy, 80 + at))
    };
    (0..).zip(table).map(case).collect()
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
            other => anyhow::bail!("no proxy {other}"),
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
}

fn swap(stage: &Stage<'_>, proxy: Proxy, pieces: u64) -> Result<String> {
    if let Some(why) = lacking(stage, &["nft", proxy.program])? {
        return Ok(why);
    }
    let (near, middle, far) = (stage.host(0), stage.host(1), stage.host(2));
    let counter = Counter::set(near, &format!("ip daddr {} tcp dport {PORT} accept;\n", middle.ip()))?;
    let _proxy = proxy.start(stage, middle)?;
    let content = Content { shape: Shape::One, piece_length: PIECE_LENGTH, pieces };
    let (seed_dir, leech_dir) = (stage.dir.join("seed"), stage.dir.join("leech"));
    link(&stage.content(&content)?, &seed_dir)?;
    let torrent = stage.dir.join("x.torrent");
    let order = Order {
        content: &seed_dir.join(NAME),
        out: &torrent,
        piece_length: PIECE_LENGTH,
        format: "v1",
        tracker: Some(&stage.tracker.url()),
    };
    Maker::Piecemeal.make(stage.binary, stage.dir, &order)?;
    let task = Task {
        host: far,
        torrent: &torrent,
        dir: &seed_dir,
        state: &stage.dir.join("seed.state"),
        peers: &[],
        up_limit: 0,
        once: false,
    };
    let ways = Ways { road: Road { carrier: proxy.carrier, ..Road::default() }, ..Ways::default() };
    let _seed = Client::Libtorrent.start(stage.binary, &task, true, &ways)?;
    stage.tracker.wait_for(far.peer(), LIMIT)?;
    let (url, transport) = (proxy.url(middle), format!("--transport={}", proxy.carrier.name()));
    let began = Instant::now();
    let get = ["get", text(&torrent)?, "-o", text(&leech_dir)?, "--json", "--proxy", &url, &transport];
    let mut leech = Watched::start(stage, near, "leech", &get)?;
    leech.0.finish(LIMIT)?;
    let took = began.elapsed();
    counter.must_be_zero("swapped")?;
    same(&seed_dir, &leech_dir)?;
    Ok(format!("{:.1} s to swap", took.as_secs_f64()))
}
