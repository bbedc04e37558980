//! Streams over datagrams (BEP 29), which give way to other traffic.
//!
//! [`Utp`] owns all connections of one UDP port: their ids, their clock, who is ready to send, and what is answered to
//! strangers. It opens no socket and reads no clock. The caller passes in datagrams ([`Utp::on_datagram`]) and time
//! ([`Utp::heartbeat`], at the latest at [`Utp::next_due`]), then takes what is to be sent ([`Utp::poll_transmit`], until
//! there is nothing) and what happened ([`Utp::poll_event`]). To pass in a batch of datagrams before taking what is to be
//! sent saves acknowledgements: a connection sends one for all it heard.
//!
//! A [`UtpId`] is good from [`Utp::connect`] or [`Event::Accepted`] until [`Event::Closed`] or [`Utp::reset`]; afterwards
//! it names nothing, and every call with it does nothing.
//!
//! Strangers cost little. To a SYN one packet is answered, not larger than the SYN; a connection, and data, are for those
//! who then prove that they received it (`strangers`).
//!
//! The parts: `conn` what packets and time do to a connection, `packets` what it sends, `send` and `receive` the bytes of
//! either direction, `ledbat` how many are on their way, `delay` and `rtt` what is measured, `mtu` how large packets are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_wire::utp::{self as wire, UtpConnectionId, UtpKind, UtpPacket};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use thiserror::Error;

mod conn;
mod delay;
mod ledbat;
mod mtu;
mod packets;
mod receive;
mod rtt;
mod send;
mod slots;
mod strangers;

use conn::{Conn, Verdict};
use slots::Slots;
use strangers::{Answer, Strangers};

/// Packets of one direction that can be on their way or wait behind a gap: what a window of 4 MiB has at 576 bytes each.
const MOST_PACKETS: usize = 8192;

/// Packets by which an acknowledgement may be behind and its packet still be believed: what a fat path may have
/// reordered. Numbers begin at random, so that a stranger who knows a connection's id hits this range once in sixteen
/// times.
const BEHIND: u16 = 4096;

/// Packets of a batch: with what the system takes at once, and others' turn comes soon.
const MOST_SEGMENTS: usize = 40;

/// Draws of an id before an address counts as full: with so many connections to one address something is wrong.
const DRAWS: usize = 32;

/// Numbers that a user, or a test, may want to be others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Connections at once, those that linger for a last acknowledgement among them.
    pub most_conns: usize,
    /// SYNs that were answered and wait for proof; the oldest gives way.
    pub most_unconfirmed: usize,
    /// Bytes of the receive window at first, never more than `most_receive_window_bytes`.
    pub receive_window_bytes: usize,
    /// Bytes it grows to, for readers that are quick. A connection holds at most twice as many, and that only while a gap
    /// closes.
    pub most_receive_window_bytes: usize,
    /// Bytes of one connection that are written and have not arrived, at most; also the largest congestion window.
    pub send_buffer_bytes: usize,
    /// Bytes of the largest datagram over IPv4.
    pub most_packet_bytes_v4: usize,
    /// Bytes of the largest datagram over IPv6.
    pub most_packet_bytes_v6: usize,
    /// How long packets may wait in queues because of us. `Duration::MAX`: only losses hold us back, as they do TCP.
    pub target_delay: Duration,
    /// Timeouts in a row after which a peer is given up: eight take a little over a minute.
    pub most_timeouts: u32,
    /// Where each connection begins to number its packets, for tests of what happens when numbers wrap; `None`:
    /// anywhere, so that no stranger can guess.
    pub first_number: Option<u16>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            most_conns: 1000,
            most_unconfirmed: 64,
            receive_window_bytes: 1 << 20,
            most_receive_window_bytes: 4 << 20,
            send_buffer_bytes: 4 << 20,
            // Ethernet's 1500 less the headers of IP and UDP.
            most_packet_bytes_v4: 1472,
            most_packet_bytes_v6: 1452,
            target_delay: Duration::from_millis(100),
            most_timeouts: 8,
            first_number: None,
        }
    }
}

/// A connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UtpId {
    slot: u32,
    generation: u32,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A peer connected, and proved that it receives at this address.
    Accepted {
        /// The connection.
        id: UtpId,
        /// The peer.
        from: SocketAddr,
    },
    /// A peer answered to [`Utp::connect`].
    Connected {
        /// The connection.
        id: UtpId,
    },
    /// There are bytes to read. Not said again until some were consumed.
    Readable {
        /// The connection.
        id: UtpId,
    },
    /// There is room to write, after there was too little.
    Writable {
        /// The connection.
        id: UtpId,
    },
    /// The peer sends no more. All it sent is readable; what is written still reaches it.
    Ended {
        /// The connection.
        id: UtpId,
    },
    /// The connection is no more.
    Closed {
        /// The connection.
        id: UtpId,
        /// Why.
        why: Why,
    },
}

