//! One address, mapped for as long as it is wanted.
//!
//! Owns which mapping is held, when it is renewed, and the pauses after failures. How a router is asked is `pcp`'s and
//! `upnp`'s.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use piecemeal_engine::cx::{Reach, ReachedBy};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout_at};

use crate::net::router;

use super::{MappingSettings, Pace, Told, pcp, route, upnp};

/// Taking a mapping back may take no longer: somebody waits for the program to end, and the router forgets by itself.
const FAREWELL: Duration = Duration::from_secs(2);

/// By which protocol peers come; both are mapped, since a peer chooses between TCP and uTP, and the DHT is UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Carrier {
    Tcp,
    Udp,
}

/// Between whom a mapping is agreed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// The router.
    pub(super) gateway: Ipv4Addr,
    /// Our address, as the router sees it.
    pub(super) client: Ipv4Addr,
    /// Our port.
    pub(super) port: NonZeroU16,
}

/// What is asked of a router.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) carrier: Carrier,
    /// The router's port that would be best.
    pub(super) port: NonZeroU16,
    pub(super) lifetime: Duration,
}

/// What a router granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    /// The router's port.
    pub(super) port: NonZeroU16,
    /// For how long; never nothing.
    pub(super) lasts: Duration,
    /// Shows the router that it is us who renew; PCP's.
    pub(super) nonce: Option<pcp::Nonce>,
    /// The router's address, if it is told along.
    pub(super) external: Option<IpAddr>,
}

/// How a router is asked.
#[derive(Clone, Debug)]
pub(super) enum Means {
    Pcp,
    NatPmp,
    Upnp(Box<upnp::Device>),
}

/// A mapping.
#[derive(Clone, Debug)]
struct Held {
    place: Place,
    means: Means,
    tcp: Grant,
    /// Not granted, or not yet.
    udp: Option<Grant>,
    external: Option<IpAddr>,
    since: Instant,
}

impl Held {
    /// Both last so long.
    fn lasts(&self) -> Duration {
        self.udp.map_or(self.tcp.lasts, |udp| udp.lasts.min(self.tcp.lasts))
    }

    fn expires(&self) -> Instant {
        self.since + self.lasts()
    }

    fn reach(&self) -> Reach {
        let by = match self.means {
            Means::Pcp => ReachedBy::Pcp,
            Means::NatPmp => ReachedBy::NatPmp,
            Means::Upnp(_) => ReachedBy::Upnp,
        };
        Reach { by, port: self.tcp.port.get(), external: self.external, lasts: self.lasts() }
    }
}

/// See the module.
pub(super) struct Keeper {
    door: SocketAddrV4,
    gateway: Option<Ipv4Addr>,
    pace: Pace,
    told: Told,
    /// The last that was told was that nobody helps.
    told_none: bool,
    held: Option<Held>,
    /// In a row.
    failures: u32,
}

impl Keeper {
    pub(super) fn new(door: SocketAddrV4, settings: &MappingSettings, told: Told) -> Keeper {
        let MappingSettings { gateway, pace } = *settings;
        Keeper { door, gateway, pace, told, told_none: false, held: None, failures: 0 }
    }

