//! Connections of a node that datagrams carry: between the streams of `transport` and `conns`.
//!
//! Owns the streams. It does as `shell::engine_loop::utp` does: whoever changes that changes this.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use piecemeal_engine::cx::{ConnId, DialId};
use piecemeal_metainfo::Time;
use piecemeal_transport::utp::{Counters, Event as Happened, Settings, Utp, UtpId};

use super::Node;
use super::conns::End;
use crate::net::{Datagram, Ending, Event, LinkId, Mail, Net, Side};

/// See the module.
pub(super) struct Streams {
    utp: Utp,
    conns: BTreeMap<UtpId, ConnId>,
    buf: Vec<u8>,
    /// When the world will look, by its clock.
    planned: Time,
}

impl Streams {
    pub(super) fn new(first_packet: Option<u16>, seed: [u8; 32]) -> Streams {
        let settings = Settings { first_number: first_packet, ..Settings::default() };
        let utp = Utp::new(settings, seed);
        Streams { utp, conns: BTreeMap::new(), buf: Vec::new(), planned: Time::NEVER }
    }

    /// What can be read.
    pub(super) fn readable(&self, id: UtpId) -> &[u8] {
        self.utp.readable(id)
    }

    /// So many bytes were read.
    pub(super) fn consumed(
        &mut self,
        net: &mut Net,
        now: Time,
        (id, link, side): (UtpId, LinkId, Side),
        bytes: usize,
    ) {
        net.stream_gave(link, side, &self.utp.readable(id)[..bytes]);
        self.utp.consumed(now, id, bytes);
    }

    /// Bytes that could be written.
    pub(super) fn room(&self, id: UtpId) -> usize {
        self.utp.room(id)
    }

    /// Writes what there is room for.
    pub(super) fn write(
        &mut self,
        net: &mut Net,
        now: Time,
        (id, link, side): (UtpId, LinkId, Side),
        bytes: &[u8],
    ) -> usize {
        let took = self.utp.write(now, id, bytes);
        net.stream_took(link, side, &bytes[..took], took < bytes.len());
        took
    }
}

impl Node {
    /// What its streams counted since its process began.
    pub fn stream_counters(&self) -> Counters {
        self.engine.as_ref().map_or_else(Counters::default, |engine| engine.streams.utp.counters())
    }

    /// Its streams, those that linger for a last acknowledgement among them.
    pub fn stream_count(&self) -> usize {
        self.engine.as_ref().map_or(0, |engine| engine.streams.utp.conns())
    }

    /// Begins to connect.
    pub(super) fn dial_stream(
        &mut self,
        net: &mut Net,
        dial: DialId,
        to: SocketAddr,
    ) -> Result<ConnId, String> {
        let streams = self.streams().ok_or("nothing runs here")?;
        let id = streams.utp.connect(to).map_err(|why| why.to_string())?;
        let known_by = streams.utp.facts(id).ok_or("it is gone")?.ids.0;
        let link = net.call_stream(self.id, (self.addr, to), known_by);
        let conn = self.add_conn((link, Side::Caller), Some(id), Some(dial));
        self.streams().map(|streams| streams.conns.insert(id, conn));
        Ok(conn)
    }

    /// A connection has ended on our side.
    pub(super) fn end_stream(&mut self, net: &Net, id: UtpId, end: End) {
        let now = self.time(net);
        let Some(streams) = self.streams() else { return };
        streams.conns.remove(&id);
        match end {
            End::Over => streams.utp.close(now, id),
            End::Broken => streams.utp.reset(now, id),
        }
    }

    /// One came; false if it is not of a stream.
    pub(super) fn on_stream_datagram(&mut self, net: &mut Net, datagram: &Datagram) -> bool {
        let (now, speaks) = (self.time(net), self.gear.settings.utp);
        let Some(streams) = self.streams() else { return false };
        let bytes = &datagram.bytes;
        if !speaks || !Utp::looks_like_utp(bytes) || !streams.utp.on_datagram(now, datagram.from, bytes) {
            return false;
        }
        self.go_on(net);
        true
    }

