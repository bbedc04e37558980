//! The messages between peers after the handshake: BEP 3, BEP 5 (`port`), BEP 6, BEP 10 (`extended`) and BEP 52
//! (hashes).
//!
//! Owns the framing: which bytes make a message and which length each kind may have. The length prefix is judged as
//! soon as the kind is known, so nobody waits, or takes memory, for a message that will be refused anyway. Whether a
//! message is welcome (a second bitfield, an index past the last piece, spare bits of a bitfield, a request while
//! choked) is the PeerConnection's to judge: that needs memory between calls, and there is none here.

use piecemeal_metainfo::MAX_PIECES;
use thiserror::Error;

/// A message of no length, which only says that the sender lives.
pub const KEEP_ALIVE: [u8; 4] = [0; 4];

/// Bytes of a `piece` message before its payload: prefix, id, piece, begin.
pub const PIECE_HEADER_BYTES: usize = 13;

/// Hashes in one `hashes` message: BEP 52 allows 512 to be asked for, and a proof has one per level of a tree of at
/// most 2^64 leaves.
pub const MAX_HASHES: u32 = 512 + 64;

/// Length of an unknown message that is still worth skipping rather than closing.
pub const MAX_UNKNOWN_BYTES: u32 = 1 << 20;

/// What lengths are accepted. Facts of the torrent and of our settings; the codec remembers nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Pieces of the torrent, `None` before the metadata is known. With it, a bitfield must fit exactly.
    pub pieces: Option<u32>,
    /// Payload bytes of a `piece` message.
    pub max_block: u32,
    /// Length prefix of an `extended` message: both ids and the payload, in bytes.
    pub max_extended: u32,
}

impl Default for Limits {
    /// 16 KiB blocks (BEP 3: larger requests are dropped), 1 MiB extended messages, no metadata yet.
    fn default() -> Limits {
        Limits { pieces: None, max_block: 16 << 10, max_extended: 1 << 20 }
    }
}

/// A span of hashes in one file's tree (BEP 52, "hash request"). Every number is as the peer claims it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashRange {
    /// `pieces root` of the file.
    pub root: [u8; 32],
    /// Layer of the first hash, 0 being the leaves.
    pub base_layer: u32,
    /// Index of the first hash in that layer.
    pub index: u32,
    /// How many hashes.
    pub length: u32,
    /// How many layers of uncles above.
    pub proof_layers: u32,
}

/// A message that is looked at whole, borrowing what it was read from. Numbers are as the peer claims them: check
/// a piece against the torrent before making a `PieceIndex` of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// 0: your requests are not answered now.
    Choke,
    /// 1: they are.
    Unchoke,
    /// 2: you have something I want.
    Interested,
    /// 3: you have not.
    NotInterested,
    /// 4: I have this piece now.
    Have {
        /// Index, unchecked.
        piece: u32,
    },
    /// 5: the pieces I have, first piece in the highest bit of the first byte. The length is checked, the spare bits
    /// are not.
    Bitfield(&'a [u8]),
    /// 6: send me this block.
    Request {
        /// Index, unchecked.
        piece: u32,
        /// Byte within the piece, unchecked.
        begin: u32,
        /// Bytes, unchecked.
        len: u32,
    },
    /// 8: no longer.
    Cancel {
        /// Index, unchecked.
        piece: u32,
        /// Byte within the piece, unchecked.
        begin: u32,
        /// Bytes, unchecked.
        len: u32,
    },
    /// 9: my DHT node listens at this UDP port (BEP 5).
    Port(u16),
    /// 13: this piece is cheap for me to send (BEP 6).
    Suggest {
        /// Index, unchecked.
        piece: u32,
    },
    /// 14: instead of a bitfield of ones (BEP 6).
    HaveAll,
    /// 15: instead of a bitfield of zeros (BEP 6).
    HaveNone,
    /// 16: this request will not be answered (BEP 6).
    Reject {
        /// Index, unchecked.
        piece: u32,
        /// Byte within the piece, unchecked.
        begin: u32,
        /// Bytes, unchecked.
        len: u32,
    },
    /// 17: ask for this piece even while choked (BEP 6).
    AllowedFast {
        /// Index, unchecked.
        piece: u32,
    },
    /// 20: a message of an extension (BEP 10).
    Extended {
        /// 0 for the extension handshake, else the number the receiver gave to the extension.
        id: u8,
        /// What follows, for `extension`, `metadata` or `pex` to read.
        payload: &'a [u8],
    },
    /// 21: send me these hashes (BEP 52).
    HashRequest(HashRange),
    /// 22: here they are, base layer first, then the uncles (BEP 52).
    Hashes(HashRange, &'a [[u8; 32]]),
    /// 23: I will not (BEP 52).
    HashReject(HashRange),
    /// Any other id: to be ignored.
    Unknown {
        /// The id.
        id: u8,
        /// What follows.
        payload: &'a [u8],
    },
}

/// What stands at the start of the received bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Head<'a> {
    /// Not yet decidable; nothing is consumed. [`needed`] tells how many bytes make a difference.
    NeedMore,
    /// Four bytes, all consumed.
    KeepAlive,
    /// A whole message.
    Message {
        /// The message.
        message: Message<'a>,
        /// Bytes it took, prefix included.
        consumed: usize,
    },
    /// A block begins; its payload follows and can be taken as it comes.
    Piece {
        /// Index, unchecked.
        piece: u32,
        /// Byte within the piece, unchecked.
        begin: u32,
        /// Bytes of payload that follow, 0 to [`Limits::max_block`].
        len: u32,
        /// [`PIECE_HEADER_BYTES`].
        consumed: usize,
    },
}

