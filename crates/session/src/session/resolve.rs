//! From a magnet link to its torrent.
//!
//! Owns the judgement about links and about what they led to, and the names of peers in them. The search is the
//! engine's; the torrent is judged by the same functions as one that comes as a file.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use piecemeal_api::{Cancel, Refusal, ResolveRequest, Resolved, Selection};
use piecemeal_engine::cx::{Change, Command, Seeking};
use piecemeal_metainfo::{FileIndex, Magnet, Metainfo, TorrentId};
use piecemeal_shell::http::is_local;
use piecemeal_shell::net::{Dialer, Traffic};

use super::{Session, lock};
use crate::add;
use crate::seeks::Told;
use crate::wait::{Missed, Stop};

/// Who gives up waits so long for the trackers to hear of it.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Host names of a link that are looked up, one after the other: more are nobody's peers.
const MOST_NAMES: usize = 16;
/// Letters of a link that a refusal repeats: enough to recognise it.
const LINK_SHOWN: usize = 60;

/// What a link says, as far as it can be used.
struct Link {
    magnet: Magnet,
    /// What to call it until its torrent says.
    name: String,
    /// Peers that it names by address.
    peers: Vec<SocketAddr>,
    /// Peers that it names by host name.
    names: Vec<(String, u16)>,
}

impl Session {
    /// Fetches the description of a magnet link's torrent from peers, and waits until it is there: [`Session::add`] it
    /// then with what was found. [`Event::Resolving`] tells how the search goes.
    ///
    /// # Errors
    /// The link does not parse or names a torrent of v2 alone; its torrent is here already or is being resolved; what it
    /// led to is no torrent that can be used; it was cancelled, or the session has shut down.
    ///
    /// [`Event::Resolving`]: piecemeal_api::Event::Resolving
    pub fn resolve(&self, request: ResolveRequest, cancel: &Cancel) -> Result<Resolved, Refusal> {
        let link = Link::read(&request.magnet)?;
        let (id, told) = self.seek(&link, request)?;
        let found = self.wait_for(id, &told, cancel);
        if let Ok(engine) = self.engine() {
            // Whatever came of it: frees the name at once, so that the torrent can be added.
            engine.command(Command::Remove { torrent: id, delete: false });
        }
        if matches!(found, Err(Refusal::Cancelled)) {
            wait_for_last_word(&told);
        }
        self.shared.table().seeks.close(id);
        let (info, known) = found?;
        link.judge(&info, known)
    }

    fn seek(&self, link: &Link, request: ResolveRequest) -> Result<(TorrentId, Receiver<Told>), Refusal> {
        let _alone = lock(&self.adding);
        let engine = self.engine()?;
        let mut table = self.shared.table();
        add::unclaimed(link.magnet.hashes, &link.name, &table)?;
        let id = table.next_id();
        let (told, to, event) = table.seeks.open(id, link.magnet.hashes, link.name.clone());
        self.shared.hub.send([event]);
        engine.command(Command::Seek(Box::new(Seeking {
            torrent: id,
            hashes: link.magnet.hashes,
            trackers: link.magnet.trackers.iter().cloned().chain(request.trackers).collect(),
            leave: request.leave,
            peers: request.peers.into_iter().chain(link.peers.iter().copied()).collect(),
        })));
        if !link.names.is_empty() {
            let (names, dialer) = (link.names.clone(), engine.dialer().clone());
            // Without the thread there are other ways to find peers.
            let _ = std::thread::Builder::new()
                .name("piecemeal-names".into())
                .spawn(move || look_up(&dialer, names, to));
        }
        Ok((id, told))
    }

    fn wait_for(
        &self,
        id: TorrentId,
        told: &Receiver<Told>,
        cancel: &Cancel,
    ) -> Result<(std::sync::Arc<[u8]>, Vec<SocketAddr>), Refusal> {
        let stop = Stop::of(cancel);
        loop {
            match stop.hear(told, None) {
                Ok(Told::Found(info, known)) => return Ok((info, known)),
                Ok(Told::Peers(peers)) => {
                    self.engine()?.command(Command::Change(id, Change::AddPeers(peers)));
                }
                Err(Missed::Cancelled) => return Err(Refusal::Cancelled),
                Ok(Told::Gone) | Err(Missed::Gone | Missed::Late) => {
                    drop(self.engine()?);
                    return Err(Refusal::Bug { what: "the search for a magnet link's torrent ended".into() });
                }
            }
        }
    }
}

