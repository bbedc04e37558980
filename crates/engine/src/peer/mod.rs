//! One peer: what it said, what we asked of it, what it asked of us.
//!
//! A PeerConnection is completely reactive: it answers bytes and commands, owns no timer and decides nothing. It owns the
//! choke state of both sides, the pieces the peer has, the requests in both directions and the bytes to be sent. What
//! to ask, whom to serve and when to end it is the Controller's; what the bytes mean is `wire`'s.
//!
//! - here: messages in. - `reading`: bytes to messages. - `asking`: our requests. - `serving`: theirs. -
//!   `pipeline`: how many of ours. - `send_queue`: bytes out. - `extensions`: BEP 10.

mod asking;
mod extensions;
mod pipeline;
mod reading;
mod send_queue;
mod serving;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use piecemeal_metainfo::{Bitfield, PeerId, PieceIndex, Time};
use piecemeal_package::{BlockRef, Buf};
use piecemeal_wire::holepunch::HolepunchMessage;
use piecemeal_wire::message::{Head, KEEP_ALIVE, Limits, Message, decode_head};
use piecemeal_wire::peer_id::client_name;
use piecemeal_wire::pex::PexMessage;

use crate::cx::{Carrier, ConnId, Cx, Goodbye, Handed, Net, Sending};
use crate::picker::Has;
use crate::rate::Meter;
use asking::Asking;
use extensions::Extensions;
pub use extensions::{Hello, Ourselves};
use reading::{Read, Reader};
pub use send_queue::{Body, Wrote};
use serving::Serving;

/// Breaches that a race or another reading of the BEP may explain, before a peer is sent away (as libtorrent's 300
/// invalid requests).
const MOST_RUDE: u32 = 300;
/// Pieces a peer may allow us while it chokes us; BEP 6 knows sets of ten.
const MOST_ALLOWED: usize = 64;

/// What a peer said or sent, as far as others must act on it.
#[derive(Debug)]
pub enum Heard {
    /// A Block; `asked` is false if we had given up on it.
    Block {
        /// Which.
        at: BlockRef,
        /// Its bytes, the receiver's to give back.
        buf: Buf,
        /// It was asked for just now.
        asked: bool,
    },
    /// Bytes of content that nobody asked for.
    Unasked(u32),
    /// It takes our requests no longer: these will not be answered.
    Choked(Vec<BlockRef>),
    /// It takes our requests.
    Unchoked,
    /// It wants something of us, or no longer does.
    Interested(bool),
    /// It told all it has; see [`PeerConnection::has`].
    Pieces {
        /// What it had before.
        before: Bitfield,
        /// The Picker was told that it has everything.
        had_all: bool,
    },
    /// It has one more piece.
    Have(PieceIndex),
    /// It has one piece less (BEP 54).
    DontHave {
        /// Which.
        piece: PieceIndex,
        /// The Picker was told that it has everything.
        had_all: bool,
    },
    /// It asks for this.
    Request(BlockRef),
    /// It took a request back: there is room for the next.
    Cancelled,
    /// It will not answer this request (BEP 6).
    Rejected(BlockRef),
    /// It lets us ask for this piece while it chokes us (BEP 6).
    AllowedFast(PieceIndex),
    /// Its extension handshake (BEP 10).
    Hello(Hello),
    /// It asks for a piece of the info dictionary (BEP 9).
    WantsMetadata(u32),
    /// A piece of the info dictionary (BEP 9).
    Metadata {
        /// Which.
        piece: u32,
        /// Bytes of the whole, as it claims.
        total: u32,
        /// As many bytes as this piece of such a dictionary has.
        data: Vec<u8>,
    },
    /// It will not give this piece of the info dictionary (BEP 9).
    NoMetadata(u32),
    /// Peers it tells of (BEP 11).
    Pex(PexMessage),
    /// What it says of holes through NATs (BEP 55).
    Holepunch(HolepunchMessage),
    /// It has a node of the DHT at this port (BEP 5).
    Node(u16),
}

/// What [`PeerConnection::next`] came to.
#[derive(Debug)]
pub enum Next {
    /// Something to act on; ask again.
    Heard(Heard),
    /// All bytes are eaten.
    More,
    /// No Buf was free; what is left must be offered again.
    Thirsty,
}

