//! The end that dials.
//!
//! Owns the order of what it sends and hears. Its first sum is there before anything is heard, as its key goes first.

use std::fmt;
use std::mem::take;

use piecemeal_metainfo::InfoHash;
use rand_core::Rng;

use super::parts::{self, Field, Search, Turn};
use super::sum::{PeerKey, Private};
use super::{
    Choice, Ciphers, Done, Fault, KEY_BYTES, MAX_PAD, MAX_PAYLOAD, Offer, Step, Sum, Total, VC, req2,
};

/// The end that dials, from its first byte to the first byte of the streams.
pub struct Initiator {
    private: Private,
    skey: InfoHash,
    offer: Offer,
    payload: Vec<u8>,
    pad_a: Vec<u8>,
    pad_c: usize,
    state: State,
    field: Field,
    ciphers: Option<Box<Ciphers>>,
    out: Vec<u8>,
}

enum State {
    /// Our key is being computed.
    Own,
    /// Reads Yb.
    Key,
    /// The secret is being computed; so much of PadB came.
    Secret { pad: usize },
    /// Looks for the encrypted VC behind PadB.
    Sync(Search<8>),
    /// Reads `crypto_select` and the length of PadD.
    Select,
    /// Passes PadD.
    Pad { left: usize, choice: Choice },
    /// Done or failed.
    Over,
}

impl Initiator {
    /// A connection for the torrent of info hash `skey`, whose stream begins with `payload` (IA), which leaves with the
    /// handshake. The sum is the first to be run.
    ///
    /// # Panics
    ///
    /// If `payload` is longer than [`MAX_PAYLOAD`].
    pub fn begin(
        rng: &mut (impl Rng + ?Sized),
        skey: InfoHash,
        offer: Offer,
        payload: &[u8],
    ) -> (Initiator, Sum) {
        assert!(payload.len() <= MAX_PAYLOAD, "the caller's own bytes, and too many");
        let private = Private::draw(rng);
        let initiator = Initiator {
            private,
            skey,
            offer,
            payload: payload.to_vec(),
            pad_a: parts::draw_pad(rng),
            pad_c: parts::draw_len(rng),
            state: State::Own,
            field: Field::EMPTY,
            ciphers: None,
            out: Vec::new(),
        };
        (initiator, Sum::own(private))
    }

    /// Takes the total of the last sum, and has something to send. A total that nobody waits for changes nothing.
    pub fn on_total(&mut self, total: Total) {
        match (&self.state, total) {
            (State::Own, Total { own: Some(own), .. }) => {
                self.out.extend(own);
                self.out.append(&mut take(&mut self.pad_a));
                self.state = State::Key;
            }
            (State::Secret { pad }, Total { secret: Some(secret), .. }) => {
                let pad = *pad;
                self.ask(&secret, pad);
            }
            _ => {}
        }
    }

    /// Hears bytes of the peer: how many of them belonged to the handshake, and what is to be done. All are eaten,
    /// unless something is to be done first or the handshake is over. After a fault nothing more comes of it.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<(usize, Step), Fault> {
        parts::hear(bytes, |rest| self.turn(rest)).inspect_err(|_| self.state = State::Over)
    }

    /// What is to be written, encrypted where it has to be; each byte is handed out once.
    pub fn take_out(&mut self) -> Vec<u8> {
        take(&mut self.out)
    }

    fn turn(&mut self, from: &mut &[u8]) -> Result<Turn, Fault> {
        match &mut self.state {
            State::Own if from.is_empty() => Ok(Turn::Wait),
            State::Own => Err(Fault::TooEarly),
            State::Key => {
                let Some(key) = self.field.fill::<KEY_BYTES>(from) else { return Ok(Turn::Wait) };
                let sum = Sum::secret(self.private, PeerKey::read(&key)?);
                self.state = State::Secret { pad: 0 };
                Ok(Turn::Tell(Step::Sum(sum)))
            }
            State::Secret { pad } => parts::pass_pad(pad, from).map(|()| Turn::Wait),
            State::Sync(search) => {
                if !search.find(from)? {
                    return Ok(Turn::Wait);
                }
                self.state = State::Select;
                Ok(Turn::On)
            }
            State::Select => {
                let Some(head) = self.field.fill::<6>(from) else { return Ok(Turn::Wait) };
                let (choice, left) = self.select(head)?;
                self.state = State::Pad { left, choice };
                Ok(Turn::On)
            }
            State::Pad { left, choice } => {
                let Some(ciphers) = &mut self.ciphers else { return Ok(Turn::Wait) };
                if !parts::skip_pad(left, &mut ciphers.incoming, from) {
                    return Ok(Turn::Wait);
                }
                let choice = *choice;
                let ciphers = self.ciphers.take().filter(|_| choice == Choice::Rc4);
                self.state = State::Over;
                Ok(Turn::Tell(Step::Done(Done { choice, ciphers, payload: Vec::new() })))
            }
            State::Over => Ok(Turn::Wait),
        }
    }

    /// Says that we have the secret, for which torrent, and what we offer; from here on the peer's answer is awaited.
    fn ask(&mut self, secret: &[u8; KEY_BYTES], pad: usize) {
        let (outgoing, incoming) = parts::ciphers(secret, self.skey);
        let mut ciphers = Box::new(Ciphers { incoming, outgoing });
        self.out.extend(parts::req1(secret));
        self.out.extend(parts::mask(req2(self.skey), secret).0);
        let payload = take(&mut self.payload);
        let fields: [&[u8]; 6] = [
            &VC,
            &self.offer.bits().to_be_bytes(),
            &(self.pad_c as u16).to_be_bytes(),
            // Zeros: what a pad of this kind may mean one day is reserved. On the wire they look as anything else.
            &[0; MAX_PAD][..self.pad_c],
            &(payload.len() as u16).to_be_bytes(),
            &payload,
        ];
        parts::encrypt(&mut self.out, &mut ciphers, &fields);
        // What zeros look like in the peer's cipher is what is looked for; and the cipher stands behind them then.
        let mut mark = VC;
        ciphers.incoming.apply(&mut mark);
        self.ciphers = Some(ciphers);
        self.state = State::Sync(Search::new(mark, pad));
    }

    /// Reads `crypto_select` and the length of PadD.
    fn select(&mut self, mut head: [u8; 6]) -> Result<(Choice, usize), Fault> {
        if let Some(ciphers) = &mut self.ciphers {
            ciphers.incoming.apply(&mut head);
        }
        let [a, b, c, d, len @ ..] = head;
        let chosen = u32::from_be_bytes([a, b, c, d]);
        let choice = [Choice::Plain, Choice::Rc4].into_iter().find(|choice| choice.bits() == chosen);
        let choice = choice.filter(|choice| choice.bits() & self.offer.bits() != 0);
        Ok((choice.ok_or(Fault::WrongChoice { chosen })?, parts::pad_len(len)?))
    }
}

/// Its keys are nobody's business.
impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator")
            .field("skey", &self.skey)
            .field("offer", &self.offer)
            .finish_non_exhaustive()
    }
}
