//! Answers to our questions, and silence.
//!
//! Owns what an answer does to the table and to the lookup it belongs to.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_wire::krpc::{self, Message, NodeId, Response};

use super::asks::{Ask, AskId, Late, Purpose};
use super::commands::Kind;
use super::lookup::NODES_OF_AN_ANSWER;
use super::{Dht, DhtOut, LookupId, News, id};
use crate::local::is_local;
use crate::tracker::Family;

impl Dht {
    /// Somebody, a tracker or a peer at `source`, says that we are `ip`.
    pub fn vote_external_ip(&mut self, now: Time, ip: IpAddr, source: SocketAddr, out: &mut DhtOut) {
        let own_family = ip.is_ipv4() == (self.settings.family == Family::V4);
        if !own_family {
            return;
        }
        let Some(ip) = self.ballot.vote(ip, source) else { return };
        if !id::is_bound(self.own, ip) {
            self.own = id::bound_to(ip, &mut self.rng);
            self.table.move_to(now, self.own);
            self.peers.move_to(self.own);
            self.items.move_to(self.own);
            out.news.push(News::NewId { id: self.own, ip });
        }
    }

    /// An answer. If it proves an address, the question that waited for that.
    pub(super) fn on_response(
        &mut self,
        now: Time,
        from: SocketAddr,
        message: &Message<'_>,
        response: &Response<'_>,
        out: &mut DhtOut,
    ) -> Option<Vec<u8>> {
        let Some((ask_id, ask)) = self.asks.answered(message.transaction, from) else {
            self.refused.unasked += 1;
            return None;
        };
        self.limits.prove(now, from);
        if response.id == self.own {
            // We have met ourselves, or somebody who claims to be us.
            self.gave_nothing(now, &ask, None, out);
            return None;
        }
        self.table.answered(now, response.id, from);
        if let Some(ip) = message.ip {
            self.vote_external_ip(now, ip.ip(), from, out);
        }
        match ask.purpose {
            Purpose::Check => {}
            Purpose::Proof => return self.held.remove(&ask_id),
            Purpose::Lookup(id) => {
                self.lookup_answered(id, from, message, response, out);
                self.advance(now, id, out);
            }
            Purpose::Store(id) => self.store_ended(now, id, Ok(()), out),
        }
        None
    }

    /// A refusal: there is somebody, who does not help.
    pub(super) fn on_error(
        &mut self,
        now: Time,
        from: SocketAddr,
        transaction: &[u8],
        code: i64,
        out: &mut DhtOut,
    ) {
        match self.asks.answered(transaction, from) {
            Some((ask_id, ask)) => {
                self.held.remove(&ask_id);
                self.gave_nothing(now, &ask, Some(code), out);
            }
            None => self.refused.unasked += 1,
        }
    }

    /// Deadlines that have come.
    pub(super) fn judge_silence(&mut self, now: Time, out: &mut DhtOut) {
        while let Some((ask_id, ask, late)) = self.asks.late(now) {
            match (late, ask.purpose) {
                (Late::Slow, Purpose::Lookup(id)) => {
                    if let Some(lookup) = self.lookups.get_mut(&id) {
                        lookup.search.slow(ask.to);
                    }
                    self.advance(now, id, out);
                }
                (Late::Slow, _) => {}
                (Late::Lost, Purpose::Proof) => self.forget_held(ask_id),
                (Late::Lost, _) => {
                    self.table.failed(ask.to);
                    self.gave_nothing(now, &ask, None, out);
                }
            }
        }
    }

    fn forget_held(&mut self, ask_id: AskId) {
        // The source may be a victim who never asked: nothing of this is held against it.
        self.held.remove(&ask_id);
    }

