//! The packets of uTP (BEP 29): one header, a chain of extensions, a payload.
//!
//! Owns the bytes and the order of sequence numbers that wrap. Which packet is expected, believed or sent again is left
//! to `transport::utp`.
//!
//! Nothing is allocated: what is read borrows from the datagram.

use thiserror::Error;

/// Bytes of a packet before its extensions.
pub const HEADER_BYTES: usize = 20;

/// Bytes of the longest selective acknowledgement that is written: the most that one extension holds in whole words of
/// 32 bits, which tell of 2016 packets.
pub const MAX_SACK_BYTES: usize = 252;

/// The selective acknowledgement among the extensions.
pub const SACK: u8 = 1;

/// An extension of zeros, by which a packet is made larger than its payload, behind one of [`EXTENSION_BITS`]. BEP 29
/// has unknown extensions passed over; 3 is a reason for closing that some clients send.
const PADDING: u8 = 0x7e;

/// The extensions its sender knows, in eight bytes, as uTorrent once sent it. A padded packet begins with it, all zeros:
/// libutp (uTorrent, Transmission) takes a packet whose first extension is none of 0, 1 and 2 for one of another version.
pub const EXTENSION_BITS: u8 = 2;

/// Bytes of [`EXTENSION_BITS`]: libutp drops a packet with any other number.
const EXTENSION_BITS_BYTES: usize = 8;

/// The least padding there is: extension bits, and an empty extension behind them.
pub const LEAST_PADDING_BYTES: usize = EXTENSION_HEAD_BYTES + EXTENSION_BITS_BYTES + EXTENSION_HEAD_BYTES;

/// The only version there is.
const VERSION: u8 = 1;

/// Bytes of an extension before what it holds.
const EXTENSION_HEAD_BYTES: usize = 2;

/// Bytes that one extension can hold.
const EXTENSION_BYTES: usize = 255;

/// A packet's number. It wraps: which of two comes first is decided by the shorter way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Seq(pub u16);

impl Seq {
    /// The number `packets` further.
    pub const fn plus(self, packets: u16) -> Seq {
        Seq(self.0.wrapping_add(packets))
    }

    /// The number `packets` before.
    pub const fn minus(self, packets: u16) -> Seq {
        Seq(self.0.wrapping_sub(packets))
    }

    /// How many steps forward lead here from `start`, 0 to 65,535.
    pub const fn steps_from(self, start: Seq) -> u16 {
        self.0.wrapping_sub(start.0)
    }

    /// Whether this number comes before `other`. Of two that are half the circle apart neither does.
    pub const fn is_before(self, other: Seq) -> bool {
        other.steps_from(self) < self.steps_from(other)
    }
}

/// One of the two numbers by which the ends of a connection know its packets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct UtpConnectionId(pub u16);

impl UtpConnectionId {
    /// The number that follows; it wraps.
    pub const fn next(self) -> UtpConnectionId {
        UtpConnectionId(self.0.wrapping_add(1))
    }

    /// The number before; it wraps.
    pub const fn previous(self) -> UtpConnectionId {
        UtpConnectionId(self.0.wrapping_sub(1))
    }
}

/// What a packet is for (`type`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UtpKind {
    /// Payload; takes a number.
    Data = 0,
    /// The last packet of this direction; takes a number.
    Fin = 1,
    /// An acknowledgement alone; takes no number.
    State = 2,
    /// There is no such connection, or no longer.
    Reset = 3,
    /// Asks for a connection; takes a number.
    Syn = 4,
}

/// The fixed part of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UtpHeader {
    /// What it is for.
    pub kind: UtpKind,
    /// By which the receiver knows the connection. In a SYN: by which the sender will.
    pub connection: UtpConnectionId,
    /// The sender's clock when it was sent, in microseconds; wraps.
    pub timestamp: u32,
    /// How much later, by its own clock, the sender heard the last packet than that packet's timestamp says, in
    /// microseconds; wraps. 0: it heard none.
    pub timestamp_difference: u32,
    /// Bytes the sender has room for.
    pub window: u32,
    /// This packet's number; in one that takes none, the number the next will have.
    pub seq: Seq,
    /// The last number up to which the sender has heard all.
    pub ack: Seq,
}

/// A packet, as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UtpPacket<'a> {
    /// The fixed part.
    pub header: UtpHeader,
    /// What came beyond a gap, if the sender says.
    pub sack: Option<Sack<'a>>,
    /// What stands behind the extensions.
    pub payload: &'a [u8],
}

/// A selective acknowledgement: bit 0 of byte 0 stands for the packet `ack + 2`, bit 1 for `ack + 3` and so on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sack<'a>(pub &'a [u8]);

/// Bytes that are no packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum UtpError {
    /// Another protocol, version or kind.
    #[error("not of this protocol")]
    Unknown,
    /// Shorter than a header, or than its extensions say.
    #[error("datagram too short")]
    TooShort,
}

