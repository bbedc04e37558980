//! What an examination of the network finds: what is open, by which ways anything goes, and whether any of it leaks.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::status::Mapping;
use crate::tools::EngineOptions;

/// What to examine.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DoctorRequest {
    /// The engine that would be started with. `dht_nodes` are asked how they see us.
    pub engine: EngineOptions,
    /// The longest to wait for anybody out there, in whole seconds.
    pub wait_s: u32,
}

/// What was found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The one interface that may be used; `None`: any may.
    pub interface: Option<InterfaceState>,
    /// Where peers can call us by TCP.
    pub listening: Vec<SocketAddr>,
    /// Where datagrams are heard.
    pub datagrams: Vec<SocketAddr>,
    /// Which way each kind of traffic takes.
    pub ways: Vec<WayOf>,
    /// Who is asked for names of hosts; empty: the system looks them up, by any interface.
    pub name_servers: Vec<SocketAddr>,
    /// How nodes of the distributed hash table see us, one of each family at most.
    pub seen: Vec<SeenAs>,
    /// Why nobody was asked, or nobody answered, if `seen` is empty.
    #[serde(default)]
    pub unseen: Option<String>,
    /// The router's port that is ours.
    #[serde(default)]
    pub mapping: Option<Mapping>,
    /// Whether peers outside reach us, in words: nobody can know it from here alone.
    pub reachable: String,
    /// What the proxy said, if there is one.
    #[serde(default)]
    pub proxy: Option<ProxyState>,
    /// What was looked at for leaks.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Nothing leaks, and what was named is there.
    pub fn is_well(&self) -> bool {
        let there = self.interface.as_ref().is_none_or(|interface| interface.there);
        let proxied = self.proxy.as_ref().is_none_or(|proxy| proxy.connects.error.is_none());
        there && proxied && self.checks.iter().all(|check| check.good)
    }
}

/// The interface that is tied to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InterfaceState {
    /// What the system calls it.
    pub name: String,
    /// It is up and has an address.
    pub there: bool,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
    /// The system itself keeps sockets to it; otherwise they are bound to its addresses.
    pub tied: bool,
}

/// The way of one kind of traffic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WayOf {
    /// Which kind, in words.
    pub traffic: String,
    /// Which way.
    pub way: Way,
    /// Why it is off.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// By sockets of our own.
    Direct,
    /// By the proxy.
    Proxy,
    /// None.
    Off,
}

/// How somebody sees us.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SeenAs {
    /// Our address and port, as it is seen there.
    pub addr: SocketAddr,
    /// Who sees it.
    pub by: String,
}

/// What a proxy is good for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProxyState {
    /// As it was named.
    pub place: String,
    /// Connections by it.
    pub connects: Answer,
    /// Datagrams by it; `None`: its kind carries none.
    #[serde(default)]
    pub relays: Option<Answer>,
}

/// What came of a try.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// What was tried, and what was said, in words.
    pub text: String,
    /// What went wrong.
    #[serde(default)]
    pub error: Option<String>,
}

/// One look for leaks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub what: String,
    /// As it should be.
    pub good: bool,
    /// What was found.
    pub found: String,
}
