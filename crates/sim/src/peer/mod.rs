//! Peers that follow a script instead of an engine: one honest, the others as a swarm may hold them.
//!
//! Owns raw connections and how each kind behaves. They speak through the codecs of `wire` alone, so they share no
//! mistake with the engine.

mod manner;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use piecemeal_metainfo::PeerId;
use piecemeal_wire::handshake::{HANDSHAKE_BYTES, Handshake, Progress, Reserved};
use piecemeal_wire::message::{Head, Limits, Message, PIECE_HEADER_BYTES, decode_head, piece_header};

use crate::dice::Dice;
use crate::net::{Ending, Event, HostId, Life, LinkId, Mail, Net, Side};
use crate::torrent::Torrent;
pub use manner::Manner;

/// Of a peer that has more to say than this to one who does not listen, the rest is dropped.
const OUTBOX_BYTES: usize = 4 << 20;

/// See the module.
pub struct Peer {
    /// Its number on the network.
    pub id: HostId,
    /// Where it listens.
    pub addr: SocketAddr,
    /// How it behaves.
    pub manner: Manner,
    /// Blocks it sent.
    pub served: u64,
    /// Of those, wrong ones.
    pub lies: u64,
    /// Blocks it received.
    pub received: u64,
    /// Connections that ended, not by its own will.
    pub dropped: u64,
    torrent: Arc<Torrent>,
    name: PeerId,
    reserved: Reserved,
    dice: Dice,
    talks: BTreeMap<LinkId, Talk>,
}

/// One connection.
struct Talk {
    side: Side,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// It said its handshake.
    said: bool,
    /// It heard the other's.
    heard: bool,
    /// Requests without answer, of one that asks.
    asked: u32,
    /// The next block to ask for.
    next: u32,
    unchoked: bool,
}

impl Peer {
    /// A peer of this kind, about this torrent.
    pub fn new(
        net: &mut Net,
        addr: SocketAddr,
        torrent: Arc<Torrent>,
        manner: Manner,
        mut dice: Dice,
    ) -> Peer {
        let id = net.join(2 << 20, 4 << 20);
        net.listen(addr, id);
        let mut name = *b"-XX0001-............";
        name[8..].copy_from_slice(&dice.bytes::<12>().map(|byte| b'A' + byte % 26));
        let reserved = if dice.percent(50) { Reserved::NONE.with_fast() } else { Reserved::NONE };
        let (served, lies, received, dropped) = (0, 0, 0, 0);
        let (name, talks) = (PeerId(name), BTreeMap::new());
        Peer { id, addr, manner, served, lies, received, dropped, torrent, name, reserved, dice, talks }
    }

    /// Calls somebody.
    pub fn call(&mut self, net: &mut Net, to: SocketAddr) {
        let link = net.dial(self.id, self.addr, to);
        self.talks.insert(link, Talk::new(Side::Caller));
    }

    /// How many connections it has.
    pub fn conns(&self) -> usize {
        self.talks.len()
    }

    /// Somebody called.
    pub fn on_accepted(&mut self, net: &mut Net, link: LinkId) {
        self.talks.insert(link, Talk::new(Side::Callee));
        self.opened(net, link);
    }

    /// A call was answered.
    pub fn on_answer(&mut self, net: &mut Net, link: LinkId, there: bool) {
        if there {
            self.opened(net, link);
            self.say_hello(net, link);
        } else {
            self.hang_up(net, link);
        }
    }

    /// The other side has ended it.
    pub fn on_end(&mut self, net: &mut Net, link: LinkId, _: Ending) {
        self.dropped += 1;
        self.hang_up(net, link);
    }

    /// A link that was full has room.
    pub fn on_room(&mut self, net: &mut Net, link: LinkId) {
        self.flush(net, link);
    }

    /// Bytes are there to be read.
    pub fn on_bytes(&mut self, net: &mut Net, link: LinkId) {
        let Some(talk) = self.talks.get_mut(&link) else { return };
        if self.manner == Manner::Slowloris || (self.manner == Manner::Deaf && talk.unchoked) {
            return;
        }
        let bytes = net.readable(link, talk.side);
        talk.inbox.extend_from_slice(bytes);
        let count = bytes.len();
        net.consume(link, talk.side, count);
        while self.read_one(net, link) {}
        self.flush(net, link);
    }

    /// It wanted to be woken.
    pub fn on_wake(&mut self, net: &mut Net, link: LinkId) {
        if self.talks.contains_key(&link) {
            self.woken(net, link);
            self.flush(net, link);
        }
    }

