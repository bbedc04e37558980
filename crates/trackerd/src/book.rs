//! The book and its reader: queries in, bencoded answers out; and what UDP needs of it, in values.
//!
//! Owns the swarms, the lists, the dice, the clock and the counts. It never fails: what can not be answered is refused
//! in the way clients understand (BEP 3, `failure reason`), with status 200, since many clients do not read the body of
//! another.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_discovery::swarms::{Announce, Listing, SwarmCounts, Swarms, Told};
use piecemeal_metainfo::{InfoHash, Time};
use piecemeal_shell::clock::Clock;
use piecemeal_shell::entropy;
use piecemeal_wire::tracker::udp::UdpHashes;
use piecemeal_wire::tracker::{
    AnnounceAnswer, AnnounceFailure, AnnounceRequest, PeerForm, ScrapeAnswer, ScrapeCounts, TrackerPeer,
    parse_announce_query, parse_scrape_query,
};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::lists::Lists;
use crate::pages::Report;
use crate::{Config, INTERVALS, StartError};

/// Peers told to one that names no number, as BEP 3 says.
const USUAL_WANT: u32 = 50;

/// Peers told to one that asks for all there are; as libtorrent asks. 200 packed IPv6 peers are 3.6 kB, three packets.
const MOST_WANT: u32 = 200;

/// A peer that misses one announce may be on a bad line; one that misses two is gone.
const LIFETIME_IN_INTERVALS: u32 = 2;

const NO_PASSKEY: &str = "a passkey is needed, as in /PASSKEY/announce";
const NOT_SERVED: &str = "this torrent is not served here";
const NO_PORT: &str = "port 0 can not be connected to";

/// Counts since the start, and what is known now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Announces answered, by HTTP and UDP.
    pub announces: u64,
    /// Of those by UDP.
    pub udp_announces: u64,
    /// Scrapes answered, by HTTP and UDP.
    pub scrapes: u64,
    /// Of those by UDP.
    pub udp_scrapes: u64,
    /// Announces and scrapes refused, by HTTP and UDP.
    pub failures: u64,
    /// Connection ids given out (BEP 15).
    pub connects: u64,
    /// Requests by UDP without a connection id that is still good.
    pub unproven: u64,
    /// Datagrams that were no request.
    pub malformed: u64,
    /// Swarms with peers in them.
    pub torrents: u64,
    /// Peers in all of them; one that announces by both families counts twice.
    pub peers: u64,
}

/// Everything the tracker knows.
pub(crate) struct Book {
    swarms: Swarms,
    /// Whom to tell of whom is no secret, so eight rounds are enough.
    rng: ChaCha8Rng,
    clock: Clock,
    interval: Duration,
    lists: Lists,
    /// Only what was counted; the rest is the swarms' to tell.
    pub(crate) counted: Stats,
}

impl Book {
    /// An empty book for a tracker so configured.
    ///
    /// # Errors
    /// If the system has no entropy for the dice, or a list can not be read.
    pub(crate) fn open(config: &Config) -> Result<Book, StartError> {
        Ok(Book {
            swarms: Swarms::new(config.swarms, config.interval * LIFETIME_IN_INTERVALS),
            rng: ChaCha8Rng::from_seed(entropy::seed()?),
            clock: Clock::start(),
            interval: config.interval,
            lists: Lists::read(&config.lists)?,
            counted: Stats::default(),
        })
    }

    /// From now on these say what is served, and to whom.
    pub(crate) fn set_lists(&mut self, lists: Lists) {
        self.lists = lists;
    }

    /// Whether a passkey is needed.
    pub(crate) fn is_closed(&self) -> bool {
        self.lists.are_closed()
    }

    /// Time by the book.
    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// How often a peer should announce, in seconds.
    pub(crate) fn interval_s(&self) -> u32 {
        u32::try_from(self.interval.as_secs()).unwrap_or(u32::MAX)
    }

    /// The body that answers an announce from `from`, which showed this passkey.
    pub(crate) fn announce(&mut self, passkey: Option<&str>, query: &str, from: IpAddr) -> Vec<u8> {
        let request = match parse_announce_query(query) {
            Err(why) => return self.refuse(why.to_string()),
            Ok(request) => request,
        };
        match self.admit(&request, passkey) {
            Err(why) => self.refuse(why.into()),
            Ok(()) => {
                self.counted.announces += 1;
                let told = self.enter(self.now(), &request, from, MOST_WANT as usize);
                self.answer(told, from).encode(form(&request))
            }
        }
    }

