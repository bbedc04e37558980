//! Reading messages.
//!
//! Owns which fields a message must have. A tape of tokens is made of the datagram and thrown away; what is kept
//! borrows from the datagram itself.

use std::net::SocketAddr;

use super::{
    Body, KrpcError, MAX_PACKET_BYTES, MAX_SALT_BYTES, MAX_SAMPLE_INTERVAL_SECS, MAX_TOKEN_BYTES,
    MAX_TRANSACTION_BYTES, MAX_VALUE_BYTES, Message, Method, NodeId, PutItem, PutSigned, Query, Response,
    Want, code,
};
use crate::compact;
use piecemeal_metainfo::InfoHash;
use piecemeal_metainfo::bencode::{self, Limits, Value};

/// Bytes of `v` that are kept; the version of a program has four.
const MAX_VERSION_BYTES: usize = 16;

impl<'a> Message<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    /// If it is not a message, so that there is nothing to answer. A query whose arguments are wrong is a
    /// [`Body::Malformed`].
    pub fn decode(packet: &'a [u8]) -> Result<Message<'a>, KrpcError> {
        const { assert!(Limits::DHT.bytes == MAX_PACKET_BYTES) };
        if packet.len() > MAX_PACKET_BYTES {
            return Err(KrpcError::TooLong(packet.len()));
        }
        // Some clients leave a stray byte behind the dictionary; it does no harm.
        let (tape, _) = bencode::decode_prefix(packet, Limits::DHT)?;
        let root = tape.root();
        if root.as_dict().is_none() {
            return Err(KrpcError::NotADict);
        }
        let at = Fields { packet, dict: root };
        let transaction = at.bytes(b"t").filter(|t| !t.is_empty() && t.len() <= MAX_TRANSACTION_BYTES);
        let body = match at.bytes(b"y").ok_or(KrpcError::Field("y"))? {
            b"q" => query(&at)?,
            b"r" => Body::Response(response(&at.inside(b"r").ok_or(KrpcError::Field("r"))?)?),
            b"e" => error(&at)?,
            _ => return Err(KrpcError::Field("y")),
        };
        Ok(Message {
            transaction: transaction.ok_or(KrpcError::Field("t"))?,
            version: at.bytes(b"v").filter(|v| v.len() <= MAX_VERSION_BYTES),
            ip: at.bytes(b"ip").and_then(address),
            read_only: at.flag(b"ro"),
            body,
        })
    }
}

/// A dictionary, and the datagram it borrows from, which outlives the tape.
struct Fields<'a, 't> {
    packet: &'a [u8],
    dict: Value<'t>,
}

impl<'a, 't> Fields<'a, 't> {
    fn bytes(&self, key: &[u8]) -> Option<&'a [u8]> {
        self.dict.get(key).and_then(|value| value.bytes_span()).map(|span| &self.packet[span])
    }

    fn fixed<const N: usize>(&self, key: &[u8]) -> Option<&'a [u8; N]> {
        self.bytes(key).and_then(|bytes| bytes.try_into().ok())
    }

    fn id(&self, key: &[u8]) -> Option<NodeId> {
        self.fixed(key).map(|id| NodeId(*id))
    }

    fn int(&self, key: &[u8]) -> Option<i64> {
        self.dict.get_int(key)
    }

    fn flag(&self, key: &[u8]) -> bool {
        self.int(key).is_some_and(|flag| flag != 0)
    }

    fn inside(&self, key: &[u8]) -> Option<Fields<'a, 't>> {
        let dict = self.dict.get(key).filter(|value| value.as_dict().is_some())?;
        Some(Fields { packet: self.packet, dict })
    }

    fn raw(&self, key: &[u8]) -> Option<&'a [u8]> {
        self.dict.get(key).map(|value| &self.packet[value.span()])
    }
}

/// What makes a query unanswerable: the code and the words.
type Wrong = (i64, &'static str);

fn query<'a>(at: &Fields<'a, '_>) -> Result<Body<'a>, KrpcError> {
    let name = at.bytes(b"q").ok_or(KrpcError::Field("q"))?;
    Ok(
        match at.inside(b"a").ok_or((code::PROTOCOL, "no arguments")).and_then(|args| arguments(name, &args))
        {
            Ok(query) => Body::Query(query),
            Err((code, why)) => Body::Malformed { code, why },
        },
    )
}

fn arguments<'a>(name: &'a [u8], args: &Fields<'a, '_>) -> Result<Query<'a>, Wrong> {
    let id = args.id(b"id").ok_or((code::PROTOCOL, "bad id"))?;
    let target = || args.id(b"target").ok_or((code::PROTOCOL, "bad target"));
    let info_hash =
        || args.fixed(b"info_hash").map(|hash| InfoHash(*hash)).ok_or((code::PROTOCOL, "bad info_hash"));
    let method = match name {
        b"ping" => Method::Ping,
        b"find_node" => Method::FindNode { target: target()? },
        b"get_peers" => Method::GetPeers {
            info_hash: info_hash()?,
            scrape: args.flag(b"scrape"),
            no_seed: args.flag(b"noseed"),
        },
        b"announce_peer" => announce(info_hash()?, args)?,
        b"get" => Method::Get { target: target()?, seq: args.int(b"seq") },
        b"put" => Method::Put { token: token(args)?, item: put(args)? },
        b"sample_infohashes" => Method::SampleInfohashes { target: target()? },
        name => Method::Unknown { name, target: args.id(b"target").or_else(|| args.id(b"info_hash")) },
    };
    Ok(Query { id, want: want(args), method })
}

