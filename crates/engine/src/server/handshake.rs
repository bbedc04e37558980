//! One handshake: what came of it so far, and those bytes of ours that have yet to go.
//!
//! Owns the stages (is it encrypted, the encrypted handshake itself, BitTorrent's) and the ciphers until the connection
//! is handed over. All that comes is deciphered here, so that the Server reads handshakes and nothing else. Whom to answer
//! is its question.

use std::net::SocketAddr;

use piecemeal_metainfo::{InfoHash, TorrentId};
use piecemeal_transport::mse::{
    self, Choice, Ciphers, Fault, Initiator, Offer, Req2, Responder, Step, Sum, Total, Verdict,
};
use piecemeal_wire::handshake::{HANDSHAKE_BYTES, Handshake, HandshakeError, Progress};

use super::dials::Dial;
use crate::cx::{Carrier, Encryption, Goodbye, Rng, Time};

/// Who began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// They called us.
    Caller {
        /// From where.
        from: SocketAddr,
        /// What they want, once they said it and we answered.
        torrent: Option<TorrentId>,
    },
    /// We called them.
    Dialed(Dial),
}

impl Side {
    /// The torrent it is about, as far as that is known.
    pub(super) fn torrent(&self) -> Option<TorrentId> {
        match self {
            Side::Caller { torrent, .. } => *torrent,
            Side::Dialed(dial) => Some(dial.torrent),
        }
    }
}

/// A handshake under way.
#[derive(Debug)]
pub(super) struct Shaking {
    /// Who began.
    pub(super) side: Side,
    /// When it began, and since when the caller occupies a place.
    pub(super) since: Time,
    /// What carries it.
    pub(super) carrier: Carrier,
    /// Ours.
    pub(super) unsent: Unsent,
    /// The caller is this very program. It is let go only when it has our handshake, by which the end that dialed
    /// learns the same, and not to dial that address again.
    pub(super) ourselves: bool,
    /// The other side said something.
    pub(super) heard: bool,
    /// The torrent that the caller belongs to, as it proved by TLS.
    pub(super) proved: Option<TorrentId>,
    stage: Stage,
    ciphers: Option<Box<Ciphers>>,
    /// BitTorrent's handshake as far as it came, and what came behind it. Bounded by what the Server offers at once.
    plain: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    /// A caller who has not said enough to tell.
    Unknown,
    /// We called, and encrypt.
    Initiator(Box<Initiator>),
    /// They called, and encrypt.
    Responder(Box<Responder>),
    /// BitTorrent's own, deciphered if there are ciphers.
    BitTorrent,
}

/// What hearing takes beside the bytes.
pub(super) struct Ears<'a> {
    pub(super) rng: &'a mut Rng,
    /// Whether callers may or must encrypt.
    pub(super) encrypt_in: Encryption,
    /// Which torrent is asked for so.
    pub(super) who: &'a dyn Fn(Req2) -> Option<InfoHash>,
    /// Arithmetic to be done elsewhere; two at most for each handshake.
    pub(super) sums: &'a mut Vec<Sum>,
}

impl Shaking {
    /// Somebody called.
    pub(super) fn caller(from: SocketAddr, since: Time, carrier: Carrier, encrypt_in: Encryption) -> Shaking {
        let stage = if encrypt_in == Encryption::Off { Stage::BitTorrent } else { Stage::Unknown };
        Shaking::new(Side::Caller { from, torrent: None }, since, carrier, stage)
    }

    /// We called somebody, and say `ours`. If that is encrypted, there is a sum to be done first.
    pub(super) fn dialed(
        dial: Dial,
        since: Time,
        carrier: Carrier,
        ours: &Handshake,
        encrypt_out: Encryption,
        rng: &mut Rng,
    ) -> (Shaking, Option<Sum>) {
        if !dial.encrypted {
            let mut shaking = Shaking::new(Side::Dialed(dial), since, carrier, Stage::BitTorrent);
            shaking.unsent.bytes.extend(ours.encode());
            return (shaking, None);
        }
        let offer = if encrypt_out == Encryption::Require { Offer::RC4 } else { Offer::BOTH };
        let (initiator, sum) = Initiator::begin(rng, dial.info_hash, offer, &ours.encode());
        let stage = Stage::Initiator(Box::new(initiator));
        (Shaking::new(Side::Dialed(dial), since, carrier, stage), Some(sum))
    }

    fn new(side: Side, since: Time, carrier: Carrier, stage: Stage) -> Shaking {
        let (unsent, plain) = (Unsent::default(), Vec::new());
        let (ourselves, heard, proved) = (false, false, None);
        Shaking { side, since, carrier, unsent, ourselves, heard, proved, stage, ciphers: None, plain }
    }

    /// The caller proved to belong to a torrent. What it says by TLS is not encrypted once more.
    pub(super) fn proved(&mut self, torrent: TorrentId) {
        (self.proved, self.stage) = (Some(torrent), Stage::BitTorrent);
    }

    /// Hears all of `bytes`, and returns how far BitTorrent's handshake is.
    ///
    /// # Errors
    /// Nothing can come of it, and why.
    pub(super) fn hear(&mut self, ears: &mut Ears<'_>, bytes: &[u8]) -> Result<Progress, Goodbye> {
        self.heard = true;
        match self.stage {
            Stage::Unknown => {
                self.plain.extend_from_slice(bytes);
                self.look(ears)?;
            }
            Stage::BitTorrent => self.decipher(bytes),
            Stage::Initiator(_) | Stage::Responder(_) => self.talk(ears, bytes)?,
        }
        let came = &self.plain[..self.plain.len().min(HANDSHAKE_BYTES)];
        let came = if matches!(self.stage, Stage::BitTorrent) { came } else { &[] };
        Handshake::decode(came).map_err(|_: HandshakeError| Goodbye::Broke("does not speak BitTorrent"))
    }

