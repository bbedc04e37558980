//! What clients and trackers say to each other (BEP 3, 7, 15, 23, 24, 31, 41, 48), in both directions.
//!
//! Owns the URL queries and the bencoded answers of HTTP, and the datagrams of [`udp`]. It clamps no interval, retries nothing and judges no peer: a
//! client's manners live in `discovery::Tracker`, a tracker's book in `discovery::Swarms`, HTTP itself in the shell.

mod answer;
mod percent;
mod query;
mod scrape;
pub mod udp;

pub use answer::{
    AnnounceAnswer, AnnounceFailure, AnnounceReply, AnswerError, MAX_PEERS, PeerForm, RetryIn, TrackerPeer,
};
pub use query::{
    AnnounceRequest, Event, MAX_QUERY_BYTES, MAX_SCRAPE_HASHES, QueryError, announce_url,
    parse_announce_query, parse_scrape_query, scrape_url,
};
pub use scrape::{ScrapeAnswer, ScrapeCounts, ScrapeReply};
