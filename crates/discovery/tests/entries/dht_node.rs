//! The life of a DHT node, as a script: who sends what, what is answered to it, what we ask, and how time goes by.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use piecemeal_discovery::dht::{Announce, Dht, DhtOut, Item, News, PeerSearch, Settings};
use piecemeal_discovery::tracker::Family;
use piecemeal_metainfo::{InfoHash, Time};
use piecemeal_wire::krpc::{Body, Message, Method, NodeId, PutItem, Query, Response, Want};

/// Steps of one life.
const MOST_STEPS: usize = 1_000;
/// Datagrams that may still be answered.
const MOST_SENT: usize = 64;
/// Bytes of heap after so many steps, many times over.
const MOST_BYTES: usize = 4 << 20;

/// The first byte says what kind of node, each step is a byte and what it needs. Every datagram we send is a message,
/// a heartbeat leaves nothing due, and memory is bounded.
pub fn dht_node(bytes: &[u8]) {
    let Some((kind, script)) = bytes.split_first() else { return };
    let _ = live(*kind, script);
}

/// How many nodes, torrents, items and lookups it had at most.
pub fn live(kind: u8, script: &[u8]) -> [usize; 4] {
    let (mut life, mut script) = (Life::new(kind), Script(script));
    for _ in 0..MOST_STEPS {
        if life.step(&mut script).is_none() {
            break;
        }
        life.look();
    }
    life.pass(Duration::from_secs(60));
    life.look();
    life.most
}

/// The rest of a script; what it has no bytes for any more ends it.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// As many bytes as the next two say, or all there are.
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(u16::from_le_bytes([self.byte()?, self.byte()?]));
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        Some(bytes)
    }
}

struct Life {
    dht: Dht,
    now: Time,
    out: DhtOut,
    v6: bool,
    /// What we sent, the last of it.
    sent: VecDeque<(SocketAddr, Vec<u8>)>,
    most: [usize; 4],
}

impl Life {
    fn new(kind: u8) -> Life {
        let v6 = kind & 1 != 0;
        let mut settings = Settings::new(if v6 { Family::V6 } else { Family::V4 });
        settings.read_only = kind & 2 != 0;
        settings.want_other = kind & 4 != 0;
        let now = Time::ZERO + Duration::from_secs(1);
        let dht = Dht::new(now, settings, [7; 32]);
        Life { dht, now, out: DhtOut::default(), v6, sent: VecDeque::new(), most: [0; 4] }
    }

    fn step(&mut self, script: &mut Script<'_>) -> Option<()> {
        match script.byte()? % 8 {
            0 => {
                let from = self.who(script.byte()?);
                self.hear(from, script.bytes()?);
            }
            1 => {
                let time = u64::from(script.byte()?);
                self.pass(Duration::from_millis(time * time * 20));
            }
            2 => self.answer(script)?,
            3 => self.refuse(script)?,
            4 => self.ask(script.byte()?, script.byte()?),
            5 => self.dht.add_node(self.who(script.byte()?)),
            6 => self.visit(script.byte()?, script.byte()?),
            _ => {
                let (by, ip) = (self.who(script.byte()?), self.who(script.byte()?).ip());
                self.dht.vote_external_ip(self.now, ip, by, &mut self.out);
            }
        }
        Some(())
    }

