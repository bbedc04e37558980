//! Asking every tracker of a torrent who is there.
//!
//! Owns the round: `started` to each tracker over both families of addresses, then `stopped` where one answered. All
//! at once, since each has its own patience. What goes into a URL and comes out of a body is `wire::tracker`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use piecemeal_api::{AnnounceRequest, Cancel, EngineOptions, Refusal, TrackerAnswer};
use piecemeal_discovery::tracker::{Family, Fetch, FetchFailure, FetchId};
use piecemeal_metainfo::{Metainfo, TorrentId};
use piecemeal_shell::{entropy, http};
use piecemeal_wire::peer_id::own_peer_id;
use piecemeal_wire::tracker::{self as wire, AnnounceReply, Event, announce_url};

use crate::words;

/// Of the whole time, at most this is kept for leaving again.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long a wish to stop may go unnoticed.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Who wants to stop waits this long at most for trackers to hear it.
const HASTY_FAREWELL: Duration = Duration::from_secs(1);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const USER_AGENT: &str = concat!("piecemeal/", env!("CARGO_PKG_VERSION"));

type Reply = (FetchId, Result<Vec<u8>, FetchFailure>);

/// Asks each HTTP tracker of a torrent for peers, as one who has nothing, and takes leave again. One answer for each
/// tracker, in order of tier; those of other kinds answer that they are not supported.
///
/// # Errors
/// The torrent does not parse, the system refuses a thread, or the caller asked to stop.
pub fn announce_all(request: &AnnounceRequest, cancel: &Cancel) -> Result<Vec<TrackerAnswer>, Refusal> {
    let meta = super::parse(&request.metainfo)?;
    let until = Instant::now() + Duration::from_secs(u64::from(request.wait_s));
    let mut round = Round::new(&meta, request.num_want)?;
    let wait = Duration::from_secs(u64::from(request.wait_s));
    let asked = round.ask(Event::Started, wait - FAREWELL.min(wait / 4));
    let mut said = BTreeMap::new();
    round.hear(asked, until - FAREWELL.min(wait / 4), cancel, |id, result| {
        said.insert(id, read(result));
    });
    let met: BTreeSet<FetchId> = said.iter().filter(|(_, said)| said.is_ok()).map(|(id, _)| *id).collect();
    round.greeted = Some(met);
    let until = if cancel.is_cancelled() { until.min(Instant::now() + HASTY_FAREWELL) } else { until };
    let asked = round.ask(Event::Stopped, until.saturating_duration_since(Instant::now()));
    round.hear(asked, until, &Cancel::default(), |_, _| {});
    if cancel.is_cancelled() {
        return Err(Refusal::Cancelled);
    }
    let urls = std::mem::take(&mut round.urls);
    Ok((0..)
        .zip(urls)
        .map(|(at, url)| merge(url, FAMILIES.map(|family| said.remove(&id(at, family)))))
        .collect())
}

/// All trackers, asked at once.
struct Round {
    client: http::Client,
    replies: Receiver<Reply>,
    announce: wire::AnnounceRequest,
    /// Each once, in order of tier; at most `MAX_SOURCES`.
    urls: Vec<String>,
    /// Only those are spoken to; `None`: all.
    greeted: Option<BTreeSet<FetchId>>,
}

impl Round {
    fn new(meta: &Metainfo, num_want: u32) -> Result<Round, Refusal> {
        let system = |what: &str, why: &std::io::Error| Refusal::System {
            what: what.to_owned(),
            reason: words::reason(why),
        };
        let seed = entropy::seed().map_err(|why| system("randomness", &why))?;
        let (name, rest) = seed.split_first_chunk().expect("a seed has 32 bytes");
        let (key, _) = rest.split_first_chunk().expect("a seed has 32 bytes");
        let announce = wire::AnnounceRequest {
            left: meta.info().content_length,
            numwant: Some(num_want),
            key: u32::from_be_bytes(*key),
            supportcrypto: false,
            ..wire::AnnounceRequest::new(meta.wire_hash(), own_peer_id(*name), EngineOptions::FIRST_PORT)
        };
        let mut seen = BTreeSet::new();
        let urls: Vec<String> =
            meta.trackers().concat().into_iter().filter(|url| seen.insert(url.clone())).collect();
        // Room for all answers to both questions, so that the HTTP thread never waits for us.
        let (to, replies) = sync_channel(4 * urls.len() + 1);
        let client =
            http::Client::start(USER_AGENT, mailbox(to)).map_err(|why| system("the HTTP client", &why))?;
        Ok(Round { client, replies, announce, urls, greeted: None })
    }

