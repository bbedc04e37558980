//! Torrents for those alone who have a certificate: with libtorrent, which defined them, and with strangers.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::cli::ask;
use super::content::{Content, NAME, Shape, link, same};
use super::net::Net;
use super::peers::{Carrier, Client, Peer, Road, TLS_CERTIFICATE, TLS_KEY, Task, Ways};
use super::{Case, Stage};

/// A second's work; libtorrent takes its time to find a peer.
const LIMIT: Duration = Duration::from_secs(60);
/// What is swapped.
const CONTENT: Content = Content { shape: Shape::One, piece_length: 64 << 10, pieces: 300 };

/// Both directions, and those who do not belong.
pub fn cases() -> Vec<Case> {
    use Client::{Libtorrent, Piecemeal};
    let pairs = [(Piecemeal, Libtorrent), (Libtorrent, Piecemeal), (Piecemeal, Piecemeal)];
    let swaps = pairs.map(|(seed, leech)| {
        let name = format!("roads/tls/{}->{}", seed.name(), leech.name());
        Case::new(name, move |stage| swap(stage, seed, leech))
    });
    let strangers = [("of-another-root", Carrier::Tls), ("without", Carrier::Tcp)].map(|(who, carrier)| {
        Case::new(format!("roads/tls/strangers-{who}"), move |stage| stranger(stage, carrier))
    });
    swaps.into_iter().chain(strangers).collect()
}

/// Who signs certificates.
struct Root {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Root {
    fn new() -> Result<Root> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Root { pem, issuer: Issuer::new(params, key) })
    }

    /// Leaves a certificate and its key where a client looks for them.
    fn sign(&self, name: &str, state: &Path) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        fs::create_dir_all(state)?;
        fs::write(state.join(TLS_CERTIFICATE), params.signed_by(&key, &self.issuer)?.pem())?;
        Ok(fs::write(state.join(TLS_KEY), key.serialize_pem())?)
    }
}

/// Makes the torrent, and the seed's directory; where they are.
fn torrent(stage: &Stage<'_>, root: &Root) -> Result<()> {
    link(&stage.content(&CONTENT)?, &stage.dir.join("seed"))?;
    fs::write(stage.dir.join("root.pem"), &root.pem)?;
    let content = format!("seed/{NAME}");
    let (length, tracker) = (CONTENT.piece_length.to_string(), stage.tracker.url());
    let made = [
        "create",
        &content,
        "-o",
        "x.torrent",
        "--v1",
        "--piece-length",
        &length,
        "--tls-root",
        "root.pem",
        "--tracker",
        &tracker,
    ];
    ask(stage, &made, LIMIT)?.expect(0, "create").map(drop)
}

fn start(stage: &Stage<'_>, client: Client, at: u16, seeds: bool, carrier: Carrier) -> Result<Peer> {
    let name = if seeds { "seed".to_owned() } else { format!("leech{at}") };
    let (dir, state) = (stage.dir.join(&name), stage.dir.join(format!("{name}.state")));
    let (torrent, first) = (stage.dir.join("x.torrent"), [stage.host(0).peer()]);
    let task = Task {
        host: stage.host(at),
        torrent: &torrent,
        dir: &dir,
        state: &state,
        peers: if seeds { &[] } else { &first },
        up_limit: 0,
        once: false,
    };
    let road = Road { carrier, ..Road::default() };
    client.start(stage.binary, &task, seeds, &Ways { road, ..Ways::default() })
}

fn ready(stage: &Stage<'_>, clients: [Client; 2]) -> Result<Option<String>> {
    if stage.net == Net::Loopback {
        return Ok(Some("left out: it wants hosts with addresses of their own".to_owned()));
    }
    match clients.iter().find_map(|client| client.missing()) {
        Some(why) => bail!("{why}; run .ci/install"),
        None => Ok(None),
    }
}

fn swap(stage: &Stage<'_>, seed: Client, leech: Client) -> Result<String> {
    if let Some(note) = ready(stage, [seed, leech])? {
        return Ok(note);
    }
    let root = Root::new()?;
    torrent(stage, &root)?;
    root.sign("*", &stage.dir.join("seed.state"))?;
    root.sign(NAME, &stage.dir.join("leech1.state"))?;
    let giver = start(stage, seed, 0, true, Carrier::Tls)?;
    stage.tracker.wait_for(stage.host(0).peer(), LIMIT)?;
    let began = Instant::now();
    let mut taker = start(stage, leech, 1, false, Carrier::Tls)?;
    taker.finish(LIMIT)?;
    let took = began.elapsed();
    taker.leave()?;
    drop(giver);
    same(&stage.dir.join("seed"), &stage.dir.join("leech1"))?;
    Ok(format!("{:.1} s to swap", took.as_secs_f64()))
}

/// Somebody who does not belong is told of the seed, comes first, and tries until another has everything.
fn stranger(stage: &Stage<'_>, carrier: Carrier) -> Result<String> {
    if let Some(note) = ready(stage, [Client::Piecemeal, Client::Libtorrent])? {
        return Ok(note);
    }
    let (root, other) = (Root::new()?, Root::new()?);
    torrent(stage, &root)?;
    root.sign("*", &stage.dir.join("seed.state"))?;
    other.sign("*", &stage.dir.join("leech1.state"))?;
    root.sign("*", &stage.dir.join("leech2.state"))?;
    let giver = start(stage, Client::Piecemeal, 0, true, Carrier::Tls)?;
    stage.tracker.wait_for(stage.host(0).peer(), LIMIT)?;
    let mut stranger = start(stage, Client::Libtorrent, 1, false, carrier)?;
    let mut taker = start(stage, Client::Libtorrent, 2, false, Carrier::Tls)?;
    taker.finish(LIMIT)?;
    if stranger.done().context("the stranger")? {
        bail!("a stranger has everything");
    }
    taker.leave()?;
    stranger.leave()?;
    drop(giver);
    let got = fs::read(stage.dir.join("leech1").join(NAME)).unwrap_or_default();
    if got.iter().any(|byte| *byte != 0) {
        bail!("a stranger has content");
    }
    same(&stage.dir.join("seed"), &stage.dir.join("leech2"))?;
    Ok("let in: all but them".to_owned())
}
