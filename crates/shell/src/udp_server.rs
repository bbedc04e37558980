//! A small UDP server for answers that are computed at once: the counterpart of [`crate::http::serve`].
//!
//! Owns its sockets and a thread for each, which reads what has come in batches, has the handler answer each, and sends
//! the answers. What datagrams mean, and who may be answered, is the handler's, which must not block. A datagram that can
//! not be sent at once is lost, as any may be: a server that waited for one client would let all wait.

#[cfg(target_os = "linux")]
mod many;
#[cfg(any(not(target_os = "linux"), test))]
mod one;

#[cfg(target_os = "linux")]
use many::{receive, send};
#[cfg(not(target_os = "linux"))]
use one::{receive, send};
use std::io;
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Datagrams read before they are answered: enough to share the cost of a lock, few enough to stay in a cache.
const BATCH: usize = 32;
/// Bytes of a datagram that are read. What no packet carries is no request; the rest of a longer one is cut off.
const DATAGRAM_BYTES: usize = 2048;
/// What the system may keep for us while we answer others: some ten thousand requests.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Pause after an error that is not of one datagram: long enough not to spin.
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// How long a wish to stop may go unnoticed where nothing ends the wait of a reader.
#[cfg(not(target_os = "linux"))]
const LOOK_UP_EVERY: Duration = Duration::from_secs(1);

/// Datagrams that have come.
pub struct Arrivals {
    buffers: Box<[[u8; DATAGRAM_BYTES]]>,
    /// Who sent them, as the system says it, and how long they are. Bound: [`BATCH`].
    from: Vec<(SocketAddr, usize)>,
}

/// Answers to one batch of [`Arrivals`].
#[derive(Default)]
pub struct Answers {
    bytes: Vec<u8>,
    /// To which arrival, and where it ends in `bytes`. Bound: [`BATCH`].
    ends: Vec<(usize, usize)>,
}

impl Arrivals {
    fn new() -> Arrivals {
        Arrivals {
            buffers: vec![[0; DATAGRAM_BYTES]; BATCH].into_boxed_slice(),
            from: Vec::with_capacity(BATCH),
        }
    }

    /// Each with its number and sender; an IPv4 address mapped into IPv6 is IPv4.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (usize, SocketAddr, &[u8])> {
        self.from.iter().zip(&self.buffers).enumerate().map(|(number, ((from, len), buffer))| {
            (number, SocketAddr::new(from.ip().to_canonical(), from.port()), &buffer[..*len])
        })
    }
}

impl Answers {
    /// Answers the arrival of that number with what `write` appends; with nothing if it appends nothing. Gives the
    /// length of the answer in bytes.
    pub fn answer(&mut self, number: usize, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let before = self.bytes.len();
        write(&mut self.bytes);
        let len = self.bytes.len() - before;
        if len > 0 {
            self.ends.push((number, self.bytes.len()));
        }
        len
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let starts = [0].into_iter().chain(self.ends.iter().map(|(_, end)| *end));
        self.ends.iter().zip(starts).map(|((number, end), start)| (*number, &self.bytes[start..*end]))
    }
}

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

    /// Answers the batches in hand, and ends the threads.
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
            // Linux says that the socket is not connected, and ends the wait of who reads from it. Others may do only the
            // first; there each wait ends by itself.
            let _ = SockRef::from(&**socket).shutdown(Shutdown::Read);
        }
    }
}

impl Drop for UdpServing {
    fn drop(&mut self) {
        self.tell();
    }
}

/// Listens on all of `listen` and gives what comes to `handler`, which is called on one thread for each of them.
///
/// A `[::]` also takes IPv4, unless an IPv4 address with the same port is listed.
///
/// # Errors
/// If an address can not be listened on, or no thread can be had.
pub fn serve_udp(
    listen: &[SocketAddr],
    handler: impl Fn(&Arrivals, &mut Answers) + Send + Sync + 'static,
) -> io::Result<UdpServing> {
    let sockets =
        listen.iter().map(|addr| bind(*addr, listen).map(Arc::new)).collect::<io::Result<Vec<_>>>()?;
    let mut serving = UdpServing {
        addrs: Vec::new(),
        sockets,
        stop: Arc::new(AtomicBool::new(false)),
        threads: Vec::new(),
    };
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
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        let both = addr.ip().is_unspecified();
        let v4_apart = all.iter().any(|other| other.is_ipv4() && other.port() == addr.port());
        socket.set_only_v6(!both || v4_apart)?;
    }
    // A smaller buffer only loses more in a burst.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    #[cfg(not(target_os = "linux"))]
    socket.set_read_timeout(Some(LOOK_UP_EVERY))?;
    socket.bind(&addr.into()).map_err(|why| io::Error::new(why.kind(), format!("{addr}: {why}")))?;
    Ok(socket.into())
}

