//! What is spoken to a proxy and by way of one, whoever does it: the engine's loop or a tool with one question.
//!
//! Owns how a negotiation is held on a socket. Parts:
//! - `association`: a SOCKS5 proxy relays datagrams. - `hosts`, `stand_ins`: names that it looks up, of nodes of the DHT and
//!   of UDP trackers. - `courier`: the datagrams of a tool, which go straight where there is no proxy for them.
//!
//! What the words are is `transport::proxy`'s; sockets come from `net`.

mod association;
mod courier;
mod hosts;
mod stand_ins;

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use mio::net::TcpStream;
use piecemeal_transport::proxy::{Step, Talk};

pub(crate) use association::Association;
pub(crate) use courier::Courier;
pub(crate) use hosts::Hosts;
pub(crate) use stand_ins::StandIns;

/// What a proxy may take to answer, beyond a way around the world: it is busy, or away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Says and hears what can be said and heard now; `unsent` is what the socket did not take. Where it comes to its end: how
/// it ended, and where in `scratch` lies what came behind.
///
/// # Errors
/// Why nothing comes of it, in words.
pub(crate) fn converse(
    stream: &mut TcpStream,
    talk: &mut Talk,
    unsent: &mut Vec<u8>,
    scratch: &mut [u8],
) -> Result<Option<(Step, std::ops::Range<usize>)>, String> {
    loop {
        unsent.extend(talk.to_send());
        while !unsent.is_empty() {
            match stream.write(unsent) {
                Ok(took) => drop(unsent.drain(..took)),
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                // What the proxy said before it hung up says more.
                Err(_) => unsent.clear(),
            }
        }
        let bytes = match stream.read(scratch) {
            Ok(0) => return Err(talk.hung_up().to_string()),
            Ok(bytes) => bytes,
            Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(why) if why.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return Err(talk.hung_up().to_string()),
        };
        match talk.hear(&scratch[..bytes]) {
            Ok((_, Step::More)) => {}
            Ok((ate, step)) => return Ok(Some((step, ate..bytes))),
            Err(fault) => return Err(fault.to_string()),
        }
    }
}
