//! `piecemeal dht`: questions to the distributed hash table.
//!
//! What was asked for goes to stdout, so that it can be piped; how the search went goes to stderr. Owns the looks of both
//! and the files of secret keys. What cannot be had is a failure: a node that is silent, a value that nobody has, an
//! announce that nobody took.

mod keys;
mod words;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use piecemeal_api::{DhtAsk, DhtFinding, DhtKey, DhtRequest, DhtSign, DhtSummary, Tools};
use piecemeal_metainfo::bencode::{self, Limits};
use piecemeal_metainfo::to_hex;
use serde::Serialize;

use crate::args::dht::{Begin, Common, Dht, DhtCommand, Find, Get, GetPeers, Ping, Put, Sample, Whom};
use crate::fail::Failure;
use crate::get::net_options;
use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::text::safe;
use crate::units::{count, span};

/// How long one node is asked by default; an answer takes half a second where it takes long.
const ONE_NODE: Duration = Duration::from_secs(10);
/// How long a search takes at most by default; 5 to 20 seconds are usual.
const SEARCH: Duration = Duration::from_secs(60);
/// More than any value may have (BEP 44), so that what is too much is told as that.
const MAX_VALUE_BYTES: u64 = 64 << 10;

/// Runs the command.
pub fn run(args: &Dht, tools: &dyn Tools, host: &mut Host, stop: &Interrupt) -> Result<(), Failure> {
    let mut run = Run { tools, host, stop };
    match &args.command {
        DhtCommand::Ping(args) => run.ping(args),
        DhtCommand::Find(args) => run.find(args),
        DhtCommand::GetPeers(args) => run.get_peers(args),
        DhtCommand::Get(args) => run.get(args),
        DhtCommand::Put(args) => run.put(args),
        DhtCommand::Sample(args) => run.sample(args),
    }
}

struct Run<'a> {
    tools: &'a dyn Tools,
    host: &'a mut Host,
    stop: &'a Interrupt,
}

