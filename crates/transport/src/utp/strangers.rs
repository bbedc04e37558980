//! Packets of those who have no connection.
//!
//! Owns what is answered to them and who of them is believed. A UDP address is forged easily, so whoever asks is answered
//! with a single packet, no larger than what came, once for each that came; it is never repeated by itself. It bears a
//! random number. Who acknowledges that number receives at its address: only then there is a connection, and an
//! [`Event::Accepted`]. Of those who have not yet, the last few are remembered.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_wire::utp::{HEADER_BYTES, Seq, UtpConnectionId, UtpHeader, UtpKind, UtpPacket};
use rand_core::Rng;

use super::conn::{Conn, micros};
use super::packets::lone;
use super::{Event, MOST_PACKETS, Utp, Why};

/// Answers that wait to be sent. More come only if a batch is larger than any the system hands over.
const MOST_ANSWERS: usize = 1024;

/// Resets to strangers within a second: enough to tell peers of a client that was restarted, too few to be of use to
/// someone who forges addresses.
const RESETS_A_SECOND: u32 = 32;

/// Wrong guesses at the number, after which a stranger is forgotten.
const MOST_GUESSES: u8 = 8;

/// A packet to an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub to: SocketAddr,
    pub bytes: [u8; HEADER_BYTES],
}

/// Who asked, was answered, and has not proved to be there.
#[derive(Clone, Copy, Debug)]
struct Unconfirmed {
    from: SocketAddr,
    /// In packets to us: one more than in its SYN.
    recv: UtpConnectionId,
    /// Our first number.
    first: Seq,
    /// Its SYN's number.
    syn: Seq,
    guesses: u8,
}

#[derive(Debug)]
pub(super) struct Strangers {
    most: usize,
    /// The oldest first; bounded by `most`.
    unconfirmed: VecDeque<Unconfirmed>,
    /// Bounded by [`MOST_ANSWERS`].
    answers: VecDeque<Answer>,
    resets_since: Time,
    resets: u32,
}

impl Strangers {
    pub fn new(most: usize) -> Strangers {
        Strangers {
            most,
            unconfirmed: VecDeque::new(),
            answers: VecDeque::new(),
            resets_since: Time::ZERO,
            resets: 0,
        }
    }

    pub fn knows(&self, from: SocketAddr, recv: UtpConnectionId) -> bool {
        self.place(from, recv).is_some()
    }

    pub fn answer(&mut self, answer: Answer) {
        if self.answers.len() < MOST_ANSWERS {
            self.answers.push_back(answer);
        }
    }

    pub fn next_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    fn place(&self, from: SocketAddr, recv: UtpConnectionId) -> Option<usize> {
        self.unconfirmed.iter().position(|one| one.recv == recv && one.from == from)
    }

    fn may_reset(&mut self, now: Time) -> bool {
        if now.since(self.resets_since) >= Duration::from_secs(1) {
            (self.resets_since, self.resets) = (now, 0);
        }
        self.resets += 1;
        self.resets <= RESETS_A_SECOND
    }
}

impl Utp {
    /// Someone asks for a connection.
    pub(super) fn on_syn(&mut self, now: Time, from: SocketAddr, packet: &UtpPacket) {
        self.counters.syns_in += 1;
        let header = &packet.header;
        let recv = header.connection.next();
        // An id that is taken is the peer's to avoid; it will ask with another (BEP 29).
        if from.port() == 0 || self.routes.contains_key(&(from, recv)) {
            return;
        }
        let known = self.strangers.place(from, recv).map(|at| self.strangers.unconfirmed[at]);
        let one = match known {
            Some(known) if known.syn == header.seq => known,
            Some(_) => return,
            None if self.strangers.most == 0 || !self.has_room() => {
                self.counters.full += 1;
                return;
            }
            None => {
                let first = self.first_number();
                let one = Unconfirmed { from, recv, first, syn: header.seq, guesses: 0 };
                self.remember(one);
                one
            }
        };
        let times = (micros(now).wrapping_sub(header.timestamp), self.settings.receive_window_bytes);
        let bytes = lone(now, UtpKind::State, header.connection, (one.first, one.syn), times);
        self.strangers.answer(Answer { to: from, bytes });
    }

    fn remember(&mut self, one: Unconfirmed) {
        if self.strangers.unconfirmed.len() >= self.strangers.most {
            self.strangers.unconfirmed.pop_front();
            self.counters.evicted += 1;
        }
        self.strangers.unconfirmed.push_back(one);
    }

    /// A packet of no connection: the proof of one who asked, or astray.
    pub(super) fn on_stranger(&mut self, now: Time, from: SocketAddr, packet: &UtpPacket) {
        let header = &packet.header;
        let Some(at) = self.strangers.place(from, header.connection) else {
            return self.on_astray(now, from, header);
        };
        let one = &mut self.strangers.unconfirmed[at];
        let ahead = header.seq.steps_from(one.syn.plus(1));
        if header.ack != one.first.minus(1) || usize::from(ahead) > MOST_PACKETS {
            self.counters.disbelieved += 1;
            one.guesses += 1;
            if one.guesses >= MOST_GUESSES {
                self.strangers.unconfirmed.remove(at);
            }
            return;
        }
        let one = *one;
        self.strangers.unconfirmed.remove(at);
        if !self.make_room() {
            self.counters.full += 1;
            return self.on_astray(now, from, header);
        }
        let (recv, settings) = (one.recv, &self.settings);
        let numbers = (one.first, one.syn.plus(1));
        let slot = self.conns.insert(|id| Conn::accepted(id, from, recv, numbers, settings));
        self.routes.insert((from, recv), slot);
        if let Some(conn) = self.conns.get(slot) {
            self.events.push_back(Event::Accepted { id: conn.id, from });
        }
        self.on_packet(now, slot, packet);
    }

    /// Whoever sends data to a connection that is not there should stop. An acknowledgement alone is the echo of what
    /// was ours, and stops by itself.
    fn on_astray(&mut self, now: Time, from: SocketAddr, header: &UtpHeader) {
        if header.kind == UtpKind::State || from.port() == 0 || !self.strangers.may_reset(now) {
            return;
        }
        let seq = Seq(self.rng.next_u32() as u16);
        let times = (micros(now).wrapping_sub(header.timestamp), 0);
        let bytes = lone(now, UtpKind::Reset, header.connection, (seq, header.seq), times);
        self.strangers.answer(Answer { to: from, bytes });
        self.counters.resets_out += 1;
    }

    /// A reset bears the id of what it answers, so ours or the peer's, and its number. Both must fit.
    pub(super) fn on_reset(&mut self, from: SocketAddr, packet: &UtpPacket) {
        let (id, ack) = (packet.header.connection, packet.header.ack);
        for recv in [id, id.previous(), id.next()] {
            if let Some(at) = self.strangers.place(from, recv) {
                let one = self.strangers.unconfirmed[at];
                if [one.recv, one.recv.previous()].contains(&id) && ack == one.first {
                    self.strangers.unconfirmed.remove(at);
                    self.counters.resets_in += 1;
                    return;
                }
            }
            let Some(slot) = self.route(from, recv) else { continue };
            let Some(conn) = self.conns.get(slot) else { continue };
            let names_it = conn.recv == id || conn.send == id;
            if names_it && conn.is_reset_by(ack) {
                let verdict = conn.over(Why::Reset);
                self.judge(slot, verdict);
                self.counters.resets_in += 1;
                return;
            }
            if names_it {
                self.counters.disbelieved += 1;
            }
        }
    }
}
