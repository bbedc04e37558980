//! Getting one URL: the way there, redirects included, and the body within bounds.
//!
//! Owns what holds for every request we make: only HTTP and HTTPS, no way but that of the policy, nothing stored
//! or sent along but the URL and, if the caller keeps what it led to, by what the server knows that; and no detour from the
//! internet into a local network. Who asks, and when, is left to the callers.

use super::place::{Names, Nowhere, Reach, gate_of, looks_like_tracker, names_a_host, says_local};
use crate::net::{Dialer, Traffic, Way};
use piecemeal_metainfo::sha1;
use reqwest::header::{
    ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION,
};
use reqwest::{Client, Response, StatusCode, Url};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::Notify;

/// Redirects followed, as libtorrent follows.
const REDIRECTS_MAX: usize = 5;
/// Idle connections kept to one host: an announce is rarely followed by another within the idle time.
const IDLE_PER_HOST: usize = 2;
/// How long they are kept.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes of the longest validator that is kept; servers use some 40.
const VALIDATOR_BYTES: usize = 1024;
/// Who we say we are when nobody said it for us.
const USER_AGENT: &str = concat!("piecemeal/", env!("CARGO_PKG_VERSION"));

/// Why a URL gave nothing.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum GetError {
    /// Not a URL, or neither `http` nor `https`.
    #[error("not an HTTP URL")]
    BadUrl,
    /// The host has no address that may be used.
    #[error("the host has no address")]
    NoAddress,
    /// It leads into a local network from outside, or from a torrent to what does not look like a tracker.
    #[error("leads to a local address")]
    Local,
    /// Nobody there may be talked to.
    #[error("the IP filter blocks its address")]
    Blocked,
    /// More than five redirects.
    #[error("too many redirects")]
    Redirects,
    /// Not all of it came in time.
    #[error("timed out")]
    TimedOut,
    /// Larger than asked for; bytes allowed.
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    /// An answer that is no 200, with as much of its body as was allowed.
    #[error("the server answered {0}")]
    Status(u16, Vec<u8>),
    /// No connection, or a broken one: the reason in words.
    #[error("{0}")]
    Unreachable(String),
}

/// A wish to give up a request, shared by clones. Once raised it stays.
#[derive(Clone, Default, Debug)]
pub struct Stop(Arc<(AtomicBool, Notify)>);

impl Stop {
    /// Whoever waits for a request gives it up.
    pub fn raise(&self) {
        let (raised, notify) = &*self.0;
        raised.store(true, Ordering::SeqCst);
        // Kept for who begins to wait later.
        notify.notify_one();
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    /// Until it is raised; one waits at a time.
    async fn raised(&self) {
        while !self.is_raised() {
            self.0.1.notified().await;
        }
    }
}

/// By what a server knows which of its answers somebody has (RFC 9110, 8.8). None of it is understood here; it is said to
/// that server as it said it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Validators {
    /// SHA-1 of the URL that the answer came from in the end, redirects followed. Only there it is said. Not the URL, which may
    /// have a password in it, since this is kept.
    pub url_hash: [u8; 20],
    /// Its `ETag`; printable ASCII.
    pub etag: Option<String>,
    /// Its `Last-Modified`; printable ASCII.
    pub last_modified: Option<String>,
}

/// What a URL gave to somebody who may have it already.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Got {
    /// The body, and what to say the next time to get it only if it has changed.
    Body(Vec<u8>, Validators),
    /// It is what those validators are of.
    Unchanged,
}

/// Gets a URL a user gave, such as that of a .torrent file, by the way of web seeds, and blocks until it is there.
///
/// `cap_bytes` bounds the body after inflating, `timeout` everything from the first look-up to the last byte. Not to
/// be called from asynchronous code.
///
/// # Errors
/// As [`GetError`] says.
pub fn get(dialer: &Dialer, url: &str, cap_bytes: usize, timeout: Duration) -> Result<Vec<u8>, GetError> {
    let got = get_if_changed(dialer, url, &Validators::default(), cap_bytes, timeout, &Stop::default());
    got.and_then(body_of)
}

