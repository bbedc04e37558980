use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

fn at(secs: u64) -> Time {
    Time::ZERO + Duration::from_secs(secs)
}

/// An old, choked, interested peer that gives and takes nothing.
fn peer(who: u32) -> ChokeFacts<u32> {
    ChokeFacts {
        who,
        interested: true,
        gives: 0,
        takes: 0,
        taken: 0,
        snubbed: false,
        connected_at: at(0),
        since: at(0),
        choked: true,
        upload_only: false,
    }
}

fn giver(who: u32, gives: u64) -> ChokeFacts<u32> {
    ChokeFacts { gives, ..peer(who) }
}

fn limits() -> ChokeLimits {
    ChokeLimits::new(1 << 18)
}

/// Judges once at 1000 s with limits of `friends` + `optimistic`, sorted.
fn judged(friends: usize, optimistic: usize, facts: &[ChokeFacts<u32>]) -> Vec<u32> {
    let mut unchoked = Vec::new();
    let limits = ChokeLimits { friends, optimistic, ..limits() };
    Choker::new(limits).judge(at(1_000), false, facts, &mut rng(), &mut unchoked);
    unchoked.sort_unstable();
    unchoked
}

#[test]
fn friends_are_those_who_give() {
    let six: Vec<_> = (1..=6).map(|who| giver(who, u64::from(who) * 100)).collect();
    type Change = fn(&mut ChokeFacts<u32>);
    let rows: &[(&str, u32, Change, &[u32])] = &[
        ("the four best", 6, |_| {}, &[3, 4, 5, 6]),
        ("whoever snubs loses", 6, |p| p.snubbed = true, &[2, 3, 4, 5]),
        ("a fast bystander is unchoked beside", 6, |p| p.interested = false, &[2, 3, 4, 5, 6]),
        ("a slow bystander is not", 1, |p| p.interested = false, &[3, 4, 5, 6]),
        ("a seed takes no slot", 6, |p| p.upload_only = true, &[2, 3, 4, 5]),
        ("a seed is no bystander", 6, |p| (p.upload_only, p.interested) = (true, false), &[2, 3, 4, 5]),
        ("an equal stays", 3, |p| (p.gives, p.choked) = (200, false), &[3, 4, 5, 6]),
        ("a better one replaces it", 1, |p| p.gives = 301, &[1, 4, 5, 6]),
    ];
    for (name, who, change, expected) in rows {
        let mut facts = six.clone();
        change(&mut facts[*who as usize - 1]);
        let mut limits = limits();
        limits.optimistic = 0;
        let mut friends = Vec::new();
        let mut choker = Choker::new(limits);
        choker.choose_friends(&facts, &mut friends);
        friends.sort_unstable();
        assert_eq!(friends, *expected, "{name}");
    }
}

#[test]
fn slots_are_counted() {
    let many: Vec<_> = (0..50).map(peer).collect();
    assert_eq!(judged(4, 1, &many).len(), 5, "what no friend fills is optimistic");
    assert_eq!(judged(0, 0, &many).len(), 0);
    assert_eq!(judged(0, 3, &many).len(), 3);
    assert_eq!(judged(4, 1, &many[..3]), [0, 1, 2]);
    let mut facts: Vec<_> = (0..50).map(|who| giver(who, u64::from(who))).collect();
    assert_eq!(judged(4, 1, &facts).len(), 5);
    facts.iter_mut().take(3).for_each(|peer| peer.snubbed = true);
    assert_eq!(judged(4, 1, &facts).len(), 8, "each snubbing frees a slot");
    facts.iter_mut().take(30).for_each(|peer| peer.snubbed = true);
    assert_eq!(judged(4, 1, &facts).len(), 9, "but no more than there are friends");
    facts.iter_mut().for_each(|peer| peer.interested = false);
    let bystanders = judged(4, 1, &facts);
    assert_eq!(bystanders, (30..50).collect::<Vec<_>>(), "friends' places are free: any giver is welcome");
    assert!(judged(4, 1, &[]).is_empty());
}

