//! A tap on every link: reads along what both sides say, as it enters the link, and judges what can be judged there.
//!
//! Owns what was said on each link: who has what, who asked for what and when. Whether a claim is true is for `world`,
//! which knows the disks. Only engines are judged; scripted peers may say what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use piecemeal_metainfo::{Bitfield, InfoHash, Time};
use piecemeal_wire::extension::{Extension, ExtensionHandshake, HANDSHAKE_ID};
use piecemeal_wire::handshake::{HANDSHAKE_BYTES, Handshake, Progress};
use piecemeal_wire::message::{Head, Limits, Message, decode_head, needed};

use crate::net::{LinkId, Side};
use crate::torrent::Torrent;

/// A block as peers name it: piece, begin, length.
pub type Asked = (u32, u32, u32);

/// What a side said that someone should look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Claim {
    /// It has this piece.
    Has(InfoHash, u32),
    /// It has these pieces.
    HasAll(InfoHash, Bitfield),
    /// It said something that an engine does not say.
    Rude(String),
    /// It shook hands for this torrent.
    Hello(InfoHash),
    /// It told of other ways to find peers of this torrent: a port of the DHT (BEP 5), peers, or that it wants to hear
    /// of peers (BEP 11).
    Gossip(InfoHash),
}

/// All links.
#[derive(Default)]
pub struct Taps {
    torrents: BTreeMap<InfoHash, Arc<Torrent>>,
    talks: BTreeMap<LinkId, Talk>,
    /// Claims since they were last taken.
    pub claims: Vec<(LinkId, Side, Claim)>,
    /// Every message is to be told.
    pub aloud: bool,
}

/// One link.
#[derive(Default)]
pub struct Talk {
    /// By the side that speaks.
    sides: [Speaker; 2],
    aloud: Option<(Time, LinkId)>,
}

/// One side of a link.
#[derive(Default)]
struct Speaker {
    torrent: Option<Arc<Torrent>>,
    fast: bool,
    /// Begin of a message whose rest is to come.
    pending: Vec<u8>,
    /// The block that is being sent: what, how many bytes of it went by.
    block: Option<(Asked, u32)>,
    /// Nothing it says makes sense any more.
    lost: bool,
    unchoking: bool,
    /// Pieces that it gives even to whom it chokes (BEP 6).
    granted: BTreeSet<u32>,
    /// Since when it chokes, if it did not before.
    choking_since: Option<Time>,
    has: BTreeSet<u32>,
    /// Requests without answer.
    asked: BTreeMap<Asked, Time>,
    /// Requests taken back, that may still be answered.
    withdrawn: BTreeMap<Asked, u32>,
    /// Requests it made twice over: nobody can say how often they will be answered.
    repeated: BTreeSet<Asked>,
    /// Bytes of content it sent.
    content: u64,
}

impl Taps {
    /// Makes a torrent known.
    pub fn know(&mut self, torrent: &Arc<Torrent>) {
        self.torrents.insert(torrent.hash(), torrent.clone());
    }

    /// `side` sent these bytes. How many of them were content.
    pub fn heard(&mut self, now: Time, link: LinkId, side: Side, bytes: &[u8]) -> u64 {
        let talk = self.talks.entry(link).or_default();
        let before = talk.sides[side as usize].content;
        let mut claims = Vec::new();
        talk.aloud = self.aloud.then_some((now, link));
        talk.heard(now, side, bytes, &self.torrents, &mut claims);
        self.claims.extend(claims.into_iter().map(|claim| (link, side, claim)));
        talk.sides[side as usize].content - before
    }

    /// The link is gone.
    pub fn forget(&mut self, link: LinkId) {
        self.talks.remove(&link);
    }

    /// The oldest request of each side of each link that the other did not answer.
    pub fn waiting(&self) -> impl Iterator<Item = Waiting> + '_ {
        let sides = [Side::Caller, Side::Callee];
        self.talks.iter().flat_map(move |(link, talk)| {
            let oldest = sides.into_iter().filter_map(|side| {
                let asked = talk.sides[side as usize].asked.iter().min_by_key(|(_, since)| **since)?;
                let (at, since, by) = (*asked.0, *asked.1, side.other());
                let giver = &talk.sides[by as usize];
                let free = giver.granted.contains(&at.0);
                let choked = giver.choking_since.filter(|choked| *choked > since && !free);
                Some(Waiting { link: *link, by, at, since, choked })
            });
            oldest.collect::<Vec<_>>()
        })
    }
}

