//! Connections of a node: dialing, accepting, handing over, reading, writing.
//!
//! Bytes that the engine did not eat stay in the pipe, as in the shell they stay with the socket. What it is offered is
//! cut anywhere, and so is what is taken of what it sends. What is said of connections by uTP is `streams`'; once they
//! stand, the same is done with them as with pipes.

use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_engine::cx::{Ate, Carrier, ConnId, DialId, Goodbye, Sending};
use piecemeal_transport::utp::UtpId;

use super::{Node, to_owner};
use crate::net::{Ending, Event, LinkId, Mail, Net, Side};

/// As in the shell: what is read at a time.
const READ_BYTES: usize = 64 << 10;
/// As in the shell: gathering writes that a Server may leave to be sent when it hands a connection over.
const HANDOVER_WRITES: usize = 16;
/// What a write takes at a time at most; chance takes less.
const WRITE_BYTES: usize = 64 << 10;
/// In so many of a hundred cases a read or write is cut somewhere.
const CUT_PERCENT: usize = 40;

/// Which of the two a connection belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    Front,
    Data,
}

/// How a connection ends, as in the shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// We end it; what was written may still arrive.
    Over,
    /// It is of no use any more.
    Broken,
}

/// Whether a connection wants to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wants {
    Nothing,
    Listed,
    Room,
}

/// A connection, or an attempt at one.
pub(super) struct Conn {
    pub(super) link: LinkId,
    pub(super) side: Side,
    /// By uTP: which of its streams.
    pub(super) stream: Option<UtpId>,
    pub(super) owner: Owner,
    /// Set until the dial has ended.
    pub(super) dialing: Option<DialId>,
    /// Its owner has no memory for more.
    pub(super) thirsty: bool,
    /// The other side has ended it.
    pub(super) ending: Option<Ending>,
    write: Wants,
    /// Bytes that the owner before had yet to send.
    unsent: Vec<u8>,
}

impl Node {
    /// Connects; answered by `on_dialed`.
    pub(super) fn dial(
        &mut self,
        net: &mut Net,
        dial: DialId,
        (to, carrier): (SocketAddr, Carrier),
        patience: Duration,
    ) {
        let now = self.time(net);
        if to.is_ipv6() {
            let Some(engine) = &mut self.engine else { return };
            return engine.server.on_dialed(now, dial, Err("Network is unreachable".into()));
        }
        let conn = match carrier {
            Carrier::Tcp => {
                let link = net.dial(self.id, self.addr, to);
                self.add_conn((link, Side::Caller), None, Some(dial))
            }
            Carrier::Utp => match self.dial_stream(net, dial, to) {
                Ok(conn) => conn,
                Err(why) => {
                    let Some(engine) = &mut self.engine else { return };
                    return engine.server.on_dialed(now, dial, Err(why));
                }
            },
        };
        let link = self.conns[&conn].link;
        net.trace.note(net.now, self.id.0, "dial", u64::from(link.0), u64::from(to.port()));
        net.plan(net.now + patience, Event::Host(self.id, self.life, Mail::Late(conn)));
    }

    /// Somebody called.
    pub fn on_accepted(&mut self, net: &mut Net, link: LinkId, from: SocketAddr) {
        self.accept(net, link, from, None);
        self.turn(net);
    }

    /// The same; `stream`: by uTP.
    pub(super) fn accept(
        &mut self,
        net: &mut Net,
        link: LinkId,
        from: SocketAddr,
        stream: Option<UtpId>,
    ) -> ConnId {
        let now = self.time(net);
        net.trace.note(net.now, self.id.0, "accept", u64::from(link.0), u64::from(stream.is_some()));
        let conn = self.add_conn((link, Side::Callee), stream, None);
        if let Some(engine) = &mut self.engine {
            engine.stirred = true;
            let carrier = if stream.is_some() { Carrier::Utp } else { Carrier::Tcp };
            engine.server.on_accepted(now, conn, from, carrier);
        }
        conn
    }

    /// A dial was answered.
    pub fn on_answer(&mut self, net: &mut Net, link: LinkId, there: bool) {
        let Some(id) = self.by_link.get(&link).copied() else { return };
        let result = if there { Ok(id) } else { Err("Connection refused".into()) };
        self.answered(net, id, result);
        self.turn(net);
    }

