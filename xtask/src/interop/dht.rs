//! Every question of the DHT, packet by packet, between ours and libtorrent's: `piecemeal dht` asks a node of
//! libtorrent, and libtorrent asks an engine of ours.
//!
//! Each case has nodes of its own, so that nothing is found but what the case has put there.

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::cli::{Answer, ask};
use super::finding::{Part, lacking, torrent};
use super::net::Host;
use super::peers::{Client, Peer, Ways, dht_node, python_of};
use super::{Case, Stage};
use crate::run::Running;

/// One question. A search among few nodes waits eight seconds for one that has gone; libtorrent waits twice as long.
const LIMIT: Duration = Duration::from_secs(25);
/// What is searched for, announced and sampled.
const ID: &str = "0123456789abcdef0123456789abcdef01234567";
/// Where a peer is said to be.
const PORT: &str = "4321";
/// The first pair of RFC 8032, 7.1: a seed and its public key.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

/// Ours is host 0, libtorrent's node or our engine host 1, and who asks or looks after it by libtorrent host 2.
pub fn cases() -> Vec<Case> {
    type Act = fn(&Field<'_>) -> Result<()>;
    let ours: [(&str, Act, bool); 9] = [
        ("ping", ping, true),
        ("find", find, true),
        ("get-peers", get_peers, true),
        ("announce", announce, true),
        ("sample", sample, false),
        ("put-immutable", put_immutable, false),
        ("get-immutable", get_immutable, false),
        ("put-mutable", put_mutable, false),
        ("get-mutable", get_mutable, false),
    ];
    let theirs: [(&str, Act, bool); 5] = [
        ("ping-and-find", meet, true),
        ("get-peers-and-announce", their_peers, true),
        ("sample", their_sample, false),
        ("put-and-get-immutable", their_immutable, false),
        ("put-and-get-mutable", their_mutable, false),
    ];
    let mut cases = Vec::new();
    for (who, table) in [(Who::Libtorrent, &ours[..]), (Who::Ours, &theirs[..])] {
        for (what, act, six) in table {
            let (act, pair) =
                (*act, if who == Who::Ours { "libtorrent->piecemeal" } else { "piecemeal->libtorrent" });
            for six in [false, true].into_iter().take(if *six { 2 } else { 1 }) {
                let name = format!("finding/dht/{pair}/{what}{}", if six { "-ipv6" } else { "" });
                let pieces = 500 + cases.len() as u64;
                cases.push(Case::new(name, move |stage| play(stage, who, six, pieces, act)));
            }
        }
    }
    cases
}

/// Whose the node is that is asked.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    Libtorrent,
    Ours,
}

/// A node to ask, and who may ask it.
struct Field<'a> {
    stage: &'a Stage<'a>,
    /// Of ours, of the node, of libtorrent's.
    hosts: [Host; 3],
    node: SocketAddr,
}

