//! The one who opens sockets.
//!
//! Owns the way from a [`Policy`] to a socket that obeys it: tied to the interface, bound to the address, of an allowed
//! family, marked with the code point. What is off by the policy is refused here, so that forgetting to ask first does
//! not leak. Options that only make a socket good at its work are set by the callers in this module's neighbours.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream, UdpSocket};
use piecemeal_discovery::filter::Gate;
use socket2::{Domain, Protocol, Socket, Type};

use super::groups::Group;
use super::interface::{Changes, Seen, Watched};
use super::names;
use super::policy::{Policy, ProxyKind, Traffic, Way};

/// What the system may keep for us between two turns, as far as it lets us have that: a window of a fast uTP peer.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Connections the system keeps for us until we accept them; it cuts this to its own bound. Who finds no place is
/// passed over, and calls again after 1, 3 and 7 s: too late for a good peer in a crowd of bad ones.
pub(crate) const BACKLOG: i32 = 4096;

/// A proxy whose name could not be looked up is looked for again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Opens the sockets of one engine or one errand, all by the same policy. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dialer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    policy: Policy,
    interface: Option<Watched>,
    /// Sockets cannot be tied to the interface itself, only to its addresses.
    by_address: bool,
    /// Where the proxy is.
    proxy: Mutex<Place>,
    /// Who may be talked to where a torrent leads us. The engine, which dials peers, has its own of it.
    gate: Mutex<Gate>,
}

/// What is known of where the proxy is.
#[derive(Debug)]
struct Place {
    found: Result<SocketAddr, String>,
    /// When that was found out, or began to be.
    since: Instant,
}

impl Dialer {
    /// By this policy. Looks whether its interface is there, and up the name of its proxy, which may take some seconds.
    pub fn new(policy: Policy) -> Dialer {
        let by_address = policy.interface.is_some() && !can_tie();
        Dialer::tied_by(policy, by_address)
    }

    /// The same, where sockets can be tied to addresses only, or to the interface itself.
    pub(super) fn tied_by(policy: Policy, by_address: bool) -> Dialer {
        let interface = policy.interface.as_deref().map(Watched::new);
        let proxy = Mutex::new(Place { found: Err("there is no proxy".to_owned()), since: Instant::now() });
        let dialer = Dialer(Arc::new(Inner { policy, interface, by_address, proxy, gate: Mutex::default() }));
        dialer.find_proxy();
        dialer
    }

    /// What it obeys.
    pub fn policy(&self) -> &Policy {
        &self.0.policy
    }

    /// Which way a kind of traffic takes.
    pub fn way(&self, traffic: Traffic) -> Way {
        self.0.policy.way(traffic)
    }

    /// Who may be talked to from now on, where a torrent leads us: trackers are judged by it. What a user names is not.
    pub fn set_gate(&self, gate: Gate) {
        *self.0.gate.lock().unwrap_or_else(PoisonError::into_inner) = gate;
    }

