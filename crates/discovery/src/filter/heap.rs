//! Ranges as numbers: on their way into a filter a heap of them in any order, which is sorted and merged when it is
//! full; and in the filter, sorted, where they are searched.

/// What addresses are as numbers.
pub(super) trait Number: Copy + Ord {
    /// The next address, if this is not the last.
    fn next(self) -> Option<Self>;
}

impl Number for u32 {
    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }
}

impl Number for u128 {
    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }
}

/// Ranges that share an entry in the directory of [`Sorted`]: two lines of a processor's cache.
const BLOCK: usize = 16;

/// First and last address of each range: in order, and none touches the next.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Sorted<T> {
    ranges: Vec<(T, T)>,
    /// The first address of each [`BLOCK`]: a thirtieth of the whole, so most of a search stays in the cache.
    heads: Vec<T>,
}

impl<T> Default for Sorted<T> {
    fn default() -> Sorted<T> {
        Sorted { ranges: Vec::new(), heads: Vec::new() }
    }
}

impl<T: Number> Sorted<T> {
    /// Of ranges in any order.
    pub(super) fn new(mut ranges: Vec<(T, T)>) -> Sorted<T> {
        sort_and_merge(&mut ranges);
        ranges.shrink_to_fit();
        let heads = ranges.iter().step_by(BLOCK).map(|range| range.0).collect();
        Sorted { ranges, heads }
    }

    /// Whether one of the ranges has `at`.
    pub(super) fn has(&self, at: T) -> bool {
        let blocks = self.heads.partition_point(|head| *head <= at);
        let Some(block) = blocks.checked_sub(1) else { return false };
        let block = &self.ranges[block * BLOCK..self.ranges.len().min(blocks * BLOCK)];
        let begun = block.partition_point(|range| range.0 <= at);
        block[..begun].last().is_some_and(|range| at <= range.1)
    }

    pub(super) fn ranges(&self) -> &[(T, T)] {
        &self.ranges
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.ranges.capacity() * size_of::<(T, T)>() + self.heads.capacity() * size_of::<T>()
    }
}

/// Ranges of the first room.
const FIRST_ROOM: usize = 1_024;

/// First and last address of each range. Doubles and neighbours take room only until it is full; then it grows by half
/// if merging did not free a quarter, so the cost of merging is a few times that of sorting all at the end.
pub(super) struct Heap<T> {
    ranges: Vec<(T, T)>,
    most: usize,
    peak_bytes: usize,
}

/// More ranges than there may be.
#[derive(Debug)]
pub(super) struct Full;

impl<T: Number> Heap<T> {
    /// At most `most` ranges, and while they come a quarter more.
    pub(super) fn new(most: usize) -> Heap<T> {
        Heap { ranges: Vec::new(), most, peak_bytes: 0 }
    }

    pub(super) fn push(&mut self, range: (T, T)) -> Result<(), Full> {
        // Lists are sorted as a rule.
        if let Some(end) = self.ranges.last_mut()
            && end.0 <= range.0
            && touch(*end, range)
        {
            end.1 = end.1.max(range.1);
            return Ok(());
        }
        if self.ranges.len() == self.ranges.capacity() {
            self.make_room()?;
        }
        self.ranges.push(range);
        Ok(())
    }

    /// All that came.
    pub(super) fn finish(self) -> Result<Sorted<T>, Full> {
        let most = self.most;
        let sorted = Sorted::new(self.ranges);
        if sorted.ranges().len() > most { Err(Full) } else { Ok(sorted) }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.ranges.capacity() * size_of::<(T, T)>()
    }

    /// The most there was at once, the old room while it is moved into the new one counted in.
    pub(super) fn peak_bytes(&self) -> usize {
        self.peak_bytes
    }

    fn make_room(&mut self) -> Result<(), Full> {
        sort_and_merge(&mut self.ranges);
        if self.ranges.len() > self.most {
            return Err(Full);
        }
        let room = self.ranges.capacity();
        if self.ranges.len() >= room - room / 4 {
            let room_then = (room + room / 2).clamp(FIRST_ROOM.min(self.most), self.most + self.most / 4 + 1);
            let before = self.memory_bytes();
            // It counts from the length.
            self.ranges.reserve_exact(room_then.saturating_sub(self.ranges.len()).max(1));
            if self.ranges.capacity() > room {
                self.peak_bytes = self.peak_bytes.max(before + self.memory_bytes());
            }
        }
        Ok(())
    }
}

fn sort_and_merge<T: Number>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, before| {
        let one = touch(*before, *next);
        if one {
            before.1 = before.1.max(next.1);
        }
        one
    });
}

/// Whether no address lies between a range and one that does not begin before it.
fn touch<T: Number>(before: (T, T), next: (T, T)) -> bool {
    before.1.next().is_none_or(|after| next.0 <= after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_take_no_room() {
        let mut heap = Heap::new(1_000_000);
        for round in 0..100_u32 {
            (0..500_u32).rev().for_each(|at| heap.push((at * 10, at * 10 + round % 5)).unwrap());
        }
        assert_eq!(heap.memory_bytes(), FIRST_ROOM * 8);
        let sorted = heap.finish().unwrap();
        let ranges = sorted.ranges();
        assert_eq!((ranges.len(), ranges[0], ranges[499]), (500, (0, 4), (4990, 4994)));
    }

    #[test]
    fn full_is_said_and_not_before() {
        for most in [1, 7, 100, 5_000_u32] {
            let fill = |count: u32| {
                let mut heap = Heap::new(most as usize);
                // Not sorted, so that neighbours do not merge at once.
                (0..count).rev().try_for_each(|at| heap.push((at * 2, at * 2)))?;
                (0..count).rev().try_for_each(|at| heap.push((at * 2, at * 2)))?;
                assert!(heap.memory_bytes() <= (most as usize * 5 / 4 + 1) * 8);
                heap.finish()
            };
            assert_eq!(fill(most).unwrap().ranges().len(), most as usize);
            assert!(fill(most + 1).is_err() && fill(most * 3).is_err());
        }
    }
}
