//! The extension protocol's handshake (BEP 10), and the two extensions that are nothing but a number (BEP 54
//! `lt_donthave`, BEP 21 `upload_only`).
//!
//! Owns which extensions we know and under which number we receive them. What a second handshake means for a
//! connection is the PeerConnection's; `metadata` and `pex` are modules of their own.

use crate::{compact, text};
use piecemeal_metainfo::bencode::{self, BencodeError, Encoder, Limits};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use thiserror::Error;

/// The extended id of the handshake itself.
pub const HANDSHAKE_ID: u8 = 0;

/// The largest `info` dictionary we would fetch from peers; real ones rarely pass 2 MiB.
pub const MAX_METADATA_BYTES: u32 = 16 << 20;

/// Bytes of a peer's `v` that are kept for people to read.
const MAX_CLIENT_BYTES: usize = 64;

/// An extension we know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Extension {
    /// BEP 9: the info dictionary from peers.
    Metadata,
    /// BEP 11: peers from peers.
    Pex,
    /// BEP 54: a piece was lost.
    DontHave,
    /// BEP 55: through two NATs by help of a third.
    Holepunch,
    /// BEP 21: wants nothing more.
    UploadOnly,
}

impl Extension {
    /// All of them, in the order of their numbers.
    pub const ALL: [Extension; 5] = [
        Extension::Metadata,
        Extension::Pex,
        Extension::DontHave,
        Extension::Holepunch,
        Extension::UploadOnly,
    ];

    /// The name in `m`.
    pub const fn name(self) -> &'static str {
        match self {
            Extension::Metadata => "ut_metadata",
            Extension::Pex => "ut_pex",
            Extension::DontHave => "lt_donthave",
            Extension::Holepunch => "ut_holepunch",
            Extension::UploadOnly => "upload_only",
        }
    }

    /// The number under which *we* receive it, the same on every connection.
    pub const fn own_id(self) -> u8 {
        self as u8 + 1
    }

    /// Which extension a received message belongs to.
    pub fn from_own_id(id: u8) -> Option<Extension> {
        Extension::ALL.into_iter().find(|extension| extension.own_id() == id)
    }
}

/// What an `m` dictionary says about the extensions we know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExtensionIds([Option<u8>; Extension::ALL.len()]);

impl ExtensionIds {
    /// What we write into our own handshake for the extensions we want to receive.
    pub fn own(wanted: impl IntoIterator<Item = Extension>) -> ExtensionIds {
        let mut ids = ExtensionIds::default();
        wanted.into_iter().for_each(|extension| ids.set(extension, extension.own_id()));
        ids
    }

    /// The number under which the sender of the `m` wants this extension; `None` if it does not.
    pub fn get(&self, extension: Extension) -> Option<u8> {
        self.0[extension as usize].filter(|id| *id != 0)
    }

    /// Gives an extension a number; 0 says that it is no longer spoken.
    pub fn set(&mut self, extension: Extension, id: u8) {
        self.0[extension as usize] = Some(id);
    }

    /// Takes over what a later handshake says: it adds, changes or (with 0) removes, and leaves the rest.
    pub fn update(&mut self, later: &ExtensionIds) {
        for (mine, later) in self.0.iter_mut().zip(later.0) {
            *mine = later.or(*mine);
        }
    }
}

/// An extension handshake. What is `None` was not said; a later handshake changes only what it says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExtensionHandshake {
    /// `m`: who wants which extension under which number.
    pub ids: ExtensionIds,
    /// `v`: name and version of the client; one clean line for people to read.
    pub client: Option<String>,
    /// `p`: the TCP port the sender listens at, never 0.
    pub port: Option<u16>,
    /// `yourip`: how the sender sees the receiver.
    pub your_ip: Option<IpAddr>,
    /// `ipv4`: another address of the sender.
    pub ipv4: Option<Ipv4Addr>,
    /// `ipv6`: another address of the sender.
    pub ipv6: Option<Ipv6Addr>,
    /// `reqq`: requests the sender is willing to queue, at least 1. Not clamped above.
    pub reqq: Option<u32>,
    /// `metadata_size`: bytes of the info dictionary (BEP 9), 1 to [`MAX_METADATA_BYTES`]; any other number is as if
    /// not said.
    pub metadata_size: Option<u32>,
    /// `upload_only`: wants nothing more (BEP 21).
    pub upload_only: Option<bool>,
}

