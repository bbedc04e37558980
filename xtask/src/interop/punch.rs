//! Two peers behind NATs of their own and one in the open: nobody can call either, and the one in the open gives next to
//! nothing. What arrives has come through both NATs (BEP 55).
//!
//! At home are 192.168.77.2 and 192.168.78.2, each behind a router that masks it (Linux) and lets nothing in that was
//! not asked for; in the open are 80.1.0.2 and 80.2.0.2, the two sides of one host that also carries between the routers.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::content::{Content, NAME, Shape, link, same};
use super::makers::{Maker, Order};
use super::net::{Host, Net, ip};
use super::peers::{Client, ours, python_of};
use super::{Case, Stage};
use crate::run::{Running, installed};

/// libtorrent tells of peers once a minute, and gives up a call after some seconds.
const LIMIT: Duration = Duration::from_secs(170);
/// For a program to begin.
const SOON: Duration = Duration::from_secs(20);
/// Bytes a piece.
const PIECE_LENGTH: u64 = 64 << 10;
/// What the one in the open sends and takes, bytes a second: in all the time there is, a part of the content.
const NEXT_TO_NOTHING: u64 = 2 << 10;
/// Where each peer listens, behind its NAT or not.
const PORT: u16 = 6881;

const RULES: &str = r#"
table inet filter {
 chain forward {
  type filter hook forward priority 0; policy drop;
  ct state established,related accept
  iifname "lan" accept
 }
 chain input {
  type filter hook input priority 0; policy drop;
  iifname "lan" accept
  iifname "lo" accept
  ct state established,related accept
  icmp type destination-unreachable drop
 }
}
table inet nat {
 chain postrouting {
  type nat hook postrouting priority 100;
  oifname "wan" masquerade
 }
}
"#;

/// Ours at one end at least, and in the middle with both others.
pub fn cases() -> Vec<Case> {
    use Client::{Libtorrent, Piecemeal};
    [
        (Piecemeal, Piecemeal, Piecemeal),
        (Piecemeal, Libtorrent, Piecemeal),
        (Libtorrent, Piecemeal, Piecemeal),
        (Piecemeal, Piecemeal, Libtorrent),
        (Libtorrent, Piecemeal, Libtorrent),
    ]
    .into_iter()
    .map(|(giver, middle, taker)| {
        let name = format!("punch/{}->{}-by-{}", giver.name(), taker.name(), middle.name());
        Case::alone(name, move |stage| through(stage, giver, middle, taker))
    })
    .collect()
}

