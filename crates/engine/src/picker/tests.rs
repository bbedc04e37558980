use std::collections::{BTreeMap, BTreeSet};

use super::*;
use piecemeal_metainfo::Bitfield;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

const KIB: u32 = 1024;
/// So fast that every piece is a peer's own.
const FAST: u64 = 1 << 40;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

fn bits(pieces: u32, ones: impl IntoIterator<Item = u32>) -> Bitfield {
    let mut bits = Bitfield::new(pieces);
    ones.into_iter().for_each(|piece| _ = bits.set(PieceIndex(piece)));
    bits
}

fn facts(want: usize, rate: u64) -> PickFacts<'static> {
    PickFacts { rate, want, alone: false, share: true, allowed_fast: None }
}

fn pick(
    picker: &mut Picker,
    rng: &mut ChaCha8Rng,
    who: u32,
    has: Has<'_>,
    want: usize,
    rate: u64,
) -> Vec<BlockRef> {
    let mut out = Vec::new();
    picker.pick(rng, PeerSlot(who), has, &facts(want, rate), &mut out);
    picker.check();
    out
}

fn receive(picker: &mut Picker, who: u32, block: BlockRef) -> (Received, Vec<PeerSlot>) {
    let mut cancel = Vec::new();
    let received = picker.received(PeerSlot(who), block, &mut cancel);
    picker.check();
    assert!(cancel.iter().all(|(_, at)| *at == block));
    (received, cancel.into_iter().map(|(who, _)| who).collect())
}

/// A picker out of its opening: the last four of `pieces + 4` are verified.
fn grown(pieces: u32, piece_length: u32) -> Picker {
    let mut picker = Picker::new(pieces + 4, piece_length, piece_length);
    (pieces..pieces + 4).for_each(|piece| picker.set_have(PieceIndex(piece)));
    picker
}

fn pieces_of(blocks: &[BlockRef]) -> BTreeSet<u32> {
    blocks.iter().map(|block| block.piece.0).collect()
}

#[test]
fn blocks_of_odd_pieces() {
    let rows: &[(u32, u32, u32, &[u32])] = &[
        (1, 1, 1, &[1]),
        (1, 16 * KIB, 16 * KIB, &[16 * KIB]),
        (1, 16 * KIB + 1, 16 * KIB + 1, &[16 * KIB, 1]),
        (2, 20_000, 7, &[16 * KIB, 20_000 - 16 * KIB, 7]),
        (2, 5, 5, &[5, 5]),
        (3, 32 * KIB, 17 * KIB, &[16 * KIB, 16 * KIB, 16 * KIB, 16 * KIB, 16 * KIB, KIB]),
    ];
    for (pieces, length, last, expected) in rows {
        let mut picker = Picker::new(*pieces, *length, *last);
        picker.set_sequential(true);
        let out = pick(&mut picker, &mut rng(), 1, Has::All, 100, 0);
        assert_eq!(out.iter().map(|block| block.len).collect::<Vec<_>>(), *expected);
        assert!(out.is_sorted());
        for block in &out {
            assert_eq!(receive(&mut picker, 1, *block), (Received::Fresh, vec![]));
        }
        assert_eq!((picker.open_pieces(), picker.missing()), (0, *pieces));
        (0..*pieces).for_each(|piece| picker.set_have(PieceIndex(piece)));
        assert_eq!(picker.missing(), 0);
        assert!(!picker.is_interesting(Has::All));
    }
    let huge = Picker::new(1, u32::MAX, u32::MAX);
    let last = BlockRef { piece: PieceIndex(0), begin: u32::MAX / BLOCK_LEN * BLOCK_LEN, len: BLOCK_LEN - 1 };
    assert_eq!(huge.block_state(last), Some(BlockState::Free));
    let mut none = Picker::new(0, 1, 1);
    assert!(pick(&mut none, &mut rng(), 1, Has::All, 9, 0).is_empty() && !none.is_interesting(Has::All));
}

