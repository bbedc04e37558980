//! A small UDP server for answers that are computed at once: the counterpart of [`crate::http::serve`].
//!
//! Owns its sockets and one thread, which reads what has come in batches, has the handler answer each, and sends the
//! answers. What datagrams mean, and who may be answered, is the handler's, which must not block. A datagram that can
//! not be sent at once is lost, as any may be: a server that waited for one client would let all wait.

use std::io;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, Socket, Type};

/// Datagrams read before they are answered: enough to share the cost of a lock, few enough to stay in a cache.
const BATCH: usize = 32;
/// Bytes of a datagram that are read. What no packet carries is no request; the rest of a longer one is cut off.
const DATAGRAM_BYTES: usize = 2048;
/// What the system may keep for us while we answer others: some ten thousand requests.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Pause after an error that is not of one datagram: long enough not to spin.
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// The token of the one who stops us; sockets have those from 0.
const STOP: Token = Token(usize::MAX);

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
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<thread::JoinHandle<()>>,
}

impl UdpServing {
    /// Where it listens, in the order asked for, with real ports.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Answers the batch in hand, and ends the thread.
    pub fn stop(mut self) {
        self.tell();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the thread itself.
            let _ = thread.join();
        }
    }

    fn tell(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // If this fails the poll has failed too, and the thread looks at the flag.
        let _ = self.waker.wake();
    }
}

impl Drop for UdpServing {
    fn drop(&mut self) {
        self.tell();
    }
}

/// Listens on all of `listen` and gives what comes to `handler`, which is called on the server's one thread.
///
/// A `[::]` also takes IPv4, unless an IPv4 address with the same port is listed.
///
/// # Errors
/// If an address can not be listened on, or no thread can be had.
pub fn serve_udp(
    listen: &[SocketAddr],
    mut handler: impl FnMut(&Arrivals, &mut Answers) + Send + 'static,
) -> io::Result<UdpServing> {
    let poll = Poll::new()?;
    let mut sockets = Vec::new();
    for (token, addr) in listen.iter().enumerate() {
        let mut socket = UdpSocket::from_std(bind(*addr, listen)?);
        poll.registry().register(&mut socket, Token(token), Interest::READABLE)?;
        sockets.push(socket);
    }
    let addrs = sockets.iter().map(UdpSocket::local_addr).collect::<io::Result<Vec<_>>>()?;
    let waker = Arc::new(Waker::new(poll.registry(), STOP)?);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = thread::Builder::new().name("udp-serve".into()).spawn(move || {
        let ready = vec![false; sockets.len()];
        let server = Server { poll, sockets, ready, arrivals: Arrivals::new(), answers: Answers::default() };
        server.run(&stopped, &mut handler);
    })?;
    Ok(UdpServing { addrs, stop, waker, thread: Some(thread) })
}

fn bind(addr: SocketAddr, all: &[SocketAddr]) -> io::Result<StdSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        let both = addr.ip().is_unspecified();
        let v4_apart = all.iter().any(|other| other.is_ipv4() && other.port() == addr.port());
        socket.set_only_v6(!both || v4_apart)?;
    }
    // A smaller buffer only loses more in a burst.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into()).map_err(|why| io::Error::new(why.kind(), format!("{addr}: {why}")))?;
    Ok(socket.into())
}

/// The thread's own.
struct Server {
    poll: Poll,
    sockets: Vec<UdpSocket>,
    /// Which sockets may have more: what is polled for tells of news once.
    ready: Vec<bool>,
    arrivals: Arrivals,
    answers: Answers,
}

impl Server {
    fn run(mut self, stopped: &AtomicBool, handler: &mut impl FnMut(&Arrivals, &mut Answers)) {
        let mut events = Events::with_capacity(self.sockets.len() + 1);
        while !stopped.load(Ordering::Relaxed) {
            let idle = !self.ready.contains(&true);
            if self.poll.poll(&mut events, (!idle).then_some(Duration::ZERO)).is_err() {
                // Interrupted, or worse: then not in a circle.
                thread::sleep(ERROR_PAUSE);
            }
            for event in events.iter().filter(|event| event.token() != STOP) {
                self.ready[event.token().0] = true;
            }
            // One batch a socket, so that a busy one does not keep the others waiting.
            for index in 0..self.sockets.len() {
                while self.ready[index] && !stopped.load(Ordering::Relaxed) {
                    self.ready[index] = self.receive(index);
                    if self.arrivals.from.is_empty() {
                        break;
                    }
                    self.answers.clear();
                    handler(&self.arrivals, &mut self.answers);
                    self.send(index);
                    if self.sockets.len() > 1 {
                        break;
                    }
                }
            }
        }
    }

    /// Fills the batch; false if there is no more for now.
    fn receive(&mut self, index: usize) -> bool {
        let Arrivals { buffers, from } = &mut self.arrivals;
        from.clear();
        for _ in 0..BATCH {
            match self.sockets[index].recv_from(&mut buffers[from.len()]) {
                Ok((len, sender)) => from.push((sender, len)),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return false,
                // On Windows a word about a datagram we sent: nobody listens there.
                Err(_) => {}
            }
        }
        if from.is_empty() {
            // Nothing but errors: not in a circle.
            thread::sleep(ERROR_PAUSE);
        }
        true
    }

    fn send(&mut self, index: usize) {
        for (number, bytes) in self.answers.iter() {
            if let Some((to, _)) = self.arrivals.from.get(number) {
                let _ = self.sockets[index].send_to(bytes, *to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_where_the_questions_came_from() {
        let listen = ["127.0.0.1:0", "[::1]:0"].map(|addr| addr.parse().unwrap());
        let listen = &listen[..if StdSocket::bind(listen[1]).is_ok() { 2 } else { 1 }];
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
            let socket = StdSocket::bind(SocketAddr::new(to.ip(), 0)).unwrap();
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
            (0..100).for_each(|_| drop(socket.send_to(b"x", to)));
            let mut buffer = [0; 64];
            (0..100).for_each(|_| assert!(socket.recv_from(&mut buffer).is_ok()));
        }
        let addr = serving.addrs()[0];
        assert!(serve_udp(&[addr], |_, _| {}).unwrap_err().to_string().starts_with(&addr.to_string()));
        serving.stop();
        assert!(serve_udp(&[addr], |_, _| {}).is_ok());
    }
}
