//! Which Block next.
//!
//! Owns claims, rarity and the picking mood; what has been verified belongs to Package, which peer may be asked and how
//! much to the Controller. The Controller says what it knows of a peer (what it has, how fast it is, how many
//! Blocks it may be asked for) and gets Blocks, each claimed for that peer until it is `received` or `forget`-ed. A Block
//! has one claimant, except in the endgame.
//!
//! Pieces are finished before others are begun: few open pieces mean early verdicts and hashing in order. Which to
//! begin depends on the mood, see [`Mood`]. A peer goes on with the piece it claimed from last. A fast peer (a piece in
//! less than 20 s) rather begins one of its own; slow ones join one another's. A fast peer's own piece is left
//! to it, as it will be done soon, unless nothing else can be done.
//!
//! Costs: `pick` and `received` take constant time and no memory in the steady state, apart from a walk over the pieces
//! with free Blocks (about one a busy peer) when a peer needs another piece. A peer joining or leaving costs time
//! linear in what it has, a seed nothing.

mod open;
mod rarity;
mod set;

use piecemeal_metainfo::PieceIndex;
use piecemeal_package::{BLOCK_LEN, BlockRef};
use rand_core::Rng;

use open::{Came, Opens};
use rarity::Rarity;
pub use set::Has;
use set::Set;

/// Pieces to be verified before rarity decides. Something to trade is needed first, and rare pieces come slowly, often
/// from one peer only (libtorrent's `initial_picker_threshold`, also 4).
const OPENING_PIECES: u32 = 4;

/// A peer that needs less than this for a whole piece works alone (libtorrent's `whole_pieces_threshold`).
const ALONE_SECONDS: u64 = 20;

/// Pieces with free Blocks beyond one a busy peer, before further peers must join them.
const SPARE_OPEN: usize = 8;

/// Claims a peer may have in the endgame however slow it is, before it shares other peers' claims: one on its way, one
/// behind it.
const ENDGAME_CLAIMS: u32 = 2;

/// And however fast it is: a quarter of a MiB.
const MOST_ENDGAME_CLAIMS: u32 = 16;

/// A peer as the Picker sees it: the number of its seat with the Controller, to be used again only after
/// [`Picker::forget_peer`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerSlot(pub u32);

/// What decides which piece is begun next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// Fewer than four pieces are verified: begin what about half of the peers have, and finish it together.
    Opening,
    /// Begin one of the rarest.
    Rarest,
    /// Begin the first; for those who watch while it comes.
    Sequential,
    /// Every wanted Block that is missing is claimed: claim some twice, and cancel with whoever is late.
    Endgame,
}

/// What the Controller knows of the peer it picks for.
#[derive(Clone, Copy, Debug)]
pub struct PickFacts<'a> {
    /// Bytes per second it gives lately.
    pub rate: u64,
    /// How many more Blocks it should be asked for.
    pub want: usize,
    /// Whatever it brings must be told from what others bring: it shares no piece, as long as there are enough.
    pub alone: bool,
    /// In the endgame it may be asked for what others were asked for.
    pub share: bool,
    /// It chokes us, but lets us have these pieces (BEP 6, "allowed fast").
    pub allowed_fast: Option<&'a [PieceIndex]>,
}

/// What [`Picker::received`] thinks of a Block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// It was claimed and missing. Keep it.
    Fresh,
    /// It had come before. Drop it.
    Duplicate,
    /// The sender does not claim it (any more), or it is no Block of ours. To keep it all the same, see
    /// [`Picker::adopt`].
    Unclaimed,
}

/// Where a Block stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockState {
    /// It may be claimed, if its piece is wanted.
    Free,
    /// So many peers have been asked for it.
    Claimed(usize),
    /// It came, or its piece is verified.
    Received,
}

/// An open piece, for those who look on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenFacts {
    /// Which.
    pub piece: PieceIndex,
    /// How many Blocks it has.
    pub blocks: u32,
    /// How many came.
    pub received: u32,
    /// How many are claimed.
    pub claimed: u32,
}

