//! Hosts of the DHT, by name.
//!
//! Name servers may take their time and cannot be stopped, so each name has a thread that is left behind when
//! nobody waits for it any more. Where the DHT goes by a proxy, names are the proxy's to look up: a ping is sent by the name,
//! and whoever answers is there.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use piecemeal_api::{Cancel, DhtRequest, IpFamily, Refusal};
use piecemeal_shell::dht::Meeting;
use piecemeal_shell::net::{Dialer, Traffic, Way};

use super::{fits, unreachable};
use crate::wait::{Missed, Stop};
use crate::{nodes, words};

/// Names looked up at once, a thread each.
const MOST_NAMES: usize = 32;
/// The longest that a search waits for names while it could begin at others.
const NAMES_WAIT: Duration = Duration::from_secs(10);
/// Nodes kept from the last run that are of use: those asked first are the way in.
const MOST_KEPT: usize = 48;

/// The address of one host.
pub(super) fn one(
    dialer: &Dialer,
    host: &str,
    family: Option<IpFamily>,
    until: Instant,
    cancel: &Cancel,
) -> Result<SocketAddr, Refusal> {
    let mut answers = look_up(dialer, &[host.to_owned()], until, cancel)?;
    let addrs = match answers.pop() {
        Some((_, Ok(addrs))) => addrs,
        Some((_, Err(why))) => return Err(unreachable(host, &why)),
        None => return Err(unreachable(host, "its name could not be looked up in time")),
    };
    let words = match family {
        None => "the name has no address",
        Some(IpFamily::V4) => "it has no IPv4 address",
        Some(IpFamily::V6) => "it has no IPv6 address",
    };
    addrs.into_iter().find(|addr| fits(addr, family)).ok_or_else(|| unreachable(host, words))
}

/// Where a search begins.
pub(super) fn to_begin_at(
    dialer: &Dialer,
    request: &DhtRequest,
    until: Instant,
    cancel: &Cancel,
) -> Result<Vec<SocketAddr>, Refusal> {
    let named = !request.nodes.is_empty();
    let names = if named { request.nodes.clone() } else { nodes::WELL_KNOWN.map(str::to_owned).into() };
    let answers = look_up(dialer, &names, until.min(Instant::now() + NAMES_WAIT), cancel)?;
    let (mut addrs, mut failed) = (Vec::new(), None);
    for (name, answer) in answers {
        match answer {
            Ok(found) => addrs.extend(found),
            Err(why) => failed = Some((name, why)),
        }
    }
    if let Some(dir) = request.state_dir.as_ref().filter(|_| !named) {
        let kept = nodes::load(&nodes::file(dir)).nodes;
        // What a proxy can reach is seen by what it reached.
        let by_proxy = dialer.way(Traffic::Dht) == Way::Proxy && !addrs.is_empty();
        let met = |ipv4| !by_proxy || addrs.iter().any(|addr: &SocketAddr| addr.is_ipv4() == ipv4);
        let families = [met(true), met(false)];
        let kept = kept.into_iter().filter(|addr| families[usize::from(addr.is_ipv6())]);
        addrs.extend(kept.take(MOST_KEPT));
    }
    addrs.retain(|addr| fits(addr, request.family));
    if !addrs.is_empty() {
        return Ok(addrs);
    }
    Err(match failed {
        Some((name, why)) => unreachable(&name, &why),
        None => unreachable("DHT", "no host to begin at has an address here"),
    })
}

type Answer = (String, Result<Vec<SocketAddr>, String>);

/// What names stand for, as far as it is known in time; in the order in which that became known.
fn look_up(
    dialer: &Dialer,
    names: &[String],
    until: Instant,
    cancel: &Cancel,
) -> Result<Vec<Answer>, Refusal> {
    if dialer.way(Traffic::Dht) == Way::Proxy {
        return meet(dialer, names, until, cancel);
    }
    let mut answers = Vec::new();
    let (tell, told) = bounded(MOST_NAMES);
    for name in names.iter().take(MOST_NAMES) {
        if let Ok(addr) = name.parse() {
            answers.push((name.clone(), Ok(vec![addr])));
            continue;
        }
        let (dialer, name, tell) = (dialer.clone(), name.clone(), tell.clone());
        let look_up = move || {
            let found = dialer.resolve_with_port(Traffic::Dht, &name).map_err(|why| words::reason(&why));
            // Nobody waits for it any more.
            let _ = tell.send((name, found));
        };
        let thread = thread::Builder::new().name("piecemeal-names".into()).spawn(look_up);
        thread.map_err(|why| Refusal::System {
            what: "a thread to look a name up".into(),
            reason: words::reason(&why),
        })?;
    }
    drop(tell);
    let stop = Stop::of(cancel);
    loop {
        match stop.hear(&told, Some(until)) {
            Ok(answer) => answers.push(answer),
            Err(Missed::Cancelled) => return Err(Refusal::Cancelled),
            Err(Missed::Late | Missed::Gone) => return Ok(answers),
        }
    }
}

/// The same by the proxy: from where those answered whose names it looked up.
fn meet(dialer: &Dialer, names: &[String], until: Instant, cancel: &Cancel) -> Result<Vec<Answer>, Refusal> {
    let (mut answers, mut unknown) = (Vec::new(), Vec::new());
    for name in names.iter().take(MOST_NAMES) {
        match (name.parse(), nodes::split(name)) {
            (Ok(addr), _) => answers.push((name.clone(), Ok(vec![addr]))),
            (Err(_), Some(host)) => unknown.push((name, host)),
            (Err(_), None) => answers.push((name.clone(), Err("not HOST:PORT".to_owned()))),
        }
    }
    let Some((first, _)) = unknown.first() else { return Ok(answers) };
    let first = (*first).clone();
    let whom = if unknown.len() == 1 { &*first } else { "DHT" };
    let failed = |why: std::io::Error| unreachable(whom, &words::reason(&why));
    let hosts = unknown.iter().map(|(_, host)| host.clone()).collect();
    let mut meeting = Meeting::open(dialer, hosts).map_err(failed)?;
    let _wakes = cancel.on_cancel(meeting.waker());
    let left = until.saturating_duration_since(Instant::now());
    let found = meeting.run(left, &|| cancel.is_cancelled()).map_err(failed)?;
    if cancel.is_cancelled() {
        return Err(Refusal::Cancelled);
    }
    if found.is_empty() {
        let none = "no answer by way of the proxy, which looks up its name";
        answers.extend(unknown.into_iter().map(|(name, _)| (name.clone(), Err(none.to_owned()))));
    } else {
        // Whose address is whose need not be known.
        answers.push((first, Ok(found)));
    }
    Ok(answers)
}
