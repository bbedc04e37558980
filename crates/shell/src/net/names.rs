//! The one place that looks up names of hosts.
//!
//! Owns the choice between the system's look-up, which goes by any interface, and questions of our own (RFC 1035), which
//! go by sockets of the [`Dialer`]. What an address is good for is judged by whoever asked. Nothing is kept.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};
use socket2::{Protocol, Socket, Type};

use super::dialer::Dialer;

/// How long one server is waited for, as resolvers of systems do.
const PATIENCE: Duration = Duration::from_secs(5);
/// Each server is asked this often before the name is given up.
const ROUNDS: usize = 2;
/// The port of name servers.
const PORT: u16 = 53;
/// Bytes of an answer by UDP: what servers send without being asked for more is 512.
const UDP_BYTES: usize = 4096;
/// Servers that are asked, as of the system's own resolver.
const MOST_SERVERS: usize = 3;
/// Addresses taken of one answer: nobody needs more.
const MOST_ADDRESSES: usize = 64;
/// Names that lead through names; a longer chain is a mistake or a trap.
const MOST_ALIASES: usize = 16;

/// The addresses of a host: IPv6 only where it is spoken, likewise IPv4. Blocks.
///
/// # Errors
/// The name is not known, no server answered, or the policy forbids what it would take.
pub(super) fn look_up(dialer: &Dialer, host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    if !dialer.policy().asks_names_itself() {
        return Ok((host, 0).to_socket_addrs()?.map(|addr| addr.ip()).collect());
    }
    // Never asked of anybody (RFC 6761).
    let bare = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if bare == "localhost" || bare.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let servers = servers(dialer)?;
    let (mut found, mut last) = (Vec::new(), None);
    for (ipv4, kind) in [(true, TYPE::A), (false, TYPE::AAAA)] {
        if !dialer.policy().speaks(ipv4) {
            continue;
        }
        match ask(dialer, &servers, &bare, kind) {
            Ok(addrs) => found.extend(addrs),
            Err(why) => last = Some(why),
        }
    }
    let unknown = || io::Error::new(io::ErrorKind::NotFound, "no such host");
    if found.is_empty() { Err(last.unwrap_or_else(unknown)) } else { Ok(found) }
}

/// Whom to ask: the policy's server, or the system's, without those of this machine, who would ask on by any interface.
///
/// # Errors
/// There is none.
pub(super) fn servers(dialer: &Dialer) -> io::Result<Vec<SocketAddr>> {
    if let Some(server) = dialer.policy().name_server {
        return Ok(vec![server]);
    }
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let usable = |addr: &SocketAddr| !addr.ip().is_loopback() && dialer.policy().speaks(addr.is_ipv4());
    let servers: Vec<SocketAddr> = named_in(&text).filter(usable).take(MOST_SERVERS).collect();
    if servers.is_empty() {
        let why = "no name server but this machine's own, which may ask by another interface; name one with --name-server";
        return Err(io::Error::new(io::ErrorKind::HostUnreachable, why));
    }
    Ok(servers)
}

/// Servers of a `resolv.conf`. Those with a scope (`fe80::1%eth0`) are left out: ours may be another.
fn named_in(text: &str) -> impl Iterator<Item = SocketAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let ip: IpAddr = words.next().filter(|word| *word == "nameserver").and(words.next())?.parse().ok()?;
        Some(SocketAddr::new(ip, PORT))
    })
}

fn ask(dialer: &Dialer, servers: &[SocketAddr], host: &str, kind: TYPE) -> io::Result<Vec<IpAddr>> {
    let mut last = io::Error::new(io::ErrorKind::TimedOut, "no name server answered");
    for server in (0..ROUNDS).flat_map(|_| servers) {
        let answer = exchange(dialer, *server, host, kind).and_then(|answer| read(&answer, host, kind));
        match answer {
            Ok(addrs) => return Ok(addrs),
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Err(why),
            Err(why) => last = why,
        }
    }
    Err(last)
}

