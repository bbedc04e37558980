//! `piecemeal net`: how this machine speaks to the network.

use std::net::{IpAddr, SocketAddr};

use piecemeal_api::{Diagnosis, DoctorRequest, Mapping, MappingProtocol, Tools, Way};

use crate::args::{Doctor, Net, NetCommand};
use crate::fail::Failure;
use crate::get::engine_options;
use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::text::{safe, width};

/// Columns of what stands on the left: the longest name of a kind of traffic, and a gap.
const LEFT: usize = 30;

/// Runs the command.
pub fn run(args: &Net, tools: &dyn Tools, host: &mut Host, stop: &Interrupt) -> Result<(), Failure> {
    match &args.command {
        NetCommand::Doctor(args) => doctor(args, tools, host, stop),
    }
}

/// Fails if something leaks, or is not there that was named.
fn doctor(args: &Doctor, tools: &dyn Tools, host: &mut Host, stop: &Interrupt) -> Result<(), Failure> {
    let wait_s = u32::try_from(args.timeout.as_secs()).unwrap_or(u32::MAX);
    let request = DoctorRequest { engine: engine_options(&args.engine, None, host), wait_s };
    let found = tools.examine(&request, stop.cancel())?;
    if args.json {
        host.say_json(&found)?;
    } else {
        for (left, right) in lines(&found) {
            let gap = " ".repeat(LEFT.saturating_sub(width(&left)));
            host.say(format!("{left}{gap}{}", safe(&right)))?;
        }
    }
    if found.is_well() { Ok(()) } else { Err(Failure::Said) }
}

/// What is printed: of what, and what is found.
fn lines(found: &Diagnosis) -> Vec<(String, String)> {
    let line = |left: &str, right: String| (left.to_owned(), right);
    let mut lines = Vec::new();
    lines.push(line(
        "interface",
        match &found.interface {
            None => "any".to_owned(),
            Some(one) if !one.there => format!("{}: away; nothing is sent or received", one.name),
            Some(one) => {
                let by = if one.tied {
                    "sockets are tied to it"
                } else {
                    "sockets are bound to its addresses only"
                };
                format!("{}: there, {}; {by}", one.name, ips(&one.addrs))
            }
        },
    ));
    lines.push(line("listening, TCP", addrs(&found.listening)));
    lines.push(line("listening, UDP", addrs(&found.datagrams)));
    lines.extend(found.ways.iter().map(|one| {
        let way = match (one.way, &one.reason) {
            (Way::Direct, _) => "direct".to_owned(),
            (Way::Proxy, _) => "by the proxy".to_owned(),
            (Way::Off, reason) => format!("off: {}", reason.as_deref().unwrap_or("not wanted")),
        };
        line(&safe(&one.traffic), way)
    }));
    lines.push(line(
        "name servers",
        match &found.name_servers[..] {
            [] => "the system's, by its ways".to_owned(),
            servers => addrs(servers),
        },
    ));
    lines.extend(
        found.seen.iter().map(|one| line("seen from outside", format!("as {} by {}", one.addr, one.by))),
    );
    lines.extend(found.unseen.iter().map(|why| line("seen from outside", format!("not known: {why}"))));
    lines.push(line("router's port", found.mapping.as_ref().map_or("none".to_owned(), mapped)));
    lines.push(line("reachable from outside", found.reachable.clone()));
    if let Some(proxy) = &found.proxy {
        lines.push(line("proxy", format!("{}: {}", proxy.place, proxy.connects.text)));
        lines.extend(proxy.relays.iter().map(|relays| line("proxy, datagrams", relays.text.clone())));
    }
    lines.extend(found.checks.iter().map(|check| {
        let verdict = if check.good { "ok" } else { "LEAK" };
        line(&format!("leaks, {}", safe(&check.what)), format!("{verdict}: {}", check.found))
    }));
    lines
}

fn addrs(addrs: &[SocketAddr]) -> String {
    match addrs {
        [] => "nowhere".to_owned(),
        all => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn ips(ips: &[IpAddr]) -> String {
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn mapped(mapping: &Mapping) -> String {
    let by = match mapping.protocol {
        MappingProtocol::Pcp => "PCP",
        MappingProtocol::NatPmp => "NAT-PMP",
        MappingProtocol::Upnp => "UPnP",
    };
    match mapping.external_addr {
        Some(ip) => format!("{} by {by}", SocketAddr::new(ip, mapping.external_port)),
        None => format!("{} by {by}", mapping.external_port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecemeal_api::{Answer, Check, InterfaceState, ProxyState, SeenAs, WayOf};

    fn found() -> Diagnosis {
        let way = |traffic: &str, way, reason: Option<&str>| WayOf {
            traffic: traffic.into(),
            way,
            reason: reason.map(str::to_owned),
        };
        let addr = |text: &str| text.parse().unwrap();
        Diagnosis {
            interface: Some(InterfaceState {
                name: "tun0".into(),
                there: true,
                addrs: vec!["10.8.0.2".parse().unwrap()],
                tied: true,
            }),
            listening: vec![addr("0.0.0.0:6881")],
            datagrams: vec![],
            ways: vec![
                way("peers by TCP", Way::Direct, None),
                way("trackers by HTTP", Way::Proxy, None),
                way("local discovery", Way::Off, Some("not wanted")),
            ],
            name_servers: vec![addr("10.8.0.1:53")],
            seen: vec![SeenAs { addr: addr("203.0.113.7:4000"), by: "router.example:6881".into() }],
            unseen: None,
            mapping: None,
            reachable: "not known".into(),
            proxy: Some(ProxyState {
                place: "p:1080".into(),
                connects: Answer { text: "connects to x:1".into(), error: None },
                relays: Some(Answer { text: "\u{1b}[31mno".into(), error: Some("no".into()) }),
            }),
            checks: vec![Check { what: "IPv4 sockets".into(), good: true, found: "tied to tun0".into() }],
        }
    }

    #[test]
    fn what_is_found_stands_in_lines() {
        let text: Vec<String> =
            lines(&found()).into_iter().map(|(l, r)| format!("{l}: {}", safe(&r))).collect();
        for line in [
            "interface: tun0: there, 10.8.0.2; sockets are tied to it",
            "listening, TCP: 0.0.0.0:6881",
            "listening, UDP: nowhere",
            "peers by TCP: direct",
            "trackers by HTTP: by the proxy",
            "local discovery: off: not wanted",
            "name servers: 10.8.0.1:53",
            "seen from outside: as 203.0.113.7:4000 by router.example:6881",
            "router's port: none",
            "proxy: p:1080: connects to x:1",
            "leaks, IPv4 sockets: ok: tied to tun0",
        ] {
            assert!(text.iter().any(|found| found == line), "{line}: {text:#?}");
        }
        assert!(text.iter().all(|line| !line.contains('\u{1b}')));
    }

    #[test]
    fn well_is_where_nothing_leaks_and_all_that_was_named_is_there() {
        assert!(found().is_well(), "a proxy need not carry datagrams");
        let mut away = found();
        away.interface.as_mut().unwrap().there = false;
        let mut leaks = found();
        leaks.checks[0].good = false;
        let mut dead = found();
        dead.proxy.as_mut().unwrap().connects.error = Some("refused".into());
        assert!([away, leaks, dead].iter().all(|found| !found.is_well()));
    }
}
