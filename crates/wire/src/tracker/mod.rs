//! What clients and HTTP trackers say to each other (BEP 3, 7, 23, 24, 31, 48), in both directions.
//!
//! Owns the URL queries and the bencoded answers. It clamps no interval, retries nothing and judges no peer: a
//! client's manners live in `discovery::Tracker`, a tracker's book in `discovery::Swarms`, HTTP itself in the shell.

mod answer;
mod percent;
mod query;
mod scrape;

pub use answer::{
    AnnounceAnswer, AnnounceFailure, AnnounceReply, AnswerError, MAX_PEERS, PeerForm, RetryIn, TrackerPeer,
};
pub use query::{
    AnnounceRequest, Event, MAX_QUERY_BYTES, MAX_SCRAPE_HASHES, QueryError, announce_url,
    parse_announce_query, parse_scrape_query, scrape_url,
};
pub use scrape::{ScrapeAnswer, ScrapeCounts, ScrapeReply};
