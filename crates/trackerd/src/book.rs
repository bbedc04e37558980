//! The book and its reader: queries in, bencoded answers out.
//!
//! Owns the swarms, the dice, the clock and the counts. It never fails: what can not be answered is refused in the way
//! clients understand (BEP 3, `failure reason`), with status 200, since many clients do not read the body of another.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_discovery::swarms::{Announce, Listing, SwarmCounts, Swarms, Told};
use piecemeal_shell::clock::Clock;
use piecemeal_shell::entropy;
use piecemeal_wire::tracker::{
    AnnounceAnswer, AnnounceFailure, AnnounceRequest, PeerForm, ScrapeAnswer, ScrapeCounts, TrackerPeer,
    parse_announce_query, parse_scrape_query,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::{Config, INTERVALS};

/// Peers told to one that names no number, as BEP 3 says.
const USUAL_WANT: u32 = 50;

/// Peers told to one that asks for all there are; as libtorrent asks. 200 packed IPv6 peers are 3.6 kB, three packets.
const MOST_WANT: u32 = 200;

/// A peer that misses one announce may be on a bad line; one that misses two is gone.
const LIFETIME_IN_INTERVALS: u32 = 2;

/// Counts since the start, and what is known now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Announces answered.
    pub announces: u64,
    /// Scrapes answered.
    pub scrapes: u64,
    /// Announces and scrapes refused.
    pub failures: u64,
    /// Swarms with peers in them.
    pub torrents: u64,
    /// Peers in all of them; one that announces by both families counts twice.
    pub peers: u64,
}

/// Everything the tracker knows.
pub(crate) struct Book {
    swarms: Swarms,
    rng: ChaCha20Rng,
    clock: Clock,
    interval: Duration,
    /// Only what was counted; the rest is the swarms' to tell.
    counted: Stats,
}

impl Book {
    /// An empty book for a tracker so configured.
    ///
    /// # Errors
    /// If the system has no entropy for the dice.
    pub(crate) fn open(config: &Config) -> io::Result<Book> {
        Ok(Book {
            swarms: Swarms::new(config.swarms, config.interval * LIFETIME_IN_INTERVALS),
            rng: ChaCha20Rng::from_seed(entropy::seed()?),
            clock: Clock::start(),
            interval: config.interval,
            counted: Stats::default(),
        })
    }

    /// The body that answers an announce from `from`.
    pub(crate) fn announce(&mut self, query: &str, from: IpAddr) -> Vec<u8> {
        match parse_announce_query(query) {
            Err(why) => self.refuse(why.to_string()),
            Ok(request) if request.port == 0 => self.refuse("port 0 can not be connected to".into()),
            Ok(request) => {
                self.counted.announces += 1;
                let told = self.enter(&request, from);
                self.answer(told, from).encode(form(&request))
            }
        }
    }

    /// The body that answers a scrape (BEP 48). Torrents nobody announced are left out.
    pub(crate) fn scrape(&mut self, query: &str) -> Vec<u8> {
        match parse_scrape_query(query) {
            Err(why) => self.refuse(why.to_string()),
            Ok(hashes) if hashes.is_empty() => self.refuse("name the torrents to be scraped".into()),
            Ok(hashes) => {
                self.counted.scrapes += 1;
                let now = self.clock.now();
                let known = |hash| self.swarms.counts(now, hash).map(|counts| (hash, scraped(counts)));
                let files = hashes.into_iter().filter_map(known).collect();
                ScrapeAnswer { files, min_request_interval: None }.encode()
            }
        }
    }

    /// Counts since the start, and what is known now.
    pub(crate) fn stats(&self) -> Stats {
        Stats { torrents: self.swarms.swarms() as u64, peers: self.swarms.peers() as u64, ..self.counted }
    }

    fn enter(&mut self, request: &AnnounceRequest, from: IpAddr) -> Told {
        let announce = Announce {
            info_hash: request.info_hash,
            peer: SocketAddr::new(from, request.port),
            seed: request.left == 0,
            event: request.event,
            want: request.numwant.unwrap_or(USUAL_WANT).min(MOST_WANT) as usize,
        };
        self.swarms.announce(self.clock.now(), &announce, &mut self.rng)
    }

    fn answer(&self, told: Told, from: IpAddr) -> AnnounceAnswer {
        let seconds = |time: &Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        AnnounceAnswer {
            interval: Some(seconds(&self.interval)),
            // A user who presses the button now and then is welcome.
            min_interval: Some(seconds(INTERVALS.start())),
            warning: warning(told.listing).map(str::to_owned),
            tracker_id: None,
            external_ip: Some(from),
            complete: Some(told.counts.seeds),
            incomplete: Some(told.counts.leeches),
            downloaded: Some(told.counts.completed),
            peers: told.peers.into_iter().map(|addr| TrackerPeer { addr, peer_id: None }).collect(),
        }
    }

    fn refuse(&mut self, reason: String) -> Vec<u8> {
        self.counted.failures += 1;
        AnnounceFailure { reason, retry_in: None }.encode()
    }
}

/// Peer ids are never told: they are not kept, and nobody needs them.
fn form(request: &AnnounceRequest) -> PeerForm {
    if request.compact { PeerForm::Compact } else { PeerForm::Dicts { peer_ids: false } }
}

/// What a peer should know that is told of others while others are not told of it.
fn warning(listing: Listing) -> Option<&'static str> {
    match listing {
        Listing::Listed | Listing::Unlisted => None,
        Listing::Full => Some("the tracker is full: others are not told of you"),
        Listing::Crowded => Some("too many peers from your network: others are not told of you"),
    }
}