/// The peer broke the framing; the connection cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum WireError {
    /// No kind of message may be that long.
    #[error("a message of {len} bytes is longer than any may be")]
    TooLong {
        /// The length prefix, bytes.
        len: u32,
    },
    /// This kind of message may not have that length.
    #[error("message {id} cannot have a length of {len} bytes")]
    BadLength {
        /// The kind.
        id: u8,
        /// The length prefix, bytes.
        len: u32,
    },
}

/// Reads what `buf` starts with. Borrows; allocates nothing.
///
/// # Errors
/// As soon as four bytes show a length no message has, or five bytes one this kind of message has not.
pub fn decode_head<'a>(buf: &'a [u8], limits: &Limits) -> Result<Head<'a>, WireError> {
    let Some((prefix, rest)) = buf.split_first_chunk::<4>() else { return Ok(Head::NeedMore) };
    let len = u32::from_be_bytes(*prefix);
    if len == 0 {
        return Ok(Head::KeepAlive);
    }
    if len > limits.longest() {
        return Err(WireError::TooLong { len });
    }
    let Some((&id, body)) = rest.split_first() else { return Ok(Head::NeedMore) };
    if !limits.allow(id, len) {
        return Err(WireError::BadLength { id, len });
    }
    if id == id::PIECE {
        let Some(&[piece, begin]) = numbers(body) else { return Ok(Head::NeedMore) };
        let [piece, begin] = [piece, begin].map(u32::from_be_bytes);
        return Ok(Head::Piece { piece, begin, len: len - 9, consumed: PIECE_HEADER_BYTES });
    }
    let Some(body) = body.get(..len as usize - 1) else { return Ok(Head::NeedMore) };
    let message = Message::read(id, body).ok_or(WireError::BadLength { id, len })?;
    Ok(Head::Message { message, consumed: 4 + len as usize })
}

/// How long `buf` must become before [`decode_head`] can say more than `NeedMore`. Ask only after it said so: then
/// the answer is bounded by the limits it was given.
pub fn needed(buf: &[u8]) -> usize {
    let Some((prefix, rest)) = buf.split_first_chunk::<4>() else { return 4 };
    let len = u32::from_be_bytes(*prefix) as usize;
    match rest.first() {
        _ if len == 0 => 4,
        None => 5,
        Some(&id::PIECE) => PIECE_HEADER_BYTES,
        Some(_) => len.saturating_add(4),
    }
}

/// What goes before the `len` bytes of a block, all in bytes.
pub fn piece_header(piece: u32, begin: u32, len: u32) -> [u8; PIECE_HEADER_BYTES] {
    let mut header = [0; PIECE_HEADER_BYTES];
    header[..4].copy_from_slice(&len.saturating_add(9).to_be_bytes());
    header[4] = id::PIECE;
    header[5..9].copy_from_slice(&piece.to_be_bytes());
    header[9..].copy_from_slice(&begin.to_be_bytes());
    header
}