    /// What a caller speaks, once its first bytes tell.
    fn look(&mut self, ears: &mut Ears<'_>) -> Result<(), Goodbye> {
        match mse::may_be_mse(&self.plain) {
            Verdict::More => Ok(()),
            Verdict::Plain if ears.encrypt_in == Encryption::Require => {
                Err(Goodbye::Broke("does not encrypt, as is required here"))
            }
            Verdict::Plain => {
                self.stage = Stage::BitTorrent;
                Ok(())
            }
            Verdict::Mse => {
                let accept = if ears.encrypt_in == Encryption::Require { Offer::RC4 } else { Offer::BOTH };
                // What is not encrypted costs nobody anything; hiding the handshake is what most networks ask for.
                let responder = Responder::new(ears.rng, accept, Choice::Plain);
                self.stage = Stage::Responder(Box::new(responder));
                let first = std::mem::take(&mut self.plain);
                self.talk(ears, &first)
            }
        }
    }

    /// The encrypted handshake.
    fn talk(&mut self, ears: &mut Ears<'_>, bytes: &[u8]) -> Result<(), Goodbye> {
        let mut rest = bytes;
        loop {
            let (eaten, step) = match &mut self.stage {
                Stage::Initiator(initiator) => initiator.hear(rest),
                Stage::Responder(responder) => responder.hear(rest),
                Stage::Unknown | Stage::BitTorrent => return Ok(()),
            }
            .map_err(goodbye)?;
            rest = &rest[eaten..];
            let more = match step {
                Step::More => false,
                Step::Sum(sum) => {
                    ears.sums.push(sum);
                    true
                }
                Step::Who(req2) => {
                    if let Stage::Responder(responder) = &mut self.stage {
                        responder.known((ears.who)(req2)).map_err(goodbye)?;
                    }
                    true
                }
                Step::Done(done) => {
                    self.take_words();
                    self.stage = Stage::BitTorrent;
                    self.ciphers = done.ciphers;
                    self.plain.extend_from_slice(&done.payload);
                    self.decipher(rest);
                    return Ok(());
                }
            };
            self.take_words();
            if !more {
                return Ok(());
            }
        }
    }

    /// A sum was done; what follows is in `unsent`.
    pub(super) fn on_total(&mut self, total: Total) {
        match &mut self.stage {
            Stage::Initiator(initiator) => initiator.on_total(total),
            Stage::Responder(responder) => responder.on_total(total),
            Stage::Unknown | Stage::BitTorrent => {}
        }
        self.take_words();
    }

    fn take_words(&mut self) {
        let words = match &mut self.stage {
            Stage::Initiator(initiator) => initiator.take_out(),
            Stage::Responder(responder) => responder.take_out(),
            Stage::Unknown | Stage::BitTorrent => return,
        };
        self.unsent.bytes.extend(words);
    }

    fn decipher(&mut self, bytes: &[u8]) {
        let before = self.plain.len();
        self.plain.extend_from_slice(bytes);
        if let Some(ciphers) = &mut self.ciphers {
            ciphers.incoming.apply(&mut self.plain[before..]);
        }
    }

    /// Says `ours` to a caller.
    pub(super) fn answer(&mut self, ours: &Handshake) {
        let mut bytes = ours.encode();
        if let Some(ciphers) = &mut self.ciphers {
            ciphers.outgoing.apply(&mut bytes);
        }
        self.unsent.bytes.extend(bytes);
    }

    /// What the connection's next owner gets, once the handshake is whole.
    pub(super) fn into_parts(mut self) -> Parts {
        let leftover = self.plain.split_off(self.plain.len().min(HANDSHAKE_BYTES));
        Parts { side: self.side, carrier: self.carrier, unsent: self.unsent, ciphers: self.ciphers, leftover }
    }
}

/// What is left of a handshake.
pub(super) struct Parts {
    pub(super) side: Side,
    pub(super) carrier: Carrier,
    pub(super) unsent: Unsent,
    pub(super) ciphers: Option<Box<Ciphers>>,
    /// What came behind it, deciphered.
    pub(super) leftover: Vec<u8>,
}

fn goodbye(fault: Fault) -> Goodbye {
    match fault {
        Fault::UnknownTorrent => Goodbye::Unknown,
        Fault::NoSync | Fault::TooEarly => Goodbye::Broke("does not speak BitTorrent"),
        Fault::DegenerateKey => Goodbye::Broke("encrypts with a key that anybody could guess"),
        Fault::NothingInCommon { .. } | Fault::WrongChoice { .. } => {
            Goodbye::Broke("does not encrypt as is required here")
        }
        Fault::Garbled | Fault::PadTooLong(_) | Fault::PayloadTooLong(_) => {
            Goodbye::Broke("breaks the encrypted handshake")
        }
    }
}

/// What of our handshake has yet to be written; at most some 2 KiB.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Unsent {
    bytes: Vec<u8>,
    wrote: usize,
}

impl Unsent {
    /// The bytes to write next.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.wrote..]
    }

    /// So many of them were written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.wrote = self.wrote.saturating_add(bytes).min(self.bytes.len());
        if self.wrote == self.bytes.len() {
            (self.bytes, self.wrote) = (Vec::new(), 0);
        }
    }
}