    fn gave_nothing(&mut self, now: Time, ask: &Ask, code: Option<i64>, out: &mut DhtOut) {
        match ask.purpose {
            Purpose::Check | Purpose::Proof => {}
            Purpose::Lookup(id) => {
                if let Some(lookup) = self.lookups.get_mut(&id) {
                    lookup.search.failed(ask.to);
                    lookup.refused = code.or(lookup.refused);
                }
                self.advance(now, id, out);
            }
            Purpose::Store(id) => self.store_ended(now, id, Err(code), out),
        }
    }

    fn store_ended(&mut self, now: Time, id: LookupId, result: Result<(), Option<i64>>, out: &mut DhtOut) {
        if let Some(lookup) = self.lookups.get_mut(&id) {
            lookup.store_ended(result);
        }
        self.advance(now, id, out);
    }

    fn lookup_answered(
        &mut self,
        id: LookupId,
        from: SocketAddr,
        message: &Message<'_>,
        response: &Response<'_>,
        out: &mut DhtOut,
    ) {
        let (own_nodes, other_nodes) = self.nodes_of(response, from);
        if !other_nodes.is_empty() && self.settings.want_other {
            out.news.push(News::OtherFamily(other_nodes));
        }
        let Some(lookup) = self.lookups.get_mut(&id) else { return };
        let Some(round) = lookup.search.answered(response.id, from, response.token) else { return };
        if !lookup.closed {
            own_nodes.into_iter().for_each(|(id, addr)| lookup.search.named(id, addr, round));
        }
        match &lookup.kind {
            Kind::Peers(_) => {
                // A node of the wide world knows nothing of our local network.
                let near = is_local(from.ip());
                let told = response.values.as_deref().unwrap_or_default().iter().copied();
                let told: Vec<_> = told.filter(|peer| near || !is_local(peer.ip())).collect();
                let fresh = lookup.new_peers(&told);
                if !fresh.is_empty() {
                    out.news.push(News::PeersFound { lookup: id, peers: fresh, round });
                }
                response.bloom_seeds.inspect(|filter| lookup.seeds.merge(filter));
                response.bloom_peers.inspect(|filter| lookup.leeches.merge(filter));
            }
            Kind::Get { .. } => {
                let (target, salt) = (lookup.search.target(), lookup.salt());
                let item = response.value.and_then(|value| {
                    let (key, signature) = (response.key, response.signature);
                    Dht::item_of(value, key, signature, response.seq, salt, target)
                });
                if let Some(item) = item.filter(|item| lookup.is_news(item)) {
                    out.news.push(News::Value { lookup: id, item });
                }
            }
            Kind::Sample => {
                if let Some(samples) = response.samples {
                    let interval = Duration::from_secs(response.interval.unwrap_or(0).into());
                    let info_hashes = krpc::info_hashes(samples).collect();
                    let num = response.num.unwrap_or(0);
                    out.news.push(News::Samples { lookup: id, from, info_hashes, num, interval });
                }
            }
            Kind::Ping => {
                let version = message.version.map(<[u8]>::to_vec);
                out.news.push(News::Pong { lookup: id, id: response.id, version, sees_us_at: message.ip });
            }
            Kind::FindNode | Kind::Refresh | Kind::Put { .. } => {}
        }
    }

    /// The nodes of an answer that may be believed: of our family, and the addresses of the other's.
    fn nodes_of(
        &self,
        response: &Response<'_>,
        from: SocketAddr,
    ) -> (Vec<(NodeId, SocketAddr)>, Vec<SocketAddr>) {
        let v4 = krpc::nodes_v4(response.nodes.unwrap_or_default()).take(NODES_OF_AN_ANSWER);
        let v6 = krpc::nodes_v6(response.nodes6.unwrap_or_default()).take(NODES_OF_AN_ANSWER);
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for (id, addr) in v4.chain(v6) {
            if self.is_worth_asking(id, addr, from) {
                own.push((id, addr));
            } else if !self.is_of_family(addr) && super::net::can_be_told(addr, from) {
                other.push(addr);
            }
        }
        (own, other)
    }
}