impl Limits {
    /// The longest prefix any kind of message may carry, so that four bytes can be judged alone.
    fn longest(&self) -> u32 {
        let block = self.max_block.saturating_add(9);
        block.max(self.max_extended).max(self.bitfield_range().1).max(HASHES_MAX).max(MAX_UNKNOWN_BYTES)
    }

    fn bitfield_range(&self) -> (u32, u32) {
        match self.pieces {
            Some(pieces) => (1 + pieces.div_ceil(8), 1 + pieces.div_ceil(8)),
            None => (1, 1 + MAX_PIECES / 8),
        }
    }

    fn allow(&self, id: u8, len: u32) -> bool {
        let (least, most) = match id {
            id::CHOKE | id::UNCHOKE | id::INTERESTED | id::NOT_INTERESTED | id::HAVE_ALL | id::HAVE_NONE => {
                (1, 1)
            }
            id::HAVE | id::SUGGEST | id::ALLOWED_FAST => (5, 5),
            id::BITFIELD => self.bitfield_range(),
            id::REQUEST | id::CANCEL | id::REJECT => (13, 13),
            id::PIECE => (9, self.max_block.saturating_add(9)),
            id::PORT => (3, 3),
            id::EXTENDED => (2, self.max_extended),
            id::HASH_REQUEST | id::HASH_REJECT => (HASH_RANGE, HASH_RANGE),
            id::HASHES => (HASH_RANGE, HASHES_MAX),
            _ => (1, MAX_UNKNOWN_BYTES),
        };
        let whole_hashes = id != id::HASHES || (len.wrapping_sub(HASH_RANGE)).is_multiple_of(32);
        (least..=most).contains(&len) && whole_hashes
    }
}

impl<'a> Message<'a> {
    /// Appends the message with its length prefix.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let len = u32::try_from(self.encoded_len() - 4).expect("a message is shorter than 4 GiB");
        out.reserve(self.encoded_len());
        out.extend_from_slice(&len.to_be_bytes());
        out.push(self.id());
        match *self {
            Message::Choke | Message::Unchoke | Message::Interested | Message::NotInterested => {}
            Message::HaveAll | Message::HaveNone => {}
            Message::Have { piece } | Message::Suggest { piece } | Message::AllowedFast { piece } => {
                out.extend_from_slice(&piece.to_be_bytes());
            }
            Message::Request { piece, begin, len }
            | Message::Cancel { piece, begin, len }
            | Message::Reject { piece, begin, len } => {
                out.extend([piece, begin, len].into_iter().flat_map(u32::to_be_bytes));
            }
            Message::Port(port) => out.extend_from_slice(&port.to_be_bytes()),
            Message::Bitfield(payload) | Message::Unknown { payload, .. } => out.extend_from_slice(payload),
            Message::Extended { id, payload } => {
                out.push(id);
                out.extend_from_slice(payload);
            }
            Message::HashRequest(range) | Message::HashReject(range) => range.encode(out),
            Message::Hashes(range, hashes) => {
                range.encode(out);
                out.extend_from_slice(hashes.as_flattened());
            }
        }
    }

    /// Bytes [`Message::encode`] appends, prefix included.
    pub fn encoded_len(&self) -> usize {
        5 + match self {
            Message::Choke | Message::Unchoke | Message::Interested | Message::NotInterested => 0,
            Message::HaveAll | Message::HaveNone => 0,
            Message::Have { .. } | Message::Suggest { .. } | Message::AllowedFast { .. } => 4,
            Message::Request { .. } | Message::Cancel { .. } | Message::Reject { .. } => 12,
            Message::Port(_) => 2,
            Message::Bitfield(payload) | Message::Unknown { payload, .. } => payload.len(),
            Message::Extended { payload, .. } => 1 + payload.len(),
            Message::HashRequest(_) | Message::HashReject(_) => HashRange::BYTES,
            Message::Hashes(_, hashes) => HashRange::BYTES + hashes.as_flattened().len(),
        }
    }

    /// The number of this kind of message on the wire.
    pub fn id(&self) -> u8 {
        match self {
            Message::Choke => id::CHOKE,
            Message::Unchoke => id::UNCHOKE,
            Message::Interested => id::INTERESTED,
            Message::NotInterested => id::NOT_INTERESTED,
            Message::Have { .. } => id::HAVE,
            Message::Bitfield(_) => id::BITFIELD,
            Message::Request { .. } => id::REQUEST,
            Message::Cancel { .. } => id::CANCEL,
            Message::Port(_) => id::PORT,
            Message::Suggest { .. } => id::SUGGEST,
            Message::HaveAll => id::HAVE_ALL,
            Message::HaveNone => id::HAVE_NONE,
            Message::Reject { .. } => id::REJECT,
            Message::AllowedFast { .. } => id::ALLOWED_FAST,
            Message::Extended { .. } => id::EXTENDED,
            Message::HashRequest(_) => id::HASH_REQUEST,
            Message::Hashes(..) => id::HASHES,
            Message::HashReject(_) => id::HASH_REJECT,
            Message::Unknown { id, .. } => *id,
        }
    }

    /// A body whose length was judged; `None` would mean that the judge and this disagree.
    fn read(id: u8, body: &'a [u8]) -> Option<Message<'a>> {
        Some(match id {
            id::CHOKE => Message::Choke,
            id::UNCHOKE => Message::Unchoke,
            id::INTERESTED => Message::Interested,
            id::NOT_INTERESTED => Message::NotInterested,
            id::HAVE_ALL => Message::HaveAll,
            id::HAVE_NONE => Message::HaveNone,
            id::HAVE => Message::Have { piece: number(body)? },
            id::SUGGEST => Message::Suggest { piece: number(body)? },
            id::ALLOWED_FAST => Message::AllowedFast { piece: number(body)? },
            id::BITFIELD => Message::Bitfield(body),
            id::REQUEST | id::CANCEL | id::REJECT => {
                let [piece, begin, len] = numbers(body)?.map(u32::from_be_bytes);
                match id {
                    id::REQUEST => Message::Request { piece, begin, len },
                    id::CANCEL => Message::Cancel { piece, begin, len },
                    _ => Message::Reject { piece, begin, len },
                }
            }
            id::PORT => Message::Port(u16::from_be_bytes(*body.first_chunk()?)),
            id::EXTENDED => {
                let (&id, payload) = body.split_first()?;
                Message::Extended { id, payload }
            }
            id::HASH_REQUEST => Message::HashRequest(HashRange::read(body)?),
            id::HASH_REJECT => Message::HashReject(HashRange::read(body)?),
            id::HASHES => {
                Message::Hashes(HashRange::read(body)?, body.get(HashRange::BYTES..)?.as_chunks().0)
            }
            id => Message::Unknown { id, payload: body },
        })
    }
}

