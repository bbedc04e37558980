//! Fetching a .torrent file over HTTP.

use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use piecemeal_api::{Cancel, NetOptions, Refusal};
use piecemeal_metainfo::bencode::Limits;
use piecemeal_shell::http;
use piecemeal_shell::net::Dialer;

use crate::wait::{Missed, Stop};
use crate::ways::policy;

/// From the first look-up to the last byte: a large torrent over a slow line.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Fetches a .torrent file over http or https, at most as large as one that parses, within a minute.
///
/// # Errors
/// The way named makes no sense, the address is none, nobody is there, the answer is too large or no 200, or the caller asked to stop.
pub fn fetch_torrent(url: &str, net: &NetOptions, cancel: &Cancel) -> Result<Vec<u8>, Refusal> {
    let (done, result) = bounded(1);
    let (its, policy) = (url.to_owned(), policy(net)?);
    let fetch = move || {
        // Nobody listens any more if the caller asked to stop.
        let _ = done.send(http::get(&Dialer::new(policy), &its, Limits::TORRENT.bytes, TIMEOUT));
    };
    let thread = thread::Builder::new().name("piecemeal-fetch".into()).spawn(fetch);
    thread.map_err(|why| Refusal::System {
        what: "a thread to fetch with".into(),
        reason: crate::words::reason(&why),
    })?;
    let failed = |reason: String| Refusal::Network { url: url.to_owned(), reason };
    match Stop::of(cancel).hear(&result, None) {
        Ok(result) => result.map_err(|why| failed(why.to_string())),
        Err(Missed::Cancelled) => Err(Refusal::Cancelled),
        Err(Missed::Gone | Missed::Late) => Err(failed("the request died of a bug".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecemeal_shell::http::{Answer, ServeLimits, serve};

    #[test]
    fn a_file_over_http_or_a_line_that_says_why_not() {
        let answer = |asked: &http::Asked<'_>| Answer {
            status: if asked.path() == "/a.torrent" { 200 } else { 404 },
            content_type: "application/x-bittorrent",
            body: b"de".to_vec(),
        };
        let any = vec!["127.0.0.1:0".parse().unwrap()];
        let server = serve(any, move |asked| answer(asked), ServeLimits::default()).unwrap();
        let at = |path: &str| format!("http://{}/{path}", server.addrs()[0]);
        let cancel = Cancel::default();
        assert_eq!(fetch_torrent(&at("a.torrent"), &NetOptions::default(), &cancel), Ok(b"de".to_vec()));
        let line = fetch_torrent(&at("other"), &NetOptions::default(), &cancel).unwrap_err().to_string();
        assert!(line.contains("the server answered 404; "), "{line}");
        let line = fetch_torrent("ftp://a/b", &NetOptions::default(), &cancel).unwrap_err().to_string();
        assert!(line.starts_with("ftp://a/b: not an HTTP URL; "), "{line}");
        cancel.cancel();
        assert_eq!(fetch_torrent(&at("a.torrent"), &NetOptions::default(), &cancel), Err(Refusal::Cancelled));
        server.stop();
    }
}
