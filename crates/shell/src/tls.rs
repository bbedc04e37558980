//! TLS with the peers of a torrent that has a root certificate (an SSL torrent, as libtorrent defines it).
//!
//! Owns how two ends prove to each other that they belong to the torrent: each shows a certificate that the torrent's root
//! signed, and that is made out to the torrent's name or to `*`; the caller names the torrent by its info-hash, in
//! hexadecimal digits, as the server's name (RFC 6066). Records, keys and signatures are `rustls`'s. What both say inside,
//! and who may ask for what, is the Server's business.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use piecemeal_metainfo::{InfoHash, InfoHashes, TorrentId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Acceptor, NoServerSessionStorage, ParsedCertificate};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct, DistinguishedName,
    Error, RootCertStore, ServerConfig, SignatureScheme,
};
use x509_parser::extensions::GeneralName;

/// A certificate made out to this belongs to every torrent of its root.
const ANY_NAME: &str = "*";

/// Bytes by which a ClientHello is told from the other handshakes on the same port: a record of the handshake, version 3.x,
/// its length, and the message ClientHello (RFC 8446, 4.1.2 and 5.1).
const HELLO_BYTES: usize = 6;

/// Who we are to the peers of one torrent, and whom we believe to be one.
#[derive(Clone, Debug)]
pub struct Identity {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// Why there is no identity.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentityError {
    /// The torrent's own certificate is of no use.
    #[error("the torrent's root certificate: {0}")]
    Root(String),
    /// Our certificate cannot be read.
    #[error("the certificate: {0}")]
    Certificate(String),
    /// Our key cannot be read, or is not that of the certificate.
    #[error("the key: {0}")]
    Key(String),
    /// Peers would not believe us.
    #[error("the certificate is none of this torrent: {0}")]
    Foreign(String),
}

impl Identity {
    /// From what the torrent says (its `root` certificate in PEM, its `name`), and our certificate, with those between it and
    /// the root behind it, and its key, both in PEM.
    ///
    /// # Errors
    /// See [`IdentityError`]; a certificate that the peers would refuse is refused here.
    pub fn new(root: &str, name: &str, chain: &[u8], key: &[u8]) -> Result<Identity, IdentityError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let root = CertificateDer::from_pem_slice(root.as_bytes());
        let mut roots = RootCertStore::empty();
        root.map_err(|why| why.to_string())
            .and_then(|root| roots.add(root).map_err(|why| why.to_string()))
            .map_err(IdentityError::Root)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|why| IdentityError::Certificate(why.to_string()))?;
        let Some((own, between)) = chain.split_first() else {
            return Err(IdentityError::Certificate("there is none in the PEM format".into()));
        };
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|why| IdentityError::Key(why.to_string()))?;
        let judge = Arc::new(Judge { roots, name: name.to_owned(), provider: provider.clone() });
        judge.judge(own, between, UnixTime::now()).map_err(|why| IdentityError::Foreign(in_words(&why)))?;
        let wrong_key = |why: Error| IdentityError::Key(why.to_string());
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(wrong_key)?
            .dangerous()
            .with_custom_certificate_verifier(judge.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key());
        let mut client = client.map_err(wrong_key)?;
        client.resumption = Resumption::disabled();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(wrong_key)?
            .with_client_cert_verifier(judge)
            .with_single_cert(chain, key);
        let mut server = server.map_err(wrong_key)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Identity { client: Arc::new(client), server: Arc::new(server) })
    }
}

/// Whom the peers of a torrent believe.
#[derive(Debug)]
struct Judge {
    roots: RootCertStore,
    /// The torrent's.
    name: String,
    provider: Arc<CryptoProvider>,
}

impl Judge {
    fn judge(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(own)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, between, now, algorithms)?;
        if made_out_to(own, &self.name) { Ok(()) } else { Err(CertificateError::NotValidForName.into()) }
    }
}

/// Why a certificate is not believed, for those who can get another.
fn in_words(why: &Error) -> String {
    let Error::InvalidCertificate(why) = why else { return why.to_string() };
    let words = match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "another root signed it",
        CertificateError::NotValidForName => "it is made out to another name",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet",
        other if format!("{other:?}").contains("UnsupportedCertVersion") => {
            "it is of version 1; it must be of version 3, with extensions"
        }
        other => return format!("{other:?}"),
    };
    words.to_owned()
}

