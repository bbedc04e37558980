//! Messages of `ut_holepunch` (BEP 55): two peers behind NATs are told by a third to call each other at the same time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::extension::ExtensionError;

/// One message. The address is unjudged: any, ourselves, port 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HolepunchMessage {
    /// To a relay: have the peer at this address and me call each other.
    Rendezvous(SocketAddr),
    /// From a relay: call this address now, by uTP.
    Connect(SocketAddr),
    /// From a relay: that cannot be.
    Error(SocketAddr, HolepunchError),
}

/// Why a relay cannot help.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HolepunchError {
    /// The address is none that a peer could have.
    NoSuchPeer,
    /// The relay is not connected to it.
    NotConnected,
    /// The peer there does not speak this.
    NoSupport,
    /// It is the relay itself, or the one who asks.
    NoSelf,
    /// A code that the BEP does not name.
    Other(u32),
}

impl HolepunchError {
    fn code(self) -> u32 {
        match self {
            HolepunchError::NoSuchPeer => 1,
            HolepunchError::NotConnected => 2,
            HolepunchError::NoSupport => 3,
            HolepunchError::NoSelf => 4,
            HolepunchError::Other(code) => code,
        }
    }

    fn of(code: u32) -> HolepunchError {
        match code {
            1 => HolepunchError::NoSuchPeer,
            2 => HolepunchError::NotConnected,
            3 => HolepunchError::NoSupport,
            4 => HolepunchError::NoSelf,
            code => HolepunchError::Other(code),
        }
    }
}

impl HolepunchMessage {
    /// Reads the payload of an `extended` message. `None`: a type of message, or of address, that the BEP does not name.
    /// Bytes behind the last field are passed over, and an error code that is missing is 0: some leave it out.
    ///
    /// # Errors
    /// The payload is too short.
    pub fn decode(payload: &[u8]) -> Result<Option<HolepunchMessage>, ExtensionError> {
        let short = ExtensionError::Length(payload.len());
        let [kind, family, rest @ ..] = payload else { return Err(short) };
        let (ip, rest): (IpAddr, _) = match family {
            0 => rest
                .split_first_chunk::<4>()
                .map(|(ip, rest)| (Ipv4Addr::from(*ip).into(), rest))
                .ok_or(short)?,
            1 => rest
                .split_first_chunk::<16>()
                .map(|(ip, rest)| (Ipv6Addr::from(*ip).into(), rest))
                .ok_or(short)?,
            _ => return Ok(None),
        };
        let (port, rest) = rest.split_first_chunk::<2>().ok_or(short)?;
        let addr = SocketAddr::new(ip, u16::from_be_bytes(*port));
        Ok(match kind {
            0 => Some(HolepunchMessage::Rendezvous(addr)),
            1 => Some(HolepunchMessage::Connect(addr)),
            2 => {
                let code = rest.first_chunk::<4>().map_or(0, |code| u32::from_be_bytes(*code));
                Some(HolepunchMessage::Error(addr, HolepunchError::of(code)))
            }
            _ => None,
        })
    }

    /// Appends the payload to send.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, addr, code) = match *self {
            HolepunchMessage::Rendezvous(addr) => (0, addr, 0),
            HolepunchMessage::Connect(addr) => (1, addr, 0),
            HolepunchMessage::Error(addr, why) => (2, addr, why.code()),
        };
        out.push(kind);
        match addr.ip() {
            IpAddr::V4(ip) => {
                out.push(0);
                out.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(1);
                out.extend(ip.octets());
            }
        }
        out.extend(addr.port().to_be_bytes());
        out.extend(code.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_the_bep_lays_them_out() {
        let addr: SocketAddr = "1.2.3.4:6881".parse().unwrap();
        let mut bytes = Vec::new();
        HolepunchMessage::Connect(addr).encode(&mut bytes);
        assert_eq!(bytes, [1, 0, 1, 2, 3, 4, 0x1a, 0xe1, 0, 0, 0, 0]);
        bytes.clear();
        HolepunchMessage::Error("[::1]:2".parse().unwrap(), HolepunchError::NoSupport).encode(&mut bytes);
        assert_eq!(bytes[..2], [2, 1]);
        assert_eq!(bytes[17..], [1, 0, 2, 0, 0, 0, 3]);
        // Without the code, as it was before the BEP had one.
        assert_eq!(
            HolepunchMessage::decode(&[0, 0, 1, 2, 3, 4, 0x1a, 0xe1]),
            Ok(Some(HolepunchMessage::Rendezvous(addr)))
        );
        assert_eq!(HolepunchMessage::decode(&[0, 2, 1, 2, 3, 4, 5, 6]), Ok(None));
        assert_eq!(HolepunchMessage::decode(&[3, 0, 1, 2, 3, 4, 5, 6]), Ok(None));
    }

    proptest! {
        #[test]
        fn what_is_said_is_heard(kind in 0..3u8, v4: bool, ip: [u8; 16], port: u16, code: u32, more: Vec<u8>) {
            let ip = if v4 { Ipv4Addr::from([ip[0], ip[1], ip[2], ip[3]]).into() } else { Ipv6Addr::from(ip).into() };
            let addr = SocketAddr::new(ip, port);
            let message = match kind {
                0 => HolepunchMessage::Rendezvous(addr),
                1 => HolepunchMessage::Connect(addr),
                _ => HolepunchMessage::Error(addr, HolepunchError::of(code)),
            };
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            for short in 0..bytes.len() - 4 {
                prop_assert!(HolepunchMessage::decode(&bytes[..short]).is_err());
            }
            bytes.extend(more);
            prop_assert_eq!(HolepunchMessage::decode(&bytes), Ok(Some(message)));
        }

        #[test]
        fn any_bytes_are_borne(bytes: Vec<u8>) {
            let _ = HolepunchMessage::decode(&bytes);
        }
    }
}