    fn who(&self, number: u8) -> SocketAddr {
        match self.v6 {
            true => (Ipv6Addr::new(0x2001, 0x4860, number.into(), 0, 0, 0, 0, 1), 6881).into(),
            false => (Ipv4Addr::new(20 + number % 100, number, 1, 1), 6881).into(),
        }
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
            self.look();
        }
        self.now = end;
    }

    /// Something we sent, by its number.
    fn sent(&mut self, which: u8) -> Option<(SocketAddr, Vec<u8>)> {
        let which = usize::from(which).checked_rem(self.sent.len())?;
        self.sent.remove(which)
    }

    /// Who was asked answers, with the script's bytes as every list. With 0 for its id it is who it was before.
    fn answer(&mut self, script: &mut Script<'_>) -> Option<()> {
        let (which, id, fields, bytes) = (script.byte()?, script.byte()?, script.byte()?, script.bytes()?);
        let Some((from, question)) = self.sent(which) else { return Some(()) };
        let transaction = Message::decode(&question).expect("ours").transaction;
        let own_id = match from.ip() {
            IpAddr::V4(ip) => ip.octets()[1],
            IpAddr::V6(ip) => ip.octets()[5],
        };
        let mut response = Response::new(NodeId([if id == 0 { own_id } else { id }; 20]));
        let list = |bit: u8| (fields & 1 << bit != 0).then_some(bytes);
        (response.nodes, response.nodes6, response.samples) = (list(0), list(1), list(2));
        response.token = list(3).map(|bytes| &bytes[..bytes.len().min(8)]);
        response.values = list(4).map(|bytes| piecemeal_wire::compact::decode_v4(bytes).collect());
        response.value = list(5).map(|_| &b"1:a"[..]);
        response.num = list(6).map(|_| u32::MAX);
        response.bloom_peers = list(7).and_then(|bytes| bytes.first_chunk());
        let ip = (id & 1 != 0).then(|| self.who(id));
        let body = Body::Response(response);
        self.hear(from, &Message { transaction, version: None, ip, read_only: false, body }.encode());
        Some(())
    }

    fn refuse(&mut self, script: &mut Script<'_>) -> Option<()> {
        let (which, code) = (script.byte()?, script.byte()?);
        let Some((from, question)) = self.sent(which) else { return Some(()) };
        let transaction = Message::decode(&question).expect("ours").transaction;
        let body = Body::Error { code: i64::from(code) + 100, text: b"no" };
        self.hear(from, &Message { transaction, version: None, ip: None, read_only: false, body }.encode());
        Some(())
    }

    fn ask(&mut self, what: u8, target: u8) {
        let (info_hash, node, who) = (InfoHash([target; 20]), NodeId([target; 20]), self.who(target));
        let (dht, now, out) = (&mut self.dht, self.now, &mut self.out);
        let announce = Announce { port: 6881, implied_port: what & 8 != 0, seed: what & 16 != 0 };
        let announce = (what & 32 != 0).then_some(announce);
        let search = PeerSearch { info_hash, announce, scrape: what & 64 != 0, no_seed: what & 128 != 0 };
        let item = || Item::immutable(vec![b'1', b':', target | 0x20]).expect("canonical");
        let lookup = match what % 8 {
            0 => dht.ping(now, who, out),
            1 => dht.find_node(now, node, out),
            2 => dht.get(now, node, b"", out),
            3 => dht.put(now, item(), None, out),
            4 => dht.sample_infohashes(now, node, None, out),
            5 => dht.sample_infohashes(now, node, Some(who), out),
            _ => dht.get_peers(now, search, out),
        };
        if let (Ok(lookup), 7) = (lookup, what % 8) {
            dht.cancel(now, lookup, out);
        }
    }

    /// A stranger asks for peers and for an item, and with the tokens of the answers announces itself and stores one.
    fn visit(&mut self, who: u8, what: u8) {
        let info_hash = InfoHash([what; 20]);
        let get_peers = Method::GetPeers { info_hash, scrape: what & 1 != 0, no_seed: false };
        if let Some(token) = self.asked(who, get_peers) {
            let (port, implied_port, seed) = (u16::from(what) + 1, what & 2 != 0, what & 4 != 0);
            self.asked(who, Method::AnnouncePeer { info_hash, port, implied_port, seed, token: &token });
        }
        let value = [b'i', b'1' + what % 9, b'e'];
        let target = Item::immutable(value.to_vec()).expect("canonical").target();
        if let Some(token) = self.asked(who, Method::Get { target, seq: None }) {
            self.asked(who, Method::Put { token: &token, item: PutItem { value: &value, signed: None } });
        }
    }

    /// The token of the answer to a stranger's question, if it gets one at once.
    fn asked(&mut self, who: u8, method: Method<'_>) -> Option<Vec<u8>> {
        let (from, before) = (self.who(who), self.out.datagrams.len());
        self.hear(from, &question(who, method));
        let (to, answer) = self.out.datagrams[before..].last()?;
        token(answer).filter(|_| *to == from)
    }

    /// All we sent and told, and what we hold.
    fn look(&mut self) {
        for (to, datagram) in &self.out.datagrams {
            assert!(datagram.len() <= 1_400 && Message::decode(datagram).is_ok() && to.port() != 0);
            assert_eq!(to.is_ipv6(), self.v6);
        }
        for news in self.out.news.drain(..) {
            if let News::PeersFound { peers, .. } = news {
                assert!(peers.len() <= 2_000);
            }
        }
        self.sent.extend(self.out.datagrams.drain(..));
        self.sent.drain(..self.sent.len().saturating_sub(MOST_SENT));
        let facts = self.dht.facts(self.now);
        let now = [facts.nodes, facts.torrents, facts.items, facts.lookups];
        self.most = std::array::from_fn(|at| self.most[at].max(now[at]));
        assert!(self.dht.heap_bytes() < MOST_BYTES, "{}", self.dht.heap_bytes());
    }
}

fn question(who: u8, method: Method<'_>) -> Vec<u8> {
    let body = Body::Query(Query { id: NodeId([who; 20]), want: Want::default(), method });
    Message { transaction: b"tt", version: None, ip: None, read_only: who & 1 != 0, body }.encode()
}

fn token(datagram: &[u8]) -> Option<Vec<u8>> {
    match Message::decode(datagram).ok()?.body {
        Body::Response(response) => response.token.map(<[u8]>::to_vec),
        _ => None,
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    // Nodes to begin with, which answer with others; then each kind of lookup, visits, and time.
    let nodes = |v6: bool| -> Vec<u8> {
        let node = |id: u8| match v6 {
            true => [&[id; 20][..], &[0x20, 1, 0x48, 0x60, 0, id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x1a, 0xe1]]
                .concat(),
            false => [&[id; 20][..], &[20 + id % 100, id, 1, 1, 0x1a, 0xe1]].concat(),
        };
        [40, 90, 150, 220].into_iter().flat_map(node).collect()
    };
    let answer = |v6: bool, which: u8| {
        let nodes = nodes(v6);
        [&[2, which, 0, 0x1f, nodes.len() as u8, 0][..], &nodes].concat()
    };
    let begin = [5, 1, 5, 2, 5, 130, 1, 5];
    let asks: Vec<u8> =
        [0, 1, 2, 3, 4, 5, 6, 7, 0x26, 0x6e].into_iter().flat_map(|what| [4, what, 77]).collect();
    let visits = [6, 40, 77, 6, 41, 77, 1, 5, 6, 40, 77, 6, 41, 9, 7, 1, 9, 7, 2, 9, 3, 0, 104];
    let ping = question(50, Method::Ping);
    let packet = [&[0, 50, ping.len() as u8, 0][..], &ping].concat();
    let life = |kind: u8| {
        let answers =
            |which: &[u8]| which.iter().flat_map(|which| answer(kind & 1 != 0, *which)).collect::<Vec<_>>();
        let (known, more) = (answers(&[0, 0, 0, 0, 0, 0]), answers(&[3, 1, 0, 0, 0, 0]));
        [&[kind][..], &begin, &known, &packet, &visits, &asks, &more, &[1, 5, 1, 255, 1, 255]].concat()
    };
    [0, 1, 2, 4].map(life).to_vec()
}