/// Knows what is missing, and shares it out.
#[derive(Clone, Debug)]
pub struct Picker {
    pieces: u32,
    piece_length: u32,
    last_piece_length: u32,
    sequential: bool,
    wanted: Set,
    have: Set,
    /// All Blocks came, the verdict is awaited.
    full: Set,
    /// Wanted and not verified.
    lack: Set,
    rarity: Rarity,
    opens: Opens,
}

impl Picker {
    /// For a torrent of `pieces` pieces of `piece_length` bytes, the last of `last_piece_length` (neither zero, the
    /// last no longer than the others). All are wanted and none verified.
    pub fn new(pieces: u32, piece_length: u32, last_piece_length: u32) -> Picker {
        debug_assert!(piece_length >= last_piece_length && last_piece_length > 0);
        Picker {
            pieces,
            piece_length: piece_length.max(1),
            last_piece_length: last_piece_length.max(1),
            sequential: false,
            wanted: Set::full(pieces),
            have: Set::new(pieces),
            full: Set::new(pieces),
            lack: Set::full(pieces),
            rarity: Rarity::new(pieces),
            opens: Opens::default(),
        }
    }

    /// Whether anything of `piece` is to be downloaded. Claims stand; what came is kept.
    pub fn set_wanted(&mut self, piece: PieceIndex, wanted: bool) {
        if self.wanted.put(piece.0, wanted) {
            self.settle(piece.0);
        }
    }

    /// Whether pieces are begun in order.
    pub fn set_sequential(&mut self, sequential: bool) {
        self.sequential = sequential;
    }

    /// `piece` is verified, at start or later. Claims on it are void: cancel them, or see their Blocks come as
    /// [`Received::Duplicate`].
    pub fn set_have(&mut self, piece: PieceIndex) {
        if self.have.put(piece.0, true) {
            self.full.put(piece.0, false);
            if let Some(seat) = self.opens.at(piece.0) {
                self.opens.close(seat);
            }
            self.settle(piece.0);
            if self.lack.is_empty() {
                self.rarity.rest();
                self.opens.rest();
            }
        }
    }

    /// `piece` failed its hash, or its data is gone: whatever came of it is free again. Claims stand.
    pub fn lost(&mut self, piece: PieceIndex) {
        self.have.put(piece.0, false);
        self.full.put(piece.0, false);
        if let Some(seat) = self.opens.at(piece.0) {
            for block in 0..self.opens.get(seat).blocks() {
                self.opens.lose(seat, block);
            }
            self.close_if_idle(seat);
        }
        self.settle(piece.0);
    }

    /// A peer with these pieces joined. Say [`Has::All`] of a seed: it costs nothing. The same must be said when it
    /// leaves, with what [`Picker::has`] added in between.
    pub fn peer_joined(&mut self, has: Has<'_>) {
        self.rarity.peer_joined(has);
    }

    /// A peer with these pieces left. Its claims are forgotten by [`Picker::forget_peer`].
    pub fn peer_left(&mut self, has: Has<'_>) {
        self.rarity.peer_left(has);
    }

    /// A peer that did not join as [`Has::All`] got `piece`, and did not have it before.
    pub fn has(&mut self, piece: PieceIndex) {
        self.rarity.more(piece.0);
    }

    /// A peer that did not join as [`Has::All`] has `piece` no more (BEP 54).
    pub fn has_no_more(&mut self, piece: PieceIndex) {
        self.rarity.fewer(piece.0);
    }

    /// How many peers have `piece`.
    pub fn copies(&self, piece: PieceIndex) -> u32 {
        self.rarity.copies(piece)
    }

    /// Whether a peer has a piece that is wanted and not verified.
    pub fn is_interesting(&self, has: Has<'_>) -> bool {
        self.lack.meets(has)
    }

    /// Whether `piece` is wanted and not verified: whether a `have` of it makes a peer interesting.
    pub fn lacks(&self, piece: PieceIndex) -> bool {
        self.lack.contains(piece.0)
    }