/// A request without answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// On which link.
    pub link: LinkId,
    /// Who should answer.
    pub by: Side,
    /// What was asked for.
    pub at: Asked,
    /// Since when.
    pub since: Time,
    /// The asker was choked since then, at this time: it should have heard at once that nothing comes.
    pub choked: Option<Time>,
}

impl Talk {
    fn heard(
        &mut self,
        now: Time,
        side: Side,
        mut bytes: &[u8],
        torrents: &BTreeMap<InfoHash, Arc<Torrent>>,
        claims: &mut Vec<Claim>,
    ) {
        loop {
            let speaker = &mut self.sides[side as usize];
            if speaker.lost || bytes.is_empty() {
                return;
            }
            if speaker.block.is_some() {
                bytes = speaker.pass_block(bytes, claims);
                continue;
            }
            // A message that begins in `pending` takes from `bytes` only what it needs.
            let want = speaker.wants();
            let take = (want - speaker.pending.len()).min(bytes.len());
            speaker.pending.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if speaker.pending.len() < want {
                return;
            }
            let whole = std::mem::take(&mut speaker.pending);
            let done = if speaker.torrent.is_none() {
                speaker.hello(&whole, torrents, claims)
            } else {
                self.message(now, side, &whole, claims)
            };
            if !done {
                self.sides[side as usize].pending = whole;
            }
        }
    }

    /// Looks at what may be a whole message. False: more is needed.
    fn message(&mut self, now: Time, side: Side, bytes: &[u8], claims: &mut Vec<Claim>) -> bool {
        let speaker = &self.sides[side as usize];
        let Some(torrent) = speaker.torrent.clone() else { return true };
        if let Some((now, link)) = self.aloud
            && let Ok(head) = decode_head(bytes, &speaker.limits())
            && head != Head::NeedMore
        {
            println!("{:>12.6} {link:?} {side:?} says {head:?}", now.nanos() as f64 / 1e9);
        }
        match decode_head(bytes, &speaker.limits()) {
            Ok(Head::NeedMore) => return false,
            Ok(Head::KeepAlive) => {}
            Ok(Head::Piece { piece, begin, len, .. }) => self.block_begins(side, (piece, begin, len), claims),
            Ok(Head::Message { message, .. }) => self.said(now, side, &torrent, &message, claims),
            Err(why) => {
                self.sides[side as usize].lost = true;
                claims.push(Claim::Rude(format!("no message: {why}")));
            }
        }
        true
    }

    fn block_begins(&mut self, side: Side, at: Asked, claims: &mut Vec<Claim>) {
        if !self.sides[side.other() as usize].settle(at) {
            claims.push(Claim::Rude(format!("{at:?} was sent, and nobody had asked for it")));
        }
        self.sides[side as usize].block = Some((at, 0));
    }

    fn said(
        &mut self,
        now: Time,
        side: Side,
        torrent: &Torrent,
        message: &Message<'_>,
        claims: &mut Vec<Claim>,
    ) {
        let pieces = torrent.meta.piece_count();
        let fast = self.sides[0].fast && self.sides[1].fast;
        let (speaker, other) = self.both(side);
        match *message {
            Message::Choke => {
                speaker.unchoking = false;
                speaker.choking_since = Some(now);
                if !fast {
                    other.withdraw_all();
                }
            }
            Message::Unchoke => (speaker.unchoking, speaker.choking_since) = (true, None),
            Message::AllowedFast { piece } => {
                speaker.granted.insert(piece);
            }
            Message::Have { piece } => {
                speaker.has.insert(piece);
                claims.push(Claim::Has(torrent.hash(), piece));
            }
            Message::Bitfield(bits) => match Bitfield::from_wire(bits, pieces) {
                Ok(bits) => {
                    speaker.has.extend(bits.iter_ones().map(|piece| piece.0));
                    claims.push(Claim::HasAll(torrent.hash(), bits));
                }
                Err(why) => claims.push(Claim::Rude(format!("no bitfield: {why}"))),
            },
            Message::HaveAll => {
                speaker.has.extend(0..pieces);
                claims.push(Claim::HasAll(torrent.hash(), Bitfield::full(pieces)));
            }
            Message::Request { piece, begin, len } => {
                self.asks(now, side, torrent, (piece, begin, len), claims)
            }
            Message::Cancel { piece, begin, len } => {
                let at = (piece, begin, len);
                // With BEP 6 it is answered none the less, without it perhaps.
                if speaker.asked.remove(&at).is_some() {
                    speaker.withdraw(at);
                }
            }
            Message::Reject { piece, begin, len } => {
                let at = (piece, begin, len);
                if !other.settle(at) {
                    claims.push(Claim::Rude(format!("rejects {at:?}, and nobody had asked for it")));
                }
            }
            ref other if tells_of_peers(other) => claims.push(Claim::Gossip(torrent.hash())),
            _ => {}
        }
    }

