//! What was written and has not arrived yet.
//!
//! Owns the bytes, how they were cut into packets, and which packets are on their way, arrived or lost. Bytes lie in one
//! ring, packets are marks in it; a packet costs no allocation. How much may be on its way is `ledbat`'s, what the packets
//! look like is the connection's.
//!
//! A packet is lost when three that were sent after it have arrived (BEP 29), or when three acknowledgements in a row
//! ask for it. What was sent again counts anew from there: each sending has a number of its own. When nothing came back in
//! time all are taken for lost; if then a first sending arrives, they were late only (as RFC 5682 finds out), and fly again.

use std::collections::VecDeque;
use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_wire::utp::{Sack, Seq};

use super::BEHIND;

/// Later packets that must have arrived before one counts as lost (BEP 29).
const OVERTAKEN_BY: usize = 3;

/// Acknowledgements alone that ask for the same packet, before it counts as lost (BEP 29).
const ASKED_FOR: u8 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Flying,
    Lost,
    Arrived,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    /// Where it begins, in bytes since the stream began.
    start: u64,
    sent: Time,
    /// The number of its last sending.
    sending: u64,
    len: u16,
    times: u8,
    fate: Fate,
    probe: bool,
    fin: bool,
}

#[derive(Debug)]
pub(super) struct Sender {
    /// From the first byte that has not arrived; bounded by who writes.
    bytes: VecDeque<u8>,
    /// Where `bytes` begins, in bytes since the stream began.
    start: u64,
    /// Those from the first that has not arrived; bounded by [`super::MOST_PACKETS`].
    packets: VecDeque<Packet>,
    /// The number of the first of them, or of the next if there are none.
    first: Seq,
    unsent: usize,
    flying: usize,
    flying_packets: usize,
    lost: usize,
    /// No packet before this index is lost.
    lost_from: usize,
    /// Packets before this index may have been overtaken.
    overtaken_to: usize,
    sendings: u64,
    /// The highest numbers of sendings that arrived, falling; counted from 1.
    arrived: [u64; OVERTAKEN_BY],
    /// Losses of sendings before this number were answered for.
    answered: u64,
    asked: u8,
    /// Nothing came back in time, and it is not known yet whether all was lost or late.
    doubted: bool,
}

/// What an acknowledgement changed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrived {
    pub bytes: usize,
    pub packets: usize,
    /// Time there and back of the last packet that was sent once.
    pub rtt: Option<Duration>,
    /// A packet was lost that makes the window smaller.
    pub congested: bool,
    /// What became of the probe.
    pub probe: Option<bool>,
    /// What was taken for lost, because nothing came back in time, was late only.
    pub late: bool,
}

/// A packet to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing {
    pub seq: Seq,
    pub len: usize,
    pub fin: bool,
    pub times: u8,
    start: u64,
}