/// Its trackers hear that we leave, if they are quick.
fn wait_for_last_word(told: &Receiver<Told>) {
    let until = Instant::now() + LAST_WORD;
    while let Ok(told) = told.recv_timeout(until.saturating_duration_since(Instant::now())) {
        if matches!(told, Told::Gone) {
            return;
        }
    }
}

/// The life of a thread that may wait for name servers, and ends when nobody listens.
fn look_up(dialer: &Dialer, names: Vec<(String, u16)>, to: Sender<Told>) {
    for (host, port) in names {
        let found = dialer.resolve(Traffic::PeersTcp, &host);
        let found =
            found.map(|ips| ips.into_iter().map(|ip| SocketAddr::new(ip, port)).filter(believable).collect());
        if to.send(Told::Peers(found.unwrap_or_default())).is_err() {
            return;
        }
    }
}

/// Anybody can make a link, and lead whoever follows it to a door of their own machine or network. Who means it names
/// the address by hand.
fn believable(addr: &SocketAddr) -> bool {
    !is_local(addr.ip())
}

impl Link {
    fn read(text: &str) -> Result<Link, Refusal> {
        let magnet = Magnet::parse(text).map_err(|why| {
            let text = text.trim();
            let shown: String = text.chars().take(LINK_SHOWN).collect();
            let more = if shown.len() < text.len() { "..." } else { "" };
            Refusal::invalid(format!("{shown}{more}"), why, "copy the whole link, in quotes")
        })?;
        let hash = || magnet.hashes.wire().to_string();
        let name = magnet.name.clone().unwrap_or_else(hash);
        if magnet.hashes.v1.is_none() {
            return Err(add::v2_alone(&name));
        }
        let (mut peers, mut names) = (Vec::new(), Vec::new());
        for (host, port) in &magnet.peers {
            match host.parse::<IpAddr>() {
                Ok(ip) => peers.extend(Some(SocketAddr::new(ip, *port)).filter(believable)),
                Err(_) if names.len() < MOST_NAMES => names.push((host.clone(), *port)),
                Err(_) => {}
            }
        }
        Ok(Link { magnet, name, peers, names })
    }

    /// The torrent of this dictionary, as one that comes as a file is judged.
    fn judge(self, info: &[u8], known: Vec<SocketAddr>) -> Result<Resolved, Refusal> {
        let tiers = self.magnet.trackers.iter().map(|url| vec![url.clone()]).collect();
        let mut meta = add::judge(Metainfo::from_info(info, tiers), &self.name)?;
        meta.add_web_seeds(self.magnet.web_seeds.clone());
        // Of a private torrent nothing is believed that peers said before we knew (BEP 27).
        let met = if meta.info().private { Vec::new() } else { known };
        let mut known = self.peers;
        known.extend(met.into_iter().filter(|addr| !known.contains(addr)).collect::<Vec<_>>());
        Ok(Resolved { metainfo: meta.to_bytes().into(), known, select: selection(&self.magnet, &meta) })
    }
}