    fn asks(&mut self, now: Time, side: Side, torrent: &Torrent, at: Asked, claims: &mut Vec<Claim>) {
        let fast = self.sides[0].fast && self.sides[1].fast;
        let (speaker, other) = self.both(side);
        let (piece, begin, len) = at;
        if torrent.stretch(piece, begin, len).is_none() {
            claims.push(Claim::Rude(format!("asks for {at:?}, which does not exist")));
        }
        if !other.has.contains(&piece) {
            claims.push(Claim::Rude(format!("asks for {at:?}, which the peer never had")));
        }
        let heeded = other.unchoking && other.has.contains(&piece);
        if !fast && !heeded {
            // It will most likely be passed over, and nothing tells.
            speaker.withdraw(at);
        } else if speaker.asked.insert(at, now).is_some() {
            speaker.repeated.insert(at);
            // The answer to one that was taken back may look like the answer to this one.
            if !speaker.withdrawn.contains_key(&at) {
                claims.push(Claim::Rude(format!("asks for {at:?} twice")));
            }
        }
    }

    fn both(&mut self, side: Side) -> (&mut Speaker, &mut Speaker) {
        let [caller, callee] = &mut self.sides;
        match side {
            Side::Caller => (caller, callee),
            Side::Callee => (callee, caller),
        }
    }
}

impl Speaker {
    fn limits(&self) -> Limits {
        let pieces = self.torrent.as_ref().map(|torrent| torrent.meta.piece_count());
        Limits { pieces, ..Limits::default() }
    }

    /// A request of its was answered. Whether it had made it.
    fn settle(&mut self, at: Asked) -> bool {
        if self.asked.remove(&at).is_some() || self.repeated.contains(&at) {
            return true;
        }
        let known = self.withdrawn.get_mut(&at).filter(|count| **count > 0);
        known.map(|count| *count -= 1).is_some()
    }

    /// It may be answered, or not.
    fn withdraw(&mut self, at: Asked) {
        *self.withdrawn.entry(at).or_default() += 1;
    }

    fn withdraw_all(&mut self) {
        std::mem::take(&mut self.asked).into_keys().for_each(|at| self.withdraw(at));
    }

    /// How many bytes `pending` must hold to be worth a look.
    fn wants(&self) -> usize {
        match &self.torrent {
            None => HANDSHAKE_BYTES,
            // After every look without result, `needed` is more than there is.
            Some(_) => needed(&self.pending),
        }
    }

    fn hello(
        &mut self,
        bytes: &[u8],
        torrents: &BTreeMap<InfoHash, Arc<Torrent>>,
        claims: &mut Vec<Claim>,
    ) -> bool {
        match Handshake::decode(bytes) {
            Ok(Progress::Whole(hello)) => {
                self.fast = hello.reserved.fast();
                self.torrent = torrents.get(&hello.info_hash).cloned();
                self.lost = self.torrent.is_none();
                claims.push(Claim::Hello(hello.info_hash));
            }
            Ok(Progress::Partial { .. }) => return false,
            Err(why) => {
                self.lost = true;
                claims.push(Claim::Rude(format!("no handshake: {why}")));
            }
        }
        true
    }

    /// Compares the bytes of a block with what they should be; returns what comes behind it.
    fn pass_block<'a>(&mut self, bytes: &'a [u8], claims: &mut Vec<Claim>) -> &'a [u8] {
        let Some((at, done)) = self.block else { return bytes };
        let (mine, rest) = bytes.split_at(bytes.len().min((at.2 - done) as usize));
        let end = done + mine.len() as u32;
        self.content += mine.len() as u64;
        let right = self.torrent.as_ref().and_then(|torrent| torrent.stretch(at.0, at.1, at.2));
        if right.is_none_or(|right| right[done as usize..end as usize] != *mine) {
            claims.push(Claim::Rude(format!("sends wrong content for {at:?}")));
        }
        self.block = (end < at.2).then_some((at, end));
        rest
    }
}

