//! The kinds of scripted peers.

use std::time::Duration;

use piecemeal_metainfo::Bitfield;
use piecemeal_wire::message::Message;

use super::Peer;
use crate::net::{LinkId, Net};

/// Requests that one who fetches has out.
const PIPELINE: u32 = 4;
/// Requests that a flooder sends at a time.
const FLOOD: usize = 400;
/// How often a flooder floods.
const FLOOD_PAUSE: Duration = Duration::from_secs(2);
/// How often a slowloris says a byte.
const SLOW_PAUSE: Duration = Duration::from_secs(9);
/// How often a miser says that it is there.
const MISER_PAUSE: Duration = Duration::from_secs(60);
/// What is asked for at a time.
const BLOCK: u32 = 16 << 10;

/// How a scripted peer behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// Has all, and gives it.
    Honest,
    /// Wants all, and fetches it in order.
    Fetcher,
    /// Has all, gives it, and so many blocks of a hundred are wrong.
    Liar(usize),
    /// Has all, unchokes, and never answers a request.
    Mute,
    /// Has all, and never lets anybody ask.
    Miser,
    /// Says its handshake byte by byte.
    Slowloris,
    /// Asks, choked or not, far more than anybody should.
    Flooder,
    /// Asks a lot, and reads nothing once it may ask.
    Deaf,
    /// Says its handshake, then nonsense.
    Garbage,
}

impl Peer {
    /// A connection stands.
    pub(super) fn opened(&mut self, net: &mut Net, link: LinkId) {
        if self.manner == Manner::Slowloris {
            self.wake_in(net, link, SLOW_PAUSE);
        }
    }

    /// Both handshakes were said.
    pub(super) fn introduced(&mut self, net: &mut Net, link: LinkId) {
        let all = Bitfield::full(self.torrent.meta.piece_count()).to_wire();
        match self.manner {
            Manner::Honest | Manner::Liar(_) | Manner::Mute => {
                self.say(link, &Message::Bitfield(&all));
                self.say(link, &Message::Unchoke);
            }
            Manner::Miser => {
                self.say(link, &Message::Bitfield(&all));
                self.wake_in(net, link, MISER_PAUSE);
            }
            Manner::Fetcher => {}
            Manner::Flooder => {
                self.say(link, &Message::Interested);
                self.wake_in(net, link, FLOOD_PAUSE);
            }
            Manner::Deaf => self.say(link, &Message::Interested),
            Manner::Garbage => {
                let nonsense: [u8; 512] = self.dice.bytes();
                if let Some(talk) = self.talks.get_mut(&link) {
                    talk.outbox.extend(nonsense);
                }
            }
            Manner::Slowloris => {}
        }
    }

    /// It heard a message.
    pub(super) fn heard(&mut self, link: LinkId, message: &Message<'_>) {
        match (self.manner, *message) {
            (Manner::Honest, Message::Request { piece, begin, len }) => {
                self.give(link, (piece, begin, len), false);
            }
            (Manner::Liar(percent), Message::Request { piece, begin, len }) => {
                let lie = self.dice.percent(percent);
                self.give(link, (piece, begin, len), lie);
            }
            (Manner::Fetcher, Message::Bitfield(_) | Message::HaveAll) => {
                self.say(link, &Message::Interested);
            }
            (Manner::Fetcher, Message::Unchoke) => {
                if let Some(talk) = self.talks.get_mut(&link) {
                    talk.unchoked = true;
                }
                self.ask_more(link);
            }
            (Manner::Deaf, Message::Unchoke) => {
                if let Some(talk) = self.talks.get_mut(&link) {
                    talk.unchoked = true;
                }
                self.flood(link);
            }
            _ => {}
        }
    }

    /// A block came.
    pub(super) fn got_block(&mut self, link: LinkId) {
        if let Some(talk) = self.talks.get_mut(&link) {
            talk.asked = talk.asked.saturating_sub(1);
        }
        if self.manner == Manner::Fetcher {
            self.ask_more(link);
        }
    }

    /// Its time has come.
    pub(super) fn woken(&mut self, net: &mut Net, link: LinkId) {
        match self.manner {
            Manner::Slowloris => {
                let hello = self.hello();
                let Some(talk) = self.talks.get_mut(&link) else { return };
                if let Some(byte) = hello.get(talk.next as usize) {
                    talk.outbox.push(*byte);
                    talk.next += 1;
                    self.wake_in(net, link, SLOW_PAUSE);
                }
            }
            Manner::Flooder => {
                self.flood(link);
                self.wake_in(net, link, FLOOD_PAUSE);
            }
            Manner::Miser => {
                self.say(link, &Message::Choke);
                self.wake_in(net, link, MISER_PAUSE);
            }
            _ => {}
        }
    }

    fn flood(&mut self, link: LinkId) {
        for _ in 0..FLOOD {
            let piece = self.dice.below(self.torrent.meta.piece_count() as usize) as u32;
            let left = self.torrent.meta.piece_len(piecemeal_metainfo::PieceIndex(piece));
            self.say(link, &Message::Request { piece, begin: 0, len: left.min(BLOCK) });
        }
    }

    fn ask_more(&mut self, link: LinkId) {
        loop {
            let Some(talk) = self.talks.get_mut(&link) else { return };
            if !talk.unchoked || talk.asked >= PIPELINE {
                return;
            }
            let per_piece = self.torrent.meta.info().piece_length.div_ceil(BLOCK);
            let Some(piece) = self.torrent.meta.piece(talk.next / per_piece) else { return };
            let begin = talk.next % per_piece * BLOCK;
            talk.next += 1;
            let left = self.torrent.meta.piece_len(piece).saturating_sub(begin);
            if left == 0 {
                continue;
            }
            talk.asked += 1;
            self.say(link, &Message::Request { piece: piece.0, begin, len: left.min(BLOCK) });
        }
    }
}
