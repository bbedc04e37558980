use super::*;
use proptest::prelude::*;

const KIB: u64 = 1024;
const BEAT: Duration = Duration::from_millis(100);

fn at(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

#[test]
fn a_constant_rate_is_measured_exactly_in_a_full_window() {
    for (step, bytes, error) in [
        (10, 1_000, 0),
        (50, 5_000, 0),
        (100, 10_000, 0),
        (200, 20_000, 0),
        (125, 12_500, 3_300),
        (250, 25_000, 6_600),
    ] {
        let mut meter = Meter::new(at(0));
        for tick in 1..=20_000 / step {
            meter.add(bytes, at(tick * step));
            if tick * step > 4_000 {
                let off = meter.rate(at(tick * step)).abs_diff(100_000);
                assert!(off <= error, "step {step} ms, tick {tick}: off by {off}");
            }
        }
        assert_eq!(meter.total(), 100_000 * 20);
    }
}

#[test]
fn a_meter_ramps_up_in_a_second_and_forgets_in_four() {
    let mut meter = Meter::new(at(5_000));
    meter.add(16 * KIB, at(5_001));
    assert_eq!(meter.rate(at(5_001)), 16 * KIB, "no record from one Block");
    assert_eq!(meter.rate(at(6_000)), 16 * KIB);
    assert_eq!(meter.rate(at(7_000)), 8 * KIB);
    assert!(meter.rate(at(8_900)) > 0);
    assert_eq!(meter.rate(at(9_201)), 0);
    assert_eq!(meter.rate(at(3_600_000)), 0);
    meter.add(1_000, at(3_600_000));
    assert_eq!(meter.rate(at(3_600_000)), 250);
}

#[test]
fn a_meter_survives_clocks_that_stand_or_step_back() {
    let mut meter = Meter::new(at(1_000));
    meter.add(u64::MAX, at(2_000));
    meter.add(u64::MAX, at(500));
    assert!(meter.rate(at(0)) > 0);
    assert_eq!(Meter::new(Time::NEVER).rate(Time::ZERO), 0);
    meter.add(1, Time::NEVER);
    assert_eq!(meter.rate(Time::NEVER), 0, "one byte in four seconds");
}

/// What a greedy spender of whole Blocks gets in `millis`, asking each beat.
fn greedy(budget: &mut Budget, from: u64, millis: u64) -> u64 {
    let mut spent = 0;
    for beat in 1..=millis / 100 {
        budget.refill(at(from + beat * 100));
        let granted = budget.take(1 << 40);
        let used = granted / QUANTUM * QUANTUM;
        budget.put_back(granted - used);
        spent += used;
    }
    spent
}

#[test]
fn limits_are_exact_to_five_percent_over_ten_seconds() {
    for rate in [20 * KIB, 33 * KIB, 100 * KIB, 160 * KIB, 163_841, KIB * KIB, 125_000_000, 1 << 30] {
        let mut budget = Budget::new(Some(rate), at(0));
        let spent = greedy(&mut budget, 0, 10_000);
        let ratio = spent as f64 / (10 * rate) as f64;
        assert!((0.95..=1.05).contains(&ratio), "{rate} B/s gave {ratio}");
    }
}

#[test]
fn a_burst_after_idling_is_a_quarter_second_or_a_block() {
    for (rate, most) in [(1_000, QUANTUM), (20 * KIB, QUANTUM), (1 << 20, 1 << 18), (1 << 30, 1 << 28)] {
        let mut budget = Budget::new(Some(rate), at(0));
        budget.refill(at(3_600_000));
        let burst = budget.take(u64::MAX >> 1);
        assert!(burst >= most && burst <= most + QUANTUM / 2, "{rate}: {burst}");
        assert_eq!(budget.take(QUANTUM), 0);
    }
}

#[test]
fn unlimited_gives_all_and_zero_gives_nothing() {
    let mut free = Budget::unlimited();
    assert_eq!(free.take(u64::MAX), u64::MAX);
    free.put_back(5);
    free.charge(u64::MAX);
    assert_eq!(free.next_grant(), Time::ZERO);
    let mut shut = Budget::new(Some(0), at(0));
    shut.refill(Time::NEVER);
    assert_eq!(shut.take(1), 0);
    assert_eq!(shut.next_grant(), Time::NEVER);
    assert_eq!(free.take(0), 0);
}

#[test]
fn a_changed_limit_keeps_debt_and_cuts_savings() {
    let mut budget = Budget::new(Some(1 << 30), at(0));
    budget.refill(at(1_000));
    budget.set_limit(Some(100 * KIB), at(1_000));
    assert!(budget.take(1 << 40) <= 25 * KIB + QUANTUM / 2);
    budget.set_limit(Some(20 * KIB), at(1_000));
    assert_eq!(budget.take(QUANTUM), 0);
    budget.set_limit(None, at(1_000));
    assert_eq!(budget.take(7), 7);
    budget.set_limit(Some(10), at(1_000));
    assert_eq!(budget.take(QUANTUM), 0, "a new limit begins empty");
}

#[test]
fn next_grant_is_when_a_block_is_granted() {
    for rate in [1, 1_000, 20 * KIB, 1 << 20, 1 << 30] {
        let mut budget = Budget::new(Some(rate), at(7));
        let due = budget.next_grant();
        budget.refill(due - Duration::from_nanos(1));
        assert_eq!(budget.take(QUANTUM), 0, "{rate}");
        budget.refill(due);
        assert_eq!(budget.take(QUANTUM), QUANTUM, "{rate}");
    }
}

#[test]
fn charges_hold_back_what_follows() {
    let mut budget = Budget::new(Some(100_000), at(0));
    budget.charge(50_000);
    assert_eq!(greedy(&mut budget, 0, 500), 0);
    assert!(greedy(&mut budget, 500, 500) > 0);
    budget.charge(u64::MAX);
    assert!(budget.next_grant() < at(1_000 + 1_200), "no more than a second of debt");
}

#[test]
fn shares_are_fair_and_turns_go_round() {
    let mut shares = [0; 4];
    let mut trunk = Budget::new(Some(40 * QUANTUM), at(0));
    trunk.refill(at(250));
    share(&mut trunk, &[0, 2 * QUANTUM, 100, 9 * QUANTUM], 0, &mut shares);
    assert_eq!(shares, [0, 2 * QUANTUM, 100, 8 * QUANTUM]);
    share(&mut Budget::unlimited(), &[1, 2, 3, 4], 0, &mut shares);
    assert_eq!(shares, [1, 2, 3, 4]);
    share(&mut Budget::new(Some(5), at(0)), &[], 3, &mut []);

    // 20 KiB/s among four: each is served in turn.
    let mut trunk = Budget::new(Some(20 * KIB), at(0));
    let (mut turn, mut sums) = (0, [0; 4]);
    for beat in 1..=600 {
        trunk.refill(at(beat * 100));
        share(&mut trunk, &[QUANTUM; 4], turn, &mut shares);
        for (slot, given) in shares.iter().enumerate().filter(|(_, given)| **given > 0) {
            sums[slot] += given;
            turn = slot as u64 + 1;
        }
    }
    let (most, least) = (sums.iter().max().unwrap(), sums.iter().min().unwrap());
    assert!(most - least <= QUANTUM, "{sums:?}");
}

proptest! {
    #[test]
    fn any_rate_and_any_beat_is_exact(
        rate in 20 * KIB..1 << 30, beats in proptest::collection::vec(1u64..200, 100..300),
    ) {
        let mut budget = Budget::new(Some(rate), at(0));
        let (mut now, mut spent) = (0, 0);
        for beat in beats {
            now += beat;
            budget.refill(at(now));
            let granted = budget.take(1 << 40);
            let used = granted / QUANTUM * QUANTUM;
            budget.put_back(granted - used);
            spent += used;
            let fair = rate as i128 * now as i128 / 1_000;
            prop_assert!((spent as i128 - fair).abs() <= QUANTUM as i128, "{spent} of {fair} at {now} ms");
        }
    }

    #[test]
    fn debt_and_savings_stay_bounded(
        rate in 0u64..1 << 31,
        steps in proptest::collection::vec((0u64..5_000, 0u64..1 << 22, 0u64..1 << 20), 1..200),
    ) {
        let mut budget = Budget::new(Some(rate), at(0));
        let mut now = 0;
        for (wait, wanted, back) in steps {
            now += wait;
            budget.refill(at(now));
            prop_assert!(budget.tokens <= most_saved(rate));
            let granted = budget.take(wanted);
            prop_assert!(granted <= wanted);
            prop_assert!(budget.tokens >= -((QUANTUM / 2) as i64));
            budget.put_back(back.min(granted));
            prop_assert!(budget.tokens <= most_saved(rate));
        }
    }

    #[test]
    fn both_levels_of_the_tree_hold(
        trunk_rate in proptest::option::of(20 * KIB..1 << 24),
        branch_rates in proptest::collection::vec(proptest::option::of(20 * KIB..1 << 24), 1..6),
        asks in proptest::collection::vec((0usize..6, 1u64..1 << 19), 100..400),
    ) {
        let mut trunk = Budget::new(trunk_rate, at(0));
        let mut branches: Vec<_> = branch_rates.iter().map(|rate| Budget::new(*rate, at(0))).collect();
        let mut spent = vec![0u64; branches.len()];
        for (beat, (who, wanted)) in asks.into_iter().enumerate() {
            let now = at((beat as u64 + 1) * BEAT.as_millis() as u64);
            let who = who % branches.len();
            trunk.refill(now);
            branches[who].refill(now);
            let granted = spend(&mut trunk, &mut branches[who], wanted);
            unspend(&mut trunk, &mut branches[who], granted / 3);
            spent[who] += granted - granted / 3;
            let millis = u128::from(now.nanos()) / 1_000_000;
            let allowed = |rate: u64| u128::from(rate) * millis / 1_000 + u128::from(QUANTUM);
            for (rate, spent) in branch_rates.iter().zip(&spent) {
                prop_assert!(rate.is_none_or(|rate| u128::from(*spent) <= allowed(rate)));
            }
            let all: u64 = spent.iter().sum();
            prop_assert!(trunk_rate.is_none_or(|rate| u128::from(all) <= allowed(rate)));
        }
    }

    #[test]
    fn shares_never_exceed_demand_or_trunk(
        rate in 0u64..1 << 26, demands in proptest::collection::vec(0u64..1 << 22, 0..20), turn in any::<u64>(),
    ) {
        let mut trunk = Budget::new(Some(rate), at(0));
        trunk.refill(at(100));
        let before = trunk.tokens;
        let mut shares = vec![9; demands.len()];
        share(&mut trunk, &demands, turn, &mut shares);
        let given: u64 = shares.iter().sum();
        prop_assert_eq!(before - trunk.tokens, given as i64);
        prop_assert!(trunk.tokens >= -((QUANTUM / 2) as i64));
        for (share, demand) in shares.iter().zip(&demands) {
            prop_assert!(share <= demand);
            // Whoever got less than it asked for got no less than anyone else, give or take a Block.
            prop_assert!(share == demand || shares.iter().all(|other| *other <= share + QUANTUM));
        }
    }
}
