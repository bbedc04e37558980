//! Routers of one test each, on loopback addresses of their own, and what is said between them and a [`PortMapping`].

mod datagrams;
mod devices;

use std::net::UdpSocket;
use std::sync::mpsc::{Receiver, channel};

use super::*;
use piecemeal_engine::cx::ReachedBy;

/// For what must happen; only a failure takes so long.
const LONG: Duration = Duration::from_secs(30);
/// Where we listen.
const OURS: u16 = 6881;

/// So that a mapping of one second is renewed after half of it.
fn quick() -> Pace {
    Pace {
        least_renewal: Duration::from_millis(50),
        first_pause: Duration::from_millis(100),
        search: LONG,
        ..Pace::default()
    }
}

/// The router of a test: every test has its own.
fn router(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 77, number, 1)
}

struct Run {
    mapping: PortMapping,
    told: Receiver<Option<Reach>>,
}

impl Run {
    fn with(gateway: Ipv4Addr) -> Run {
        Run::at(gateway, quick())
    }

    /// Where no device will be found.
    fn without_device(gateway: Ipv4Addr) -> Run {
        Run::at(gateway, Pace { search: Duration::from_secs(1), ..quick() })
    }

    fn at(gateway: Ipv4Addr, pace: Pace) -> Run {
        let settings = MappingSettings { gateway: Some(gateway), pace };
        let (tell, told) = channel();
        let told_by: Told = Box::new(move |reach| {
            let _ = tell.send(reach);
        });
        let listening = [SocketAddr::from((Ipv4Addr::LOCALHOST, OURS))];
        let mapping = PortMapping::start(&settings, &listening, told_by).unwrap().unwrap();
        Run { mapping, told }
    }

    fn told(&self) -> Option<Reach> {
        self.told.recv_timeout(LONG).expect("something is told")
    }

    /// Stops, and waits for the thread's end.
    fn stop(self) {
        let ends = self.mapping.stop(Instant::now() + LONG);
        assert_eq!(ends.recv_timeout(LONG), Err(crossbeam_channel::RecvTimeoutError::Disconnected));
    }
}

/// Answers datagrams to `(at, port)` until the process ends: `answer` sends by the socket it is given.
fn serve(at: Ipv4Addr, port: u16, mut answer: impl FnMut(&UdpSocket, &[u8], SocketAddr) + Send + 'static) {
    let socket = UdpSocket::bind((at, port)).unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            answer(&socket, &bytes[..len], from);
        }
    });
}

#[test]
fn loopback_is_not_mapped_unless_its_router_is_named() {
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    let (near, far, six) = (addr("127.0.0.1:1"), addr("192.168.1.2:2"), addr("[::]:3"));
    let inside = Some(Ipv4Addr::LOCALHOST);
    let outside = Some(Ipv4Addr::new(10, 2, 0, 1));
    for (listening, gateway, expected) in [
        (&[][..], None, None),
        (&[near][..], None, None),
        (&[near][..], outside, None),
        (&[near][..], inside, Some(1)),
        (&[six][..], None, None),
        (&[six, near, far][..], None, Some(2)),
        (&[addr("0.0.0.0:4")][..], outside, Some(4)),
    ] {
        let port = mappable(listening, gateway).map(|addr| addr.port());
        assert_eq!(port, expected, "{listening:?} {gateway:?}");
    }
}
