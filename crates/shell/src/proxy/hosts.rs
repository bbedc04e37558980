//! Hosts of the DHT whose names the proxy alone looks up.
//!
//! Owns the question that finds out where they are: a ping that leaves with the name (BEP 5); from where it is answered,
//! there is a node. What nodes are good for is the DHT's.

use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_transport::proxy::Target;
use piecemeal_wire::krpc::{Body, Message, Method, NodeId, Query, Want};

/// Hosts asked by name: those everybody knows, and those of some torrents.
const HOSTS_MAX: usize = 64;
/// A host that does not answer is asked so often, with these pauses between.
const ASKS: u8 = 3;
const PAUSE: Duration = Duration::from_secs(5);
/// Bytes of a transaction before the host's number.
const SECRET_BYTES: usize = 6;

/// See the module.
pub(crate) struct Hosts {
    /// And how often each was asked. Bound: [`HOSTS_MAX`].
    hosts: Vec<(Target, u8)>,
    pub(crate) due: Time,
    /// Ours for these questions alone: they are nobody's neighbour.
    id: NodeId,
    /// What makes transactions hard to guess.
    secret: [u8; SECRET_BYTES],
}

impl Hosts {
    /// None yet.
    pub(crate) fn new(seed: [u8; 32]) -> Hosts {
        let (id, rest) = seed.split_first_chunk().expect("20 bytes of 32");
        let (secret, _) = rest.split_first_chunk().expect("6 bytes of 12");
        Hosts { hosts: Vec::new(), due: Time::NEVER, id: NodeId(*id), secret: *secret }
    }

    /// Some more to be asked; those that are too many are passed over.
    pub(crate) fn add(&mut self, hosts: Vec<Target>) {
        for host in hosts {
            let there = self.hosts.len();
            match self.hosts.iter_mut().find(|(known, _)| *known == host) {
                Some((_, asked)) => *asked = 0,
                None if there < HOSTS_MAX => self.hosts.push((host, 0)),
                None => continue,
            }
            self.due = Time::ZERO;
        }
    }

    /// Asks all of them again: whoever answered may not be there by the new way.
    pub(crate) fn begin_anew(&mut self) {
        self.hosts.iter_mut().for_each(|(_, asked)| *asked = 0);
        self.due = if self.hosts.is_empty() { Time::NEVER } else { Time::ZERO };
    }

    /// What is to be asked now.
    pub(crate) fn asks(&mut self, now: Time) -> Vec<(Target, Vec<u8>)> {
        let mut asks = Vec::new();
        for (at, (host, asked)) in (0u16..).zip(&mut self.hosts) {
            if *asked < ASKS {
                *asked += 1;
                let transaction = [&self.secret[..], &at.to_be_bytes()].concat();
                let query = Query { id: self.id, want: Want::default(), method: Method::Ping };
                let (transaction, body) = (&transaction[..], Body::Query(query));
                let ping = Message { transaction, version: None, ip: None, read_only: true, body };
                asks.push((host.clone(), ping.encode()));
            }
        }
        self.due = if asks.is_empty() { Time::NEVER } else { now + PAUSE };
        asks
    }

    /// Whether this answers one of the questions; that host is asked no more.
    pub(crate) fn is_answer(&mut self, payload: &[u8]) -> bool {
        let Ok(message) = Message::decode(payload) else { return false };
        let Some([high, low]) = message.transaction.strip_prefix(&self.secret[..]) else { return false };
        let host = self.hosts.get_mut(usize::from(u16::from_be_bytes([*high, *low])));
        let Some((_, asked)) = host.filter(|_| matches!(message.body, Body::Response(_))) else {
            return false;
        };
        *asked = ASKS;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecemeal_wire::krpc::Response;

    fn host(name: &str) -> Target {
        Target::Name { host: name.into(), port: 6881 }
    }

    #[test]
    fn who_does_not_answer_is_asked_again_and_then_left_alone() {
        let mut hosts = Hosts::new([7; 32]);
        assert_eq!(hosts.due, Time::NEVER);
        hosts.add(vec![host("a"), host("b"), host("a")]);
        let asks = hosts.asks(Time::ZERO);
        assert_eq!(asks.iter().map(|(host, _)| host).collect::<Vec<_>>(), [&host("a"), &host("b")]);
        let asked = Message::decode(&asks[0].1).unwrap();
        assert!(asked.read_only && matches!(&asked.body, Body::Query(query) if query.method == Method::Ping));
        assert!(!hosts.is_answer(&asks[0].1), "a question is no answer");
        let body = Body::Response(Response::new(NodeId([1; 20])));
        let answer = Message { read_only: false, body, ..asked };
        assert!(hosts.is_answer(&answer.encode()));
        assert!(!hosts.is_answer(&Message { transaction: b"another!", ..answer }.encode()));
        for _ in 1..ASKS {
            let now = hosts.due;
            assert_eq!(hosts.asks(now).len(), 1, "b alone");
        }
        let now = hosts.due;
        assert_eq!((hosts.asks(now).len(), hosts.due), (0, Time::NEVER));
        hosts.begin_anew();
        assert_eq!(hosts.asks(Time::ZERO).len(), 2);
        hosts.add((0..100).map(|at| host(&at.to_string())).collect());
        assert_eq!(hosts.hosts.len(), HOSTS_MAX);
    }
}
