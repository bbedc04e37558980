//! Who is in the IP filter is not talked to: not called, not let in, whatever they have or want.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::content::same;
use super::finding::{Part, lacking as lacking_clients, torrent};
use super::leak::{Counter, Watched, lacking};
use super::peers::{Client, Ways};
use super::{Case, Stage};

/// Some seconds' work.
const LIMIT: Duration = Duration::from_secs(60);
/// Pieces of 64 KiB.
const PIECES: u64 = 97;

/// The case.
pub fn cases() -> Vec<Case> {
    vec![Case::new("net/filter", filter)]
}

fn filter(stage: &Stage<'_>) -> Result<String> {
    let missing = lacking(stage, &["nft"])?;
    if let Some(why) = missing.or(lacking_clients(stage, &[Client::Libtorrent])?) {
        return Ok(why);
    }
    let [ours, blocked, other, late] = [0, 1, 2, 3].map(|number| stage.host(number));
    let (_, torrent, dir) = torrent(stage, PIECES, None)?;
    let list = stage.dir.join("list.p2p");
    fs::write(&list, format!("# who is blocked\nsomebody:{0}-{0}\n", blocked.ip()))?;
    let part = |host, dir, peers| Part {
        client: Client::Libtorrent,
        host,
        torrent: &torrent,
        dir,
        peers,
        up_limit: 0,
    };
    let ways = Ways::default();
    let seed = part(blocked, &dir, &[]).start(stage, true, &ways)?;
    let _other_seed = part(other, &dir, &[]).start(stage, true, &ways)?;
    let to_blocked = format!("ip daddr {}", blocked.ip());
    let counter = Counter::set(ours, &to_blocked)?;

    // Both seeds are named; one is called.
    let (target, at) = (stage.dir.join("leech"), ours.peer());
    let name_both = [blocked, other].map(|host| format!("--peer={}", host.peer()));
    let (listen, into) = (format!("--listen={at}"), format!("-o{}", target.display()));
    let (torrent_arg, filter) = (torrent.display().to_string(), format!("--ip-filter={}", list.display()));
    let alone = ["get", &torrent_arg, "--json", "--no-dht", "--no-lsd", "--no-port-mapping", &listen];
    let args = [&alone[..], &[&into, &filter, "--seed", &name_both[0], &name_both[1]]].concat();
    let mut client = Watched::start(stage, ours, "ours", &args)?;
    let complete =
        |client: &Watched| client.0.lines().iter().any(|line| line.contains("\"event\":\"complete\""));
    client.until(LIMIT, "content", complete)?;
    same(&dir, &target)?;
    counter.must_be_zero("while there was a seed in the filter")?;
    drop((counter, seed));

    // Two want it from us; one is let in.
    let us = [at];
    let (in_vain, well) = (stage.dir.join("in-vain"), stage.dir.join("well"));
    let mut refused = part(blocked, &in_vain, &us).start(stage, false, &ways)?;
    let mut let_in = part(late, &well, &us).start(stage, false, &ways)?;
    let_in.finish(LIMIT)?;
    same(&dir, &well)?;
    if refused.done()? {
        bail!("who is in the filter was given the content");
    }
    drop((refused, client));

    // Without the filter it is called: what counts does count.
    let _seed = part(blocked, &dir, &[]).start(stage, true, &ways)?;
    let counter = Counter::set(ours, &to_blocked)?;
    let into = format!("-o{}", stage.dir.join("open").display());
    let args = [&alone[..], &[&into, &name_both[0]]].concat();
    Watched::start(stage, ours, "open", &args)?.until(
        LIMIT,
        "content from who is blocked no more",
        complete,
    )?;
    match counter.must_be_zero("") {
        Err(_) => Ok("called and let in: all but those in the filter".to_owned()),
        Ok(()) => Err(anyhow::anyhow!("nothing was counted")).context("the counter does not count"),
    }
}
