//! An examination of the network: an engine is started as it would be, looked at, and stopped again.
//!
//! Owns the order of looks and the words for what cannot be known from here. The looks themselves are `shell::net`'s.

use std::time::{Duration, Instant};

use piecemeal_api::{
    Answer, Cancel, Check, DhtAsk, DhtFinding, DhtRequest, Diagnosis, DoctorRequest, EngineOptions, Event,
    Events, Heard, InterfaceState, IpFamily, Mapping, ProxyKind, ProxyState, Refusal, SeenAs, Transports,
    Way, WayOf,
};
use piecemeal_shell::net::{self, Dialer, Traffic};

use super::dht;
use crate::wait::{Nudge, Stop};
use crate::{Session, nodes, ways, words};

/// The longest that one node, and the proxy, is waited for.
const PATIENCE_S: u32 = 5;
/// The engine has nobody to take leave of but a router.
const FAREWELL: Duration = Duration::from_secs(3);

/// Says what is open, by which ways anything goes, how others see us, and whether anything leaks.
///
/// # Errors
/// The options make no sense, an address cannot be listened on, or the caller asked to stop.
pub fn examine(request: &DoctorRequest, cancel: &Cancel) -> Result<Diagnosis, Refusal> {
    let until = Instant::now() + Duration::from_secs(u64::from(request.wait_s));
    // What it would do with torrents is not examined, and another engine may be running on the same facts.
    let options = EngineOptions { state_dir: None, ..request.engine.clone() };
    let session = Session::start(&options)?;
    let mut events = session.events();
    let dialer = Dialer::new(ways::policy(&options.net)?);
    let (seen, unseen) = seen(&options, &dialer, until, cancel);
    let proxy = options.net.proxy.as_ref().map(|proxy| {
        let place = format!("{}:{}", proxy.host, proxy.port);
        proxy_state(&dialer, place, proxy.kind, &options)
    });
    let wanted = options.port_mapping && dialer.way(Traffic::Mapping).is_direct();
    let mapping = if wanted { mapping(&mut events, until, cancel) } else { None };
    let listening = session.listening().to_vec();
    let datagrams = session.hearing().to_vec();
    let diagnosis = Diagnosis {
        interface: interface(&dialer),
        reachable: reachable(&listening, mapping.as_ref()).to_owned(),
        listening,
        datagrams,
        ways: Traffic::ALL.into_iter().map(|traffic| way(&options, &dialer, traffic)).collect(),
        name_servers: net::name_servers(&dialer).unwrap_or_default(),
        seen,
        unseen,
        mapping,
        proxy,
        checks: net::leaks(&dialer).into_iter().map(check).collect(),
    };
    session.shutdown(FAREWELL);
    if cancel.is_cancelled() { Err(Refusal::Cancelled) } else { Ok(diagnosis) }
}

fn interface(dialer: &Dialer) -> Option<InterfaceState> {
    let name = dialer.policy().interface.clone()?;
    let seen = dialer.interface();
    let there = seen.is_some();
    let addrs = seen.map(|seen| seen.addrs).unwrap_or_default();
    Some(InterfaceState { name, there, addrs, tied: !dialer.ties_by_address() })
}

/// The way of a kind of traffic, where the user did not turn it off.
fn way(options: &EngineOptions, dialer: &Dialer, traffic: Traffic) -> WayOf {
    let unwanted = match traffic {
        Traffic::PeersTcp => options.transports == Transports::Utp,
        Traffic::PeersUtp => options.transports == Transports::Tcp,
        Traffic::Dht => !options.dht,
        Traffic::Lsd => !options.lsd,
        Traffic::Mapping => !options.port_mapping,
        _ => false,
    };
    let (way, reason) = match dialer.way(traffic) {
        _ if unwanted => (Way::Off, Some("not wanted")),
        net::Way::Off(why) => (Way::Off, Some(why)),
        net::Way::Direct => (Way::Direct, None),
        net::Way::Proxy => (Way::Proxy, None),
    };
    WayOf { traffic: traffic.words().to_owned(), way, reason: reason.map(str::to_owned) }
}

