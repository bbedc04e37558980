//! Open pieces, block by block: what came, what is claimed and by whom, what is free.
//!
//! Keeps the books; which piece to open and which to join is decided above. A peer has a row here while it
//! claims anything or goes on with a piece.

use std::collections::{BTreeMap, VecDeque};

use super::PeerSlot;
use super::set::Has;

/// Peers that may claim one Block in the endgame. Each beyond the first wastes up to a Block; two more are enough to get
/// around two peers that stall.
pub(super) const MOST_CLAIMANTS: usize = 3;

/// Claims looked at for one pick in the endgame. Only swarms with thousands of requests on the way come near.
const SCANNED: usize = 4_096;

const NOWHERE: u32 = u32::MAX;

/// One Block of an open piece. Free if it has not come and nobody claims it.
#[derive(Clone, Copy, Debug)]
struct Cell {
    who: [PeerSlot; MOST_CLAIMANTS],
    claims: u8,
    came: bool,
    /// The number of the first claim that stands; no two cells have the same.
    ticket: u32,
}

impl Cell {
    const FREE: Cell = Cell { who: [PeerSlot(0); MOST_CLAIMANTS], claims: 0, came: false, ticket: 0 };

    fn claimants(&self) -> &[PeerSlot] {
        &self.who[..self.claims as usize]
    }

    fn is_free(&self) -> bool {
        !self.came && self.claims == 0
    }
}

/// An open piece.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub piece: u32,
    /// Blocks that are free.
    pub free: u32,
    /// Blocks that came.
    pub came: u32,
    /// Who opened it and still goes on with it.
    pub owner: Option<PeerSlot>,
    /// The owner needs no help.
    pub fast: bool,
    /// The owner must have it for itself.
    pub alone: bool,
    wanted: bool,
    /// No Block before this one is free.
    first_free: u32,
    /// Where it stands in `joinable`.
    listed: u32,
    cells: Vec<Cell>,
}

impl Open {
    pub(super) fn blocks(&self) -> u32 {
        self.cells.len() as u32
    }

    /// Whether it is kept for another than `who`.
    pub(super) fn is_closed_to(&self, who: PeerSlot) -> bool {
        self.alone && self.owner.is_some_and(|owner| owner != who)
    }

    fn claimed(&self) -> u32 {
        self.blocks() - self.free - self.came
    }
}

/// What a peer does.
#[derive(Clone, Copy, Default, Debug)]
struct Row {
    claims: u32,
    /// The piece it claimed from last.
    piece: Option<u32>,
}

/// What became of a Block that came.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Came {
    /// It was missing; true if it was the last of its piece.
    Fresh(bool),
    /// It had come before.
    Before,
    /// Whoever sent it does not claim it.
    Unclaimed,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Opens {
    /// Closed ones keep their memory for the next.
    slab: Vec<Open>,
    spare: Vec<u32>,
    /// By piece: its place in the slab. Empty until the first piece is opened.
    seats: Vec<u32>,
    /// Wanted pieces with a free Block.
    joinable: Vec<u32>,
    rows: BTreeMap<PeerSlot, Row>,
    /// Claimed Blocks, the longest claimed first, by place and Block and ticket; those whose ticket is no longer valid
    /// are skipped. After each claim at most twice as many as there are claimed Blocks, and 64.
    ages: VecDeque<(u32, u32, u32)>,
    tickets: u32,
    claimed: usize,
}

impl Opens {
    pub(super) fn at(&self, piece: u32) -> Option<u32> {
        self.seats.get(piece as usize).copied().filter(|seat| *seat != NOWHERE)
    }

    pub(super) fn get(&self, seat: u32) -> &Open {
        &self.slab[seat as usize]
    }

    pub(super) fn joinable(&self) -> &[u32] {
        &self.joinable
    }