    /// A dial has ended, in one way or another.
    pub(super) fn answered(&mut self, net: &mut Net, id: ConnId, result: Result<ConnId, String>) {
        let now = self.time(net);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(dial) = conn.dialing.take() else { return };
        net.trace.note(net.now, self.id.0, "dialed", u64::from(conn.link.0), u64::from(result.is_ok()));
        if result.is_err() {
            self.forget_conn(net, id, End::Over);
        }
        let Some(engine) = &mut self.engine else { return };
        engine.stirred = true;
        engine.server.on_dialed(now, dial, result);
        self.carry(net);
        self.read(net, id);
    }

    /// A dial took too long.
    pub(super) fn dial_is_late(&mut self, net: &mut Net, id: ConnId) {
        self.answered(net, id, Err("nobody answered".into()));
    }

    /// Bytes are there to be read.
    pub fn on_bytes(&mut self, net: &mut Net, link: LinkId) {
        let Some(id) = self.by_link.get(&link).copied() else { return };
        self.read(net, id);
        self.turn(net);
    }

    /// The other side has ended it.
    pub fn on_end(&mut self, net: &mut Net, link: LinkId, ending: Ending) {
        let Some(id) = self.by_link.get(&link).copied() else { return };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.ending = Some(ending);
        if ending == Ending::Reset {
            self.lose(net, id, Goodbye::Failed("Connection reset by peer".into()));
        } else {
            self.read(net, id);
        }
        self.turn(net);
    }

    /// A link that was full has room.
    pub fn on_room(&mut self, net: &mut Net, link: LinkId) {
        let Some(id) = self.by_link.get(&link).copied() else { return };
        self.may_write(id);
        self.turn(net);
    }

