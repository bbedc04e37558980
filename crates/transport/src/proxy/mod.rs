//! The words to a SOCKS5 proxy (RFC 1928, RFC 1929) and to an HTTP proxy that knows `CONNECT` (RFC 9110, 9.3.6).
//!
//! Owns one negotiation on one TCP connection, and the headers of datagrams that a SOCKS5 proxy relays. Names are given
//! to the proxy as they are, so nobody near learns of them by a question to the DNS. Sockets, patience (a [`Talk`] has
//! no clock) and what may go around a proxy are for others. Not here: `BIND`, GSSAPI, TLS to the proxy.

mod address;
pub mod datagram;
mod fault;
mod http;
mod socks;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;

pub use fault::{Fault, Reply};
use http::Http;
use socks::Socks;

/// Bytes of the longest name, user or password: SOCKS5 counts them in one byte.
pub const MAX_TEXT_BYTES: usize = 255;

/// Where a proxy is to connect to, or a datagram is to go to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    /// An address. An IPv4 address in IPv6 clothes is sent as what it is.
    Addr(SocketAddr),
    /// A name that the proxy is to resolve.
    Name {
        /// Letters, digits, `-`, `.` and `_`, 1 to [`MAX_TEXT_BYTES`] of them. Other alphabets as `xn--`.
        host: String,
        /// Not 0.
        port: u16,
    },
}

impl Target {
    /// Which port.
    pub fn port(&self) -> u16 {
        match self {
            Target::Addr(addr) => addr.port(),
            Target::Name { port, .. } => *port,
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Target {
        Target::Addr(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
    }
}

/// As a URL has it: `name:port`, `1.2.3.4:port` or `[2001:db8::1]:port`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Addr(addr) => write!(f, "{addr}"),
            Target::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Who we are to a proxy. Only its user is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// 1 to [`MAX_TEXT_BYTES`]; to an HTTP proxy without `:` and control characters.
    pub user: String,
    /// To a SOCKS5 proxy 1 to [`MAX_TEXT_BYTES`], to an HTTP proxy it may be empty and has no control characters.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a proxy speaks, and who we are to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proxy {
    /// SOCKS5.
    Socks5 {
        /// User and password (RFC 1929), offered beside no login at all.
        auth: Option<Credentials>,
    },
    /// HTTP/1.1 `CONNECT`.
    HttpConnect {
        /// `Basic` (RFC 7617), sent at once.
        auth: Option<Credentials>,
    },
}

/// How far a negotiation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Send what there is to send ([`Talk::to_send`]) and listen.
    More,
    /// From here on the connection is one with the target.
    Connected {
        /// From where the proxy connected, if it says so.
        bound: Option<SocketAddr>,
    },
    /// Datagrams are relayed for as long as this TCP connection stands.
    Associated {
        /// Where to send them to; where its address is unspecified, at the proxy's own address.
        relay: SocketAddr,
    },
}

/// One negotiation on one TCP connection to a proxy. We speak first.
pub struct Talk {
    /// Bound: what one step says, at most 262 bytes to SOCKS5 and 2 KiB to HTTP.
    out: Vec<u8>,
    state: State,
}

enum State {
    Socks(Socks),
    Http(Http),
    Over(Result<Step, Fault>),
}

impl Talk {
    /// Asks the proxy to connect to `target`.
    ///
    /// # Errors
    /// If the target or the credentials can not be said in the proxy's language.
    pub fn connect(proxy: &Proxy, target: &Target) -> Result<Talk, Fault> {
        let mut out = Vec::new();
        let state = match proxy {
            Proxy::Socks5 { auth } => State::Socks(Socks::connect(auth.as_ref(), target, &mut out)?),
            Proxy::HttpConnect { auth } => State::Http(Http::connect(auth.as_ref(), target, &mut out)?),
        };
        Ok(Talk { out, state })
    }

    /// Asks a SOCKS5 proxy to relay datagrams (`UDP ASSOCIATE`). We do not say from where they will come: behind a NAT
    /// nobody knows.
    ///
    /// # Errors
    /// If the credentials are too long or empty.
    pub fn associate(auth: Option<&Credentials>) -> Result<Talk, Fault> {
        let mut out = Vec::new();
        let state = State::Socks(Socks::associate(auth, &mut out)?);
        Ok(Talk { out, state })
    }

    /// Takes what is to be sent now; empty if it is the proxy's turn.
    pub fn to_send(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Hears the proxy: how many of `bytes` were its part of the negotiation, and how far that is. What is not eaten
    /// comes from the target already. However the bytes are split, the outcome is the same; it is also the answer to
    /// all later calls, which eat nothing.
    ///
    /// # Errors
    /// What the proxy said instead of yes. The connection is of no more use.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<(usize, Step), Fault> {
        let heard = match &mut self.state {
            State::Socks(socks) => socks.hear(bytes, &mut self.out),
            State::Http(http) => http.hear(bytes),
            State::Over(end) => return end.clone().map(|step| (0, step)),
        };
        match &heard {
            Ok((_, Step::More)) => {}
            Ok((_, step)) => self.state = State::Over(Ok(*step)),
            Err(fault) => self.end(fault.clone()),
        }
        heard
    }

    /// The proxy closed the connection: what that means at this point.
    pub fn hung_up(&mut self) -> Fault {
        let fault = match &self.state {
            State::Socks(socks) => socks.hung_up(),
            State::Http(_) => Fault::Closed("before it answered"),
            State::Over(Ok(_)) => Fault::Closed("after it had connected"),
            State::Over(Err(fault)) => fault.clone(),
        };
        self.end(fault.clone());
        fault
    }

    fn end(&mut self, fault: Fault) {
        self.out.clear();
        self.state = State::Over(Err(fault));
    }
}

/// Without what is said: there is a password in it.
impl fmt::Debug for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state: &dyn fmt::Debug = match &self.state {
            State::Socks(_) => &"SOCKS5",
            State::Http(_) => &"HTTP",
            State::Over(end) => end,
        };
        f.debug_struct("Talk").field("state", state).finish_non_exhaustive()
    }
}
