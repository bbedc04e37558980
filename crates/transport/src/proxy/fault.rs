//! What can go wrong with a proxy, in words for people.

use std::fmt;

use thiserror::Error;

use super::http::{MAX_HEAD_BYTES, MAX_HEADERS};

/// Why there is no connection by way of the proxy.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Fault {
    /// The user or the password can not be sent (RFC 1929, RFC 7617).
    #[error("{0}")]
    Credentials(&'static str),
    /// Not a name of a host, on either side's lips.
    #[error("{0:?} is not the name of a host")]
    Name(String),
    /// Nothing listens at port 0, on either side's lips.
    #[error("port 0 is no target")]
    NoPort,
    /// The first byte of an answer was this instead of 5.
    #[error("the proxy does not speak SOCKS5: its answer begins with {0:#04x}")]
    NotSocks5(u8),
    /// What came instead of `HTTP/1.`, or the first line of a head that can not be read.
    #[error("the proxy does not speak HTTP/1.1: its answer begins with {0:?}")]
    NotHttp(String),
    /// More than 8 KiB without an end, or too many headers.
    #[error("the head of the proxy's answer has more than {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} headers")]
    LongHead,
    /// There are no credentials, and it wants some.
    #[error("the proxy wants a user and a password ({said})")]
    LoginWanted {
        /// Its words.
        said: String,
    },
    /// It wants a login that is not spoken here.
    #[error("the proxy wants another login than user and password ({said})")]
    LoginUnknown {
        /// Its words.
        said: String,
    },
    /// The credentials are wrong.
    #[error("the proxy refused the user or the password ({said})")]
    LoginRefused {
        /// Its words.
        said: String,
    },
    /// It chose a way to log in that was not offered.
    #[error("the proxy chose login method {0}, which was not offered")]
    LoginUnasked(u8),
    /// The version of the answer to user and password is neither 1 nor, as some have it, 5.
    #[error("the proxy answered the login in version {0}, not 1")]
    LoginVersion(u8),
    /// SOCKS5 says no.
    #[error("the proxy says: {0}")]
    Refused(Reply),
    /// HTTP says no.
    #[error("the proxy says: {code} {reason}")]
    Status {
        /// 100 to 999.
        code: u16,
        /// Its words, cleaned and cut.
        reason: String,
    },
    /// Addresses have the types 1, 3 and 4 (RFC 1928, 5).
    #[error("the proxy sent an address of type {0}, which does not exist")]
    AddressType(u8),
    /// It relays datagrams at port 0.
    #[error("the proxy named no port to send datagrams to")]
    NoRelayPort,
    /// A datagram ends within its header.
    #[error("a datagram of {0} bytes from the proxy is too short")]
    ShortDatagram(usize),
    /// A datagram is a part of one (RFC 1928, 7: "an implementation that does not support fragmentation MUST drop").
    #[error("the proxy sent fragment {0} of a datagram, and fragments are not put together")]
    Fragment(u8),
    /// It hung up; the words say when.
    #[error("the proxy closed the connection {0}")]
    Closed(&'static str),
}

impl Fault {
    /// Whether it is the target that can not be reached, and the proxy did its part: others may be reached by it.
    pub fn blames_target(&self) -> bool {
        match self {
            Fault::Refused(Reply(code)) => matches!(code, 3..=6),
            Fault::Status { code, .. } => matches!(code, 502 | 504),
            _ => false,
        }
    }
}

/// A reply code of SOCKS5 other than 0 (RFC 1928, 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply(pub u8);

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "general failure (reply 1)",
            2 => "its rules do not allow the connection (reply 2)",
            3 => "the network can not be reached (reply 3)",
            4 => "the host can not be reached (reply 4)",
            5 => "the host refused the connection (reply 5)",
            6 => "the time to live ran out (reply 6)",
            7 => "it does not know the command (reply 7)",
            8 => "it does not know that type of address (reply 8)",
            other => return write!(f, "no, for a reason without a name (reply {other})"),
        })
    }
}
