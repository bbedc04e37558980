//! One connection: what packets do to it, and what its clock does.
//!
//! Owns the stages from SYN to FIN, the two ids, and when an acknowledgement is due. Bytes and losses are `send`'s and
//! `receive`'s, the window is `ledbat`'s, the size of packets is `mtu`'s; what leaves is put together in `packets`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_wire::utp::{HEADER_BYTES, Seq, UtpConnectionId, UtpHeader, UtpKind, UtpPacket};

use super::delay::Delay;
use super::ledbat::{Ledbat, Progress};
use super::mtu::Mtu;
use super::receive::{Heard, Receiver};
use super::rtt::Rtt;
use super::send::{Arrived, Sender};
use super::{BEHIND, Counters, Event, Facts, MOST_PACKETS, Settings, UtpId, Why};

/// After how long a SYN is sent again, twice as long each time. Other clients wait as long.
const SYN_WAIT: Duration = Duration::from_secs(3);

/// SYNs that are sent: over 21 s, after which the caller has had time for another way to the peer.
const MOST_SYNS: u32 = 3;

/// How long an acknowledgement waits for company: for the second packet, or for bytes of ours to ride with.
const ACK_WAIT: Duration = Duration::from_millis(10);

/// Packets in order after which an acknowledgement waits no longer.
const ACK_EVERY: u8 = 2;

/// Silence after which a packet keeps the way through address translators open; many close it after 30 s.
const KEEP_ALIVE: Duration = Duration::from_secs(29);

/// How long a peer whose FIN has not come may still send, after ours arrived.
const HALF_CLOSED: Duration = Duration::from_secs(10);

/// How long its FIN is acknowledged again after all is done: a few of its timeouts.
const FAREWELL: Duration = Duration::from_secs(10);

/// Timeouts in a row after which packets are believed to be too large, rather than the path to be down.
const SWALLOWED_AFTER: u32 = 2;

/// What some clients say before they heard anything, where BEP 29 has 0.
const NO_DIFFERENCE: u32 = 0x7fff_ffff;

/// Bytes that always can be written, however small the window.
const LEAST_SEND_BUFFER: usize = 64 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// We asked; `due`: the SYN is to leave.
    Asking {
        seq: Seq,
        tries: u32,
        sent: Time,
        due: bool,
    },
    Open,
}

/// Our last packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fin {
    NotYet,
    Wanted,
    Sent,
    Arrived,
}

/// Whether the connection goes on; if not, what is still to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Live,
    Over(Option<Why>),
}

#[derive(Debug)]
pub(super) struct Conn {
    pub id: UtpId,
    pub to: SocketAddr,
    /// In packets to us.
    pub recv: UtpConnectionId,
    /// In packets to the peer.
    pub send: UtpConnectionId,
    pub stage: Stage,
    pub sender: Sender,
    pub receiver: Receiver,
    pub ledbat: Ledbat,
    pub mtu: Mtu,
    pub rtt: Rtt,
    ours: Delay,
    theirs: Delay,
    /// What the peer is told of its last packet's way, in microseconds.
    pub difference: u32,
    pub peer_window: usize,
    /// The widest window the peer ever told of.
    widest: usize,
    /// Our window, as the peer was told last.
    pub advertised: usize,
    /// When an acknowledgement is due: [`Time::ZERO`] is at once.
    pub ack_at: Time,
    pub unacked: u8,
    /// When something must have come back, or a closed window is asked after.
    pub timer_at: Time,
    timeouts: u32,
    /// Timeouts since the time there and back was measured: what is waited doubles with each. That something arrived is
    /// not enough, since of what was sent again nobody knows how long it took (Karn; RFC 6298).
    backoff: u32,
    /// Timeouts since anything was heard.
    silent: u32,
    /// When the last packet is sent again, to learn before the timeout whether it was lost: nothing behind it could
    /// tell.
    tail_at: Time,
    /// It was, and nothing came back since.
    tail_done: bool,
    /// It may leave now.
    pub tail_due: bool,
    /// One packet may leave whatever the peer's window.
    pub force: bool,
    pub last_sent: Time,
    pub fin: Fin,
    pub closing: bool,
    told_closed: bool,
    linger_until: Time,
    told_readable: bool,
    wants_room: bool,
    send_buffer: usize,
    most_timeouts: u32,
    /// For which time the stack's clock has this connection; it may be earlier than needed.
    pub registered: Time,
    /// Whether it stands in the stack's list of those that may have something to send.
    pub queued: bool,
}

