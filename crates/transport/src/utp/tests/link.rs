//! Two stacks, joined by a path with a bandwidth, a queue and faults; and a TCP-like stranger on the same path.

use std::collections::{BTreeMap, VecDeque};

use super::*;

pub const MILLI: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MILLI;

/// A path in one direction.
#[derive(Clone, Debug)]
pub struct Path {
    /// Bytes a second.
    pub rate: u64,
    /// Bytes that may wait; more are dropped.
    pub queue: u64,
    pub delay: u64,
    pub jitter: u64,
    /// Of a thousand datagrams.
    pub lost: u32,
    pub doubled: u32,
    /// Held back so long that others pass.
    pub late: u32,
    /// Larger datagrams vanish, unless they may be fragmented.
    pub mtu: usize,
    pub busy_until: u64,
}

impl Default for Path {
    fn default() -> Path {
        Path {
            rate: 10_000_000,
            queue: 500_000,
            delay: 25 * MILLI,
            jitter: 0,
            lost: 0,
            doubled: 0,
            late: 0,
            mtu: 1472,
            busy_until: 0,
        }
    }
}

impl Path {
    /// When a datagram arrives, if it does. Each has 28 bytes of headers.
    fn carry(&mut self, now: u64, bytes: usize, rng: &mut ChaCha20Rng) -> Option<u64> {
        let start = self.busy_until.max(now);
        let bytes = bytes as u64 + 28;
        if (start - now) * self.rate / SECOND + bytes > self.queue {
            return None;
        }
        self.busy_until = start + bytes * SECOND / self.rate;
        let mut arrives = self.busy_until + self.delay;
        if self.jitter > 0 {
            arrives += (u64::from(rng.next_u32()) * self.jitter) >> 32;
        }
        if one_in(rng, self.late) {
            arrives += self.delay / 2 + 5 * MILLI;
        }
        (!one_in(rng, self.lost)).then_some(arrives)
    }
}

fn one_in(rng: &mut ChaCha20Rng, of_thousand: u32) -> bool {
    of_thousand > 0 && rng.next_u32() % 1000 < of_thousand
}

/// A clock of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    pub ahead: u64,
    /// Millionths by which it is fast.
    pub fast: i64,
}

impl Clock {
    fn at(self, now: u64) -> Time {
        let drift = i128::from(now) * i128::from(self.fast) / 1_000_000;
        Time::from_nanos((i128::from(now) + drift) as u64 + self.ahead)
    }

    fn when(self, time: Time) -> u64 {
        if time == Time::NEVER {
            return u64::MAX;
        }
        let local = i128::from(time.nanos().saturating_sub(self.ahead));
        (local * 1_000_000 / i128::from(1_000_000 + self.fast)) as u64 + 2
    }
}

/// One end and its user: a stream to send, and what came.
pub struct End {
    pub utp: Utp,
    pub clock: Clock,
    pub id: Option<UtpId>,
    pub addr: SocketAddr,
    /// Bytes to send in all, and sent.
    pub to_send: u64,
    pub sent: u64,
    /// Bytes read, each compared.
    pub read: u64,
    /// Bytes it reads at once, and how often; `None`: all at once.
    pub reader: Option<(usize, u64)>,
    next_read: u64,
    pub close_when_sent: bool,
    pub events: Vec<Event>,
    pub closed: Option<Why>,
    pub ended: bool,
    /// Datagrams and bytes that left.
    pub packets: u64,
    pub bytes: u64,
    /// Those it sent with leave to fragment.
    pub fragmented: u64,
}

/// What every stream consists of.
const PATTERN: usize = 65_521;

pub fn pattern() -> Vec<u8> {
    let mut rng = ChaCha20Rng::seed_from_u64(99);
    (0..PATTERN + 70_000).map(|_| rng.next_u32() as u8).collect::<Vec<u8>>().iter().enumerate().fold(
        Vec::new(),
        |mut all: Vec<u8>, (at, byte)| {
            let byte = if at < PATTERN { *byte } else { all[at - PATTERN] };
            all.push(byte);
            all
        },
    )
}

impl End {
    fn new(settings: Settings, seed: u8, addr: &str) -> End {
        End {
            utp: Utp::new(settings, [seed; 32]),
            clock: Clock::default(),
            id: None,
            addr: addr.parse().expect("an address"),
            to_send: 0,
            sent: 0,
            read: 0,
            reader: None,
            next_read: 0,
            close_when_sent: false,
            events: Vec::new(),
            closed: None,
            ended: false,
            packets: 0,
            bytes: 0,
            fragmented: 0,
        }
    }

