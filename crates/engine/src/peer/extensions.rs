//! The extension protocol on one connection (BEP 10): what the peer said about itself, and what we say.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_metainfo::{PieceIndex, Time};
use piecemeal_wire::extension::{
    Extension, ExtensionHandshake, ExtensionIds, HANDSHAKE_ID, decode_dont_have, decode_upload_only,
    encode_dont_have,
};
use piecemeal_wire::holepunch::HolepunchMessage;
use piecemeal_wire::message::Message;
use piecemeal_wire::metadata::{METADATA_PIECE_BYTES, MetadataMessage, metadata_piece_len, metadata_pieces};
use piecemeal_wire::pex::PexMessage;

use super::{Heard, PeerConnection};
use crate::cx::{Cx, Goodbye};

/// Requests we say we hold ("reqq"): libtorrent asks for at most 500, and nobody for more.
const REQUESTS_HELD: u32 = 500;

/// Copies of the info dictionary one connection is given: one, and another should the first be damaged.
const MOST_COPIES: u32 = 2;
/// Messages of PEX in this time that are borne; as libtorrent.
const PEX_WINDOW: Duration = Duration::from_secs(60);
const MOST_PEX: u32 = 6;

/// What a peer's extension handshake means to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hello {
    /// Where it listens.
    pub port: Option<u16>,
    /// How it sees us.
    pub your_ip: Option<IpAddr>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Extensions {
    spoken: bool,
    theirs: ExtensionIds,
    client: Option<String>,
    upload_only: bool,
    metadata_size: Option<u32>,
    /// Where it listens, by its own word.
    port: Option<u16>,
    /// Pieces of the info dictionary it was given.
    metadata_given: u32,
    /// When it last told of peers, and how often in the minute before.
    pex_since: Time,
    pex_count: u32,
}

impl Extensions {
    pub(super) fn new(spoken: bool) -> Extensions {
        Extensions {
            spoken,
            theirs: ExtensionIds::default(),
            client: None,
            upload_only: false,
            metadata_size: None,
            port: None,
            metadata_given: 0,
            pex_since: Time::ZERO,
            pex_count: 0,
        }
    }

    pub(super) fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    pub(super) fn upload_only(&self) -> bool {
        self.upload_only
    }
}

/// What we say about ourselves.
#[derive(Clone, Copy, Debug)]
pub struct Ourselves<'a> {
    /// The name of this program.
    pub client: &'a str,
    /// Where we listen; 0: nowhere.
    pub port: u16,
    /// We want nothing more.
    pub upload_only: bool,
    /// Bytes of the info dictionary we can give (BEP 9).
    pub metadata_size: Option<u32>,
    /// We tell of peers and want to be told (BEP 11).
    pub pex: bool,
    /// We call peers through NATs, and help others to (BEP 55).
    pub holepunch: bool,
}

impl PeerConnection {
    /// Introduces us, if the peer speaks the extension protocol.
    pub fn greet(&mut self, cx: &mut Cx<'_>, ourselves: &Ourselves<'_>) {
        if !self.extensions.spoken {
            return;
        }
        let always = [Extension::DontHave, Extension::UploadOnly, Extension::Metadata];
        let pex = ourselves.pex.then_some(Extension::Pex);
        let sometimes = [pex, ourselves.holepunch.then_some(Extension::Holepunch)];
        let hello = ExtensionHandshake {
            ids: ExtensionIds::own(always.into_iter().chain(sometimes.into_iter().flatten())),
            metadata_size: ourselves.metadata_size,
            client: Some(ourselves.client.to_owned()),
            port: Some(ourselves.port).filter(|port| *port != 0),
            your_ip: Some(self.addr.ip().to_canonical()),
            reqq: Some(REQUESTS_HELD),
            upload_only: Some(ourselves.upload_only),
            ..ExtensionHandshake::default()
        };
        let payload = hello.encode();
        self.tell(cx, |out| Message::Extended { id: HANDSHAKE_ID, payload: &payload }.encode(out));
    }

    /// Says that we have one piece less, if the peer understands that (BEP 54).
    pub fn have_not(&mut self, cx: &mut Cx<'_>, piece: PieceIndex) {
        self.say(cx, Extension::DontHave, |out| out.extend(encode_dont_have(piece.0)));
    }

    /// Says whether we want nothing more, if the peer understands that (BEP 21).
    pub fn tell_upload_only(&mut self, cx: &mut Cx<'_>, upload_only: bool) {
        self.say(cx, Extension::UploadOnly, |out| out.push(u8::from(upload_only)));
    }

