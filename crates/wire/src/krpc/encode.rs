//! Writing messages.
//!
//! Owns the order of the keys: BEP 44 counts on canonical bencode, so all of it is.

use super::{Body, Message, Method, PutItem, Query, Response, Want};
use crate::compact;
use piecemeal_metainfo::bencode::Encoder;
use std::net::SocketAddr;

impl Message<'_> {
    /// The datagram to send. Writes all it has: the caller bounds it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut to = Encoder::new(&mut out);
        to.begin_dict();
        let kind: &[u8] = match &self.body {
            Body::Query(query) => {
                arguments(query, to.key(b"a"));
                b"q"
            }
            Body::Error { code, text } => {
                to.key(b"e").begin_list().int(*code).bytes(text).end();
                b"e"
            }
            Body::Malformed { code, why } => {
                to.key(b"e").begin_list().int(*code).str(why).end();
                b"e"
            }
            Body::Response(_) => b"r",
        };
        if let Some(ip) = self.ip {
            to.pair_bytes(b"ip", &packed(ip));
        }
        match &self.body {
            Body::Query(query) => _ = to.pair_bytes(b"q", name(&query.method)),
            Body::Response(response) => write(response, to.key(b"r")),
            Body::Error { .. } | Body::Malformed { .. } => {}
        }
        if self.read_only {
            to.pair_int(b"ro", 1);
        }
        to.pair_bytes(b"t", self.transaction);
        if let Some(version) = self.version {
            to.pair_bytes(b"v", version);
        }
        to.pair_bytes(b"y", kind).end();
        out
    }
}

fn name<'m>(method: &Method<'m>) -> &'m [u8] {
    match method {
        Method::Ping => b"ping",
        Method::FindNode { .. } => b"find_node",
        Method::GetPeers { .. } => b"get_peers",
        Method::AnnouncePeer { .. } => b"announce_peer",
        Method::Get { .. } => b"get",
        Method::Put { .. } => b"put",
        Method::SampleInfohashes { .. } => b"sample_infohashes",
        Method::Unknown { name, .. } => name,
    }
}

fn arguments(query: &Query<'_>, to: &mut Encoder<'_>) {
    to.begin_dict();
    match &query.method {
        Method::Ping => _ = to.pair_bytes(b"id", &query.id.0),
        Method::FindNode { target } | Method::SampleInfohashes { target } => {
            to.pair_bytes(b"id", &query.id.0).pair_bytes(b"target", &target.0);
        }
        Method::Unknown { target, .. } => {
            to.pair_bytes(b"id", &query.id.0);
            if let Some(target) = target {
                to.pair_bytes(b"target", &target.0);
            }
        }
        Method::GetPeers { info_hash, scrape, no_seed } => {
            to.pair_bytes(b"id", &query.id.0).pair_bytes(b"info_hash", &info_hash.0);
            flag(to, b"noseed", *no_seed);
            flag(to, b"scrape", *scrape);
        }
        Method::AnnouncePeer { info_hash, port, implied_port, seed, token } => {
            to.pair_bytes(b"id", &query.id.0);
            flag(to, b"implied_port", *implied_port);
            to.pair_bytes(b"info_hash", &info_hash.0).pair_int(b"port", (*port).into());
            flag(to, b"seed", *seed);
            to.pair_bytes(b"token", token);
        }
        Method::Get { target, seq } => {
            to.pair_bytes(b"id", &query.id.0);
            int(to, b"seq", *seq);
            to.pair_bytes(b"target", &target.0);
        }
        Method::Put { token, item } => put(query, token, item, to),
    }
    want(query.want, to);
    to.end();
}

fn put(query: &Query<'_>, token: &[u8], item: &PutItem<'_>, to: &mut Encoder<'_>) {
    if let Some(signed) = &item.signed {
        int(to, b"cas", signed.cas);
        to.pair_bytes(b"id", &query.id.0).pair_bytes(b"k", signed.key);
        if !signed.salt.is_empty() {
            to.pair_bytes(b"salt", signed.salt);
        }
        to.pair_int(b"seq", signed.seq).pair_bytes(b"sig", signed.signature);
    } else {
        to.pair_bytes(b"id", &query.id.0);
    }
    to.pair_bytes(b"token", token).key(b"v").raw(item.value);
}

fn want(want: Want, to: &mut Encoder<'_>) {
    if want == Want::default() {
        return;
    }
    to.key(b"want").begin_list();
    if want.v4 {
        to.bytes(b"n4");
    }
    if want.v6 {
        to.bytes(b"n6");
    }
    to.end();
}

fn write(response: &Response<'_>, to: &mut Encoder<'_>) {
    to.begin_dict();
    bytes(to, b"BFpe", response.bloom_peers.map(|filter| &filter[..]));
    bytes(to, b"BFsd", response.bloom_seeds.map(|filter| &filter[..]));
    to.pair_bytes(b"id", &response.id.0);
    int(to, b"interval", response.interval.map(i64::from));
    bytes(to, b"k", response.key.map(|key| &key[..]));
    bytes(to, b"nodes", response.nodes);
    bytes(to, b"nodes6", response.nodes6);
    int(to, b"num", response.num.map(i64::from));
    bytes(to, b"samples", response.samples);
    int(to, b"seq", response.seq);
    bytes(to, b"sig", response.signature.map(|signature| &signature[..]));
    bytes(to, b"token", response.token);
    if let Some(value) = response.value {
        to.key(b"v").raw(value);
    }
    if let Some(values) = &response.values {
        to.key(b"values").begin_list();
        for peer in values {
            to.bytes(&packed(*peer));
        }
        to.end();
    }
    to.end();
}

fn packed(addr: SocketAddr) -> Vec<u8> {
    let mut out = Vec::with_capacity(compact::V6_BYTES);
    compact::encode(addr, &mut out);
    out
}

fn flag(to: &mut Encoder<'_>, key: &[u8], set: bool) {
    if set {
        to.pair_int(key, 1);
    }
}

fn int(to: &mut Encoder<'_>, key: &[u8], value: Option<i64>) {
    if let Some(value) = value {
        to.pair_int(key, value);
    }
}

fn bytes(to: &mut Encoder<'_>, key: &[u8], value: Option<&[u8]>) {
    if let Some(value) = value {
        to.pair_bytes(key, value);
    }
}
