//! The command line of `piecemeal dht`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use piecemeal_api::DhtId;
use piecemeal_metainfo::{InfoHashV2, Magnet, from_base32, from_hex};

use crate::args::Ways;
use crate::source::is_magnet;
use crate::units::parse_span;

/// `piecemeal dht`
///
/// Each question is asked by a node that lives as long as the question, and says so (BEP 43).
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Dht {
    /// What to ask.
    #[command(subcommand)]
    pub command: DhtCommand,
}

/// The questions.
#[derive(Subcommand, Debug)]
pub enum DhtCommand {
    /// Ask one node whether it is there, who it is, and where it sees us
    Ping(Ping),
    /// Find the nodes nearest to an id
    Find(Find),
    /// Find peers of a torrent, and announce one if wished
    GetPeers(GetPeers),
    /// Print what is stored under a key
    Get(Get),
    /// Store a value for two hours; print the key it is found by
    Put(Put),
    /// Ask which torrents a node, or the nodes on the way to an id, know of
    Sample(Sample),
}

/// `piecemeal dht ping`
#[derive(Args, Debug)]
pub struct Ping {
    /// The node
    #[arg(value_name = "HOST:PORT", value_parser = parse_host)]
    pub node: String,
    #[command(flatten)]
    pub common: Common,
}

/// `piecemeal dht find`
#[derive(Args, Debug)]
pub struct Find {
    /// Near to what, as 40 hex digits
    #[arg(value_parser = parse_id)]
    pub target: DhtId,
    #[command(flatten)]
    pub begin: Begin,
    #[command(flatten)]
    pub common: Common,
}

/// `piecemeal dht get-peers`
///
/// Peers go to stdout, one a line, as they are found.
#[derive(Args, Debug)]
pub struct GetPeers {
    /// The torrent, by its info-hash in hex or a magnet link
    #[arg(value_name = "INFOHASH|MAGNET", value_parser = parse_torrent)]
    pub torrent: DhtId,
    /// Estimate how many seeds and other peers there are (BEP 33)
    #[arg(long)]
    pub scrape: bool,
    /// Tell the nearest nodes that a peer listens at this port of ours
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub announce: Option<u16>,
    #[command(flatten)]
    pub begin: Begin,
    #[command(flatten)]
    pub common: Common,
}

/// `piecemeal dht get`
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true).args(["target", "key"]))]
pub struct Get {
    /// The key of a value that never changes, as 40 hex digits
    #[arg(value_parser = parse_id, conflicts_with = "salt")]
    pub target: Option<DhtId>,
    /// The public key of the owner of a value that may change, as 64 hex digits
    #[arg(long, value_name = "PUBKEY", value_parser = parse_key)]
    pub key: Option<PublicKey>,
    /// Which of the owner's values
    #[arg(long, value_name = "TEXT", requires = "key")]
    pub salt: Option<String>,
    /// Write the value's own bytes, without a line's end
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,
    #[command(flatten)]
    pub begin: Begin,
    #[command(flatten)]
    pub common: Common,
}

/// `piecemeal dht put`
///
/// With a secret key the value can be replaced, and is found by the public key and the salt; without, it is found by
/// its hash. A secret key is kept in a file as 64 hex digits (a seed, RFC 8032) or 128 (scalar and prefix, as libtorrent
/// has it).
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true).args(["value", "file"]))]
#[command(group = ArgGroup::new("signer").args(["secret_key", "new_key"]))]
pub struct Put {
    /// The value, a text; at most 1000 bytes together with its length
    pub value: Option<String>,
    /// The value is what this file holds
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The value is bencode already, and stored as it is
    #[arg(long)]
    pub bencode: bool,
    /// Sign it with the secret key in this file
    #[arg(long, value_name = "FILE")]
    pub secret_key: Option<PathBuf>,
    /// Make a secret key, keep it in this file, and sign with it
    #[arg(long, value_name = "FILE")]
    pub new_key: Option<PathBuf>,
    /// Which of the owner's values
    #[arg(long, value_name = "TEXT", requires = "signer")]
    pub salt: Option<String>,
    /// Which version it is [default: the one after what is found]
    #[arg(long, value_name = "N", requires = "signer", value_parser = clap::value_parser!(i64).range(0..))]
    pub seq: Option<i64>,
    /// Store only where this version is
    #[arg(long, value_name = "N", requires = "signer", value_parser = clap::value_parser!(i64).range(0..))]
    pub cas: Option<i64>,
    #[command(flatten)]
    pub begin: Begin,
    #[command(flatten)]
    pub common: Common,
}

/// `piecemeal dht sample`
///
/// Info-hashes go to stdout, one a line.
#[derive(Args, Debug)]
pub struct Sample {
    /// The node, or an id as 40 hex digits
    #[arg(value_name = "HOST:PORT|TARGET", value_parser = parse_whom)]
    pub whom: Whom,
    #[command(flatten)]
    pub begin: Begin,
    #[command(flatten)]
    pub common: Common,
}

