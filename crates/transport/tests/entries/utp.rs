//! uTP: a life of a stack, with a connection and without.

use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_transport::utp::{Event, Settings, Utp, UtpId};
use piecemeal_wire::utp::{
    EXTENSION_BITS, LEAST_PADDING_BYTES, SACK, Seq, UtpConnectionId, UtpHeader, UtpKind, UtpPacket,
    encode_padding,
};

/// Bytes of both windows and of what is written: more would only be slower to fill.
const BUFFER: usize = 64 << 10;

/// Two stacks and what passes between them, and a stranger.
struct Script {
    now: Time,
    ours: Utp,
    peer: Utp,
    id: Option<UtpId>,
    peer_id: Option<UtpId>,
    /// The last packet each sent to the other.
    last: [Option<UtpHeader>; 2],
    /// Bytes to and from the stranger.
    stranger: [usize; 2],
    /// An answer made the stranger a peer.
    is_known: bool,
}

/// Steps of a kind, a length and that many bytes: packets of strangers, packets much like those of the peer, time, and
/// what a user does. The first step finds a connection that stands.
pub fn utp_stream(bytes: &[u8]) {
    let mut script = Script::connected();
    let mut rest = bytes;
    // A step costs a few microseconds at most, but for time, which may send much again.
    for _ in 0..2000 {
        let [kind, len, behind @ ..] = rest else { break };
        let (step, behind) = behind.split_at(usize::from(*len).min(behind.len()));
        script.step(*kind, step);
        script.holds();
        rest = behind;
    }
}

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 6881))
}

const OURS: u8 = 1;
const PEER: u8 = 2;
const STRANGER: u8 = 3;

impl Script {
    fn connected() -> Script {
        let settings = Settings {
            most_conns: 8,
            most_unconfirmed: 4,
            receive_window_bytes: BUFFER,
            most_receive_window_bytes: BUFFER,
            send_buffer_bytes: BUFFER,
            ..Settings::default()
        };
        let mut script = Script {
            now: Time::ZERO,
            ours: Utp::new(settings, [1; 32]),
            peer: Utp::new(settings, [2; 32]),
            id: None,
            peer_id: None,
            last: [None; 2],
            stranger: [0; 2],
            is_known: false,
        };
        script.id = Some(script.ours.connect(addr(PEER)).expect("there is room"));
        for _ in 0..8 {
            script.exchange(usize::MAX);
            script.pass(Duration::from_millis(20));
        }
        assert!(script.peer_id.is_some(), "a connection stands");
        script
    }

    fn step(&mut self, kind: u8, bytes: &[u8]) {
        let number = |at: usize| bytes.get(at).copied().map_or(0, usize::from);
        let (now, id) = (self.now, self.id);
        match kind % 13 {
            0 => self.exchange(1 + number(0)),
            1 => self.pass(Duration::from_millis((number(0) * number(0)) as u64)),
            2 => self.hear(bytes),
            3 => drop(self.ours.on_datagram(now, addr(PEER), bytes)),
            4 => {
                self.stranger[0] += bytes.len();
                self.is_known |=
                    UtpPacket::decode(bytes).is_ok_and(|packet| packet.header.kind != UtpKind::Syn);
                self.ours.on_datagram(now, addr(STRANGER), bytes);
            }
            5 => self.write(id, 200 * number(0)),
            6 => {
                if let Some(id) = id {
                    let len = self.ours.readable(id).len();
                    self.ours.consumed(now, id, 300 * number(0));
                    assert!(self.ours.readable(id).len() == len.saturating_sub(300 * number(0)));
                }
            }
            7 => id.into_iter().for_each(|id| match number(0) % 4 {
                0 => self.ours.close(now, id),
                1 => self.ours.reset(now, id),
                _ => self.ours.finish(now, id),
            }),
            8 => self.ours.on_too_big(now, addr(PEER), number(0) * 8),
            9 => self.ours.on_unreachable(addr(PEER)),
            10 => {
                if let Some(id) = self.peer_id {
                    let chunk = vec![7; 200 * number(0)];
                    self.peer.write(now, id, &chunk);
                }
            }
            11 => drop(self.ours.connect(addr(PEER))),
            _ => self.drain(0),
        }
    }

    fn write(&mut self, id: Option<UtpId>, len: usize) {
        let Some(id) = id else { return };
        let chunk = vec![9; len];
        let took = self.ours.write(self.now, id, &chunk);
        assert!(took <= len);
    }

    /// A packet like the peer's last, with its numbers moved a little: past the checks that noise does not pass.
    fn hear(&mut self, bytes: &[u8]) {
        let (Some(last), [kind, seq, ack, window, payload, sack @ ..]) = (self.last[1], bytes) else {
            return;
        };
        let kinds = [UtpKind::Data, UtpKind::Fin, UtpKind::State, UtpKind::Reset, UtpKind::Syn];
        let moved = |seq: Seq, by: u8| seq.plus((i16::from(by as i8)) as u16);
        let ours = self.last[0].map_or(last.ack, |ours| ours.seq);
        let header = UtpHeader {
            kind: kinds[usize::from(kind % 8).min(4)],
            connection: UtpConnectionId(last.connection.0.wrapping_add(u16::from(kind >> 6))),
            timestamp_difference: u32::from(*window) << 12,
            window: u32::from(*window) << 9,
            seq: moved(last.seq, *seq),
            ack: moved(if kind & 8 > 0 { ours } else { last.ack }, *ack),
            ..last
        };
        let mut packet = match kind & 0x30 {
            0x10 => header.encode(SACK).to_vec(),
            0x20 => header.encode(EXTENSION_BITS).to_vec(),
            _ => header.encode(0).to_vec(),
        };
        match kind & 0x30 {
            0x10 => packet.extend([&[0, sack.len() as u8], sack].concat()),
            0x20 => encode_padding(usize::from(*payload).max(LEAST_PADDING_BYTES), &mut packet),
            _ => {}
        }
        packet.resize(packet.len() + usize::from(*payload) * 5, 0x55);
        self.ours.on_datagram(self.now, addr(PEER), &packet);
    }