/// Whether a message brings peers or a node of the DHT, or says that peers are welcome. Engines use their own numbers.
fn tells_of_peers(message: &Message<'_>) -> bool {
    match *message {
        Message::Port(_) => true,
        Message::Extended { id: HANDSHAKE_ID, payload } => {
            let hello = ExtensionHandshake::decode(payload);
            hello.is_ok_and(|hello| hello.ids.get(Extension::Pex).is_some())
        }
        Message::Extended { id, .. } => Extension::from_own_id(id) == Some(Extension::Pex),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use piecemeal_metainfo::PeerId;
    use piecemeal_wire::handshake::Reserved;
    use piecemeal_wire::message::piece_header;

    use super::*;
    use crate::dice::Dice;
    use crate::torrent::Shape;

    const LINK: LinkId = LinkId(0);

    fn talk(torrent: &Torrent, reserved: Reserved, messages: &[Message<'_>]) -> Vec<u8> {
        let peer_id = PeerId([7; 20]);
        let mut bytes = Handshake { reserved, info_hash: torrent.hash(), peer_id }.encode().to_vec();
        messages.iter().for_each(|message| message.encode(&mut bytes));
        bytes
    }

    /// Whatever the splits, what is heard is the same.
    fn hear(taps: &mut Taps, dice: &mut Dice, side: Side, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(dice.pick(1..rest.len() + 1));
            taps.heard(Time::from_nanos(9), LINK, side, now);
            rest = later;
        }
    }

    #[test]
    fn requests_are_remembered_until_they_are_answered() {
        for seed in 0..100 {
            let mut dice = Dice::new(seed);
            let torrent = Torrent::new(&Shape::plain(100_000, 32 << 10), &mut dice);
            let (mut taps, fast) = (Taps::default(), Reserved::NONE.with_fast());
            taps.know(&torrent);
            let (piece, begin, len) = (1, 16 << 10, 16 << 10);
            let asks = [Message::Interested, Message::Request { piece, begin, len }];
            let mut gives = talk(&torrent, fast, &[Message::HaveAll, Message::Unchoke]);
            hear(&mut taps, &mut dice, Side::Callee, &gives);
            hear(&mut taps, &mut dice, Side::Caller, &talk(&torrent, fast, &asks));
            let waiting: Vec<_> = taps.waiting().map(|waiting| (waiting.by, waiting.at)).collect();
            assert_eq!(waiting, [(Side::Callee, (piece, begin, len))]);
            gives.clear();
            gives.extend(piece_header(piece, begin, len));
            gives.extend(torrent.stretch(piece, begin, len).unwrap());
            gives.extend([0; 4]);
            hear(&mut taps, &mut dice, Side::Callee, &gives);
            assert_eq!(taps.waiting().count(), 0);
            let claims: Vec<_> = taps.claims.drain(..).map(|(_, _, claim)| claim).collect();
            let hello = || Claim::Hello(torrent.hash());
            assert_eq!(claims, [hello(), Claim::HasAll(torrent.hash(), Bitfield::full(4)), hello()]);
            assert_eq!(taps.talks[&LINK].sides[1].content, u64::from(len));
        }
    }

    #[test]
    fn rudeness_is_noticed() {
        let mut dice = Dice::new(1);
        let torrent = Torrent::new(&Shape::plain(100_000, 32 << 10), &mut dice);
        let mut taps = Taps::default();
        taps.know(&torrent);
        let request = Message::Request { piece: 0, begin: 0, len: 16 << 10 };
        let asks = [request, request, Message::Request { piece: 9, begin: 0, len: 1 }];
        let fast = Reserved::NONE.with_fast();
        hear(&mut taps, &mut dice, Side::Callee, &talk(&torrent, fast, &[]));
        hear(&mut taps, &mut dice, Side::Caller, &talk(&torrent, fast, &asks));
        let mut gives = Vec::new();
        Message::Reject { piece: 1, begin: 0, len: 7 }.encode(&mut gives);
        gives.extend(piece_header(0, 0, 16 << 10));
        gives.extend([0; 16 << 10]);
        hear(&mut taps, &mut dice, Side::Callee, &gives);
        let rude = |claim: &Claim| match claim {
            Claim::Rude(words) => Some(words.clone()),
            Claim::Hello(_) => None,
            other => panic!("{other:?}"),
        };
        let said: Vec<String> = taps.claims.iter().filter_map(|(_, _, claim)| rude(claim)).collect();
        for words in ["never had", "twice", "does not exist", "rejects", "wrong content"] {
            assert!(said.iter().any(|said| said.contains(words)), "{words}: {said:?}");
        }
    }
}
