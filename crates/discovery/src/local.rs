//! Addresses that mean something in one network only.

use std::net::IpAddr;

/// Whether an address is not of the internet: this host, a private network, a link. Who is there can be believed about others
/// there, and nobody else; no id is bound to such an address (BEP 42).
pub fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_internet_does_not_route() {
        let local = |text: &str| is_local(text.parse().unwrap());
        for text in ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.1.1", "::ffff:10.1.2.3"] {
            assert!(local(text), "{text}");
        }
        for text in ["::1", "fd00::1", "fe80::1"] {
            assert!(local(text), "{text}");
        }
        for text in ["8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(!local(text), "{text}");
        }
    }
}
