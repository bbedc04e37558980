//! The plainest HTTP tracker there is: compact answers, IPv4, nothing forgotten until `stopped`.
//!
//! Written apart from the product's tracker, so that neither side of an announce is its own judge; and able to tell
//! who has announced, so that no run waits by the clock.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Seconds after which peers ask again: short, so that those who come first learn of the later ones in time.
const INTERVAL_S: u32 = 5;
/// A request that is longer is none.
const REQUEST_BYTES: usize = 16 << 10;
/// A client that says nothing for so long is left.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who is in which swarm: info-hash, address, and whether it has everything.
type Book = BTreeMap<Vec<u8>, BTreeMap<SocketAddr, bool>>;

/// A running tracker. It runs as long as this program.
#[derive(Clone)]
pub struct Tracker {
    addr: SocketAddr,
    book: Arc<Mutex<Book>>,
}

impl Tracker {
    /// Starts one on a free port.
    pub fn start(ip: Ipv4Addr) -> Result<Tracker> {
        let listener = TcpListener::bind((ip, 0))?;
        let tracker = Tracker { addr: listener.local_addr()?, book: Arc::default() };
        let serving = tracker.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                // A client that misbehaves is its own problem; the run that waits for its announce says so.
                thread::spawn(move || serving.serve(stream).ok());
            }
        });
        Ok(tracker)
    }

    /// Its announce URL.
    pub fn url(&self) -> String {
        format!("http://{}/announce", self.addr)
    }

    /// Waits until somebody has announced a torrent under this address.
    pub fn wait_for(&self, peer: SocketAddr, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
            if book.values().any(|swarm| swarm.contains_key(&peer)) {
                return Ok(());
            }
            drop(book);
            thread::sleep(Duration::from_millis(20));
        }
        bail!("{peer} did not announce within {} s", limit.as_secs())
    }

    /// Forgets everybody: hosts are used again by the next run.
    pub fn forget(&self, peer: SocketAddr) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        for swarm in book.values_mut() {
            swarm.remove(&peer);
        }
    }

    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut part = [0; 2048];
            let read = stream.read(&mut part)?;
            if read == 0 || request.len() > REQUEST_BYTES {
                bail!("no request");
            }
            request.extend_from_slice(&part[..read]);
        }
        let text = String::from_utf8_lossy(&request);
        let query =
            text.split(' ').nth(1).and_then(|path| path.split_once('?')).map_or("", |(_, query)| query);
        let body = match stream.peer_addr()?.ip() {
            IpAddr::V4(ip) => self.answer(query, ip),
            IpAddr::V6(_) => b"d14:failure reason9:IPv4 onlye".to_vec(),
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        Ok(stream.write_all(&body)?)
    }

    fn answer(&self, query: &str, ip: Ipv4Addr) -> Vec<u8> {
        let value = |key| query.split('&').filter_map(|pair| pair.split_once('=')).find(|pair| pair.0 == key);
        let Some(hash) = value("info_hash").map(|pair| percent(pair.1)).filter(|hash| hash.len() == 20)
        else {
            return b"d14:failure reason12:no info_hashe".to_vec();
        };
        let Some(port) = value("port").and_then(|pair| pair.1.parse::<u16>().ok()) else {
            return b"d14:failure reason7:no porte".to_vec();
        };
        let own = SocketAddr::from((ip, port));
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let swarm = book.entry(hash).or_default();
        if value("event").is_some_and(|pair| pair.1 == "stopped") {
            swarm.remove(&own);
        } else {
            swarm.insert(own, value("left").is_some_and(|pair| pair.1 == "0"));
        }
        let peers: Vec<u8> = swarm.keys().filter(|peer| **peer != own).flat_map(compact).collect();
        let seeds = swarm.values().filter(|seed| **seed).count();
        let leeches = swarm.len() - seeds;
        let mut body = format!(
            "d8:completei{seeds}e10:incompletei{leeches}e8:intervali{INTERVAL_S}e5:peers{}:",
            peers.len()
        )
        .into_bytes();
        body.extend(peers);
        body.push(b'e');
        body
    }
}

fn compact(peer: &SocketAddr) -> Vec<u8> {
    match peer {
        SocketAddr::V4(peer) => [&peer.ip().octets()[..], &peer.port().to_be_bytes()].concat(),
        SocketAddr::V6(_) => Vec::new(),
    }
}

fn percent(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_hear_of_each_other_and_not_of_themselves() {
        let tracker = Tracker::start(Ipv4Addr::LOCALHOST).unwrap();
        let ask = |octet, rest: &str| {
            let query = format!("info_hash=%00{}&port=6881&{rest}", "x".repeat(19));
            String::from_utf8_lossy(&tracker.answer(&query, Ipv4Addr::new(10, 0, 0, octet))).into_owned()
        };
        assert_eq!(ask(1, "left=0"), "d8:completei1e10:incompletei0e8:intervali5e5:peers0:e");
        assert!(ask(2, "left=9").contains("5:peers6:\n\0\0\u{1}"));
        assert!(ask(2, "left=9&event=stopped").contains("10:incompletei0e"));
        assert!(tracker.answer("port=1", Ipv4Addr::LOCALHOST).starts_with(b"d14:failure"));
        tracker
            .wait_for("10.0.0.1:6881".parse().unwrap(), Duration::ZERO + Duration::from_millis(1))
            .unwrap();
        tracker.forget("10.0.0.1:6881".parse().unwrap());
        assert!(tracker.wait_for("10.0.0.1:6881".parse().unwrap(), Duration::from_millis(1)).is_err());
    }

    #[test]
    fn percent_signs() {
        assert_eq!(percent("a%2fb%zz%"), b"a/b%zz%");
    }
}