fn scraped(counts: SwarmCounts) -> ScrapeCounts {
    ScrapeCounts { complete: counts.seeds, downloaded: counts.completed, incomplete: counts.leeches }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecemeal_discovery::swarms::SwarmLimits;
    use piecemeal_metainfo::{InfoHash, PeerId};
    use piecemeal_wire::tracker::{AnnounceReply, Event, ScrapeReply, announce_url};

    fn book(swarms: SwarmLimits) -> Book {
        Book::open(&Config { swarms, ..Config::new(Vec::new()) }).unwrap()
    }

    fn query(torrent: u8, port: u16) -> AnnounceRequest {
        AnnounceRequest { left: 1, ..AnnounceRequest::new(InfoHash([torrent; 20]), PeerId([b'p'; 20]), port) }
    }

    fn ask(book: &mut Book, from: &str, request: &AnnounceRequest) -> AnnounceAnswer {
        let url = announce_url("http://t/announce", request);
        let body = book.announce(url.split_once('?').unwrap().1, from.parse().unwrap());
        match AnnounceReply::decode(&body).unwrap() {
            AnnounceReply::Answer(answer) => answer,
            AnnounceReply::Failure(failure) => panic!("{failure:?}"),
        }
    }

    #[test]
    fn an_answer_has_all_a_client_looks_for() {
        let mut book = book(SwarmLimits::default());
        let answer = ask(&mut book, "2001:db8::1", &query(1, 7));
        let expected = AnnounceAnswer {
            interval: Some(1_800),
            min_interval: Some(60),
            external_ip: Some("2001:db8::1".parse().unwrap()),
            complete: Some(0),
            incomplete: Some(1),
            downloaded: Some(0),
            ..AnnounceAnswer::default()
        };
        assert_eq!(answer, expected);
    }

    #[test]
    fn numwant_is_bounded() {
        let mut book = book(SwarmLimits { peers_per_network: 1_000, ..SwarmLimits::default() });
        for port in 1..=300 {
            ask(&mut book, "1.2.3.4", &query(1, port));
        }
        let mut told =
            |numwant| ask(&mut book, "1.2.3.4", &AnnounceRequest { numwant, ..query(1, 1) }).peers.len();
        assert_eq!([None, Some(0), Some(1), Some(u32::MAX)].map(&mut told), [50, 0, 1, 200]);
        // Even a complete answer in the long form is one a client takes: 24 kB.
        let all = AnnounceRequest { numwant: Some(9_999), compact: false, ..query(1, 1) };
        assert_eq!(ask(&mut book, "1.2.3.4", &all).peers.len(), 200);
    }

    #[test]
    fn who_is_not_listed_is_told_so() {
        let limits = SwarmLimits { swarms: 1, peers_per_network: 1, ..SwarmLimits::default() };
        let mut book = book(limits);
        assert_eq!(ask(&mut book, "1.2.3.4", &query(1, 1)).warning, None);
        let crowded = ask(&mut book, "1.2.3.4", &query(1, 2));
        assert!(crowded.warning.unwrap().contains("network"));
        assert_eq!(crowded.peers.len(), 1);
        assert!(ask(&mut book, "1.2.3.4", &query(2, 1)).warning.unwrap().contains("full"));
        let gone = AnnounceRequest { event: Some(Event::Stopped), ..query(1, 1) };
        assert_eq!(ask(&mut book, "1.2.3.4", &gone).warning, None);
        assert_eq!((book.stats().torrents, book.stats().peers), (0, 0));
    }

    #[test]
    fn a_scrape_leaves_out_what_is_unknown() {
        let mut book = book(SwarmLimits::default());
        ask(&mut book, "1.2.3.4", &query(b'a', 1));
        let hash = |letter: &str| format!("info_hash={}", letter.repeat(20));
        let body = book.scrape(&[hash("b"), hash("a")].join("&"));
        match ScrapeReply::decode(&body).unwrap() {
            ScrapeReply::Answer(answer) => {
                let counts = ScrapeCounts { complete: 0, downloaded: 0, incomplete: 1 };
                assert_eq!(answer.files, [(InfoHash([b'a'; 20]), counts)]);
            }
            ScrapeReply::Failure(failure) => panic!("{failure:?}"),
        }
    }

    #[test]
    fn any_query_gets_an_answer_that_parses() {
        let mut book = book(SwarmLimits::default());
        let good = announce_url("", &query(1, 7));
        let mut queries: Vec<String> =
            ["", "?", "&&&", "=", "%", "info_hash", "info_hash=%", "\u{fffd}=\u{fffd}"]
                .map(str::to_owned)
                .into();
        queries.extend((0..good.len()).filter_map(|end| good.get(..end).map(str::to_owned)));
        queries.extend(
            ["left=-1", "left=", "port=-1", "numwant=-1", "numwant=x"]
                .map(|odd| format!("{}&{odd}", good.replace("left=1&", ""))),
        );
        queries.push("a".repeat(100_000));
        for query in &queries {
            let from = "1.2.3.4".parse().unwrap();
            assert!(AnnounceReply::decode(&book.announce(query, from)).is_ok(), "{query}");
            assert!(ScrapeReply::decode(&book.scrape(query)).is_ok(), "{query}");
        }
        let stats = book.stats();
        assert_eq!(stats.announces + stats.scrapes + stats.failures, 2 * queries.len() as u64);
    }
}
