//! The end that is called.
//!
//! Owns the order of what it hears and sends. It computes nothing for a caller that did not send a whole key, and asks
//! for a torrent only when the caller has shown that it computed the same secret.

use std::fmt;
use std::mem::take;

use piecemeal_metainfo::InfoHash;
use rand_core::Rng;

use super::parts::{self, Field, Search, Turn};
use super::sum::{PeerKey, Private};
use super::{
    Choice, Ciphers, Done, Fault, KEY_BYTES, MAX_PAD, MAX_PAYLOAD, Offer, Req2, Step, Sum, Total, VC,
};

/// The end that is called, from its first byte to the first byte of the streams.
pub struct Responder {
    private: Private,
    accept: Offer,
    /// What is preferred, and from `crypto_provide` on what was chosen.
    choice: Choice,
    pad_b: Vec<u8>,
    pad_d: usize,
    state: State,
    field: Field,
    secret: [u8; KEY_BYTES],
    ciphers: Option<Box<Ciphers>>,
    payload: Vec<u8>,
    out: Vec<u8>,
}

enum State {
    /// Reads Ya.
    Key,
    /// Both sums are being computed; so much of PadA came.
    Sum { pad: usize },
    /// Looks for req1 behind PadA.
    Sync(Search<20>),
    /// Reads which torrent it is.
    Who,
    /// The caller was asked which torrent it is.
    Asked,
    /// Reads VC, `crypto_provide` and the length of PadC.
    Head,
    /// Passes PadC.
    Pad { left: usize },
    /// Reads the length of IA.
    Len,
    /// Reads IA.
    Payload { left: usize },
    /// Done or failed.
    Over,
}

