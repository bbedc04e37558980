//! KRPC, the messages of the DHT: one bencoded dictionary a datagram (BEP 5, 32, 33, 42, 43, 44, 51).
//!
//! Owns the form of queries, responses and errors, and the limits that the BEPs put on single fields. Who is believed,
//! which response belongs to which query, and whether a signature is good are the DHT's (`discovery::dht`).
//!
//! What the DHT is made of is written by many hands, so unsorted keys, unknown keys and fields of a wrong type are
//! passed over where nothing depends on them. A query that can not be understood is still a message if it says enough
//! to be answered ([`Body::Malformed`]). Strictness is for what is signed or hashed: a `v` (BEP 44) that is not
//! canonical is refused, or two nodes would disagree on what was said.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;

use crate::compact;
use piecemeal_metainfo::InfoHash;
use piecemeal_metainfo::bencode::BencodeError;
use thiserror::Error;

/// Bytes of the largest datagram that is read.
pub const MAX_PACKET_BYTES: usize = 1_500;
/// Bytes of the longest transaction id that is read; it comes back in the answer, so it costs us.
pub const MAX_TRANSACTION_BYTES: usize = 32;
/// Bytes of the longest token that is read. Tokens of 4, 8 and 20 bytes are in use.
pub const MAX_TOKEN_BYTES: usize = 64;
/// Bytes of the largest bencoded `v` (BEP 44).
pub const MAX_VALUE_BYTES: usize = 1_000;
/// Bytes of the longest `salt` (BEP 44).
pub const MAX_SALT_BYTES: usize = 64;
/// Bytes of a filter over addresses (BEP 33).
pub const BLOOM_BYTES: usize = 256;
/// The longest `interval` of BEP 51, in seconds.
pub const MAX_SAMPLE_INTERVAL_SECS: u32 = 21_600;
/// Bytes of an IPv4 entry of `nodes`: id, address, port.
pub const NODE_V4_BYTES: usize = 20 + compact::V4_BYTES;
/// Bytes of an IPv6 entry of `nodes6` (BEP 32).
pub const NODE_V6_BYTES: usize = 20 + compact::V6_BYTES;

/// The codes of errors (BEP 5, BEP 44).
pub mod code {
    /// Something went wrong over there.
    pub const GENERIC: i64 = 201;
    /// The node can not answer now.
    pub const SERVER: i64 = 202;
    /// A malformed query, a bad argument or a bad token.
    pub const PROTOCOL: i64 = 203;
    /// An unknown method.
    pub const METHOD: i64 = 204;
    /// `v` is too big.
    pub const VALUE_TOO_BIG: i64 = 205;
    /// The signature does not fit.
    pub const SIGNATURE: i64 = 206;
    /// `salt` is too big.
    pub const SALT_TOO_BIG: i64 = 207;
    /// `cas` is not the stored sequence number.
    pub const CAS: i64 = 301;
    /// `seq` is lower than what is stored.
    pub const SEQ: i64 = 302;
}

/// A place in the id space: of a node, or of what is looked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 20]);

impl NodeId {
    /// How far `other` is, by exclusive or; the order of the result is the order of nearness.
    #[inline]
    pub fn distance(self, other: NodeId) -> NodeId {
        NodeId(std::array::from_fn(|at| self.0[at] ^ other.0[at]))
    }

    /// How many leading bits both share, at most 160.
    pub fn shared_bits(self, other: NodeId) -> u32 {
        let mut bits = 0;
        for byte in self.distance(other).0 {
            bits += byte.leading_zeros();
            if byte != 0 {
                break;
            }
        }
        bits
    }
}

