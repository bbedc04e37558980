//! PCP (RFC 6887) and its elder, NAT-PMP (RFC 6886), by `crab_nat`.
//!
//! The crate speaks from a socket that is connected to the router, so nobody else is heard, and checks PCP's nonces. An
//! answer that is wrong ends its question; it is asked again from another port then.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::natpmp::{self, Failure as NatPmpFailure};
use crab_nat::pcp::{self, BaseMapRequest, DropMappingRange, Failure};
use crab_nat::{InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig};

use super::keeper::{Carrier, Grant, Place, Wish};

pub(super) use crab_nat::pcp::Nonce;

/// RFC 6886 begins with 250 ms and doubles, as here; after almost four seconds in all a router of a home would have
/// answered.
const PATIENCE: TimeoutConfig =
    TimeoutConfig { initial_timeout: Duration::from_millis(250), max_retries: 3, max_retry_timeout: None };
/// How often a question is asked to which somebody gives wrong answers.
const TRIES: usize = 3;
/// No router is believed to remember for longer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Maps by PCP, or renews what was `had`.
pub(super) async fn map(place: Place, wish: Wish, had: Option<Grant>) -> Option<Grant> {
    let (nonce, external) = (had.and_then(|had| had.nonce), had.and_then(|had| had.external));
    let base =
        BaseMapRequest::new(place.gateway.into(), place.client.into(), protocol(wish.carrier), place.port);
    for _ in 0..TRIES {
        match pcp::port_mapping(base, nonce, external, options(wish)).await {
            Ok(mapping) => return granted(&mapping),
            Err(Failure::Nonce | Failure::InvalidResponse(_)) => {}
            Err(_) => return None,
        }
    }
    None
}

/// Maps by NAT-PMP, or renews: it makes no difference between the two.
pub(super) async fn map_by_nat_pmp(place: Place, wish: Wish) -> Option<Grant> {
    for _ in 0..TRIES {
        let asked =
            natpmp::port_mapping(place.gateway.into(), protocol(wish.carrier), place.port, options(wish));
        match asked.await {
            Ok(mapping) => return granted(&mapping),
            Err(NatPmpFailure::InvalidResponse(_)) => {}
            Err(_) => return None,
        }
    }
    None
}

/// The router's address, by NAT-PMP.
pub(super) async fn external(place: Place) -> Option<IpAddr> {
    let told = natpmp::external_address(place.gateway.into(), Some(PATIENCE)).await.ok()?;
    Some(told.into()).filter(|ip| *ip != IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// Takes a mapping of PCP back. A router that does not answer forgets by itself.
pub(super) async fn unmap(place: Place, carrier: Carrier, grant: Grant) {
    let Some(nonce) = grant.nonce else { return };
    let range = DropMappingRange::Single { protocol: protocol(carrier), internal_port: place.port };
    let (gateway, client) = (place.gateway.into(), place.client.into());
    let _ = pcp::try_drop_mapping(gateway, client, nonce, range, Some(PATIENCE)).await;
}

/// Takes a mapping of NAT-PMP back.
pub(super) async fn unmap_by_nat_pmp(place: Place, carrier: Carrier) {
    let (gateway, protocol) = (place.gateway.into(), protocol(carrier));
    let _ = natpmp::try_drop_mapping(gateway, protocol, Some(place.port), Some(PATIENCE)).await;
}

fn options(wish: Wish) -> PortMappingOptions {
    PortMappingOptions {
        external_port: Some(wish.port),
        lifetime_seconds: Some(u32::try_from(wish.lifetime.as_secs()).unwrap_or(u32::MAX)),
        timeout_config: Some(PATIENCE),
    }
}

/// A mapping of no length is none.
fn granted(mapping: &PortMapping) -> Option<Grant> {
    let lasts = Duration::from_secs(mapping.lifetime().into()).min(LONGEST);
    let (nonce, external) = match mapping.mapping_type() {
        PortMappingType::Pcp { nonce, external_ip, .. } => (Some(nonce), Some(external_ip)),
        PortMappingType::NatPmp => (None, None),
    };
    let external = external.filter(|ip| !ip.is_unspecified());
    let port: NonZeroU16 = mapping.external_port();
    (!lasts.is_zero()).then_some(Grant { port, lasts, nonce, external })
}

fn protocol(carrier: Carrier) -> InternetProtocol {
    match carrier {
        Carrier::Tcp => InternetProtocol::Tcp,
        Carrier::Udp => InternetProtocol::Udp,
    }
}