#[test]
fn what_is_no_block_of_ours_is_refused() {
    let mut picker = Picker::new(2, 20_000, 100);
    let at = |piece, begin, len| BlockRef { piece: PieceIndex(piece), begin, len };
    assert_eq!(pick(&mut picker, &mut rng(), 1, Has::All, 9, 0).len(), 3);
    for bad in [
        at(2, 0, 100),
        at(0, 1, 16 * KIB),
        at(0, 0, 16 * KIB - 1),
        at(0, 16 * KIB, 16 * KIB),
        at(1, 0, 101),
        at(1, 16 * KIB, 1),
        at(u32::MAX, u32::MAX, u32::MAX),
    ] {
        assert_eq!(receive(&mut picker, 1, bad), (Received::Unclaimed, vec![]), "{bad:?}");
        assert_eq!(picker.block_state(bad), None);
        assert!(
            !picker.drop_block(bad) && !picker.forget(PeerSlot(1), bad) && !picker.adopt(bad, &mut vec![])
        );
        assert!(picker.claimants(bad).is_empty());
    }
    picker.set_have(PieceIndex(9));
    picker.set_wanted(PieceIndex(9), false);
    picker.lost(PieceIndex(9));
    picker.has(PieceIndex(9));
    picker.check();
}

#[test]
fn rarest_first() {
    let mut picker = grown(4, BLOCK_LEN);
    let theirs = [bits(8, [0, 1, 2, 3]), bits(8, [0, 1, 2]), bits(8, [1, 2])];
    theirs.iter().for_each(|has| picker.peer_joined(Has::Bits(has)));
    picker.peer_joined(Has::All);
    assert_eq!([0, 1, 2, 3].map(|piece| picker.copies(PieceIndex(piece))), [3, 4, 4, 2]);
    let mut rng = rng();
    let first = pick(&mut picker, &mut rng, 1, Has::Bits(&theirs[0]), 1, 0);
    let second = pick(&mut picker, &mut rng, 9, Has::All, 1, 0);
    assert_eq!((first[0].piece.0, second[0].piece.0), (3, 0));
    assert_eq!(picker.mood(), Mood::Rarest);
    let third = pick(&mut picker, &mut rng, 3, Has::Bits(&theirs[2]), 3, 0);
    assert_eq!(pieces_of(&third), [1, 2].into());
    picker.has_no_more(PieceIndex(1));
    picker.peer_left(Has::All);
    picker.peer_left(Has::Bits(&theirs[1]));
    assert_eq!([0, 1, 2, 3].map(|piece| picker.copies(PieceIndex(piece))), [1, 1, 2, 1]);
    picker.check();
}

#[test]
fn ties_are_broken_at_random() {
    let mut rng = rng();
    let mut seen = BTreeMap::new();
    for _ in 0..2_000 {
        let mut picker = grown(4, BLOCK_LEN);
        picker.peer_joined(Has::All);
        *seen.entry(pick(&mut picker, &mut rng, 1, Has::All, 1, 0)[0].piece.0).or_insert(0) += 1;
    }
    assert!(seen.len() == 4 && seen.values().all(|count| (400..600).contains(count)), "{seen:?}");
}

#[test]
fn the_opening_takes_the_middling_and_finishes_together() {
    // Piece p is had by p + 1 of 32 peers.
    let pieces = 32;
    let peers: Vec<Bitfield> = (0..pieces).map(|peer| bits(pieces, peer..pieces)).collect();
    let mut rng = rng();
    for _ in 0..50 {
        let mut picker = Picker::new(pieces, 4 * BLOCK_LEN, 4 * BLOCK_LEN);
        peers.iter().for_each(|has| picker.peer_joined(Has::Bits(has)));
        assert_eq!(picker.mood(), Mood::Opening);
        let first = pick(&mut picker, &mut rng, 0, Has::Bits(&peers[0]), 1, FAST);
        let copies = picker.copies(first[0].piece);
        assert!((12..=20).contains(&copies), "{copies} copies");
        let second = pick(&mut picker, &mut rng, 1, Has::Bits(&peers[1]), 3, FAST);
        assert_eq!(pieces_of(&second), pieces_of(&first), "even a fast peer joins");
    }
    let mut picker = Picker::new(8, BLOCK_LEN, BLOCK_LEN);
    (0..9).for_each(|_| picker.peer_joined(Has::All));
    for piece in 0..4 {
        assert_eq!(picker.mood(), Mood::Opening);
        picker.set_have(PieceIndex(piece));
    }
    assert_eq!(picker.mood(), Mood::Rarest);
    picker.lost(PieceIndex(0));
    assert_eq!(picker.mood(), Mood::Opening);
}

