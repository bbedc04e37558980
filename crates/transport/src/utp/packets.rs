//! What a connection sends next, and the bytes of it.
//!
//! Owns the order: a SYN, an acknowledgement that tells of a gap, what was lost, what is new, and an acknowledgement
//! alone if nothing else carried it. Packets of one size leave together, so that the system can be handed many at once.

use piecemeal_metainfo::Time;
use piecemeal_wire::utp::{
    EXTENSION_BITS, HEADER_BYTES, LEAST_PADDING_BYTES, SACK, Seq, UtpConnectionId, UtpHeader, UtpKind,
    encode_padding,
};

use super::conn::{Conn, Fin, Stage, micros};
use super::send::Outgoing;
use super::{Counters, MOST_SEGMENTS};

/// Bytes of the largest batch: what the system takes at once.
const MOST_BATCH_BYTES: usize = 60_000;

/// Sendings of a large packet, all lost, after which packets are believed to be too large.
const SWALLOWED_TIMES: u8 = 4;

/// Packets that leave together: all of one size, but the last may be shorter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Batch {
    pub segment: usize,
    pub packets: usize,
    /// Larger than what is known to pass.
    pub fragment: bool,
    bytes: usize,
    last: usize,
}

impl Batch {
    fn takes(&self, size: usize, fragment: bool) -> bool {
        self.packets == 0
            || (self.packets < MOST_SEGMENTS
                && self.last == self.segment
                && size <= self.segment
                && fragment == self.fragment
                && self.bytes + size <= MOST_BATCH_BYTES)
    }

    fn add(&mut self, size: usize, fragment: bool) {
        if self.packets == 0 {
            (self.segment, self.fragment) = (size, fragment);
        }
        self.packets += 1;
        self.bytes += size;
        self.last = size;
    }
}

#[derive(Clone, Copy, Debug)]
enum Plan {
    Again(Outgoing),
    New { len: usize, fin: bool, probe: Option<usize> },
}

impl Plan {
    fn size(&self) -> usize {
        match *self {
            Plan::Again(outgoing) => HEADER_BYTES + outgoing.len,
            Plan::New { probe: Some(size), .. } => size,
            Plan::New { len, .. } => HEADER_BYTES + len,
        }
    }
}

impl Conn {
    /// Fills `buf` with what may leave now.
    pub fn transmit(&mut self, now: Time, buf: &mut Vec<u8>, counters: &mut Counters) -> Option<Batch> {
        let mut batch = Batch::default();
        if let Stage::Asking { due, seq, .. } = self.stage {
            if due {
                let header = self.header(now, UtpKind::Syn, seq);
                buf.extend(UtpHeader { connection: self.recv, ack: Seq(0), ..header }.encode(0));
                batch.add(HEADER_BYTES, false);
                self.asked(now);
            }
        } else if self.ack_at == Time::ZERO && self.receiver.has_gap() {
            batch.add(self.write_state(now, buf), false);
        } else {
            self.write_packets(now, buf, &mut batch, counters);
            if batch.packets == 0 && self.ack_at <= now {
                batch.add(self.write_state(now, buf), false);
            }
        }
        if batch.packets == 0 {
            return None;
        }
        self.last_sent = now;
        counters.packets_out += batch.packets as u64;
        counters.bytes_out += batch.bytes as u64;
        Some(batch)
    }

    fn write_packets(&mut self, now: Time, buf: &mut Vec<u8>, batch: &mut Batch, counters: &mut Counters) {
        if self.sender.span() == 0 && now.since(self.last_sent) > self.rtt.timeout(0) {
            self.ledbat.idled();
        }
        while let Some(plan) = self.plan(now) {
            let size = plan.size();
            let probe = matches!(plan, Plan::New { probe: Some(_), .. });
            let fragment = size > self.mtu.size() && !probe;
            if !batch.takes(size, fragment) || (probe && batch.packets > 0) {
                break;
            }
            batch.add(size, fragment);
            self.write_packet(now, plan, buf, counters);
            if probe {
                break;
            }
        }
        if batch.packets > 0 {
            self.arm(now);
        }
    }