/// As [`get`], and spares the body if it is what `known` is of. Gives up when `stop` is raised: then it has timed out.
///
/// # Errors
/// As [`GetError`] says.
pub fn get_if_changed(
    dialer: &Dialer,
    url: &str,
    known: &Validators,
    cap_bytes: usize,
    timeout: Duration,
    stop: &Stop,
) -> Result<Got, GetError> {
    let trouble = |why: std::io::Error| GetError::Unreachable(why.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(trouble)?;
    let browser = Browser::new(dialer.clone(), Traffic::Web, Trust::User, USER_AGENT, [true, true]);
    let result = runtime.block_on(async {
        tokio::select! {
            got = browser.get_if_changed(url, known, cap_bytes, timeout) => got,
            () = stop.raised() => Err(GetError::TimedOut),
        }
    });
    // A look-up that hangs in the system's resolver must not hold up the caller.
    runtime.shutdown_background();
    result
}

/// Of a request that said nothing of what is known, an answer has a body.
fn body_of(got: Got) -> Result<Vec<u8>, GetError> {
    match got {
        Got::Body(body, _) => Ok(body),
        Got::Unchanged => Err(GetError::Status(304, Vec::new())),
    }
}

/// Whose word the first URL is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trust {
    /// Somebody who may go where he likes.
    User,
    /// A torrent's author, whose trackers may be local only if they look like trackers.
    Torrent,
}

/// Makes requests to addresses of one family, or of both.
pub(super) struct Browser {
    dialer: Dialer,
    traffic: Traffic,
    trust: Trust,
    user_agent: String,
    /// IPv4, IPv6.
    families: [bool; 2],
    /// To anywhere, and to the internet only. Made on first use: each reads the system's certificates. Made anew when
    /// connections that they keep are of no use any more.
    anywhere: Mutex<Option<(u64, Client)>>,
    outside: Mutex<Option<(u64, Client)>>,
}

impl Browser {
    pub fn new(
        dialer: Dialer,
        traffic: Traffic,
        trust: Trust,
        user_agent: &str,
        families: [bool; 2],
    ) -> Browser {
        let (anywhere, outside) = (Mutex::default(), Mutex::default());
        Browser { dialer, traffic, trust, user_agent: user_agent.into(), families, anywhere, outside }
    }

    pub async fn get(&self, url: &str, cap_bytes: usize, timeout: Duration) -> Result<Vec<u8>, GetError> {
        let got = self.get_if_changed(url, &Validators::default(), cap_bytes, timeout).await;
        got.and_then(body_of)
    }

    async fn get_if_changed(
        &self,
        url: &str,
        known: &Validators,
        cap_bytes: usize,
        timeout: Duration,
    ) -> Result<Got, GetError> {
        let walk = self.walk(url, known, cap_bytes);
        tokio::time::timeout(timeout, walk).await.unwrap_or(Err(GetError::TimedOut))
    }

    async fn walk(&self, url: &str, known: &Validators, cap_bytes: usize) -> Result<Got, GetError> {
        let mut url = parse(url)?;
        let mut local = self.trust == Trust::User || looks_like_tracker(&url);
        for _ in 0..=REDIRECTS_MAX {
            let headers = known.headers(&url);
            let conditional = !headers.is_empty();
            let response = self.ask(&url, headers, local).await?;
            let Some(next) = redirect(&url, &response)? else {
                if conditional && response.status() == StatusCode::NOT_MODIFIED {
                    return Ok(Got::Unchanged);
                }
                let validators = Validators::of(&url, &response);
                return Ok(Got::Body(body(response, cap_bytes).await?, validators));
            };
            local = match self.trust {
                Trust::User => says_local(&url),
                // A tracker on the local network may go by a name, and move within it.
                Trust::Torrent => {
                    local
                        && looks_like_tracker(&next)
                        && (says_local(&url) || url.host_str() == next.host_str())
                }
            };
            url = next;
        }
        Err(GetError::Redirects)
    }

    async fn ask(&self, url: &Url, headers: HeaderMap, local: bool) -> Result<Response, GetError> {
        if let Some(why) = self.dialer.away() {
            return Err(GetError::Unreachable(why));
        }
        let reach = self.reach(url, local)?;
        reach.check(url, &gate_of(&self.dialer, self.trust))?;
        Ok(self.kept_client(reach)?.get(url.clone()).headers(headers).send().await?)
    }

    fn kept_client(&self, reach: Reach) -> Result<Client, GetError> {
        let slot = if reach.local { &self.anywhere } else { &self.outside };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let era = self.dialer.era();
        match &*slot {
            Some((made, client)) if *made == era => Ok(client.clone()),
            _ => {
                let client = self.client(reach)?;
                *slot = Some((era, client.clone()));
                Ok(client)
            }
        }
    }