    fn hang_up(&mut self, net: &mut Net, link: LinkId) {
        if let Some(talk) = self.talks.remove(&link) {
            net.close(link, talk.side);
        }
    }

    fn wake_in(&self, net: &mut Net, link: LinkId, span: Duration) {
        net.plan(net.now + span, Event::Host(self.id, Life(0), Mail::Wake(link)));
    }

    fn hello(&self) -> [u8; HANDSHAKE_BYTES] {
        Handshake { reserved: self.reserved, info_hash: self.torrent.hash(), peer_id: self.name }.encode()
    }

    fn say_hello(&mut self, net: &mut Net, link: LinkId) {
        let hello = self.hello();
        let Some(talk) = self.talks.get_mut(&link).filter(|talk| !talk.said) else { return };
        talk.said = true;
        if self.manner == Manner::Slowloris {
            // It comes byte by byte, by and by.
            return;
        }
        talk.outbox.extend(hello);
        self.flush(net, link);
    }

    fn say(&mut self, link: LinkId, message: &Message<'_>) {
        if let Some(talk) = self.talks.get_mut(&link)
            && talk.outbox.len() < OUTBOX_BYTES
        {
            message.encode(&mut talk.outbox);
        }
    }

    fn flush(&mut self, net: &mut Net, link: LinkId) {
        let Some(talk) = self.talks.get_mut(&link) else { return };
        while !talk.outbox.is_empty() {
            let part = self.dice.pick(1..talk.outbox.len().min(64 << 10) + 1);
            let took = net.send(link, talk.side, &talk.outbox[..part]);
            net.taps.heard(net.now, link, talk.side, &talk.outbox[..took]);
            talk.outbox.drain(..took);
            if took < part {
                return;
            }
        }
    }

    /// Reads one message, if there is a whole one.
    fn read_one(&mut self, net: &mut Net, link: LinkId) -> bool {
        let Some(talk) = self.talks.get_mut(&link) else { return false };
        let inbox = std::mem::take(&mut talk.inbox);
        let (used, heard) = (self.read_from(net, link, &inbox), &inbox);
        let (rest, used) = match used {
            Ok(used) => (heard[used..].to_vec(), used),
            Err(()) => {
                self.hang_up(net, link);
                return false;
            }
        };
        if let Some(talk) = self.talks.get_mut(&link) {
            talk.inbox = rest;
        }
        used > 0
    }

    fn read_from(&mut self, net: &mut Net, link: LinkId, bytes: &[u8]) -> Result<usize, ()> {
        let Some(talk) = self.talks.get_mut(&link) else { return Ok(0) };
        if !talk.heard {
            return match Handshake::decode(bytes).map_err(|_| ())? {
                Progress::Partial { .. } => Ok(0),
                Progress::Whole(_) => {
                    talk.heard = true;
                    self.say_hello(net, link);
                    self.introduced(net, link);
                    Ok(HANDSHAKE_BYTES)
                }
            };
        }
        let limits = Limits { pieces: Some(self.torrent.meta.piece_count()), ..Limits::default() };
        match decode_head(bytes, &limits).map_err(|_| ())? {
            Head::NeedMore => Ok(0),
            Head::KeepAlive => Ok(4),
            Head::Piece { len, .. } => {
                let whole = PIECE_HEADER_BYTES + len as usize;
                if bytes.len() < whole {
                    return Ok(0);
                }
                self.received += 1;
                self.got_block(link);
                Ok(whole)
            }
            Head::Message { message, consumed } => {
                self.heard(link, &message);
                Ok(consumed)
            }
        }
    }

    /// Sends a block, right or wrong.
    fn give(&mut self, link: LinkId, (piece, begin, len): (u32, u32, u32), lie: bool) {
        let Some(talk) = self.talks.get_mut(&link) else { return };
        let Some(bytes) = self.torrent.stretch(piece, begin, len) else { return };
        if talk.outbox.len() >= OUTBOX_BYTES {
            return;
        }
        talk.outbox.extend(piece_header(piece, begin, len));
        let from = talk.outbox.len();
        talk.outbox.extend_from_slice(bytes);
        if lie {
            let at = from + self.dice.below(len as usize);
            talk.outbox[at] ^= 1 << self.dice.below(8);
            self.lies += 1;
        }
        self.served += 1;
    }
}

impl Talk {
    fn new(side: Side) -> Talk {
        Talk {
            side,
            inbox: Vec::new(),
            outbox: Vec::new(),
            said: false,
            heard: false,
            asked: 0,
            next: 0,
            unchoked: false,
        }
    }
}