fn play(
    stage: &Stage<'_>,
    who: Who,
    six: bool,
    pieces: u64,
    act: fn(&Field<'_>) -> Result<()>,
) -> Result<String> {
    if let Some(why) = lacking(stage, &[Client::Libtorrent])? {
        return Ok(why);
    }
    let host = |index| if six { stage.host(index).by_six() } else { stage.host(index).clone() };
    let hosts = [host(0), host(1), host(2)];
    let node = hosts[1].peer();
    let field = Field { stage, hosts, node };
    fs::write(stage.dir.join("key"), SEED)?;
    let (_theirs, _ours): (Option<Running>, Option<Peer>) = match who {
        Who::Libtorrent => (Some(dht_node(&field.hosts[1], 0, &stage.dir.join("node.log"))?.0), None),
        Who::Ours => (None, Some(field.engine(pieces)?)),
    };
    act(&field).map(|()| String::new())
}

impl Field<'_> {
    /// Our engine, as it is while it seeds.
    fn engine(&self, pieces: u64) -> Result<Peer> {
        let (_, torrent, dir) = torrent(self.stage, pieces % 8 + 1, None)?;
        let part = Part {
            client: Client::Piecemeal,
            host: &self.hosts[1],
            torrent: &torrent,
            dir: &dir,
            peers: &[],
            up_limit: 0,
        };
        let ways = Ways { dht: Some(self.hosts[2].peer()), ..Ways::default() };
        part.start(self.stage, true, &ways)
    }

    /// `piecemeal dht` with arguments, which begins at the node.
    fn ours(&self, args: &[&str], code: i32) -> Result<Answer> {
        let node = format!("--node={}", self.node);
        let args: Vec<_> = ["dht"].iter().chain(args).copied().chain([&node[..]]).collect();
        ask(self.stage, &args, LIMIT)?.expect(code, &args.join(" "))
    }

    /// The same to the node alone.
    fn ours_at(&self, what: &str) -> Result<Vec<Value>> {
        let node = self.node.to_string();
        let answer = ask(self.stage, &["dht", what, &node, "--json"], LIMIT)?.expect(0, what)?;
        answer.out.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
    }

    /// libtorrent's answer to the same.
    fn theirs(&self, args: &[&str]) -> Result<Value> {
        let host = &self.hosts[2];
        let mut command = host.command("timeout");
        command.arg(LIMIT.as_secs().to_string()).arg("python3");
        let mut command = python_of(command, "lt.py");
        command
            .arg("dht")
            .arg(format!("--listen={}", host.peer()))
            .arg(format!("--at={}", self.node))
            .args(args);
        let output = command.output().context("timeout")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_str(&said)
            .with_context(|| format!("libtorrent: {args:?}: {said:?} {complaint:.300}"))
    }

    /// A peer of host `index`, as it is announced.
    fn peer(&self, index: usize) -> Result<String> {
        Ok(SocketAddr::new(self.hosts[index].ip(), PORT.parse()?).to_string())
    }

    fn their_announce(&self) -> Result<()> {
        expect("announce", &self.theirs(&["announce", ID, PORT])?, &json!(true))
    }
}

fn expect(what: &str, is: &Value, wanted: &Value) -> Result<()> {
    if is == wanted { Ok(()) } else { bail!("{what}: {is} instead of {wanted}") }
}

fn expect_text(what: &str, is: &str, wanted: &str) -> Result<()> {
    expect(what, &is.into(), &wanted.into())
}

/// A list of libtorrent's has it.
fn expect_in(what: &str, list: &Value, wanted: &str) -> Result<()> {
    let all = list.as_array().map(Vec::as_slice).unwrap_or_default();
    // It writes IPv6 addresses without brackets.
    let plain = |text: &str| text.replace(['[', ']'], "");
    match all.iter().filter_map(Value::as_str).any(|one| plain(one) == plain(wanted)) {
        true => Ok(()),
        false => bail!("{what}: no {wanted} in {list}"),
    }
}

fn ping(field: &Field<'_>) -> Result<()> {
    let said = field.ours_at("ping")?;
    let pong = &said[0];
    expect("event", &pong["event"], &"pong".into())?;
    expect("addr", &pong["addr"], &field.node.to_string().into())?;
    let client = pong["client"].as_str().unwrap_or_default();
    if !client.starts_with("4c54") {
        bail!("a client that is not libtorrent: {client:?}");
    }
    let seen: SocketAddr =
        pong["sees_us_at"].as_str().context("it does not say where it sees us")?.parse()?;
    expect_text("our address", &seen.ip().to_string(), &field.hosts[0].ip().to_string())
}

fn find(field: &Field<'_>) -> Result<()> {
    let answer = field.ours(&["find", ID], 0)?;
    match answer.out.lines().any(|line| line.ends_with(&field.node.to_string())) {
        true => Ok(()),
        false => bail!("no {} in {:?}", field.node, answer.out),
    }
}

fn get_peers(field: &Field<'_>) -> Result<()> {
    field.their_announce()?;
    expect_text("peers", field.ours(&["get-peers", ID], 0)?.out.trim(), &field.peer(2)?)?;
    let counted = field.ours(&["get-peers", ID, "--scrape"], 0)?.out;
    match counted.contains("about 0 seeds and 1 other peer") {
        true => Ok(()),
        false => bail!("scrape: {counted:?}"),
    }
}