impl Conn {
    /// One that asks for a connection.
    pub fn asking(id: UtpId, to: SocketAddr, recv: UtpConnectionId, seq: Seq, settings: &Settings) -> Conn {
        let stage = Stage::Asking { seq, tries: 0, sent: Time::ZERO, due: true };
        Conn::new(id, to, (recv, recv.next()), (seq.plus(1), Seq(0)), stage, settings)
    }

    /// One that was asked for, by a peer that proved to be there. `first` is our first number, `next` the one expected.
    pub fn accepted(
        id: UtpId,
        to: SocketAddr,
        recv: UtpConnectionId,
        (first, next): (Seq, Seq),
        settings: &Settings,
    ) -> Conn {
        Conn::new(id, to, (recv, recv.previous()), (first, next), Stage::Open, settings)
    }

    fn new(
        id: UtpId,
        to: SocketAddr,
        (recv, send): (UtpConnectionId, UtpConnectionId),
        (first, next): (Seq, Seq),
        stage: Stage,
        settings: &Settings,
    ) -> Conn {
        let most_packet =
            if to.is_ipv6() { settings.most_packet_bytes_v6 } else { settings.most_packet_bytes_v4 };
        let receiver = Receiver::new(next, settings.receive_window_bytes, settings.most_receive_window_bytes);
        Conn {
            id,
            to,
            recv,
            send,
            stage,
            sender: Sender::new(first),
            advertised: receiver.window(),
            receiver,
            ledbat: Ledbat::new(settings.target_delay, settings.send_buffer_bytes),
            mtu: Mtu::new(to.is_ipv6(), most_packet),
            rtt: Rtt::default(),
            ours: Delay::default(),
            theirs: Delay::default(),
            difference: 0,
            peer_window: 0,
            widest: 0,
            ack_at: Time::NEVER,
            unacked: 0,
            timer_at: Time::NEVER,
            timeouts: 0,
            backoff: 0,
            silent: 0,
            tail_at: Time::NEVER,
            tail_done: false,
            tail_due: false,
            force: false,
            last_sent: Time::NEVER,
            fin: Fin::NotYet,
            closing: false,
            told_closed: false,
            linger_until: Time::NEVER,
            told_readable: false,
            wants_room: false,
            send_buffer: settings.send_buffer_bytes,
            most_timeouts: settings.most_timeouts,
            registered: Time::NEVER,
            queued: false,
        }
    }

    /// A packet with our id, from the peer's address.
    pub fn on_packet(
        &mut self,
        now: Time,
        packet: &UtpPacket,
        events: &mut VecDeque<Event>,
        counters: &mut Counters,
    ) -> Verdict {
        let header = &packet.header;
        if let Stage::Asking { seq, tries, sent, .. } = self.stage {
            if header.kind != UtpKind::State || header.ack != seq {
                counters.disbelieved += 1;
                return Verdict::Live;
            }
            if tries == 1 {
                self.rtt.measured(now.since(sent));
            }
            self.open(now, header, events);
            return Verdict::Live;
        }
        let Some(ahead) = self.sender.ahead(header.ack).filter(|_| self.believes(header)) else {
            counters.disbelieved += 1;
            return Verdict::Live;
        };
        self.silent = 0;
        self.on_times(now, header);
        self.on_ack(now, ahead, packet, events, counters);
        match header.kind {
            UtpKind::Data => self.on_payload(now, header.seq, packet.payload, false, events, counters),
            UtpKind::Fin => self.on_payload(now, header.seq, &[], true, events, counters),
            _ => {}
        }
        self.settle(now, events);
        Verdict::Live
    }

    /// The answer to our SYN. Its number is that of the first packet to come.
    fn open(&mut self, now: Time, header: &UtpHeader, events: &mut VecDeque<Event>) {
        let (room, most_room) = (self.receiver.room(), self.receiver.most_room());
        self.receiver = Receiver::new(header.seq, room, most_room);
        self.stage = Stage::Open;
        (self.timeouts, self.silent, self.timer_at) = (0, 0, Time::NEVER);
        self.on_times(now, header);
        self.peer_window = header.window as usize;
        self.widest = self.peer_window;
        events.push_back(Event::Connected { id: self.id });
        // The peer believes in us once it hears that its number arrived.
        self.ack_at = now + ACK_WAIT;
    }