#[test]
fn optimistic_slots_rotate_every_thirty_seconds() {
    let facts: Vec<_> = (0..20).map(|who| giver(who, if who < 4 { 1_000 } else { 0 })).collect();
    let (mut choker, mut rng, mut unchoked) = (Choker::new(limits()), rng(), Vec::new());
    let mut seen = Vec::new();
    for beat in 100..160 {
        choker.judge(at(beat * 10), false, &facts, &mut rng, &mut unchoked);
        assert_eq!(unchoked[..4], [0, 1, 2, 3]);
        assert!(choker.is_optimistic(unchoked[4]));
        seen.push(unchoked[4]);
    }
    for turn in seen.chunks(3) {
        assert!(turn.iter().all(|who| who == &turn[0]), "it keeps its slot for 30 s");
    }
    assert!(seen.chunks(3).zip(seen.chunks(3).skip(1)).all(|(a, b)| a[0] != b[0]), "never twice in a row");
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() > 8, "20 turns over 16 peers reach most: {seen:?}");
}

#[test]
fn a_vacant_optimistic_slot_is_filled_at_once() {
    let mut facts: Vec<_> = (0..6).map(|who| giver(who, if who < 4 { 1_000 } else { 0 })).collect();
    let (mut choker, mut rng, mut unchoked) = (Choker::new(limits()), rng(), Vec::new());
    choker.judge(at(100), false, &facts, &mut rng, &mut unchoked);
    let first = unchoked[4];
    facts[first as usize].gives = 5_000;
    choker.judge(at(105), false, &facts, &mut rng, &mut unchoked);
    assert_eq!(unchoked[0], first, "it gave, so it is a friend");
    assert!(!choker.is_optimistic(first) && unchoked.len() == 5);
    assert_eq!(choker.next_rotation(), at(130));
    facts.retain(|peer| !choker.is_optimistic(peer.who));
    choker.judge(at(107), false, &facts, &mut rng, &mut unchoked);
    assert_eq!(unchoked.len(), 5, "the one that left made room for the last");
}

#[test]
fn new_peers_are_three_times_as_likely() {
    let facts = [
        peer(0),
        ChokeFacts { connected_at: at(990), ..peer(1) },
        ChokeFacts { connected_at: at(990), snubbed: true, ..peer(2) },
    ];
    let (mut rng, mut hits) = (rng(), [0u32; 3]);
    for _ in 0..10_000 {
        hits[draw(at(1_000), &[0, 1, 2], &facts, &mut rng).unwrap()] += 1;
    }
    assert!((1_850..2_150).contains(&hits[0]) && (5_850..6_150).contains(&hits[1]), "{hits:?}");
    assert_eq!(draw::<u32, _>(at(0), &[], &[], &mut rng), None);
}

#[test]
fn seeding_gives_turns() {
    let busy =
        |who, taken, since| ChokeFacts { choked: false, taken, since: at(since), takes: 9, ..peer(who) };
    let waits = |who, since| ChokeFacts { since: at(since), ..peer(who) };
    let quota = limits().quota;
    type Row = (&'static str, Vec<ChokeFacts<u32>>, &'static [u32]);
    let rows: &[Row] = &[
        ("a turn lasts", vec![busy(1, 0, 950), busy(2, 0, 950), waits(3, 0)], &[1, 2]),
        ("60 s are a turn", vec![busy(1, 0, 940), busy(2, 0, 950), waits(3, 0)], &[2, 3]),
        ("so is the quota", vec![busy(1, 0, 950), busy(2, quota, 990), waits(3, 0)], &[1, 3]),
        ("nobody waits, nobody yields", vec![busy(1, quota, 0), busy(2, quota, 0)], &[1, 2]),
        (
            "who waits longest is next",
            vec![busy(1, 0, 0), busy(2, 0, 0), waits(3, 50), waits(4, 40), waits(5, 60)],
            &[3, 4],
        ),
        (
            "among new ones the fast",
            vec![waits(1, 5), ChokeFacts { takes: 5, ..waits(2, 5) }, waits(3, 5)],
            &[1, 2],
        ),
        (
            "who had its turn and takes fast stays",
            vec![ChokeFacts { takes: 10, ..busy(1, quota, 0) }, busy(2, quota, 0), waits(3, 0)],
            &[1, 3],
        ),
        ("only the interested", vec![ChokeFacts { interested: false, ..busy(1, 0, 990) }, waits(2, 0)], &[2]),
    ];
    for (name, facts, expected) in rows {
        let mut choker = Choker::new(ChokeLimits { friends: 1, optimistic: 1, quota });
        let mut unchoked = Vec::new();
        choker.judge(at(1_000), true, facts, &mut rng(), &mut unchoked);
        unchoked.sort_unstable();
        assert_eq!(unchoked, *expected, "{name}");
    }
}