impl From<InfoHash> for NodeId {
    fn from(hash: InfoHash) -> NodeId {
        NodeId(hash.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// One datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// `t`: chosen by who asks, repeated by who answers; at most [`MAX_TRANSACTION_BYTES`].
    pub transaction: &'a [u8],
    /// `v`: which program sent it, usually four bytes.
    pub version: Option<&'a [u8]>,
    /// `ip`: how the sender of a response sees the receiver (BEP 42).
    pub ip: Option<SocketAddr>,
    /// `ro`: the sender of a query answers none itself (BEP 43).
    pub read_only: bool,
    /// The rest.
    pub body: Body<'a>,
}

/// What a message is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body<'a> {
    /// `q`: somebody asks.
    Query(Query<'a>),
    /// `r`: somebody answers.
    Response(Response<'a>),
    /// `e`: somebody refuses, with one of [`code`] and words for people, which may be anything.
    Error {
        /// Which of [`code`]; others are in use.
        code: i64,
        /// Words.
        text: &'a [u8],
    },
    /// A query that can not be answered but by an error. Never sent.
    Malformed {
        /// Which of [`code`] says why.
        code: i64,
        /// The same in words.
        why: &'static str,
    },
}

/// A question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query<'a> {
    /// Who asks.
    pub id: NodeId,
    /// Which nodes are wanted in the answer.
    pub want: Want,
    /// What is asked.
    pub method: Method<'a>,
}

/// `want` (BEP 32): which families of nodes an answer should have. Neither: the family of the datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Want {
    /// `n4`.
    pub v4: bool,
    /// `n6`.
    pub v6: bool,
}

/// What is asked, with its arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Method<'a> {
    /// Are you there?
    Ping,
    /// Who is near?
    FindNode {
        /// Near to what.
        target: NodeId,
    },
    /// Who has the torrent? (BEP 5, 33)
    GetPeers {
        /// Which torrent.
        info_hash: InfoHash,
        /// Filters for counting are wanted (BEP 33).
        scrape: bool,
        /// Seeds are of no use (BEP 33).
        no_seed: bool,
    },
    /// I have the torrent. (BEP 5, 33)
    AnnouncePeer {
        /// Which torrent.
        info_hash: InfoHash,
        /// Where the sender listens. Only with `implied_port` may it be 0.
        port: u16,
        /// It listens where the datagram came from, whatever `port` says.
        implied_port: bool,
        /// It has everything (BEP 33).
        seed: bool,
        /// From the response to `get_peers`.
        token: &'a [u8],
    },
    /// What is stored there? (BEP 44)
    Get {
        /// Under which key.
        target: NodeId,
        /// A mutable item is wanted only if it is newer than this.
        seq: Option<i64>,
    },
    /// Store this. (BEP 44)
    Put {
        /// From the response to `get`.
        token: &'a [u8],
        /// What to store.
        item: PutItem<'a>,
    },
    /// Which torrents do you know of? (BEP 51)
    SampleInfohashes {
        /// The answer also has nodes near this.
        target: NodeId,
    },
    /// Something newer than this code. With a target it is answered as `find_node` is (BEP 5).
    Unknown {
        /// Its name.
        name: &'a [u8],
        /// Its `target` or `info_hash`.
        target: Option<NodeId>,
    },
}

/// What a `put` brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PutItem<'a> {
    /// The bencoded value: canonical, at most [`MAX_VALUE_BYTES`].
    pub value: &'a [u8],
    /// For a mutable item.
    pub signed: Option<PutSigned<'a>>,
}

/// The rest of a mutable item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PutSigned<'a> {
    /// `k`: whose it is.
    pub key: &'a [u8; 32],
    /// `sig`: unchecked.
    pub signature: &'a [u8; 64],
    /// `seq`: which version.
    pub seq: i64,
    /// `salt`: which of the key's items; empty is as absent. At most [`MAX_SALT_BYTES`].
    pub salt: &'a [u8],
    /// `cas`: store only over this version.
    pub cas: Option<i64>,
}

