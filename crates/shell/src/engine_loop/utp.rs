//! Connections over datagrams (BEP 29): between the streams of `transport` and the connections of the loop.
//!
//! Owns the streams of each socket, and what could not leave for want of room in the system's buffer. What a stream does
//! is `transport`'s, what is said by it its owner's, as with TCP.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_engine::cx::{Carrier, ConnId, Sending};
use piecemeal_metainfo::Time;
use piecemeal_transport::utp::{Event, Settings, Transmit, Utp, UtpId};

use super::conns::{Dialing, Link, Owner, Slot, Wants};
use super::datagrams::{DatagramSockets, Role, unreachable};
use super::relay::Relay;
use super::{EngineLoop, SCRATCH_BYTES, to_owner};
use crate::batch;
use crate::driven::{Data, Front};
use crate::entropy;
use crate::net::{Traffic, Way};
use crate::send::{Sent, SentEnd};

/// Runs of datagrams sent by one socket a turn, before others have theirs.
const TURN_RUNS: usize = 256;
/// What a stream is given at once.
const GATHERED_BYTES: usize = 128 * 1024;

/// The streams of one socket.
pub(super) struct Streams {
    utp: Utp,
    slots: BTreeMap<UtpId, Slot>,
    /// What leaves next, if there was no room for it.
    held: Option<Transmit>,
    buf: Vec<u8>,
    /// There may be more to send, and room: its turn was over.
    more: bool,
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// We end it; what was written may still arrive.
    Over,
    /// It is of no use any more.
    Broken,
}

/// What the streams of a socket begin with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UtpStart {
    /// Their randomness.
    pub(crate) seed: [u8; 32],
    /// Whether they give way to all other traffic.
    pub(crate) yields: bool,
}

impl UtpStart {
    /// Another, with randomness of its own.
    pub(super) fn fork(self, name: &str) -> UtpStart {
        UtpStart { seed: entropy::fork(&self.seed, name), ..self }
    }

    pub(super) fn settings(self) -> Settings {
        let all = Settings::default();
        Settings { target_delay: if self.yields { all.target_delay } else { Duration::MAX }, ..all }
    }
}

impl Streams {
    pub(super) fn new(seed: [u8; 32], settings: Settings) -> Streams {
        let utp = Utp::new(settings, seed);
        Streams { utp, slots: BTreeMap::new(), held: None, buf: Vec::new(), more: false }
    }

    /// A datagram came; false if it is not of a stream.
    pub(super) fn on_datagram(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) -> bool {
        Utp::looks_like_utp(bytes) && self.utp.on_datagram(now, from, bytes)
    }
}

impl DatagramSockets {
    fn streams(&mut self, socket: usize) -> Option<&mut Streams> {
        self.sockets.get_mut(socket)?.streams.as_mut()
    }

    /// What streams still have to say by our own sockets, in single datagrams: where all were ended, a reset of each.
    pub(super) fn unsaid(&mut self, now: Time) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut all = Vec::new();
        let direct = self.sockets.iter_mut().filter(|socket| socket.role == Role::Direct);
        for streams in direct.filter_map(|socket| socket.streams.as_mut()) {
            // What is held was not the end of anything.
            streams.held = None;
            while let Some(run) = streams.utp.poll_transmit(now, &mut streams.buf) {
                let bytes = run.segment.unwrap_or(streams.buf.len()).max(1);
                all.extend(streams.buf.chunks(bytes).map(|packet| (run.to, packet.to_vec())));
            }
        }
        all
    }

    /// What waits to be sent by the relay is of no use to anybody.
    pub(super) fn forget_held(&mut self) {
        let relayed = self.sockets.iter_mut().filter(|socket| socket.role == Role::Relayed);
        relayed.filter_map(|socket| socket.streams.as_mut()).for_each(|streams| streams.held = None);
    }

    /// When a stream has something to do.
    pub(super) fn utp_due(&self) -> Time {
        let streams = self.sockets.iter().filter_map(|socket| socket.streams.as_ref());
        streams
            .map(|streams| if streams.more { Time::ZERO } else { streams.utp.next_due() })
            .fold(Time::NEVER, Time::min)
    }
}