fn announce<'a>(info_hash: InfoHash, args: &Fields<'a, '_>) -> Result<Method<'a>, Wrong> {
    let implied_port = args.flag(b"implied_port");
    let port = args.int(b"port").and_then(|port| u16::try_from(port).ok());
    let port = port.filter(|port| *port != 0 || implied_port).or(implied_port.then_some(0));
    Ok(Method::AnnouncePeer {
        info_hash,
        port: port.ok_or((code::PROTOCOL, "bad port"))?,
        implied_port,
        seed: args.flag(b"seed"),
        token: token(args)?,
    })
}

fn token<'a>(args: &Fields<'a, '_>) -> Result<&'a [u8], Wrong> {
    args.bytes(b"token").filter(|token| token.len() <= MAX_TOKEN_BYTES).ok_or((code::PROTOCOL, "bad token"))
}

fn put<'a>(args: &Fields<'a, '_>) -> Result<PutItem<'a>, Wrong> {
    let value = args.raw(b"v").ok_or((code::PROTOCOL, "no v"))?;
    if value.len() > MAX_VALUE_BYTES {
        return Err((code::VALUE_TOO_BIG, "v is larger than 1000 bytes"));
    }
    if !is_canonical(value) {
        return Err((code::PROTOCOL, "v is not canonical"));
    }
    let signed = if args.dict.get(b"k").is_some() { Some(put_signed(args)?) } else { None };
    Ok(PutItem { value, signed })
}

fn put_signed<'a>(args: &Fields<'a, '_>) -> Result<PutSigned<'a>, Wrong> {
    let salt = args.bytes(b"salt").unwrap_or_default();
    if salt.len() > MAX_SALT_BYTES {
        return Err((code::SALT_TOO_BIG, "salt is longer than 64 bytes"));
    }
    Ok(PutSigned {
        key: args.fixed(b"k").ok_or((code::PROTOCOL, "bad k"))?,
        signature: args.fixed(b"sig").ok_or((code::SIGNATURE, "bad sig"))?,
        seq: args.int(b"seq").filter(|seq| *seq >= 0).ok_or((code::PROTOCOL, "bad seq"))?,
        salt,
        cas: args.int(b"cas"),
    })
}

fn want(args: &Fields<'_, '_>) -> Want {
    let mut want = Want::default();
    for family in args.dict.get(b"want").and_then(|list| list.as_list()).into_iter().flatten() {
        want.v4 |= family.as_bytes() == Some(b"n4");
        want.v6 |= family.as_bytes() == Some(b"n6");
    }
    want
}

fn response<'a>(at: &Fields<'a, '_>) -> Result<Response<'a>, KrpcError> {
    let values = at.dict.get(b"values").and_then(|list| list.as_list());
    let values = values.map(|list| {
        let peers = list.filter_map(|entry| entry.as_bytes().and_then(address));
        peers.filter(|peer| peer.port() != 0).collect()
    });
    let number = |key| at.int(key).and_then(|int| u32::try_from(int).ok());
    Ok(Response {
        id: at.id(b"id").ok_or(KrpcError::Field("id"))?,
        nodes: at.bytes(b"nodes"),
        nodes6: at.bytes(b"nodes6"),
        values,
        token: at.bytes(b"token").filter(|token| token.len() <= MAX_TOKEN_BYTES),
        bloom_seeds: at.fixed(b"BFsd"),
        bloom_peers: at.fixed(b"BFpe"),
        value: at.raw(b"v").filter(|value| value.len() <= MAX_VALUE_BYTES && is_canonical(value)),
        key: at.fixed(b"k"),
        signature: at.fixed(b"sig"),
        seq: at.int(b"seq"),
        samples: at.bytes(b"samples"),
        num: number(b"num"),
        interval: number(b"interval").map(|secs| secs.min(MAX_SAMPLE_INTERVAL_SECS)),
    })
}

fn error<'a>(at: &Fields<'a, '_>) -> Result<Body<'a>, KrpcError> {
    let mut list = at.dict.get(b"e").and_then(|e| e.as_list()).ok_or(KrpcError::Field("e"))?;
    let code = list.next().and_then(|code| code.as_int()).ok_or(KrpcError::Field("e"))?;
    let text = list.next().and_then(|text| text.bytes_span()).map(|span| &at.packet[span]);
    Ok(Body::Error { code, text: text.unwrap_or_default() })
}

/// An address and port of either family.
fn address(bytes: &[u8]) -> Option<SocketAddr> {
    match bytes.len() {
        compact::V4_BYTES => compact::decode_v4(bytes).next(),
        compact::V6_BYTES => compact::decode_v6(bytes).next(),
        _ => None,
    }
}

fn is_canonical(value: &[u8]) -> bool {
    bencode::decode(value, Limits::DHT).is_ok_and(|tape| tape.flags().canonical())
}
