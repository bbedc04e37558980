//! What a tracker answers to a scrape (BEP 48), read and written.

use super::answer::{AnnounceFailure, AnswerError, number};
use super::query::MAX_SCRAPE_HASHES;
use piecemeal_metainfo::InfoHash;
use piecemeal_metainfo::bencode::{self, Encoder, Limits, Value};

/// The two shapes of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ScrapeReply {
    /// Counts.
    Answer(ScrapeAnswer),
    /// None for you.
    Failure(AnnounceFailure),
}

/// Counts of some torrents.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScrapeAnswer {
    /// At most [`MAX_SCRAPE_HASHES`] when read, in the order they came. Torrents the tracker does not know are
    /// usually left out.
    pub files: Vec<(InfoHash, ScrapeCounts)>,
    /// Seconds before which no other scrape is welcome. Not clamped.
    pub min_request_interval: Option<u32>,
}

/// Counts of one torrent; what is absent or negative counts as 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScrapeCounts {
    /// Peers with everything.
    pub complete: u32,
    /// How often the torrent was completed.
    pub downloaded: u32,
    /// Peers without.
    pub incomplete: u32,
}

impl ScrapeReply {
    /// Reads the body of an answer; white space behind it is passed over.
    ///
    /// # Errors
    /// If the body is no bencoded dictionary within `bencode::Limits::TRACKER`.
    pub fn decode(body: &[u8]) -> Result<ScrapeReply, AnswerError> {
        let tape = bencode::decode(body.trim_ascii_end(), Limits::TRACKER)?;
        let root = tape.root();
        if root.as_dict().is_none() {
            return Err(AnswerError::NotADict);
        }
        if let Some(failure) = AnnounceFailure::read(root) {
            return Ok(ScrapeReply::Failure(failure));
        }
        let files = root.get(b"files").and_then(|files| files.as_dict()).into_iter().flatten();
        let files = files
            .filter_map(|(key, value)| Some((InfoHash(key.try_into().ok()?), ScrapeCounts::read(value))));
        let flags = root.get(b"flags");
        Ok(ScrapeReply::Answer(ScrapeAnswer {
            files: files.take(MAX_SCRAPE_HASHES).collect(),
            min_request_interval: flags.and_then(|flags| flags.get(b"min_request_interval")).and_then(number),
        }))
    }
}

impl ScrapeAnswer {
    /// The body of an answer; of a torrent that is there twice the first counts are written.
    pub fn encode(&self) -> Vec<u8> {
        let mut files: Vec<&(InfoHash, ScrapeCounts)> = self.files.iter().collect();
        files.sort_by_key(|(hash, _)| *hash);
        files.dedup_by_key(|(hash, _)| *hash);
        let mut out = Vec::new();
        let mut to = Encoder::new(&mut out);
        to.begin_dict().key(b"files").begin_dict();
        for (hash, counts) in files {
            to.key(&hash.0).begin_dict();
            to.pair_int(b"complete", counts.complete.into());
            to.pair_int(b"downloaded", counts.downloaded.into());
            to.pair_int(b"incomplete", counts.incomplete.into()).end();
        }
        to.end();
        if let Some(seconds) = self.min_request_interval {
            to.key(b"flags").begin_dict().pair_int(b"min_request_interval", seconds.into()).end();
        }
        to.end();
        out
    }
}

impl ScrapeCounts {
    fn read(value: Value<'_>) -> ScrapeCounts {
        let count = |key: &[u8]| value.get(key).and_then(number).unwrap_or(0);
        ScrapeCounts {
            complete: count(b"complete"),
            downloaded: count(b"downloaded"),
            incomplete: count(b"incomplete"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_bep_48_with_oddities() {
        let body = b"d5:filesd20:aaaaaaaaaaaaaaaaaaaad8:completei5e10:downloadedi50e10:incompletei10ee\
            20:bbbbbbbbbbbbbbbbbbbbi1e20:ccccccccccccccccccccd8:completei-1ee5:shortd8:completei1eee\
            5:flagsd20:min_request_intervali900eee";
        let counts = |complete, downloaded, incomplete| ScrapeCounts { complete, downloaded, incomplete };
        let expected = ScrapeAnswer {
            files: vec![
                (InfoHash([b'a'; 20]), counts(5, 50, 10)),
                (InfoHash([b'b'; 20]), counts(0, 0, 0)),
                (InfoHash([b'c'; 20]), counts(0, 0, 0)),
            ],
            min_request_interval: Some(900),
        };
        assert_eq!(ScrapeReply::decode(body), Ok(ScrapeReply::Answer(expected)));
        assert_eq!(ScrapeReply::decode(b"de"), Ok(ScrapeReply::Answer(ScrapeAnswer::default())));
        assert!(matches!(ScrapeReply::decode(b"d14:failure reason2:noe"), Ok(ScrapeReply::Failure(_))));
        assert_eq!(ScrapeReply::decode(b"le"), Err(AnswerError::NotADict));
    }

    proptest! {
        #[test]
        fn a_client_reads_what_a_server_writes(
            files in prop::collection::btree_map(any::<[u8; 20]>(), any::<(u32, u32, u32)>(), 0..MAX_SCRAPE_HASHES),
            min_request_interval: Option<u32>,
        ) {
            let files = files.into_iter().map(|(hash, (complete, downloaded, incomplete))| {
                (InfoHash(hash), ScrapeCounts { complete, downloaded, incomplete })
            });
            let sent = ScrapeAnswer { files: files.collect(), min_request_interval };
            prop_assert_eq!(ScrapeReply::decode(&sent.encode()), Ok(ScrapeReply::Answer(sent)));
        }
    }
}