    /// The next packet that may leave.
    fn plan(&mut self, now: Time) -> Option<Plan> {
        if let Some(lost) = self.sender.first_lost() {
            let size = HEADER_BYTES + lost.len;
            if lost.times >= SWALLOWED_TIMES && self.mtu.is_large(size) && size <= self.mtu.size() {
                self.mtu.swallowed(now);
            }
            return self.may_leave(now, lost.len).then_some(Plan::Again(lost));
        }
        if std::mem::take(&mut self.tail_due)
            && let Some(last) = self.sender.last_flying()
        {
            return Some(Plan::Again(last));
        }
        let unsent = self.sender.unsent();
        if unsent == 0 {
            return (self.fin == Fin::Wanted).then_some(Plan::New { len: 0, fin: true, probe: None });
        }
        if self.sender.span() >= self.most_span() {
            return None;
        }
        let full = self.payload_bytes();
        let mut len = unsent.min(full);
        if self.sender.nothing_flies() && self.peer_window > 0 {
            // A window smaller than a packet is used as it is, but not while others are on their way.
            len = len.min(self.peer_window);
        }
        if !self.may_leave(now, len) {
            return None;
        }
        let probe = if len == full { self.mtu.probe(now) } else { None };
        let probe = probe.filter(|size| *size >= HEADER_BYTES + len + LEAST_PADDING_BYTES);
        Some(Plan::New { len, fin: false, probe })
    }

    fn may_leave(&mut self, now: Time, len: usize) -> bool {
        let flying = self.sender.flying();
        if self.force {
            return true;
        }
        if flying + len > self.peer_window {
            return false;
        }
        if flying + len > self.ledbat.window() && !self.sender.nothing_flies() {
            self.ledbat.full(now);
            return false;
        }
        true
    }

    fn write_packet(&mut self, now: Time, plan: Plan, buf: &mut Vec<u8>, counters: &mut Counters) {
        let (outgoing, probe) = match plan {
            Plan::Again(outgoing) => (outgoing, None),
            Plan::New { len, fin, probe } => (self.sender.cut(len, fin), probe),
        };
        self.force = false;
        counters.again_out += u64::from(outgoing.times > 0);
        if outgoing.fin {
            self.fin = Fin::Sent;
        }
        let kind = if outgoing.fin { UtpKind::Fin } else { UtpKind::Data };
        buf.extend_from_slice(&self.header(now, kind, outgoing.seq).encode(if probe.is_some() {
            EXTENSION_BITS
        } else {
            0
        }));
        if let Some(size) = probe {
            encode_padding(size - HEADER_BYTES - outgoing.len, buf);
            self.mtu.sent(size);
        }
        self.sender.payload(outgoing, buf);
        self.sender.sent(now, outgoing, probe.is_some());
        // It says what an acknowledgement alone would, but for gaps.
        if !self.receiver.has_gap() {
            (self.ack_at, self.unacked) = (Time::NEVER, 0);
        }
    }

    /// An acknowledgement alone; tells its size.
    fn write_state(&mut self, now: Time, buf: &mut Vec<u8>) -> usize {
        let (start, gap) = (buf.len(), self.receiver.has_gap());
        let header = self.header(now, UtpKind::State, self.sender.next_seq());
        buf.extend_from_slice(&header.encode(if gap { SACK } else { 0 }));
        if gap {
            self.receiver.encode_sack(buf);
        }
        (self.ack_at, self.unacked) = (Time::NEVER, 0);
        buf.len() - start
    }

    /// A reset, for a connection that is dropped.
    pub fn reset(&mut self, now: Time) -> [u8; HEADER_BYTES] {
        self.header(now, UtpKind::Reset, self.sender.next_seq()).encode(0)
    }

    fn header(&mut self, now: Time, kind: UtpKind, seq: Seq) -> UtpHeader {
        self.advertised = self.receiver.window();
        UtpHeader {
            kind,
            connection: self.send,
            timestamp: micros(now),
            timestamp_difference: self.difference,
            window: u32::try_from(self.advertised).unwrap_or(u32::MAX),
            seq,
            ack: self.receiver.ack(),
        }
    }
}

/// A packet for whoever has no connection.
pub(super) fn lone(
    now: Time,
    kind: UtpKind,
    to: UtpConnectionId,
    (seq, ack): (Seq, Seq),
    (difference, window): (u32, usize),
) -> [u8; HEADER_BYTES] {
    UtpHeader {
        kind,
        connection: to,
        timestamp: micros(now),
        timestamp_difference: difference,
        window: u32::try_from(window).unwrap_or(u32::MAX),
        seq,
        ack,
    }
    .encode(0)
}
