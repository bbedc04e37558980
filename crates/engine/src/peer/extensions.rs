//! The extension protocol on one connection (BEP 10): what the peer said about itself, and what we say.

use piecemeal_metainfo::PieceIndex;
use piecemeal_wire::extension::{
    Extension, ExtensionHandshake, ExtensionIds, HANDSHAKE_ID, decode_dont_have, decode_upload_only,
    encode_dont_have,
};
use piecemeal_wire::message::Message;

use super::{Heard, PeerConnection};
use crate::cx::{Cx, Goodbye};

/// Requests we say we hold ("reqq"): libtorrent asks for at most 500, and nobody for more.
const REQUESTS_HELD: u32 = 500;

/// What a peer's extension handshake means to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hello {
    /// Where it listens.
    pub port: Option<u16>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Extensions {
    spoken: bool,
    theirs: ExtensionIds,
    client: Option<String>,
    upload_only: bool,
}

impl Extensions {
    pub(super) fn new(spoken: bool) -> Extensions {
        Extensions { spoken, theirs: ExtensionIds::default(), client: None, upload_only: false }
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
}

impl PeerConnection {
    /// Introduces us, if the peer speaks the extension protocol.
    pub fn greet(&mut self, cx: &mut Cx<'_>, ourselves: &Ourselves<'_>) {
        if !self.extensions.spoken {
            return;
        }
        let hello = ExtensionHandshake {
            ids: ExtensionIds::own([Extension::DontHave, Extension::UploadOnly]),
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
        if let Some(id) = self.extensions.theirs.get(Extension::DontHave) {
            let payload = encode_dont_have(piece.0);
            self.tell(cx, |out| Message::Extended { id, payload: &payload }.encode(out));
        }
    }

    /// Says whether we want nothing more, if the peer understands that (BEP 21).
    pub fn tell_upload_only(&mut self, cx: &mut Cx<'_>, upload_only: bool) {
        if let Some(id) = self.extensions.theirs.get(Extension::UploadOnly) {
            self.tell(cx, |out| Message::Extended { id, payload: &[u8::from(upload_only)] }.encode(out));
        }
    }

    /// An extended message came. One of an extension that we did not offer is passed over.
    pub(super) fn extended(&mut self, id: u8, payload: &[u8]) -> Result<Option<Heard>, Goodbye> {
        if id == HANDSHAKE_ID {
            return self.hello(payload).map(Some);
        }
        let broken = |_| Goodbye::Broke("sends an extension message that cannot be read");
        match Extension::from_own_id(id) {
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
            _ => Ok(None),
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
        if let Some(upload_only) = hello.upload_only {
            self.extensions.upload_only = upload_only;
        }
        Ok(Heard::Hello(Hello { port: hello.port }))
    }
}