/// One socket's thread. It waits in the very call that reads, which costs less than to be told and then to read.
fn attend(socket: &UdpSocket, stopped: &AtomicBool, handler: &impl Fn(&Arrivals, &mut Answers)) {
    let (mut arrivals, mut answers) = (Arrivals::new(), Answers::default());
    while !stopped.load(Ordering::Relaxed) {
        arrivals.from.clear();
        match receive(socket, &mut arrivals.buffers, &mut arrivals.from) {
            Ok(()) if stopped.load(Ordering::Relaxed) => return,
            Ok(()) => {}
            // The wait is over, or on Windows a word about a datagram we sent: nobody listens there.
            Err(why)
                if matches!(
                    why.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                        | io::ErrorKind::ConnectionReset
                ) =>
            {
                continue;
            }
            // Not in a circle.
            Err(_) => {
                thread::sleep(ERROR_PAUSE);
                continue;
            }
        }
        answers.clear();
        handler(&arrivals, &mut answers);
        let to = |number: usize| arrivals.from.get(number).map(|(to, _)| *to);
        send(socket, answers.iter().filter_map(|(number, bytes)| Some((to(number)?, bytes))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways into the system say the same.
    #[test]
    #[cfg(target_os = "linux")]
    fn one_by_one_and_many_at_once() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let local: SocketAddr = local.parse().unwrap();
            let Ok(server) = bind(local, &[local]) else { continue };
            let client = UdpSocket::bind(local).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let (to, there) = (server.local_addr().unwrap(), client.local_addr().unwrap());
            let lengths: Vec<usize> = (0..=BATCH).map(|number| number * 70).collect();
            let mut arrivals = Arrivals::new();
            for many_at_once in [true, false] {
                for len in &lengths {
                    client.send_to(&vec![7; *len], to).unwrap();
                }
                let mut read = Vec::new();
                while read.len() < lengths.len() {
                    let Arrivals { buffers, from } = &mut arrivals;
                    from.clear();
                    let receive = if many_at_once { many::receive } else { one::receive };
                    receive(&server, buffers, from).unwrap();
                    assert_eq!(from.len(), if many_at_once && read.is_empty() { BATCH } else { 1 });
                    read.extend(arrivals.iter().map(|(_, from, bytes)| (from, bytes.to_vec())));
                }
                let expected = lengths.iter().map(|len| (there, vec![7; (*len).min(DATAGRAM_BYTES)]));
                assert!(read.into_iter().eq(expected));
            }
            // Nobody can be sent anything at port 0: that one is lost, the others are not.
            let nowhere = SocketAddr::new(there.ip(), 0);
            let datagrams: [(SocketAddr, &[u8]); 4] =
                [(nowhere, b"a"), (there, b"b"), (nowhere, b"c"), (there, b"d")];
            many::send(&server, datagrams.into_iter());
            one::send(&server, datagrams.into_iter());
            for expected in [b"b", b"d", b"b", b"d"] {
                let mut buffer = [0; 8];
                assert_eq!(client.recv_from(&mut buffer).unwrap(), (1, to));
                assert_eq!(buffer[..1], *expected);
            }
        }
    }

    #[test]
    fn answers_go_where_the_questions_came_from() {
        let listen = ["127.0.0.1:0", "[::1]:0"].map(|addr| addr.parse().unwrap());
        let listen: &[SocketAddr] = &listen[..if UdpSocket::bind(listen[1]).is_ok() { 2 } else { 1 }];
        let serving = serve_udp(listen, |arrivals, answers| {
            for (number, from, bytes) in arrivals.iter().filter(|(_, _, bytes)| *bytes != b"silence") {
                assert_eq!(answers.answer(number, |_| {}), 0);
                answers.answer(number, |out| {
                    out.extend_from_slice(bytes);
                    out.extend_from_slice(from.to_string().as_bytes());
                });
            }
        })
        .unwrap();
        for to in serving.addrs() {
            let socket = UdpSocket::bind(SocketAddr::new(to.ip(), 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket.send_to(b"silence", to).unwrap();
            // More than a batch, and longer than is read.
            for round in 0..3 * BATCH {
                let question = vec![b'x'; round * 25 + 1];
                socket.send_to(&question, to).unwrap();
                let mut buffer = [0; 4096];
                let (len, from) = socket.recv_from(&mut buffer).unwrap();
                let expected = socket.local_addr().unwrap().to_string();
                let cut = question.len().min(DATAGRAM_BYTES);
                assert_eq!((from, len), (*to, cut + expected.len()));
                assert!(buffer[..len].ends_with(expected.as_bytes()));
            }
            for _ in 0..100 {
                socket.send_to(b"x", to).unwrap();
            }
            let mut buffer = [0; 64];
            (0..100).for_each(|_| assert!(socket.recv_from(&mut buffer).is_ok()));
        }
        let addr = serving.addrs()[0];
        assert!(serve_udp(&[addr], |_, _| {}).unwrap_err().to_string().starts_with(&addr.to_string()));
        let start = std::time::Instant::now();
        serving.stop();
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(serve_udp(&[addr], |_, _| {}).is_ok());
    }
}