#[test]
fn the_fast_work_alone_and_the_slow_together() {
    let mut picker = grown(8, 8 * BLOCK_LEN);
    picker.peer_joined(Has::All);
    let mut rng = rng();
    let slow = u64::from(8 * BLOCK_LEN) / 20;
    let mut one = |who, rate| pick(&mut picker, &mut rng, who, Has::All, 1, rate)[0].piece.0;
    let (first, second) = (one(1, FAST), one(2, slow + 1));
    assert_ne!(first, second, "two fast peers begin two pieces");
    let third = one(3, slow);
    assert!(third != first && third != second, "a slow one leaves the fast alone");
    assert_eq!(one(4, slow), third, "and the next slow one joins it");
    assert_eq!([one(1, FAST), one(2, FAST), one(4, 0)], [first, second, third], "each goes on with its own");
    // The fast one chokes us: whoever comes next finishes what it began.
    picker.forget_peer(PeerSlot(2));
    picker.check();
    let claimed: BTreeSet<_> =
        picker.open_facts().filter(|open| open.claimed > 0).map(|open| open.piece.0).collect();
    assert_eq!(claimed, [first, third].into(), "nothing had come, so it is closed");
    let again = pick(&mut picker, &mut rng, 5, Has::All, 1, FAST);
    receive(&mut picker, 5, again[0]);
    picker.forget_peer(PeerSlot(5));
    assert_eq!(
        pick(&mut picker, &mut rng, 6, Has::All, 1, FAST)[0].piece,
        again[0].piece,
        "an orphan comes first"
    );
}

#[test]
fn many_slow_peers_keep_few_pieces_open() {
    let mut picker = grown(1_000, 64 * BLOCK_LEN);
    picker.peer_joined(Has::All);
    let mut rng = rng();
    for round in 0..3 {
        for who in 0..50 {
            assert_eq!(pick(&mut picker, &mut rng, who, Has::All, 2, 1_000).len(), 2);
        }
        assert!(picker.open_pieces() <= 300 * (round + 1) / 64 + 1, "{}", picker.open_pieces());
    }
    // All fast: one each, and the joinable ones never exceed the bound.
    let mut picker = grown(1_000, 64 * BLOCK_LEN);
    for who in 0..50 {
        pick(&mut picker, &mut rng, who, Has::All, 1, FAST);
        assert_eq!(picker.open_pieces(), who as usize + 1);
    }
}

#[test]
fn in_sequence() {
    let mut picker = grown(6, 2 * BLOCK_LEN);
    picker.set_sequential(true);
    let some = bits(10, [2, 3, 5]);
    [Has::All, Has::Bits(&some)].into_iter().for_each(|has| picker.peer_joined(has));
    assert_eq!(picker.mood(), Mood::Sequential);
    let mut rng = rng();
    let order = |blocks: Vec<BlockRef>| blocks.iter().map(|block| block.piece.0).collect::<Vec<_>>();
    assert_eq!(order(pick(&mut picker, &mut rng, 1, Has::All, 3, FAST)), [0, 0, 1]);
    assert_eq!(order(pick(&mut picker, &mut rng, 2, Has::Bits(&some), 3, 0)), [2, 2, 3]);
    assert_eq!(order(pick(&mut picker, &mut rng, 3, Has::All, 3, 0)), [1, 3, 4]);
    picker.lost(PieceIndex(6));
    picker.forget_peer(PeerSlot(1));
    assert_eq!(order(pick(&mut picker, &mut rng, 3, Has::All, 5, 0)), [0, 0, 1, 4, 5]);
}

