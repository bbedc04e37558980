//! Asking every tracker of a torrent who is there, or how many.
//!
//! Owns the round: `started` to each tracker over both families of addresses, then `stopped` where one answered; or one
//! scrape. All at once, since each has its own patience. What goes into a URL and comes out of a body is
//! `wire::tracker`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use piecemeal_api::{AnnounceRequest, Cancel, EngineOptions, Refusal, TrackerAnswer};
use piecemeal_discovery::tracker::{Family, Fetch, FetchFailure, FetchId};
use piecemeal_metainfo::{InfoHash, Metainfo, TorrentId};
use piecemeal_shell::ask_udp::UdpClient;
use piecemeal_shell::net::Dialer;
use piecemeal_shell::{entropy, http};
use piecemeal_wire::peer_id::own_peer_id;
use piecemeal_wire::tracker::{self as wire, AnnounceReply, Event, ScrapeReply, announce_url, scrape_url};

use crate::wait::Stop;
use crate::{ways, words};

/// Of the whole time, at most this is kept for leaving again.
const FAREWELL: Duration = Duration::from_secs(5);
/// Who wants to stop waits this long at most for trackers to hear it.
const HASTY_FAREWELL: Duration = Duration::from_secs(1);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const USER_AGENT: &str = concat!("piecemeal/", env!("CARGO_PKG_VERSION"));

type Reply = (FetchId, Result<Vec<u8>, FetchFailure>);

/// Asks each tracker of a torrent for peers, as one who has nothing, and takes leave again; or for counts alone. One
/// answer for each tracker, in order of tier; those that speak neither HTTP nor UDP answer that they are not supported.
///
/// # Errors
/// The torrent does not parse, the system refuses a thread, or the caller asked to stop.
pub fn announce_all(request: &AnnounceRequest, cancel: &Cancel) -> Result<Vec<TrackerAnswer>, Refusal> {
    let meta = super::parse(&request.metainfo)?;
    let wait = Duration::from_secs(u64::from(request.wait_s));
    let until = Instant::now() + wait;
    let mut round = Round::new(&meta, request)?;
    let mut said = BTreeMap::new();
    if request.scrape {
        let asked = round.ask(Question::Scrape, wait);
        let hash = round.announce.info_hash;
        round.hear(asked, until, cancel, |id, result| drop(said.insert(id, read_counts(hash, result))));
    } else {
        let farewell = FAREWELL.min(wait / 4);
        let asked = round.ask(Question::Announce(Event::Started), wait - farewell);
        round.hear(asked, until - farewell, cancel, |id, result| drop(said.insert(id, read(result))));
        let met: BTreeSet<FetchId> =
            said.iter().filter(|(_, said)| said.is_ok()).map(|(id, _)| *id).collect();
        round.greeted = Some(met);
        let until = if cancel.is_cancelled() { until.min(Instant::now() + HASTY_FAREWELL) } else { until };
        let left = until.saturating_duration_since(Instant::now());
        let asked = round.ask(Question::Announce(Event::Stopped), left);
        round.hear(asked, until, &Cancel::default(), |_, _| {});
    }
    let urls = round.end();
    if cancel.is_cancelled() {
        return Err(Refusal::Cancelled);
    }
    let all = (0..).zip(urls);
    let mut answer =
        |at, url| merge(url, request.scrape, FAMILIES.map(|family| said.remove(&id(at, family))));
    Ok(all.map(|(at, url)| answer(at, url)).collect())
}

/// What all trackers are asked.
#[derive(Clone, Copy)]
enum Question {
    Announce(Event),
    Scrape,
}

/// How a tracker is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Http,
    Udp,
}

/// All trackers, asked at once.
struct Round {
    http: http::Client,
    udp: UdpClient,
    replies: Receiver<Reply>,
    announce: wire::AnnounceRequest,
    /// Each once, in order of tier; at most `MAX_SOURCES`.
    urls: Vec<String>,
    /// Only those are spoken to; `None`: all.
    greeted: Option<BTreeSet<FetchId>>,
}

