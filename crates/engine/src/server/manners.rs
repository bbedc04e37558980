//! How peers wish to be spoken to, where that is not how we would begin.
//!
//! Owns the addresses of those who understood the other way only: in plain words where we prefer to encrypt, or
//! encrypted where we do not. The next call begins so, and is spared the one that they would not understand.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

/// Addresses remembered; the oldest is forgotten first. More than anybody is connected with.
const MOST: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Manners {
    otherwise: BTreeSet<SocketAddr>,
    /// The same, oldest first.
    by_age: VecDeque<SocketAddr>,
}

impl Manners {
    /// Whether this one is to be spoken to the other way.
    pub(super) fn otherwise(&self, addr: SocketAddr) -> bool {
        self.otherwise.contains(&addr)
    }

    /// This one understood us: the other way, or as we began.
    pub(super) fn understood(&mut self, addr: SocketAddr, otherwise: bool) {
        if !otherwise {
            if self.otherwise.remove(&addr) {
                self.by_age.retain(|known| *known != addr);
            }
        } else if self.otherwise.insert(addr) {
            self.by_age.push_back(addr);
            if self.by_age.len() > MOST
                && let Some(oldest) = self.by_age.pop_front()
            {
                self.otherwise.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(number: u32) -> SocketAddr {
        SocketAddr::from((std::net::Ipv4Addr::from(number), 1))
    }

    #[test]
    fn the_latest_word_counts_and_the_oldest_are_forgotten() {
        let mut manners = Manners::default();
        for number in 0..5_000 {
            manners.understood(addr(number), true);
            manners.understood(addr(number), true);
        }
        assert_eq!((manners.otherwise.len(), manners.by_age.len()), (MOST, MOST));
        assert!(!manners.otherwise(addr(903)) && manners.otherwise(addr(904)));
        manners.understood(addr(904), false);
        manners.understood(addr(904), false);
        assert!(!manners.otherwise(addr(904)));
        assert_eq!((manners.otherwise.len(), manners.by_age.len()), (MOST - 1, MOST - 1));
    }
}
