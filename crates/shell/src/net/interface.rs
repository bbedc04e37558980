//! The one interface that traffic is tied to: whether it is there, and word of when that changes.
//!
//! Owns the look at the system's list of interfaces and the thread that waits for changes of it, which exists only where
//! an interface was named. What follows from a change is the listener's.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
#[cfg(not(target_os = "linux"))]
use std::thread;
use std::time::Duration;

/// How often the list is looked at where the system does not tell of changes, and how late a watcher notices that
/// nobody needs it any more.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// An interface that is up and has an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The system's number for it: another one means that it was made anew, and sockets tied to the old are dead.
    pub index: u32,
    /// Its addresses, in the system's order.
    pub addrs: Vec<IpAddr>,
}

impl Seen {
    /// The address of a family to speak from: one that others can answer to before a link-local one.
    pub fn addr(&self, ipv4: bool) -> Option<IpAddr> {
        let of_family = || self.addrs.iter().copied().filter(|ip| ip.is_ipv4() == ipv4);
        let far = |ip: &IpAddr| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        of_family().find(far).or_else(|| of_family().next())
    }
}

/// Looks at the system's list. `None`: there is no such interface, it is down, or it has no address.
///
/// # Errors
/// The system does not tell.
pub fn look(name: &str) -> io::Result<Option<Seen>> {
    let all = if_addrs::get_if_addrs()?;
    let ours: Vec<_> = all.iter().filter(|one| one.name == name && one.is_oper_up()).collect();
    let Some(index) = ours.iter().find_map(|one| one.index) else { return Ok(None) };
    Ok(Some(Seen { index, addrs: ours.iter().map(|one| one.ip()).collect() }))
}

/// The names of all interfaces that are up, for a remedy.
pub fn names() -> Vec<String> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let mut names: Vec<String> = all.into_iter().filter(|one| one.is_oper_up()).map(|one| one.name).collect();
    names.sort();
    names.dedup();
    names
}

/// What is known of the interface of a policy.
#[derive(Debug)]
pub(super) struct Watched {
    name: String,
    seen: Mutex<Option<Seen>>,
    /// Grows with each change.
    era: AtomicU64,
}

impl Watched {
    pub(super) fn new(name: &str) -> Watched {
        // A system that does not tell is one where it is not seen.
        let seen = Mutex::new(look(name).unwrap_or_default());
        Watched { name: name.to_owned(), seen, era: AtomicU64::new(0) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn seen(&self) -> Option<Seen> {
        self.lock().clone()
    }

    /// How often sockets became of no use so far.
    pub(super) fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// Looks again. True if sockets that were opened before are of no use any more, or new ones are.
    pub(super) fn look(&self, by_address: bool) -> bool {
        let now = look(&self.name).unwrap_or_default();
        let mut seen = self.lock();
        let key = |seen: &Option<Seen>| {
            seen.as_ref()
                .map(|seen| (seen.index, [true, false].map(|v4| seen.addr(v4).filter(|_| by_address))))
        };
        let changed = key(&seen) != key(&now);
        *seen = now;
        self.era.fetch_add(u64::from(changed), Ordering::Release);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Word of changes of the system's list of interfaces.
#[cfg(target_os = "linux")]
pub(super) struct Changes(Option<rustix::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Changes {
    /// Listens to rtnetlink; where that is refused, time is the word.
    pub(super) fn new() -> Changes {
        Changes(listen_to_netlink().ok())
    }

    /// Waits until something changed, but not for long.
    pub(super) fn wait(&self) {
        let pause = || std::thread::sleep(LOOK_EVERY);
        let Some(socket) = &self.0 else { return pause() };
        let mut bytes = [0; 8192];
        match rustix::net::recv(socket, &mut bytes[..], rustix::net::RecvFlags::empty()) {
            Ok(_) => {}
            // Nothing for a while, or more than we could read: either way it is time to look.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::NOBUFS) => {}
            Err(_) => pause(),
        }
    }
}

#[cfg(target_os = "linux")]
fn listen_to_netlink() -> rustix::io::Result<rustix::fd::OwnedFd> {
    use rustix::net::netlink::SocketAddrNetlink;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
    /// Groups of <linux/rtnetlink.h>: links, IPv4 addresses, IPv6 addresses.
    const GROUPS: u32 = 0x1 | 0x10 | 0x100;
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(LOOK_EVERY))?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    Ok(socket)
}

/// Word of changes of the system's list of interfaces: time.
#[cfg(not(target_os = "linux"))]
pub(super) struct Changes;

#[cfg(not(target_os = "linux"))]
impl Changes {
    pub(super) fn new() -> Changes {
        Changes
    }

    pub(super) fn wait(&self) {
        thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_and_nonsense_is_not() {
        let seen = look("lo").unwrap().expect("every machine has loopback");
        assert_eq!(seen.addr(true), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(look("no-such-if0").unwrap(), None);
        assert!(names().contains(&"lo".to_owned()));
        assert!(!Watched::new("lo").look(true), "nothing changed");
    }

    #[test]
    fn an_address_that_others_can_answer_to_comes_first() {
        let addrs = ["fe80::1", "10.0.0.1", "2001:db8::1"].map(|ip| ip.parse().unwrap()).to_vec();
        let seen = Seen { index: 3, addrs };
        assert_eq!(seen.addr(false), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(seen.addr(true), Some("10.0.0.1".parse().unwrap()));
        let local = Seen { index: 3, addrs: vec!["fe80::1".parse().unwrap()] };
        assert_eq!(local.addr(false), Some("fe80::1".parse().unwrap()));
        assert_eq!(local.addr(true), None);
    }
}
