//! Proxies that do as they are told.
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use piecemeal_transport::proxy::{Target, datagram};

use crate::common::PATIENCE;

/// A line of a script: what the proxy hears, and what it then says.
pub type Line = (&'static [u8], &'static [u8]);

/// A proxy that plays this script once for each connection, byte by byte if so told, and then, if it is to hang up, does.
pub fn proxy(script: &'static [Line], singly: bool, hangs_up: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            play(&mut stream, script, singly);
            if !hangs_up {
                kept.push(stream);
            }
        }
    });
    addr
}

/// Plays it on one connection.
pub fn play(stream: &mut TcpStream, script: &[Line], singly: bool) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for (hears, says) in script {
        let mut heard = vec![0; hears.len()];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, *hears, "{}", String::from_utf8_lossy(&heard));
        if singly {
            says.chunks(1).for_each(|byte| stream.write_all(byte).unwrap());
        } else {
            stream.write_all(says).unwrap();
        }
    }
}

/// A proxy that relays, by hand.
pub struct RelayingProxy {
    pub listener: TcpListener,
    pub socket: UdpSocket,
}

/// How a relay is asked for.
pub const ASSOCIATE: &[u8] = b"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00";

impl RelayingProxy {
    pub fn new() -> RelayingProxy {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        RelayingProxy { listener: TcpListener::bind("127.0.0.1:0").unwrap(), socket }
    }

    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next association, which ends with what is returned.
    pub fn associates(&self) -> TcpStream {
        let (mut stream, _) = self.listener.accept().unwrap();
        play(&mut stream, &[(b"\x05\x01\x00", b"\x05\x00"), (ASSOCIATE, b"")], false);
        // "At my own address".
        let port = self.socket.local_addr().unwrap().port().to_be_bytes();
        stream.write_all(&[b"\x05\x00\x00\x01\x00\x00\x00\x00", &port[..]].concat()).unwrap();
        stream
    }

    /// The next datagram of ours: to whom, what, and where from.
    pub fn hears(&self) -> (Target, Vec<u8>, SocketAddr) {
        let mut bytes = [0; 2000];
        let (len, from) = self.socket.recv_from(&mut bytes).unwrap();
        let (to, payload) = datagram::unwrap(&bytes[..len]).unwrap();
        (to, payload.to_vec(), from)
    }

    pub fn says(&self, us: SocketAddr, from: &str, payload: &[u8]) {
        let mut bytes = Vec::new();
        datagram::wrap(&Target::Addr(from.parse().unwrap()), payload, &mut bytes).unwrap();
        self.socket.send_to(&bytes, us).unwrap();
    }
}