    /// Peers that claim something or did lately.
    pub(super) fn busy_peers(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn claims_of(&self, who: PeerSlot) -> u32 {
        self.rows.get(&who).map_or(0, |row| row.claims)
    }

    pub(super) fn piece_of(&self, who: PeerSlot) -> Option<u32> {
        self.rows.get(&who)?.piece
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Open> + '_ {
        self.slab.iter().filter(|open| open.piece != NOWHERE)
    }

    /// How many pieces are open.
    pub(super) fn len(&self) -> usize {
        self.slab.len() - self.spare.len()
    }

    /// Places in the slab, in use or not.
    pub(super) fn seats(&self) -> u32 {
        self.slab.len() as u32
    }

    /// Whether the Block came, and who claims it; `None` if the piece is not open.
    pub(super) fn block(&self, piece: u32, block: u32) -> Option<(bool, &[PeerSlot])> {
        let cell = self.get(self.at(piece)?).cells.get(block as usize)?;
        Some((cell.came, cell.claimants()))
    }

    /// Opens `piece` of `pieces`, which has `blocks` Blocks and is not open, and returns its place.
    pub(super) fn open(&mut self, piece: u32, pieces: u32, blocks: u32) -> u32 {
        if self.seats.is_empty() {
            self.seats.resize(pieces as usize, NOWHERE);
        }
        let seat = self.spare.pop().unwrap_or_else(|| {
            self.slab.push(Open {
                piece: NOWHERE,
                free: 0,
                came: 0,
                owner: None,
                fast: false,
                alone: false,
                wanted: false,
                first_free: 0,
                listed: NOWHERE,
                cells: Vec::new(),
            });
            self.slab.len() as u32 - 1
        });
        let open = &mut self.slab[seat as usize];
        (open.piece, open.free, open.came, open.first_free) = (piece, blocks, 0, 0);
        (open.owner, open.fast, open.alone, open.wanted) = (None, false, false, false);
        open.cells.clear();
        open.cells.resize(blocks as usize, Cell::FREE);
        self.seats[piece as usize] = seat;
        seat
    }

    /// Closes a piece; claims on it are void.
    pub(super) fn close(&mut self, seat: u32) {
        self.set_wanted(seat, false);
        for block in 0..self.slab[seat as usize].blocks() {
            self.void(seat, block, |_| {});
        }
        let open = &mut self.slab[seat as usize];
        self.seats[open.piece as usize] = NOWHERE;
        open.piece = NOWHERE;
        self.spare.push(seat);
    }

    /// Whether nothing would be lost by closing it.
    pub(super) fn is_idle(&self, seat: u32) -> bool {
        let open = self.get(seat);
        open.came == 0 && open.claimed() == 0
    }

    pub(super) fn set_wanted(&mut self, seat: u32, wanted: bool) {
        self.slab[seat as usize].wanted = wanted;
        self.list(seat);
    }

    /// `who` goes on with this piece.
    pub(super) fn own(&mut self, seat: u32, who: PeerSlot, fast: bool) {
        let open = &mut self.slab[seat as usize];
        (open.owner, open.fast) = (Some(who), fast);
    }

    /// Its owner must have it for itself, until it disowns it.
    pub(super) fn set_alone(&mut self, seat: u32) {
        self.slab[seat as usize].alone = true;
    }

    /// `who` no longer goes on with it, if it did.
    pub(super) fn disown(&mut self, seat: u32, who: PeerSlot) {
        let open = &mut self.slab[seat as usize];
        if open.owner == Some(who) {
            (open.owner, open.alone) = (None, false);
        }
    }

    /// Claims the first free Block for `who`.
    pub(super) fn claim(&mut self, seat: u32, who: PeerSlot) -> Option<u32> {
        let open = &mut self.slab[seat as usize];
        let tail = open.cells.get(open.first_free as usize..)?;
        let block = open.first_free + tail.iter().position(Cell::is_free)? as u32;
        self.tickets = self.tickets.wrapping_add(1);
        let cell = &mut open.cells[block as usize];
        (cell.claims, cell.ticket) = (1, self.tickets);
        cell.who[0] = who;
        (open.free, open.first_free) = (open.free - 1, block + 1);
        let row = self.rows.entry(who).or_default();
        (row.claims, row.piece) = (row.claims + 1, Some(open.piece));
        self.claimed += 1;
        self.age(seat, block);
        if self.slab[seat as usize].free == 0 {
            self.list(seat);
        }
        Some(block)
    }

    /// Claims for `who` up to `most` Blocks that others claim, the longest claimed first, those with one claimant
    /// before those with two. Calls `claimed` with piece and Block.
    pub(super) fn claim_too(
        &mut self,
        who: PeerSlot,
        has: Has<'_>,
        most: usize,
        mut claimed: impl FnMut(u32, u32),
    ) {
        let mut left = most;
        for claims in 1..MOST_CLAIMANTS {
            for at in 0..self.ages.len().min(SCANNED) {
                if left == 0 {
                    return;
                }
                let (seat, block, ticket) = self.ages[at];
                let open = &mut self.slab[seat as usize];
                let Some(cell) = open.cells.get_mut(block as usize) else { continue };
                let valid = cell.ticket == ticket && cell.claims as usize == claims;
                let closed = open.alone && open.owner.is_some_and(|owner| owner != who);
                if !valid || closed || !open.wanted || cell.claimants().contains(&who) || !has.get(open.piece)
                {
                    continue;
                }
                cell.who[claims] = who;
                cell.claims += 1;
                self.rows.entry(who).or_default().claims += 1;
                left -= 1;
                claimed(open.piece, block);
            }
        }
    }

    /// A Block came from `from`, or from nobody who claims it; `others` hears who else does.
    pub(super) fn came(
        &mut self,
        seat: u32,
        block: u32,
        from: Option<PeerSlot>,
        mut others: impl FnMut(PeerSlot),
    ) -> Came {
        let cell = &self.slab[seat as usize].cells[block as usize];
        if cell.came {
            return Came::Before;
        }
        if from.is_some_and(|who| !cell.claimants().contains(&who)) {
            return Came::Unclaimed;
        }
        self.void(seat, block, |who| {
            if from != Some(who) {
                others(who);
            }
        });
        let open = &mut self.slab[seat as usize];
        open.cells[block as usize].came = true;
        (open.free, open.came) = (open.free - 1, open.came + 1);
        let full = open.came == open.blocks();
        self.list(seat);
        Came::Fresh(full)
    }

    /// A Block that came is lost: it is free again. False if it had not come.
    pub(super) fn lose(&mut self, seat: u32, block: u32) -> bool {
        let open = &mut self.slab[seat as usize];
        let cell = &mut open.cells[block as usize];
        if !cell.came {
            return false;
        }
        *cell = Cell::FREE;
        (open.free, open.came) = (open.free + 1, open.came - 1);
        open.first_free = open.first_free.min(block);
        self.list(seat);
        true
    }

    /// `who` will not bring this Block. False if it does not claim it.
    pub(super) fn forget(&mut self, seat: u32, block: u32, who: PeerSlot) -> bool {
        let open = &mut self.slab[seat as usize];
        let Some(cell) = open.cells.get_mut(block as usize) else { return false };
        let Some(at) = cell.claimants().iter().position(|claimant| *claimant == who) else { return false };
        cell.who[at..].rotate_left(1);
        cell.claims -= 1;
        if let Some(row) = self.rows.get_mut(&who) {
            row.claims -= 1;
        }
        if cell.claims == 0 {
            open.free += 1;
            open.first_free = open.first_free.min(block);
            self.claimed -= 1;
            self.list(seat);
        }
        true
    }

    /// `who` will bring nothing of the piece at `seat`, open or not; true if it claimed any of it.
    pub(super) fn forget_in(&mut self, seat: u32, who: PeerSlot) -> bool {
        self.disown(seat, who);
        let open = self.get(seat);
        if open.piece == NOWHERE || open.claimed() == 0 || self.claims_of(who) == 0 {
            return false;
        }
        let mut any = false;
        for block in 0..self.get(seat).blocks() {
            any |= self.forget(seat, block, who);
        }
        any
    }

    /// `who` is gone; call after [`Opens::forget_in`] for every place.
    pub(super) fn remove_row(&mut self, who: PeerSlot) {
        let row = self.rows.remove(&who);
        debug_assert!(row.is_none_or(|row| row.claims == 0), "a claim without a claimant");
    }

    /// `who` goes on with nothing.
    pub(super) fn leave_piece(&mut self, who: PeerSlot) {
        if let Some(row) = self.rows.get_mut(&who) {
            row.piece = None;
        }
    }

    /// Gives memory back that only an unfinished torrent needs.
    pub(super) fn rest(&mut self) {
        if self.len() == 0 {
            (self.slab, self.spare, self.seats, self.ages) =
                (Vec::new(), Vec::new(), Vec::new(), VecDeque::new());
        }
    }

    /// Takes all claims off a Block; if there were any it is free then.
    fn void(&mut self, seat: u32, block: u32, mut claimant: impl FnMut(PeerSlot)) {
        let open = &mut self.slab[seat as usize];
        let cell = &mut open.cells[block as usize];
        if cell.claims == 0 {
            return;
        }
        for who in cell.claimants() {
            if let Some(row) = self.rows.get_mut(who) {
                row.claims -= 1;
            }
            claimant(*who);
        }
        cell.claims = 0;
        open.free += 1;
        open.first_free = open.first_free.min(block);
        self.claimed -= 1;
    }

    /// Puts a piece on the list of joinable ones or takes it off, as its state demands.
    fn list(&mut self, seat: u32) {
        let open = &mut self.slab[seat as usize];
        let joins = open.wanted && open.free > 0;
        if joins == (open.listed != NOWHERE) {
            return;
        }
        if joins {
            open.listed = self.joinable.len() as u32;
            self.joinable.push(seat);
        } else {
            let at = std::mem::replace(&mut open.listed, NOWHERE) as usize;
            self.joinable.swap_remove(at);
            if let Some(moved) = self.joinable.get(at) {
                self.slab[*moved as usize].listed = at as u32;
            }
        }
    }

    /// Remembers the claim just made, and forgets old ones that no longer stand.
    fn age(&mut self, seat: u32, block: u32) {
        self.ages.push_back((seat, block, self.tickets));
        while self.ages.front().is_some_and(|claim| !self.stands(*claim)) {
            self.ages.pop_front();
        }
        if self.ages.len() > self.claimed * 2 + 64 {
            let mut ages = std::mem::take(&mut self.ages);
            ages.retain(|claim| self.stands(*claim));
            self.ages = ages;
        }
        debug_assert!(self.ages.len() <= self.claimed * 2 + 64);
    }

    fn stands(&self, (seat, block, ticket): (u32, u32, u32)) -> bool {
        let cell = self.slab[seat as usize].cells.get(block as usize);
        cell.is_some_and(|cell| cell.ticket == ticket && cell.claims > 0)
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut claims: BTreeMap<PeerSlot, u32> = BTreeMap::new();
        let mut claimed = 0;
        for (seat, open) in (0..).zip(&self.slab) {
            if open.piece == NOWHERE {
                assert!(open.listed == NOWHERE && self.spare.contains(&seat));
                continue;
            }
            assert_eq!(self.seats[open.piece as usize], seat);
            assert_eq!(open.listed != NOWHERE, open.wanted && open.free > 0);
            assert!(open.listed == NOWHERE || self.joinable[open.listed as usize] == seat);
            assert_eq!(open.free as usize, open.cells.iter().filter(|cell| cell.is_free()).count());
            assert_eq!(open.came as usize, open.cells.iter().filter(|cell| cell.came).count());
            assert!(open.cells[..open.first_free as usize].iter().all(|cell| !cell.is_free()));
            for (block, cell) in (0..).zip(&open.cells) {
                assert!(!(cell.came && cell.claims > 0));
                claimed += usize::from(cell.claims > 0);
                cell.claimants().iter().for_each(|who| *claims.entry(*who).or_default() += 1);
                assert!(cell.claims == 0 || self.ages.contains(&(seat, block, cell.ticket)));
            }
        }
        assert_eq!(self.joinable.len(), self.slab.iter().filter(|open| open.listed != NOWHERE).count());
        assert_eq!(claimed, self.claimed);
        let rows: BTreeMap<_, _> =
            self.rows.iter().filter(|(_, row)| row.claims > 0).map(|(who, row)| (*who, row.claims)).collect();
        assert_eq!(rows, claims);
    }
}
