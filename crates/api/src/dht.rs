//! Questions to the distributed hash table (BEP 5, 33, 42, 44, 51), and what it answers.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use piecemeal_metainfo::{InfoHash, to_hex};
use serde::{Deserialize, Serialize};

use crate::json;
use crate::net::NetOptions;

/// A question, and how it is asked.
///
/// Who asks is a node for as long as that takes and says so (BEP 43), so that others do not list it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DhtRequest {
    /// What is asked.
    pub ask: DhtAsk,
    /// Where a search begins, as HOST:PORT. Empty: at nodes kept in `state_dir`, and at well-known hosts.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// Where an engine kept nodes of its last run. `None`: nowhere.
    #[serde(default)]
    pub state_dir: Option<PathBuf>,
    /// Over which addresses to ask; `None`: over both, where there are any.
    #[serde(default)]
    pub family: Option<IpFamily>,
    /// The longest to wait, in whole seconds.
    pub wait_s: u32,
    /// Which ways it may go.
    #[serde(default)]
    pub net: NetOptions,
}

/// The two kinds of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What can be asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum DhtAsk {
    /// Is this node there?
    Ping {
        /// HOST:PORT.
        addr: String,
    },
    /// Which nodes are nearest to this?
    Find {
        /// An id, of a node or a torrent or anything.
        target: DhtId,
    },
    /// Who has this torrent?
    GetPeers {
        /// Which torrent; of v2 the short form.
        info_hash: DhtId,
        /// Estimate the swarm too (BEP 33).
        scrape: bool,
        /// Then say to the nearest nodes that there is a peer at this port of ours.
        announce: Option<u16>,
    },
    /// What is stored there? (BEP 44)
    Get {
        /// Under which key.
        of: DhtKey,
    },
    /// Store this. (BEP 44)
    Put {
        /// Canonical bencode of at most 1000 bytes.
        #[serde(with = "json::hex_bytes")]
        value: Vec<u8>,
        /// Makes it an item that can be replaced; `None`: its key is its hash.
        sign: Option<DhtSign>,
    },
    /// Which torrents does this node know? (BEP 51)
    Sample {
        /// HOST:PORT.
        addr: String,
    },
    /// Which torrents do the nodes on the way to this know? (BEP 51)
    SampleNear {
        /// An id.
        target: DhtId,
    },
}

/// What an item is found by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DhtKey {
    /// The hash of its value, or of its owner's key and salt where no salt is needed.
    Target(DhtId),
    /// Its owner's public key (ed25519), and which of his items it is.
    Owner {
        /// The key.
        #[serde(with = "json::hex_array")]
        key: [u8; 32],
        /// Empty, or at most 64 bytes.
        #[serde(with = "json::hex_bytes")]
        salt: Vec<u8>,
    },
}

/// How an item is signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DhtSign {
    /// By whom.
    pub secret: DhtSecret,
    /// Which of his items; empty, or at most 64 bytes.
    #[serde(with = "json::hex_bytes")]
    pub salt: Vec<u8>,
    /// Which version; `None`: the one after that which is found, 1 if none is.
    pub seq: Option<i64>,
    /// Only over this version.
    pub cas: Option<i64>,
}

/// A secret key (ed25519). It is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DhtSecret {
    /// 32 random bytes, as RFC 8032 has it.
    Seed(#[serde(with = "json::hex_array")] [u8; 32]),
    /// Scalar and prefix, as libtorrent keeps it.
    Expanded(#[serde(with = "json::hex_array")] [u8; 64]),
}

impl fmt::Debug for DhtSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DhtSecret")
    }
}

/// A place in the space of ids, which nodes, torrents and items share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DhtId(#[serde(with = "json::hex_array")] pub [u8; 20]);

impl fmt::Display for DhtId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for DhtId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DhtId({self})")
    }
}

impl From<InfoHash> for DhtId {
    fn from(hash: InfoHash) -> DhtId {
        DhtId(hash.0)
    }
}

