//! What the tracker tells about itself: `/metrics` for Prometheus, `/stats` for people.
//!
//! Owns the two forms. Both tell counts alone, nothing that names a torrent or a peer, so they are open to everybody.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::book::Stats;

/// The type of [`metrics`]: what Prometheus asks for first.
pub(crate) const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the pages are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// All counts.
    pub(crate) stats: Stats,
    /// Since the start.
    pub(crate) up: Duration,
    /// What peers are told.
    pub(crate) interval: Duration,
}

/// All counts as OpenMetrics text.
pub(crate) fn metrics(report: &Report) -> String {
    let stats = &report.stats;
    let mut registry = Registry::with_prefix("piecemeal_tracker");
    let gauges = [
        ("torrents", "Swarms with peers in them", stats.torrents),
        ("peers", "Peers in all swarms, each family for itself", stats.peers),
        ("uptime_seconds", "Time since the start", report.up.as_secs()),
    ];
    for (name, help, value) in gauges {
        // Far below where a signed number ends.
        registry.register(name, help, ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)));
    }
    let by_protocol = [
        ("announces", "Announces answered", stats.announces, stats.udp_announces),
        ("scrapes", "Scrapes answered", stats.scrapes, stats.udp_scrapes),
    ];
    for (name, help, all, udp) in by_protocol {
        let family = Family::<[(&str, &str); 1], Counter>::default();
        family.get_or_create(&[("protocol", "http")]).inc_by(all - udp);
        family.get_or_create(&[("protocol", "udp")]).inc_by(udp);
        registry.register(name, help, family);
    }
    let counters = [
        ("refused", "Announces and scrapes refused", stats.failures),
        ("udp_connects", "Connection ids given out", stats.connects),
        ("udp_unproven", "Requests without a good connection id", stats.unproven),
        ("udp_malformed", "Datagrams that were no request", stats.malformed),
    ];
    for (name, help, value) in counters {
        registry.register(name, help, ConstCounter::new(value));
    }
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes all that is written");
    text
}

/// All counts as a page.
pub(crate) fn stats(report: &Report) -> String {
    let Report { stats, up, interval } = report;
    let minutes = up.as_secs() / 60;
    let rows = [
        ("torrents", stats.torrents.to_string()),
        ("peers", stats.peers.to_string()),
        ("announces by HTTP", (stats.announces - stats.udp_announces).to_string()),
        ("announces by UDP", stats.udp_announces.to_string()),
        ("scrapes", stats.scrapes.to_string()),
        ("refused", stats.failures.to_string()),
        ("UDP connections", stats.connects.to_string()),
        ("UDP requests without one", stats.unproven.to_string()),
        ("datagrams of no meaning", stats.malformed.to_string()),
        ("announce every", format!("{} min", interval.as_secs() / 60)),
        ("running for", format!("{} d {} h {} min", minutes / 1440, minutes / 60 % 24, minutes % 60)),
    ];
    let rows: String = rows.iter().map(|(name, value)| format!("<tr><th>{name}<td>{value}\n")).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>piecemeal tracker</title>\n\
        <style>body{{font:1rem sans-serif;margin:2rem}}th{{text-align:left;font-weight:normal;padding-right:2rem}}\
        td{{text-align:right}}</style>\n<h1>piecemeal tracker {}</h1>\n<table>\n{rows}</table>\n",
        env!("CARGO_PKG_VERSION"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let stats =
            Stats { announces: 7, udp_announces: 5, peers: 3, torrents: 2, malformed: 1, ..Stats::default() };
        Report { stats, up: Duration::from_secs(90_061), interval: Duration::from_secs(1_800) }
    }

    #[test]
    fn prometheus_reads_it() {
        let text = metrics(&report());
        for line in [
            "# TYPE piecemeal_tracker_peers gauge",
            "piecemeal_tracker_peers 3",
            "piecemeal_tracker_torrents 2",
            "# TYPE piecemeal_tracker_announces counter",
            "piecemeal_tracker_announces_total{protocol=\"http\"} 2",
            "piecemeal_tracker_announces_total{protocol=\"udp\"} 5",
            "piecemeal_tracker_udp_malformed_total 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in {text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn people_read_it() {
        let page = stats(&report());
        for row in ["<th>peers<td>3", "<th>announces by HTTP<td>2", "<td>1 d 1 h 1 min", "<td>30 min"] {
            assert!(page.contains(row), "{row} in {page}");
        }
    }
}
