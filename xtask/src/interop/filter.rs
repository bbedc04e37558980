//! Who is in the IP filter is not talked to: not called, not let in, whatever they have or want.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use super::content::same;
use super::finding::{Part, lacking as lacking_clients, torrent};
use super::leak::{Counter, Watched, lacking};
use super::peers::{Client, Peer, Ways};
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
    let (_, torrent, dir) = torrent(stage, PIECES, None)?;
    let list = stage.dir.join("list.p2p");
    let (torrent, blocked) = (&*torrent, stage.host(1).ip());
    fs::write(&list, format!("# who is blocked\nsomebody:{blocked}-{blocked}\n"))?;
    let case = Filter { stage, torrent, dir: &dir, to_blocked: format!("ip daddr {blocked}") };
    let client = case.calls_one_of_two(&list)?;
    case.lets_in_one_of_two()?;
    drop(client);
    case.calls_all_without()?;
    Ok("called and let in: all but those in the filter".to_owned())
}

/// Ours is host 0, host 1 is blocked, host 2 is not.
struct Filter<'a> {
    stage: &'a Stage<'a>,
    torrent: &'a Path,
    /// Of the content.
    dir: &'a Path,
    /// What counts packets to the blocked.
    to_blocked: String,
}

impl Filter<'_> {
    fn other(&self, number: u16, dir: &Path, peers: &[SocketAddr], seed: bool) -> Result<Peer> {
        let (client, host) = (Client::Libtorrent, self.stage.host(number));
        let part = Part { client, host, torrent: self.torrent, dir, peers, up_limit: 0 };
        part.start(self.stage, seed, &Ways::default())
    }

    /// Has everything when this returns.
    fn ours(&self, name: &str, args: &[String]) -> Result<Watched> {
        let host = self.stage.host(0);
        let dir = self.stage.dir.join(name);
        let mut all = vec!["get".to_owned(), self.torrent.display().to_string()];
        all.extend(["--json", "--no-dht", "--no-lsd", "--no-port-mapping", "--seed"].map(str::to_owned));
        all.extend([format!("--listen={}", host.peer()), format!("-o{}", dir.display())]);
        all.extend_from_slice(args);
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        let mut client = Watched::start(self.stage, host, name, &all)?;
        client.until(LIMIT, "content", |client| {
            client.0.lines().iter().any(|line| line.contains("\"event\":\"complete\""))
        })?;
        same(self.dir, &dir)?;
        Ok(client)
    }

    fn named(&self, number: u16) -> String {
        format!("--peer={}", self.stage.host(number).peer())
    }

    /// Both seeds are named; nothing at all is said to the one in the filter.
    fn calls_one_of_two(&self, list: &Path) -> Result<Watched> {
        let _seeds = [self.other(1, self.dir, &[], true)?, self.other(2, self.dir, &[], true)?];
        let counter = Counter::set(self.stage.host(0), &self.to_blocked)?;
        let filter = format!("--ip-filter={}", list.display());
        let client = self.ours("ours", &[filter, self.named(1), self.named(2)])?;
        counter.must_be_zero("while there was a seed in the filter")?;
        Ok(client)
    }

    /// Two come for the content.
    fn lets_in_one_of_two(&self) -> Result<()> {
        let (in_vain, well) = (self.stage.dir.join("in-vain"), self.stage.dir.join("well"));
        let us = [self.stage.host(0).peer()];
        let mut refused = self.other(1, &in_vain, &us, false)?;
        self.other(2, &well, &us, false)?.finish(LIMIT)?;
        same(self.dir, &well)?;
        if refused.done()? {
            bail!("who is in the filter was given the content");
        }
        Ok(())
    }

    /// Without the filter it is called: what counts does count.
    fn calls_all_without(&self) -> Result<()> {
        let _seed = self.other(1, self.dir, &[], true)?;
        let counter = Counter::set(self.stage.host(0), &self.to_blocked)?;
        self.ours("open", &[self.named(1)])?;
        if counter.must_be_zero("").is_ok() {
            bail!("the counter does not count");
        }
        Ok(())
    }
}