impl<F: Front, D: Data> EngineLoop<F, D> {
    /// Begins to connect.
    ///
    /// # Errors
    /// Why that cannot be, in words.
    pub(super) fn connect_utp(&mut self, to: SocketAddr, dialing: Dialing) -> Result<(Slot, ConnId), String> {
        let relay = self.datagrams.relay.as_ref();
        let socket = match self.presence.dialer.way(Traffic::PeersUtp) {
            Way::Direct => self.datagrams.to(to),
            Way::Proxy => match relay.and_then(Relay::down) {
                Some(why) => return Err(why),
                None => self.datagrams.relay_at(),
            },
            Way::Off(why) => return Err(why.to_owned()),
        };
        let socket = socket.ok_or("no socket of that family")?;
        let streams = self.datagrams.streams(socket).ok_or("uTP is off")?;
        self.conns.next_slot().ok_or("too many connections")?;
        let id = streams.utp.connect(to).map_err(|why| why.to_string())?;
        let (slot, conn) = self.conns.insert(Link::Utp(socket, id), Some(dialing));
        streams.slots.insert(id, slot);
        Ok((slot, conn))
    }

    /// Hears what became of the streams.
    pub(super) fn hear_streams(&mut self) {
        for socket in 0..self.datagrams.sockets.len() {
            while let Some(event) =
                self.datagrams.streams(socket).and_then(|streams| streams.utp.poll_event())
            {
                self.on_stream(socket, event);
            }
        }
    }

    fn on_stream(&mut self, socket: usize, event: Event) {
        match event {
            Event::Accepted { id, from } => self.accept_utp(socket, id, from),
            Event::Connected { id } => self.on_slot(socket, id, |engine, slot| engine.stands(slot)),
            Event::Readable { id } => self.on_slot(socket, id, |engine, slot| engine.may_read(slot, false)),
            Event::Ended { id } => self.on_slot(socket, id, |engine, slot| engine.may_read(slot, true)),
            Event::Writable { id } => self.on_slot(socket, id, |engine, slot| engine.may_write(slot)),
            Event::Closed { id, why } => {
                self.on_slot(socket, id, |engine, slot| engine.lose(slot, why.into()));
                self.datagrams.streams(socket).map(|streams| streams.slots.remove(&id));
            }
        }
    }

    fn on_slot(&mut self, socket: usize, id: UtpId, then: impl FnOnce(&mut Self, Slot)) {
        let slot = self.datagrams.streams(socket).and_then(|streams| streams.slots.get(&id).copied());
        if let Some(slot) = slot {
            self.stirred = true;
            then(self, slot);
        }
    }

    fn accept_utp(&mut self, socket: usize, id: UtpId, from: SocketAddr) {
        let Some(streams) = self.datagrams.streams(socket) else { return };
        if self.conns.next_slot().is_none() {
            return streams.utp.reset(self.now, id);
        }
        let (slot, conn) = self.conns.insert(Link::Utp(socket, id), None);
        streams.slots.insert(id, slot);
        self.stats.accepted += 1;
        self.front.on_accepted(self.now, conn, from, Carrier::Utp);
        self.carry();
    }

    /// Copies what a stream has to the scratch buffer.
    ///
    /// # Errors
    /// `WouldBlock`: it has nothing now.
    pub(super) fn read_utp(&mut self, socket: usize, id: UtpId) -> io::Result<usize> {
        let none = Err(ErrorKind::WouldBlock.into());
        let Some(streams) = self.datagrams.streams(socket) else { return none };
        let there = streams.utp.readable(id);
        let bytes = there.len().min(SCRATCH_BYTES);
        if bytes == 0 {
            let ended = streams.slots.get(&id).and_then(|slot| self.conns.get(*slot));
            return if ended.is_some_and(|conn| conn.read_closed) { Ok(0) } else { none };
        }
        self.scratch[..bytes].copy_from_slice(&there[..bytes]);
        streams.utp.consumed(self.now, id, bytes);
        Ok(bytes)
    }