/// The files that a link asks for.
fn selection(magnet: &Magnet, meta: &Metainfo) -> Selection {
    if magnet.select.is_empty() {
        return Selection::All;
    }
    let mut ranges = magnet.select.clone();
    ranges.sort_by_key(|range| *range.start());
    let mut files = Vec::new();
    // Each file is looked at once, however the ranges overlap.
    let mut next = 0;
    for range in ranges {
        let first = next.max(*range.start());
        for index in first..=*range.end() {
            let Some(file) = meta.file(FileIndex(index)) else { break };
            if !file.pad {
                files.push(FileIndex(index));
            }
        }
        next = next.max(range.end().saturating_add(1));
    }
    Selection::Only { files }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_kit::torrent_of;
    use piecemeal_shell::net::Policy;

    const HEX: &str = "0123456789abcdef0123456789abcdef01234567";

    fn link(rest: &str) -> Link {
        Link::read(&format!("magnet:?xt=urn:btih:{HEX}{rest}")).unwrap()
    }

    #[test]
    fn links_are_refused_by_what_is_wrong() {
        let line = |text: &str| Link::read(text).map(drop).unwrap_err().to_string();
        assert_eq!(
            line("magnet:?dn=x"),
            format!(
                "magnet:?dn=x: {}; copy the whole link, in quotes",
                "magnet link: no info-hash (xt=urn:btih: or xt=urn:btmh:)",
            )
        );
        assert!(line(&format!("magnet:?dn={}", "é".repeat(200))).len() < 300);
        let v2 = format!("magnet:?xt=urn:btmh:1220{}&dn=film", "ab".repeat(32));
        assert_eq!(
            line(&v2),
            "film: a torrent of BitTorrent v2 alone: not supported yet; get a v1 or hybrid torrent of the same content"
        );
    }

    #[test]
    fn a_link_cannot_lead_into_the_own_network() {
        let rows = [
            ("127.0.0.1", false),
            ("127.1", false),
            ("10.0.0.1", false),
            ("192.168.1.1", false),
            ("169.254.1.1", false),
            ("0.0.0.0", false),
            ("[::1]", false),
            ("[fe80::1]", false),
            ("[fd00::1]", false),
            ("[::ffff:127.0.0.1]", false),
            ("9.9.9.9", true),
            ("[2001:db8::1]", true),
        ];
        for (host, believed) in rows {
            let link = link(&format!("&x.pe={host}:6881"));
            assert_eq!(link.peers.len(), usize::from(believed), "{host}");
        }
        // What is no address is a name, and is judged when it is looked up.
        for name in ["localhost", "127.1"] {
            assert_eq!(link(&format!("&x.pe={name}:6881")).names, [(name.to_owned(), 6881)]);
            let (to, told) = crossbeam_channel::bounded(1);
            look_up(&Dialer::new(Policy::default()), vec![(name.to_owned(), 6881)], to);
            assert!(matches!(told.try_recv(), Ok(Told::Peers(peers)) if peers.is_empty()), "{name}");
        }
        let many: String = (0..99).map(|at| format!("&x.pe=h{at}.example:1")).collect();
        assert_eq!(link(&many).names.len(), MOST_NAMES);
    }

    #[test]
    fn files_that_a_link_asks_for() {
        let meta = torrent_of("show", &["1.mkv", "2.mkv", "extras/a", "extras/b"]);
        let only = |so: &str| match selection(&link(&format!("&so={so}")).magnet, &meta) {
            Selection::All => None,
            Selection::Only { files } => Some(files.into_iter().map(|file| file.0).collect::<Vec<_>>()),
        };
        assert_eq!(only(""), None);
        assert_eq!(only("2"), Some(vec![2]));
        assert_eq!(only("2-3,0,1-2,3"), Some(vec![0, 1, 2, 3]));
        assert_eq!(only("3-4294967295,0-0"), Some(vec![0, 3]));
        assert_eq!(only("7"), Some(vec![]));
    }

    #[test]
    fn what_it_led_to_is_a_whole_torrent() {
        let meta = torrent_of("show", &["1.mkv", "2.mkv"]);
        let met: Vec<SocketAddr> = ["9.9.9.9:1", "9.9.9.9:2"].map(|addr| addr.parse().unwrap()).to_vec();
        let said = "&dn=x&tr=http%3A%2F%2Ft%2Fannounce&tr=udp://u:1&ws=http://w/&x.pe=9.9.9.9:2&so=1";
        let resolved = link(said).judge(meta.raw_info(), met.clone()).unwrap();
        let whole = Metainfo::parse(&resolved.metainfo).unwrap();
        assert_eq!(whole.raw_info(), meta.raw_info());
        assert_eq!(whole.trackers(), [["http://t/announce"], ["udp://u:1"]]);
        assert_eq!(whole.web_seeds(), ["http://w/"]);
        assert_eq!(resolved.known, [met[1], met[0]]);
        assert_eq!(resolved.select, Selection::Only { files: vec![FileIndex(1)] });
        let private =
            b"d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaa7:privatei1ee";
        assert_eq!(link(said).judge(private, met.clone()).unwrap().known, [met[1]], "peers' word is dropped");
        let bad = link(said).judge(b"d4:name1:ae", met).unwrap_err();
        assert!(matches!(&bad, Refusal::BadTorrent { what, .. } if what == "x"), "{bad}");
    }
}
