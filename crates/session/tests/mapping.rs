//! A session behind a router, which is a thread on a loopback address of its own and speaks NAT-PMP.

#![cfg(target_os = "linux")]

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use piecemeal::Session;
use piecemeal::api::{EngineOptions, Event, Events, Heard, Mapping, MappingProtocol};

/// For what must happen; only a failure takes so long.
const LONG: Duration = Duration::from_secs(30);
const ROUTER: Ipv4Addr = Ipv4Addr::new(127, 77, 101, 1);

/// Maps everything to port 7000 of 203.0.113.7, and tells for how many seconds each mapping was wanted.
fn router() -> Receiver<u32> {
    let socket = UdpSocket::bind((ROUTER, 5351)).unwrap();
    let (tell, told) = channel();
    thread::spawn(move || {
        let mut bytes = [0; 1100];
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            let mut answer = vec![0, 0x80 | bytes[1], 0, 0, 0, 0, 0, 9];
            match (bytes[0], bytes[1]) {
                (0, 0) => answer.extend([203, 0, 113, 7]),
                (0, _) => {
                    let wanted_s = u32::from_be_bytes(bytes[8..12].try_into().unwrap());
                    answer.extend(&bytes[4..6]);
                    answer.extend(if wanted_s == 0 { 0 } else { 7000_u16 }.to_be_bytes());
                    answer.extend(&bytes[8..len]);
                    let _ = tell.send(wanted_s);
                }
                _ => answer[3] = 1,
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
    told
}

#[test]
fn a_mapping_is_told_shown_and_taken_back() {
    let wanted = router();
    let options = EngineOptions {
        listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        port_mapping: true,
        gateway: Some(ROUTER),
        ..EngineOptions::default()
    };
    let session = Session::start(&options).unwrap();
    // By now it may have been told already: then it is shown.
    let mut events = session.events();
    let mapping = match session.mapping() {
        Some(mapping) => mapping,
        None => match events.next(LONG) {
            Heard::Event(Event::Mapping { mapping: Some(mapping) }) => mapping,
            other => panic!("{other:?}"),
        },
    };
    let external_addr = Some(Ipv4Addr::new(203, 0, 113, 7).into());
    let Mapping { until_s, .. } = mapping;
    let expected = Mapping { protocol: MappingProtocol::NatPmp, external_addr, external_port: 7000, until_s };
    assert_eq!(mapping, expected);
    assert!((1..=3600).contains(&until_s), "{until_s}");
    assert_eq!(session.mapping().map(|mapping| mapping.external_port), Some(7000));
    session.shutdown(LONG);
    let wanted: Vec<_> = wanted.try_iter().collect();
    assert_eq!(wanted, [3600, 3600, 0, 0], "both carriers, mapped and taken back");
    drop(events);
}

#[test]
fn who_wants_none_has_none() {
    let options = EngineOptions { listen: vec![(Ipv4Addr::LOCALHOST, 0).into()], ..EngineOptions::default() };
    let session = Session::start(&options).unwrap();
    assert_eq!(session.mapping(), None);
    session.shutdown(LONG);
}