    /// Gives a stream what is to be said next, as much as it has room for. `None`: there is nothing.
    pub(super) fn send_utp(&mut self, slot: Slot) -> Option<Sent> {
        let conn = self.conns.get(slot)?;
        let Link::Utp(socket, id) = conn.link else { return None };
        let streams = self.datagrams.streams(socket)?;
        let room = streams.utp.room(id).min(GATHERED_BYTES);
        let mut sent = Sent { bytes: 0, from_files: 0, calls: 1, end: SentEnd::All };
        if !conn.unsent.is_empty() {
            sent.bytes = streams.utp.write(self.now, id, &conn.unsent);
            sent.end = if sent.bytes < conn.unsent.len() { SentEnd::Full } else { SentEnd::All };
            return Some(sent);
        }
        if conn.ciphers.is_some() {
            // All that it has to say was enciphered before, and is said.
            return None;
        }
        let (conn_id, owner, files) = (conn.id, conn.owner, &mut self.send_files);
        let gathered = &mut self.gathered;
        gathered.clear();
        let result = to_owner!(self, owner, it => {
            it.with_sealed(conn_id, |slices| match files.gather(slices, room.max(1), gathered) {
                Ok(()) => slices.iter().any(|slice| !matches!(slice, Sending::Bytes([]))).then_some(Ok(())),
                Err(why) => Some(Err(why)),
            })
        });
        match result {
            None | Some(None) => return None,
            Some(Some(Err(why))) => sent.end = SentEnd::Broken(why),
            Some(Some(Ok(()))) => {
                sent.bytes = streams.utp.write(self.now, id, gathered);
                // A stream that takes less than all says when it can take more.
                sent.end = if sent.bytes < gathered.len() { SentEnd::Full } else { SentEnd::All };
            }
        }
        Some(sent)
    }

    /// A connection has ended on our side.
    pub(super) fn end_link(&mut self, link: &Link, end: End) {
        let Link::Utp(socket, id) = *link else { return };
        let now = self.now;
        if let Some(streams) = self.datagrams.streams(socket) {
            streams.slots.remove(&id);
            match end {
                End::Over => streams.utp.close(now, id),
                End::Broken => streams.utp.reset(now, id),
            }
        }
    }

    /// Sends what streams have to send: acknowledgements of all that came in this turn, and data.
    pub(super) fn transmit(&mut self) {
        for at in 0..self.datagrams.sockets.len() {
            let now = self.now;
            if let Some(streams) = self.datagrams.streams(at)
                && streams.utp.next_due() <= now
            {
                streams.utp.heartbeat(now);
            }
            let more = (0..TURN_RUNS).all(|_| self.transmit_once(at));
            if let Some(streams) = self.datagrams.streams(at) {
                streams.more = more;
            }
        }
        self.hear_streams();
    }

    /// Sends one run of datagrams; false if there is none, or no room.
    fn transmit_once(&mut self, at: usize) -> bool {
        let DatagramSockets { sockets, relay, .. } = &mut self.datagrams;
        let socket = &mut sockets[at];
        let relay = relay.as_mut().filter(|_| socket.role == Role::Relayed);
        // Nothing leaves before the relay stands.
        let may = socket.writable && relay.as_ref().is_none_or(|relay| relay.place().is_some());
        let Some(streams) = socket.streams.as_mut().filter(|_| may) else { return false };
        let next = streams.held.take().or_else(|| streams.utp.poll_transmit(self.now, &mut streams.buf));
        let Some(run) = next else { return false };
        if run.fragment {
            batch::let_fragment(&socket.socket, true);
        }
        let sent = match relay {
            None => socket.batches.send(&socket.socket, run.to, &streams.buf, run.segment),
            Some(relay) => match relay.wrap_run(run.to, &streams.buf, run.segment) {
                Some((place, segment)) => socket.batches.send(&socket.socket, place, &relay.wrapped, segment),
                None => Ok(0),
            },
        };
        if run.fragment {
            batch::let_fragment(&socket.socket, false);
        }
        match sent {
            Ok(_) => self.stats.datagrams_out += run.packets as u64,
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                (streams.held, socket.writable) = (Some(run), false);
                return false;
            }
            Err(why) if batch::too_big(&why) => {
                let bytes = run.segment.unwrap_or(streams.buf.len());
                streams.utp.on_too_big(self.now, run.to, bytes);
            }
            Err(why) if unreachable(&why).is_some() => streams.utp.on_unreachable(run.to),
            // Lost, as any may be.
            Err(_) => {}
        }
        true
    }

    /// A stream has bytes, or has ended behind those it has.
    fn may_read(&mut self, slot: Slot, ended: bool) {
        let Some(conn) = self.conns.get(slot) else { return };
        conn.read_closed |= ended;
        conn.readable = true;
        self.list_to_read(slot);
    }

    /// A connection has room.
    pub(super) fn may_write(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get(slot) else { return };
        conn.writable = true;
        if conn.write == Wants::Room {
            conn.write = Wants::Listed;
            self.to_write.push(slot);
        }
    }
}