impl Round {
    fn new(meta: &Metainfo, request: &AnnounceRequest) -> Result<Round, Refusal> {
        let system = |what: &str, why: &std::io::Error| Refusal::System {
            what: what.to_owned(),
            reason: words::reason(why),
        };
        let seed = entropy::seed().map_err(|why| system("randomness", &why))?;
        let (name, rest) = seed.split_first_chunk().expect("a seed has 32 bytes");
        let (key, _) = rest.split_first_chunk().expect("a seed has 32 bytes");
        let announce = wire::AnnounceRequest {
            left: meta.info().content_length,
            numwant: Some(request.num_want),
            key: u32::from_be_bytes(*key),
            supportcrypto: false,
            ..wire::AnnounceRequest::new(meta.wire_hash(), own_peer_id(*name), EngineOptions::FIRST_PORT)
        };
        let mut seen = BTreeSet::new();
        let urls: Vec<String> =
            meta.trackers().concat().into_iter().filter(|url| seen.insert(url.clone())).collect();
        // Room for all answers to both questions, so that no thread ever waits for us.
        let (to, replies) = bounded(4 * urls.len() + 1);
        let dialer = Dialer::new(ways::policy(&request.net)?);
        let http = http::Client::start(dialer.clone(), USER_AGENT, mailbox(to.clone()))
            .map_err(|why| system("the HTTP client", &why))?;
        let udp = UdpClient::start(dialer, mailbox(to)).map_err(|why| system("the UDP client", &why))?;
        Ok(Round { http, udp, replies, announce, urls, greeted: None })
    }

    /// Sends this to everybody, and gives what to wait for.
    fn ask(&mut self, question: Question, timeout: Duration) -> BTreeSet<FetchId> {
        let mut asked = BTreeSet::new();
        for (at, url) in (0..).zip(&self.urls) {
            let Some(way) = way(url) else { continue };
            let url = match question {
                Question::Announce(event) => {
                    self.announce.event = Some(event);
                    Some(announce_url(url, &self.announce))
                }
                Question::Scrape => scrape_url(url, &[self.announce.info_hash]),
            };
            let Some(url) = url else { continue };
            for family in FAMILIES {
                let id = id(at, family);
                if self.greeted.as_ref().is_some_and(|greeted| !greeted.contains(&id)) {
                    continue;
                }
                asked.insert(id);
                let fetch = Fetch { id, url: url.clone(), family, timeout };
                match way {
                    Way::Http => self.http.fetch(TorrentId(0), fetch),
                    Way::Udp => self.udp.fetch(TorrentId(0), fetch),
                }
            }
        }
        asked
    }

    /// Hears all that was asked, until it is time or the caller wants no more.
    fn hear(
        &self,
        mut asked: BTreeSet<FetchId>,
        until: Instant,
        cancel: &Cancel,
        mut heard: impl FnMut(FetchId, Result<Vec<u8>, FetchFailure>),
    ) {
        let stop = Stop::of(cancel);
        while !asked.is_empty() {
            let Ok((id, result)) = stop.hear(&self.replies, Some(until)) else { return };
            if asked.remove(&id) {
                heard(id, result);
            }
        }
    }

    /// Ends all threads; the trackers.
    fn end(self) -> Vec<String> {
        self.udp.stop();
        self.http.stop();
        self.urls
    }
}

fn mailbox(to: Sender<Reply>) -> http::Reply {
    Box::new(move |_, id, result| match to.try_send((id, result)) {
        Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        Err(TrySendError::Full(_)) => debug_assert!(false, "more answers than questions"),
    })
}

fn id(at: u64, family: Family) -> FetchId {
    FetchId(2 * at + u64::from(family == Family::V6))
}

/// An answer, or why there is none; `None`: it has no address of this family.
type Said = Result<Words, Option<String>>;