#[test]
fn while_seeding_everyone_gets_turns_and_the_fast_a_few_more() {
    let mut facts: Vec<_> =
        (0..23).map(|who| ChokeFacts { takes: u64::from(who) * 1_000, ..peer(who) }).collect();
    let (mut choker, mut rng, mut unchoked) = (Choker::new(limits()), rng(), Vec::new());
    let mut turns: BTreeMap<u32, u64> = BTreeMap::new();
    for beat in 1..=360 {
        let now = at(beat * 10);
        choker.judge(now, true, &facts, &mut rng, &mut unchoked);
        assert_eq!(unchoked.len(), 5);
        for peer in &mut facts {
            let choked = !unchoked.contains(&peer.who);
            assert!(
                !choked || now.since(peer.since) <= Duration::from_secs(5 * 60),
                "{} waits too long",
                peer.who
            );
            if choked != peer.choked {
                (peer.choked, peer.since) = (choked, now);
            }
            if !choked {
                *turns.entry(peer.who).or_default() += 10;
            }
        }
    }
    let (most, least) = (turns.values().max().unwrap(), turns.values().min().unwrap());
    assert!(turns.len() == 23 && least * 4 >= most * 3, "{turns:?}");
    assert!(turns[&22] > turns[&0]);
}

proptest! {
    #[test]
    fn laws(
        peers in proptest::collection::vec((any::<[bool; 5]>(), 0u64..5, 0u64..100, 0u64..100), 0..40),
        friends in 0usize..6, optimistic in 0usize..3, seed in any::<u64>(),
    ) {
        let mut facts: Vec<_> = peers.iter().enumerate().map(|(who, (flags, gives, born, since))| ChokeFacts {
            interested: flags[0], snubbed: flags[1], choked: flags[2], upload_only: flags[3] && flags[4],
            gives: gives * 100, connected_at: at(*born), since: at(*born + *since), ..peer(who as u32)
        }).collect();
        let mut choker = Choker::new(ChokeLimits { friends, optimistic, quota: 1 });
        let mut twin = choker.clone();
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let mut same = dice.clone();
        let (mut unchoked, mut again) = (Vec::new(), Vec::new());
        for round in 0..12 {
            let (now, seeding) = (at(200 + round * 10), round >= 10);
            choker.judge(now, seeding, &facts, &mut dice, &mut unchoked);
            twin.judge(now, seeding, &facts, &mut same, &mut again);
            prop_assert_eq!(&unchoked, &again, "same dice, same choice");
            again.sort_unstable();
            again.dedup();
            prop_assert_eq!(again.len(), unchoked.len(), "nobody twice");
            let named: Vec<_> = facts.iter().filter(|peer| unchoked.contains(&peer.who)).collect();
            prop_assert!(named.iter().all(|peer| !peer.upload_only));
            let holders = named.iter().filter(|peer| peer.interested).count();
            let wishing = facts.iter().filter(|peer| peer.interested && !peer.upload_only).count();
            prop_assert!(holders >= wishing.min(friends + optimistic), "no slot idle while one waits");
            prop_assert!(holders <= friends * 2 + optimistic);
            prop_assert!(seeding || named.iter().all(|peer| peer.interested || !peer.snubbed));
            for peer in &mut facts {
                peer.choked = !unchoked.contains(&peer.who);
            }
        }
    }
}
