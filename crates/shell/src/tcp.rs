//! Where peers reach us, dials, and what errors of either mean.
//!
//! Owns the search for one port on all addresses, and what to do when handles run out. Leaves opening sockets to `net`,
//! connections, turns and fairness to `engine_loop`, and writing to `send`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream, UdpSocket};
use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};

use crate::net::{Dialer, Traffic};

/// Connections turned away at once: as many as the system keeps for us.
const TURNED_AWAY: i32 = 4096;
/// So long a connection that must stand may be silent before it is asked whether it does.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How often all addresses are tried anew, where one port is wanted that is free on each of them.
const SAME_PORT_TRIES: usize = 16;

/// Where peers reach us: one address, by TCP and by UDP; each as far as the policy lets us.
pub(crate) struct Door {
    pub(crate) tcp: Option<TcpListener>,
    pub(crate) udp: Option<UdpSocket>,
    pub(crate) addr: SocketAddr,
}

/// What goes by the UDP socket beside a listener.
const DATAGRAMS: [Traffic; 3] = [Traffic::Dht, Traffic::UdpTrackers, Traffic::PeersUtp];

/// Listens on every address, by UDP and, if so wanted, TCP; addresses with port 0 get one free port, the same for all if that can be
/// had. Addresses of a family that is off are left out, and what the policy takes another way is not opened.
///
/// # Errors
/// The address that could not be had, and the system's reason.
pub(crate) fn listen(
    dialer: &Dialer,
    addrs: &[SocketAddr],
    tcp: bool,
) -> Result<Vec<Door>, (SocketAddr, io::Error)> {
    for _ in 1..SAME_PORT_TRIES {
        match listen_on_one_port(dialer, addrs, tcp) {
            Err((_, why)) if why.kind() == io::ErrorKind::AddrInUse => {}
            answer => return answer,
        }
    }
    listen_on_one_port(dialer, addrs, tcp)
}

fn listen_on_one_port(
    dialer: &Dialer,
    addrs: &[SocketAddr],
    tcp: bool,
) -> Result<Vec<Door>, (SocketAddr, io::Error)> {
    let mut doors: Vec<Door> = Vec::with_capacity(addrs.len());
    let mut given = 0;
    for &addr in addrs.iter().filter(|addr| dialer.policy().speaks(addr.is_ipv4())) {
        let mut wanted = addr;
        if wanted.port() == 0 {
            wanted.set_port(given);
        }
        let door = listen_on(dialer, wanted, tcp).map_err(|why| (addr, why))?;
        if addr.port() == 0 {
            given = door.addr.port();
        }
        doors.push(door);
    }
    Ok(doors)
}

fn listen_on(dialer: &Dialer, addr: SocketAddr, tcp: bool) -> io::Result<Door> {
    let tcp = (tcp && dialer.way(Traffic::Incoming).is_direct()).then(|| dialer.listen(addr)).transpose()?;
    let addr = tcp.as_ref().map_or(Ok(addr), TcpListener::local_addr)?;
    let any = DATAGRAMS.iter().any(|traffic| dialer.way(*traffic).is_direct());
    let udp = any.then(|| dialer.datagrams(&DATAGRAMS, addr)).transpose()?;
    let addr = udp.as_ref().map_or(Ok(addr), UdpSocket::local_addr)?;
    Ok(Door { tcp, udp, addr })
}

/// Begins to connect straight to a peer; writable means that it ended, well or badly.
pub(crate) fn dial(dialer: &Dialer, to: SocketAddr) -> io::Result<TcpStream> {
    let stream = dialer.dial(Traffic::PeersTcp, to)?;
    set_options(&stream);
    Ok(stream)
}

/// Whether a dial came to a connection, once the socket is writable.
pub(crate) fn dialed(stream: &TcpStream) -> io::Result<()> {
    if let Some(why) = stream.take_error()? {
        return Err(why);
    }
    stream.peer_addr().map(|_| ())
}

/// What every connection has. Refusals are no reason to do without the connection.
pub(crate) fn set_options(stream: &TcpStream) {
    // We gather what belongs together ourselves; a request must not wait for the answer to another.
    let _ = stream.set_nodelay(true);
}

/// Notices after a minute or two that the other side is gone without a word.
pub(crate) fn keep_alive(stream: &TcpStream) {
    let every = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE / 3);
    let _ = SockRef::from(stream).set_tcp_keepalive(&every);
}

/// True if there are no file handles left, in the process or the system.
pub(crate) fn out_of_handles(why: &io::Error) -> bool {
    matches!(Errno::from_io_error(why), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// True for failures of one incoming connection, not of the listener.
pub(crate) fn only_this_one(why: &io::Error) -> bool {
    let network = [
        Errno::CONNABORTED,
        Errno::INTR,
        Errno::PROTO,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NOPROTOOPT,
        Errno::OPNOTSUPP,
        Errno::PERM,
    ];
    Errno::from_io_error(why).is_some_and(|why| network.contains(&why))
}

/// A handle held back, so that a connection can be taken and closed when no other is left. Otherwise it would stay in
/// the backlog, and the listener readable, for ever.
pub(crate) struct Spare(Option<std::fs::File>);

impl Spare {
    pub(crate) fn new() -> Spare {
        Spare(std::fs::File::open("/dev/null").ok())
    }

    /// Takes connections in the spare's place and closes them, until none waits.
    pub(crate) fn turn_away(&mut self, listener: &TcpListener) {
        self.0 = None;
        // Bounded by the backlog; whoever comes meanwhile meets the pause of the listener.
        for _ in 0..TURNED_AWAY {
            if listener.accept().is_err() {
                break;
            }
        }
        *self = Spare::new();
    }
}