/// An answer. Which fields it must have depends on the question, which a stateless reader does not know; so all but
/// `id` are optional.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response<'a> {
    /// Who answers.
    pub id: NodeId,
    /// Packed IPv4 nodes, see [`nodes_v4`].
    pub nodes: Option<&'a [u8]>,
    /// Packed IPv6 nodes, see [`nodes_v6`].
    pub nodes6: Option<&'a [u8]>,
    /// Peers; none with port 0. `None`: the field is absent.
    pub values: Option<Vec<SocketAddr>>,
    /// To be shown with `announce_peer` or `put`; at most [`MAX_TOKEN_BYTES`].
    pub token: Option<&'a [u8]>,
    /// `BFsd`: a filter over the addresses of seeds (BEP 33).
    pub bloom_seeds: Option<&'a [u8; BLOOM_BYTES]>,
    /// `BFpe`: a filter over the addresses of other peers (BEP 33).
    pub bloom_peers: Option<&'a [u8; BLOOM_BYTES]>,
    /// `v`: a stored value, canonical bencode of at most [`MAX_VALUE_BYTES`].
    pub value: Option<&'a [u8]>,
    /// `k`: whose it is.
    pub key: Option<&'a [u8; 32]>,
    /// `sig`: unchecked.
    pub signature: Option<&'a [u8; 64]>,
    /// `seq`: which version.
    pub seq: Option<i64>,
    /// `samples`: info-hashes one after another, see [`info_hashes`] (BEP 51).
    pub samples: Option<&'a [u8]>,
    /// `num`: how many info-hashes there are to sample.
    pub num: Option<u32>,
    /// `interval`: seconds before another sample makes sense, at most [`MAX_SAMPLE_INTERVAL_SECS`].
    pub interval: Option<u32>,
}

impl Response<'_> {
    /// An answer that says no more than who answers: to `ping`, `announce_peer` and `put`.
    pub fn new(id: NodeId) -> Self {
        Response {
            id,
            nodes: None,
            nodes6: None,
            values: None,
            token: None,
            bloom_seeds: None,
            bloom_peers: None,
            value: None,
            key: None,
            signature: None,
            seq: None,
            samples: None,
            num: None,
            interval: None,
        }
    }
}

/// Why a datagram is no message. It is not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum KrpcError {
    /// More than [`MAX_PACKET_BYTES`].
    #[error("{0} bytes are too many")]
    TooLong(usize),
    /// Not bencode, or beyond `bencode::Limits::DHT`.
    #[error("not bencode: {0}")]
    Bencode(#[from] BencodeError),
    /// Something else than a dictionary.
    #[error("not a dictionary")]
    NotADict,
    /// A field must be there and in range.
    #[error("bad or missing {0}")]
    Field(&'static str),
}

/// The nodes of a `nodes` field; what is left over at the end is not an entry and is ignored.
pub fn nodes_v4(bytes: &[u8]) -> impl Iterator<Item = (NodeId, SocketAddr)> + '_ {
    bytes.as_chunks::<NODE_V4_BYTES>().0.iter().filter_map(|entry| {
        let (id, addr) = entry.split_first_chunk::<20>()?;
        Some((NodeId(*id), compact::decode_v4(addr).next()?))
    })
}

/// The nodes of a `nodes6` field (BEP 32), likewise.
pub fn nodes_v6(bytes: &[u8]) -> impl Iterator<Item = (NodeId, SocketAddr)> + '_ {
    bytes.as_chunks::<NODE_V6_BYTES>().0.iter().filter_map(|entry| {
        let (id, addr) = entry.split_first_chunk::<20>()?;
        Some((NodeId(*id), compact::decode_v6(addr).next()?))
    })
}

/// Appends a node: [`NODE_V4_BYTES`] or [`NODE_V6_BYTES`], by its family.
pub fn encode_node(id: NodeId, addr: SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.0);
    compact::encode(addr, out);
}

/// The info-hashes of a `samples` field (BEP 51); a torn one at the end is ignored.
pub fn info_hashes(bytes: &[u8]) -> impl ExactSizeIterator<Item = InfoHash> + '_ {
    bytes.as_chunks::<20>().0.iter().map(|hash| InfoHash(*hash))
}