fn announce(field: &Field<'_>) -> Result<()> {
    field.ours(&["get-peers", ID, "--announce", PORT], 0)?;
    expect_in("peers", &field.theirs(&["peers", ID])?, &field.peer(0)?)
}

fn sample(field: &Field<'_>) -> Result<()> {
    field.their_announce()?;
    let said = field.ours_at("sample")?;
    expect_in("samples", &said[0]["info_hashes"], ID)
}

fn put_immutable(field: &Field<'_>) -> Result<()> {
    let target = field.ours(&["put", "from ours"], 0)?.out;
    expect("value", &field.theirs(&["get", target.trim()])?, &"from ours".into())
}

fn get_immutable(field: &Field<'_>) -> Result<()> {
    let put = field.theirs(&["put", "from theirs"])?;
    let target = put[0].as_str().context("no target")?;
    expect_text("value", field.ours(&["get", target], 0)?.out.trim(), "from theirs")
}

fn put_mutable(field: &Field<'_>) -> Result<()> {
    let put = |value, more: &[&str], code| {
        let args: Vec<_> =
            ["put", value, "--secret-key=key", "--salt=s"].iter().chain(more).copied().collect();
        field.ours(&args, code)
    };
    let said = put("first", &[], 0)?.out;
    if !said.contains(KEY) {
        bail!("another public key than RFC 8032 has: {said}");
    }
    expect("value", &field.theirs(&["get-mutable", KEY, "s"])?, &json!(["first", 1]))?;
    let refused = put("second", &["--seq=2", "--cas=7"], 1)?.err;
    if !refused.contains("301") {
        bail!("refused otherwise than for --cas: {refused}");
    }
    put("second", &["--seq=2", "--cas=1"], 0)?;
    expect("value", &field.theirs(&["get-mutable", KEY, "s"])?, &json!(["second", 2]))
}

fn get_mutable(field: &Field<'_>) -> Result<()> {
    let put = field.theirs(&["put-mutable", SEED, KEY, "from theirs", "s"])?;
    expect("seq", &put[0], &1.into())?;
    let key = format!("--key={KEY}");
    expect_text("value", field.ours(&["get", &key, "--salt=s"], 0)?.out.trim(), "from theirs")
}

/// It takes ours into its table, and ours it.
fn meet(field: &Field<'_>) -> Result<()> {
    let mut command = python_of(field.hosts[2].command("python3"), "lt.py");
    command.arg("dht").arg(format!("--listen={}", field.hosts[2].peer()));
    command.arg(format!("--at={}", field.node)).args(["--stay=60", "meet"]);
    let mut theirs = Running::start("libtorrent", command, &field.stage.dir.join("meet.log"))?;
    let met = theirs.line(LIMIT, |_| true)?;
    expect_text("nodes met", met.trim(), "1")?;
    let (own, until) = (field.hosts[2].peer().to_string(), Instant::now() + LIMIT / 2);
    loop {
        let found = field.ours(&["find", ID], 0)?.out;
        if found.lines().count() == 2 && found.contains(&own) {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("ours does not know it: {found:?}");
        }
        thread::sleep(Duration::from_millis(300));
    }
}

fn their_peers(field: &Field<'_>) -> Result<()> {
    field.their_announce()?;
    expect_text("peers", field.ours(&["get-peers", ID], 0)?.out.trim(), &field.peer(2)?)?;
    expect_in("peers", &field.theirs(&["peers", ID])?, &field.peer(2)?)
}

fn their_sample(field: &Field<'_>) -> Result<()> {
    field.their_announce()?;
    expect_in("samples", &field.theirs(&["sample", &field.node.to_string(), ID])?, ID)
}

fn their_immutable(field: &Field<'_>) -> Result<()> {
    get_immutable(field)?;
    put_immutable(field)
}

fn their_mutable(field: &Field<'_>) -> Result<()> {
    get_mutable(field)?;
    field.ours(&["put", "from ours", "--secret-key=key", "--salt=s"], 0)?;
    expect("value", &field.theirs(&["get-mutable", KEY, "s"])?, &json!(["from ours", 2]))
}