#[test]
fn the_endgame() {
    let mut picker = Picker::new(1, 4 * BLOCK_LEN, 4 * BLOCK_LEN);
    picker.peer_joined(Has::All);
    let mut rng = rng();
    let all = pick(&mut picker, &mut rng, 1, Has::All, 4, FAST);
    assert_eq!((all.len(), picker.mood()), (4, Mood::Endgame));
    assert!(pick(&mut picker, &mut rng, 1, Has::All, 4, FAST).is_empty(), "never the same twice");
    assert_eq!(
        pick(&mut picker, &mut rng, 2, Has::All, 9, 0),
        all[..2],
        "the oldest first, few for the slow"
    );
    assert!(pick(&mut picker, &mut rng, 2, Has::All, 9, 0).is_empty());
    assert_eq!(
        pick(&mut picker, &mut rng, 3, Has::All, 3, FAST),
        [all[2], all[3], all[0]],
        "single claims first"
    );
    assert_eq!(picker.claimants(all[0]), [PeerSlot(1), PeerSlot(2), PeerSlot(3)]);
    assert_eq!(pick(&mut picker, &mut rng, 4, Has::All, 9, FAST), all[1..], "three claimants at most");
    assert_eq!(receive(&mut picker, 9, all[0]), (Received::Unclaimed, vec![]));
    assert_eq!(receive(&mut picker, 2, all[0]), (Received::Fresh, vec![PeerSlot(1), PeerSlot(3)]));
    assert_eq!(receive(&mut picker, 1, all[0]), (Received::Duplicate, vec![]));
    picker.forget_peer(PeerSlot(1));
    assert_eq!(picker.claimants(all[1]), [PeerSlot(2), PeerSlot(4)]);
    assert!(picker.forget(PeerSlot(2), all[1]) && !picker.forget(PeerSlot(2), all[1]));
    assert_eq!(picker.mood(), Mood::Endgame, "another still claims it");
    assert!(picker.forget(PeerSlot(4), all[1]));
    assert_eq!((picker.mood(), picker.block_state(all[1])), (Mood::Opening, Some(BlockState::Free)));
    assert_eq!(
        pick(&mut picker, &mut rng, 5, Has::All, 9, 0),
        [all[1], all[2]],
        "the free one, then a share"
    );
    picker.set_have(PieceIndex(0));
    picker.check();
    assert_eq!((picker.claims(PeerSlot(5)), picker.mood()), (0, Mood::Opening));
    assert_eq!(receive(&mut picker, 5, all[1]), (Received::Duplicate, vec![]));
}

#[test]
fn choked_peers_give_only_what_is_allowed_fast() {
    let mut picker = grown(6, 2 * BLOCK_LEN);
    let theirs = bits(10, [0, 1, 2, 7]);
    picker.peer_joined(Has::Bits(&theirs));
    picker.set_wanted(PieceIndex(1), false);
    let allowed = [7, 5, 1, 2, u32::MAX].map(PieceIndex);
    let facts = PickFacts { allowed_fast: Some(&allowed), ..facts(9, 0) };
    let mut out = Vec::new();
    picker.pick(&mut rng(), PeerSlot(1), Has::Bits(&theirs), &facts, &mut out);
    picker.check();
    assert_eq!(
        out.iter().map(|block| (block.piece.0, block.begin)).collect::<Vec<_>>(),
        [(2, 0), (2, BLOCK_LEN)]
    );
    picker.pick(&mut rng(), PeerSlot(1), Has::Bits(&theirs), &facts, &mut out);
    assert_eq!(out.len(), 2);
}