    /// How many pieces are wanted and not verified.
    pub fn missing(&self) -> u32 {
        self.lack.len()
    }

    /// The mood now.
    pub fn mood(&self) -> Mood {
        let all_claimed = self.rarity.candidates().is_empty() && self.opens.joinable().is_empty();
        if all_claimed && !self.lack.is_empty() {
            Mood::Endgame
        } else if self.sequential {
            Mood::Sequential
        } else if self.have.len() < OPENING_PIECES {
            Mood::Opening
        } else {
            Mood::Rarest
        }
    }

    /// Appends up to `facts.want` Blocks to `out`, all of pieces that `has` has, claimed for `who` from now on.
    ///
    /// A Block that `who` forgot (rejected, timed out) may be picked for it again; whoever cannot bring what it
    /// promised should not be picked for.
    pub fn pick<R: Rng + ?Sized>(
        &mut self,
        rng: &mut R,
        who: PeerSlot,
        has: Has<'_>,
        facts: &PickFacts<'_>,
        out: &mut Vec<BlockRef>,
    ) {
        if facts.want == 0 {
            return;
        }
        let goal = out.len().saturating_add(facts.want);
        let fast = facts.rate.saturating_mul(ALONE_SECONDS) > u64::from(self.piece_length);
        if let Some(allowed) = facts.allowed_fast {
            self.pick_allowed(who, has, fast, allowed, goal, out);
            return;
        }
        if facts.alone {
            self.pick_alone(rng, who, has, goal, out);
            return;
        }
        if !self.sequential {
            self.go_on(who, has, fast, goal, out);
        }
        while out.len() < goal {
            let Some(seat) = self.next_piece(rng, who, has, fast) else { break };
            self.claim(seat, who, fast, goal, out);
        }
        if facts.share && out.len() < goal && self.mood() == Mood::Endgame {
            self.share_claims(who, has, facts.rate, goal, out);
        }
    }

    /// `who` sent a Block. Whoever else claims it is appended to `cancel` and claims it no longer.
    pub fn received(
        &mut self,
        who: PeerSlot,
        block: BlockRef,
        cancel: &mut Vec<(PeerSlot, BlockRef)>,
    ) -> Received {
        self.came(Some(who), block, cancel)
    }

    /// A Block is here although nobody was asked for it, or no longer: found on disk at start, or late. True if it was
    /// missing and counts now; claimants are appended to `cancel`.
    pub fn adopt(&mut self, block: BlockRef, cancel: &mut Vec<(PeerSlot, BlockRef)>) -> bool {
        let piece = block.piece.0;
        if self.index(block).is_none() || self.have.contains(piece) || self.full.contains(piece) {
            return false;
        }
        if self.opens.at(piece).is_none() {
            self.open(piece);
        }
        self.came(None, block, cancel) == Received::Fresh
    }

    /// A Block that came was lost before its piece was verified, say because it could not be written: it is free again.
    /// False if it had not come.
    pub fn drop_block(&mut self, block: BlockRef) -> bool {
        let (Some(at), piece) = (self.index(block), block.piece.0) else { return false };
        if self.full.put(piece, false) {
            let seat = self.open(piece);
            for other in (0..self.blocks_of(piece)).filter(|other| *other != at) {
                self.opens.came(seat, other, None, |_| {});
            }
            self.close_if_idle(seat);
            return true;
        }
        let Some(seat) = self.opens.at(piece) else { return false };
        let dropped = self.opens.lose(seat, at);
        self.close_if_idle(seat);
        dropped
    }

    /// `who` will not bring this Block: rejected, timed out, cancelled. False if it did not claim it.
    pub fn forget(&mut self, who: PeerSlot, block: BlockRef) -> bool {
        let seat = self.opens.at(block.piece.0);
        let (Some(at), Some(seat)) = (self.index(block), seat) else { return false };
        let forgotten = self.opens.forget(seat, at, who);
        if forgotten {
            self.opens.disown(seat, who);
            self.opens.leave_piece(who);
            self.close_if_idle(seat);
        }
        forgotten
    }