/// What a tracker said, counts of a scrape in the place of those of an announce.
struct Words {
    answer: wire::AnnounceAnswer,
    downloads: Option<u32>,
}

fn read(result: Result<Vec<u8>, FetchFailure>) -> Said {
    match AnnounceReply::decode(&result.map_err(failed)?) {
        Ok(AnnounceReply::Answer(answer)) => Ok(Words { answer, downloads: None }),
        Ok(AnnounceReply::Failure(failure)) => Err(Some(failure.reason)),
        Err(why) => Err(Some(format!("its answer makes no sense: {why}"))),
    }
}

fn read_counts(hash: InfoHash, result: Result<Vec<u8>, FetchFailure>) -> Said {
    match ScrapeReply::decode(&result.map_err(failed)?) {
        Ok(ScrapeReply::Answer(answer)) => {
            let ours = answer.files.iter().find(|(known, _)| *known == hash);
            let (_, counts) = ours.ok_or_else(|| Some("it does not know the torrent".to_owned()))?;
            let (complete, incomplete) = (Some(counts.complete), Some(counts.incomplete));
            let answer = wire::AnnounceAnswer { complete, incomplete, ..wire::AnnounceAnswer::default() };
            Ok(Words { answer, downloads: Some(counts.downloaded) })
        }
        Ok(ScrapeReply::Failure(failure)) => Err(Some(failure.reason)),
        Err(why) => Err(Some(format!("its answer makes no sense: {why}"))),
    }
}

fn failed(why: FetchFailure) -> Option<String> {
    match why {
        FetchFailure::NoAddress => None,
        FetchFailure::Status(status, body) => Some(match AnnounceReply::decode(&body) {
            Ok(AnnounceReply::Failure(failure)) => failure.reason,
            _ => format!("the server answered {status}"),
        }),
        FetchFailure::TimedOut => Some("timed out".into()),
        FetchFailure::Unreachable(why) => Some(words::without_number(&why).to_owned()),
    }
}

/// One answer of what was said over both families: one that answered is enough.
fn merge(url: String, scrape: bool, said: [Option<Said>; 2]) -> TrackerAnswer {
    let mut answer = TrackerAnswer {
        peers: Vec::new(),
        interval_s: None,
        seeds: None,
        leeches: None,
        downloads: None,
        warning: None,
        error: None,
        url,
    };
    if way(&answer.url).is_none() {
        let scheme = answer.url.split_once("://").map_or("such", |(scheme, _)| scheme);
        answer.error = Some(format!("{scheme} trackers are not supported yet"));
        return answer;
    }
    if scrape && scrape_url(&answer.url, &[]).is_none() {
        answer.error =
            Some("it has no address for counts: that of announces does not say announce".to_owned());
        return answer;
    }
    let mut errors = Vec::new();
    let mut answered = false;
    for said in said {
        match said {
            Some(Ok(Words { answer: said, downloads })) => {
                answered = true;
                answer.downloads = answer.downloads.max(downloads);
                let new = said.peers.iter().map(|peer| peer.addr);
                let new: Vec<_> = new.filter(|addr| !answer.peers.contains(addr)).collect();
                answer.peers.extend(new);
                answer.interval_s = answer.interval_s.or(said.interval);
                answer.seeds = answer.seeds.max(said.complete);
                answer.leeches = answer.leeches.max(said.incomplete);
                answer.warning = answer.warning.take().or(said.warning);
            }
            Some(Err(Some(why))) => errors.push(why),
            Some(Err(None)) => {}
            None => errors.push("timed out".to_owned()),
        }
    }
    if !answered {
        answer.error =
            Some(errors.into_iter().next().unwrap_or_else(|| "the host has no address".to_owned()));
    }
    answer
}

