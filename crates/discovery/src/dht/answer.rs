//! Answering strangers.
//!
//! Owns what is said to whom and how much of it. A source that is not proven gets at most three times what it sent;
//! nodes and peers are cut to that. What can not be cut (an item, the filters of a scrape) waits: the question is held,
//! the source is asked to show itself, and then it gets all. That costs an honest stranger one round trip, once.

use std::net::SocketAddr;

use piecemeal_metainfo::{InfoHash, Time};
use piecemeal_wire::compact;
use piecemeal_wire::krpc::{
    Body, Message, Method, NODE_V4_BYTES, NODE_V6_BYTES, NodeId, PutItem, Query, Response, Want, code,
    encode_node,
};

use super::asks::Purpose;
use super::limits::{AMPLIFICATION, MAX_ANSWER_BYTES};
use super::table::K;
use super::{Bloom, Dht, DhtOut, Item, MAX_HELD, VERSION};
use crate::tracker::Family;

/// Bytes of an answer with an item: the largest, its key and signature, and a few nodes.
const MAX_ITEM_ANSWER_BYTES: usize = 1_400;
/// Newcomers that are looked at at once; so a flood of invented nodes costs few questions.
const MAX_CHECKS: usize = 16;
/// Bytes of a `ping` of ours.
const PING_BYTES: usize = 76;
/// Bytes of keys and lengths around a list of nodes or of peers.
const LIST_BYTES: usize = 14;
/// Samples in one answer (BEP 51).
const MAX_SAMPLES: usize = 20;
/// Each answer has another sample; asking without end is still not welcome.
const SAMPLE_INTERVAL_SECS: u32 = 60;

/// An answer whose lists are still to be cut.
#[derive(Default)]
struct Draft {
    token: Option<Vec<u8>>,
    /// Near to this, if nodes are wanted.
    target: Option<NodeId>,
    want: Want,
    peers: Vec<SocketAddr>,
    filters: Option<(Bloom, Bloom)>,
    item: Option<Item>,
    /// The version of an item that the asker has already.
    seq: Option<i64>,
    samples: Option<(Vec<InfoHash>, usize)>,
}