/// Why a connection is no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// We closed it, and all that was written arrived; or there was no answer yet.
    Done,
    /// The peer knows nothing of it, or wants nothing of it any more.
    Reset,
    /// The peer acknowledged nothing for a long time.
    Silent,
    /// The peer did not answer to the first packet.
    NoAnswer,
    /// The peer's system, or one on the way, said that nobody is there.
    Unreachable,
}

/// Why no connection is begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    /// There are as many as may be.
    #[error("too many uTP connections")]
    Full,
    /// Nothing can be sent there.
    #[error("not an address of a peer")]
    BadAddress,
}

/// Datagrams that are to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// If there are several: bytes of each but the last, which may be shorter.
    pub segment: Option<usize>,
    /// How many.
    pub packets: usize,
    /// They are larger than what is known to pass, and cannot be made smaller any more: routers should be allowed to
    /// fragment them.
    pub fragment: bool,
}

/// What is known of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// What packets to us bear, and what packets to the peer bear.
    pub ids: (UtpConnectionId, UtpConnectionId),
    /// Time there and back, smoothed.
    pub rtt: Duration,
    /// The shortest there was; zero before one was measured.
    pub least_rtt: Duration,
    /// How long packets of ours wait in queues.
    pub queuing_delay: Duration,
    /// Bytes that may be on their way.
    pub window: usize,
    /// Bytes the peer has room for.
    pub peer_window: usize,
    /// Bytes on their way.
    pub flying: usize,
    /// Bytes written that were never sent.
    pub unsent: usize,
    /// Bytes that can be read.
    pub unread: usize,
    /// Bytes of the largest datagram that is known to pass.
    pub packet_bytes: usize,
    /// Bytes we have room for.
    pub own_window: usize,
}

/// What happened so often since birth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Datagrams heard, of this protocol.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Datagrams sent.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Bytes of streams that came in order.
    pub payload_in: u64,
    /// Packets sent again.
    pub again_out: u64,
    /// Packets that came again.
    pub again_in: u64,
    /// Packets that came before others they are behind.
    pub early: u64,
    /// Packets there was no room for.
    pub no_room: u64,
    /// Times a window was made smaller because of losses.
    pub losses: u64,
    /// Times nothing came back.
    pub timeouts: u64,
    /// Packets whose numbers cannot be of their connection.
    pub disbelieved: u64,
    /// SYNs heard.
    pub syns_in: u64,
    /// SYNs that gave way to later ones before they were proved.
    pub evicted: u64,
    /// Connections that were not accepted because there were too many.
    pub full: u64,
    /// Resets sent.
    pub resets_out: u64,
    /// Resets believed.
    pub resets_in: u64,
}

/// All connections of one UDP port.
#[derive(Debug)]
pub struct Utp {
    settings: Settings,
    rng: ChaCha20Rng,
    conns: Slots,
    /// By what their packets bear; bounded by the connections.
    routes: BTreeMap<(SocketAddr, UtpConnectionId), u32>,
    /// The last of them that was looked up: packets come in batches.
    last_route: Option<((SocketAddr, UtpConnectionId), u32)>,
    strangers: Strangers,
    /// Deadlines, at most one of each connection.
    clock: BTreeSet<(Time, u32)>,
    /// Connections that may have something to send, each at most once.
    ready: VecDeque<u32>,
    /// At most one of each kind and connection, until the caller takes them.
    events: VecDeque<Event>,
    counters: Counters,
}