/// Whether a certificate is made out to the torrent of this name, or to all of its root: by one of its alternative names, or
/// its common name.
fn made_out_to(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let fits = |other: &str| other == name || other == ANY_NAME;
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let others = certificate.subject_alternative_name().ok().flatten();
    let mut others = others.iter().flat_map(|others| &others.value.general_names);
    let mut common = certificate.subject().iter_common_name();
    others.any(|other| matches!(other, GeneralName::DNSName(other) if fits(other)))
        || common.any(|common| common.as_str().is_ok_and(fits))
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        // It names the torrent, which the certificate does not.
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(own, between, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Judge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Who calls knows the torrent, and so the root.
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(own, between, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}

/// Our identities, by torrent and by the names that callers have for it.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    by_torrent: BTreeMap<TorrentId, (Identity, InfoHash)>,
    by_name: BTreeMap<String, TorrentId>,
}

impl Identities {
    pub(crate) fn add(&mut self, torrent: TorrentId, hashes: InfoHashes, identity: Identity) {
        self.by_name.extend(hashes.swarms().map(|hash| (hash.to_string(), torrent)));
        self.by_torrent.insert(torrent, (identity, hashes.wire()));
    }

    pub(crate) fn remove(&mut self, torrent: TorrentId) {
        if self.by_torrent.remove(&torrent).is_some() {
            self.by_name.retain(|_, other| *other != torrent);
        }
    }

    /// Whether there are any: otherwise nobody is expected to speak TLS.
    pub(crate) fn any(&self) -> bool {
        !self.by_torrent.is_empty()
    }

    fn named(&self, name: &str) -> Option<(TorrentId, &Identity)> {
        let torrent = *self.by_name.get(&name.to_ascii_lowercase())?;
        self.by_torrent.get(&torrent).map(|(identity, _)| (torrent, identity))
    }
}

/// One connection's TLS.
pub(crate) struct Tls {
    session: Session,
    /// What a caller wants, until it was told that it proved to belong to it.
    wanted: Option<TorrentId>,
}

enum Session {
    /// A caller that has not said which torrent it means. At most a ClientHello is kept.
    Hello(Box<Acceptor>),
    Live(Box<Connection>),
}

impl Tls {
    /// Whether a caller begins by speaking TLS. Of callers who encrypt by MSE, one in 2^40 looks like it.
    pub(crate) fn looks_like_hello(bytes: &[u8]) -> bool {
        bytes.len() >= HELLO_BYTES && bytes[..2] == [0x16, 3] && bytes[2] <= 4 && bytes[5] == 1
    }

    /// For one who called us.
    pub(crate) fn caller() -> Tls {
        Tls { session: Session::Hello(Box::default()), wanted: None }
    }

    /// To call a peer of this torrent.
    ///
    /// # Errors
    /// Why it cannot be called.
    pub(crate) fn call(identities: &Identities, torrent: TorrentId) -> Result<Tls, String> {
        let known = identities.by_torrent.get(&torrent);
        let (identity, hash) = known.ok_or("the torrent wants a certificate, and there is none")?;
        let name = ServerName::try_from(hash.to_string()).map_err(|why| why.to_string())?;
        let live = ClientConnection::new(identity.client.clone(), name).map_err(|why| why.to_string())?;
        Ok(Tls { session: Session::Live(Box::new(live.into())), wanted: None })
    }

    /// Hears `bytes`, and puts what they hold behind `plain`. The torrent is that of a caller who just proved to belong to it.
    ///
    /// # Errors
    /// It breaks TLS, or proves nothing.
    pub(crate) fn hear(
        &mut self,
        mut bytes: &[u8],
        identities: &Identities,
        plain: &mut Vec<u8>,
    ) -> Result<Option<TorrentId>, String> {
        loop {
            match &mut self.session {
                Session::Hello(acceptor) => {
                    acceptor.read_tls(&mut bytes).map_err(|why| why.to_string())?;
                    self.greet(identities)?;
                }
                Session::Live(live) => {
                    live.read_tls(&mut bytes).map_err(|why| why.to_string())?;
                    live.process_new_packets().map_err(|why| why.to_string())?;
                    drain(live, plain).map_err(|why| why.to_string())?;
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        Ok(if self.is_ready() { self.wanted.take() } else { None })
    }

    /// Once a caller has said which torrent it means.
    fn greet(&mut self, identities: &Identities) -> Result<(), String> {
        let Session::Hello(acceptor) = &mut self.session else { return Ok(()) };
        let Some(accepted) = acceptor.accept().map_err(|(why, _)| why.to_string())? else { return Ok(()) };
        let hello = accepted.client_hello();
        let named = hello.server_name().and_then(|name| identities.named(name));
        let (torrent, identity) = named.ok_or("names no torrent that is here")?;
        let mut live =
            accepted.into_connection(identity.server.clone()).map_err(|(why, _)| why.to_string())?;
        // What came behind its first words lies in the connection now.
        live.process_new_packets().map_err(|why| why.to_string())?;
        self.wanted = Some(torrent);
        self.session = Session::Live(Box::new(live.into()));
        Ok(())
    }

    /// Both ends have proved who they are: content may go.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(&self.session, Session::Live(live) if !live.is_handshaking())
    }

    /// Puts what is to be sent for `plain` behind `out`. Only when it is ready.
    pub(crate) fn seal(&mut self, mut plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        while !plain.is_empty() {
            let Session::Live(live) = &mut self.session else { return Ok(()) };
            let took = live.writer().write(plain)?;
            plain = &plain[took..];
            self.words(out)?;
        }
        Ok(())
    }

    /// Puts what TLS itself has to say behind `out`.
    pub(crate) fn words(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if let Session::Live(live) = &mut self.session {
            while live.wants_write() {
                live.write_tls(out)?;
            }
        }
        Ok(())
    }
}

fn drain(live: &mut Connection, plain: &mut Vec<u8>) -> io::Result<()> {
    match live.reader().read_to_end(plain) {
        // The peer said goodbye; that it closes is told soon.
        Ok(_) => Ok(()),
        Err(why) if why.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(why) => Err(why),
    }
}

#[cfg(test)]
mod tests;