/// One question and its answer, by UDP, or by TCP if it is too long for that.
fn exchange(dialer: &Dialer, server: SocketAddr, host: &str, kind: TYPE) -> io::Result<Vec<u8>> {
    let question = question(host, kind)?;
    let until = Instant::now() + PATIENCE;
    // Connected: only the server's own words are heard, and each question has a port nobody can guess.
    let socket = connected(dialer, server, Type::DGRAM, Protocol::UDP)?;
    let socket = std::net::UdpSocket::from(socket);
    socket.send(&question)?;
    let mut bytes = [0; UDP_BYTES];
    loop {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left))?;
        let count = socket.recv(&mut bytes).map_err(timed_out)?;
        let answer = &bytes[..count];
        if !answers(answer, &question) {
            // Somebody guesses, or an answer comes late.
            continue;
        }
        let cut = simple_dns::header_buffer::has_flags(answer, PacketFlag::TRUNCATION).unwrap_or(false);
        return if cut { by_tcp(dialer, server, &question) } else { Ok(answer.to_vec()) };
    }
}

fn by_tcp(dialer: &Dialer, server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = std::net::TcpStream::from(connected(dialer, server, Type::STREAM, Protocol::TCP)?);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).map_err(timed_out)?;
    // At most 64 KiB, by its two bytes.
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).map_err(timed_out)?;
    if answers(&answer, question) { Ok(answer) } else { Err(nonsense()) }
}

fn connected(dialer: &Dialer, server: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = dialer.socket(server.is_ipv4(), kind, protocol)?;
    socket.set_nonblocking(false)?;
    if let Some(ip) = dialer.source(server.is_ipv4())? {
        socket.bind(&SocketAddr::new(ip, 0).into())?;
    }
    socket.connect_timeout(&server.into(), PATIENCE)?;
    Ok(socket)
}

fn question(host: &str, kind: TYPE) -> io::Result<Vec<u8>> {
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidInput, "not the name of a host");
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let mut packet = Packet::new_query(u16::from_be_bytes(id));
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(host).map_err(wrong)?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(wrong)
}

/// Whether a packet answers a question: its id and the question repeated.
fn answers(answer: &[u8], question: &[u8]) -> bool {
    // 12 bytes of header; the id is the first two, the highest bit of the third says that it is an answer.
    let long = answer.len() >= question.len() && question.len() > 12;
    long && answer[..2] == question[..2]
        && answer[2] & 0x80 != 0
        && answer[12..question.len()].eq_ignore_ascii_case(&question[12..])
}

/// The addresses that an answer gives for a name, followed through aliases.
fn read(answer: &[u8], host: &str, kind: TYPE) -> io::Result<Vec<IpAddr>> {
    let packet = Packet::parse(answer).map_err(|_| nonsense())?;
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Err(io::Error::new(io::ErrorKind::NotFound, "no such host")),
        other => return Err(io::Error::other(format!("the name server refused: {other:?}"))),
    }
    let mut wanted = host.to_owned();
    for _ in 0..MOST_ALIASES {
        let mut alias = None;
        let mut found = Vec::new();
        for record in packet.answers.iter().filter(|one| one.name.to_string().eq_ignore_ascii_case(&wanted)) {
            match (&record.rdata, kind) {
                (RData::A(a), TYPE::A) => found.push(IpAddr::V4(Ipv4Addr::from(a.address))),
                (RData::AAAA(aaaa), TYPE::AAAA) => found.push(IpAddr::V6(Ipv6Addr::from(aaaa.address))),
                (RData::CNAME(name), _) => alias = Some(name.0.to_string()),
                _ => {}
            }
        }
        match alias {
            Some(name) if found.is_empty() => wanted = name,
            _ => {
                found.truncate(MOST_ADDRESSES);
                return Ok(found);
            }
        }
    }
    Err(nonsense())
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the name server's answer makes no sense")
}

fn timed_out(why: io::Error) -> io::Error {
    match why.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, "the name server did not answer")
        }
        _ => why,
    }
}