/// A refusal: a code and its words.
type Refused = (i64, &'static str);

impl Dht {
    pub(super) fn on_query(
        &mut self,
        now: Time,
        from: SocketAddr,
        packet: &[u8],
        message: &Message<'_>,
        other: Option<&Dht>,
        out: &mut DhtOut,
    ) {
        // Behind a NAT: whoever reaches us now might not the next time (BEP 43).
        if self.settings.read_only {
            return;
        }
        let proven = self.limits.is_proven(now, from);
        if !self.limits.has_budget(now, proven) || !self.limits.may_ask(now, from) {
            self.refused.limited += 1;
            return;
        }
        self.answer(now, from, packet, message, other, out);
        if let Body::Query(query) = &message.body
            && !message.read_only
        {
            self.consider(now, query.id, from, out);
        }
    }

    /// Answers what was held until its source was proven.
    pub(super) fn answer_held(
        &mut self,
        now: Time,
        from: SocketAddr,
        packet: &[u8],
        other: Option<&Dht>,
        out: &mut DhtOut,
    ) {
        if let Ok(message) = Message::decode(packet) {
            self.answer(now, from, packet, &message, other, out);
        }
    }

    fn answer(
        &mut self,
        now: Time,
        from: SocketAddr,
        packet: &[u8],
        message: &Message<'_>,
        other: Option<&Dht>,
        out: &mut DhtOut,
    ) {
        self.tokens.turn(now, &mut self.rng);
        let draft = match &message.body {
            Body::Query(query) => self.draft(now, from, query),
            Body::Malformed { code, why } => Err((*code, *why)),
            Body::Response(_) | Body::Error { .. } => return,
        };
        let proven = self.limits.is_proven(now, from);
        let has_item = draft.as_ref().is_ok_and(|draft| draft.item.is_some());
        let most = match proven {
            true if has_item => MAX_ITEM_ANSWER_BYTES,
            true => MAX_ANSWER_BYTES,
            false => MAX_ANSWER_BYTES.min(AMPLIFICATION * packet.len()),
        };
        let transaction = message.transaction;
        let datagram = match draft {
            Err((code, why)) => {
                let body = Body::Error { code, text: why.as_bytes() };
                Some(envelope(transaction, from, body).encode())
            }
            Ok(draft) => self.fit(transaction, from, &draft, most, other),
        };
        match datagram.filter(|datagram| datagram.len() <= most) {
            Some(datagram) if self.limits.take(now, datagram.len(), proven) => {
                out.datagrams.push((from, datagram))
            }
            None if !proven => self.hold(now, from, packet, out),
            _ => self.refused.limited += 1,
        }
    }

    /// What there is to say, without regard for its size.
    fn draft(&mut self, now: Time, from: SocketAddr, query: &Query<'_>) -> Result<Draft, Refused> {
        let mut draft = Draft { want: self.families(query.want), ..Draft::default() };
        match &query.method {
            Method::Ping => {}
            Method::FindNode { target } | Method::Unknown { target: Some(target), .. } => {
                draft.target = Some(*target)
            }
            Method::Unknown { target: None, .. } => return Err((code::METHOD, "unknown method")),
            Method::GetPeers { info_hash, scrape, no_seed } => {
                self.draft_peers(now, *info_hash, (*scrape, *no_seed), &mut draft);
                self.add_token(from, (*info_hash).into(), &mut draft);
            }
            Method::AnnouncePeer { info_hash, port, implied_port, seed, token } => {
                self.check_token(now, from, token, (*info_hash).into())?;
                let port = if *implied_port { from.port() } else { *port };
                self.peers.announce(now, *info_hash, SocketAddr::new(from.ip(), port), *seed);
            }
            Method::Get { target, seq } => {
                self.draft_item(now, *target, *seq, &mut draft);
                self.add_token(from, *target, &mut draft);
            }
            Method::Put { token, item } => self.store_item(now, from, token, item)?,
            Method::SampleInfohashes { target } => {
                draft.target = Some(*target);
                draft.samples = Some(self.peers.info_hashes(MAX_SAMPLES, &mut self.rng));
            }
        }
        Ok(draft)
    }

    fn draft_peers(&mut self, now: Time, info_hash: InfoHash, wish: (bool, bool), draft: &mut Draft) {
        let (scrape, no_seed) = wish;
        let want = MAX_ANSWER_BYTES / compact::V4_BYTES;
        if let Some(sample) = self.peers.sample(now, info_hash, want, no_seed, &mut self.rng) {
            draft.peers = sample.peers;
            draft.filters = scrape.then_some((sample.seeds, sample.leeches));
        }
    }

    fn draft_item(&self, now: Time, target: NodeId, seq: Option<i64>, draft: &mut Draft) {
        let Some(item) = self.items.get(now, target) else { return };
        let stored = item.signed.as_ref().map(|signed| signed.seq);
        if seq.is_some() && stored <= seq && stored.is_some() {
            draft.seq = stored;
        } else {
            draft.item = Some(item.clone());
        }
    }

    fn add_token(&self, from: SocketAddr, target: NodeId, draft: &mut Draft) {
        draft.target = Some(target);
        draft.token = Some(self.tokens.make(from.ip(), target).to_vec());
    }

    fn check_token(
        &mut self,
        now: Time,
        from: SocketAddr,
        token: &[u8],
        target: NodeId,
    ) -> Result<(), Refused> {
        if !self.tokens.is_good(token, from.ip(), target) {
            self.refused.bad_token += 1;
            return Err((code::PROTOCOL, "bad token"));
        }
        self.limits.prove(now, from);
        Ok(())
    }

    fn store_item(
        &mut self,
        now: Time,
        from: SocketAddr,
        token: &[u8],
        put: &PutItem<'_>,
    ) -> Result<(), Refused> {
        self.check_token(now, from, token, Item::from_put(put).target())?;
        self.items.put(now, put)
    }

    /// The families of nodes for a question's wish (BEP 32).
    fn families(&self, want: Want) -> Want {
        let v4 = self.settings.family == Family::V4;
        if want == Want::default() { Want { v4, v6: !v4 } } else { want }
    }

    /// The datagram, its lists cut to `most` bytes. `None`: it has what can not be cut and is too long.
    fn fit(
        &mut self,
        transaction: &[u8],
        to: SocketAddr,
        draft: &Draft,
        most: usize,
        other: Option<&Dht>,
    ) -> Option<Vec<u8>> {
        let mut response = Response::new(self.own);
        response.token = draft.token.as_deref();
        response.seq = draft.seq;
        if let Some((seeds, leeches)) = &draft.filters {
            (response.bloom_seeds, response.bloom_peers) = (Some(seeds.bytes()), Some(leeches.bytes()));
        }
        if let Some(item) = &draft.item {
            response.value = Some(&item.value);
            if let Some(signed) = &item.signed {
                (response.key, response.signature) = (Some(&signed.key), Some(&signed.signature));
                response.seq = Some(signed.seq);
            }
        }
        if let Some((_, num)) = &draft.samples {
            (response.num, response.interval) = (Some(*num as u32), Some(SAMPLE_INTERVAL_SECS));
        }
        let base = envelope(transaction, to, Body::Response(response.clone())).encode().len();
        let mut room = most.checked_sub(base)?;
        let samples = draft.samples.as_ref().map(|(samples, _)| {
            let fit = room.saturating_sub(LIST_BYTES) / 2 / 20;
            samples.iter().take(fit).flat_map(|hash| hash.0).collect::<Vec<u8>>()
        });
        room = room.saturating_sub(samples.as_ref().map_or(0, |samples| samples.len() + LIST_BYTES));
        // Peers are what was asked for; but without nodes a lookup could not go on.
        let for_nodes = if draft.peers.is_empty() { room } else { room / 2 };
        let (nodes, nodes6) = self.nodes_for(draft, for_nodes, other);
        let used = |nodes: &Option<Vec<u8>>| nodes.as_ref().map_or(0, |nodes| nodes.len() + LIST_BYTES);
        room = room.saturating_sub(used(&nodes) + used(&nodes6));
        response.samples = samples.as_deref();
        (response.nodes, response.nodes6) = (nodes.as_deref(), nodes6.as_deref());
        if !draft.peers.is_empty() {
            let entry_bytes = if to.is_ipv4() { compact::V4_BYTES + 2 } else { compact::V6_BYTES + 3 };
            let fit = room.saturating_sub(LIST_BYTES) / entry_bytes;
            response.values = Some(draft.peers.iter().take(fit).copied().collect());
        }
        Some(envelope(transaction, to, Body::Response(response)).encode())
    }

    /// Packed nodes of both families, as wanted, in at most `room` bytes with what is around them.
    fn nodes_for(
        &self,
        draft: &Draft,
        room: usize,
        other: Option<&Dht>,
    ) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let Some(target) = draft.target else { return (None, None) };
        let families =
            [(Family::V4, draft.want.v4, NODE_V4_BYTES), (Family::V6, draft.want.v6, NODE_V6_BYTES)];
        let wanted = families.iter().filter(|(_, wanted, _)| *wanted).count().max(1);
        let share = room / wanted;
        let [v4, v6] = families.map(|(family, wanted, bytes)| {
            let dht = if self.settings.family == family { Some(self) } else { other };
            let table = &dht.filter(|_| wanted)?.table;
            let fit = share.saturating_sub(LIST_BYTES) / bytes;
            let mut packed = Vec::new();
            for (id, addr) in table.nearest(target, K.min(fit)) {
                encode_node(id, addr, &mut packed);
            }
            Some(packed)
        });
        (v4, v6)
    }

    /// Keeps a question until its source has shown itself, if there is room and budget for that.
    fn hold(&mut self, now: Time, from: SocketAddr, packet: &[u8], out: &mut DhtOut) {
        if self.held.len() >= MAX_HELD || !self.limits.take(now, PING_BYTES, false) {
            self.refused.limited += 1;
            return;
        }
        let id = self.asks.add(now, from, Purpose::Proof, &mut self.rng);
        let Some(id) = id else { return };
        self.held.insert(id, packet.to_vec());
        let query = Query { id: self.own, want: Want::default(), method: Method::Ping };
        let mut ping = envelope(&[], from, Body::Query(query));
        let id = id.to_be_bytes();
        (ping.transaction, ping.ip) = (&id, None);
        out.datagrams.push((from, ping.encode()));
    }

    /// Somebody who asked might be worth a place in the table: looks whether it is there.
    fn consider(&mut self, now: Time, id: NodeId, from: SocketAddr, out: &mut DhtOut) {
        if self.asks.count(Purpose::Check) < MAX_CHECKS
            && self.table.is_welcome(id, from)
            && self.limits.take(now, PING_BYTES, false)
        {
            self.ask(now, from, Method::Ping, Purpose::Check, out);
        }
    }
}

/// An answer as it goes to `to`, who learns how we see it (BEP 42).
fn envelope<'a>(transaction: &'a [u8], to: SocketAddr, body: Body<'a>) -> Message<'a> {
    Message { transaction, version: Some(&VERSION), ip: Some(to), read_only: false, body }
}
