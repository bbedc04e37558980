//! The engine's values in the words of `api`.
//!
//! Owns the lines a person reads when something went wrong: what it is, and what to do. Decides nothing.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use piecemeal_api as api;
use piecemeal_discovery::tracker::{self, Heard, Outcome};
use piecemeal_engine::cx::{Carrier, Goodbye, PeerSnapshot, Reach, ReachedBy};
use piecemeal_metainfo::Time;
use piecemeal_package::{Trouble, TroubleKind};

/// An error of the system in a few words, without its number.
pub(crate) fn reason(why: &io::Error) -> String {
    match why.kind() {
        io::ErrorKind::NotFound => "not found".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => without_number(&why.to_string()).to_owned(),
    }
}

/// Where a router lets peers in, by what it said so long ago.
pub(crate) fn mapping(reach: &Reach, ago: Duration) -> api::Mapping {
    api::Mapping {
        protocol: match reach.by {
            ReachedBy::Pcp => api::MappingProtocol::Pcp,
            ReachedBy::NatPmp => api::MappingProtocol::NatPmp,
            ReachedBy::Upnp => api::MappingProtocol::Upnp,
        },
        external_addr: reach.external,
        external_port: reach.port,
        until_s: reach.lasts.saturating_sub(ago).as_secs(),
    }
}

/// Why a torrent stopped, and what helps.
pub(crate) fn trouble(trouble: &Trouble) -> api::Trouble {
    let (kind, what, remedy) = match trouble.kind {
        TroubleKind::NoSpace => (api::TroubleKind::DiskFull, None, "free some room"),
        TroubleKind::Permission => {
            (api::TroubleKind::Permission, None, "allow reading and writing there, then resume")
        }
        TroubleKind::Missing => {
            (api::TroubleKind::Missing, None, "bring it back and resume, or recheck to fetch it anew")
        }
        TroubleKind::Unsafe => {
            let what = "a link, a folder or something else stands where a file or folder of the torrent goes";
            (api::TroubleKind::Changed, Some(what), "move it away, then resume")
        }
        TroubleKind::Io => (api::TroubleKind::Disk, None, "see whether the disk is well, then resume"),
    };
    let what = what.unwrap_or_else(|| without_number(&trouble.text));
    let path = Some(&trouble.path).filter(|path| !path.is_empty());
    let place = path.map_or_else(String::new, |path| format!("{path}: "));
    api::Trouble {
        kind,
        path: path.map(PathBuf::from),
        text: format!("{place}{what}; {remedy}"),
        retries: trouble.kind == TroubleKind::NoSpace,
    }
}

/// The engine says that a torrent is in trouble, and what it was got lost on the way.
pub(crate) fn trouble_unknown() -> api::Trouble {
    api::Trouble {
        kind: api::TroubleKind::Disk,
        path: None,
        text: "the disk refused something; resume to see what".to_owned(),
        retries: false,
    }
}

/// The engine's thread died.
pub(crate) fn trouble_bug() -> api::Trouble {
    api::Trouble {
        kind: api::TroubleKind::Bug,
        path: None,
        text: "the engine stopped by a fault in the program; start it again, and please report it".to_owned(),
        retries: false,
    }
}

/// What a peer did to be banned.
pub(crate) fn goodbye(why: &Goodbye) -> String {
    match why {
        Goodbye::Closed => "it closed".to_owned(),
        Goodbye::Failed(words) => format!("the connection failed: {}", without_number(words)),
        Goodbye::Unreadable(words) => format!("content could not be read for it: {}", without_number(words)),
        Goodbye::Broke(what) => format!("it broke the protocol: {what}"),
        Goodbye::Poisoned => "it sent content that is not the torrent's".to_owned(),
        Goodbye::Banned => "it was banned before".to_owned(),
        Goodbye::Silent => "it said nothing for too long".to_owned(),
        Goodbye::Unknown => "it asked for a torrent that is not here".to_owned(),
        Goodbye::Ourselves => "it is this very program".to_owned(),
        Goodbye::Duplicate => "it is connected already".to_owned(),
        Goodbye::Crowded => "there are connections enough".to_owned(),
        Goodbye::Useless => "neither side has anything for the other".to_owned(),
        Goodbye::Leaving => "the torrent left".to_owned(),
    }
}