impl Run<'_> {
    fn ping(&mut self, args: &Ping) -> Result<(), Failure> {
        let ask = DhtAsk::Ping { addr: args.node.clone() };
        let (summary, findings) = self.ask(ask, None, &args.common, |_, _| Ok(()))?;
        if !args.common.json {
            for finding in &findings {
                words::pong(finding).iter().try_for_each(|line| self.host.say(line))?;
            }
        }
        answered(&args.node, &summary, &args.common, ONE_NODE)
    }

    fn find(&mut self, args: &Find) -> Result<(), Failure> {
        let ask = DhtAsk::Find { target: args.target };
        let (summary, _) = self.ask(ask, Some(&args.begin), &args.common, |_, _| Ok(()))?;
        if !args.common.json {
            summary.nodes.iter().try_for_each(|node| self.host.say(words::node(node)))?;
            self.searched(&summary, &count(summary.nodes.len() as u64, "node"));
        }
        found(&summary)
    }

    fn get_peers(&mut self, args: &GetPeers) -> Result<(), Failure> {
        let (scrape, announce) = (args.scrape, args.announce);
        let ask = DhtAsk::GetPeers { info_hash: args.torrent, scrape, announce };
        let mut peers = 0;
        let (summary, _) = self.ask(ask, Some(&args.begin), &args.common, |host, finding| {
            let DhtFinding::Peers { peers: found } = finding else { return Ok(()) };
            peers += found.len() as u64;
            found.iter().try_for_each(|peer| host.say(peer.to_string()))
        })?;
        if !args.common.json {
            if let Some(scrape) = summary.scrape {
                self.host.say(words::scrape(scrape))?;
            }
            self.searched(&summary, &count(peers, "peer"));
            if announce.is_some() {
                self.note(&format!("announced to {}", count(u64::from(summary.stored), "node")));
            }
        }
        found(&summary)?;
        if announce.is_some() && summary.stored == 0 {
            let why = words::refused(&summary, "took the announce");
            return Err(Failure::failed(args.torrent, why, "try again later"));
        }
        Ok(())
    }

    fn get(&mut self, args: &Get) -> Result<(), Failure> {
        let salt = args.salt.as_deref().unwrap_or_default().as_bytes().to_vec();
        let (of, what) = match (args.target, args.key) {
            (Some(target), _) => (DhtKey::Target(target), target.to_string()),
            (None, Some(key)) => (DhtKey::Owner { key: key.0, salt }, to_hex(&key.0)),
            (None, None) => return Err(Failure::usage("key", "none is given", "name a target or --key")),
        };
        let ask = DhtAsk::Get { of };
        let (summary, findings) = self.ask(ask, Some(&args.begin), &args.common, |_, _| Ok(()))?;
        let Some(DhtFinding::Value { value, seq }) = findings.last() else {
            found(&summary)?;
            let wrong = format!("none of {} has it", count(u64::from(summary.answered), "node"));
            return Err(Failure::failed(what, wrong, "check the key and the salt, or store it again"));
        };
        if args.common.json {
            return Ok(());
        }
        let own = own_bytes(value);
        if args.raw {
            self.host.out.write_all(own).and_then(|()| self.host.out.flush())?;
        } else {
            self.host.say(safe(&String::from_utf8_lossy(own)))?;
        }
        let version = seq.map_or_else(String::new, |seq| format!("version {seq}, "));
        self.searched(&summary, &format!("{version}{} bytes", own.len()));
        Ok(())
    }

    fn put(&mut self, args: &Put) -> Result<(), Failure> {
        let bytes = match (&args.value, &args.file) {
            (Some(value), _) => value.as_bytes().to_vec(),
            (None, file) => value_of(&self.host.at(file.as_deref().unwrap_or(Path::new(""))))?,
        };
        let value = if args.bencode { bytes } else { bencoded(&bytes) };
        let secret = match (&args.secret_key, &args.new_key) {
            (Some(file), _) => Some(keys::read(&self.host.at(file))?),
            (None, Some(file)) => Some(keys::make(&self.host.at(file), self.tools)?),
            (None, None) => None,
        };
        let salt = args.salt.as_deref().unwrap_or_default().as_bytes().to_vec();
        let sign = secret.map(|secret| DhtSign { secret, salt, seq: args.seq, cas: args.cas });
        let ask = DhtAsk::Put { value, sign };
        let (summary, _) = self.ask(ask, Some(&args.begin), &args.common, |_, _| Ok(()))?;
        found(&summary)?;
        if summary.stored == 0 {
            let why = words::refused(&summary, "took it");
            return Err(Failure::failed(summary.target, why, words::remedy(&summary)));
        }
        if !args.common.json {
            words::stored(&summary).iter().try_for_each(|line| self.host.say(line))?;
            self.searched(&summary, &format!("stored with {}", count(u64::from(summary.stored), "node")));
        }
        Ok(())
    }

    fn sample(&mut self, args: &Sample) -> Result<(), Failure> {
        let (ask, begin) = match &args.whom {
            Whom::Node(addr) => (DhtAsk::Sample { addr: addr.clone() }, None),
            Whom::Near(target) => (DhtAsk::SampleNear { target: *target }, Some(&args.begin)),
        };
        let (summary, findings) = self.ask(ask, begin, &args.common, |host, finding| {
            let DhtFinding::Samples { from, info_hashes, num, interval_s } = finding else { return Ok(()) };
            info_hashes.iter().try_for_each(|hash| host.say(hash.to_string()))?;
            let (some, again) = (info_hashes.len(), span(Duration::from_secs(u64::from(*interval_s))));
            let all = count(u64::from(*num), "torrent");
            host.err.line(&format!("{from}: {some} of {all}, others in {again}"));
            Ok(())
        })?;
        let nodes = findings.len() as u64;
        match &args.whom {
            Whom::Node(addr) => answered(addr, &summary, &args.common, ONE_NODE)?,
            Whom::Near(_) => {
                if !args.common.json {
                    self.searched(&summary, &format!("samples of {}", count(nodes, "node")));
                }
                found(&summary)?;
            }
        }
        if nodes == 0 {
            let what = match &args.whom {
                Whom::Node(addr) => addr.clone(),
                Whom::Near(target) => target.to_string(),
            };
            return Err(Failure::failed(what, "answered without samples (BEP 51)", "ask another node"));
        }
        Ok(())
    }

    /// Asks. As JSON all is said here; otherwise `tell` is given what it can say at once.
    fn ask(
        &mut self,
        ask: DhtAsk,
        begin: Option<&Begin>,
        common: &Common,
        mut tell: impl FnMut(&mut Host, &DhtFinding) -> std::io::Result<()>,
    ) -> Result<(DhtSummary, Vec<DhtFinding>), Failure> {
        let wait = common.timeout.unwrap_or(if begin.is_some() { SEARCH } else { ONE_NODE });
        let net = net_options(&common.ways);
        let request = DhtRequest {
            ask,
            nodes: begin.map(|begin| begin.nodes.clone()).unwrap_or_default(),
            state_dir: self.host.state_dir.clone(),
            family: net.only,
            wait_s: u32::try_from(wait.as_secs()).unwrap_or(u32::MAX),
            net,
        };
        let (mut findings, mut said) = (Vec::new(), Ok(()));
        let host = &mut *self.host;
        let mut hear = |finding: DhtFinding| {
            // Who reads our output may be gone: the search is stopped, and the failure told at its end.
            if said.is_ok() {
                said = if common.json { host.say_json(&finding) } else { tell(host, &finding) };
                if said.is_err() {
                    self.stop.cancel().cancel();
                }
            }
            findings.push(finding);
        };
        let result = self.tools.dht(&request, &mut hear, self.stop.cancel());
        said?;
        let summary = result?;
        if common.json {
            self.host.say_json(&Done { event: "done", summary: &summary })?;
        }
        Ok((summary, findings))
    }

    fn note(&self, line: &str) {
        self.host.err.line(line);
    }

    /// How a search went.
    fn searched(&self, summary: &DhtSummary, what: &str) {
        self.note(&words::searched(summary, what));
    }
}

