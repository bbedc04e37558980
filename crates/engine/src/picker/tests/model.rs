//! The Picker against a model that keeps everything in the plainest way.

use super::*;

const PEERS: u32 = 6;

#[derive(Clone, Debug)]
enum Op {
    Join(u32, Vec<u32>, bool),
    Leave(u32),
    Have(u32, u32),
    HaveNoMore(u32, u32),
    Pick(u32, usize, u64),
    PickAllowed(u32, usize, Vec<u32>),
    Receive(usize),
    Stranger(u32, u32, u32),
    Forget(usize),
    Choked(u32),
    Wanted(u32, bool),
    Verdict(u32, bool),
    Lost(u32),
    Drop(u32, u32),
    Adopt(u32, u32),
    Sequential(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let peer = || 0..PEERS;
    let piece = || 0u32..14;
    let some = || prop::collection::vec(piece(), 0..14);
    prop_oneof![
        3 => (peer(), some(), prop::bool::weighted(0.3)).prop_map(|(peer, some, all)| Op::Join(peer, some, all)),
        1 => peer().prop_map(Op::Leave),
        2 => (peer(), piece()).prop_map(|(peer, piece)| Op::Have(peer, piece)),
        1 => (peer(), piece()).prop_map(|(peer, piece)| Op::HaveNoMore(peer, piece)),
        10 => (peer(), 0usize..9, prop::sample::select(vec![0, 3_000, 100_000, FAST]))
            .prop_map(|(peer, want, rate)| Op::Pick(peer, want, rate)),
        2 => (peer(), 0usize..5, some()).prop_map(|(peer, want, some)| Op::PickAllowed(peer, want, some)),
        14 => any::<usize>().prop_map(Op::Receive),
        1 => (peer(), piece(), 0u32..5).prop_map(|(peer, piece, block)| Op::Stranger(peer, piece, block)),
        3 => any::<usize>().prop_map(Op::Forget),
        1 => peer().prop_map(Op::Choked),
        1 => (piece(), any::<bool>()).prop_map(|(piece, wanted)| Op::Wanted(piece, wanted)),
        4 => (piece(), prop::bool::weighted(0.7)).prop_map(|(piece, good)| Op::Verdict(piece, good)),
        1 => piece().prop_map(Op::Lost),
        1 => (piece(), 0u32..5).prop_map(|(piece, block)| Op::Drop(piece, block)),
        1 => (piece(), 0u32..5).prop_map(|(piece, block)| Op::Adopt(piece, block)),
        1 => any::<bool>().prop_map(Op::Sequential),
    ]
}

#[derive(Clone, Default)]
struct Cell {
    came: bool,
    claimants: Vec<PeerSlot>,
}

/// What a peer has; `None` for everything.
type Theirs = Option<Bitfield>;

struct World {
    picker: Picker,
    rng: ChaCha8Rng,
    pieces: u32,
    cells: BTreeMap<BlockRef, Cell>,
    have: BTreeSet<u32>,
    wanted: BTreeSet<u32>,
    peers: BTreeMap<u32, Theirs>,
}

fn has(theirs: &Theirs) -> Has<'_> {
    theirs.as_ref().map_or(Has::All, Has::Bits)
}

impl World {
    fn new(pieces: u32, length: u32, last: u32) -> World {
        let mut cells = BTreeMap::new();
        for piece in 0..pieces {
            let length = if piece + 1 == pieces { last } else { length };
            for begin in (0..length).step_by(BLOCK_LEN as usize) {
                let block = BlockRef { piece: PieceIndex(piece), begin, len: BLOCK_LEN.min(length - begin) };
                cells.insert(block, Cell::default());
            }
        }
        let picker = Picker::new(pieces, length, last);
        let wanted = (0..pieces).collect();
        World { picker, rng: rng(), pieces, cells, have: BTreeSet::new(), wanted, peers: BTreeMap::new() }
    }