    /// `who` will bring nothing: it left, or choked us. All it claims is free again.
    pub fn forget_peer(&mut self, who: PeerSlot) {
        for seat in 0..self.opens.seats() {
            if self.opens.forget_in(seat, who) {
                self.close_if_idle(seat);
            }
        }
        self.opens.remove_row(who);
    }

    /// Where `block` stands; `None` if it is no Block of this torrent.
    pub fn block_state(&self, block: BlockRef) -> Option<BlockState> {
        let at = self.index(block)?;
        if self.have.contains(block.piece.0) || self.full.contains(block.piece.0) {
            return Some(BlockState::Received);
        }
        Some(match self.opens.block(block.piece.0, at) {
            Some((true, _)) => BlockState::Received,
            None | Some((false, [])) => BlockState::Free,
            Some((false, claimants)) => BlockState::Claimed(claimants.len()),
        })
    }

    /// Who claims `block`, the first claimant first.
    pub fn claimants(&self, block: BlockRef) -> &[PeerSlot] {
        let claimants = self.index(block).and_then(|at| self.opens.block(block.piece.0, at));
        claimants.map_or(&[], |(_, claimants)| claimants)
    }

    /// How many Blocks `who` claims.
    pub fn claims(&self, who: PeerSlot) -> u32 {
        self.opens.claims_of(who)
    }

    /// How many pieces are open: with a Block claimed or received, but not all received.
    pub fn open_pieces(&self) -> usize {
        self.opens.len()
    }

