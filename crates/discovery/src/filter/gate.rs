//! Who may be talked to: the lists and the bans together.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Bans, IpFilter};

/// The judgement that all doors share. It never changes, so each door has its own; whoever commands gives all of them a
/// new one. Lets everybody in by default.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Gate {
    /// What lists say.
    pub lists: Arc<IpFilter>,
    /// What is banned by hand.
    pub bans: Arc<Bans>,
}

impl Gate {
    /// Whether nobody at `ip` may be talked to. Where nobody can be (240.0.0.0/4, RFC 1112) is never blocked, although many
    /// lists do: there such addresses stand for trackers whose names a proxy looks up.
    pub fn blocks(&self, ip: IpAddr) -> bool {
        (self.lists.blocks(ip) || self.bans.blocks(ip)) && !is_nobodys(ip)
    }
}

fn is_nobodys(ip: IpAddr) -> bool {
    matches!(ip.to_canonical(), IpAddr::V4(ip) if ip.octets()[0] >= 240)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_bans_but_not_what_is_nobodys() {
        let lists: IpFilter =
            ["8.0.0.0/8", "240.0.0.0-255.255.255.255"].iter().map(|text| text.parse().unwrap()).collect();
        let mut bans = Bans::default();
        bans.ban("9.9.9.9".parse().unwrap()).unwrap();
        let gate = Gate { lists: lists.into(), bans: bans.into() };
        for (ip, blocked) in [
            ("8.1.2.3", true),
            ("::ffff:8.1.2.3", true),
            ("9.9.9.9", true),
            ("9.9.9.8", false),
            ("239.255.255.255", false),
            ("240.0.0.1", false),
        ] {
            assert_eq!(gate.blocks(ip.parse().unwrap()), blocked, "{ip}");
        }
        assert!(!Gate::default().blocks("8.8.8.8".parse().unwrap()));
    }
}