    /// The body that answers a scrape (BEP 48). Torrents nobody announced are left out.
    pub(crate) fn scrape(&mut self, passkey: Option<&str>, query: &str) -> Vec<u8> {
        match parse_scrape_query(query) {
            Err(why) => self.refuse(why.to_string()),
            Ok(hashes) if hashes.is_empty() => self.refuse("name the torrents to be scraped".into()),
            Ok(_) if !self.lists.admit(passkey) => self.refuse(NO_PASSKEY.into()),
            Ok(hashes) => {
                self.counted.scrapes += 1;
                let now = self.now();
                let known = |hash| self.counts(now, hash).map(|counts| (hash, counts));
                let files = hashes.into_iter().filter_map(known).collect();
                ScrapeAnswer { files, min_request_interval: None }.encode()
            }
        }
    }

    /// An announce by UDP from `from`, which has proven its address. At most `most` peers are told.
    pub(crate) fn announce_udp(
        &mut self,
        now: Time,
        request: &AnnounceRequest,
        passkey: Option<&str>,
        from: IpAddr,
        most: usize,
    ) -> Result<Told, &'static str> {
        if let Err(why) = self.admit(request, passkey) {
            self.counted.failures += 1;
            return Err(why);
        }
        self.counted.announces += 1;
        self.counted.udp_announces += 1;
        Ok(self.enter(now, request, from, most))
    }

    /// A scrape by UDP, counts in the order asked. It can carry no passkey, so where one is needed there is none.
    pub(crate) fn scrape_udp(
        &mut self,
        now: Time,
        hashes: UdpHashes<'_>,
    ) -> Result<Vec<ScrapeCounts>, &'static str> {
        if !self.lists.admit(None) {
            self.counted.failures += 1;
            return Err(NO_PASSKEY);
        }
        self.counted.scrapes += 1;
        self.counted.udp_scrapes += 1;
        Ok(hashes.iter().map(|hash| self.counts(now, hash).unwrap_or_default()).collect())
    }

    /// Counts since the start, and what is known now.
    pub(crate) fn stats(&self) -> Stats {
        Stats { torrents: self.swarms.swarms() as u64, peers: self.swarms.peers() as u64, ..self.counted }
    }

    /// What the pages tell.
    pub(crate) fn report(&self) -> Report {
        Report { stats: self.stats(), up: self.now().since(Time::ZERO), interval: self.interval }
    }

    fn admit(&self, request: &AnnounceRequest, passkey: Option<&str>) -> Result<(), &'static str> {
        if !self.lists.admit(passkey) {
            Err(NO_PASSKEY)
        } else if !self.lists.serves(request.info_hash) {
            Err(NOT_SERVED)
        } else if request.port == 0 {
            Err(NO_PORT)
        } else {
            Ok(())
        }
    }

    fn counts(&mut self, now: Time, hash: InfoHash) -> Option<ScrapeCounts> {
        if self.lists.serves(hash) { self.swarms.counts(now, hash).map(scraped) } else { None }
    }

    fn enter(&mut self, now: Time, request: &AnnounceRequest, from: IpAddr, most: usize) -> Told {
        let announce = Announce {
            info_hash: request.info_hash,
            peer: SocketAddr::new(from, request.port),
            seed: request.left == 0,
            event: request.event,
            want: (request.numwant.unwrap_or(USUAL_WANT).min(MOST_WANT) as usize).min(most),
        };
        self.swarms.announce(now, &announce, &mut self.rng)
    }

    fn answer(&self, told: Told, from: IpAddr) -> AnnounceAnswer {
        let seconds = |time: &Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        AnnounceAnswer {
            interval: Some(self.interval_s()),
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
    use piecemeal_metainfo::PeerId;
    use piecemeal_wire::tracker::{AnnounceReply, Event, ScrapeReply, announce_url};

    fn book(swarms: SwarmLimits) -> Book {
        Book::open(&Config { swarms, ..Config::new(Vec::new()) }).unwrap()
    }

    fn query(torrent: u8, port: u16) -> AnnounceRequest {
        AnnounceRequest { left: 1, ..AnnounceRequest::new(InfoHash([torrent; 20]), PeerId([b'p'; 20]), port) }
    }

    fn ask(book: &mut Book, from: &str, request: &AnnounceRequest) -> AnnounceAnswer {
        let url = announce_url("http://t/announce", request);
        let body = book.announce(None, url.split_once('?').unwrap().1, from.parse().unwrap());
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
        let body = book.scrape(None, &[hash("b"), hash("a")].join("&"));
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
            assert!(AnnounceReply::decode(&book.announce(None, query, from)).is_ok(), "{query}");
            assert!(ScrapeReply::decode(&book.scrape(None, query)).is_ok(), "{query}");
        }
        let stats = book.stats();
        assert_eq!(stats.announces + stats.scrapes + stats.failures, 2 * queries.len() as u64);
    }
}
