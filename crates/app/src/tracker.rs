//! A tracker in this process, in the words of `api`.
//!
//! Owns the names under which others reach it; everything else is `trackerd`'s.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use piecemeal_api::{Refusal, RunningTracker, TrackerOptions, TrackerStats};
use piecemeal_trackerd::{Config, StartError, TrackerServer};

/// A running tracker, or one that was stopped.
pub struct Tracker {
    server: Option<TrackerServer>,
    urls: Vec<String>,
    /// When it was stopped.
    last: TrackerStats,
}

impl Tracker {
    /// Starts it.
    ///
    /// # Errors
    /// There is no address to listen on, or one cannot be had.
    pub fn start(options: &TrackerOptions) -> Result<Tracker, Refusal> {
        let server = TrackerServer::start(Config::new(options.listen.clone())).map_err(|why| match why {
            StartError::Config(what) => {
                Refusal::invalid("listen", what, "name an address such as 0.0.0.0:6969")
            }
            StartError::System(why) => match options.listen.first() {
                Some(addr) => Refusal::Listen { addr: *addr, reason: without_number(&why) },
                None => Refusal::System { what: "a tracker".into(), reason: without_number(&why) },
            },
        })?;
        let urls = server.addrs().iter().map(|addr| url(*addr)).collect();
        Ok(Tracker { server: Some(server), urls, last: TrackerStats::default() })
    }
}

impl RunningTracker for Tracker {
    fn urls(&self) -> Vec<String> {
        self.urls.clone()
    }

    fn stats(&self) -> TrackerStats {
        let Some(server) = &self.server else { return self.last };
        let stats = server.stats();
        TrackerStats {
            swarms: stats.torrents,
            peers: stats.peers,
            announces: stats.announces,
            scrapes: stats.scrapes,
            refused: stats.failures,
        }
    }

    fn stop(&mut self) {
        self.last = self.stats();
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What goes into torrents. An address that stands for all is given as the one that others most likely see.
fn url(bound: SocketAddr) -> String {
    let ip = if bound.ip().is_unspecified() { outward(bound.ip()) } else { bound.ip() };
    format!("http://{}/announce", SocketAddr::new(ip, bound.port()))
}

/// The address this machine would speak to the internet from, or loopback. Nothing is sent: connecting a datagram
/// socket only looks up the route. The addresses are of documentation (RFC 5737, RFC 3849).
fn outward(unspecified: IpAddr) -> IpAddr {
    let (anywhere, loopback): (IpAddr, IpAddr) = match unspecified {
        IpAddr::V4(_) => (Ipv4Addr::new(198, 51, 100, 1).into(), Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), Ipv6Addr::LOCALHOST.into()),
    };
    let look = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((unspecified, 0))?;
        // Any port: 9 is "discard".
        socket.connect((anywhere, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    look().ok().filter(|ip| !ip.is_unspecified()).unwrap_or(loopback)
}

fn without_number(why: &std::io::Error) -> String {
    why.to_string().split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_reached_where_it_says_and_stops_twice() {
        let options = TrackerOptions { listen: vec!["127.0.0.1:0".parse().unwrap()] };
        let mut tracker = Tracker::start(&options).unwrap();
        let urls = tracker.urls();
        assert!(urls[0].starts_with("http://127.0.0.1:") && urls[0].ends_with("/announce"), "{urls:?}");
        assert_eq!(tracker.stats(), TrackerStats::default());
        tracker.stop();
        tracker.stop();
        assert_eq!(tracker.urls(), urls);
    }

    #[test]
    fn the_address_for_all_is_not_given_to_others() {
        for wildcard in ["0.0.0.0:6969", "[::]:6969"] {
            let url = url(wildcard.parse().unwrap());
            assert!(!url.contains("//0.0.0.0") && !url.contains("[::]"), "{url}");
            assert!(url.ends_with(":6969/announce"), "{url}");
        }
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let refused =
            Tracker::start(&TrackerOptions { listen: vec![addr] }).map(drop).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("{addr}: cannot listen here: ")), "{refused}");
        assert!(Tracker::start(&TrackerOptions { listen: vec![] }).is_err());
    }
}