    /// At most `most` batches from each side reach the other.
    fn exchange(&mut self, most: usize) {
        self.drain(most);
        let mut buf = Vec::new();
        for _ in 0..most.min(100) {
            let Some(transmit) = self.peer.poll_transmit(self.now, &mut buf) else { break };
            for datagram in buf.chunks(transmit.segment.unwrap_or(buf.len())) {
                self.last[1] = UtpPacket::decode(datagram).ok().map(|packet| packet.header);
                self.ours.on_datagram(self.now, addr(PEER), datagram);
            }
        }
        while let Some(event) = self.peer.poll_event() {
            match event {
                Event::Accepted { id, .. } => self.peer_id = Some(id),
                Event::Readable { id } => {
                    let len = self.peer.readable(id).len();
                    self.peer.consumed(self.now, id, len);
                }
                _ => {}
            }
        }
    }

    /// All that leaves us; the first `most` batches reach the peer, the rest is lost.
    fn drain(&mut self, most: usize) {
        let mut buf = Vec::new();
        for turn in 0.. {
            let Some(transmit) = self.ours.poll_transmit(self.now, &mut buf) else { break };
            assert!(turn < 2000, "it ends");
            let segment = transmit.segment.unwrap_or(buf.len());
            assert_eq!(buf.len().div_ceil(segment), transmit.packets);
            if transmit.to == addr(STRANGER) {
                self.stranger[1] += buf.len();
            }
            for datagram in buf.chunks(segment) {
                let packet = UtpPacket::decode(datagram).expect("what we write can be read");
                if transmit.to == addr(PEER) && turn < most {
                    self.last[0] = Some(packet.header);
                    self.peer.on_datagram(self.now, addr(OURS), datagram);
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.ours.heartbeat(self.now);
        self.peer.heartbeat(self.now);
        assert!(self.ours.next_due() > self.now, "what was due is done");
    }

    /// What is true at any time.
    fn holds(&mut self) {
        assert!(self.ours.conns() <= 8);
        // Never more to whoever did not prove to be there than came from it.
        assert!(self.is_known || self.stranger[1] <= self.stranger[0]);
        if let Some(facts) = self.id.and_then(|id| self.ours.facts(id)) {
            assert!(facts.flying + facts.unsent <= BUFFER, "{facts:?}");
            assert!(facts.unread <= 2 * BUFFER + 2000 && facts.own_window <= BUFFER, "{facts:?}");
            assert!(facts.window <= BUFFER, "{facts:?}");
        }
        let mut events = 0;
        while self.ours.poll_event().is_some() {
            events += 1;
        }
        assert!(events < 100);
    }
}

/// Lives that go well, and one of each kind of step.
pub fn seeds() -> Vec<Vec<u8>> {
    let step = |kind: u8, bytes: &[u8]| [&[kind, bytes.len() as u8], bytes].concat();
    let header = |kind, seq, ack| {
        let syn = UtpHeader {
            kind,
            connection: UtpConnectionId(77),
            timestamp: 5,
            timestamp_difference: 0,
            window: 1 << 20,
            seq: Seq(seq),
            ack: Seq(ack),
        };
        syn.encode(0)
    };
    let talk = [
        step(5, &[100]),
        step(0, &[9]),
        step(1, &[5]),
        step(10, &[200]),
        step(0, &[9]),
        step(6, &[20]),
        step(1, &[5]),
        step(0, &[9]),
        step(7, &[2]),
        step(0, &[9]),
        step(1, &[40]),
    ];
    let damaged = [
        step(5, &[255]),
        step(1, &[30]),
        step(2, &[0, 1, 0, 200, 30]),
        step(2, &[0, 3, 0, 200, 30]),
        step(2, &[0x12, 0, 0, 200, 0, 0xff, 0, 0, 0]),
        step(2, &[0x20, 1, 0, 200, 100]),
        step(2, &[2, 0, 5, 0, 0]),
        step(8, &[100]),
        step(1, &[200]),
        step(2, &[1, 9, 0, 200, 0]),
        step(2, &[3, 0, 0, 0, 0]),
    ];
    let strangers = [
        step(4, &header(UtpKind::Syn, 1, 0)),
        step(4, &header(UtpKind::Data, 2, 0)),
        step(4, &header(UtpKind::Reset, 2, 0)),
        step(3, &header(UtpKind::State, 2, 9)),
        step(11, &[]),
        step(1, &[60]),
        step(9, &[]),
        step(7, &[1]),
    ];
    vec![talk.concat(), damaged.concat(), strangers.concat()]
}