impl Utp {
    /// No connections yet. Ids and numbers are drawn from `seed`, which nobody else may know.
    pub fn new(settings: Settings, seed: [u8; 32]) -> Utp {
        Utp {
            settings,
            rng: ChaCha20Rng::from_seed(seed),
            conns: Slots::default(),
            routes: BTreeMap::new(),
            last_route: None,
            strangers: Strangers::new(settings.most_unconfirmed),
            clock: BTreeSet::new(),
            ready: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Whether a datagram is of this protocol, and none of the others that share its socket (BEP 5, BEP 15).
    pub fn looks_like_utp(bytes: &[u8]) -> bool {
        wire::looks_like_utp(bytes)
    }

    /// Asks a peer for a connection. Bytes can be written at once, they leave when it answered.
    ///
    /// # Errors
    /// If there are too many connections, or nothing can be sent to the address.
    pub fn connect(&mut self, to: SocketAddr) -> Result<UtpId, Refusal> {
        if to.port() == 0 || to.ip().is_unspecified() || to.ip().is_multicast() {
            return Err(Refusal::BadAddress);
        }
        if !self.make_room() {
            return Err(Refusal::Full);
        }
        let recv = (0..DRAWS).find_map(|_| {
            let recv = UtpConnectionId(self.rng.next_u32() as u16);
            (!self.routes.contains_key(&(to, recv)) && !self.strangers.knows(to, recv)).then_some(recv)
        });
        let recv = recv.ok_or(Refusal::Full)?;
        let seq = self.first_number();
        let settings = &self.settings;
        let slot = self.conns.insert(|id| Conn::asking(id, to, recv, seq, settings));
        self.routes.insert((to, recv), slot);
        self.touched(slot);
        let conn = self.conns.get(slot).expect("was put there");
        Ok(conn.id)
    }

    /// A datagram came. Tells whether it was of this protocol, whatever became of it.
    pub fn on_datagram(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) -> bool {
        let Ok(packet) = UtpPacket::decode(bytes) else { return false };
        self.counters.packets_in += 1;
        self.counters.bytes_in += bytes.len() as u64;
        let id = packet.header.connection;
        match packet.header.kind {
            UtpKind::Syn => self.on_syn(now, from, &packet),
            UtpKind::Reset => self.on_reset(from, &packet),
            _ => match self.route(from, id) {
                Some(slot) => self.on_packet(now, slot, &packet),
                None => self.on_stranger(now, from, &packet),
            },
        }
        true
    }

    /// The system says that nobody is at `to`: attempts to connect there end. Connections that stand go on, since such
    /// words are easily forged.
    pub fn on_unreachable(&mut self, to: SocketAddr) {
        for slot in self.slots_to(to) {
            if self.conns.get(slot).is_some_and(|conn| conn.stage != conn::Stage::Open) {
                self.remove(slot, Some(Why::Unreachable));
            }
        }
    }

    /// The system refused to send a datagram of `bytes` bytes to `to`: packets there are made smaller, and what was
    /// refused is sent again.
    pub fn on_too_big(&mut self, now: Time, to: SocketAddr, bytes: usize) {
        for slot in self.slots_to(to) {
            if let Some(conn) = self.conns.get(slot) {
                conn.too_big(now, bytes);
            }
            self.touched(slot);
        }
    }

    /// Takes of `bytes` what there is room for. If that is not all, [`Event::Writable`] follows when there is room again.
    pub fn write(&mut self, now: Time, id: UtpId, bytes: &[u8]) -> usize {
        let Some(conn) = self.conns.of(id) else { return 0 };
        let took = conn.write(now, bytes);
        if took > 0 {
            self.touched(id.slot);
        }
        took
    }

    /// Bytes that [`Utp::write`] would take now.
    pub fn room(&self, id: UtpId) -> usize {
        self.conns.look(id).map_or(0, Conn::room)
    }

    /// All that came in order and was not consumed.
    pub fn readable(&self, id: UtpId) -> &[u8] {
        self.conns.look(id).map_or(&[], |conn| conn.receiver.readable())
    }

    /// The first `bytes` of what is readable were taken: there is room for more.
    pub fn consumed(&mut self, now: Time, id: UtpId, bytes: usize) {
        let Some(conn) = self.conns.of(id) else { return };
        conn.consumed(now, bytes);
        conn.settle(now, &mut self.events);
        if conn.ack_at == Time::ZERO {
            self.touched(id.slot);
        }
    }

    /// Nothing more will be written. What was written still goes its way, and the peer is told that it was all. Reading
    /// goes on; [`Event::Closed`] follows when the peer has ended too and all is consumed.
    pub fn finish(&mut self, now: Time, id: UtpId) {
        let Some(conn) = self.conns.of(id) else { return };
        conn.finish(now);
        self.touched(id.slot);
    }

    /// Nothing more will be written or read. What was written still goes its way; then [`Event::Closed`] follows. What
    /// comes meanwhile is acknowledged and dropped.
    pub fn close(&mut self, now: Time, id: UtpId) {
        let Some(conn) = self.conns.of(id) else { return };
        if conn.stage == conn::Stage::Open {
            conn.close(now);
            conn.settle(now, &mut self.events);
            self.touched(id.slot);
        } else {
            self.remove(id.slot, Some(Why::Done));
        }
    }

    /// Ends a connection at once. The peer is told, no event follows.
    pub fn reset(&mut self, now: Time, id: UtpId) {
        let Some(conn) = self.conns.of(id) else { return };
        if conn.stage == conn::Stage::Open {
            let (to, bytes) = (conn.to, conn.reset(now));
            self.strangers.answer(Answer { to, bytes });
            self.counters.resets_out += 1;
        }
        self.remove(id.slot, None);
    }

    /// Puts into `buf`, which is cleared, datagrams that are to leave, all to one address. `None`: there are none now.
    pub fn poll_transmit(&mut self, now: Time, buf: &mut Vec<u8>) -> Option<Transmit> {
        buf.clear();
        if let Some(answer) = self.strangers.next_answer() {
            buf.extend_from_slice(&answer.bytes);
            self.counters.packets_out += 1;
            self.counters.bytes_out += answer.bytes.len() as u64;
            return Some(Transmit { to: answer.to, segment: None, packets: 1, fragment: false });
        }
        while let Some(slot) = self.ready.pop_front() {
            let Some(conn) = self.conns.get(slot) else { continue };
            let batch = conn.transmit(now, buf, &mut self.counters);
            conn.queued = batch.is_some();
            let to = conn.to;
            self.schedule(slot);
            if let Some(batch) = batch {
                // It may have more, after the others had their turn.
                self.ready.push_back(slot);
                let segment = (batch.packets > 1).then_some(batch.segment);
                return Some(Transmit { to, segment, packets: batch.packets, fragment: batch.fragment });
            }
        }
        None
    }

    /// What happened, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Utp::heartbeat`] has something to do; never, if there are no connections.
    pub fn next_due(&self) -> Time {
        self.clock.first().map_or(Time::NEVER, |(due, _)| *due)
    }

    /// Does what is due. Afterwards there may be something to send.
    pub fn heartbeat(&mut self, now: Time) {
        while let Some(&(due, slot)) = self.clock.first() {
            if due > now {
                break;
            }
            self.clock.pop_first();
            let Some(conn) = self.conns.get(slot) else { continue };
            conn.registered = Time::NEVER;
            if conn.due() > now {
                self.schedule(slot);
                continue;
            }
            let verdict = conn.on_timer(now, &mut self.counters);
            self.judge(slot, verdict);
        }
    }

    /// What is known of a connection.
    pub fn facts(&self, id: UtpId) -> Option<Facts> {
        self.conns.look(id).map(Conn::facts)
    }

    /// What happened so often since birth.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Connections there are, those that linger for a last acknowledgement among them.
    pub fn conns(&self) -> usize {
        self.conns.len()
    }

    /// Whether there can be one more connection, for which one that only lingers gives way.
    fn has_room(&self) -> bool {
        self.conns.len() < self.settings.most_conns || self.conns.lingering().is_some()
    }

    fn first_number(&mut self) -> wire::Seq {
        wire::Seq(self.settings.first_number.unwrap_or_else(|| self.rng.next_u32() as u16))
    }

    fn make_room(&mut self) -> bool {
        if self.conns.len() < self.settings.most_conns {
            return true;
        }
        let lingering = self.conns.lingering();
        if let Some(slot) = lingering {
            self.remove(slot, None);
        }
        lingering.is_some()
    }

    fn on_packet(&mut self, now: Time, slot: u32, packet: &UtpPacket) {
        let Some(conn) = self.conns.get(slot) else { return };
        let verdict = conn.on_packet(now, packet, &mut self.events, &mut self.counters);
        self.judge(slot, verdict);
    }

    fn judge(&mut self, slot: u32, verdict: Verdict) {
        match verdict {
            Verdict::Live => self.touched(slot),
            Verdict::Over(why) => self.remove(slot, why),
        }
    }

    /// The connection may have something to send, or another deadline.
    fn touched(&mut self, slot: u32) {
        let Some(conn) = self.conns.get(slot) else { return };
        if !conn.queued {
            conn.queued = true;
            self.ready.push_back(slot);
        }
        self.schedule(slot);
    }

    /// Deadlines that move away stay where they are, and are looked at again when they come: so a packet costs no change
    /// of the clock.
    fn schedule(&mut self, slot: u32) {
        let Some(conn) = self.conns.get(slot) else { return };
        let due = conn.due();
        if due < conn.registered {
            if conn.registered != Time::NEVER {
                self.clock.remove(&(conn.registered, slot));
            }
            conn.registered = due;
            self.clock.insert((due, slot));
        }
    }

    fn remove(&mut self, slot: u32, why: Option<Why>) {
        let Some(conn) = self.conns.remove(slot) else { return };
        self.routes.remove(&(conn.to, conn.recv));
        self.last_route = None;
        if conn.registered != Time::NEVER {
            self.clock.remove(&(conn.registered, slot));
        }
        if conn.queued {
            self.ready.retain(|ready| *ready != slot);
        }
        if let Some(why) = why {
            self.events.push_back(Event::Closed { id: conn.id, why });
        }
    }

    fn route(&mut self, from: SocketAddr, id: UtpConnectionId) -> Option<u32> {
        let key = (from, id);
        if let Some((last, slot)) = self.last_route
            && last == key
        {
            return Some(slot);
        }
        let slot = *self.routes.get(&key)?;
        self.last_route = Some((key, slot));
        Some(slot)
    }

    fn slots_to(&self, to: SocketAddr) -> Vec<u32> {
        let all = (to, UtpConnectionId(0))..=(to, UtpConnectionId(u16::MAX));
        self.routes.range(all).map(|(_, slot)| *slot).collect()
    }
}

#[cfg(test)]
mod tests;