    /// An extended message came. One of an extension that we did not offer is passed over.
    pub(super) fn extended(
        &mut self,
        cx: &mut Cx<'_>,
        id: u8,
        payload: &[u8],
    ) -> Result<Option<Heard>, Goodbye> {
        if id == HANDSHAKE_ID {
            return self.hello(payload).map(Some);
        }
        let broken = |_| Goodbye::Broke("sends an extension message that cannot be read");
        match Extension::from_own_id(id) {
            // Before the torrent is known that says nothing.
            Some(Extension::DontHave) if self.limits.pieces.is_none() => Ok(None),
            Some(Extension::DontHave) => {
                let piece = self.piece(decode_dont_have(payload).map_err(broken)?)?;
                let had_all = std::mem::take(&mut self.joined_full);
                let had = self.has.unset(piece);
                Ok((had || had_all).then_some(Heard::DontHave { piece, had_all }))
            }
            Some(Extension::UploadOnly) => {
                self.extensions.upload_only = decode_upload_only(payload).map_err(broken)?;
                Ok(None)
            }
            Some(Extension::Metadata) => Ok(match MetadataMessage::decode(payload).map_err(broken)? {
                MetadataMessage::Request { piece } => Some(Heard::WantsMetadata(piece)),
                MetadataMessage::Data { piece, total_size, data } => {
                    Some(Heard::Metadata { piece, total: total_size, data: data.to_vec() })
                }
                MetadataMessage::Reject { piece } => Some(Heard::NoMetadata(piece)),
                MetadataMessage::Unknown => None,
            }),
            Some(Extension::Pex) => {
                let message = PexMessage::decode(payload).map_err(broken)?;
                self.count_pex(cx.now)?;
                Ok(Some(Heard::Pex(message)))
            }
            Some(Extension::Holepunch) => {
                Ok(HolepunchMessage::decode(payload).map_err(broken)?.map(Heard::Holepunch))
            }
            None => Ok(None),
        }
    }

    /// BEP 11 allows one message a minute; some send two at the start.
    fn count_pex(&mut self, now: Time) -> Result<(), Goodbye> {
        let extensions = &mut self.extensions;
        if now.since(extensions.pex_since) >= PEX_WINDOW {
            (extensions.pex_since, extensions.pex_count) = (now, 0);
        }
        extensions.pex_count += 1;
        if extensions.pex_count > MOST_PEX { Err(Goodbye::Broke("tells of peers too often")) } else { Ok(()) }
    }

    /// Bytes of the info dictionary, by its word; `None` if it has none to give.
    pub fn metadata_size(&self) -> Option<u32> {
        self.extensions.metadata_size.filter(|_| self.extensions.theirs.get(Extension::Metadata).is_some())
    }

    /// Asks for a piece of the info dictionary.
    pub fn ask_metadata(&mut self, cx: &mut Cx<'_>, piece: u32) {
        self.say(cx, Extension::Metadata, |out| MetadataMessage::Request { piece }.encode(out));
    }

    /// Gives a piece of the info dictionary, or says that it will not: so much of it was given already that the peer
    /// cannot need more.
    pub fn give_metadata(&mut self, cx: &mut Cx<'_>, info: &[u8], piece: u32) {
        let total_size = u32::try_from(info.len()).unwrap_or(0);
        let most = MOST_COPIES * metadata_pieces(total_size);
        let len = metadata_piece_len(piece, total_size).filter(|_| self.extensions.metadata_given < most);
        self.extensions.metadata_given += 1;
        let begin = piece as usize * METADATA_PIECE_BYTES as usize;
        self.say(cx, Extension::Metadata, |out| match len {
            Some(len) => {
                let data = &info[begin..begin + len as usize];
                MetadataMessage::Data { piece, total_size, data }.encode(out);
            }
            None => MetadataMessage::Reject { piece }.encode(out),
        });
    }

    /// Whether it wants to be told of peers.
    pub fn wants_pex(&self) -> bool {
        self.extensions.theirs.get(Extension::Pex).is_some()
    }

    /// Tells it of peers.
    pub fn tell_pex(&mut self, cx: &mut Cx<'_>, message: &PexMessage) {
        self.say(cx, Extension::Pex, |out| out.extend(message.encode()));
    }

    /// Whether it can be told of holes.
    pub fn speaks_holepunch(&self) -> bool {
        self.extensions.theirs.get(Extension::Holepunch).is_some()
    }

    /// Says something of holes.
    pub fn tell_holepunch(&mut self, cx: &mut Cx<'_>, message: HolepunchMessage) {
        self.say(cx, Extension::Holepunch, |out| message.encode(out));
    }

    /// Where it can be reached: the address we called, or by its own word.
    pub fn listens_at(&self) -> Option<SocketAddr> {
        if self.is_outgoing() {
            return Some(self.addr);
        }
        self.extensions.port.map(|port| SocketAddr::new(self.addr.ip(), port))
    }

    /// Says something by an extension, if the peer understands it.
    fn say(&mut self, cx: &mut Cx<'_>, extension: Extension, encode: impl FnOnce(&mut Vec<u8>)) {
        if let Some(id) = self.extensions.theirs.get(extension) {
            let mut payload = Vec::new();
            encode(&mut payload);
            self.tell(cx, |out| Message::Extended { id, payload: &payload }.encode(out));
        }
    }

    fn hello(&mut self, payload: &[u8]) -> Result<Heard, Goodbye> {
        let hello = ExtensionHandshake::decode(payload)
            .map_err(|_| Goodbye::Broke("sends an extension handshake that cannot be read"))?;
        self.extensions.theirs.update(&hello.ids);
        if let Some(client) = hello.client {
            self.extensions.client = Some(client);
        }
        if let Some(reqq) = hello.reqq {
            self.cap_requests(reqq);
        }
        self.extensions.port = hello.port.or(self.extensions.port);
        self.extensions.metadata_size = hello.metadata_size.or(self.extensions.metadata_size);
        if let Some(upload_only) = hello.upload_only {
            self.extensions.upload_only = upload_only;
        }
        Ok(Heard::Hello(Hello { port: hello.port, your_ip: hello.your_ip }))
    }
}