    /// A stream may have something to do.
    pub(super) fn on_streams_due(&mut self, net: &mut Net, planned: Time) {
        let Some(streams) = self.streams().filter(|streams| streams.planned == planned) else { return };
        streams.planned = Time::NEVER;
        self.go_on(net);
    }

    /// Where the engine has nothing to hear, only datagrams leave.
    fn go_on(&mut self, net: &mut Net) {
        if self.hear_streams(net) || self.transmit(net) {
            self.turn(net);
        }
    }

    /// Sends what streams have to send, and plans when to look again. True if something happened to one.
    pub(super) fn transmit(&mut self, net: &mut Net) -> bool {
        let (now, who, from) = (self.time(net), self.id, self.addr);
        let Some(Streams { utp, buf, .. }) = self.streams() else { return false };
        if utp.next_due() <= now {
            utp.heartbeat(now);
        }
        while let Some(run) = utp.poll_transmit(now, buf) {
            for bytes in buf.chunks(run.segment.unwrap_or(buf.len()).max(1)) {
                net.trace.note(net.now, who.0, "packet", bytes.len() as u64, u64::from(run.to.port()));
                let datagram = Datagram { from, to: run.to, group: false, bytes: bytes.to_vec() };
                net.send_datagram(who, datagram, run.fragment);
            }
        }
        let heard = self.hear_streams(net);
        let due = self.streams().map_or(Time::NEVER, |streams| streams.utp.next_due());
        let when = self.world_time(due).max(net.now);
        if let Some(streams) = self.streams().filter(|streams| when < streams.planned) {
            streams.planned = when;
            net.plan(when, Event::Host(who, self.life, Mail::Streams(when)));
        }
        heard
    }

    /// Hears what became of the streams. True if something did.
    fn hear_streams(&mut self, net: &mut Net) -> bool {
        let mut heard = false;
        while let Some(event) = self.streams().and_then(|streams| streams.utp.poll_event()) {
            heard = true;
            self.on_stream(net, event);
        }
        heard
    }

    fn on_stream(&mut self, net: &mut Net, event: Happened) {
        match event {
            Happened::Accepted { id, from } => self.accept_stream(net, id, from),
            Happened::Connected { id } => self.on_conn_of(net, id, |node, net, conn| {
                node.answered(net, conn, Ok(conn));
            }),
            Happened::Readable { id } => self.on_conn_of(net, id, Node::read),
            Happened::Ended { id } => self.on_conn_of(net, id, |node, net, conn| {
                if let Some(ended) = node.conns.get_mut(&conn) {
                    ended.ending = Some(Ending::Closed);
                }
                node.read(net, conn);
            }),
            Happened::Writable { id } => self.on_conn_of(net, id, |node, _, conn| node.may_write(conn)),
            Happened::Closed { id, why } => self.on_conn_of(net, id, |node, net, conn| {
                if node.conns.get(&conn).is_some_and(|lost| lost.dialing.is_some()) {
                    node.answered(net, conn, Err(format!("{why:?}")));
                } else {
                    node.lose(net, conn, why.into());
                }
            }),
        }
    }

    fn on_conn_of(&mut self, net: &mut Net, id: UtpId, then: impl FnOnce(&mut Node, &mut Net, ConnId)) {
        let Some(engine) = &mut self.engine else { return };
        if let Some(conn) = engine.streams.conns.get(&id).copied() {
            engine.stirred = true;
            then(self, net, conn);
        }
    }

    fn accept_stream(&mut self, net: &mut Net, id: UtpId, from: SocketAddr) {
        let Some(facts) = self.streams().and_then(|streams| streams.utp.facts(id)) else { return };
        // What packets to the caller bear, which it chose.
        let link = net.answer_stream(self.id, (from, self.addr), facts.ids.1);
        let conn = self.accept(net, link, from, Some(id));
        self.streams().map(|streams| streams.conns.insert(id, conn));
        self.carry(net);
    }

    fn streams(&mut self) -> Option<&mut Streams> {
        self.engine.as_mut().map(|engine| &mut engine.streams)
    }
}
