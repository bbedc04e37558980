//! What came back, in the three ways that matter.

use piecemeal_wire::tracker::{AnnounceAnswer, AnnounceFailure, AnnounceReply, RetryIn};

use super::FetchFailure;

/// What came of one request.
pub(super) enum Answer {
    /// The announce was taken.
    Taken(AnnounceAnswer),
    /// It was not.
    Refused {
        /// Why, for people.
        reason: String,
        /// What the tracker says about trying again (BEP 31).
        retry_in: Option<RetryIn>,
    },
    /// The tracker does not live in this family.
    Absent,
}

/// Reads a body, or the lack of one. Never panics, whatever the bytes are.
pub(super) fn read(result: Result<&[u8], FetchFailure>) -> Answer {
    let refused = |reason: String| Answer::Refused { reason, retry_in: None };
    match result {
        Ok(body) => match AnnounceReply::decode(body) {
            Ok(AnnounceReply::Answer(answer)) => Answer::Taken(answer),
            Ok(AnnounceReply::Failure(failure)) => in_its_words(failure),
            Err(why) => refused(format!("not a tracker's answer: {why}")),
        },
        Err(FetchFailure::NoAddress) => Answer::Absent,
        // Some trackers refuse with a status and explain in the usual way.
        Err(FetchFailure::Status(status, body)) => match AnnounceReply::decode(&body) {
            Ok(AnnounceReply::Failure(failure)) => in_its_words(failure),
            _ => refused(format!("the server answered {status}")),
        },
        Err(FetchFailure::TimedOut) => refused("no answer in time".into()),
        Err(FetchFailure::Unreachable(why)) => refused(why),
    }
}

fn in_its_words(failure: AnnounceFailure) -> Answer {
    let reason = if failure.reason.is_empty() { "refused without a reason".into() } else { failure.reason };
    Answer::Refused { reason, retry_in: failure.retry_in }
}