/// Whether a datagram can be of this protocol. None of the others that share its socket can: messages of the DHT begin
/// with `d`, and answers of UDP trackers with a byte of zeros, which is no version of uTP.
pub fn looks_like_utp(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_BYTES && bytes[0] & 0x0f == VERSION && bytes[0] >> 4 <= UtpKind::Syn as u8
}

impl UtpHeader {
    /// The header, followed by an extension of kind `extension`, or 0 for none.
    pub fn encode(&self, extension: u8) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = (self.kind as u8) << 4 | VERSION;
        bytes[1] = extension;
        bytes[2..4].copy_from_slice(&self.connection.0.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.timestamp_difference.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.window.to_be_bytes());
        bytes[16..18].copy_from_slice(&self.seq.0.to_be_bytes());
        bytes[18..20].copy_from_slice(&self.ack.0.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<UtpHeader, UtpError> {
        let kind = match bytes[0] {
            0x01 => UtpKind::Data,
            0x11 => UtpKind::Fin,
            0x21 => UtpKind::State,
            0x31 => UtpKind::Reset,
            0x41 => UtpKind::Syn,
            _ => return Err(UtpError::Unknown),
        };
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) << 16 | u32::from(u16_at(at + 2));
        Ok(UtpHeader {
            kind,
            connection: UtpConnectionId(u16_at(2)),
            timestamp: u32_at(4),
            timestamp_difference: u32_at(8),
            window: u32_at(12),
            seq: Seq(u16_at(16)),
            ack: Seq(u16_at(18)),
        })
    }
}

impl<'a> UtpPacket<'a> {
    /// Reads a datagram. Extensions that are not known are passed over; of several selective acknowledgements the first
    /// counts. One whose length is no multiple of four is read as far as it goes.
    ///
    /// # Errors
    /// If it is none, or ends before its extensions do.
    pub fn decode(bytes: &'a [u8]) -> Result<UtpPacket<'a>, UtpError> {
        let (head, mut rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(UtpError::TooShort)?;
        let header = UtpHeader::decode(head)?;
        let (mut kind, mut sack) = (head[1], None);
        while kind != 0 {
            let (&[next, len], behind) =
                rest.split_first_chunk::<EXTENSION_HEAD_BYTES>().ok_or(UtpError::TooShort)?;
            let (held, behind) = behind.split_at_checked(usize::from(len)).ok_or(UtpError::TooShort)?;
            if kind == SACK && sack.is_none() {
                sack = Some(Sack(held));
            }
            (kind, rest) = (next, behind);
        }
        Ok(UtpPacket { header, sack, payload: rest })
    }
}

impl Sack<'_> {
    /// How far beyond `ack + 2` each packet lies that came, in rising order.
    pub fn set_bits(self) -> impl Iterator<Item = u16> {
        let bytes = self.0.iter().enumerate().filter(|(_, byte)| **byte != 0);
        bytes.flat_map(|(at, byte)| {
            (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at as u16 * 8 + bit)
        })
    }
}

/// Writes a selective acknowledgement as the last extension. `came` says, of `ack + 2` and each packet behind it, whether
/// it came; what does not fit [`MAX_SACK_BYTES`] is left out.
pub fn encode_sack(came: impl ExactSizeIterator<Item = bool>, out: &mut Vec<u8>) {
    let len = came.len().div_ceil(8).next_multiple_of(4).clamp(4, MAX_SACK_BYTES);
    out.extend([0, len as u8]);
    let start = out.len();
    out.resize(start + len, 0);
    for (at, _) in came.take(len * 8).enumerate().filter(|(_, came)| *came) {
        out[start + at / 8] |= 1 << (at % 8);
    }
}

/// Writes `bytes` bytes of extensions that say nothing, as the last ones: at least [`LEAST_PADDING_BYTES`]. The first of
/// them is [`EXTENSION_BITS`].
pub fn encode_padding(bytes: usize, out: &mut Vec<u8>) {
    debug_assert!(bytes >= LEAST_PADDING_BYTES, "extensions have a least size");
    out.extend([PADDING, EXTENSION_BITS_BYTES as u8]);
    out.resize(out.len() + EXTENSION_BITS_BYTES, 0);
    let mut bytes = bytes.saturating_sub(EXTENSION_HEAD_BYTES + EXTENSION_BITS_BYTES);
    while bytes >= EXTENSION_HEAD_BYTES {
        let mut block = bytes.min(EXTENSION_HEAD_BYTES + EXTENSION_BYTES);
        // A single byte left over could not be an extension.
        if bytes - block == 1 {
            block -= 1;
        }
        bytes -= block;
        let held = block - EXTENSION_HEAD_BYTES;
        out.extend([if bytes == 0 { 0 } else { PADDING }, held as u8]);
        out.resize(out.len() + held, 0);
    }
}

#[cfg(test)]
mod tests;
