//! A small HTTP/1.1 server for answers that are computed at once and fit in memory.
//!
//! Owns its sockets, one thread with a single-threaded runtime, and the patience with clients that are slow, silent
//! or many. Routes and answers are the handler's, which is called on that one thread and must not block. Bodies of
//! requests are not read.
//!
//! Slow clients can not keep good ones out: a head must be there in time, a write must make progress, and when all
//! places are taken the oldest connection goes, since a client that waits has asked within its first round trip.

use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Sleep};

use crate::net::servers;

/// How long answers on their way may take once the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// Pause when the system gives no socket (out of descriptors): long enough not to spin, short enough to be noticed by
/// nobody.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Sockets accepted by the listeners and not yet seen by the loop, per server.
const ARRIVALS_MAX: usize = 64;
/// Header lines of one request; browsers send about 20.
const HEADERS_MAX: usize = 64;
/// Descriptors left to the rest of the process when connections are limited by what the system allows.
#[cfg(unix)]
const DESCRIPTORS_SPARED: u64 = 128;

/// What one request asks.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The other end; an IPv4 address mapped into IPv6 is IPv4.
    pub from: SocketAddr,
    /// `GET`, `HEAD`, ...
    pub method: &'a str,
    /// As it came: nothing is decoded.
    pub path_and_query: &'a str,
    headers: &'a hyper::HeaderMap,
}

impl<'a> Asked<'a> {
    /// The path, as it came.
    pub fn path(&self) -> &'a str {
        self.path_and_query.split_once('?').map_or(self.path_and_query, |(path, _)| path)
    }

    /// What follows the first `?`; empty if nothing does.
    pub fn query(&self) -> &'a str {
        self.path_and_query.split_once('?').map_or("", |(_, query)| query)
    }

    /// The first header of that name, in any case, if it is readable text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What is sent back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// 200, 404, ...
    pub status: u16,
    /// `text/plain`, ...
    pub content_type: &'static str,
    /// The whole body.
    pub body: Vec<u8>,
}

/// How much the server spends on strangers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServeLimits {
    /// Connections at once; also kept below what the system allows the process to open.
    pub connections: usize,
    /// Connections at once from one IPv4 address or one IPv6 /64. A proxy in front of the server needs many.
    pub connections_per_host: usize,
    /// From when a connection is ready for a request to when its head is complete. So it also ends idle ones.
    pub head_timeout: Duration,
    /// How long a client may refuse to take any byte of its answer.
    pub stall_timeout: Duration,
    /// Bytes of a request's head; at least 8192, which the parser needs.
    pub head_bytes: usize,
}

impl Default for ServeLimits {
    fn default() -> ServeLimits {
        ServeLimits {
            connections: 10_000,
            connections_per_host: 256,
            head_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(10),
            head_bytes: 16 << 10,
        }
    }
}

/// A running server. Dropping it stops it too, without waiting.
#[derive(Debug)]
pub struct Serving {
    addrs: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: thread::JoinHandle<()>,
}

impl Serving {
    /// Where it listens, in the order asked for, with real ports.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Takes no more requests, sends the answers that are on their way (for at most 5 s), and ends the thread.
    pub fn stop(self) {
        self.stop.send_replace(true);
        // A panic there has been reported by the thread itself.
        let _ = self.thread.join();
    }
}

