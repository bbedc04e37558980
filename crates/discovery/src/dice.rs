//! The few things discovery rolls dice for: a number below a bound, a shuffle, a sample without repeats.
//!
//! Owns nothing; the generator is the caller's. `rand` itself is left out: a dozen lines replace it.

use rand_core::Rng;

/// A number in `0..bound`, or 0 if `bound` is 0. The bias is at most `bound` in 2^32, far below what a swarm
/// can notice.
pub(crate) fn below(bound: usize, rng: &mut (impl Rng + ?Sized)) -> usize {
    let bound = u32::try_from(bound).unwrap_or(u32::MAX);
    ((u64::from(rng.next_u32()) * u64::from(bound)) >> 32) as usize
}

/// Every order equally likely (Fisher and Yates).
pub(crate) fn shuffle<T>(items: &mut [T], rng: &mut (impl Rng + ?Sized)) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(last + 1, rng));
    }
}

/// `want` different numbers of `0..from` (all of them if there are fewer), each as likely as any other, in an order that
/// begins anywhere.
///
/// They are drawn one from each of `want` equal parts, and all turned by one random step. So no memory of what was
/// drawn is needed, numbers that stand close together are less likely to come together, and the time is in proportion
/// to `want`, not to `from`: a swarm of 100 000 is sampled as quickly as one of 1000.
pub(crate) fn sample(from: usize, want: usize, rng: &mut (impl Rng + ?Sized)) -> Vec<usize> {
    spread(from, want, rng).collect()
}

/// What [`sample`] draws, one after the other.
pub(crate) fn spread<R: Rng + ?Sized>(
    from: usize,
    want: usize,
    rng: &mut R,
) -> impl ExactSizeIterator<Item = usize> {
    let want = want.min(from);
    let turn = below(from, rng);
    // In parts of 2^32, so that no part needs a division. What rounding leaves out at the end is as likely to be any
    // number, as all are turned.
    let step = ((from as u64) << 32).checked_div(want as u64).unwrap_or(0);
    let part = move |number: usize| ((number as u64 * step) >> 32) as usize;
    let draw = move |number: usize| {
        let (start, end) = (part(number), part(number + 1));
        let at = turn + start + below(end - start, rng);
        if at >= from { at - from } else { at }
    };
    (0..want).map(draw)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn a_sample_has_no_repeats_and_stays_in_range() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for from in [0, 1, 2, 3, 10, 99, 1000] {
            for want in [0, 1, 2, 5, 49, 50, 51, 200, 2000] {
                let picks = sample(from, want, &mut rng);
                assert_eq!(picks.len(), want.min(from), "{want} of {from}");
                assert!(picks.iter().all(|pick| *pick < from));
                assert_eq!(picks.iter().collect::<BTreeSet<_>>().len(), picks.len());
            }
        }
    }

    #[test]
    fn every_number_is_drawn_equally_often() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        for (from, want) in [(10, 1), (10, 3), (10, 7), (10, 9)] {
            let mut count = [0_u32; 10];
            for _ in 0..10_000 {
                sample(from, want, &mut rng).into_iter().for_each(|pick| count[pick] += 1);
            }
            let expected = 1000 * want as u32;
            assert!(count.iter().all(|count| count.abs_diff(expected) < 250), "{want}: {count:?}");
        }
    }

    #[test]
    fn every_number_leads_a_sample_equally_often() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        for (from, want) in [(10, 8), (10, 2)] {
            let mut first = [0_u32; 10];
            for _ in 0..10_000 {
                first[sample(from, want, &mut rng)[0]] += 1;
            }
            // 1000 expected with a deviation of 30; 150 is five deviations.
            assert!(first.iter().all(|count| count.abs_diff(1000) < 150), "{first:?}");
        }
    }
}