    pub fn facts(&self) -> Facts {
        self.utp.facts(self.id.expect("is connected")).expect("is there")
    }

    pub fn use_it(&mut self, now: u64, pattern: &[u8]) {
        let time = self.clock.at(now);
        while let Some(event) = self.utp.poll_event() {
            self.events.push(event);
            match event {
                Event::Accepted { id, .. } => self.id = Some(id),
                Event::Ended { .. } => self.ended = true,
                Event::Closed { why, .. } => self.closed = Some(why),
                _ => {}
            }
        }
        let Some(id) = self.id else { return };
        while self.sent < self.to_send {
            let at = (self.sent % PATTERN as u64) as usize;
            let most = (self.to_send - self.sent).min(65_536) as usize;
            let took = self.utp.write(time, id, &pattern[at..at + most]);
            if took == 0 {
                break;
            }
            self.sent += took as u64;
        }
        if now >= self.next_read {
            self.read_it(time, id, pattern);
            if let Some((_, every)) = self.reader {
                self.next_read = now + every;
            }
        }
        if self.close_when_sent && self.sent == self.to_send {
            self.close_when_sent = false;
            self.utp.finish(time, id);
        }
    }

    fn read_it(&mut self, time: Time, id: UtpId, pattern: &[u8]) {
        let most = self.reader.map_or(usize::MAX, |reader| reader.0);
        let mut left = self.utp.readable(id).len().min(most);
        while left > 0 {
            let at = (self.read % PATTERN as u64) as usize;
            let readable = &self.utp.readable(id)[..left.min(65_536)];
            let len = readable.len();
            assert!(readable == &pattern[at..at + len], "the stream is broken at {}", self.read);
            self.utp.consumed(time, id, len);
            self.read += len as u64;
            left -= len;
        }
    }
}

/// A sender that halves at a loss and grows by a packet otherwise, as TCP Reno does; packets of 1472 bytes.
#[derive(Default)]
pub struct Reno {
    window: f64,
    threshold: f64,
    next: u64,
    recover: u64,
    flying: BTreeMap<u64, u64>,
    last_heard: u64,
    pub delivered: u64,
}

impl Reno {
    pub fn new() -> Reno {
        Reno { window: 10.0, threshold: f64::INFINITY, ..Reno::default() }
    }

    fn acknowledged(&mut self, now: u64, number: u64) {
        self.last_heard = now;
        self.delivered += 1;
        if self.flying.remove(&number).is_some() {
            self.window += if self.window < self.threshold { 1.0 } else { 1.0 / self.window };
        }
        let lost: Vec<u64> =
            self.flying.range(..number.saturating_sub(3)).map(|(number, _)| *number).collect();
        for lost in lost {
            self.flying.remove(&lost);
            if lost >= self.recover {
                self.window = (self.window / 2.0).max(2.0);
                (self.threshold, self.recover) = (self.window, self.next);
            }
        }
    }
}

enum Arrival {
    Datagram { to: usize, bytes: Vec<u8> },
    Tcp(u64),
    TcpAck(u64),
}

pub struct World {
    pub now: u64,
    pub ends: [End; 2],
    /// From the first end to the second, and back.
    pub paths: [Path; 2],
    pub reno: Option<Reno>,
    pub rng: ChaCha20Rng,
    arrivals: BTreeMap<(u64, u64), Arrival>,
    order: u64,
    pattern: Vec<u8>,
    buf: Vec<u8>,
}

impl World {
    pub fn new(path: Path, seed: u64) -> World {
        World::with(Settings::default(), path, seed)
    }

    pub fn with(settings: Settings, path: Path, seed: u64) -> World {
        let byte = seed as u8;
        World {
            now: 0,
            ends: [
                End::new(settings, byte.wrapping_mul(2), "192.0.2.1:1000"),
                End::new(settings, byte.wrapping_mul(2).wrapping_add(1), "192.0.2.2:2000"),
            ],
            paths: [path.clone(), path],
            reno: None,
            rng: ChaCha20Rng::seed_from_u64(seed),
            arrivals: BTreeMap::new(),
            order: 0,
            pattern: pattern(),
            buf: Vec::new(),
        }
    }

    /// The first end asks the second.
    pub fn connect(&mut self) {
        let to = self.ends[1].addr;
        self.ends[0].id = Some(self.ends[0].utp.connect(to).expect("there is room"));
    }

