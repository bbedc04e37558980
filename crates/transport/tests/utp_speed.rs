//! What uTP costs beside system calls: 256 MiB between two stacks in memory, and how long either took.
//!
//! `cargo test --release -p piecemeal-transport --test utp_speed -- --ignored --nocapture`
#![allow(clippy::disallowed_types, reason = "it measures time")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use piecemeal_metainfo::Time;
use piecemeal_transport::utp::{Settings, Utp, UtpId};

/// Bytes that are carried.
const BYTES: u64 = 256 << 20;

/// Bytes written at once.
const CHUNK: usize = 64 << 10;

/// Of the path's time there and back: what loopback takes, with the turns of two loops.
const TURN: Duration = Duration::from_micros(100);

#[test]
#[ignore = "prints times, and asserts nothing"]
fn what_a_packet_costs() {
    for packet in [1472, 8972] {
        let settings = Settings { most_packet_bytes_v4: packet, ..Settings::default() };
        let ends = [1, 2].map(|last| (Utp::new(settings, [last; 32]), addr(last)));
        carry(ends, packet);
    }
}

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], 6881))
}

fn carry([(mut from, _), (mut to, to_addr)]: [(Utp, SocketAddr); 2], packet: usize) {
    let id = from.connect(to_addr).expect("there is room");
    let mut reader = None;
    let (chunk, mut written, mut read) = (vec![7; CHUNK], 0, 0);
    let (mut now, mut sending, mut receiving) = (Time::ZERO, Duration::ZERO, Duration::ZERO);
    let (mut wires, mut batches) = ([Wire::default(), Wire::default()], 0_u64);
    while read < BYTES {
        now = now + TURN / 2;
        let start = Instant::now();
        wires[1].deliver(&mut from, now, to_addr);
        while written < BYTES {
            let took = from.write(now, id, &chunk[..CHUNK.min((BYTES - written) as usize)]);
            written += took as u64;
            if took < CHUNK {
                break;
            }
        }
        batches += wires[0].take(&mut from, now);
        while from.poll_event().is_some() {}
        sending += start.elapsed();
        now = now + TURN / 2;
        let start = Instant::now();
        wires[0].deliver(&mut to, now, addr(1));
        read += take(&mut to, now, &mut reader);
        wires[1].take(&mut to, now);
        receiving += start.elapsed();
    }
    let (sent, heard) = (from.counters(), to.counters());
    let each = |time: Duration| time.as_nanos() / u128::from(sent.packets_out);
    println!(
        "{packet} bytes: {} packets in {batches} batches, {} acknowledgements, {} again; sending {} ns each ({:.2} s/GiB), \
         receiving {} ns each ({:.2} s/GiB)",
        sent.packets_out,
        heard.packets_out,
        sent.again_out,
        each(sending),
        sending.as_secs_f64() * 4.0,
        each(receiving),
        receiving.as_secs_f64() * 4.0,
    );
}

fn take(to: &mut Utp, now: Time, reader: &mut Option<UtpId>) -> u64 {
    while let Some(event) = to.poll_event() {
        if let piecemeal_transport::utp::Event::Accepted { id, .. } = event {
            *reader = Some(id);
        }
    }
    let Some(id) = *reader else { return 0 };
    // The copy that a reader makes.
    let bytes = to.readable(id).to_vec();
    to.consumed(now, id, bytes.len());
    std::hint::black_box(&bytes).len() as u64
}

/// Batches on their way, as the system would carry them, and their buffers to be used again.
#[derive(Default)]
struct Wire {
    full: Vec<(Vec<u8>, usize)>,
    empty: Vec<Vec<u8>>,
}

impl Wire {
    fn take(&mut self, utp: &mut Utp, now: Time) -> u64 {
        let before = self.full.len();
        utp.heartbeat(now);
        loop {
            let mut buf = self.empty.pop().unwrap_or_default();
            let Some(transmit) = utp.poll_transmit(now, &mut buf) else {
                self.empty.push(buf);
                return (self.full.len() - before) as u64;
            };
            let segment = transmit.segment.unwrap_or(buf.len());
            self.full.push((buf, segment));
        }
    }

    fn deliver(&mut self, utp: &mut Utp, now: Time, from: SocketAddr) {
        for (buf, segment) in self.full.drain(..) {
            for datagram in buf.chunks(segment) {
                utp.on_datagram(now, from, datagram);
            }
            self.empty.push(buf);
        }
    }
}