    /// A connection that waits for room has some.
    pub(super) fn may_write(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.write == Wants::Room) {
            conn.write = Wants::Listed;
            self.to_write.push(id);
        }
    }

    pub(super) fn add_conn(
        &mut self,
        (link, side): (LinkId, Side),
        stream: Option<UtpId>,
        dialing: Option<DialId>,
    ) -> ConnId {
        self.serial += 1;
        let id = ConnId(self.serial);
        let conn = Conn {
            link,
            side,
            stream,
            owner: Owner::Front,
            dialing,
            thirsty: false,
            ending: None,
            write: Wants::Nothing,
            unsent: Vec::new(),
        };
        self.conns.insert(id, conn);
        self.by_link.insert(link, id);
        id
    }

    /// Ends a connection without a word to its owner.
    pub(super) fn forget_conn(&mut self, net: &mut Net, id: ConnId, end: End) {
        let Some(conn) = self.conns.remove(&id) else { return };
        self.by_link.remove(&conn.link);
        match conn.stream {
            None => net.close(conn.link, conn.side),
            Some(stream) => {
                self.end_stream(net, stream, end);
                net.leave_stream(conn.link, conn.side);
            }
        }
    }

    /// A connection ended, not by our will; tells its owner.
    pub(super) fn lose(&mut self, net: &mut Net, id: ConnId, why: Goodbye) {
        let now = self.time(net);
        let Some(conn) = self.conns.get(&id) else { return };
        let owner = conn.owner;
        net.trace.say(net.now, self.id.0, format_args!("loses {}: {why:?}", id.0));
        self.forget_conn(net, id, End::Broken);
        let Some(engine) = &mut self.engine else { return };
        engine.stirred = true;
        to_owner!(engine, owner, it => it.on_closed(now, id, why));
        self.carry(net);
    }

    /// Changes a connection's owner. Bytes that the Server has yet to send go first. False if it is gone.
    pub(super) fn hand_over(&mut self, net: &mut Net, id: ConnId) -> bool {
        let now = self.time(net);
        let Some(engine) = &mut self.engine else { return false };
        let Some(conn) = self.conns.get_mut(&id) else { return false };
        for _ in 0..HANDOVER_WRITES {
            let took = engine.server.with_sealed(id, |slices| {
                let before = conn.unsent.len();
                for slice in slices {
                    let Sending::Bytes(bytes) = slice else { break };
                    conn.unsent.extend_from_slice(bytes);
                }
                conn.unsent.len() - before
            });
            match took {
                None | Some(0) => break,
                Some(took) => engine.server.on_wrote(now, id, took),
            }
        }
        (conn.owner, conn.thirsty) = (Owner::Data, false);
        self.list_to_write(net, id);
        true
    }

    /// Reads from a connection until it has no more, or its owner thirsts.
    pub(super) fn read(&mut self, net: &mut Net, id: ConnId) {
        let now = self.time(net);
        while let Some(conn) = self.conns.get_mut(&id) {
            let Some(engine) = &mut self.engine else { return };
            if conn.thirsty || conn.dialing.is_some() {
                return;
            }
            let (link, side, owner, stream) = (conn.link, conn.side, conn.owner, conn.stream);
            let there = match stream {
                None => net.readable(link, side),
                Some(stream) => engine.streams.readable(stream),
            };
            let there = there.len().min(READ_BYTES);
            if there == 0 {
                if conn.ending.is_some() {
                    if stream.is_some() {
                        net.stream_ended(link, side);
                    }
                    self.lose(net, id, Goodbye::Closed);
                }
                return;
            }
            let cut = net.dice.percent(CUT_PERCENT);
            let offer = if cut { net.dice.pick(1..there + 1) } else { there };
            engine.stirred = true;
            let bytes = match stream {
                None => &net.readable(link, side)[..offer],
                Some(stream) => &engine.streams.readable(stream)[..offer],
            };
            let Ate { bytes: ate, thirsty } = to_owner!(engine, owner, it => it.on_bytes(now, id, bytes));
            if ate > offer || (ate < offer && !thirsty && owner == Owner::Data) {
                net.blame(|| format!("{}: ate {ate} of {offer} bytes, thirsty: {thirsty}", self.addr));
            }
            conn.thirsty = thirsty || ate == 0;
            self.thirsts += u64::from(thirsty);
            net.trace.note(net.now, self.id.0, "ate", u64::from(link.0), ate as u64);
            match stream {
                None => net.consume(link, side, ate),
                Some(stream) => engine.streams.consumed(net, now, (stream, link, side), ate),
            }
            if owner == Owner::Front {
                self.carry(net);
            }
        }
    }

    /// It has something to send.
    pub(super) fn list_to_write(&mut self, net: &mut Net, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.write == Wants::Nothing && conn.dialing.is_none() {
            // A stream says when there is room only after it took less than all.
            let room = conn.stream.is_some() || net.room(conn.link, conn.side) > 0;
            conn.write = if room { Wants::Listed } else { Wants::Room };
            if conn.write == Wants::Listed {
                self.to_write.push(id);
            }
        }
    }

    pub(super) fn write_all(&mut self, net: &mut Net) {
        for id in std::mem::take(&mut self.to_write) {
            self.write(net, id);
        }
    }

    /// Writes to a connection until it has no more, or the link is full.
    fn write(&mut self, net: &mut Net, id: ConnId) {
        let now = self.time(net);
        while let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.write == Wants::Listed) {
            let Some(engine) = &mut self.engine else { return };
            let room = match conn.stream {
                None => net.room(conn.link, conn.side),
                Some(stream) => engine.streams.room(stream).max(1),
            };
            let room = room.min(WRITE_BYTES);
            if room == 0 {
                conn.write = Wants::Room;
                return;
            }
            let (link, side, owner, stream) = (conn.link, conn.side, conn.owner, conn.stream);
            let most = if net.dice.percent(CUT_PERCENT) { net.dice.pick(1..room + 1) } else { room };
            let mut bytes = std::mem::take(&mut self.scratch);
            bytes.clear();
            let stale = !conn.unsent.is_empty();
            let there = if stale {
                bytes.extend_from_slice(&conn.unsent);
                Some(true)
            } else {
                let disk = &mut self.disk;
                to_owner!(engine, owner, it => it.with_sealed(id, |slices| {
                    slices.iter().all(|slice| bytes.len() >= most || match slice {
                        Sending::Bytes(slice) => {
                            bytes.extend_from_slice(slice);
                            true
                        }
                        Sending::File(span) => disk.send_from(span, &mut bytes),
                    })
                }))
            };
            bytes.truncate(most);
            let took = match stream {
                None => net.send(link, side, &bytes),
                Some(stream) => engine.streams.write(net, now, (stream, link, side), &bytes),
            };
            if took < bytes.len() {
                conn.write = Wants::Room;
            }
            self.content_out += net.taps.heard(net.now, link, side, &bytes[..took]);
            self.scratch = bytes;
            if took == 0 && there != Some(false) {
                if conn.write == Wants::Listed {
                    conn.write = Wants::Nothing;
                }
                return;
            }
            net.trace.note(net.now, self.id.0, "wrote", u64::from(link.0), took as u64);
            if stale {
                conn.unsent.drain(..took);
            } else if took > 0 {
                to_owner!(engine, owner, it => it.on_wrote(now, id, took));
            }
            if there == Some(false) {
                return self.lose(net, id, Goodbye::Unreadable("a file is shorter than it was".into()));
            }
        }
    }
}