    /// An acknowledgement alone bears the number of the peer's next packet: not one far from what we know.
    fn believes(&self, header: &UtpHeader) -> bool {
        let next = self.receiver.ack().plus(1);
        header.seq.steps_from(next.minus(BEHIND)) <= BEHIND + MOST_PACKETS as u16
    }

    fn on_times(&mut self, now: Time, header: &UtpHeader) {
        self.difference = micros(now).wrapping_sub(header.timestamp);
        let change = self.theirs.measured(now, self.difference);
        if change.lower_by > 0 {
            self.ours.drifted(change.lower_by);
        }
        if ![0, NO_DIFFERENCE].contains(&header.timestamp_difference) {
            let change = self.ours.measured(now, header.timestamp_difference);
            if let Some(us) = change.minute_of {
                self.ledbat.minute(now, us, self.rtt.smooth(), self.payload_bytes());
            }
        }
    }

    fn on_ack(
        &mut self,
        now: Time,
        ahead: usize,
        packet: &UtpPacket,
        events: &mut VecDeque<Event>,
        counters: &mut Counters,
    ) {
        let (ack, window) = (packet.header.ack, packet.header.window as usize);
        let bare = packet.header.kind == UtpKind::State && window == self.peer_window;
        // One that is older than the last says nothing of the window now.
        if self.sender.is_current(ack, ahead) {
            self.peer_window = window;
            self.widest = self.widest.max(window);
        }
        if self.sender.span() == 0 {
            return;
        }
        let arrived = self.sender.acknowledged(now, (ack, ahead), packet.sack, bare, self.rtt.least());
        if let Some(took) = arrived.rtt {
            self.rtt.measured(took);
            self.backoff = 0;
        }
        self.answer(now, &arrived, counters);
        if arrived.packets > 0 {
            (self.timeouts, self.timer_at) = (0, Time::NEVER);
            (self.tail_at, self.tail_done, self.tail_due) = (Time::NEVER, false, false);
        }
        if arrived.bytes > 0 {
            let waiting = self.ours.waiting();
            let (rtt, packet_bytes) = (self.rtt.smooth(), self.payload_bytes());
            self.ledbat.arrived(now, Progress { bytes: arrived.bytes, waiting, rtt, packet_bytes });
            self.tell_room(events);
        }
        if self.fin == Fin::Sent && self.sender.all_arrived() {
            self.fin = Fin::Arrived;
        }
        self.arm(now);
    }

    /// What was lost makes the window smaller; a lost probe only ends a question.
    fn answer(&mut self, now: Time, arrived: &Arrived, counters: &mut Counters) {
        match arrived.probe {
            Some(true) => self.mtu.arrived(now),
            Some(false) => self.mtu.lost(now),
            None => {}
        }
        if arrived.late {
            self.ledbat.late();
        }
        if arrived.congested {
            counters.losses += 1;
            self.ledbat.lost(now, self.payload_bytes());
        }
    }

    fn on_payload(
        &mut self,
        now: Time,
        seq: Seq,
        payload: &[u8],
        fin: bool,
        events: &mut VecDeque<Event>,
        counters: &mut Counters,
    ) {
        let had_gap = self.receiver.has_gap();
        match self.receiver.packet(seq, payload, fin) {
            Heard::Next(bytes) => {
                counters.payload_in += bytes as u64;
                self.unacked = self.unacked.saturating_add(1);
                // What closes a gap, or some of it, is said at once.
                let at_once = had_gap || self.unacked >= ACK_EVERY || self.receiver.ended();
                self.ack_at = if at_once { Time::ZERO } else { self.ack_at.min(now + ACK_WAIT) };
                if self.closing {
                    self.receiver.drop_unread();
                } else if bytes > 0 && !self.told_readable {
                    self.told_readable = true;
                    events.push_back(Event::Readable { id: self.id });
                }
                if self.receiver.ended() && !self.closing {
                    events.push_back(Event::Ended { id: self.id });
                }
                return;
            }
            Heard::Early => counters.early += 1,
            Heard::Again => counters.again_in += 1,
            Heard::Refused => counters.no_room += 1,
        }
        self.ack_at = Time::ZERO;
    }

