//! Bytes of a connection, cut into messages and Blocks.
//!
//! Owns what is read and not yet understood: the start of a message, or the Block that is coming in. What is said is
//! the PeerConnection's to judge. Memory: no message is kept beyond what was received of it, and its length was judged
//! before (`wire::message`); a Block sits in a Buf of the pool.

use piecemeal_metainfo::{PieceIndex, Time};
use piecemeal_package::{BlockPool, BlockRef, Buf};
use piecemeal_wire::message::{Head, Limits, WireError, decode_head, needed};

/// A message buffer larger than this is not kept for the next.
const KEPT_INBOX_BYTES: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The start of a message, or all of it once [`Read::Kept`] was said.
    inbox: Vec<u8>,
    /// The message in `inbox` was told.
    told: bool,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// A message begins, or goes on in `inbox`.
    #[default]
    Head,
    /// A Block comes in.
    Block { at: BlockRef, buf: Buf, since: Time },
    /// Payload that is of no use.
    Skip { left: u32 },
}

/// What came.
pub(super) enum Read<'a> {
    /// A whole message: these bytes, prefix included.
    Message(&'a [u8]),
    /// A whole message, that came in parts: see [`Reader::kept`].
    Kept,
    /// A Block, whole.
    Block(BlockRef, Buf),
    /// A Block that nobody waits for begins; so many bytes will be skipped.
    Unasked(u32),
    /// All bytes are eaten.
    More,
    /// There is no Buf for the Block that comes now.
    Thirsty,
}

/// What stands at the start of some bytes.
enum Seen {
    Short,
    KeepAlive,
    Message(usize),
    Piece(BlockRef, usize),
}

impl Reader {
    /// The next thing in `input`, which shrinks by what was eaten. `wants` says whether a Block is waited for.
    pub(super) fn next<'a>(
        &mut self,
        now: Time,
        pool: &mut BlockPool,
        limits: &Limits,
        input: &mut &'a [u8],
        wants: impl Fn(BlockRef) -> bool,
    ) -> Result<Read<'a>, WireError> {
        self.forget_told();
        loop {
            if let Some(read) = self.payload(input) {
                return Ok(read);
            }
            let seen = if self.inbox.is_empty() { look(input, limits)? } else { self.fill(input, limits)? };
            match seen {
                Seen::Short => {
                    self.inbox.extend_from_slice(input);
                    *input = &[];
                    return Ok(Read::More);
                }
                Seen::KeepAlive => drop(self.consume(4, input)),
                Seen::Message(bytes) => return Ok(self.consume(bytes, input)),
                Seen::Piece(at, header) if !wants(at) => {
                    self.consume(header, input);
                    self.forget_told();
                    self.state = State::Skip { left: at.len };
                    return Ok(Read::Unasked(at.len));
                }
                Seen::Piece(at, header) => {
                    let Some(buf) = pool.lend() else { return Ok(Read::Thirsty) };
                    self.consume(header, input);
                    self.state = State::Block { at, buf, since: now };
                }
            }
            self.forget_told();
        }
    }

    /// The message of [`Read::Kept`], until the next call of [`Reader::next`].
    pub(super) fn kept(&self) -> &[u8] {
        &self.inbox
    }

    /// The Block that is coming in, and since when.
    pub(super) fn block(&self) -> Option<(BlockRef, Time)> {
        match &self.state {
            State::Block { at, since, .. } => Some((*at, *since)),
            _ => None,
        }
    }

    /// Gives up the Block that is coming in: its rest will be skipped.
    pub(super) fn take_back(&mut self, pool: &mut BlockPool) -> Option<BlockRef> {
        self.block()?;
        let State::Block { at, buf, .. } = std::mem::take(&mut self.state) else { return None };
        self.state = State::Skip { left: at.len - buf.len() };
        pool.give_back(buf);
        Some(at)
    }

    /// Takes payload, if it is payload that comes.
    fn payload<'a>(&mut self, input: &mut &'a [u8]) -> Option<Read<'a>> {
        match &mut self.state {
            State::Block { at, buf, .. } => {
                let eaten = buf.append(input, at.len);
                *input = &input[eaten..];
                if buf.len() < at.len {
                    return Some(Read::More);
                }
            }
            State::Skip { left } => {
                let step = (*left as usize).min(input.len());
                *input = &input[step..];
                *left -= step as u32;
                if *left > 0 {
                    return Some(Read::More);
                }
            }
            State::Head => {}
        }
        match std::mem::take(&mut self.state) {
            State::Block { at, buf, .. } => Some(Read::Block(at, buf)),
            State::Skip { .. } | State::Head => {
                (input.is_empty() && self.inbox.is_empty()).then_some(Read::More)
            }
        }
    }

    /// Takes into the inbox what makes a difference, and looks at it, until it is whole or `input` has no more.
    fn fill(&mut self, input: &mut &[u8], limits: &Limits) -> Result<Seen, WireError> {
        loop {
            match look(&self.inbox, limits)? {
                Seen::Short if input.is_empty() => return Ok(Seen::Short),
                Seen::Short => {
                    let lacking = needed(&self.inbox).saturating_sub(self.inbox.len());
                    let (step, rest) = input.split_at(lacking.min(input.len()));
                    self.inbox.extend_from_slice(step);
                    *input = rest;
                }
                seen => return Ok(seen),
            }
        }
    }

    /// Takes what was seen, from wherever it was.
    fn consume<'a>(&mut self, bytes: usize, input: &mut &'a [u8]) -> Read<'a> {
        if self.inbox.is_empty() {
            let (taken, rest) = input.split_at(bytes);
            *input = rest;
            return Read::Message(taken);
        }
        debug_assert_eq!(self.inbox.len(), bytes, "the inbox holds one message");
        self.told = true;
        Read::Kept
    }

    fn forget_told(&mut self) {
        if std::mem::take(&mut self.told) {
            self.inbox.clear();
            if self.inbox.capacity() > KEPT_INBOX_BYTES {
                self.inbox = Vec::new();
            }
        }
    }
}

fn look(bytes: &[u8], limits: &Limits) -> Result<Seen, WireError> {
    Ok(match decode_head(bytes, limits)? {
        Head::NeedMore => Seen::Short,
        Head::KeepAlive => Seen::KeepAlive,
        Head::Message { consumed, .. } => Seen::Message(consumed),
        Head::Piece { piece, begin, len, consumed } => {
            Seen::Piece(BlockRef { piece: PieceIndex(piece), begin, len }, consumed)
        }
    })
}
