//! UPnP: mapping by an internet gateway device, by `igd-next`.
//!
//! Owns the search for the device, since that of the crate hears everybody: whoever answers first in the local network
//! would be asked for a document, and would get our mapping. Here the search goes out by a socket of ours, and only what
//! the router itself answers is passed on to the crate, on loopback. The crate in turn asks no other host than the router
//! for documents and mappings, and follows no redirection; it takes at most 1 MiB of each document, nested 64 deep.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::Duration;

use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, PortMappingProtocol, SearchOptions};
use tokio::net::UdpSocket;

use crate::net::router;

use super::keeper::{Carrier, Grant, Place, Wish};

/// A device that was found.
pub(super) type Device = Gateway<Tokio>;

/// Where devices listen to searches, and on which port.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
const PORT: u16 = 1900;
/// Hops of a search (UPnP device architecture 1.1, 1.3.2: "should default to 2").
const HOPS: u32 = 2;
/// A longer answer to a search is cut off.
const ANSWER_BYTES: usize = 1500;
/// Who we are, in the router's list.
const NAME: &str = "piecemeal";
/// What is looked for: devices of later versions answer to these too.
const TARGETS: [&str; 3] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// Looks whether the router is such a device, for so long at most.
pub(super) async fn find(place: Place, patience: Duration) -> Option<Device> {
    let outside = UdpSocket::from_std(router::searcher(place.client, HOPS).ok()?).ok()?;
    let inside = UdpSocket::from_std(router::on_loopback().ok()?).ok()?;
    let mut options = SearchOptions::default();
    options.bind_addr = (Ipv4Addr::LOCALHOST, 0).into();
    options.broadcast_address = inside.local_addr().ok()?;
    options.timeout = Some(patience);
    options.allowed_gateway_ips = vec![place.gateway.into()];
    tokio::select! {
        found = search_gateway(options) => found.ok(),
        _ = pass_on(&outside, &inside, place.gateway) => None,
    }
}

/// Searches, and passes on to the crate what the router answers. Ends only when a socket fails.
async fn pass_on(outside: &UdpSocket, inside: &UdpSocket, gateway: Ipv4Addr) -> std::io::Result<()> {
    let mut answer = [0; ANSWER_BYTES];
    let (_, crate_at) = inside.recv_from(&mut answer).await?;
    for target in TARGETS {
        // Some answer to the group only, some networks carry no groups.
        for to in [SocketAddrV4::new(GROUP, PORT), SocketAddrV4::new(gateway, PORT)] {
            let search = format!(
                "M-SEARCH * HTTP/1.1\r\nHOST: {to}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {target}\r\n\r\n"
            );
            // Where no group can be sent to, the router still can.
            let _ = outside.send_to(search.as_bytes(), SocketAddr::V4(to)).await;
        }
    }
    loop {
        match outside.recv_from(&mut answer).await {
            Ok((len, from)) if from.ip() == IpAddr::V4(gateway) => {
                inside.send_to(&answer[..len], crate_at).await?;
            }
            Ok(_) => {}
            // A router that is no such device refuses; the group may still answer.
            Err(why) if why.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(why) => return Err(why),
        }
    }
}

/// Maps, or renews.
pub(super) async fn map(device: &Device, place: Place, wish: Wish) -> Option<Grant> {
    let client = SocketAddr::from((place.client, place.port.get()));
    let (protocol, port) = (protocol(wish.carrier), wish.port.get());
    let lease = u32::try_from(wish.lifetime.as_secs()).unwrap_or(u32::MAX);
    let port = match device.add_port(protocol, port, client, lease, NAME).await {
        Ok(()) => port,
        // Old devices never forget. They are still asked again and again, as one that was restarted has forgotten.
        Err(AddPortError::OnlyPermanentLeasesSupported) => {
            device.add_port(protocol, port, client, 0, NAME).await.ok()?;
            port
        }
        // Another has it, or this very port may not be had: miniupnpd says "not authorized" to that.
        Err(_) => device.add_any_port(protocol, client, lease, NAME).await.ok()?,
    };
    Some(Grant { port: NonZeroU16::new(port)?, lasts: wish.lifetime, nonce: None, external: None })
}

/// The router's address.
pub(super) async fn external(device: &Device) -> Option<IpAddr> {
    device.get_external_ip().await.ok().filter(|ip| !ip.is_unspecified())
}

/// Takes a mapping back.
pub(super) async fn unmap(device: &Device, carrier: Carrier, port: NonZeroU16) {
    // One that is gone already is as good.
    let _ = device.remove_port(protocol(carrier), port.get()).await;
}

fn protocol(carrier: Carrier) -> PortMappingProtocol {
    match carrier {
        Carrier::Tcp => PortMappingProtocol::TCP,
        Carrier::Udp => PortMappingProtocol::UDP,
    }
}