/// See the module.
#[derive(Debug)]
pub struct PeerConnection {
    conn: ConnId,
    addr: SocketAddr,
    peer_id: PeerId,
    outgoing: bool,
    carrier: Carrier,
    encrypted: bool,
    fast: bool,
    dht: bool,
    limits: Limits,
    reader: Reader,
    has: Bitfield,
    /// It told that it has everything when it introduced itself.
    joined_full: bool,
    /// It told what it has.
    introduced: bool,
    /// Its first word is to be answered with a keep-alive.
    nudge: bool,
    chokes_us: bool,
    wants_us: bool,
    interested: bool,
    asking: Asking,
    /// Pieces it lets us have while it chokes us.
    allowed: Vec<PieceIndex>,
    serving: Serving,
    extensions: Extensions,
    down: Meter,
    connected_at: Time,
    last_heard: Time,
    last_sent: Time,
    rude: u32,
}

impl PeerConnection {
    /// A peer of a torrent of `pieces` pieces, whose handshake is done. `None`: how many is not known yet; what it says
    /// of pieces is passed over then.
    pub fn new(now: Time, handed: &Handed, pieces: Option<u32>) -> PeerConnection {
        let limits = Limits { pieces, ..Limits::default() };
        let pieces = pieces.unwrap_or(0);
        PeerConnection {
            conn: handed.conn,
            addr: handed.addr,
            peer_id: handed.peer_id,
            outgoing: handed.outgoing,
            carrier: handed.carrier,
            encrypted: handed.ciphers.is_some(),
            fast: handed.reserved.fast(),
            dht: handed.reserved.dht(),
            limits,
            reader: Reader::default(),
            has: Bitfield::new(pieces),
            joined_full: false,
            introduced: false,
            nudge: !handed.outgoing && handed.carrier == Carrier::Utp,
            chokes_us: true,
            wants_us: false,
            interested: false,
            asking: Asking::default(),
            allowed: Vec::new(),
            serving: Serving::new(now),
            extensions: Extensions::new(handed.reserved.extension()),
            down: Meter::new(now),
            connected_at: now,
            last_heard: now,
            last_sent: now,
            rude: 0,
        }
    }

    /// The next thing in `input`, which shrinks by what was eaten. Call until [`Next::More`] or [`Next::Thirsty`].
    ///
    /// # Errors
    /// The peer broke the protocol and must go.
    pub fn next(&mut self, cx: &mut Cx<'_>, input: &mut &[u8]) -> Result<Next, Goodbye> {
        self.last_heard = cx.now;
        // Judging a message needs all of the connection but the reader, in which the message may lie.
        let mut reader = std::mem::take(&mut self.reader);
        let next = self.read_on(cx, &mut reader, input);
        self.reader = reader;
        next
    }

    fn read_on(&mut self, cx: &mut Cx<'_>, reader: &mut Reader, input: &mut &[u8]) -> Result<Next, Goodbye> {
        let impossible = |_| Goodbye::Broke("a message of impossible length");
        loop {
            let wants = |at| self.asking.waits_for(at);
            let read = reader.next(cx.now, cx.pool, &self.limits, input, wants).map_err(impossible)?;
            let bytes = match read {
                Read::Message(bytes) => bytes,
                Read::Kept => reader.kept(),
                Read::Block(at, buf) => return Ok(Next::Heard(self.came(cx.now, at, buf))),
                Read::Unasked(bytes) => return self.unasked(bytes),
                Read::More => return Ok(Next::More),
                Read::Thirsty => return Ok(Next::Thirsty),
            };
            self.nudge(cx);
            let Head::Message { message, .. } = decode_head(bytes, &self.limits).map_err(impossible)? else {
                continue;
            };
            if let Some(heard) = self.judge(cx, message)? {
                return Ok(Next::Heard(heard));
            }
        }
    }

    /// Transmission, having called by uTP, hears nothing of what came in one read with our handshake until more comes:
    /// what we said right behind it would wait for minutes. By its first word its handshake is over.
    fn nudge(&mut self, cx: &mut Cx<'_>) {
        if std::mem::take(&mut self.nudge) {
            self.keep_alive(cx);
        }
    }

    fn came(&mut self, now: Time, at: BlockRef, buf: Buf) -> Heard {
        self.down.add(u64::from(at.len), now);
        let asked = self.asking.came(now, at, self.down.rate(now));
        Heard::Block { at, buf, asked }
    }

    fn unasked(&mut self, bytes: u32) -> Result<Next, Goodbye> {
        if !self.asking.forgive() {
            self.offend("sends blocks that nobody asked for")?;
        }
        Ok(Next::Heard(Heard::Unasked(bytes)))
    }