impl Sender {
    pub fn new(first: Seq) -> Sender {
        Sender {
            bytes: VecDeque::new(),
            start: 0,
            packets: VecDeque::new(),
            first,
            unsent: 0,
            flying: 0,
            flying_packets: 0,
            lost: 0,
            lost_from: 0,
            overtaken_to: 0,
            sendings: 0,
            arrived: [0; OVERTAKEN_BY],
            answered: 0,
            asked: 0,
            doubted: false,
        }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.unsent += bytes.len();
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes never sent.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Bytes on their way.
    pub fn flying(&self) -> usize {
        self.flying
    }

    pub fn nothing_flies(&self) -> bool {
        self.flying_packets == 0
    }

    /// Packets between the first that has not arrived and the last that was sent.
    pub fn span(&self) -> usize {
        self.packets.len()
    }

    pub fn all_arrived(&self) -> bool {
        self.packets.is_empty() && self.unsent == 0
    }

    /// The number of the next packet.
    pub fn next_seq(&self) -> Seq {
        self.first.plus(self.packets.len() as u16)
    }

    /// How many packets an acknowledgement is ahead; `None` if it cannot be of this connection.
    pub fn ahead(&self, ack: Seq) -> Option<usize> {
        let ahead = usize::from(ack.plus(1).steps_from(self.first));
        if ahead <= self.packets.len() {
            return Some(ahead);
        }
        (self.first.steps_from(ack.plus(1)) <= BEHIND).then_some(0)
    }

    /// Whether an acknowledgement is at least as new as the last.
    pub fn is_current(&self, ack: Seq, ahead: usize) -> bool {
        ahead > 0 || ack.plus(1) == self.first
    }

    /// Whether a reset answers something that was sent: it repeats the number of what it answers, which may be the
    /// next where that was an acknowledgement.
    pub fn could_reset(&self, ack: Seq) -> bool {
        self.ahead(ack.minus(1)).is_some() || self.ahead(ack).is_some()
    }

    /// An acknowledgement that is believed, `ahead` packets ahead. `bare`: it came alone, with the window that is
    /// known.
    pub fn acknowledged(
        &mut self,
        now: Time,
        (ack, ahead): (Seq, usize),
        sack: Option<Sack>,
        bare: bool,
        least_rtt: Duration,
    ) -> Arrived {
        let mut arrived = Arrived::default();
        let mut newest: Option<Packet> = None;
        for at in 0..ahead {
            self.packet_arrived(at, &mut arrived, &mut newest, (now, least_rtt));
        }
        self.forget(ahead);
        if ahead > 0 {
            self.asked = 0;
        }
        let mut beyond = None;
        for bit in sack.iter().flat_map(|sack| sack.set_bits()) {
            let at = usize::from(ack.plus(2).plus(bit).steps_from(self.first));
            // Bits outside of what was sent are ignored (BEP 29), and so is one for the first packet: it is missing, or
            // it would have been acknowledged.
            if at > 0 && at < self.packets.len() {
                self.packet_arrived(at, &mut arrived, &mut newest, (now, least_rtt));
                beyond = Some(at);
            }
        }
        self.overtaken_to = self.overtaken_to.max(beyond.unwrap_or(0));
        arrived.rtt = newest.filter(|packet| packet.times == 1).map(|packet| now.since(packet.sent));
        if bare && ahead == 0 && sack.is_none() && ack.plus(1) == self.first {
            self.asked_again(&mut arrived);
        }
        if arrived.late {
            self.fly_again();
        }
        self.doubted &= self.lost > 0;
        self.find_lost(&mut arrived);
        arrived
    }

    fn packet_arrived(
        &mut self,
        at: usize,
        arrived: &mut Arrived,
        newest: &mut Option<Packet>,
        (now, least_rtt): (Time, Duration),
    ) {
        let packet = &mut self.packets[at];
        match packet.fate {
            Fate::Arrived => return,
            Fate::Flying => {
                self.flying -= usize::from(packet.len);
                self.flying_packets -= 1;
            }
            Fate::Lost => {
                self.lost -= 1;
                arrived.late |= self.doubted;
            }
        }
        packet.fate = Fate::Arrived;
        arrived.bytes += usize::from(packet.len);
        arrived.packets += 1;
        if packet.probe {
            packet.probe = false;
            arrived.probe = Some(true);
        }
        let packet = *packet;
        // Of a packet that was sent again it may be the first sending that arrived: then nothing was overtaken.
        if packet.times > 1 && now.since(packet.sent) < least_rtt {
            arrived.late |= self.doubted;
            return;
        }
        if newest.is_none_or(|newest| newest.sending < packet.sending) {
            *newest = Some(packet);
        }
        for place in 0..OVERTAKEN_BY {
            if packet.sending > self.arrived[place] {
                self.arrived[place..].rotate_right(1);
                self.arrived[place] = packet.sending;
                break;
            }
        }
    }

    fn forget(&mut self, packets: usize) {
        let Some(last) = packets.checked_sub(1).map(|last| self.packets[last]) else { return };
        let bytes = (last.start + u64::from(last.len) - self.start) as usize;
        self.bytes.drain(..bytes);
        self.start += bytes as u64;
        self.packets.drain(..packets);
        self.first = self.first.plus(packets as u16);
        self.lost_from = self.lost_from.saturating_sub(packets);
        self.overtaken_to = self.overtaken_to.saturating_sub(packets);
    }

    /// For peers that do not acknowledge selectively.
    fn asked_again(&mut self, arrived: &mut Arrived) {
        let Some(first) = self.packets.front() else { return };
        self.asked = self.asked.saturating_add(1);
        if self.asked == ASKED_FOR && first.fate == Fate::Flying && first.times == 1 {
            self.lose(0, arrived);
        }
    }

    fn find_lost(&mut self, arrived: &mut Arrived) {
        // Where fewer are behind and nothing follows, three could never come: all of them are enough (RFC 5827).
        let behind =
            if self.unsent == 0 { self.packets.len().saturating_sub(1).max(1) } else { OVERTAKEN_BY };
        let newer = self.arrived[OVERTAKEN_BY.min(behind) - 1];
        for at in 0..self.overtaken_to.min(self.packets.len()) {
            let packet = &self.packets[at];
            if packet.fate == Fate::Flying && packet.sending < newer {
                self.lose(at, arrived);
            }
        }
    }

    fn lose(&mut self, at: usize, arrived: &mut Arrived) {
        let packet = &mut self.packets[at];
        packet.fate = Fate::Lost;
        self.flying -= usize::from(packet.len);
        self.flying_packets -= 1;
        self.lost += 1;
        self.lost_from = self.lost_from.min(at);
        if packet.probe {
            packet.probe = false;
            arrived.probe = Some(false);
        } else if packet.sending > self.answered {
            self.answered = self.sendings;
            arrived.congested = true;
        }
    }

    /// What was taken for lost is on its way. Those among it that were overtaken are found out as ever.
    fn fly_again(&mut self) {
        self.doubted = false;
        for packet in self.packets.iter_mut().filter(|packet| packet.fate == Fate::Lost && packet.times > 0) {
            packet.fate = Fate::Flying;
            self.lost -= 1;
            self.flying += usize::from(packet.len);
            self.flying_packets += 1;
        }
    }

    /// Nothing came back in time: all that is on its way is taken for lost.
    pub fn timed_out(&mut self) -> Arrived {
        let mut arrived = Arrived::default();
        self.doubted = true;
        for at in 0..self.packets.len() {
            if self.packets[at].fate == Fate::Flying {
                self.lose(at, &mut arrived);
            }
        }
        arrived
    }

    /// Packets of more than `payload` bytes cannot have arrived.
    pub fn too_big(&mut self, payload: usize) -> Arrived {
        let mut arrived = Arrived::default();
        for at in 0..self.packets.len() {
            let packet = self.packets[at];
            if packet.fate == Fate::Flying && (packet.probe || usize::from(packet.len) > payload) {
                self.lose(at, &mut arrived);
            }
        }
        arrived.congested = false;
        arrived
    }

    /// The packet that is lost and comes first.
    pub fn first_lost(&mut self) -> Option<Outgoing> {
        if self.lost == 0 {
            return None;
        }
        while self.packets.get(self.lost_from)?.fate != Fate::Lost {
            self.lost_from += 1;
        }
        Some(self.outgoing(self.lost_from))
    }

    /// The first packet, however it fares: to ask a peer whose window is closed.
    pub fn first(&self) -> Option<Outgoing> {
        (!self.packets.is_empty()).then(|| self.outgoing(0))
    }

    /// The last packet that was sent, if it is on its way.
    pub fn last_flying(&self) -> Option<Outgoing> {
        let last = self.packets.back()?;
        (last.fate == Fate::Flying).then(|| self.outgoing(self.packets.len() - 1))
    }

    fn outgoing(&self, at: usize) -> Outgoing {
        let packet = &self.packets[at];
        Outgoing {
            seq: self.first.plus(at as u16),
            len: packet.len.into(),
            fin: packet.fin,
            times: packet.times,
            start: packet.start,
        }
    }

    /// Cuts a packet of `len` bytes off what was never sent.
    pub fn cut(&mut self, len: usize, fin: bool) -> Outgoing {
        let start = self.start + (self.bytes.len() - self.unsent) as u64;
        self.unsent -= len;
        self.packets.push_back(Packet {
            start,
            sent: Time::ZERO,
            sending: 0,
            len: len as u16,
            times: 0,
            fate: Fate::Lost,
            probe: false,
            fin,
        });
        self.lost += 1;
        self.outgoing(self.packets.len() - 1)
    }

    /// A packet leaves.
    pub fn sent(&mut self, now: Time, outgoing: Outgoing, probe: bool) {
        let at = usize::from(outgoing.seq.steps_from(self.first));
        self.sendings += 1;
        let Some(packet) = self.packets.get_mut(at) else { return };
        if packet.fate == Fate::Lost {
            self.lost -= 1;
            self.flying += usize::from(packet.len);
            self.flying_packets += 1;
        }
        (packet.fate, packet.sent, packet.sending, packet.probe) = (Fate::Flying, now, self.sendings, probe);
        packet.times = packet.times.saturating_add(1);
        if packet.times > 1 {
            self.overtaken_to = self.overtaken_to.max(at + 1);
        }
    }

    /// Copies a packet's payload.
    pub fn payload(&self, outgoing: Outgoing, out: &mut Vec<u8>) {
        let from = (outgoing.start - self.start) as usize;
        let (left, right) = self.bytes.as_slices();
        let (start, end) = (from, from + outgoing.len);
        if let Some(part) = left.get(start.min(left.len())..end.min(left.len())) {
            out.extend_from_slice(part);
        }
        if end > left.len() {
            out.extend_from_slice(&right[start.saturating_sub(left.len())..end - left.len()]);
        }
    }

    /// Gives back memory that nothing uses.
    pub fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = VecDeque::new();
        }
        if self.packets.is_empty() {
            self.packets = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests;
