//! TCP: listeners and dials.
//!
//! Owns the options of sockets and what to do when handles run out. Leaves connections, turns and fairness to
//! `engine_loop`, and writing to `send`.

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream, UdpSocket};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::udp;

/// Connections the system keeps for us until we accept them; it cuts this to its own bound.
const BACKLOG: i32 = 1024;
/// How often all addresses are tried anew, where one port is wanted that is free on each of them.
const SAME_PORT_TRIES: usize = 16;

/// Where peers reach us: one address, by TCP and by UDP.
pub(crate) struct Door {
    pub(crate) tcp: TcpListener,
    pub(crate) udp: UdpSocket,
    pub(crate) addr: SocketAddr,
}

/// Listens on every address, by TCP and UDP; addresses with port 0 get one free port, the same for all if that can be
/// had.
///
/// # Errors
/// The address that could not be had, and the system's reason.
pub(crate) fn listen(addrs: &[SocketAddr]) -> Result<Vec<Door>, (SocketAddr, io::Error)> {
    for _ in 1..SAME_PORT_TRIES {
        match listen_on_one_port(addrs) {
            Err((_, why)) if why.kind() == io::ErrorKind::AddrInUse => {}
            answer => return answer,
        }
    }
    listen_on_one_port(addrs)
}

fn listen_on_one_port(addrs: &[SocketAddr]) -> Result<Vec<Door>, (SocketAddr, io::Error)> {
    let mut doors: Vec<Door> = Vec::with_capacity(addrs.len());
    let mut given = 0;
    for &addr in addrs {
        let mut wanted = addr;
        if wanted.port() == 0 {
            wanted.set_port(given);
        }
        let door = listen_on(wanted).map_err(|why| (addr, why))?;
        if addr.port() == 0 {
            given = door.addr.port();
        }
        doors.push(door);
    }
    Ok(doors)
}

fn listen_on(addr: SocketAddr) -> io::Result<Door> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        // Each family has its own listener; otherwise the two would be in each other's way.
        socket.set_only_v6(true)?;
    }
    // A restart need not wait for connections of the last run to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    let tcp = TcpListener::from_std(socket.into());
    let addr = tcp.local_addr()?;
    Ok(Door { tcp, udp: udp::bind(addr)?, addr })
}

/// Begins to connect; writable means that it ended, well or badly.
pub(crate) fn dial(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
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
        for _ in 0..BACKLOG {
            if listener.accept().is_err() {
                break;
            }
        }
        *self = Spare::new();
    }
}