    fn judge(&mut self, cx: &mut Cx<'_>, message: Message<'_>) -> Result<Option<Heard>, Goodbye> {
        if self.limits.pieces.is_none() && speaks_of_pieces(&message) {
            self.introduced = true;
            return Ok(None);
        }
        Ok(match message {
            Message::Choke => {
                self.chokes_us = true;
                // With BEP 6 each request is rejected by itself, and those for allowed pieces stand.
                let lost = if self.fast { Vec::new() } else { self.asking.forget_all() };
                Some(Heard::Choked(lost))
            }
            Message::Unchoke => {
                self.chokes_us = false;
                Some(Heard::Unchoked)
            }
            Message::Interested | Message::NotInterested => {
                let wants = message == Message::Interested;
                let changed = std::mem::replace(&mut self.wants_us, wants) != wants;
                changed.then_some(Heard::Interested(wants))
            }
            Message::Have { piece } => {
                let piece = self.piece(piece)?;
                self.introduced = true;
                self.has.set(piece).then_some(Heard::Have(piece))
            }
            Message::Bitfield(bytes) => {
                let has = Bitfield::from_wire(bytes, self.has.pieces());
                let has = has.map_err(|_| Goodbye::Broke("sends a bitfield with spare bits"))?;
                Some(self.told_all(has)?)
            }
            Message::HaveAll | Message::HaveNone if !self.fast => {
                return Err(Goodbye::Broke("speaks BEP 6 without saying so"));
            }
            Message::HaveAll => Some(self.introduce(Bitfield::full(self.has.pieces()))?),
            Message::HaveNone => Some(self.introduce(Bitfield::new(self.has.pieces()))?),
            Message::Request { piece, begin, len } => {
                Some(Heard::Request(BlockRef { piece: PieceIndex(piece), begin, len }))
            }
            Message::Cancel { piece, begin, len } => {
                self.cancelled(cx, BlockRef { piece: PieceIndex(piece), begin, len });
                Some(Heard::Cancelled)
            }
            Message::Reject { piece, begin, len } => {
                let at = BlockRef { piece: PieceIndex(piece), begin, len };
                self.asking.forget_late(at);
                self.asking.forget(at).then_some(Heard::Rejected(at))
            }
            Message::AllowedFast { piece } => self.allow(piece)?,
            Message::Extended { id, payload } => self.extended(cx, id, payload)?,
            Message::Port(port) => (port != 0).then_some(Heard::Node(port)),
            Message::Suggest { .. } | Message::Unknown { .. } => None,
            Message::HashRequest(range) => {
                self.tell(cx, |out| Message::HashReject(range).encode(out));
                None
            }
            Message::Hashes(..) | Message::HashReject(_) => None,
        })
    }

    /// It tells all it has, instead of a bitfield (BEP 6): once, and first.
    fn introduce(&mut self, has: Bitfield) -> Result<Heard, Goodbye> {
        if self.introduced {
            return Err(Goodbye::Broke("tells twice what it has"));
        }
        self.told_all(has)
    }

    /// A bitfield belongs to the start (BEP 3), but aria2 sends one later too, where that is shorter than many `have`s.
    fn told_all(&mut self, has: Bitfield) -> Result<Heard, Goodbye> {
        if std::mem::replace(&mut self.introduced, true) {
            self.offend("tells again and again what it has")?;
        }
        let before = std::mem::replace(&mut self.has, has);
        let had_all = std::mem::replace(&mut self.joined_full, self.has.all());
        Ok(Heard::Pieces { before, had_all })
    }

    fn allow(&mut self, piece: u32) -> Result<Option<Heard>, Goodbye> {
        let piece = self.piece(piece)?;
        if self.allowed.len() >= MOST_ALLOWED || self.allowed.contains(&piece) {
            return Ok(None);
        }
        self.allowed.push(piece);
        Ok(Some(Heard::AllowedFast(piece)))
    }

    fn piece(&self, number: u32) -> Result<PieceIndex, Goodbye> {
        if number < self.has.pieces() {
            Ok(PieceIndex(number))
        } else {
            Err(Goodbye::Broke("names a piece that does not exist"))
        }
    }

    /// Counts a breach.
    ///
    /// # Errors
    /// That was one too many.
    pub fn offend(&mut self, how: &'static str) -> Result<(), Goodbye> {
        self.rude += 1;
        if self.rude > MOST_RUDE { Err(Goodbye::Broke(how)) } else { Ok(()) }
    }

    /// Says what we have, as the first message after the handshake.
    pub fn introduce_us(&mut self, cx: &mut Cx<'_>, have: &Bitfield) {
        match (self.fast, have.none(), have.all()) {
            (true, true, _) => self.tell(cx, |out| Message::HaveNone.encode(out)),
            (true, _, true) => self.tell(cx, |out| Message::HaveAll.encode(out)),
            (false, true, _) => {}
            _ => self.tell(cx, |out| Message::Bitfield(&have.to_wire()).encode(out)),
        }
    }

    /// Says that we have one more piece.
    pub fn have(&mut self, cx: &mut Cx<'_>, piece: PieceIndex) {
        self.tell(cx, |out| Message::Have { piece: piece.0 }.encode(out));
    }