/// Where a search begins.
#[derive(Args, Debug)]
pub struct Begin {
    /// A node to begin at [default: those of the last download, and well-known hosts]
    #[arg(long = "node", value_name = "HOST:PORT", value_parser = parse_host)]
    pub nodes: Vec<String>,
}

/// What every question can be told.
#[derive(Args, Debug)]
pub struct Common {
    /// Give up after this long [default: 10s to one node, 1m for a search]
    #[arg(long, value_parser = parse_span, value_name = "TIME")]
    pub timeout: Option<Duration>,
    /// One JSON object a line: findings as they come, at the end a summary
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub ways: Ways,
}

/// Whom to ask for samples.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Whom {
    /// This node.
    Node(String),
    /// The nodes on the way there.
    Near(DhtId),
}

/// An ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublicKey(pub [u8; 32]);

fn parse_host(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is no host and port; write it like host:6881 or [::1]:6881");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let named = !host.is_empty() && !host.contains([':', '[', ']']) && !host.contains(char::is_whitespace);
    let good = if bracketed { text.parse::<std::net::SocketAddr>().is_ok() } else { named };
    match port.parse::<u16>() {
        Ok(1..) if good => Ok(text.to_owned()),
        _ => Err(wrong()),
    }
}

fn parse_id(text: &str) -> Result<DhtId, String> {
    from_hex(text).map(DhtId).ok_or_else(|| format!("`{text}` is no id; write 40 hex digits"))
}

fn parse_key(text: &str) -> Result<PublicKey, String> {
    from_hex(text).map(PublicKey).ok_or_else(|| format!("`{text}` is no public key; write 64 hex digits"))
}

fn parse_torrent(text: &str) -> Result<DhtId, String> {
    if is_magnet(text) {
        let magnet = Magnet::parse(text).map_err(|why| why.to_string())?;
        return Ok(magnet.hashes.wire().into());
    }
    let v2 = || from_hex(text).map(|hash| InfoHashV2(hash).truncated().0);
    let hash = from_hex(text).or_else(|| from_base32(text)).or_else(v2);
    hash.map(DhtId).ok_or_else(|| format!("`{text}` is no info-hash; write 40 hex digits or a magnet link"))
}

fn parse_whom(text: &str) -> Result<Whom, String> {
    match parse_id(text) {
        Ok(target) => Ok(Whom::Near(target)),
        Err(_) => parse_host(text).map(Whom::Node).map_err(|why| format!("{why}, or 40 hex digits")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    const ID: &str = "0123456789abcdef0123456789ABCDEF01234567";
    const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn parsed(line: &str) -> Result<DhtCommand, String> {
        let cli = Cli::try_parse_from(["piecemeal", "dht"].into_iter().chain(line.split(' ')));
        match cli.map_err(|why| why.to_string())?.command {
            Command::Dht(dht) => Ok(dht.command),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn command_lines_that_make_sense() {
        let lines = [
            "ping host:1 -4 --timeout 3s --json",
            "ping [::1]:6881 -6",
            &format!("find {ID} --node a:1 --node [::1]:2 --ipv6"),
            &format!("get-peers {ID} --scrape --announce 6881"),
            &format!("get {ID} --raw"),
            &format!("get --key {KEY} --salt s"),
            "put value",
            "put --file f --bencode",
            "put value --secret-key f --salt s --seq 0 --cas 3",
            "put value --new-key f",
            &format!("sample {ID}"),
            "sample host:1",
        ];
        for line in lines {
            assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line));
        }
    }

    #[test]
    fn command_lines_that_make_none() {
        let lines = [
            "",
            "ping host",
            "ping host:0",
            "ping host:65536",
            "ping ::1:6881",
            "ping h:1 -4 -6",
            "ping h:1 --node a:1",
            "find 0123",
            &format!("find {ID} --node a"),
            &format!("get-peers {ID} --announce 0"),
            "get-peers magnet:?dn=x",
            "get",
            &format!("get {ID} --key {KEY}"),
            &format!("get {ID} --salt s"),
            &format!("get {ID} --raw --json"),
            &format!("get --key {ID}"),
            "put",
            "put value --file f",
            "put value --salt s",
            "put value --seq 1",
            "put value --secret-key a --new-key b",
            "put value --secret-key a --seq -1",
            "sample host",
        ];
        for line in lines {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn torrents_as_users_write_them() {
        let id = DhtId(from_hex(ID).unwrap());
        let base32 = "AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH";
        for text in [ID, base32, &format!("magnet:?xt=urn:btih:{ID}&dn=film")] {
            assert_eq!(parse_torrent(text), Ok(id), "{text}");
        }
        let v2 = parse_torrent(KEY).unwrap();
        assert_eq!(v2, id, "a v2 hash is cut short");
        assert_eq!(parse_torrent(&format!("magnet:?xt=urn:btmh:1220{KEY}")), Ok(v2));
        assert_eq!(parse_whom(ID), Ok(Whom::Near(id)));
        assert_eq!(parse_whom("h:1"), Ok(Whom::Node("h:1".into())));
    }
}