/// The last line of JSON.
#[derive(Serialize)]
struct Done<'a> {
    event: &'static str,
    #[serde(flatten)]
    summary: &'a DhtSummary,
}

/// Fails if the one node that was asked said nothing.
fn answered(node: &str, summary: &DhtSummary, common: &Common, wait: Duration) -> Result<(), Failure> {
    if summary.answered > 0 {
        return Ok(());
    }
    let wrong = match summary.refused {
        Some(_) => words::refused(summary, "answers"),
        None => format!("no answer in {}", span(common.timeout.unwrap_or(wait))),
    };
    Err(Failure::failed(node, wrong, "check the address, or ask another node"))
}

/// Fails if nobody answered.
fn found(summary: &DhtSummary) -> Result<(), Failure> {
    if summary.answered > 0 {
        return Ok(());
    }
    let asked = count(u64::from(summary.asked), "node");
    let wrong = format!("none of {asked} answered");
    Err(Failure::failed("DHT", wrong, "check the network, or name a node with --node"))
}

/// What a file holds, to be stored.
fn value_of(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_VALUE_BYTES).read_to_end(&mut bytes))
        .map_err(|why| Failure::failed(path.display(), crate::source::reason(&why), "check the path"))?;
    Ok(bytes)
}

fn bencoded(bytes: &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    bencode::Encoder::new(&mut value).bytes(bytes);
    value
}

/// The bytes of a value that is a string; of any other, its bencode.
fn own_bytes(value: &[u8]) -> &[u8] {
    let span = bencode::decode(value, Limits::DHT).ok().and_then(|tape| tape.root().bytes_span());
    span.and_then(|span| value.get(span)).unwrap_or(value)
}