    fn block(&self, piece: u32, number: u32) -> BlockRef {
        let begin = number * BLOCK_LEN;
        let known = self.cells.keys().find(|block| block.piece.0 == piece && block.begin == begin);
        known.copied().unwrap_or(BlockRef { piece: PieceIndex(piece), begin, len: 1 })
    }

    fn claims(&self) -> Vec<(PeerSlot, BlockRef)> {
        let claims =
            self.cells.iter().flat_map(|(block, cell)| cell.claimants.iter().map(|who| (*who, *block)));
        claims.collect()
    }

    fn missing(&self, block: &BlockRef) -> bool {
        self.wanted.contains(&block.piece.0) && !self.have.contains(&block.piece.0) && !self.cells[block].came
    }

    fn is_full(&self, piece: u32) -> bool {
        self.cells.iter().filter(|(block, _)| block.piece.0 == piece).all(|(_, cell)| cell.came)
    }

    fn each_cell(&mut self, piece: u32, mut change: impl FnMut(&mut Cell)) {
        self.cells.iter_mut().filter(|(block, _)| block.piece.0 == piece).for_each(|(_, cell)| change(cell));
    }

    fn forget_peer(&mut self, who: u32) {
        self.picker.forget_peer(PeerSlot(who));
        self.cells.values_mut().for_each(|cell| cell.claimants.retain(|claimant| *claimant != PeerSlot(who)));
    }

    fn leave(&mut self, who: u32) {
        if let Some(theirs) = self.peers.remove(&who) {
            self.picker.peer_left(has(&theirs));
            self.forget_peer(who);
        }
    }

    /// Picks, and checks every law of picking.
    fn pick(&mut self, who: u32, facts: &PickFacts<'_>) -> Result<(), TestCaseError> {
        let Some(theirs) = self.peers.get(&who).cloned() else { return Ok(()) };
        let reachable = |piece: u32| {
            let allowed = facts.allowed_fast.is_none_or(|allowed| allowed.contains(&PieceIndex(piece)));
            allowed && has(&theirs).get(piece)
        };
        let mut out = vec![BlockRef { piece: PieceIndex(99), begin: 0, len: 0 }];
        self.picker.pick(&mut self.rng, PeerSlot(who), has(&theirs), facts, &mut out);
        prop_assert!(out.len() <= facts.want + 1, "no more than wanted");
        for block in &out[1..] {
            prop_assert!(self.cells.contains_key(block) && self.missing(block) && reachable(block.piece.0));
            let claimants = self.cells[block].claimants.clone();
            prop_assert!(!claimants.contains(&PeerSlot(who)), "never the same twice");
            if !claimants.is_empty() {
                let all_claimed =
                    self.cells.iter().all(|(block, cell)| !self.missing(block) || !cell.claimants.is_empty());
                prop_assert!(all_claimed, "two claimants outside the endgame");
                prop_assert!(claimants.len() < 3 && facts.allowed_fast.is_none());
            }
            self.cells.get_mut(block).unwrap().claimants.push(PeerSlot(who));
        }
        if out.len() <= facts.want {
            let idle = self.cells.iter().find(|(block, cell)| {
                self.missing(block) && cell.claimants.is_empty() && reachable(block.piece.0)
            });
            prop_assert!(idle.is_none(), "{:?} was free, but not picked", idle.map(|(block, _)| block));
        }
        Ok(())
    }

    fn receive(&mut self, who: PeerSlot, block: BlockRef) -> Result<(), TestCaseError> {
        let mut cancel = Vec::new();
        let received = self.picker.received(who, block, &mut cancel);
        let have = self.have.contains(&block.piece.0);
        let cell = self.cells.get_mut(&block);
        let expected = match &cell {
            None => Received::Unclaimed,
            Some(cell) if have || cell.came => Received::Duplicate,
            Some(cell) if cell.claimants.contains(&who) => Received::Fresh,
            Some(_) => Received::Unclaimed,
        };
        prop_assert_eq!(received, expected);
        let mut others = Vec::new();
        if let (Received::Fresh, Some(cell)) = (received, cell) {
            cell.came = true;
            others = std::mem::take(&mut cell.claimants);
            others.retain(|other| *other != who);
        }
        prop_assert_eq!(cancel, others.into_iter().map(|other| (other, block)).collect::<Vec<_>>());
        Ok(())
    }