    /// Says that we have a node of the DHT at `port` (BEP 5), if the peer has one too.
    pub fn tell_node(&mut self, cx: &mut Cx<'_>, port: u16) {
        if self.dht {
            self.tell(cx, |out| Message::Port(port).encode(out));
        }
    }

    /// Says whether we want something it has, if that changed.
    pub fn set_interested(&mut self, cx: &mut Cx<'_>, interested: bool) {
        if std::mem::replace(&mut self.interested, interested) != interested {
            let message = if interested { Message::Interested } else { Message::NotInterested };
            self.tell(cx, |out| message.encode(out));
        }
    }

    /// Says that we live.
    pub fn keep_alive(&mut self, cx: &mut Cx<'_>) {
        self.tell(cx, |out| out.extend_from_slice(&KEEP_ALIVE));
    }

    /// Shows what is to be sent next.
    pub fn with_sealed<R>(&self, f: impl FnOnce(&[Sending<'_>]) -> R) -> Option<R> {
        self.serving.queue.with_sealed(f)
    }

    /// The socket took the next `bytes` bytes.
    pub fn on_wrote(&mut self, cx: &mut Cx<'_>, bytes: usize) -> Wrote {
        self.last_sent = cx.now;
        self.serving.on_wrote(cx, bytes)
    }

    /// Takes back the Block that trickles in since before `since`, because others thirst.
    pub fn take_back(&mut self, cx: &mut Cx<'_>, since: Time) -> Option<BlockRef> {
        self.reader.block().filter(|(_, begun)| *begun < since)?;
        let at = self.reader.take_back(cx.pool)?;
        self.asking.forget(at);
        Some(at)
    }

    /// The connection is over: all memory goes back to the pool.
    pub fn end(&mut self, cx: &mut Cx<'_>) {
        self.reader.take_back(cx.pool);
        self.serving.end(cx);
    }

    fn tell(&mut self, cx: &mut Cx<'_>, encode: impl FnOnce(&mut Vec<u8>)) {
        let idle = self.serving.queue.is_empty();
        self.serving.queue.control(encode);
        if idle && !self.serving.queue.is_empty() {
            cx.out.net.push(Net::Write(self.conn));
        }
    }
}

fn speaks_of_pieces(message: &Message<'_>) -> bool {
    matches!(
        message,
        Message::Have { .. }
            | Message::Bitfield(_)
            | Message::HaveAll
            | Message::HaveNone
            | Message::AllowedFast { .. }
            | Message::Request { .. }
    )
}

/// Facts.
impl PeerConnection {
    /// Its connection.
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The program it says it is, or its peer id gives away.
    pub fn client(&self) -> String {
        self.extensions.client().map_or_else(|| client_name(&self.peer_id), str::to_owned)
    }

    /// We called it.
    pub fn is_outgoing(&self) -> bool {
        self.outgoing
    }

    /// What carries it.
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// Whether its stream is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// It speaks the fast extension (BEP 6).
    pub fn is_fast(&self) -> bool {
        self.fast
    }

    /// The pieces it has.
    pub fn has(&self) -> &Bitfield {
        &self.has
    }

    /// The same, as the Picker was told of it.
    pub fn has_for_picker(&self) -> Has<'_> {
        if self.joined_full { Has::All } else { Has::Bits(&self.has) }
    }

    /// It has everything.
    pub fn is_seed(&self) -> bool {
        self.has.all()
    }

    /// It wants nothing more (BEP 21), or has everything.
    pub fn is_upload_only(&self) -> bool {
        self.is_seed() || self.extensions.upload_only()
    }

    /// It told what it has.
    pub fn is_introduced(&self) -> bool {
        self.introduced
    }

    /// It does not take our requests.
    pub fn chokes_us(&self) -> bool {
        self.chokes_us
    }

    /// It wants something of us.
    pub fn wants_us(&self) -> bool {
        self.wants_us
    }

    /// We want something of it, and said so.
    pub fn is_interested(&self) -> bool {
        self.interested
    }

    /// Pieces we may ask for although it chokes us.
    pub fn allowed(&self) -> &[PieceIndex] {
        &self.allowed
    }

    /// What it gives.
    pub fn down(&self) -> &Meter {
        &self.down
    }

    /// What it takes.
    pub fn up(&self) -> &Meter {
        self.serving.up()
    }

    /// When its handshake was done.
    pub fn connected_at(&self) -> Time {
        self.connected_at
    }

    /// When it last sent anything.
    pub fn last_heard(&self) -> Time {
        self.last_heard
    }

    /// When it was last sent anything.
    pub fn last_sent(&self) -> Time {
        self.last_sent
    }
}