    fn reach(&self, url: &Url, local: bool) -> Result<Reach, GetError> {
        let proxied = match self.dialer.way(self.traffic) {
            Way::Off(why) => return Err(GetError::Unreachable(why.into())),
            way => way == Way::Proxy,
        };
        let [v4, v6] = if proxied { self.families } else { self.dialer.http_families(self.families) };
        // By which family the proxy goes to a name is its choice; so it is asked once, not once for each.
        if proxied && !v4 && names_a_host(url) {
            return Err(GetError::NoAddress);
        }
        if !v4 && !v6 {
            return Err(GetError::NoAddress);
        }
        Ok(Reach { v4, v6, local })
    }

    fn client(&self, reach: Reach) -> Result<Client, GetError> {
        let refused = |why: std::io::Error| GetError::Unreachable(why.to_string());
        let builder = || {
            let names =
                Names { dialer: self.dialer.clone(), traffic: self.traffic, reach, trust: self.trust };
            let builder = Client::builder()
                .user_agent(&self.user_agent)
                .referer(false)
                .redirect(reqwest::redirect::Policy::none())
                .pool_max_idle_per_host(IDLE_PER_HOST)
                .pool_idle_timeout(IDLE)
                .dns_resolver(names);
            self.dialer.http(builder, self.traffic, [reach.v4, reach.v6]).map_err(refused)
        };
        // A system without certificates still has trackers without TLS; those with it then fail one by one.
        builder()?.build().or_else(|_| Ok(builder()?.tls_certs_only([]).build()?))
    }
}

impl Validators {
    fn of(url: &Url, response: &Response) -> Validators {
        let text = |name: HeaderName| {
            let text = response.headers().get(name)?.to_str().ok()?;
            (!text.is_empty() && text.len() <= VALIDATOR_BYTES).then(|| text.to_owned())
        };
        Validators {
            url_hash: sha1(url.as_str().as_bytes()),
            etag: text(ETAG),
            last_modified: text(LAST_MODIFIED),
        }
    }

    /// What is said of them to this URL: nothing, if they are another's.
    fn headers(&self, url: &Url) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.url_hash != sha1(url.as_str().as_bytes()) {
            return headers;
        }
        for (name, value) in [(IF_NONE_MATCH, &self.etag), (IF_MODIFIED_SINCE, &self.last_modified)] {
            // What was kept on a disk may be anything.
            let value = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok());
            value.into_iter().for_each(|value| drop(headers.insert(name.clone(), value)));
        }
        headers
    }
}

fn parse(url: &str) -> Result<Url, GetError> {
    url.parse().ok().filter(is_http).ok_or(GetError::BadUrl)
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

/// Where the answer sends us, if it does.
fn redirect(from: &Url, response: &Response) -> Result<Option<Url>, GetError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else { return Ok(None) };
    let text = str::from_utf8(location.as_bytes()).map_err(|_| GetError::BadUrl)?;
    from.join(text).ok().filter(is_http).map(Some).ok_or(GetError::BadUrl)
}

async fn body(mut response: Response, cap_bytes: usize) -> Result<Vec<u8>, GetError> {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    let mut complete = true;
    // The length announced is not believed; chunks are what has come, already inflated.
    while let Some(chunk) = response.chunk().await? {
        if chunk.len() > cap_bytes - body.len() {
            complete = false;
            break;
        }
        body.extend_from_slice(&chunk);
    }
    match status {
        200 if complete => Ok(body),
        200 => Err(GetError::TooLarge(cap_bytes)),
        status => Err(GetError::Status(status, body)),
    }
}

impl From<Nowhere> for GetError {
    fn from(why: Nowhere) -> GetError {
        match why {
            Nowhere::NoAddress => GetError::NoAddress,
            Nowhere::Local => GetError::Local,
            Nowhere::Blocked => GetError::Blocked,
        }
    }
}

impl From<reqwest::Error> for GetError {
    /// Finds our resolver's word, or the deepest cause: the outer layers only say that sending failed.
    fn from(why: reqwest::Error) -> GetError {
        let mut cause: &dyn std::error::Error = &why;
        loop {
            if let Some(nowhere) = cause.downcast_ref::<Nowhere>() {
                return (*nowhere).into();
            }
            match cause.source() {
                Some(source) => cause = source,
                None => return GetError::Unreachable(cause.to_string()),
            }
        }
    }
}