    /// The connection ends when both directions have.
    pub fn settle(&mut self, now: Time, events: &mut VecDeque<Event>) {
        if self.fin != Fin::Arrived || self.told_closed {
            return;
        }
        if self.receiver.ended() && self.receiver.readable().is_empty() {
            (self.told_closed, self.linger_until) = (true, now + FAREWELL);
            events.push_back(Event::Closed { id: self.id, why: Why::Done });
        } else if self.closing && self.linger_until == Time::NEVER {
            self.linger_until = now + HALF_CLOSED;
        }
    }

    /// Whether it is over for its user, and stays only to acknowledge.
    pub fn lingers(&self) -> bool {
        self.told_closed
    }

    /// It is over, without more packets. `None`: whoever used it was told already.
    pub fn over(&self, why: Why) -> Verdict {
        // Some clients forget a connection once their FIN arrived, and answer ours with a reset: nothing is missing.
        let all_but_fin = self.fin != Fin::NotYet && self.sender.held() == 0;
        let why = if why == Why::Reset && all_but_fin && self.receiver.ended() { Why::Done } else { why };
        Verdict::Over((!self.told_closed).then_some(why))
    }

    /// Time has come to something.
    pub fn on_timer(&mut self, now: Time, counters: &mut Counters) -> Verdict {
        if now >= self.linger_until {
            return self.over(Why::Done);
        }
        if self.ack_at <= now {
            self.ack_at = Time::ZERO;
        }
        if now >= self.last_sent + KEEP_ALIVE {
            self.ack_at = Time::ZERO;
            self.sender.rest();
            self.receiver.rest();
        }
        if now >= self.tail_at {
            self.tail_due = self.sender.unsent() == 0 && !self.sender.nothing_flies();
            (self.tail_at, self.tail_done) = (Time::NEVER, true);
        }
        if now < self.timer_at {
            return Verdict::Live;
        }
        self.timer_at = Time::NEVER;
        if let Stage::Asking { seq, tries, sent, .. } = self.stage {
            self.stage = Stage::Asking { seq, tries, sent, due: true };
            return if tries >= MOST_SYNS { self.over(Why::NoAnswer) } else { Verdict::Live };
        }
        self.on_timeout(now, counters)
    }

    fn on_timeout(&mut self, now: Time, counters: &mut Counters) -> Verdict {
        counters.timeouts += 1;
        self.timeouts += 1;
        self.backoff += 1;
        self.silent += 1;
        let closed = self.is_closed_to_us();
        if self.silent > self.most_timeouts || (self.timeouts > self.most_timeouts && !closed) {
            return self.over(Why::Silent);
        }
        let large = self.sender.first().is_some_and(|first| self.mtu.is_large(HEADER_BYTES + first.len));
        if self.timeouts >= SWALLOWED_AFTER && large && !closed {
            self.mtu.swallowed(now);
        }
        let arrived = self.sender.timed_out();
        if arrived.probe.is_some() {
            self.mtu.lost(now);
        }
        if arrived.congested && !closed {
            self.ledbat.timed_out(self.payload_bytes());
        }
        self.force = closed;
        self.arm(now);
        Verdict::Live
    }

    /// Sets the clock if something is expected, or if a closed window is all that is in the way.
    pub fn arm(&mut self, now: Time) {
        let waits = !self.sender.all_arrived() || self.fin == Fin::Wanted;
        if !waits {
            self.timer_at = Time::NEVER;
        } else if self.timer_at == Time::NEVER && self.stage == Stage::Open {
            self.timer_at = now + self.rtt.timeout(self.backoff);
        }
        let tail = !self.tail_done && self.sender.unsent() == 0 && !self.sender.nothing_flies();
        if tail && self.tail_at == Time::NEVER && self.rtt.is_known() {
            // An acknowledgement may be held back on the other side.
            self.tail_at = now + self.rtt.smooth() * 2 + ACK_WAIT * 2;
        }
    }

    /// A SYN left.
    pub fn asked(&mut self, now: Time) {
        if let Stage::Asking { seq, tries, .. } = self.stage {
            self.timer_at = now + SYN_WAIT.saturating_mul(1 << tries.min(8));
            self.stage = Stage::Asking { seq, tries: tries + 1, sent: now, due: false };
        }
    }

