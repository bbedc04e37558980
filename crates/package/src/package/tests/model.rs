//! Random Blocks, answers and refusals in random order, against the bytes themselves.

use super::*;
use crate::TroubleKind;
use crate::test_kit::{Entry, trouble};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    /// A wanted Block that is missing, or (`again`) any Block; good or wrong.
    Block {
        which: u16,
        again: bool,
        good: bool,
    },
    /// Some Blocks in order, from one on.
    Run {
        which: u16,
        blocks: u8,
    },
    Answer {
        which: u8,
        refusal: Option<TroubleKind>,
    },
    Load {
        which: u16,
        from: u16,
        len: u16,
    },
    Warm {
        which: u16,
    },
    Tick {
        millis: u16,
        thirsty: bool,
    },
    Sync,
    Facts,
    Recheck,
    Resume,
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![
        Just(TroubleKind::NoSpace),
        Just(TroubleKind::Io),
        Just(TroubleKind::Missing),
        Just(TroubleKind::Permission)
    ];
    let refusal = prop_oneof![12 => Just(None), 1 => kind.prop_map(Some)];
    prop_oneof![
        20 => (any::<u16>(), prop::bool::weighted(0.1), prop::bool::weighted(0.97))
            .prop_map(|(which, again, good)| Op::Block { which, again, good }),
        4 => (any::<u16>(), 1..80u8).prop_map(|(which, blocks)| Op::Run { which, blocks }),
        20 => (any::<u8>(), refusal).prop_map(|(which, refusal)| Op::Answer { which, refusal }),
        4 => any::<(u16, u16, u16)>().prop_map(|(which, from, len)| Op::Load { which, from, len }),
        2 => any::<u16>().prop_map(|which| Op::Warm { which }),
        4 => (0..3_000u16, prop::bool::weighted(0.1)).prop_map(|(millis, thirsty)| Op::Tick { millis, thirsty }),
        1 => Just(Op::Sync),
        1 => Just(Op::Facts),
        2 => Just(Op::Resume),
    ]
}

/// A recheck makes much of the rest vain, so there are few.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let recheck = proptest::option::weighted(0.3, any::<prop::sample::Index>());
    (proptest::collection::vec(op(), 20..400), recheck).prop_map(|(mut ops, recheck)| {
        if let Some(at) = recheck {
            let at = at.index(ops.len());
            ops.insert(at, Op::Recheck);
        }
        ops
    })
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let len = prop_oneof![Just(0u64), 1..50u64, 1..40_000u64, 1..300_000u64];
    let attr = prop_oneof![4 => Just(""), 1 => Just("p")];
    let entry = prop_oneof![10 => (len, attr), 1 => Just((0, "l"))];
    (0..40_000u64, proptest::collection::vec(entry, 0..7)).prop_map(|(first, mut entries)| {
        entries.insert(0, (first + 1, ""));
        entries
    })
}

/// Piece lengths; of each torrent the last piece is one byte if so chosen.
fn torrent() -> impl Strategy<Value = (u32, Vec<Entry>)> {
    let length = prop_oneof![Just(16_384u32), Just(20_000), Just(65_536), Just(1 << 20), Just(5)];
    (length, entries(), any::<bool>()).prop_map(|(length, mut entries, byte)| {
        // Five bytes a piece is a torrent of tiny pieces; few of them do.
        let length_limit = if length == 5 { 300 } else { u64::MAX };
        entries.iter_mut().for_each(|entry| entry.0 = entry.0.min(length_limit));
        if byte {
            let total: u64 = entries.iter().map(|entry| entry.0).sum();
            entries.push((u64::from(length) - total % u64::from(length) + 1, ""));
        }
        (length, entries)
    })
}

impl World {
    fn pick(&self, which: u16, again: bool) -> Option<BlockRef> {
        let layout = self.package.layout();
        let all = layout.wanted().iter_ones().flat_map(|piece| layout.blocks_of(piece));
        let choice: Vec<BlockRef> = all
            .filter(|at| again || !(self.received.contains(at) || self.package.have().get(at.piece)))
            .take(4000)
            .collect();
        (!choice.is_empty()).then(|| choice[which as usize % choice.len()])
    }