    /// Sends this to everybody, and gives what to wait for.
    fn ask(&mut self, event: Event, timeout: Duration) -> BTreeSet<FetchId> {
        self.announce.event = Some(event);
        let mut asked = BTreeSet::new();
        for (at, url) in (0..).zip(&self.urls).filter(|(_, url)| is_http(url)) {
            for family in FAMILIES {
                let id = id(at, family);
                if self.greeted.as_ref().is_some_and(|greeted| !greeted.contains(&id)) {
                    continue;
                }
                asked.insert(id);
                let url = announce_url(url, &self.announce);
                self.client.fetch(TorrentId(0), Fetch { id, url, family, timeout });
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
        while !asked.is_empty() && !cancel.is_cancelled() {
            let left = until.saturating_duration_since(Instant::now());
            match self.replies.recv_timeout(left.min(LOOK_EVERY)) {
                Ok((id, result)) => {
                    if asked.remove(&id) {
                        heard(id, result);
                    }
                }
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                Err(_) => return,
            }
        }
    }
}

fn mailbox(to: SyncSender<Reply>) -> http::Reply {
    Box::new(move |_, id, result| match to.try_send((id, result)) {
        Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        Err(TrySendError::Full(_)) => debug_assert!(false, "more answers than questions"),
    })
}

fn id(at: u64, family: Family) -> FetchId {
    FetchId(2 * at + u64::from(family == Family::V6))
}

/// An answer, or why there is none; `None`: it has no address of this family.
type Said = Result<wire::AnnounceAnswer, Option<String>>;

fn read(result: Result<Vec<u8>, FetchFailure>) -> Said {
    match result {
        Ok(body) => match AnnounceReply::decode(&body) {
            Ok(AnnounceReply::Answer(answer)) => Ok(answer),
            Ok(AnnounceReply::Failure(failure)) => Err(Some(failure.reason)),
            Err(why) => Err(Some(format!("its answer makes no sense: {why}"))),
        },
        Err(FetchFailure::NoAddress) => Err(None),
        Err(FetchFailure::Status(status, body)) => Err(Some(match AnnounceReply::decode(&body) {
            Ok(AnnounceReply::Failure(failure)) => failure.reason,
            _ => format!("the server answered {status}"),
        })),
        Err(FetchFailure::TimedOut) => Err(Some("timed out".into())),
        Err(FetchFailure::Unreachable(why)) => Err(Some(why)),
    }
}

/// One answer of what was said over both families: one that answered is enough.
fn merge(url: String, said: [Option<Said>; 2]) -> TrackerAnswer {
    let mut answer = TrackerAnswer {
        peers: Vec::new(),
        interval_s: None,
        seeds: None,
        leeches: None,
        warning: None,
        error: None,
        url,
    };
    if !is_http(&answer.url) {
        let scheme = answer.url.split_once("://").map_or("such", |(scheme, _)| scheme);
        answer.error = Some(format!("{scheme} trackers are not supported yet"));
        return answer;
    }
    let mut errors = Vec::new();
    let mut answered = false;
    for said in said {
        match said {
            Some(Ok(said)) => {
                answered = true;
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

fn is_http(url: &str) -> bool {
    url.split_once("://")
        .is_some_and(|(scheme, _)| ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecemeal_metainfo::Version;
    use piecemeal_metainfo::create::{Content, Files, NewFile, Options, Plan};
    use piecemeal_shell::http::{Answer, Asked, ServeLimits, serve};
    use std::sync::{Arc, Mutex};

    #[test]
    fn each_tracker_answers_for_itself_and_hears_goodbye() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let book = heard.clone();
        let answer = move |asked: &Asked<'_>| {
            let query = wire::parse_announce_query(asked.query()).unwrap();
            book.lock().unwrap().push((
                asked.path().to_owned(),
                query.event.unwrap(),
                query.left,
                query.numwant,
            ));
            let body: &[u8] = match asked.path() {
                "/announce" => {
                    b"d8:completei3e10:incompletei4e8:intervali900e5:peers6:\x01\x02\x03\x04\x00\x07e"
                }
                _ => b"d14:failure reason4:go !e",
            };
            Answer { status: 200, content_type: "text/plain", body: body.to_vec() }
        };
        let server = serve(vec!["127.0.0.1:0".parse().unwrap()], answer, ServeLimits::default()).unwrap();
        let at = |path: &str| format!("http://{}/{path}", server.addrs()[0]);
        let trackers =
            vec![vec![at("announce"), at("no/announce")], vec!["udp://t:1".into(), at("announce")]];
        let file = NewFile { length: 70_000, ..NewFile::default() };
        let content = Content { name: "film".into(), files: Files::Single(file) };
        let plan = Plan::new(content, Options { trackers, ..Options::new(Version::V1) }).unwrap();
        let metainfo = plan.finish(&vec![[1; 20]; plan.pieces() as usize], &[]).unwrap().into();

        let request = AnnounceRequest { metainfo, wait_s: 10, num_want: 50 };
        let answers = announce_all(&request, &Cancel::default()).unwrap();
        let errors: Vec<_> = answers.iter().map(|answer| answer.error.as_deref()).collect();
        assert_eq!(errors, [None, Some("go !"), Some("udp trackers are not supported yet")]);
        let first = &answers[0];
        assert_eq!(first.peers, ["1.2.3.4:7".parse().unwrap()]);
        assert_eq!((first.seeds, first.leeches, first.interval_s), (Some(3), Some(4), Some(900)));
        let mut heard = std::mem::take(&mut *heard.lock().unwrap());
        heard.sort_by_key(|(path, event, ..)| (path.clone(), *event != Event::Started));
        let told = |path: &str, event| (path.to_owned(), event, 70_000, Some(50));
        assert_eq!(
            heard,
            [
                told("/announce", Event::Started),
                told("/announce", Event::Stopped),
                told("/no/announce", Event::Started),
            ]
        );
        server.stop();
    }
}
