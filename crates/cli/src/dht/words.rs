//! What `piecemeal dht` says, line by line.

use std::time::Duration;

use piecemeal_api::{DhtBinding, DhtFinding, DhtNode, DhtScrape, DhtSummary};
use piecemeal_metainfo::to_hex;

use crate::units::{count, span};

/// What one node says of itself and us.
pub fn pong(finding: &DhtFinding) -> Vec<String> {
    let DhtFinding::Pong { node, rtt_us, client, sees_us_at } = finding else { return Vec::new() };
    let client = client.as_deref().map_or_else(|| "not told".to_owned(), program);
    let seen = sees_us_at.map_or_else(|| "not told".to_owned(), |addr| addr.to_string());
    let fits = match node.binding {
        DhtBinding::Fits => "fits its address (BEP 42)",
        DhtBinding::Differs => "does not fit its address (BEP 42)",
        DhtBinding::Local => "any fits a local address (BEP 42)",
    };
    vec![
        format!("{}: answered in {} ms", node.addr, millis(*rtt_us)),
        format!("  node id     {}, {fits}", node.id),
        format!("  client      {client}"),
        format!("  sees us at  {seen}"),
    ]
}

/// One node of a search.
pub fn node(node: &DhtNode) -> String {
    let remark = if node.binding == DhtBinding::Differs { "  (id does not fit the address)" } else { "" };
    format!("{}  {}{remark}", node.id, node.addr)
}

/// The size of a swarm.
pub fn scrape(scrape: DhtScrape) -> String {
    // An estimate, so whole numbers say enough.
    let round = |number: f64| number.round().max(0.0) as u64;
    let (seeds, others) = (round(scrape.seeds), round(scrape.leeches));
    format!("about {} and {}", count(seeds, "seed"), count(others, "other peer"))
}

/// By what a value is found: of one that never changes, only that.
pub fn stored(summary: &DhtSummary) -> Vec<String> {
    match summary.signed {
        None => vec![summary.target.to_string()],
        Some(signed) => {
            vec![
                format!("key      {}", to_hex(&signed.key)),
                format!("target   {}", summary.target),
                format!("version  {}", signed.seq),
            ]
        }
    }
}

/// How a search went.
pub fn searched(summary: &DhtSummary, what: &str) -> String {
    let took = span(Duration::from_millis(summary.took_ms));
    let (answered, asked) = (summary.answered, count(u64::from(summary.asked), "node"));
    let cut = if summary.complete { "" } else { ", cut short: --timeout gives it longer" };
    format!("{what}; {answered} of {asked} answered in {took}{cut}")
}

/// Why nobody did what was asked.
pub fn refused(summary: &DhtSummary, did: &str) -> String {
    let words = match summary.refused {
        None => return format!("no node {did}"),
        Some(201) => "something went wrong there",
        Some(202) => "the node cannot answer now",
        Some(203) => "it found the question malformed",
        Some(204) => "it does not know the question",
        Some(205) => "the value is too big",
        Some(206) => "the signature does not fit",
        Some(207) => "the salt is too big",
        Some(301) => "another version is there than --cas says",
        Some(302) => "a newer version is there",
        Some(_) => "it did not say why",
    };
    let code = summary.refused.unwrap_or_default();
    format!("no node {did}: {words} (error {code})")
}

/// What helps who could not store.
pub fn remedy(summary: &DhtSummary) -> &'static str {
    match summary.refused {
        Some(301) => "look at what is there with `piecemeal dht get`",
        Some(302) => "leave --seq out, or give a higher one",
        Some(205) => "store less",
        _ => "try again later",
    }
}

/// `v`: two letters and two bytes of version are usual, anything may come.
fn program(bytes: &[u8]) -> String {
    match bytes {
        [a, b, major, minor] if a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric() => {
            let (letters, name) = ([*a, *b].map(char::from), name(&[*a, *b]));
            let letters = String::from_iter(letters);
            let known = name.map_or_else(String::new, |name| format!(" ({name})"));
            format!("{letters} {major}.{minor}{known}")
        }
        other => to_hex(other),
    }
}

fn name(letters: &[u8; 2]) -> Option<&'static str> {
    Some(match letters {
        b"LT" => "libtorrent",
        b"PM" => "piecemeal",
        b"TR" => "Transmission",
        b"UT" => "uTorrent",
        _ => return None,
    })
}

fn millis(us: u64) -> String {
    format!("{}.{}", us / 1000, us % 1000 / 100)
}
