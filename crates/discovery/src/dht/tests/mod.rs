//! Nodes on a scripted clock: one that is spoken to by hand, and small networks in memory.

mod hostile;
mod network;
mod words;

use super::*;
use crate::dht::limits::MAX_ANSWER_BYTES;
use piecemeal_wire::krpc::{Method, Query, Response, Want};

const SECOND: Duration = Duration::from_secs(1);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// One node, and what it sent.
struct One {
    dht: Dht,
    now: Time,
    out: DhtOut,
}

impl One {
    fn new() -> One {
        One::with(Settings::new(Family::V4))
    }

    fn with(settings: Settings) -> One {
        let now = Time::ZERO + SECOND;
        One { dht: Dht::new(now, settings, [7; 32]), now, out: DhtOut::default() }
    }

    fn hear(&mut self, from: SocketAddr, packet: &[u8]) {
        self.dht.on_packet(self.now, from, packet, None, &mut self.out);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.dht.next_due() <= end {
            self.now = self.now.max(self.dht.next_due());
            self.dht.heartbeat(self.now, &mut self.out);
            assert!(self.dht.next_due() > self.now, "a heartbeat leaves nothing due");
        }
        self.now = end;
    }

    /// What it sent to `to` first, which is taken away.
    fn sent_to(&mut self, to: SocketAddr) -> Option<Vec<u8>> {
        let place = self.out.datagrams.iter().position(|(addr, _)| *addr == to)?;
        Some(self.out.datagrams.remove(place).1)
    }

    /// The answer to a question of `from`'s.
    fn asked(&mut self, from: SocketAddr, method: Method<'_>) -> Vec<u8> {
        self.out.datagrams.clear();
        self.hear(from, &question(method));
        self.sent_to(from).expect("an answer")
    }

    /// Makes it believe that `from` is there: it asks, and `from` answers.
    fn befriend(&mut self, id: NodeId, from: SocketAddr) {
        self.out.datagrams.clear();
        self.dht.add_node(from);
        self.pass(2 * SECOND);
        while let Some(ping) = self.sent_to(from) {
            let message = Message::decode(&ping).unwrap();
            self.hear(from, &answer(message.transaction, &Response::new(id)));
        }
        assert!(self.dht.save().contains(&(id, from)));
    }
}

/// A question of a node with id `q...`, which is read-only, so that nobody looks whether it is there.
fn question(method: Method<'_>) -> Vec<u8> {
    let body = Body::Query(Query { id: NodeId([b'q'; 20]), want: Want::default(), method });
    Message { transaction: b"tt", version: None, ip: None, read_only: true, body }.encode()
}

fn answer(transaction: &[u8], response: &Response<'_>) -> Vec<u8> {
    let body = Body::Response(response.clone());
    Message { transaction, version: None, ip: None, read_only: false, body }.encode()
}

fn response(bytes: &[u8]) -> Response<'_> {
    match Message::decode(bytes).unwrap().body {
        Body::Response(response) => response,
        other => panic!("{other:?}"),
    }
}

fn error(bytes: &[u8]) -> i64 {
    match Message::decode(bytes).unwrap().body {
        Body::Error { code, .. } => code,
        other => panic!("{other:?}"),
    }
}
