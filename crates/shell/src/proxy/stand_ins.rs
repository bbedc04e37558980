//! Addresses that stand for names which the proxy looks up.
//!
//! Owns the table of both. The engine knows trackers by address; one whose name only the proxy may look up has an address
//! that nobody can have (240.0.0.0/4, RFC 1112), and datagrams to it leave with the name. An answer comes from the real
//! address, of which nothing is known before, so it is recognized by its transaction (BEP 15), four bytes that were drawn
//! at random, and its port.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use piecemeal_transport::proxy::Target;

/// Names known at once; beyond that all are forgotten, and given other addresses as they come.
const NAMES_MAX: usize = 4096;
/// Requests whose answers are recognized: all that UDP trackers have out at once. The oldest gives way.
const REQUESTS_MAX: usize = 16_384;
/// Bits of a stand-in that count names.
const NUMBER_BITS: u32 = 28;
/// Where a request has its transaction, and where an answer (BEP 15).
const ASKED_AT: usize = 12;
const ANSWERED_AT: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct StandIns {
    by_name: BTreeMap<String, Ipv4Addr>,
    names: BTreeMap<Ipv4Addr, String>,
    /// Never begun anew, so that no address ever stands for two names.
    given: u32,
    asked: BTreeMap<[u8; 4], SocketAddr>,
    order: VecDeque<[u8; 4]>,
}

impl StandIns {
    /// The address that stands for this host from now on.
    pub(crate) fn give(&mut self, host: &str) -> Ipv4Addr {
        if let Some(ip) = self.by_name.get(host) {
            return *ip;
        }
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
            self.by_name.clear();
        }
        self.given = (self.given + 1) % (1 << NUMBER_BITS);
        let ip = Ipv4Addr::from(0xf << NUMBER_BITS | self.given);
        self.by_name.insert(host.to_owned(), ip);
        self.names.insert(ip, host.to_owned());
        ip
    }

    /// Where a request to `to` really goes; `None` if that stands for a name that was forgotten.
    pub(crate) fn target(&mut self, to: SocketAddr, request: &[u8]) -> Option<Target> {
        let ip = match to.ip() {
            IpAddr::V4(ip) if ip.to_bits() >> NUMBER_BITS == 0xf => ip,
            _ => return Some(to.into()),
        };
        let host = self.names.get(&ip)?.clone();
        if let Some(transaction) = four_bytes(request, ASKED_AT)
            && self.asked.insert(transaction, to).is_none()
        {
            self.order.push_back(transaction);
            if self.order.len() > REQUESTS_MAX {
                self.order.pop_front().map(|oldest| self.asked.remove(&oldest));
            }
        }
        Some(Target::Name { host, port: to.port() })
    }

    /// Whom an answer that came from `from` is from. A stand-in is of IPv4, and so must the tracker be: addresses in its
    /// answer are of the family that it is spoken to.
    pub(crate) fn whose(&self, from: SocketAddr, answer: &[u8]) -> SocketAddr {
        let asked = four_bytes(answer, ANSWERED_AT).and_then(|transaction| self.asked.get(&transaction));
        asked.filter(|to| from.is_ipv4() && to.port() == from.port()).copied().unwrap_or(from)
    }
}

fn four_bytes(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_keeps_its_address_and_its_answers_find_back() {
        let mut all = StandIns::default();
        let (one, two) = (all.give("one.example"), all.give("two.example"));
        assert_eq!((all.give("one.example"), one.octets()[0] >> 4), (one, 0xf));
        assert_ne!(one, two);
        let request = *b"connectioactntid....";
        let to = SocketAddr::from((one, 80));
        let name = Target::Name { host: "one.example".into(), port: 80 };
        assert_eq!(all.target(to, &request), Some(name.clone()));
        assert_eq!(all.target(to, b"short"), Some(name));
        let answer = b"actntid...........";
        let answer = [b"act.", &request[12..16], &answer[..]].concat();
        assert_eq!(all.whose(at("192.0.2.1:80"), &answer), to);
        assert_eq!(all.whose(at("192.0.2.1:81"), &answer), at("192.0.2.1:81"), "another port");
        assert_eq!(all.whose(at("[2001:db8::1]:80"), &answer), at("[2001:db8::1]:80"), "another family");
        assert_eq!(all.whose(at("192.0.2.1:80"), b"act."), at("192.0.2.1:80"));
        assert_eq!(all.target(at("192.0.2.1:80"), &request), Some(at("192.0.2.1:80").into()));
        assert_eq!(all.target(at("250.0.0.1:80"), &request), None, "nobody has that address");
    }

    #[test]
    fn tables_are_bounded() {
        let mut all = StandIns::default();
        let first = all.give("0");
        for name in 1..=NAMES_MAX {
            all.give(&name.to_string());
        }
        assert_eq!(all.target((first, 80).into(), &[0; 16]), None, "forgotten");
        assert!(all.names.len() <= NAMES_MAX && all.by_name.len() == all.names.len());
        let again = all.give("0");
        assert_ne!(again, first);
        for request in 0..REQUESTS_MAX as u32 + 9 {
            let bytes = [&[0; 12][..], &request.to_be_bytes()].concat();
            all.target((again, 80).into(), &bytes).unwrap();
        }
        assert_eq!((all.asked.len(), all.order.len()), (REQUESTS_MAX, REQUESTS_MAX));
    }
}