    /// Whether the peer has no room for the next packet.
    fn is_closed_to_us(&self) -> bool {
        let next = self.sender.first().map_or(1, |first| first.len.max(1));
        self.peer_window < next
    }

    /// When the clock is to call.
    pub fn due(&self) -> Time {
        // An acknowledgement that waits to be taken needs no clock, and is as good as one to keep the way open.
        let idle = match self.ack_at {
            Time::ZERO => Time::NEVER,
            ack_at => ack_at.min(self.last_sent + KEEP_ALIVE),
        };
        self.timer_at.min(self.tail_at).min(idle).min(self.linger_until)
    }

    /// A reset that names our packet `ack`; tells whether it is believed.
    pub fn is_reset_by(&self, ack: Seq) -> bool {
        match self.stage {
            Stage::Asking { seq, .. } => ack == seq,
            Stage::Open => self.sender.could_reset(ack),
        }
    }

    /// Takes what there is room for.
    pub fn write(&mut self, now: Time, bytes: &[u8]) -> usize {
        if self.fin != Fin::NotYet {
            return 0;
        }
        let took = bytes.len().min(self.room());
        if took < bytes.len() {
            self.wants_room = true;
        }
        self.sender.write(&bytes[..took]);
        self.arm(now);
        took
    }

    /// Bytes that could be written: twice the window may be held, half on its way and half to follow.
    pub fn room(&self) -> usize {
        let most = (self.ledbat.window() * 2).max(LEAST_SEND_BUFFER).min(self.send_buffer);
        most.saturating_sub(self.sender.held())
    }

    fn tell_room(&mut self, events: &mut VecDeque<Event>) {
        if self.wants_room
            && self.fin == Fin::NotYet
            && self.room() >= LEAST_SEND_BUFFER.min(self.send_buffer) / 4
        {
            self.wants_room = false;
            events.push_back(Event::Writable { id: self.id });
        }
    }

    /// The reader took bytes. A peer that saw the window nearly closed is told when it opens.
    pub fn consumed(&mut self, now: Time, bytes: usize) {
        self.receiver.consumed(now, bytes);
        self.told_readable = false;
        let (window, two) = (self.receiver.window(), 2 * self.payload_bytes());
        let opened = window.saturating_sub(self.advertised);
        let was_closed = self.advertised < two && window >= two.min(self.receiver.room());
        if was_closed || opened >= self.receiver.room() / 2 {
            self.ack_at = Time::ZERO;
        }
    }

    /// No more will be read either.
    pub fn close(&mut self, now: Time) {
        self.closing = true;
        self.receiver.drop_unread();
        self.finish(now);
    }

    /// No more will be written.
    pub fn finish(&mut self, now: Time) {
        if self.fin == Fin::NotYet {
            self.fin = Fin::Wanted;
        }
        self.arm(now);
    }

    /// The system refused a datagram of `bytes` bytes.
    pub fn too_big(&mut self, now: Time, bytes: usize) {
        self.mtu.too_big(now, bytes);
        self.sender.too_big(self.payload_bytes());
    }

    /// Packets between the first that did not arrive and the last that may leave. Other clients keep as many as their
    /// window divided by 1100 bytes, and drop what is beyond.
    pub fn most_span(&self) -> usize {
        (self.widest / 1100).clamp(16, MOST_PACKETS)
    }

    /// Bytes of a full packet's payload.
    pub fn payload_bytes(&self) -> usize {
        self.mtu.size() - HEADER_BYTES
    }

    pub fn facts(&self) -> Facts {
        Facts {
            ids: (self.recv, self.send),
            rtt: self.rtt.smooth(),
            least_rtt: self.rtt.least(),
            queuing_delay: self.ours.waiting().unwrap_or_default(),
            window: self.ledbat.window(),
            peer_window: self.peer_window,
            flying: self.sender.flying(),
            unsent: self.sender.unsent(),
            unread: self.receiver.readable().len(),
            packet_bytes: self.mtu.size(),
            own_window: self.receiver.window(),
        }
    }
}

/// The clock that packets carry: microseconds, wrapping.
pub(super) fn micros(now: Time) -> u32 {
    (now.nanos() / 1000) as u32
}