/// A payload that is not what its extension id promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ExtensionError {
    /// Not bencode, or beyond `bencode::Limits::PEER_EXTENSION`.
    #[error("not bencode: {0}")]
    Bencode(#[from] BencodeError),
    /// Something else than a dictionary.
    #[error("not a dictionary")]
    NotADict,
    /// A field must be there and in range.
    #[error("bad or missing {0}")]
    Field(&'static str),
    /// The payload has the wrong length.
    #[error("payload of {0} bytes")]
    Length(usize),
}

impl ExtensionHandshake {
    /// Reads the payload of an `extended` message with id [`HANDSHAKE_ID`]. Fields of a wrong type or out of range
    /// are as if absent, and bytes behind the dictionary are passed over.
    ///
    /// # Errors
    /// If there is no bencoded dictionary within `bencode::Limits::PEER_EXTENSION`.
    pub fn decode(payload: &[u8]) -> Result<ExtensionHandshake, ExtensionError> {
        let (tape, _) = bencode::decode_prefix(payload, Limits::PEER_EXTENSION)?;
        let mut got = ExtensionHandshake::default();
        for (key, value) in tape.root().as_dict().ok_or(ExtensionError::NotADict)? {
            let (bytes, int) = (value.as_bytes(), value.as_int());
            match key {
                b"m" => got.ids = ExtensionIds::read(value),
                b"v" => {
                    got.client = bytes.map(|v| text::one_line(v, MAX_CLIENT_BYTES)).filter(|v| !v.is_empty())
                }
                b"p" => got.port = int.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0),
                b"yourip" => got.your_ip = bytes.and_then(compact::decode_ip),
                b"ipv4" => got.ipv4 = bytes.and_then(|ip| <[u8; 4]>::try_from(ip).ok()).map(Ipv4Addr::from),
                b"ipv6" => got.ipv6 = bytes.and_then(|ip| <[u8; 16]>::try_from(ip).ok()).map(Ipv6Addr::from),
                b"reqq" => got.reqq = positive(int, u32::MAX),
                b"metadata_size" => got.metadata_size = positive(int, MAX_METADATA_BYTES),
                b"upload_only" => got.upload_only = int.map(|flag| flag != 0),
                _ => {}
            }
        }
        Ok(got)
    }

    /// The payload to send.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut to = Encoder::new(&mut out);
        to.begin_dict();
        if let Some(ip) = self.ipv4 {
            to.pair_bytes(b"ipv4", &ip.octets());
        }
        if let Some(ip) = self.ipv6 {
            to.pair_bytes(b"ipv6", &ip.octets());
        }
        self.ids.write(&mut to);
        pair(&mut to, b"metadata_size", self.metadata_size);
        pair(&mut to, b"p", self.port.map(u32::from));
        pair(&mut to, b"reqq", self.reqq);
        pair(&mut to, b"upload_only", self.upload_only.map(u32::from));
        if let Some(client) = &self.client {
            to.pair_bytes(b"v", client.as_bytes());
        }
        if let Some(ip) = self.your_ip {
            to.pair_bytes(b"yourip", &compact::encode_ip(ip));
        }
        to.end();
        out
    }
}

/// The payload of `lt_donthave` (BEP 54).
pub fn encode_dont_have(piece: u32) -> [u8; 4] {
    piece.to_be_bytes()
}

/// The piece of an `lt_donthave` (BEP 54), unchecked.
///
/// # Errors
/// If the payload is not four bytes.
pub fn decode_dont_have(payload: &[u8]) -> Result<u32, ExtensionError> {
    payload.try_into().map(u32::from_be_bytes).map_err(|_| ExtensionError::Length(payload.len()))
}

/// The payload of `upload_only` as a message (BEP 21 as libtorrent speaks it): one byte.
///
/// # Errors
/// If the payload is not one byte.
pub fn decode_upload_only(payload: &[u8]) -> Result<bool, ExtensionError> {
    match payload {
        [flag] => Ok(*flag != 0),
        _ => Err(ExtensionError::Length(payload.len())),
    }
}

impl ExtensionIds {
    fn read(m: bencode::Value<'_>) -> ExtensionIds {
        let mut ids = ExtensionIds::default();
        for (name, id) in m.as_dict().into_iter().flatten() {
            let known = Extension::ALL.into_iter().find(|extension| extension.name().as_bytes() == name);
            if let (Some(extension), Some(Ok(id))) = (known, id.as_int().map(u8::try_from)) {
                ids.set(extension, id);
            }
        }
        ids
    }

    fn write(&self, to: &mut Encoder<'_>) {
        let mut known = Extension::ALL;
        known.sort_by_key(|extension| extension.name());
        to.key(b"m").begin_dict();
        for extension in known {
            pair(to, extension.name().as_bytes(), self.0[extension as usize].map(u32::from));
        }
        to.end();
    }
}

fn positive(int: Option<i64>, most: u32) -> Option<u32> {
    int.and_then(|int| u32::try_from(int).ok()).filter(|int| (1..=most).contains(int))
}

fn pair(to: &mut Encoder<'_>, key: &[u8], number: Option<u32>) {
    if let Some(number) = number {
        to.pair_int(key, number.into());
    }
}

#[cfg(test)]
mod tests;