fn way(url: &str) -> Option<Way> {
    let (scheme, _) = url.split_once("://")?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => Some(Way::Http),
        "udp" => Some(Way::Udp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecemeal_api::NetOptions;
    use piecemeal_metainfo::Version;
    use piecemeal_metainfo::create::{Content, Files, NewFile, Options, Plan};
    use piecemeal_shell::http::{Answer, Asked, ServeLimits, serve};
    use piecemeal_shell::udp_server::serve_udp;
    use piecemeal_wire::tracker::udp::{self, UdpRequest};
    use piecemeal_wire::tracker::{ScrapeAnswer, ScrapeCounts};
    use std::net::SocketAddr;
    use std::sync::{Arc, Mutex};

    /// Who was asked what, in order of path.
    type Book = Arc<Mutex<Vec<(String, Option<Event>, u64, Option<u32>)>>>;

    fn http_tracker(book: Book) -> impl Fn(&Asked<'_>) -> Answer {
        move |asked: &Asked<'_>| {
            let mut fact = (asked.path().to_owned(), None, 0, None);
            let body = match asked.path() {
                "/scrape" => {
                    let hash = wire::parse_scrape_query(asked.query()).unwrap()[0];
                    let counts = ScrapeCounts { complete: 3, downloaded: 50, incomplete: 4 };
                    ScrapeAnswer { files: vec![(hash, counts)], min_request_interval: None }.encode()
                }
                path => {
                    if let Ok(query) = wire::parse_announce_query(asked.query()) {
                        fact = (fact.0, query.event, query.left, query.numwant);
                    }
                    match path {
                        "/announce" => {
                            b"d8:completei3e10:incompletei4e8:intervali900e5:peers6:\x01\x02\x03\x04\x00\x07e"
                                .to_vec()
                        }
                        _ => b"d14:failure reason4:go !e".to_vec(),
                    }
                }
            };
            book.lock().unwrap().push(fact);
            Answer { status: 200, content_type: "text/plain", body }
        }
    }

    fn udp_tracker(book: Book) -> impl Fn(SocketAddr, &[u8], &mut Vec<u8>) {
        move |_, bytes, out| match UdpRequest::decode(bytes).unwrap() {
            UdpRequest::Connect { transaction } => udp::connected(transaction, udp::ConnectionId(5), out),
            UdpRequest::Announce { transaction, announce, options, .. } => {
                let path = String::from_utf8(options.url_data()).unwrap();
                book.lock().unwrap().push((path, announce.event, announce.left, announce.numwant));
                let peers = ["5.6.7.8:9".parse().unwrap()].into_iter();
                udp::announced(transaction, (1_800, 2, 1), peers, false, out);
            }
            UdpRequest::Scrape { transaction, hashes, .. } => {
                book.lock().unwrap().push(("udp".into(), None, 0, None));
                let counts = ScrapeCounts { complete: 1, downloaded: 9, incomplete: 2 };
                udp::scraped(transaction, hashes.iter().map(|_| counts), out);
            }
        }
    }

    fn torrent(trackers: Vec<Vec<String>>) -> Arc<[u8]> {
        let file = NewFile { length: 70_000, ..NewFile::default() };
        let content = Content { name: "film".into(), files: Files::Single(file) };
        let plan = Plan::new(content, Options { trackers, ..Options::new(Version::V1) }).unwrap();
        plan.finish(&vec![[1; 20]; plan.pieces() as usize], &[]).unwrap().into()
    }

    #[test]
    fn each_tracker_answers_for_itself_and_hears_goodbye_or_is_only_counted() {
        let book = Book::default();
        let here = vec!["127.0.0.1:0".parse().unwrap()];
        let by_udp = serve_udp(&here, udp_tracker(book.clone())).unwrap();
        let by_http = serve(here, http_tracker(book.clone()), ServeLimits::default()).unwrap();
        let at = |path: &str| format!("http://{}/{path}", by_http.addrs()[0]);
        let udp = format!("udp://{}/announce", by_udp.addrs()[0]);
        let trackers = vec![
            vec![at("announce"), at("no/announce")],
            vec!["wss://t:1".into(), at("announce")],
            vec![udp],
        ];
        let metainfo = torrent(trackers);
        let request =
            AnnounceRequest { metainfo, wait_s: 10, num_want: 50, scrape: false, net: NetOptions::default() };
        let answers = announce_all(&request, &Cancel::default()).unwrap();
        let errors: Vec<_> = answers.iter().map(|answer| answer.error.as_deref()).collect();
        assert_eq!(errors, [None, Some("go !"), Some("wss trackers are not supported yet"), None]);
        let facts = |answer: &TrackerAnswer| {
            let peers: Vec<String> = answer.peers.iter().map(SocketAddr::to_string).collect();
            (peers.join(" "), answer.seeds, answer.leeches, answer.downloads, answer.interval_s)
        };
        assert_eq!(facts(&answers[0]), ("1.2.3.4:7".into(), Some(3), Some(4), None, Some(900)));
        assert_eq!(facts(&answers[3]), ("5.6.7.8:9".into(), Some(1), Some(2), None, Some(1_800)));
        let mut heard = std::mem::take(&mut *book.lock().unwrap());
        heard.sort_by_key(|(path, event, ..)| (path.clone(), *event != Some(Event::Started)));
        let told = |path: &str, event| (path.to_owned(), Some(event), 70_000, Some(50));
        let (hello, bye) = (told("/announce", Event::Started), told("/announce", Event::Stopped));
        let both = [hello.clone(), hello, bye.clone(), bye];
        assert_eq!((&heard[..4], &heard[4..]), (&both[..], &[told("/no/announce", Event::Started)][..]));

        let answers = announce_all(&AnnounceRequest { scrape: true, ..request }, &Cancel::default()).unwrap();
        assert_eq!(facts(&answers[0]), (String::new(), Some(3), Some(4), Some(50), None));
        assert_eq!(facts(&answers[3]), (String::new(), Some(1), Some(2), Some(9), None));
        assert!(answers[1].error.is_some() && answers[2].error.is_some() && answers[0].error.is_none());
        let mut heard = std::mem::take(&mut *book.lock().unwrap());
        heard.sort_by_key(|(path, ..)| path.clone());
        assert_eq!(
            heard.iter().map(|(path, ..)| &path[..]).collect::<Vec<_>>(),
            ["/no/scrape", "/scrape", "udp"]
        );
        by_http.stop();
        by_udp.stop();
    }

    #[test]
    fn by_a_proxy_that_carries_nothing_nobody_is_asked_and_each_says_why() {
        let book = Book::default();
        let here = ["127.0.0.1:0".parse().unwrap()];
        let by_udp = serve_udp(&here, udp_tracker(book.clone())).unwrap();
        let port = by_udp.addrs()[0].port();
        let urls = [format!("udp://127.0.0.1:{port}/announce"), format!("udp://localhost:{port}/announce")];
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (scheme, why) in [
            ("socks5", "the proxy relays no datagrams: Connection refused"),
            ("http", "an HTTP proxy carries no UDP"),
        ] {
            let proxy = Some(piecemeal_api::Proxy::parse(&format!("{scheme}://{dead}")).unwrap());
            let net = NetOptions { proxy, ..NetOptions::default() };
            let metainfo = torrent(vec![urls.to_vec()]);
            for scrape in [false, true] {
                let metainfo = metainfo.clone();
                let request =
                    AnnounceRequest { metainfo, wait_s: 20, num_want: 50, scrape, net: net.clone() };
                let answers = announce_all(&request, &Cancel::default()).unwrap();
                let errors: Vec<_> = answers.iter().map(|answer| answer.error.as_deref()).collect();
                assert_eq!(errors, [Some(why); 2]);
            }
        }
        by_udp.stop();
        assert_eq!(book.lock().unwrap().len(), 0, "past the proxy");
    }
}