/// Something that was heard on the way, told as it comes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DhtFinding {
    /// The node is there.
    Pong {
        /// Who.
        #[serde(flatten)]
        node: DhtNode,
        /// Microseconds there and back.
        rtt_us: u64,
        /// Its `v`: which program it is, usually two letters and two bytes.
        #[serde(with = "json::opt_hex_bytes")]
        client: Option<Vec<u8>>,
        /// Where it sees us.
        sees_us_at: Option<SocketAddr>,
    },
    /// Peers, each told once.
    Peers {
        /// Who.
        peers: Vec<SocketAddr>,
    },
    /// An item, checked. One that is told later is newer.
    Value {
        /// Canonical bencode.
        #[serde(with = "json::hex_bytes")]
        value: Vec<u8>,
        /// Which version; `None`: it is one that nobody can replace.
        seq: Option<i64>,
    },
    /// Some of the torrents that a node knows.
    Samples {
        /// Which node.
        from: SocketAddr,
        /// Some of its torrents.
        info_hashes: Vec<DhtId>,
        /// How many it has, by its word.
        num: u32,
        /// Seconds before it gives others.
        interval_s: u32,
    },
}

/// A node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DhtNode {
    /// Its id.
    pub id: DhtId,
    /// Its address.
    pub addr: SocketAddr,
    /// Whether the two belong together.
    pub binding: DhtBinding,
}

/// Whether a node's id is one that its address may have (BEP 42).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DhtBinding {
    /// It is.
    Fits,
    /// It is not.
    Differs,
    /// The address is of a local network, where any id is as good.
    Local,
}

/// What came of a question.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DhtSummary {
    /// What was searched for: the target, the info-hash, or the key an item is stored under. Of a question to one node
    /// nothing of interest.
    pub target: DhtId,
    /// The nearest nodes that answered, nearest first; at most eight of each family.
    pub nodes: Vec<DhtNode>,
    /// How many nodes were asked.
    pub asked: u32,
    /// How many answered.
    pub answered: u32,
    /// How many took the announce or the item.
    pub stored: u32,
    /// Why one that did not said no: a code of BEP 5 or 44, the last one heard.
    #[serde(default)]
    pub refused: Option<i64>,
    /// The swarm, estimated, if asked for.
    #[serde(default)]
    pub scrape: Option<DhtScrape>,
    /// Whose an item that was put is, and its version.
    #[serde(default)]
    pub signed: Option<DhtSigned>,
    /// Milliseconds it took.
    pub took_ms: u64,
    /// It went to its end; else the time was up.
    pub complete: bool,
}

/// The size of a swarm, estimated (BEP 33).
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct DhtScrape {
    /// Peers with everything.
    pub seeds: f64,
    /// Peers without.
    pub leeches: f64,
}

/// Whose an item is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DhtSigned {
    /// The owner's public key, by which others find it.
    #[serde(with = "json::hex_array")]
    pub key: [u8; 32],
    /// Which version.
    pub seq: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_findings_survive_json() {
        let key = DhtKey::Owner { key: [3; 32], salt: b"s".to_vec() };
        let secret = DhtSecret::Expanded([7; 64]);
        let sign = DhtSign { secret, salt: Vec::new(), seq: Some(3), cas: None };
        assert!(!format!("{sign:?}").contains('7'), "{sign:?}");
        for ask in [
            DhtAsk::Ping { addr: "h:1".into() },
            DhtAsk::GetPeers { info_hash: DhtId([1; 20]), scrape: true, announce: Some(7) },
            DhtAsk::Get { of: key },
            DhtAsk::Get { of: DhtKey::Target(DhtId([2; 20])) },
            DhtAsk::Put { value: b"1:a".to_vec(), sign: Some(sign) },
        ] {
            let request = DhtRequest {
                ask,
                nodes: vec![],
                state_dir: None,
                family: None,
                wait_s: 9,
                net: NetOptions::default(),
            };
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<DhtRequest>(&text).unwrap(), request, "{text}");
        }
        let addr = "1.2.3.4:5".parse().unwrap();
        let node = DhtNode { id: DhtId([0xab; 20]), addr, binding: DhtBinding::Fits };
        let pong = DhtFinding::Pong { node, rtt_us: 3, client: Some(b"PM".to_vec()), sees_us_at: None };
        let text = serde_json::to_string(&pong).unwrap();
        assert!(text.contains(&format!("\"id\":\"{}\"", "ab".repeat(20))) && text.contains("504d"), "{text}");
        assert_eq!(serde_json::from_str::<DhtFinding>(&text).unwrap(), pong);
        assert!(serde_json::from_str::<DhtId>("\"abc\"").is_err());
    }
}