    /// Until `done`, or `until`. Tells whether it was done.
    pub fn run(&mut self, until: u64, mut done: impl FnMut(&World) -> bool) -> bool {
        for turn in 0.. {
            assert!(turn < 5_000_000, "turns without end at {} ms: {:#?}", self.now / MILLI, said(self));
            self.step();
            if done(self) {
                return true;
            }
            let next = self.next();
            if next >= until {
                self.now = self.now.max(until);
                return false;
            }
            self.now = next.max(self.now);
        }
        unreachable!("the loop has no end")
    }

    fn step(&mut self) {
        while let Some(entry) = self.arrivals.first_entry().filter(|entry| entry.key().0 <= self.now) {
            match entry.remove() {
                Arrival::Datagram { to, bytes } => {
                    let from = self.ends[1 - to].addr;
                    let time = self.ends[to].clock.at(self.now);
                    assert!(self.ends[to].utp.on_datagram(time, from, &bytes));
                }
                Arrival::Tcp(number) => {
                    let arrives = self.now + self.paths[1].delay;
                    self.push(arrives, Arrival::TcpAck(number));
                }
                Arrival::TcpAck(number) => {
                    if let Some(reno) = &mut self.reno {
                        reno.acknowledged(self.now, number);
                    }
                }
            }
        }
        self.tcp();
        for at in 0..2 {
            let end = &mut self.ends[at];
            let time = end.clock.at(self.now);
            if end.utp.next_due() <= time {
                end.utp.heartbeat(time);
            }
            end.use_it(self.now, &self.pattern);
            self.send(at);
        }
    }

    fn send(&mut self, at: usize) {
        let mut buf = std::mem::take(&mut self.buf);
        let time = self.ends[at].clock.at(self.now);
        while let Some(transmit) = self.ends[at].utp.poll_transmit(time, &mut buf) {
            let datagrams: Vec<Vec<u8>> =
                buf.chunks(transmit.segment.unwrap_or(buf.len())).map(<[u8]>::to_vec).collect();
            assert_eq!(datagrams.len(), transmit.packets);
            for bytes in datagrams {
                self.ends[at].packets += 1;
                self.ends[at].bytes += bytes.len() as u64;
                self.ends[at].fragmented += u64::from(transmit.fragment);
                if transmit.to == self.ends[1 - at].addr {
                    self.carry(at, bytes, transmit.fragment);
                }
            }
        }
        self.buf = buf;
    }

    fn carry(&mut self, at: usize, bytes: Vec<u8>, fragment: bool) {
        if bytes.len() > self.paths[at].mtu && !fragment {
            return;
        }
        let copies = 1 + u32::from(one_in(&mut self.rng, self.paths[at].doubled));
        for _ in 0..copies {
            if let Some(arrives) = self.paths[at].carry(self.now, bytes.len(), &mut self.rng) {
                self.push(arrives, Arrival::Datagram { to: 1 - at, bytes: bytes.clone() });
            }
        }
    }

    fn tcp(&mut self) {
        let Some(mut reno) = self.reno.take() else { return };
        if self.now > reno.last_heard + SECOND {
            reno.flying.clear();
            (reno.window, reno.threshold, reno.last_heard) = (1.0, reno.window / 2.0, self.now);
        }
        while (reno.flying.len() as f64) < reno.window {
            let number = reno.next;
            reno.next += 1;
            reno.flying.insert(number, self.now);
            if let Some(arrives) = self.paths[0].carry(self.now, 1472, &mut self.rng) {
                self.push(arrives, Arrival::Tcp(number));
            }
        }
        self.reno = Some(reno);
    }

    fn push(&mut self, at: u64, arrival: Arrival) {
        self.order += 1;
        self.arrivals.insert((at, self.order), arrival);
    }

    fn next(&self) -> u64 {
        let mut next = self.arrivals.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
        for end in &self.ends {
            next = next.min(end.clock.when(end.utp.next_due()));
            if end.reader.is_some() && end.id.is_some_and(|id| !end.utp.readable(id).is_empty()) {
                next = next.min(end.next_read);
            }
        }
        if let Some(reno) = &self.reno {
            next = next.min(reno.last_heard + SECOND + 1);
        }
        next.max(self.now + 1)
    }
}

/// What both ends said, for messages of tests.
pub fn said(world: &World) -> VecDeque<String> {
    world.ends.iter().map(|end| format!("{:?} {:?}", end.closed, end.utp.counters())).collect()
}
