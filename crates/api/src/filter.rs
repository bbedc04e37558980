//! Who may not be talked to: lists of ranges of addresses, and what is banned by hand.

use serde::{Deserialize, Serialize};

/// How the IP filter stands.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct IpFilterStatus {
    /// Ranges of all lists together; what is banned by hand is not among them.
    pub ranges: u64,
    /// The lists, in the order they were named.
    #[serde(default)]
    pub lists: Vec<IpList>,
    /// Connections that were refused or ended and datagrams that were dropped for it, since the start.
    #[serde(default)]
    pub blocked: u64,
}

/// One list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IpList {
    /// The file or URL, as it was named.
    pub place: String,
    /// Ranges in it; those that touch count as one.
    pub ranges: u64,
    /// It is not loaded yet, since its URL has never been read.
    #[serde(default)]
    pub waiting: bool,
    /// What is wrong with it: why it could not be read the last time, or which of its lines are no ranges. One line, which
    /// names it; make safe to print.
    #[serde(default)]
    pub warning: Option<String>,
}
