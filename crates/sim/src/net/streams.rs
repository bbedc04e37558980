//! Connections that datagrams carry, as somebody sees them who hears both ends.
//!
//! Owns what was written into each and not yet read, and compares it with what is read. How it gets there is
//! `transport`'s, between the two; here nothing is carried.

use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_wire::utp::UtpConnectionId;

use super::{HostId, Link, LinkId, Net, Pipe, Side};

/// Caller, callee, and what packets to the caller bear.
pub(super) type StreamKey = (SocketAddr, SocketAddr, UtpConnectionId);

/// What is known of a connection beside its ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    known_by: UtpConnectionId,
    /// The callee has heard of it. Until then it is remembered, though the caller may have left: it reads what was written.
    answered: bool,
}

impl Net {
    /// A host calls another. `known_by`: what packets to it will bear.
    pub fn call_stream(
        &mut self,
        host: HostId,
        (from, to): (SocketAddr, SocketAddr),
        known_by: UtpConnectionId,
    ) -> LinkId {
        self.add_stream([Some(host), None], (from, to, known_by))
    }

    /// A host was called, by somebody whose packets bear this.
    pub fn answer_stream(
        &mut self,
        host: HostId,
        (from, to): (SocketAddr, SocketAddr),
        known_by: UtpConnectionId,
    ) -> LinkId {
        let key = (from, to, known_by);
        let called = self.streams.get(&key).copied();
        if let Some((id, link)) = called.and_then(|id| Some((id, self.link(id)?)))
            && let Some(stream) = link.stream.as_mut().filter(|stream| !stream.answered)
        {
            stream.answered = true;
            link.ends[Side::Callee.at()] = Some(host);
            return id;
        }
        self.blame(|| format!("{to} hears of a stream that {from} never began, or of one twice"));
        self.add_stream([None, Some(host)], key)
    }

    /// `side` wrote these bytes; `full`: there was no room for more.
    pub fn stream_took(&mut self, id: LinkId, side: Side, bytes: &[u8], full: bool) {
        let Some(link) = self.link(id) else { return };
        let pipe = &mut link.pipes[side.at()];
        pipe.take(bytes);
        pipe.full = full;
    }

    /// `side` read these bytes: the next that the other wrote, or something is wrong.
    pub fn stream_gave(&mut self, id: LinkId, side: Side, bytes: &[u8]) {
        let Some(link) = self.link(id) else { return };
        let pipe = &mut link.pipes[side.other().at()];
        pipe.arrive(bytes.len());
        let (same, total) = (pipe.readable() == bytes, pipe.total());
        pipe.consume(bytes.len());
        if !same {
            self.blame(|| format!("{id:?}: {side:?} reads what was never written, of {total} bytes"));
        }
    }

    /// `side` was told that the other writes no more, and that it has read all.
    pub fn stream_ended(&mut self, id: LinkId, side: Side) {
        let Some(link) = self.link(id) else { return };
        if link.pipes[side.other().at()].is_flying() {
            self.blame(|| format!("{id:?}: {side:?} is told that all came, and bytes are missing"));
        }
    }

    /// `side` has ended it. The other hears of it by datagrams, or not at all.
    pub fn leave_stream(&mut self, id: LinkId, side: Side) {
        let Some(link) = self.link(id) else { return };
        link.ends[side.at()] = None;
        if let (Some(Stream { known_by, answered: true }), [None, None]) = (link.stream, link.ends) {
            let key = (link.from, link.to, known_by);
            self.links[id.0 as usize] = None;
            self.taps.forget(id);
            if self.streams.get(&key) == Some(&id) {
                self.streams.remove(&key);
            }
        }
    }

    /// The address of one end, which may have left, or not answered yet.
    pub fn place_of(&self, id: LinkId, side: Side) -> Option<SocketAddr> {
        let link = self.links.get(id.0 as usize)?.as_ref()?;
        Some([link.from, link.to][side.at()])
    }

    fn add_stream(&mut self, ends: [Option<HostId>; 2], key: StreamKey) -> LinkId {
        let id = LinkId(self.links.len() as u32);
        let pipes = [Pipe::new(usize::MAX), Pipe::new(usize::MAX)];
        let (from, to, known_by) = key;
        let stream = Some(Stream { known_by, answered: false });
        self.links.push(Some(Link { from, to, stream, ends, pipes, latency: Duration::ZERO }));
        self.streams.insert(key, id);
        id
    }
}