#[test]
fn nothing_wanted_nothing_picked() {
    let mut picker = Picker::new(3, BLOCK_LEN * 2, 5);
    picker.peer_joined(Has::All);
    (0..3).for_each(|piece| picker.set_wanted(PieceIndex(piece), false));
    assert!(!picker.is_interesting(Has::All) && picker.missing() == 0 && !picker.lacks(PieceIndex(0)));
    assert!(pick(&mut picker, &mut rng(), 1, Has::All, 9, FAST).is_empty());
    picker.set_wanted(PieceIndex(2), true);
    assert!(picker.is_interesting(Has::All) && !picker.is_interesting(Has::Bits(&bits(3, [0, 1]))));
    assert_eq!(pieces_of(&pick(&mut picker, &mut rng(), 1, Has::All, 9, FAST)), [2].into());
    // Unwanted while open: what is claimed may come, nothing more is asked for.
    let mut picker = Picker::new(1, BLOCK_LEN * 3, BLOCK_LEN * 3);
    let out = pick(&mut picker, &mut rng(), 1, Has::All, 1, 0);
    picker.set_wanted(PieceIndex(0), false);
    assert!(pick(&mut picker, &mut rng(), 1, Has::All, 9, 0).is_empty());
    assert_eq!(receive(&mut picker, 1, out[0]).0, Received::Fresh);
    picker.set_wanted(PieceIndex(0), true);
    assert_eq!(pick(&mut picker, &mut rng(), 1, Has::All, 9, 0).len(), 2, "what came is kept");
}

#[test]
fn lost_data_is_fetched_again() {
    let mut picker = grown(2, 2 * BLOCK_LEN);
    picker.peer_joined(Has::All);
    let mut rng = rng();
    let all = pick(&mut picker, &mut rng, 1, Has::All, 4, FAST);
    all.iter().for_each(|block| assert_eq!(receive(&mut picker, 1, *block).0, Received::Fresh));
    assert!(pick(&mut picker, &mut rng, 1, Has::All, 4, FAST).is_empty(), "verdicts are awaited");
    assert!(picker.drop_block(all[1]) && !picker.drop_block(all[1]));
    picker.check();
    assert_eq!(pick(&mut picker, &mut rng, 2, Has::All, 4, 0), [all[1]]);
    picker.lost(all[2].piece);
    picker.check();
    assert_eq!(pick(&mut picker, &mut rng, 3, Has::All, 2, 0), all[2..]);
    // A file vanished while its piece was open: what is on its way is still welcome.
    picker.lost(all[0].piece);
    picker.check();
    assert_eq!(picker.block_state(all[0]), Some(BlockState::Free));
    assert_eq!(picker.block_state(all[1]), Some(BlockState::Claimed(1)));
    // Found on disk at start, or late.
    let mut cancel = Vec::new();
    assert!(picker.adopt(all[1], &mut cancel) && !picker.adopt(all[1], &mut cancel));
    assert_eq!(cancel, [(PeerSlot(2), all[1])]);
    picker.check();
    assert!(!picker.adopt(BlockRef { piece: PieceIndex(5), ..all[0] }, &mut cancel), "verified");
    // A one-block piece whose write failed.
    let mut tiny = Picker::new(1, 1, 1);
    let one = pick(&mut tiny, &mut rng, 1, Has::All, 1, 0);
    receive(&mut tiny, 1, one[0]);
    assert!(tiny.drop_block(one[0]));
    assert_eq!(pick(&mut tiny, &mut rng, 1, Has::All, 1, 0), one);
}

#[test]
fn sparse_peers_find_their_pieces_among_many() {
    let pieces = 100_000;
    let mut picker = Picker::new(pieces, BLOCK_LEN, BLOCK_LEN);
    picker.peer_joined(Has::All);
    let common = bits(pieces, 0..pieces - 9);
    (0..3).for_each(|_| picker.peer_joined(Has::Bits(&common)));
    let sparse = bits(pieces, [5, 50_000, 99_995]);
    picker.peer_joined(Has::Bits(&sparse));
    (10..14).for_each(|piece| picker.set_have(PieceIndex(piece)));
    let mut rng = rng();
    let order: Vec<u32> =
        (0..3).map(|_| pick(&mut picker, &mut rng, 1, Has::Bits(&sparse), 1, FAST)[0].piece.0).collect();
    assert_eq!(order[0], 99_995, "the rarest of the three");
    assert!(pick(&mut picker, &mut rng, 1, Has::Bits(&sparse), 1, FAST).is_empty());
    for rare in 0..8 {
        let seed = pick(&mut picker, &mut rng, 2, Has::All, 1, FAST);
        assert!(seed[0].piece.0 >= pieces - 9, "pick {rare}: {seed:?}");
    }
}

mod model;