/// What a tracker said.
pub(crate) fn outcome(heard: &Heard) -> api::TrackerOutcome {
    match &heard.outcome {
        Outcome::Answered { peers, interval, warning, .. } => api::TrackerOutcome::Answered {
            peers: count(peers.len()),
            interval_s: seconds(*interval),
            warning: warning.clone(),
        },
        Outcome::Failed { reason, retry } => {
            api::TrackerOutcome::Failed { reason: reason.clone(), retry_s: seconds(*retry) }
        }
    }
}

/// How a tracker stands, at the time `at`.
pub(crate) fn tracker(status: &tracker::TrackerStatus, at: Time) -> api::TrackerStatus {
    api::TrackerStatus {
        url: status.url.clone(),
        tier: status.tier,
        state: match status.state {
            tracker::TrackerState::Idle => api::TrackerState::Idle,
            tracker::TrackerState::Announcing => api::TrackerState::Announcing,
            tracker::TrackerState::Working => api::TrackerState::Working,
            tracker::TrackerState::Failing => api::TrackerState::Failing,
        },
        last_error: status.last_error.clone(),
        seeds: status.seeds,
        leeches: status.leeches,
        downloads: status.downloads,
        counted_s: status.counted.map(|counted| at.since(counted).as_secs()),
        next_s: (status.next != Time::NEVER).then(|| status.next.since(at).as_secs()),
    }
}

/// How a peer stands.
pub(crate) fn peer(peer: &PeerSnapshot) -> api::PeerStatus {
    api::PeerStatus {
        addr: peer.addr,
        client: peer.client.clone(),
        down_rate: peer.down_rate,
        up_rate: peer.up_rate,
        downloaded: peer.downloaded,
        uploaded: peer.uploaded,
        have_pieces: peer.pieces,
        seed: peer.seed,
        flags: api::PeerFlags {
            incoming: !peer.outgoing,
            interested: peer.interested,
            wants_us: peer.wants_us,
            choked: !peer.served,
            chokes_us: !peer.unchoked,
            optimistic: peer.optimistic,
            snubbed: peer.snubbed,
            encrypted: peer.encrypted,
            utp: peer.carrier == Carrier::Utp,
            web_seed: false,
        },
    }
}

/// A number for people: what is beyond it is that large anyway.
pub(crate) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Whole seconds; what is beyond all numbers is never.
fn seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(api::TrackerOutcome::NEVER_S)
}

/// `No space left on device (os error 28)` without what is in brackets.
pub(crate) fn without_number(text: &str) -> &str {
    text.split(" (os error").next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_say_where_what_and_what_to_do() {
        let of =
            |kind, path: &str, text: &str| trouble(&Trouble { kind, path: path.into(), text: text.into() });
        let full = of(TroubleKind::NoSpace, "/d/a", "No space left on device (os error 28)");
        assert_eq!(full.text, "/d/a: No space left on device; free some room");
        assert!(full.retries && full.kind == api::TroubleKind::DiskFull);
        assert_eq!(full.path.as_deref(), Some("/d/a".as_ref()));
        for kind in [TroubleKind::Permission, TroubleKind::Missing, TroubleKind::Unsafe, TroubleKind::Io] {
            let said = of(kind, "/d/a", "words");
            assert!(!said.retries && said.text.starts_with("/d/a: ") && said.text.contains("; "), "{said:?}");
            assert!(!said.text.contains('\n'));
        }
        assert_eq!(of(TroubleKind::Io, "", "words").path, None);
    }

    #[test]
    fn never_is_the_largest_number() {
        let failed = |retry| {
            let outcome = Outcome::Failed { reason: "gone".into(), retry };
            super::outcome(&Heard { url: "http://t/announce".into(), outcome })
        };
        let said = |retry_s| api::TrackerOutcome::Failed { reason: "gone".into(), retry_s };
        assert_eq!(failed(Duration::from_secs(30)), said(30));
        assert_eq!(failed(Duration::MAX), said(u32::MAX));
    }
}