/// The five hosts and what joins them; gone with it.
struct World<'a> {
    homes: [&'a Host; 2],
    routers: [&'a Host; 2],
    open: &'a Host,
}

impl World<'_> {
    fn build<'a>(stage: &'a Stage<'_>) -> Result<World<'a>> {
        let world = World {
            homes: [stage.host(0), stage.host(1)],
            routers: [stage.host(2), stage.host(3)],
            open: stage.host(4),
        };
        let rules = stage.dir.join("rules");
        fs::write(&rules, RULES)?;
        let open = format!("host{}", world.open.number);
        for (at, (home, router)) in (1..).zip(world.homes.iter().zip(world.routers)) {
            let [home, name] = [*home, router].map(|host| format!("host{}", host.number));
            let lan = 76 + at;
            for step in [
                format!("-n {home} link add lan type veth peer name lan netns {name}"),
                format!("-n {name} link add wan type veth peer name wan{at} netns {open}"),
                format!("-n {home} addr add 192.168.{lan}.2/24 dev lan"),
                format!("-n {name} addr add 192.168.{lan}.1/24 dev lan"),
                format!("-n {name} addr add 80.{at}.0.1/24 dev wan"),
                format!("-n {open} addr add 80.{at}.0.2/24 dev wan{at}"),
                format!("-n {home} link set lan up"),
                format!("-n {name} link set lan up"),
                format!("-n {name} link set wan up"),
                format!("-n {open} link set wan{at} up"),
                format!("-n {home} route add default via 192.168.{lan}.1"),
                format!("-n {name} route add default via 80.{at}.0.2"),
            ] {
                ip(&step)?;
            }
            run(router.command("sh").args(["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]))?;
            run(router.command("nft").arg("-f").arg(&rules))?;
        }
        run(world.open.command("sh").args(["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]))?;
        Ok(world)
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        // What stays makes the next case of these hosts fail, which says so.
        for router in self.routers {
            let _ = run(router.command("nft").args(["flush", "ruleset"]));
            let _ = ip(&format!("-n host{} link del wan", router.number));
        }
        for home in self.homes {
            let _ = ip(&format!("-n host{} link del lan", home.number));
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    if command.status()?.success() { Ok(()) } else { bail!("{command:?} failed") }
}

fn through(stage: &Stage<'_>, giver: Client, middle: Client, taker: Client) -> Result<String> {
    if stage.net == Net::Loopback {
        return Ok("left out: it wants hosts with addresses of their own".to_owned());
    }
    if !installed("nft") {
        bail!("nft is not installed; run .ci/install");
    }
    let world = World::build(stage)?;
    let content = Content { shape: Shape::One, piece_length: PIECE_LENGTH, pieces: 70 };
    let (from, to, between) = (stage.dir.join("from"), stage.dir.join("to"), stage.dir.join("between"));
    link(&stage.content(&content)?, &from)?;
    let torrent = stage.dir.join("x.torrent");
    let order = Order {
        content: &from.join(NAME),
        out: &torrent,
        piece_length: PIECE_LENGTH,
        format: "v1",
        tracker: None,
    };
    Maker::Piecemeal.make(stage.binary, stage.dir, &order)?;
    let peer = |client, host: &Host, (ip, middle): (&str, Option<&str>), dir: &Path, full: bool| {
        let state = stage.dir.join(format!("state{}", host.number));
        fs::create_dir_all(&state)?;
        let mut command = match client {
            Client::Piecemeal => piecemeal(stage, host, &torrent, dir, &state),
            _ => libtorrent(host, &torrent, dir, full),
        };
        let listen: Vec<_> = ip.split(',').map(|ip| format!("{ip}:{PORT}")).collect();
        match client {
            Client::Piecemeal => command.args(listen.iter().map(|addr| format!("--listen={addr}"))),
            _ => command.arg(format!("--listen={}", listen.join(","))),
        };
        if middle.is_none() {
            let limits = ["up", "down"].map(|way| format!("--{way}-limit={NEXT_TO_NOTHING}"));
            command.args(limits);
        }
        let option = if client == Client::Piecemeal { "--peer" } else { "--connect" };
        command.args(middle.map(|middle| format!("{option}={middle}:{PORT}")));
        let mut running = Running::start(client.name(), command, &state.join("log"))?;
        let ready = if client == Client::Piecemeal { "\"event\":\"listening\"" } else { "READY" };
        running.line(SOON, |line| line.contains(ready))?;
        anyhow::Ok(running)
    };
    let _middle = peer(middle, world.open, ("80.1.0.2,80.2.0.2", None), &between, false)?;
    let _giver = peer(giver, world.homes[0], ("192.168.77.2", Some("80.1.0.2")), &from, true)?;
    let began = Instant::now();
    let mut own = peer(taker, world.homes[1], ("192.168.78.2", Some("80.2.0.2")), &to, false)?;
    let done = if taker == Client::Piecemeal { "\"event\":\"complete\"" } else { "DONE" };
    own.line(LIMIT, |line| line.contains(done))?;
    let took = began.elapsed();
    own.interrupt(SOON)?;
    same(&from, &to)?;
    Ok(format!("{:.1} s", took.as_secs_f64()))
}

fn piecemeal(stage: &Stage<'_>, host: &Host, torrent: &Path, dir: &Path, state: &Path) -> Command {
    let mut command = ours(host.command(stage.binary), state);
    command.arg("get").arg(torrent).arg("-o").arg(dir);
    command.args(["--json", "--seed", "--no-dht", "--no-lsd", "--no-port-mapping"]);
    command
}

fn libtorrent(host: &Host, torrent: &Path, dir: &Path, full: bool) -> Command {
    let mut command = python_of(host.command("python3"), "lt.py");
    command.arg("peer").arg("--torrent").arg(torrent).arg("--dir").arg(dir).arg("--utp");
    command.arg("--encryption=prefer").args(full.then_some("--seed"));
    command
}