    fn step(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Join(who, some, all) => {
                self.leave(who);
                let theirs = (!all).then(|| bits(self.pieces, some));
                self.picker.peer_joined(has(&theirs));
                self.peers.insert(who, theirs);
            }
            Op::Leave(who) => self.leave(who),
            Op::Have(who, piece) => {
                if let Some(Some(theirs)) = self.peers.get_mut(&who)
                    && theirs.set(PieceIndex(piece))
                {
                    self.picker.has(PieceIndex(piece));
                }
            }
            Op::HaveNoMore(who, piece) => {
                if let Some(Some(theirs)) = self.peers.get_mut(&who)
                    && theirs.unset(PieceIndex(piece))
                {
                    self.picker.has_no_more(PieceIndex(piece));
                }
            }
            Op::Pick(who, want, rate) => self.pick(who, &facts(want, rate))?,
            Op::PickAllowed(who, want, some) => {
                let allowed: Vec<_> = some.into_iter().map(PieceIndex).collect();
                self.pick(who, &PickFacts { allowed_fast: Some(&allowed), ..facts(want, 0) })?;
            }
            Op::Receive(lucky) => {
                let claims = self.claims();
                if let Some((who, block)) = claims.get(lucky % claims.len().max(1)) {
                    self.receive(*who, *block)?;
                }
            }
            Op::Stranger(who, piece, number) => self.receive(PeerSlot(who), self.block(piece, number))?,
            Op::Forget(lucky) => {
                let claims = self.claims();
                if let Some((who, block)) = claims.get(lucky % claims.len().max(1)).copied() {
                    prop_assert!(self.picker.forget(who, block));
                    self.cells.get_mut(&block).unwrap().claimants.retain(|claimant| *claimant != who);
                }
            }
            Op::Choked(who) => self.forget_peer(who),
            Op::Sequential(sequential) => self.picker.set_sequential(sequential),
            other => self.step_content(other)?,
        }
        Ok(())
    }

    fn step_content(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Wanted(piece, wanted) if piece < self.pieces => {
                self.picker.set_wanted(PieceIndex(piece), wanted);
                if wanted {
                    self.wanted.insert(piece)
                } else {
                    self.wanted.remove(&piece)
                };
            }
            Op::Verdict(piece, good) if piece < self.pieces && self.is_full(piece) => {
                if good {
                    self.picker.set_have(PieceIndex(piece));
                    self.have.insert(piece);
                } else if !self.have.contains(&piece) {
                    self.picker.lost(PieceIndex(piece));
                    self.each_cell(piece, |cell| cell.came = false);
                }
            }
            Op::Lost(piece) if piece < self.pieces => {
                self.picker.lost(PieceIndex(piece));
                self.have.remove(&piece);
                self.each_cell(piece, |cell| cell.came = false);
            }
            Op::Drop(piece, number) => {
                let block = self.block(piece, number);
                let dropped = self.picker.drop_block(block);
                let came = self.cells.get(&block).is_some_and(|cell| cell.came);
                prop_assert_eq!(dropped, came && !self.have.contains(&piece));
                if dropped {
                    self.cells.get_mut(&block).unwrap().came = false;
                }
            }
            Op::Adopt(piece, number) => {
                let block = self.block(piece, number);
                let mut cancel = Vec::new();
                let adopted = self.picker.adopt(block, &mut cancel);
                let missing = self.cells.get(&block).is_some_and(|cell| !cell.came);
                prop_assert_eq!(adopted, missing && !self.have.contains(&piece));
                if adopted {
                    let cell = self.cells.get_mut(&block).unwrap();
                    cell.came = true;
                    let claimants = std::mem::take(&mut cell.claimants);
                    prop_assert_eq!(
                        cancel,
                        claimants.into_iter().map(|who| (who, block)).collect::<Vec<_>>()
                    );
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        self.picker.check();
        for (block, cell) in &self.cells {
            let expected = match cell.claimants.len() {
                _ if cell.came || self.have.contains(&block.piece.0) => BlockState::Received,
                0 => BlockState::Free,
                claimants => BlockState::Claimed(claimants),
            };
            prop_assert_eq!(self.picker.block_state(*block), Some(expected), "{:?}", block);
            prop_assert_eq!(self.picker.claimants(*block), &cell.claimants[..]);
        }
        for who in 0..PEERS {
            let claims = self.claims().iter().filter(|(claimant, _)| *claimant == PeerSlot(who)).count();
            prop_assert_eq!(self.picker.claims(PeerSlot(who)) as usize, claims);
        }
        let lacking: Vec<u32> = self.wanted.difference(&self.have).copied().collect();
        prop_assert_eq!(self.picker.missing() as usize, lacking.len());
        for theirs in self.peers.values() {
            let interesting = lacking.iter().any(|piece| has(theirs).get(*piece));
            prop_assert_eq!(self.picker.is_interesting(has(theirs)), interesting);
        }
        for piece in 0..self.pieces {
            let copies = self.peers.values().filter(|theirs| has(theirs).get(piece)).count();
            prop_assert_eq!(self.picker.copies(PieceIndex(piece)) as usize, copies);
        }
        Ok(())
    }
}

/// Pieces, their length and that of the last.
fn shape() -> impl Strategy<Value = (u32, u32, u32)> {
    let length = prop_oneof![1u32..100, Just(BLOCK_LEN), 1u32..5 * BLOCK_LEN, Just(4 * BLOCK_LEN)];
    (1u32..14, length).prop_flat_map(|(pieces, length)| (Just(pieces), Just(length), 1..=length))
}

proptest! {
    #[test]
    fn agrees_with_the_model((pieces, length, last) in shape(), ops in prop::collection::vec(op(), 1..300)) {
        let mut world = World::new(pieces, length, last);
        for op in ops {
            world.step(op)?;
            world.check()?;
        }
    }

    /// Peers that break off, reject and send garbage delay a torrent; they do not stop it.
    #[test]
    fn everything_is_fetched_in_the_end(
        (pieces, length, last) in shape(), seed in any::<u64>(), sequential in any::<bool>(),
        unwanted in prop::collection::vec(0u32..14, 0..4),
    ) {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let mut world = World::new(pieces, length, last);
        world.step(Op::Sequential(sequential))?;
        for piece in unwanted {
            world.step(Op::Wanted(piece, false))?;
        }
        let mut steps = 0;
        while world.picker.missing() > 0 {
            steps += 1;
            prop_assert!(steps < 20_000, "{} pieces are still missing", world.picker.missing());
            let who = rarity::below(&mut dice, PEERS);
            let lucky = rarity::below(&mut dice, 1 << 20);
            let op = match rarity::below(&mut dice, 40) {
                0 => Op::Join(who, (0..pieces).filter(|piece| lucky >> piece & 1 == 1).collect(), lucky >> 17 == 0),
                1 => Op::Leave(who),
                2 => Op::Choked(who),
                3 | 4 => Op::Forget(lucky as usize),
                5 => Op::Drop(lucky % pieces, lucky % 4),
                6..=14 => Op::Verdict(lucky % pieces, rarity::below(&mut dice, 9) > 0),
                15..=24 => Op::Pick(who, lucky as usize % 5, u64::from(lucky) * 16),
                _ => Op::Receive(lucky as usize),
            };
            world.step(op)?;
        }
        world.check()?;
        prop_assert!(world.wanted.iter().all(|piece| world.have.contains(piece)));
    }
}