    fn pick_had(&self, which: u16) -> Option<PieceIndex> {
        let had: Vec<PieceIndex> = self.package.have().iter_ones().collect();
        (!had.is_empty()).then(|| had[which as usize % had.len()])
    }

    fn go(&mut self, op: Op, ticket: u64) {
        match op {
            Op::Block { which, again, good } => {
                if let Some(at) = self.pick(which, again) {
                    self.save(at, good);
                }
            }
            Op::Run { which, blocks } => {
                let Some(first) = self.pick(which, false) else { return };
                let run = self.package.layout().blocks_of(first.piece).filter(|at| at.begin >= first.begin);
                for at in run.take(blocks.into()) {
                    self.save(at, true);
                }
            }
            Op::Answer { which, refusal } => {
                if !self.jobs.is_empty() {
                    self.run(which as usize % self.jobs.len(), refusal.map(trouble));
                }
            }
            Op::Load { which, from, len } => {
                let Some(piece) = self.pick_had(which) else { return };
                let whole = self.package.layout().piece_len(piece);
                let begin = u32::from(from) % whole;
                let len = (u32::from(len) % BLOCK_LEN + 1).min(whole - begin);
                assert!(self.load(BlockRef { piece, begin, len }, ticket));
            }
            Op::Warm { which } => {
                if let Some(piece) = self.pick_had(which) {
                    let len = self.package.layout().piece_len(piece);
                    self.package.warm(BlockRef { piece, begin: 0, len }, ticket, &mut self.sent);
                    self.look();
                }
            }
            Op::Tick { millis, thirsty } => self.tick(Duration::from_millis(millis.into()), thirsty),
            Op::Sync => self.fence(Fence::Sync),
            Op::Facts => {
                self.package.ask_facts(self.now, &mut self.sent);
                self.look();
            }
            Op::Recheck => self.recheck(),
            Op::Resume => self.resume(),
        }
    }

    /// Everything that came is in its Piece, if nothing is held.
    fn received_is_true(&self) {
        if self.package.fences.pending() || !self.opened {
            return;
        }
        for piece in self.package.layout().wanted().iter_ones() {
            let facts = self.package.piece_facts(piece);
            let thought = self.received.iter().filter(|at| at.piece == piece).count() as u32;
            assert!(facts.have || facts.received == thought, "{piece:?}: {facts:?}, engine thinks {thought}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn have_is_what_is_there((length, entries) in torrent(), mask in any::<u16>(), ops in ops()) {
        let torrent = Torrent::new(length, &entries);
        let wanted: Arc<[bool]> = (0..entries.len()).map(|at| mask >> at & 1 == 1).collect();
        let mut world = World::new(torrent, wanted.clone());
        world.open();
        for (ticket, op) in (0..).zip(ops) {
            world.go(op, ticket);
            world.have_is_true();
            world.received_is_true();
        }

        // Nothing is stuck: with a good disk it comes to its end.
        world.resume();
        world.run_all();
        world.resume();
        for _ in 0..3 {
            world.tick(GAP_WAIT, true);
            world.run_all();
            world.fetch_all();
        }
        prop_assert!(world.package.is_complete(), "{:?}", world.package);
        world.have_is_true();
        prop_assert!(world.asked.is_empty());
        world.close();
        world.run_all();
        prop_assert_eq!(world.package.state(), PackageState::Closed);
        prop_assert_eq!(world.pool.lent(), 0);

        // And it is all believed the next time, without reading a byte.
        let facts = ResumeFacts::decode(&world.facts().encode()).unwrap();
        prop_assert!(facts.clean);
        let World { torrent, mut disk, .. } = world;
        disk.hashed = 0;
        let mut world = World::with(torrent, wanted, disk, Some(facts), Start::Resume, [9; 16]);
        world.open();
        prop_assert!(world.package.is_complete());
        prop_assert_eq!(world.disk.hashed, 0);
        world.have_is_true();
    }
}
