//! A small UDP server for answers that are computed at once: the counterpart of [`crate::http::serve`].
//!
//! Owns its sockets and a thread for each, which waits for a datagram, has the handler answer it, and sends the answer.
//! What datagrams mean, and who may be answered, is the handler's, which must not block. An answer that can not be sent
//! at once is lost, as any datagram may be: a server that waited for one client would let all wait.
//!
//! One call into the system for each datagram, none to be told that there is one. Batches (recvmmsg, sendmmsg) were
//! tried and cost the same CPU for each announce of a tracker, and more with a pause that lets them fill: what is dear is
//! the way through the kernel's network (`bench/tracker.md`).

use std::io;
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::net::{RecvFlags, SocketAddrAny, recvfrom};
use socket2::SockRef;

use crate::net::servers;

/// Bytes of a datagram that are read. What no packet carries is no request; the rest of a longer one is cut off.
const DATAGRAM_BYTES: usize = 2048;
/// What the system may keep for us while we answer others: some thousand requests.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Pause after an error that is not of one datagram: long enough not to spin.
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// How long a wish to stop may go unnoticed where nothing ends the wait of a reader.
const LOOK_UP_EVERY: Duration = Duration::from_secs(1);

/// A running server. Dropping it stops it too, without waiting.
#[derive(Debug)]
pub struct UdpServing {
    addrs: Vec<SocketAddr>,
    sockets: Vec<Arc<UdpSocket>>,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl UdpServing {
    /// Where it listens, in the order asked for, with real ports.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Sends the answers in hand, and ends the threads.
    pub fn stop(mut self) {
        self.tell();
        for thread in self.threads.drain(..) {
            // A panic there has been reported by the thread itself.
            let _ = thread.join();
        }
    }

    fn tell(&self) {
        self.stop.store(true, Ordering::Relaxed);
        for socket in &self.sockets {
            // Linux says that the socket is not connected, and ends the wait of who reads from it. Others may do only
            // the first; there each wait ends by itself.
            let _ = SockRef::from(&**socket).shutdown(Shutdown::Read);
        }
    }
}

impl Drop for UdpServing {
    fn drop(&mut self) {
        self.tell();
    }
}

/// Listens on all of `listen` and gives what comes to `handler`: who sent it (an IPv4 address mapped into IPv6 is IPv4),
/// its bytes (the first 2048), and where to append the answer. Nothing appended is no answer. It is called on one
/// thread for each address.
///
/// A `[::]` also takes IPv4, unless an IPv4 address with the same port is listed.
///
/// # Errors
/// If an address can not be listened on, or no thread can be had.
pub fn serve_udp(
    listen: &[SocketAddr],
    handler: impl Fn(SocketAddr, &[u8], &mut Vec<u8>) + Send + Sync + 'static,
) -> io::Result<UdpServing> {
    let sockets =
        listen.iter().map(|addr| bind(*addr, listen).map(Arc::new)).collect::<io::Result<Vec<_>>>()?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut serving = UdpServing { addrs: Vec::new(), sockets, stop, threads: Vec::new() };
    let handler = Arc::new(handler);
    for socket in &serving.sockets {
        serving.addrs.push(socket.local_addr()?);
        let (socket, stopped, handler) = (socket.clone(), serving.stop.clone(), handler.clone());
        let name = thread::Builder::new().name("udp-serve".into());
        serving.threads.push(name.spawn(move || attend(&socket, &stopped, &*handler))?);
    }
    Ok(serving)
}

fn bind(addr: SocketAddr, all: &[SocketAddr]) -> io::Result<UdpSocket> {
    let socket = servers::udp(addr, all, RECEIVE_BUFFER_BYTES)?;
    if !cfg!(target_os = "linux") {
        socket.set_read_timeout(Some(LOOK_UP_EVERY))?;
    }
    Ok(socket)
}

/// One socket's thread.
fn attend(socket: &UdpSocket, stopped: &AtomicBool, handler: &impl Fn(SocketAddr, &[u8], &mut Vec<u8>)) {
    use io::ErrorKind::{ConnectionReset, Interrupted, TimedOut, WouldBlock};
    let mut buffer = [0; DATAGRAM_BYTES];
    let mut answer = Vec::new();
    loop {
        // Not by the standard library, which panics at the datagram from nobody that ends the wait.
        let arrived = recvfrom(socket, &mut buffer, RecvFlags::empty());
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        let from = |from: Option<SocketAddrAny>| from.and_then(|from| SocketAddr::try_from(from).ok());
        match arrived.map_err(io::Error::from).map(|(len, _, addr)| (len, from(addr))) {
            Ok((_, None)) => {}
            Ok((len, Some(from))) => {
                answer.clear();
                let canonical = SocketAddr::new(from.ip().to_canonical(), from.port());
                handler(canonical, &buffer[..len], &mut answer);
                if !answer.is_empty() {
                    let _ = socket.send_to(&answer, from);
                }
            }
            // The wait is over; or, on Windows, a word about a datagram we sent: nobody listens there.
            Err(why) if matches!(why.kind(), WouldBlock | TimedOut | Interrupted | ConnectionReset) => {}
            // Not in a circle.
            Err(_) => thread::sleep(ERROR_PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_where_the_questions_came_from() {
        let listen = ["127.0.0.1:0", "[::1]:0"].map(|addr| addr.parse().unwrap());
        let listen: &[SocketAddr] = &listen[..if UdpSocket::bind(listen[1]).is_ok() { 2 } else { 1 }];
        let serving = serve_udp(listen, |from, bytes, answer| {
            if bytes != b"silence" {
                answer.extend_from_slice(bytes);
                answer.extend_from_slice(from.to_string().as_bytes());
            }
        })
        .unwrap();
        for to in serving.addrs() {
            let socket = UdpSocket::bind(SocketAddr::new(to.ip(), 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let expected = socket.local_addr().unwrap().to_string();
            socket.send_to(b"silence", to).unwrap();
            for len in [0, 1, 1400, DATAGRAM_BYTES - 1, DATAGRAM_BYTES, DATAGRAM_BYTES + 1, 9000] {
                socket.send_to(&vec![b'x'; len], to).unwrap();
                let mut buffer = [0; 4096];
                let (answered, from) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!((from, answered), (*to, len.min(DATAGRAM_BYTES) + expected.len()));
                assert!(buffer[..answered].ends_with(expected.as_bytes()));
            }
            for _ in 0..100 {
                socket.send_to(b"x", to).unwrap();
            }
            let mut buffer = [0; 64];
            (0..100).for_each(|_| assert!(socket.recv_from(&mut buffer).is_ok()));
        }
        let addr = serving.addrs()[0];
        assert!(serve_udp(&[addr], |_, _, _| {}).unwrap_err().to_string().starts_with(&addr.to_string()));
        let start = std::time::Instant::now();
        serving.stop();
        assert!(start.elapsed() < 5 * LOOK_UP_EVERY);
        assert!(serve_udp(&[addr], |_, _, _| {}).is_ok());
    }

    #[test]
    fn a_thread_that_heard_something_ends_without_a_panic() {
        for _ in 0..20 {
            let mut serving =
                serve_udp(&["127.0.0.1:0".parse().unwrap()], |_, _, answer| answer.push(1)).unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket.send_to(b"x", serving.addrs()[0]).unwrap();
            assert_eq!(socket.recv(&mut [0; 9]).unwrap(), 1);
            serving.tell();
            assert!(serving.threads.drain(..).all(|thread| thread.join().is_ok()));
        }
    }
}
