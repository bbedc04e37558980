//! Port mapping: asks the router to pass on to us what comes to a port of its own, by PCP (RFC 6887), NAT-PMP (RFC 6886)
//! or UPnP, in that order.
//!
//! Owns the thread that does so, when it asks again, and taking the mapping back at the end. Only the router of our
//! default route is asked, or one the user named, and only its answers count. What follows from a mapping is the engine's,
//! which hears of it as a [`Reach`].
//!
//! - `keeper`: one address, mapped as long as we run. - `pcp`: PCP and NAT-PMP. - `upnp`: UPnP. - `route`: which router.
//!
//! IPv4 alone: by IPv6 peers reach us where we listen, unless a router's firewall is in the way.

mod keeper;
mod pcp;
mod route;
// Elsewhere loopback has one address alone.
#[cfg(all(test, target_os = "linux"))]
mod tests;
mod upnp;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use piecemeal_engine::cx::Reach;
use tokio::sync::oneshot;

use keeper::Keeper;

/// Whether and how a port is mapped.
#[derive(Clone, Debug, Default)]
pub struct MappingSettings {
    /// The router to ask; `None`: the one of the default route. A router on loopback is asked only when it is named.
    pub gateway: Option<Ipv4Addr>,
    /// When it is asked.
    pub pace: Pace,
}

/// When a router is asked.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// For how long a mapping is wanted. It is renewed when half of what was granted is over.
    pub lifetime: Duration,
    /// It is not renewed more often than this, however little was granted.
    pub least_renewal: Duration,
    /// The first pause after nothing could be mapped; each further one is twice as long.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// For the search for a UPnP device, its documents included.
    pub search: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            // As libtorrent's `upnp_lease_duration`: a mapping that nobody took back is gone within the hour.
            lifetime: Duration::from_secs(3600),
            least_renewal: Duration::from_secs(30),
            first_pause: Duration::from_secs(60),
            longest_pause: Duration::from_secs(3600),
            // A device may wait for the second the search allows it.
            search: Duration::from_secs(5),
        }
    }
}

/// Hears where peers reach us: at each renewal, and once when no router helps (any more). Must not block.
pub(crate) type Told = Box<dyn FnMut(Option<Reach>) + Send>;

/// A thread that keeps a port mapped.
pub(crate) struct PortMapping {
    stop: oneshot::Sender<Instant>,
    /// The thread holds the sender, and never sends: it is gone when the thread is.
    ends: Receiver<()>,
}

impl PortMapping {
    /// Begins to map the port that is listened on. `None`: nobody outside could be let in there.
    ///
    /// # Errors
    /// The system has no threads or handles left.
    pub(crate) fn start(
        settings: &MappingSettings,
        listening: &[SocketAddr],
        told: Told,
    ) -> io::Result<Option<PortMapping>> {
        let Some(door) = mappable(listening, settings.gateway) else { return Ok(None) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let (alive, ends) = crossbeam_channel::bounded::<()>(0);
        let keeper = Keeper::new(door, settings, told);
        thread::Builder::new().name("port-mapping".into()).spawn(move || {
            let _alive = alive;
            runtime.block_on(keeper.run(stopped));
            runtime.shutdown_background();
        })?;
        Ok(Some(PortMapping { stop, ends }))
    }

    /// Takes the mapping back, by `until` at the latest. Does not wait for it.
    pub(crate) fn stop(self, until: Instant) -> Receiver<()> {
        // If it is gone, there is nothing left to stop.
        let _ = self.stop.send(until);
        self.ends
    }
}

/// The address to be mapped: the first of IPv4 that can be reached from elsewhere.
fn mappable(listening: &[SocketAddr], gateway: Option<Ipv4Addr>) -> Option<SocketAddrV4> {
    let inside = gateway.is_some_and(|gateway| gateway.is_loopback());
    listening.iter().find_map(|addr| match addr {
        SocketAddr::V4(addr) => Some(*addr).filter(|addr| inside || !addr.ip().is_loopback()),
        SocketAddr::V6(_) => None,
    })
}