/// Listens on all of `listen` and answers each request with what `handler` makes of it.
///
/// A `[::]` also takes IPv4, unless an IPv4 address with the same port is listed.
///
/// # Errors
/// If an address can not be listened on, or no thread can be had.
pub fn serve(
    listen: Vec<SocketAddr>,
    handler: impl Fn(&Asked<'_>) -> Answer + Send + Sync + 'static,
    limits: ServeLimits,
) -> io::Result<Serving> {
    let sockets = listen.iter().map(|addr| servers::tcp(*addr, &listen)).collect::<io::Result<Vec<_>>>()?;
    let addrs = sockets.iter().map(std::net::TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = watch::channel(false);
    let handler: Arc<Handler> = Arc::new(handler);
    let thread = thread::Builder::new().name("http-serve".into()).spawn(move || {
        runtime.block_on(House::new(handler, limits, stopped).run(sockets));
    })?;
    Ok(Serving { addrs, stop, thread })
}

type Handler = dyn Fn(&Asked<'_>) -> Answer + Send + Sync;

/// The accepting loop and the list of all connections.
struct House {
    handler: Arc<Handler>,
    limits: ServeLimits,
    stopped: watch::Receiver<bool>,
    guests: JoinSet<u64>,
    /// By arrival; bound: `limits.connections`.
    seats: BTreeMap<u64, Seat>,
    /// How many seats each host has; no zeros.
    hosts: BTreeMap<IpAddr, usize>,
    arrivals: u64,
}

struct Seat {
    host: IpAddr,
    task: AbortHandle,
}

impl House {
    fn new(handler: Arc<Handler>, mut limits: ServeLimits, stopped: watch::Receiver<bool>) -> House {
        limits.connections = limits.connections.min(descriptors()).max(1);
        limits.head_bytes = limits.head_bytes.max(8192);
        House {
            handler,
            limits,
            stopped,
            guests: JoinSet::new(),
            seats: BTreeMap::new(),
            hosts: BTreeMap::new(),
            arrivals: 0,
        }
    }

    async fn run(mut self, sockets: Vec<std::net::TcpListener>) {
        let (door, mut arrivals) = mpsc::channel(ARRIVALS_MAX);
        let mut doors = JoinSet::new();
        for socket in sockets {
            match TcpListener::from_std(socket) {
                Ok(listener) => drop(doors.spawn(accept(listener, door.clone()))),
                Err(why) => debug_assert!(false, "a bound socket was refused: {why}"),
            }
        }
        let mut stopped = self.stopped.clone();
        loop {
            tokio::select! {
                // An error means that the owner dropped its end: the same.
                _ = stopped.changed() => break,
                Some((stream, from)) = arrivals.recv() => self.seat(stream, from),
                Some(left) = self.guests.join_next() => self.left(left),
            }
        }
        doors.abort_all();
        drop(doors);
        let farewell = async { while self.guests.join_next().await.is_some() {} };
        // Those who take longer are cut off as the set is dropped.
        let _ = tokio::time::timeout(GRACE, farewell).await;
    }

    fn seat(&mut self, stream: TcpStream, mut from: SocketAddr) {
        from.set_ip(from.ip().to_canonical());
        let host = host(from.ip());
        if self.hosts.get(&host).is_some_and(|count| *count >= self.limits.connections_per_host) {
            return;
        }
        if self.seats.len() >= self.limits.connections
            && let Some((_, oldest)) = self.seats.pop_first()
        {
            oldest.task.abort();
            self.release(oldest.host);
        }
        let seat = self.arrivals;
        self.arrivals += 1;
        let guest = attend(stream, from, self.handler.clone(), self.limits, self.stopped.clone());
        let task = self.guests.spawn(async move {
            guest.await;
            seat
        });
        *self.hosts.entry(host).or_insert(0) += 1;
        self.seats.insert(seat, Seat { host, task });
    }

    fn left(&mut self, left: Result<u64, tokio::task::JoinError>) {
        let seat = match left {
            Ok(seat) => Some(seat),
            // Aborted: its seat is gone already. Panicked in the handler: look for it.
            Err(why) => self.seats.iter().find(|(_, seat)| seat.task.id() == why.id()).map(|(seat, _)| *seat),
        };
        if let Some(seat) = seat.and_then(|seat| self.seats.remove(&seat)) {
            self.release(seat.host);
        }
    }

    fn release(&mut self, host: IpAddr) {
        if let Some(count) = self.hosts.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(&host);
            }
        }
    }
}

async fn accept(listener: TcpListener, door: mpsc::Sender<(TcpStream, SocketAddr)>) {
    loop {
        match listener.accept().await {
            Ok(arrival) => {
                if door.send(arrival).await.is_err() {
                    return;
                }
            }
            // The client's own trouble, not ours.
            Err(why)
                if matches!(
                    why.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One connection, until it ends or misbehaves.
async fn attend(
    stream: TcpStream,
    from: SocketAddr,
    handler: Arc<Handler>,
    limits: ServeLimits,
    mut stopped: watch::Receiver<bool>,
) {
    // Answers leave in one write; without this the second on a connection waits for the first's acknowledgement.
    let _ = stream.set_nodelay(true);
    let stream = TokioIo::new(Impatient { stream, patience: limits.stall_timeout, alarm: None });
    let service = service_fn(move |request: Request<Incoming>| {
        std::future::ready(Ok::<_, Infallible>(respond(&request, from, &*handler)))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head_bytes)
        .max_headers(HEADERS_MAX)
        .serve_connection(stream, service);
    let mut connection = std::pin::pin!(connection);
    let told_to_stop = tokio::select! {
        _ = connection.as_mut() => false,
        _ = stopped.changed() => true,
    };
    if told_to_stop {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

fn respond(
    request: &Request<Incoming>,
    from: SocketAddr,
    handler: &Handler,
) -> Response<http_body_util::Full<Bytes>> {
    let answer = handler(&Asked {
        from,
        method: request.method().as_str(),
        path_and_query: request.uri().path_and_query().map_or("/", |text| text.as_str()),
        headers: request.headers(),
    });
    let mut response = Response::new(http_body_util::Full::new(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(content_type) = HeaderValue::from_str(answer.content_type) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

/// Whom connections are counted for: what one subscriber can be assumed to hold.
fn host(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(unix)]
fn descriptors() -> usize {
    let soft = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    soft.map_or(usize::MAX, |soft| {
        usize::try_from(soft.saturating_sub(DESCRIPTORS_SPARED)).unwrap_or(usize::MAX)
    })
}

#[cfg(not(unix))]
fn descriptors() -> usize {
    usize::MAX
}

/// A stream whose writes fail when none of them gets anywhere for a while.
struct Impatient {
    stream: TcpStream,
    patience: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn watch<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.alarm = None;
            return outcome;
        }
        let patience = self.patience;
        let alarm =
            self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        alarm.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