    /// See [`Dialer::set_gate`].
    pub(crate) fn gate(&self) -> Gate {
        self.0.gate.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The interface as it was seen last; `None` if it is away, or if the policy names none.
    pub fn interface(&self) -> Option<Seen> {
        self.0.interface.as_ref()?.seen()
    }

    /// Why nothing can be sent at present; `None`: nothing stands in the way.
    pub fn away(&self) -> Option<String> {
        let interface = self.0.interface.as_ref()?;
        interface.seen().is_none().then(|| format!("interface {} is away", interface.name()))
    }

    /// Another number than before means that what was opened then is of no use any more.
    pub(crate) fn era(&self) -> u64 {
        self.0.interface.as_ref().map_or(0, Watched::era)
    }

    /// Whether sockets are tied to the addresses of the interface only, which the system may not keep from leaving by
    /// another one.
    pub fn ties_by_address(&self) -> bool {
        self.0.by_address
    }

    /// Where the proxy is. If its name could not be looked up, that is tried again now and then, on a thread of its own.
    ///
    /// # Errors
    /// The policy names none, or its host's name could not be looked up yet.
    pub fn proxy(&self) -> io::Result<SocketAddr> {
        let mut place = self.place();
        let Err(why) = &place.found else { return place.found.clone().map_err(io::Error::other) };
        let why = io::Error::new(io::ErrorKind::HostUnreachable, why.clone());
        if self.policy().proxy.is_some() && self.away().is_none() && place.since.elapsed() >= LOOK_AGAIN {
            place.since = Instant::now();
            let again = self.clone();
            // Without a thread it is tried again later.
            let _ =
                std::thread::Builder::new().name("piecemeal-names".into()).spawn(move || again.find_proxy());
        }
        Err(why)
    }

    /// Looks up where the proxy is. Blocks.
    fn find_proxy(&self) {
        let Some(proxy) = &self.policy().proxy else { return };
        let found = names::look_up(self, &proxy.host)
            .map(|all| all.into_iter().find(|ip| self.policy().speaks(ip.is_ipv4())));
        let found = match found {
            Ok(Some(ip)) => Ok(SocketAddr::new(ip, proxy.port)),
            Ok(None) => Err(format!("the proxy {} has no address that may be used", proxy.host)),
            Err(why) => Err(format!("the proxy {}: {why}", proxy.host)),
        };
        self.place().found = found;
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.0.proxy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `changed` on a thread of its own when the interface goes, comes, or is made anew; not at all where the
    /// policy names none. It ends with the last clone of this, some seconds later.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn watch(&self, changed: impl Fn() + Send + 'static) -> io::Result<()> {
        if self.0.interface.is_none() {
            return Ok(());
        }
        let inner: Weak<Inner> = Arc::downgrade(&self.0);
        // Before the first look, so that no change falls between.
        let changes = Changes::new();
        let watch = move || {
            while let Some(inner) = inner.upgrade() {
                if inner.interface.as_ref().is_some_and(|interface| interface.look(inner.by_address)) {
                    changed();
                }
                drop(inner);
                changes.wait();
            }
        };
        std::thread::Builder::new().name("piecemeal-net".into()).spawn(watch).map(drop)
    }

    /// Begins to connect straight to `to`; writable means that it ended, well or badly.
    ///
    /// # Errors
    /// The policy has another way or none for this traffic or this family, the interface is away, or the system refuses.
    pub fn dial(&self, traffic: Traffic, to: SocketAddr) -> io::Result<TcpStream> {
        self.must_be_direct(&[traffic])?;
        self.connect(to)
    }

    /// Begins to connect to the proxy.
    ///
    /// # Errors
    /// There is none or its name is not known, or as of [`Dialer::dial`].
    pub fn dial_proxy(&self) -> io::Result<TcpStream> {
        self.connect(self.proxy()?)
    }

    /// Listens on `addr` alone, for peers.
    ///
    /// # Errors
    /// As of [`Dialer::dial`], or the address cannot be had.
    pub fn listen(&self, addr: SocketAddr) -> io::Result<TcpListener> {
        self.must_be_direct(&[Traffic::Incoming])?;
        let socket = self.socket(addr.is_ipv4(), Type::STREAM, Protocol::TCP)?;
        // A restart need not wait for connections of the last run to time out.
        socket.set_reuse_address(true)?;
        socket.bind(&self.bound(addr)?.into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from_std(socket.into()))
    }

    /// A socket for datagrams on `addr` alone.
    ///
    /// # Errors
    /// None of `traffic` goes straight, or as of [`Dialer::listen`].
    pub fn datagrams(&self, traffic: &[Traffic], addr: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.bound_datagrams(traffic, addr)?;
        // A smaller buffer only loses more in a burst.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        Ok(UdpSocket::from_std(socket.into()))
    }

    /// A socket for datagrams to and from the proxy alone, on `addr`; who sends by it sees to that.
    ///
    /// # Errors
    /// There is no proxy, or as of [`Dialer::dial`].
    pub(crate) fn relayed(&self, addr: SocketAddr) -> io::Result<UdpSocket> {
        self.proxy()?;
        let socket = self.socket(addr.is_ipv4(), Type::DGRAM, Protocol::UDP)?;
        socket.bind(&self.bound(addr)?.into())?;
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        Ok(UdpSocket::from_std(socket.into()))
    }

    /// Joins a group of the local network by the interfaces of `listen`.
    ///
    /// # Errors
    /// As of [`Dialer::dial`], or the group cannot be joined by any of them.
    pub(crate) fn join(&self, group: SocketAddr, listen: &[SocketAddr]) -> io::Result<Group> {
        self.must_be_direct(&[Traffic::Lsd])?;
        let socket = self.socket(group.is_ipv4(), Type::DGRAM, Protocol::UDP)?;
        Group::join(socket, group, listen, self.0.policy.interface.as_deref())
    }

    /// The addresses that a host stands for, looked up the way its traffic goes. Blocks for as long as name servers
    /// take, within some seconds.
    ///
    /// # Errors
    /// The traffic goes by the proxy, which looks up names itself, or not at all; or the name is not known.
    pub fn resolve(&self, traffic: Traffic, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        match self.way(traffic) {
            Way::Direct => names::look_up(self, host),
            Way::Proxy => Err(refused("names of what goes by the proxy are not looked up here")),
            Way::Off(why) => Err(refused(why)),
        }
    }

    /// The same for `HOST:PORT`.
    ///
    /// # Errors
    /// As of [`Dialer::resolve`], or there is no port.
    pub fn resolve_with_port(&self, traffic: Traffic, place: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(addr) = place.parse() {
            return Ok(vec![addr]);
        }
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "not HOST:PORT");
        let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        Ok(self.resolve(traffic, host)?.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// Puts the policy into an HTTP client that goes by addresses of one family or of both. No environment variable
    /// has a say. Which names may be looked up is [`Dialer::resolve`]'s.
    ///
    /// # Errors
    /// The traffic or the families are off, or the interface is away.
    pub(crate) fn http(
        &self,
        builder: reqwest::ClientBuilder,
        traffic: Traffic,
        families: [bool; 2],
    ) -> io::Result<reqwest::ClientBuilder> {
        let mut builder = builder.no_proxy();
        if let Some(why) = self.away() {
            return Err(unreachable(why));
        }
        let families = match self.way(traffic) {
            Way::Off(why) => return Err(refused(why)),
            Way::Proxy => {
                builder = builder.proxy(self.http_proxy()?);
                let four = self.proxy()?.is_ipv4();
                [four, !four]
            }
            Way::Direct => families,
        };
        if let Some(name) = self.policy().interface.as_deref().filter(|_| !self.0.by_address) {
            builder = tied(builder, name);
        }
        // The library takes one address; see `http_families`.
        let wanted = [true, false].into_iter().zip(families).find(|(_, wanted)| *wanted);
        let (ipv4, _) = wanted.ok_or_else(|| refused("that family is off"))?;
        if let Some(ip) = self.source(ipv4)? {
            builder = builder.local_address(ip);
        }
        Ok(builder)
    }

    /// Families that an HTTP client may use, of those wanted: IPv4, IPv6. Where its sockets are bound to an address, one
    /// family alone: a client takes one address, and would leave the other family unbound.
    pub(crate) fn http_families(&self, wanted: [bool; 2]) -> [bool; 2] {
        let [v4, v6] = [true, false].map(|v4| self.policy().speaks(v4) && wanted[usize::from(!v4)]);
        let named = self.0.by_address || self.policy().bind != [None; 2];
        [v4, v6 && !(v4 && named)]
    }

    fn http_proxy(&self) -> io::Result<reqwest::Proxy> {
        let proxy = self.policy().proxy.as_ref().ok_or_else(|| refused("there is no proxy"))?;
        // The address that was found: the library must not look up the name once more by other ways.
        let addr = self.proxy()?;
        let scheme = match proxy.kind {
            ProxyKind::Socks5 => "socks5h",
            ProxyKind::Http => "http",
        };
        let made = reqwest::Proxy::all(format!("{scheme}://{addr}")).map_err(io::Error::other)?;
        Ok(match &proxy.credentials {
            Some((name, password)) => made.basic_auth(name, password),
            None => made,
        })
    }

    fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(to.is_ipv4(), Type::STREAM, Protocol::TCP)?;
        if let Some(ip) = self.source(to.is_ipv4())? {
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(why) if is_under_way(&why) => {}
            Err(why) => return Err(why),
        }
        Ok(TcpStream::from_std(socket.into()))
    }

    fn bound_datagrams(&self, traffic: &[Traffic], addr: SocketAddr) -> io::Result<Socket> {
        self.must_be_direct(traffic)?;
        let socket = self.socket(addr.is_ipv4(), Type::DGRAM, Protocol::UDP)?;
        socket.bind(&self.bound(addr)?.into())?;
        Ok(socket)
    }

    /// A socket that does not block, for datagrams or connections of errands: names, questions of the doctor.
    pub(super) fn socket(&self, ipv4: bool, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        if !self.policy().speaks(ipv4) {
            return Err(refused(if ipv4 { "IPv4 is off" } else { "IPv6 is off" }));
        }
        if let Some(why) = self.away() {
            return Err(unreachable(why));
        }
        let domain = if ipv4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, kind, Some(protocol))?;
        if !ipv4 {
            // Each family has its own listener; otherwise the two would be in each other's way.
            socket.set_only_v6(true)?;
        }
        if let Some(name) = self.policy().interface.as_deref().filter(|_| !self.0.by_address) {
            tie(&socket, name)?;
        }
        self.mark(&socket, ipv4);
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// The address that sockets of a family are bound to.
    ///
    /// # Errors
    /// Sockets are tied by address, and the interface has none of this family.
    pub(super) fn source(&self, ipv4: bool) -> io::Result<Option<IpAddr>> {
        if let Some(ip) = self.policy().bind_of(ipv4) {
            return Ok(Some(ip));
        }
        if !self.0.by_address {
            return Ok(None);
        }
        let seen = self.interface().ok_or_else(|| unreachable(self.away().unwrap_or_default()))?;
        let none = || unreachable("the interface has no address of that family".to_owned());
        seen.addr(ipv4).map(Some).ok_or_else(none)
    }

    /// `addr`, or where it stands for all addresses, the one that is bound to.
    fn bound(&self, mut addr: SocketAddr) -> io::Result<SocketAddr> {
        if let (true, Some(ip)) = (addr.ip().is_unspecified(), self.source(addr.is_ipv4())?) {
            addr.set_ip(ip);
        }
        Ok(addr)
    }

    fn must_be_direct(&self, traffic: &[Traffic]) -> io::Result<()> {
        let ways: Vec<Way> = traffic.iter().map(|traffic| self.way(*traffic)).collect();
        match ways.iter().find(|way| !way.is_direct()) {
            _ if ways.iter().any(|way| way.is_direct()) => Ok(()),
            Some(Way::Off(why)) => Err(refused(why)),
            _ => Err(refused("this goes by the proxy")),
        }
    }

    /// Marks what is sent. Refused where a system knows no such mark: then it goes without.
    fn mark(&self, socket: &Socket, ipv4: bool) {
        // The code point is the upper six bits of the byte (RFC 2474).
        let byte = u32::from(self.policy().dscp) << 2;
        if byte != 0 {
            let _ = if ipv4 { socket.set_tos_v4(byte) } else { set_traffic_class(socket, byte) };
        }
    }
}

#[cfg(unix)]
fn set_traffic_class(socket: &Socket, byte: u32) -> io::Result<()> {
    socket.set_tclass_v6(byte)
}

#[cfg(not(unix))]
fn set_traffic_class(_: &Socket, _: u32) -> io::Result<()> {
    Ok(())
}

/// Ties a socket to an interface, so that the system neither sends by another nor takes from another.
#[cfg(target_os = "linux")]
fn tie(socket: &Socket, name: &str) -> io::Result<()> {
    socket.bind_device(Some(name.as_bytes())).map_err(|why| {
        if rustix::io::Errno::from_io_error(&why) == Some(rustix::io::Errno::NODEV) {
            return unreachable(format!("interface {name} is away"));
        }
        why
    })
}

#[cfg(not(target_os = "linux"))]
fn tie(_: &Socket, _: &str) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// Whether the system lets us tie sockets to interfaces: Linux does since 5.7, and before to the privileged.
fn can_tie() -> bool {
    Socket::new(Domain::IPV4, Type::DGRAM, None).and_then(|socket| tie(&socket, "lo")).is_ok()
}

#[cfg(target_os = "linux")]
fn tied(builder: reqwest::ClientBuilder, name: &str) -> reqwest::ClientBuilder {
    builder.interface(name)
}

#[cfg(not(target_os = "linux"))]
fn tied(builder: reqwest::ClientBuilder, _: &str) -> reqwest::ClientBuilder {
    builder
}

/// The connection is being made.
fn is_under_way(why: &io::Error) -> bool {
    let in_progress = rustix::io::Errno::from_io_error(why) == Some(rustix::io::Errno::INPROGRESS);
    in_progress || why.kind() == io::ErrorKind::WouldBlock
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

fn unreachable(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::NetworkUnreachable, why)
}