    /// The open pieces, in no order.
    pub fn open_facts(&self) -> impl Iterator<Item = OpenFacts> + '_ {
        self.opens.iter().map(|open| OpenFacts {
            piece: PieceIndex(open.piece),
            blocks: open.blocks(),
            received: open.came,
            claimed: open.blocks() - open.came - open.free,
        })
    }

    /// Pieces for `who` alone: its own, then fresh ones, then what others left.
    fn pick_alone<R: Rng + ?Sized>(
        &mut self,
        rng: &mut R,
        who: PeerSlot,
        has: Has<'_>,
        goal: usize,
        out: &mut Vec<BlockRef>,
    ) {
        while out.len() < goal {
            let orphan = |open: &open::Open| open.owner.is_none() && has.get(open.piece);
            let own = |open: &open::Open| open.owner == Some(who) && open.alone && has.get(open.piece);
            let find = |which: &dyn Fn(&open::Open) -> bool| {
                self.opens.joinable().iter().copied().find(|seat| which(self.opens.get(*seat)))
            };
            let (own, orphan) = (find(&own), find(&orphan));
            let seat = match own {
                Some(seat) => seat,
                None => {
                    let fresh =
                        if self.sequential { self.rarity.first(has) } else { self.rarity.rarest(rng, has) };
                    match fresh.map(|piece| self.open(piece)).or(orphan) {
                        Some(seat) => seat,
                        None => return,
                    }
                }
            };
            self.opens.own(seat, who, true);
            self.opens.set_alone(seat);
            let before = out.len();
            self.claim(seat, who, true, goal, out);
            if out.len() == before {
                return;
            }
        }
    }

    /// From the piece `who` claimed from last, if it is still to be had.
    fn go_on(&mut self, who: PeerSlot, has: Has<'_>, fast: bool, goal: usize, out: &mut Vec<BlockRef>) {
        let piece = self.opens.piece_of(who).filter(|piece| self.lack.contains(*piece) && has.get(*piece));
        let seat = piece.and_then(|piece| self.opens.at(piece));
        if let Some(seat) = seat.filter(|seat| !self.opens.get(*seat).is_closed_to(who)) {
            self.claim(seat, who, fast, goal, out);
        }
    }

    /// A piece with free Blocks for `who`, opened if need be.
    fn next_piece<R: Rng + ?Sized>(
        &mut self,
        rng: &mut R,
        who: PeerSlot,
        has: Has<'_>,
        fast: bool,
    ) -> Option<u32> {
        let mood = self.mood();
        let join = self.best_to_join(who, has, mood);
        let joins = join.filter(|(reluctance, seat)| match mood {
            Mood::Opening => true,
            Mood::Sequential => {
                self.rarity.first(has).is_none_or(|first| first > self.opens.get(*seat).piece)
            }
            _ if self.opens.joinable().len() >= SPARE_OPEN + self.opens.busy_peers() => true,
            _ if fast => *reluctance <= Reluctance::Orphan,
            _ => *reluctance <= Reluctance::Slow,
        });
        if let Some((_, seat)) = joins {
            return Some(seat);
        }
        let fresh = match mood {
            Mood::Opening => self.rarity.middling(rng, has),
            Mood::Sequential => self.rarity.first(has),
            Mood::Rarest | Mood::Endgame => self.rarity.rarest(rng, has),
        };
        match fresh {
            Some(piece) => Some(self.open(piece)),
            None => join.map(|(_, seat)| seat),
        }
    }

    /// Of the pieces with free Blocks that `has` has, the one `who` should rather join.
    fn best_to_join(&self, who: PeerSlot, has: Has<'_>, mood: Mood) -> Option<(Reluctance, u32)> {
        let mut best: Option<(Reluctance, u32, u32)> = None;
        for &seat in self.opens.joinable() {
            let open = self.opens.get(seat);
            if !has.get(open.piece) || open.is_closed_to(who) {
                continue;
            }
            let reluctance = match open.owner {
                Some(owner) if owner == who => Reluctance::Own,
                None => Reluctance::Orphan,
                Some(_) if !open.fast => Reluctance::Slow,
                Some(_) => Reluctance::Fast,
            };
            // The nearer to its end the sooner, in sequence the first.
            let rank = match mood {
                Mood::Sequential => (Reluctance::Own, open.piece, seat),
                _ => (reluctance, open.blocks() - open.came, seat),
            };
            best = Some(best.map_or(rank, |best| best.min(rank)));
        }
        best.map(|(reluctance, _, seat)| (reluctance, seat))
    }

    /// Claims free Blocks of an open piece for `who` until `out` has `goal`.
    fn claim(&mut self, seat: u32, who: PeerSlot, fast: bool, goal: usize, out: &mut Vec<BlockRef>) {
        if self.opens.get(seat).owner.is_none_or(|owner| owner == who) {
            self.opens.own(seat, who, fast);
        }
        let piece = self.opens.get(seat).piece;
        while out.len() < goal {
            let Some(block) = self.opens.claim(seat, who) else { break };
            out.push(self.block(piece, block));
        }
    }

    fn pick_allowed(
        &mut self,
        who: PeerSlot,
        has: Has<'_>,
        fast: bool,
        allowed: &[PieceIndex],
        goal: usize,
        out: &mut Vec<BlockRef>,
    ) {
        for piece in allowed.iter().map(|piece| piece.0).filter(|piece| has.get(*piece)) {
            if out.len() >= goal {
                break;
            }
            if !self.lack.contains(piece) || self.full.contains(piece) {
                continue;
            }
            let seat = self.opens.at(piece).unwrap_or_else(|| self.open(piece));
            self.claim(seat, who, fast, goal, out);
        }
    }

    /// Endgame: claims what others claim, no more than `who` brings in an eighth of a second. A peer that has much of its
    /// own to bring claims nothing besides; what it would bring twice is waste.
    fn share_claims(&mut self, who: PeerSlot, has: Has<'_>, rate: u64, goal: usize, out: &mut Vec<BlockRef>) {
        let soon = u32::try_from(rate / 8 / u64::from(BLOCK_LEN)).unwrap_or(u32::MAX);
        let most = soon.clamp(ENDGAME_CLAIMS, MOST_ENDGAME_CLAIMS);
        let allowed = most.saturating_sub(self.opens.claims_of(who)) as usize;
        let most = allowed.min(goal - out.len());
        let lengths = (self.pieces, self.piece_length, self.last_piece_length);
        self.opens.claim_too(who, has, most, |piece, block| out.push(block_of(lengths, piece, block)));
    }

    fn came(
        &mut self,
        who: Option<PeerSlot>,
        block: BlockRef,
        cancel: &mut Vec<(PeerSlot, BlockRef)>,
    ) -> Received {
        let Some(at) = self.index(block) else { return Received::Unclaimed };
        let piece = block.piece.0;
        if self.have.contains(piece) || self.full.contains(piece) {
            return Received::Duplicate;
        }
        let Some(seat) = self.opens.at(piece) else { return Received::Unclaimed };
        match self.opens.came(seat, at, who, |other| cancel.push((other, block))) {
            Came::Before => Received::Duplicate,
            Came::Unclaimed => Received::Unclaimed,
            Came::Fresh(full) => {
                if full {
                    self.opens.close(seat);
                    self.full.put(piece, true);
                    self.settle(piece);
                }
                Received::Fresh
            }
        }
    }

    fn open(&mut self, piece: u32) -> u32 {
        let seat = self.opens.open(piece, self.pieces, self.blocks_of(piece));
        self.settle(piece);
        seat
    }

    fn close_if_idle(&mut self, seat: u32) {
        if self.opens.is_idle(seat) {
            let piece = self.opens.get(seat).piece;
            self.opens.close(seat);
            self.settle(piece);
        }
    }

    /// Makes everything that follows from the state of `piece` follow from it again.
    fn settle(&mut self, piece: u32) {
        let lack = self.wanted.contains(piece) && !self.have.contains(piece);
        self.lack.put(piece, lack);
        let seat = self.opens.at(piece);
        if let Some(seat) = seat {
            self.opens.set_wanted(seat, lack);
        }
        self.rarity.set_candidate(piece, lack && seat.is_none() && !self.full.contains(piece));
    }

    fn length_of(&self, piece: u32) -> u32 {
        if piece + 1 == self.pieces { self.last_piece_length } else { self.piece_length }
    }

    fn blocks_of(&self, piece: u32) -> u32 {
        self.length_of(piece).div_ceil(BLOCK_LEN)
    }

    fn block(&self, piece: u32, block: u32) -> BlockRef {
        block_of((self.pieces, self.piece_length, self.last_piece_length), piece, block)
    }

    /// Which Block of its piece it is; `None` if it is none of this torrent.
    fn index(&self, block: BlockRef) -> Option<u32> {
        let at = block.begin / BLOCK_LEN;
        let exists = block.piece.0 < self.pieces && at < self.blocks_of(block.piece.0);
        (exists && self.block(block.piece.0, at) == block).then_some(at)
    }

    #[cfg(test)]
    fn check(&self) {
        self.rarity.check();
        self.opens.check();
        for piece in 0..self.pieces {
            let lack = self.wanted.contains(piece) && !self.have.contains(piece);
            assert_eq!(self.lack.contains(piece), lack);
            let open = self.opens.at(piece).is_some();
            let full = self.full.contains(piece);
            assert!(u8::from(open) + u8::from(full) + u8::from(self.have.contains(piece)) <= 1);
            assert_eq!(self.rarity.candidates().contains(piece), lack && !open && !full);
        }
        assert!(self.opens.iter().all(|open| open.came > 0 || open.free < open.blocks()), "idle but open");
        assert!(self.opens.iter().all(|open| open.came < open.blocks()), "full but open");
    }
}

/// How unwelcome a helper is with a piece.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Reluctance {
    /// It is the peer's own.
    Own,
    /// Whoever began it does not go on.
    Orphan,
    /// Whoever began it takes long.
    Slow,
    /// Whoever began it needs no help.
    Fast,
}

fn block_of((pieces, length, last): (u32, u32, u32), piece: u32, block: u32) -> BlockRef {
    let length = if piece + 1 == pieces { last } else { length };
    let begin = block * BLOCK_LEN;
    BlockRef { piece: PieceIndex(piece), begin, len: BLOCK_LEN.min(length - begin) }
}

#[cfg(test)]
mod tests;