impl Responder {
    /// For a connection that came in. Of what `accept` and the peer have in common, it takes `prefer` where it can.
    pub fn new(rng: &mut (impl Rng + ?Sized), accept: Offer, prefer: Choice) -> Responder {
        Responder {
            private: Private::draw(rng),
            accept,
            choice: prefer,
            pad_b: parts::draw_pad(rng),
            pad_d: parts::draw_len(rng),
            state: State::Key,
            field: Field::EMPTY,
            secret: [0; KEY_BYTES],
            ciphers: None,
            payload: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Takes the total of the sum, and has something to send. A total that nobody waits for changes nothing.
    pub fn on_total(&mut self, total: Total) {
        if let (State::Sum { pad }, Total { own: Some(own), secret: Some(secret) }) = (&self.state, total) {
            self.out.extend(own);
            self.out.append(&mut take(&mut self.pad_b));
            self.state = State::Sync(Search::new(parts::req1(&secret), *pad));
            self.secret = secret;
        }
    }

    /// The answer to [`Step::Who`]: the info hash of the torrent, or none if there is no such, which is a fault. An
    /// answer that nobody asked for changes nothing.
    pub fn known(&mut self, skey: Option<InfoHash>) -> Result<(), Fault> {
        if !matches!(self.state, State::Asked) {
            return Ok(());
        }
        let Some(skey) = skey else {
            self.state = State::Over;
            return Err(Fault::UnknownTorrent);
        };
        let (incoming, outgoing) = parts::ciphers(&self.secret, skey);
        self.ciphers = Some(Box::new(Ciphers { incoming, outgoing }));
        self.state = State::Head;
        Ok(())
    }

    /// Hears bytes of the peer: how many of them belonged to the handshake, and what is to be done. All are eaten,
    /// unless something is to be done first or the handshake is over. After a fault nothing more comes of it.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<(usize, Step), Fault> {
        parts::hear(bytes, |rest| self.turn(rest)).inspect_err(|_| self.state = State::Over)
    }

    /// What is to be written, encrypted where it has to be; each byte is handed out once. With [`Step::Done`] come
    /// the last of them; our stream follows directly.
    pub fn take_out(&mut self) -> Vec<u8> {
        take(&mut self.out)
    }

    fn turn(&mut self, from: &mut &[u8]) -> Result<Turn, Fault> {
        match &mut self.state {
            State::Key => {
                let Some(key) = self.field.fill::<KEY_BYTES>(from) else { return Ok(Turn::Wait) };
                let sum = Sum::both(self.private, PeerKey::read(&key)?);
                self.state = State::Sum { pad: 0 };
                Ok(Turn::Tell(Step::Sum(sum)))
            }
            State::Sum { pad } => parts::pass_pad(pad, from).map(|()| Turn::Wait),
            State::Sync(search) => {
                if !search.find(from)? {
                    return Ok(Turn::Wait);
                }
                self.state = State::Who;
                Ok(Turn::On)
            }
            State::Who => {
                let Some(masked) = self.field.fill::<20>(from) else { return Ok(Turn::Wait) };
                self.state = State::Asked;
                Ok(Turn::Tell(Step::Who(parts::mask(Req2(masked), &self.secret))))
            }
            State::Head => {
                let Some(head) = self.field.fill::<14>(from) else { return Ok(Turn::Wait) };
                let left = self.head(head)?;
                self.state = State::Pad { left };
                Ok(Turn::On)
            }
            State::Pad { .. } | State::Len | State::Payload { .. } => self.tail(from),
            State::Asked | State::Over => Ok(Turn::Wait),
        }
    }

    /// Reads VC, `crypto_provide` and the length of PadC, and chooses.
    fn head(&mut self, mut head: [u8; 14]) -> Result<usize, Fault> {
        if let Some(ciphers) = &mut self.ciphers {
            ciphers.incoming.apply(&mut head);
        }
        let [vc @ .., a, b, c, d, e, f] = head;
        if vc != VC {
            return Err(Fault::Garbled);
        }
        let provided = u32::from_be_bytes([a, b, c, d]);
        self.choice = match self.accept.common(provided) {
            Offer::BOTH => self.choice,
            Offer::PLAIN => Choice::Plain,
            Offer::RC4 => Choice::Rc4,
            _ => return Err(Fault::NothingInCommon { provided }),
        };
        parts::pad_len([e, f])
    }

    /// Reads what is behind that: PadC and IA.
    fn tail(&mut self, from: &mut &[u8]) -> Result<Turn, Fault> {
        let Some(ciphers) = &mut self.ciphers else { return Ok(Turn::Wait) };
        self.state = match &mut self.state {
            State::Pad { left } => {
                if !parts::skip_pad(left, &mut ciphers.incoming, from) {
                    return Ok(Turn::Wait);
                }
                State::Len
            }
            State::Len => {
                let Some(mut len) = self.field.fill::<2>(from) else { return Ok(Turn::Wait) };
                ciphers.incoming.apply(&mut len);
                let len = u16::from_be_bytes(len);
                if usize::from(len) > MAX_PAYLOAD {
                    return Err(Fault::PayloadTooLong(len));
                }
                self.payload.reserve_exact(usize::from(len));
                State::Payload { left: usize::from(len) }
            }
            State::Payload { left } => {
                let (now, rest) = from.split_at((*left).min(from.len()));
                let start = self.payload.len();
                self.payload.extend_from_slice(now);
                ciphers.incoming.apply(&mut self.payload[start..]);
                *left -= now.len();
                *from = rest;
                return Ok(if *left > 0 { Turn::Wait } else { Turn::Tell(Step::Done(self.answer())) });
            }
            _ => return Ok(Turn::Wait),
        };
        Ok(Turn::On)
    }

    /// Says what was chosen. Our stream begins behind it.
    fn answer(&mut self) -> Done {
        let choice = self.choice;
        if let Some(ciphers) = &mut self.ciphers {
            let fields: [&[u8]; 4] = [
                &VC,
                &choice.bits().to_be_bytes(),
                &(self.pad_d as u16).to_be_bytes(),
                // Zeros: what a pad of this kind may mean one day is reserved.
                &[0; MAX_PAD][..self.pad_d],
            ];
            parts::encrypt(&mut self.out, ciphers, &fields);
        }
        self.state = State::Over;
        let ciphers = self.ciphers.take().filter(|_| choice == Choice::Rc4);
        Done { choice, ciphers, payload: take(&mut self.payload) }
    }
}

/// Its keys are nobody's business.
impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").field("accept", &self.accept).finish_non_exhaustive()
    }
}
