//! Message stream encryption: both ends, driven as an engine drives them, with their sums computed on the spot or
//! later.

use std::convert::Infallible;

use piecemeal_metainfo::InfoHash;
use piecemeal_transport::mse::{
    Choice, Done, Fault, Initiator, KEY_BYTES, MAX_PAD, MAX_PAYLOAD, Offer, Responder, Step, Sum, Total,
    Verdict, may_be_mse, req2,
};
use piecemeal_wire::Handshake;
use rand_core::TryRng;

/// The torrent that both know.
pub const SKEY: InfoHash = InfoHash([0x5a; 20]);
/// What the initiator's stream begins with.
pub const PAYLOAD: &[u8; 68] =
    b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x05ZZZZZZZZZZZZZZZZZZZZ-PM0100-abcdefghijkl";

/// A connection of an input: the first byte says what both ends offer and accept, and whether the input is what a
/// stranger says, or how the words of one who knows the torrent are changed; the second how the bytes are cut.
pub fn mse(input: &[u8]) {
    let verdict = may_be_mse(input);
    let plain = Handshake::decode(input).is_ok();
    assert_eq!(verdict == Verdict::Mse, !plain);
    let [mode, chunk, rest @ ..] = input else { return };
    let offer = |bits: u8| Offer { plain: bits & 1 != 0, rc4: bits & 2 != 0 };
    let prefer = if mode & 0x40 != 0 { Choice::Plain } else { Choice::Rc4 };
    let (mut a, mut b) = ends(offer(mode >> 2), offer(mode >> 4), prefer, [3, 5], [2, 6]);
    let chunk = if *chunk == 0 { usize::MAX } else { usize::from(*chunk) };
    match mode & 3 {
        0 => b.hear_all(rest, chunk),
        1 => a.hear_all(rest, chunk),
        _ => {
            let (to_b, to_a) = rest.split_at(rest.len() / 2);
            meddle(&mut a, &mut b, to_b, to_a, chunk);
        }
    }
    a.check();
    b.check();
    if mode & 3 == 2 && rest.iter().all(|byte| *byte == 0) {
        let common =
            [offer(mode >> 2), offer(mode >> 4)].map(|offer| u8::from(offer.plain) + 2 * u8::from(offer.rc4));
        assert_eq!(matches!(b.end, Some(Ok(_))), common[0] & common[1] != 0);
        assert_eq!(matches!(a.end, Some(Ok(_))), common[0] & common[1] != 0);
    }
}

/// Joins both, and changes what they say behind their keys. As a stream cipher lets anyone flip the bits of what it
/// hides, this changes the plain words.
fn meddle(a: &mut Actor<Initiator>, b: &mut Actor<Responder>, to_b: &[u8], to_a: &[u8], chunk: usize) {
    let first = a.take_out();
    b.hear_all(&first, chunk);
    let first = b.take_out();
    a.hear_all(&first, chunk);
    let mut second = a.take_out();
    second.iter_mut().zip(to_b).for_each(|(byte, flip)| *byte ^= flip);
    b.hear_all(&second, chunk);
    let mut second = b.take_out();
    second.iter_mut().zip(to_a).for_each(|(byte, flip)| *byte ^= flip);
    a.hear_all(&second, chunk);
}

/// Good inputs: what each end hears of an honest other one, and honest words that are not changed.
pub fn seeds() -> Vec<Vec<u8>> {
    let (mut a, mut b) = ends(Offer::BOTH, Offer::BOTH, Choice::Plain, [3, 5], [2, 6]);
    let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let out = a.take_out();
        b.hear_all(&out, usize::MAX);
        to_b.extend(out);
        let out = b.take_out();
        a.hear_all(&out, usize::MAX);
        to_a.extend(out);
    }
    assert!(matches!((&a.end, &b.end), (Some(Ok(_)), Some(Ok(_)))));
    vec![
        [&[0x7c, 0][..], &to_b].concat(),
        [&[0x3c, 1][..], &to_b].concat(),
        [&[0x7d, 0][..], &to_a].concat(),
        [&[0x3d, 7][..], &to_a].concat(),
        [&[0x7e, 0][..], &[0; 400]].concat(),
        [&[0x2a, 3][..], &[0; 400]].concat(),
        PAYLOAD.to_vec(),
    ]
}

/// Two ends that know the torrent. The initiator's first sum is done. The lengths are those of pads A and C, B and D.
pub fn ends(
    offer: Offer,
    accept: Offer,
    prefer: Choice,
    pads_a: [usize; 2],
    pads_b: [usize; 2],
) -> (Actor<Initiator>, Actor<Responder>) {
    let (initiator, sum) = Initiator::begin(&mut Script::new([1; 20], pads_a), SKEY, offer, PAYLOAD);
    let mut a = Actor::new(initiator);
    a.sum = Some(sum);
    a.settle();
    (a, Actor::new(Responder::new(&mut Script::new([2; 20], pads_b), accept, prefer)))
}

/// Dice whose rolls are known: one private key, and pads of these lengths.
pub struct Script {
    private: [u8; 20],
    lens: std::array::IntoIter<usize, 2>,
}

impl Script {
    /// The pads of one end are two, in this order.
    pub fn new(private: [u8; 20], lens: [usize; 2]) -> Script {
        Script { private, lens: lens.into_iter() }
    }
}