impl HashRange {
    /// Bytes on the wire: a root and four numbers.
    const BYTES: usize = 48;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.root);
        let numbers = [self.base_layer, self.index, self.length, self.proof_layers];
        out.extend(numbers.into_iter().flat_map(u32::to_be_bytes));
    }

    fn read(body: &[u8]) -> Option<HashRange> {
        let (root, rest) = body.split_first_chunk::<32>()?;
        let [base_layer, index, length, proof_layers] = numbers(rest)?.map(u32::from_be_bytes);
        Some(HashRange { root: *root, base_layer, index, length, proof_layers })
    }
}

/// Length prefix of a hash request or reject: the id and a [`HashRange`].
const HASH_RANGE: u32 = 1 + HashRange::BYTES as u32;
/// Longest length prefix of `hashes`.
const HASHES_MAX: u32 = HASH_RANGE + 32 * MAX_HASHES;

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

fn numbers<const N: usize>(bytes: &[u8]) -> Option<&[[u8; 4]; N]> {
    bytes.as_chunks().0.first_chunk()
}

/// The numbers of the messages.
mod id {
    pub const CHOKE: u8 = 0;
    pub const UNCHOKE: u8 = 1;
    pub const INTERESTED: u8 = 2;
    pub const NOT_INTERESTED: u8 = 3;
    pub const HAVE: u8 = 4;
    pub const BITFIELD: u8 = 5;
    pub const REQUEST: u8 = 6;
    pub const PIECE: u8 = 7;
    pub const CANCEL: u8 = 8;
    pub const PORT: u8 = 9;
    pub const SUGGEST: u8 = 13;
    pub const HAVE_ALL: u8 = 14;
    pub const HAVE_NONE: u8 = 15;
    pub const REJECT: u8 = 16;
    pub const ALLOWED_FAST: u8 = 17;
    pub const EXTENDED: u8 = 20;
    pub const HASH_REQUEST: u8 = 21;
    pub const HASHES: u8 = 22;
    pub const HASH_REJECT: u8 = 23;
}

#[cfg(test)]
mod tests;
