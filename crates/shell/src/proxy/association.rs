//! An association with a SOCKS5 proxy (RFC 1928, 7).
//!
//! Owns the TCP connection that stands for as long as datagrams are relayed, and where the proxy takes them. How long it is
//! waited for, and what becomes of it when it ends, is for those to say who hold it.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use piecemeal_transport::proxy::{Proxy, Step, Talk, Target, datagram};

use super::converse;
use crate::net::Dialer;
use crate::tcp;

/// See the module.
pub(crate) struct Association {
    stream: TcpStream,
    state: State,
}

enum State {
    Asking { talk: Talk, unsent: Vec<u8> },
    Stands { at: SocketAddr },
}

impl Association {
    /// Begins to ask the proxy; events come by `token`.
    ///
    /// # Errors
    /// Why it cannot be asked, in words.
    pub(crate) fn begin(dialer: &Dialer, registry: &Registry, token: Token) -> Result<Association, String> {
        let proxy = dialer.policy().proxy.as_ref().ok_or("there is no proxy")?;
        let Proxy::Socks5 { auth } = proxy.language() else {
            return Err("an HTTP proxy carries no UDP".to_owned());
        };
        let talk = Talk::associate(auth.as_ref()).map_err(|fault| fault.to_string())?;
        let mut stream = dialer.dial_proxy().map_err(|why| why.to_string())?;
        tcp::set_options(&stream);
        tcp::keep_alive(&stream);
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, token, both).map_err(|why| why.to_string())?;
        Ok(Association { stream, state: State::Asking { talk, unsent: Vec::new() } })
    }

    /// Hears the proxy, if it has something to say. True when it takes datagrams from now on.
    ///
    /// # Errors
    /// Why there is no association, or none any more.
    pub(crate) fn go_on(&mut self, scratch: &mut [u8]) -> Result<bool, String> {
        let State::Asking { talk, unsent } = &mut self.state else { return self.still_stands() };
        match tcp::dialed(&self.stream) {
            Ok(()) => {}
            Err(why) if why.kind() == ErrorKind::NotConnected => return Ok(false),
            Err(why) => return Err(why.to_string()),
        }
        let Some((Step::Associated { relay }, _)) = converse(&mut self.stream, talk, unsent, scratch)? else {
            return Ok(false);
        };
        let proxy = self.stream.peer_addr().map_err(|why| why.to_string())?;
        self.state = State::Stands { at: believed(relay, proxy)? };
        Ok(true)
    }

    /// It has nothing to say any more, so if there is anything to read, it has hung up, or is none.
    fn still_stands(&mut self) -> Result<bool, String> {
        match self.stream.read(&mut [0]) {
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Ok(_) | Err(_) => Err("the proxy ended it".to_owned()),
        }
    }

    /// Where the proxy takes datagrams, and sends them from; `None` until it does.
    pub(crate) fn place(&self) -> Option<SocketAddr> {
        if let State::Stands { at } = &self.state { Some(*at) } else { None }
    }

    /// Whose datagram the proxy relayed, and what it is; `None`: it is not the proxy's, or not to be understood.
    pub(crate) fn unwrap<'a>(&self, from: SocketAddr, bytes: &'a [u8]) -> Option<(SocketAddr, &'a [u8])> {
        if self.place() != Some(from) {
            return None;
        }
        match datagram::unwrap(bytes) {
            Ok((Target::Addr(whose), payload)) => Some((whose, payload)),
            Ok((Target::Name { .. }, _)) | Err(_) => None,
        }
    }
}

/// Where datagrams go, of what the proxy says: its own address, if it says none or one that only it can reach.
fn believed(relay: SocketAddr, proxy: SocketAddr) -> Result<SocketAddr, String> {
    let (relay_ip, proxy_ip) = (relay.ip().to_canonical(), proxy.ip().to_canonical());
    let its_own = relay_ip.is_unspecified() || (relay_ip.is_loopback() && !proxy_ip.is_loopback());
    let ip = if its_own { proxy_ip } else { relay_ip };
    if ip.is_ipv4() != proxy_ip.is_ipv4() || ip.is_multicast() {
        return Err(format!("it takes them at {relay}, where we cannot send by the same way"));
    }
    Ok(SocketAddr::new(ip, relay.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_says_where_it_relays_and_is_believed_within_reason() {
        let rows = [
            ("192.0.2.1:9", "192.0.2.7:1080", Some("192.0.2.1:9")),
            ("0.0.0.0:9", "192.0.2.7:1080", Some("192.0.2.7:9")),
            ("[::]:9", "192.0.2.7:1080", Some("192.0.2.7:9")),
            ("127.0.0.1:9", "192.0.2.7:1080", Some("192.0.2.7:9")),
            ("127.0.0.2:9", "127.0.0.1:1080", Some("127.0.0.2:9")),
            ("0.0.0.0:9", "[2001:db8::7]:1080", Some("[2001:db8::7]:9")),
            ("[2001:db8::1]:9", "192.0.2.7:1080", None),
            ("224.0.0.1:9", "192.0.2.7:1080", None),
        ];
        for (relay, proxy, expected) in rows {
            let found = believed(relay.parse().unwrap(), proxy.parse().unwrap()).ok();
            assert_eq!(found, expected.map(|text| text.parse().unwrap()), "{relay} {proxy}");
        }
    }
}