    /// Keeps the address mapped until it is told to stop, then takes the mapping back.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<Instant>) {
        let until = loop {
            // What is under way is dropped at a stop; what was granted before is in `held`.
            let pause = tokio::select! {
                until = &mut stop => break until,
                pause = self.turn() => pause,
            };
            self.tell();
            tokio::select! {
                until = &mut stop => break until,
                () = sleep(pause) => {}
            }
        };
        if let (Ok(until), Some(held)) = (until, self.held) {
            let until = until.min(Instant::now() + FAREWELL);
            let _ = timeout_at(until.into(), release(&held)).await;
        }
    }

    fn tell(&mut self) {
        let reach = self.held.as_ref().map(Held::reach);
        if !std::mem::replace(&mut self.told_none, reach.is_none()) || reach.is_some() {
            (self.told)(reach);
        }
    }

    /// Renews, or begins; how long until the next turn.
    async fn turn(&mut self) -> Duration {
        if self.renew().await || self.begin().await {
            self.failures = 0;
            let lasts = self.held.as_ref().map_or(self.pace.lifetime, Held::lasts);
            return (lasts / 2).max(self.pace.least_renewal);
        }
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let pause = self.pace.first_pause.saturating_mul(1 << doublings).min(self.pace.longest_pause);
        let now = Instant::now();
        self.held = self.held.take().filter(|held| held.expires() > now);
        // That it is over is told when it is.
        self.held.as_ref().map_or(pause, |held| pause.min(held.expires().saturating_duration_since(now)))
    }

    /// Whom to ask now. `None`: there is no router, or it cannot be meant for our address.
    fn place(&self) -> Option<Place> {
        let gateway = self.gateway.or_else(route::gateway)?;
        let client = router::towards((gateway, crab_nat::GATEWAY_PORT).into())?;
        let ours = self.door.ip().is_unspecified() || *self.door.ip() == client;
        ours.then_some(Place { gateway, client, port: NonZeroU16::new(self.door.port())? })
    }

    /// False: there is nothing to renew, or the router would not.
    async fn renew(&mut self) -> bool {
        let Some(held) = self.held.clone() else { return false };
        // In another network it is another router that must be asked.
        if self.place() != Some(held.place) {
            return false;
        }
        self.agree(held.place, held.means.clone(), Some(&held)).await
    }

    /// Asks by all means, until one helps.
    async fn begin(&mut self) -> bool {
        let Some(place) = self.place() else { return false };
        if self.agree(place, Means::Pcp, None).await || self.agree(place, Means::NatPmp, None).await {
            return true;
        }
        match upnp::find(place, self.pace.search).await {
            Some(device) => self.agree(place, Means::Upnp(Box::new(device)), None).await,
            None => false,
        }
    }

    /// Asks for both carriers; TCP must be had.
    async fn agree(&mut self, place: Place, means: Means, before: Option<&Held>) -> bool {
        let had = before.map(|held| held.tcp);
        let Some(tcp) = self.ask(place, &means, Carrier::Tcp, place.port, had).await else { return false };
        let udp_before = before.and_then(|held| held.udp);
        let external = tcp.external.or(before.and_then(|held| held.external));
        let since = Instant::now();
        self.held = Some(Held { place, means: means.clone(), tcp, udp: udp_before, external, since });
        let external = match (&means, tcp.external) {
            (Means::NatPmp, _) => pcp::external(place).await,
            (Means::Upnp(device), _) => upnp::external(device).await,
            (Means::Pcp, told) => told,
        };
        // The port that is announced is TCP's; it is of use by UDP too only if that has the same.
        let udp = self.ask(place, &means, Carrier::Udp, tcp.port, udp_before).await;
        if let Some(held) = &mut self.held {
            (held.udp, held.external) = (udp, external.or(held.external));
        }
        true
    }

    async fn ask(
        &self,
        place: Place,
        means: &Means,
        carrier: Carrier,
        best: NonZeroU16,
        had: Option<Grant>,
    ) -> Option<Grant> {
        let port = had.map_or(best, |had| had.port);
        let wish = Wish { carrier, port, lifetime: self.pace.lifetime };
        match means {
            Means::Pcp => pcp::map(place, wish, had).await,
            Means::NatPmp => pcp::map_by_nat_pmp(place, wish).await,
            Means::Upnp(device) => upnp::map(device, place, wish).await,
        }
    }
}

/// Takes a mapping back.
async fn release(held: &Held) {
    let one = async |carrier, grant: Option<Grant>| match (&held.means, grant) {
        (_, None) => {}
        (Means::Pcp, Some(grant)) => pcp::unmap(held.place, carrier, grant).await,
        (Means::NatPmp, Some(_)) => pcp::unmap_by_nat_pmp(held.place, carrier).await,
        (Means::Upnp(device), Some(grant)) => upnp::unmap(device, carrier, grant.port).await,
    };
    tokio::join!(one(Carrier::Tcp, Some(held.tcp)), one(Carrier::Udp, held.udp));
}
