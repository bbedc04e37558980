//! Which router is ours: that of the default route.
//!
//! Where the system does not tell it in a file, the user must name it.

use std::net::Ipv4Addr;

/// The file of the kernel's IPv4 routes (Linux, proc_net_route).
#[cfg(target_os = "linux")]
const ROUTES: &str = "/proc/net/route";
/// A route is in use, and leads by a gateway (Linux, `rtnetlink`: `RTF_UP`, `RTF_GATEWAY`).
const UP_BY_GATEWAY: u32 = 0x1 | 0x2;

/// The gateway of the IPv4 default route.
#[cfg(target_os = "linux")]
pub(super) fn gateway() -> Option<Ipv4Addr> {
    default_gateway(&std::fs::read_to_string(ROUTES).ok()?)
}

/// Not known here.
#[cfg(not(target_os = "linux"))]
pub(super) fn gateway() -> Option<Ipv4Addr> {
    None
}

/// The gateway of the default route of the lowest metric.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "there is no such file"))]
fn default_gateway(routes: &str) -> Option<Ipv4Addr> {
    let routes = routes.lines().skip(1).filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let mut hex = || u32::from_str_radix(words.next()?, 16).ok();
        let (destination, gateway, flags) = (hex()?, hex()?, hex()?);
        // Reference count and use, then the metric, in decimal.
        let metric: u32 = words.nth(2)?.parse().ok()?;
        let mask = u32::from_str_radix(words.next()?, 16).ok()?;
        let default = destination == 0 && mask == 0 && flags & UP_BY_GATEWAY == UP_BY_GATEWAY && gateway != 0;
        // The kernel prints the address as a number of this machine, so its bytes are in the order of the network.
        default.then(|| (metric, Ipv4Addr::from(gateway.to_ne_bytes())))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel of a machine of little end prints it.
    const HEAD: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";

    #[cfg(target_endian = "little")]
    #[test]
    fn the_best_default_route_counts() {
        let table = [
            ("eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n", Some([192, 168, 1, 1])),
            // The wire has the lower metric, the mobile network the higher.
            (
                "wwan\t00000000\t0100000A\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                 eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n",
                Some([192, 168, 1, 1]),
            ),
            // A tunnel without a gateway, a route to one network, one that is down, half the world.
            ("tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n", None),
            ("eth0\t0001A8C0\t0101A8C0\t0003\t0\t0\t100\t00FFFFFF\t0\t0\t0\n", None),
            ("eth0\t00000000\t0101A8C0\t0002\t0\t0\t100\t00000000\t0\t0\t0\n", None),
            ("eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000080\t0\t0\t0\n", None),
            // What is not understood is no route.
            ("eth0\t00000000\tgateway\t0003\t0\t0\t100\t00000000\t0\t0\t0\n", None),
            ("eth0\t00000000\n\n", None),
            ("", None),
        ];
        for (routes, expected) in table {
            assert_eq!(default_gateway(&format!("{HEAD}{routes}")), expected.map(Ipv4Addr::from), "{routes}");
        }
        assert_eq!(default_gateway(""), None);
    }
}