impl TryRng for Script {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // The least number that makes this length of MAX_PAD + 1.
        let len = self.lens.next().expect("an end has two pads") as u64;
        Ok((len << 32).div_ceil(MAX_PAD as u64 + 1) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("no end asks for that")
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Infallible> {
        match into.len() {
            20 if self.lens.len() == 2 => into.copy_from_slice(&self.private),
            _ => into.fill(20),
        }
        Ok(())
    }
}

/// What both ends have.
pub trait Machine {
    /// As of the ends.
    fn hear(&mut self, bytes: &[u8]) -> Result<(usize, Step), Fault>;
    /// As of the ends.
    fn on_total(&mut self, total: Total);
    /// As of the ends.
    fn take_out(&mut self) -> Vec<u8>;
    /// As of the responder.
    fn known(&mut self, skey: Option<InfoHash>) -> Result<(), Fault>;
}

impl Machine for Initiator {
    fn hear(&mut self, bytes: &[u8]) -> Result<(usize, Step), Fault> {
        self.hear(bytes)
    }

    fn on_total(&mut self, total: Total) {
        self.on_total(total);
    }

    fn take_out(&mut self) -> Vec<u8> {
        self.take_out()
    }

    fn known(&mut self, _: Option<InfoHash>) -> Result<(), Fault> {
        panic!("whoever dials knows the torrent")
    }
}

impl Machine for Responder {
    fn hear(&mut self, bytes: &[u8]) -> Result<(usize, Step), Fault> {
        self.hear(bytes)
    }

    fn on_total(&mut self, total: Total) {
        self.on_total(total);
    }

    fn take_out(&mut self) -> Vec<u8> {
        self.take_out()
    }

    fn known(&mut self, skey: Option<InfoHash>) -> Result<(), Fault> {
        self.known(skey)
    }
}

/// One end and who drives it.
pub struct Actor<M> {
    /// The end.
    pub machine: M,
    /// The torrents it knows.
    pub torrents: Vec<InfoHash>,
    /// A sum that is not computed yet.
    pub sum: Option<Sum>,
    /// Sums wait for [`Actor::settle`].
    pub late: bool,
    /// How the handshake ended.
    pub end: Option<Result<Done, Fault>>,
    /// What it says behind the handshake, once.
    pub says: Vec<u8>,
    /// What came behind the handshake, decrypted; the payload before it.
    pub heard: Vec<u8>,
    unheard: Vec<u8>,
    out: Vec<u8>,
}

impl<M: Machine> Actor<M> {
    /// Who knows [`SKEY`] and says nothing.
    pub fn new(machine: M) -> Actor<M> {
        Actor {
            machine,
            torrents: vec![SKEY],
            sum: None,
            late: false,
            end: None,
            says: Vec::new(),
            heard: Vec::new(),
            unheard: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Hears so many bytes at a time.
    pub fn hear_all(&mut self, bytes: &[u8], chunk: usize) {
        bytes.chunks(chunk).for_each(|bytes| self.hear(bytes));
    }

    /// Hears bytes, and does what comes of it.
    pub fn hear(&mut self, bytes: &[u8]) {
        self.unheard.extend_from_slice(bytes);
        while self.end.is_none() {
            let step = match self.machine.hear(&self.unheard) {
                Err(fault) => return self.fail(fault),
                Ok((eaten, step)) => {
                    self.unheard.drain(..eaten);
                    step
                }
            };
            match step {
                Step::More => {
                    assert!(self.unheard.is_empty(), "all is eaten");
                    break;
                }
                Step::Sum(sum) => {
                    assert!(self.sum.replace(sum).is_none(), "one at a time");
                    if !self.late {
                        self.settle();
                    }
                }
                Step::Who(asked) => {
                    let skey = self.torrents.iter().find(|skey| req2(**skey) == asked);
                    if let Err(fault) = self.machine.known(skey.copied()) {
                        return self.fail(fault);
                    }
                }
                Step::Done(done) => self.end(done),
            }
        }
        if let Some(Ok(done)) = &mut self.end {
            if let Some(ciphers) = &mut done.ciphers {
                ciphers.incoming.apply(&mut self.unheard);
            }
            self.heard.append(&mut self.unheard);
        }
    }

    /// Computes the sum that waits, if one does.
    pub fn settle(&mut self) {
        if let Some(sum) = self.sum.take() {
            self.machine.on_total(sum.run());
        }
    }

    /// What goes out.
    pub fn take_out(&mut self) -> Vec<u8> {
        let mut out = self.machine.take_out();
        // Neither end has more than two flights, and the second goes when the first was answered.
        assert!(out.len() <= 2 * (KEY_BYTES + MAX_PAD) + MAX_PAYLOAD);
        if self.end.is_some() {
            out.append(&mut self.out);
        }
        out
    }

    /// What must hold whatever happened.
    pub fn check(&mut self) {
        match &self.end {
            Some(Ok(done)) => {
                assert_eq!(done.ciphers.is_some(), done.choice == Choice::Rc4);
                assert!(done.payload.len() <= MAX_PAYLOAD);
            }
            Some(Err(_)) => {
                let again = self.machine.hear(b"and more");
                assert!(matches!(again, Ok((0, Step::More))), "{again:?}");
            }
            None => {}
        }
    }

    fn end(&mut self, mut done: Done) {
        self.heard.extend(&done.payload);
        let mut says = std::mem::take(&mut self.says);
        if let Some(ciphers) = &mut done.ciphers {
            ciphers.outgoing.apply(&mut says);
        }
        self.out.extend(says);
        self.end = Some(Ok(done));
    }

    fn fail(&mut self, fault: Fault) {
        self.end = Some(Err(fault));
    }
}
