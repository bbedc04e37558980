//! Who is fetched next.
//!
//! Owns the fetches that wait and the count of those under way, and knows neither URLs nor sockets. Hosts take turns,
//! and one host has only a share of the places: thousands of torrents on a tracker that does not answer must not keep
//! the others from theirs. A farewell (`stopped`) goes only when nothing else can, as nobody waits for its answer.

use std::collections::{BTreeMap, VecDeque};

/// Fetches under way at once; as many as libtorrent allows (`max_concurrent_http_announces`).
pub(super) const AT_ONCE: usize = 50;
/// Of them to one host: a third, so that two dead trackers leave room.
pub(super) const AT_ONCE_PER_HOST: usize = 16;
/// Fetches that wait: three times 10 000 torrents in two families, at some 500 bytes each.
pub(super) const WAITING_MAX: usize = 65_536;

/// The waiting line.
pub(super) struct Line<T> {
    urgent: Turns<T>,
    farewells: Turns<T>,
    /// Fetches under way; no zeros; bound: [`AT_ONCE`].
    busy: BTreeMap<String, usize>,
}

impl<T> Line<T> {
    pub fn new() -> Line<T> {
        Line { urgent: Turns::new(), farewells: Turns::new(), busy: BTreeMap::new() }
    }

    /// Takes a place at the end.
    ///
    /// # Errors
    /// The fetch itself, if [`WAITING_MAX`] wait already.
    pub fn push(&mut self, host: String, farewell: bool, fetch: T) -> Result<(), T> {
        if self.urgent.len + self.farewells.len >= WAITING_MAX {
            return Err(fetch);
        }
        let turns = if farewell { &mut self.farewells } else { &mut self.urgent };
        turns.push(host, fetch);
        Ok(())
    }

    /// The next to start, if there is room for it; [`Line::done`] gives the room back.
    pub fn next(&mut self) -> Option<(String, T)> {
        if self.busy.values().sum::<usize>() >= AT_ONCE {
            return None;
        }
        let (host, fetch) = self.urgent.pop(&self.busy).or_else(|| self.farewells.pop(&self.busy))?;
        *self.busy.entry(host.clone()).or_insert(0) += 1;
        Some((host, fetch))
    }

    /// A fetch from `host` is over.
    pub fn done(&mut self, host: &str) {
        if let Some(count) = self.busy.get_mut(host) {
            *count -= 1;
            if *count == 0 {
                self.busy.remove(host);
            }
        }
    }
}

/// Hosts in the order of their turns, each with its own line. Bound: by its owner.
struct Turns<T> {
    order: VecDeque<String>,
    hosts: BTreeMap<String, VecDeque<T>>,
    len: usize,
}

impl<T> Turns<T> {
    fn new() -> Turns<T> {
        Turns { order: VecDeque::new(), hosts: BTreeMap::new(), len: 0 }
    }

    fn push(&mut self, host: String, fetch: T) {
        let line = self.hosts.entry(host.clone()).or_default();
        if line.is_empty() {
            self.order.push_back(host);
        }
        line.push_back(fetch);
        self.len += 1;
    }

    fn pop(&mut self, busy: &BTreeMap<String, usize>) -> Option<(String, T)> {
        let free = |host: &String| busy.get(host).is_none_or(|count| *count < AT_ONCE_PER_HOST);
        // Few hosts can be at their limit at once, so this does not search far.
        let at = self.order.iter().position(free)?;
        let host = self.order.remove(at)?;
        let line = self.hosts.get_mut(&host)?;
        let fetch = line.pop_front()?;
        self.len -= 1;
        if line.is_empty() {
            self.hosts.remove(&host);
        } else {
            self.order.push_back(host.clone());
        }
        Some((host, fetch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(line: &mut Line<u32>) -> Vec<u32> {
        std::iter::from_fn(|| line.next().map(|(_, fetch)| fetch)).collect()
    }

    #[test]
    fn hosts_take_turns_and_farewells_come_last() {
        let mut line = Line::new();
        for (host, farewell, fetch) in [
            ("a", true, 1),
            ("a", false, 2),
            ("a", false, 3),
            ("b", false, 4),
            ("c", true, 5),
            ("b", false, 6),
        ] {
            line.push(host.into(), farewell, fetch).unwrap();
        }
        assert_eq!(drain(&mut line), [2, 4, 3, 6, 1, 5]);
    }

    #[test]
    fn a_dead_host_leaves_room() {
        let mut line = Line::new();
        for fetch in 0..1000 {
            line.push("dead".into(), false, fetch).unwrap();
        }
        assert_eq!(drain(&mut line).len(), AT_ONCE_PER_HOST);
        line.push("good".into(), true, 1000).unwrap();
        assert_eq!(drain(&mut line), [1000]);
        line.done("dead");
        assert_eq!(drain(&mut line), [16]);
    }

    #[test]
    fn no_more_than_the_limits() {
        let mut line = Line::new();
        for fetch in 0..WAITING_MAX as u32 {
            line.push(format!("h{}", fetch % 100), fetch % 2 == 0, fetch).unwrap();
        }
        assert_eq!(line.push("x".into(), false, 7), Err(7));
        let first: Vec<String> = std::iter::from_fn(|| line.next().map(|(host, _)| host)).collect();
        assert_eq!(first.len(), AT_ONCE);
        first.iter().for_each(|host| line.done(host));
        assert!(line.busy.is_empty());
    }
}