/// How nodes of the DHT see us, by both families at once.
fn seen(
    options: &EngineOptions,
    dialer: &Dialer,
    until: Instant,
    cancel: &Cancel,
) -> (Vec<SeenAs>, Option<String>) {
    let inside = options.listen.iter().all(|addr| addr.ip().is_loopback()) && !options.listen.is_empty();
    let hosts = match &options.dht_nodes[..] {
        _ if !options.dht => return (Vec::new(), Some("the DHT is not wanted".to_owned())),
        [] if inside => return (Vec::new(), Some("listening on loopback alone".to_owned())),
        [] => nodes::WELL_KNOWN.map(str::to_owned).to_vec(),
        named => named.to_vec(),
    };
    let family = |ipv4| if ipv4 { IpFamily::V4 } else { IpFamily::V6 };
    let families = [true, false].into_iter().filter(|ipv4| dialer.policy().speaks(*ipv4));
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = families
            .map(|ipv4| {
                scope.spawn({
                    let hosts = &hosts;
                    move || seen_by(options, hosts, family(ipv4), until, cancel)
                })
            })
            .collect();
        asked.into_iter().filter_map(|one| one.join().ok()).collect()
    });
    let mut why = None;
    let mut seen = Vec::new();
    for answer in answers {
        match answer {
            Ok(one) => seen.push(one),
            Err(refusal) => why = why.or(Some(refusal)),
        }
    }
    let why = why.filter(|_| seen.is_empty());
    (seen, why)
}

fn seen_by(
    options: &EngineOptions,
    hosts: &[String],
    family: IpFamily,
    until: Instant,
    cancel: &Cancel,
) -> Result<SeenAs, String> {
    let mut last = "no node of the DHT answered".to_owned();
    for host in hosts.iter().take_while(|_| Instant::now() < until && !cancel.is_cancelled()) {
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        let request = DhtRequest {
            ask: DhtAsk::Ping { addr: host.clone() },
            nodes: Vec::new(),
            state_dir: None,
            family: Some(family),
            wait_s: PATIENCE_S.min(u32::try_from(left).unwrap_or(PATIENCE_S)).max(1),
            net: options.net.clone(),
        };
        let mut seen = None;
        let mut hear = |finding| {
            if let DhtFinding::Pong { sees_us_at, .. } = finding {
                seen = sees_us_at;
            }
        };
        match dht(&request, &mut hear, cancel) {
            Ok(_) => {
                if let Some(addr) = seen {
                    return Ok(SeenAs { addr, by: host.clone() });
                }
            }
            Err(Refusal::Network { url, reason }) => last = format!("{url}: {reason}"),
            Err(other) => last = other.to_string(),
        }
    }
    Err(last)
}

fn proxy_state(dialer: &Dialer, place: String, kind: ProxyKind, options: &EngineOptions) -> ProxyState {
    let patience = Duration::from_secs(u64::from(PATIENCE_S));
    let host = options.dht_nodes.first().map_or(nodes::WELL_KNOWN[0], String::as_str);
    let (host, port) = host.rsplit_once(':').unwrap_or((host, ""));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // A wrong port is the user's, and is told by whoever asks the DHT.
    let port = port.parse().unwrap_or(EngineOptions::FIRST_PORT);
    let answer = |said: Result<String, String>| match said {
        Ok(text) => Answer { text, error: None },
        Err(why) => Answer { text: why.clone(), error: Some(why) },
    };
    ProxyState {
        place,
        connects: answer(net::proxy_connects(dialer, host, port, patience)),
        relays: (kind == ProxyKind::Socks5).then(|| answer(net::proxy_relays(dialer, patience))),
    }
}

/// Waits until the router gave a port, or said no.
fn mapping(events: &mut impl Events, until: Instant, cancel: &Cancel) -> Option<Mapping> {
    let (stop, news) = (Stop::of(cancel), Nudge::new());
    loop {
        match events.poll(news.waker()) {
            Heard::Event(Event::Mapping { mapping }) => return mapping,
            Heard::Event(_) => {}
            Heard::Closed => return None,
            Heard::Nothing => stop.nudged(&news, Some(until)).ok()?,
        }
    }
}

fn reachable(listening: &[std::net::SocketAddr], mapping: Option<&Mapping>) -> &'static str {
    match (listening, mapping) {
        ([], _) => "no: nobody can call us, since nothing listens",
        (_, Some(_)) => "likely: the router passes a port on to us; certain only when peers have called",
        (all, None) if all.iter().all(|addr| addr.ip().is_loopback()) => "no: listening on loopback alone",
        _ => {
            "not known: somebody outside would have to try; peers that call us during a download are the proof"
        }
    }
}

fn check(look: net::Look) -> Check {
    let net::Look { what, good, found } = look;
    Check { what, good, found: words::without_number(&found).to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecemeal_api::{NetOptions, Proxy};

    fn diagnosis(engine: EngineOptions) -> Diagnosis {
        let engine = EngineOptions { listen: vec!["127.0.0.1:0".parse().unwrap()], ..engine };
        examine(&DoctorRequest { engine, wait_s: 10 }, &Cancel::default()).unwrap()
    }

    fn way_of(found: &Diagnosis, traffic: &str) -> Way {
        found.ways.iter().find(|way| way.traffic == traffic).unwrap().way
    }

    #[test]
    fn a_node_tells_how_it_sees_us() {
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        let node = Session::start(&EngineOptions { listen, dht: true, ..EngineOptions::default() }).unwrap();
        let at = node.listening()[0].to_string();
        let net = NetOptions { bind: vec!["127.0.0.2".parse().unwrap()], ..NetOptions::default() };
        let found = diagnosis(EngineOptions {
            dht: true,
            dht_nodes: vec![at.clone()],
            net,
            ..EngineOptions::default()
        });
        assert_eq!((found.seen[0].addr.ip(), &found.seen[0].by), ("127.0.0.2".parse().unwrap(), &at));
        assert!(found.is_well() && found.unseen.is_none(), "{found:?}");
        assert_eq!(found.listening, found.datagrams);
        assert_eq!(way_of(&found, "distributed hash table"), Way::Direct);
        assert_eq!(way_of(&found, "local discovery"), Way::Off);
        node.shutdown(EngineOptions::MAX_FAREWELL);
    }

    #[test]
    fn an_interface_that_is_away_is_told_and_so_is_a_proxy_that_is_dead() {
        let net = NetOptions { interface: Some("no-such-if0".into()), ..NetOptions::default() };
        let found = diagnosis(EngineOptions { dht: true, net, ..EngineOptions::default() });
        let interface = found.interface.clone().unwrap();
        assert!(!interface.there && !found.is_well());
        assert_eq!(
            (&found.listening[..], &found.datagrams[..], &found.seen[..]),
            (&[][..], &[][..], &[][..])
        );
        let proxy = Some(Proxy::parse("socks5://127.0.0.1:1").unwrap());
        let net = NetOptions { proxy, ..NetOptions::default() };
        let found = diagnosis(EngineOptions { dht: true, net, ..EngineOptions::default() });
        assert!(found.proxy.as_ref().unwrap().connects.error.is_some() && !found.is_well());
        let ways =
            ["peers by TCP", "trackers by UDP", "distributed hash table"].map(|one| way_of(&found, one));
        assert_eq!(ways, [Way::Proxy; 3]);
        assert!(found.listening.is_empty() && found.checks.iter().all(|check| check.good), "{found:?}");
    }
}
