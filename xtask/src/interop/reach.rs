//! Port mapping, by a router others wrote: miniupnpd maps our port, and a peer outside, who could not call us otherwise,
//! gets the content through it, byte for byte.
//!
//! At home, 192.168.77.2; the router, which lets nothing in that it was not asked for; and the world, 80.1.0.2, with the
//! tracker and the leech. The leech can be reached by nobody but its own host, so it is who calls.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::content::{Content, NAME, Shape, same};
use super::makers::{Maker, Order};
use super::net::{Host, Net, ip};
use super::peers::ours;
use super::{Case, Stage};
use crate::run::{Running, installed, output, root};

/// Some seconds' work; a first announce that was too early is mended after a minute.
const LIMIT: Duration = Duration::from_secs(120);
/// For a program to begin, and to say goodbye.
const SOON: Duration = Duration::from_secs(20);
/// Bytes a piece.
const PIECE_LENGTH: u64 = 64 << 10;
/// Where ours listens, at home; the router of the PCP case gives this port to nobody, so that ours must take another.
const HOME: &str = "192.168.77.2:6881";
/// The router towards the world, an address that miniupnpd takes for a public one.
const OUTSIDE: &str = "80.1.0.1";
const TRACKER: &str = "80.1.0.2:6969";
const LEECH: &str = "80.1.0.2:6882";

/// What a router that shares one address does, with miniupnpd's chains in it.
const RULES: &str = r#"
table inet filter {
 chain miniupnpd {
 }
 chain forward {
  type filter hook forward priority 0; policy drop;
  ct state established,related accept
  iifname "lan" accept
  jump miniupnpd
 }
}
table inet nat {
 chain prerouting_miniupnpd {
 }
 chain postrouting_miniupnpd {
 }
 chain prerouting {
  type nat hook prerouting priority -100;
  jump prerouting_miniupnpd
 }
 chain postrouting {
  type nat hook postrouting priority 100;
  oifname "wan" masquerade
 }
}
"#;

/// miniupnpd's configuration, but for what the cases differ in.
const CONF: &str = "\
ext_ifname=wan
listening_ip=lan
http_port=5000
enable_upnp=yes
secure_mode=yes
uuid=12345678-1234-1234-1234-123456789abc
upnp_table_name=filter
upnp_nat_table_name=nat
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
";

/// PCP with another port than ours, and UPnP. (miniupnpd speaks NAT-PMP only where it speaks PCP, which ours prefers.)
pub fn cases() -> Vec<Case> {
    let case = |name: &str, protocol: &'static str| {
        Case::new(format!("reach/mapping/{name}"), move |stage| let_in(stage, protocol))
    };
    vec![case("pcp", "pcp"), case("upnp", "upnp")]
}

/// The links between the three, and the router's rules; gone with it.
struct Links<'a> {
    home: &'a Host,
    router: &'a Host,
}

impl Links<'_> {
    fn build<'a>(stage: &'a Stage<'_>) -> Result<Links<'a>> {
        let (home, router, world) = (stage.host(0), stage.host(1), stage.host(2));
        let links = Links { home, router };
        let [a, b, c] = [home, router, world].map(|host| format!("host{}", host.number));
        for step in [
            format!("-n {a} link add lan type veth peer name lan netns {b}"),
            format!("-n {b} link add wan type veth peer name wan netns {c}"),
            format!("-n {a} addr add 192.168.77.2/24 dev lan"),
            format!("-n {b} addr add 192.168.77.1/24 dev lan"),
            format!("-n {b} addr add {OUTSIDE}/24 dev wan"),
            format!("-n {c} addr add 80.1.0.2/24 dev wan"),
            format!("-n {a} link set lan up"),
            format!("-n {b} link set lan up"),
            format!("-n {b} link set wan up"),
            format!("-n {c} link set wan up"),
            format!("-n {a} route add default via 192.168.77.1"),
        ] {
            ip(&step)?;
        }
        let rules = stage.dir.join("rules");
        fs::write(&rules, RULES)?;
        links.on_router("sh", &["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])?;
        links.on_router("nft", &["-f", &rules.display().to_string()])?;
        Ok(links)
    }

    fn on_router(&self, program: &str, args: &[&str]) -> Result<()> {
        let status = self.router.command(program).args(args).status()?;
        if status.success() { Ok(()) } else { bail!("{program} {args:?} failed on the router") }
    }

    /// Whether the router lets anything in to ours.
    fn lets_in(&self) -> Result<bool> {
        let namespace = format!("--net=/run/netns/host{}", self.router.number);
        Ok(output(&root(), "nsenter", &[&namespace, "--", "nft", "list", "ruleset"])?.contains(HOME))
    }
}

impl Drop for Links<'_> {
    fn drop(&mut self) {
        // What stays makes the next case of these hosts fail, which says so.
        let _ = self.on_router("nft", &["flush", "ruleset"]);
        let _ = ip(&format!("-n host{} link del lan", self.home.number));
        let _ = ip(&format!("-n host{} link del wan", self.router.number));
    }
}

fn let_in(stage: &Stage<'_>, protocol: &str) -> Result<String> {
    if stage.net == Net::Loopback {
        return Ok("left out: it wants hosts with addresses of their own".to_owned());
    }
    if let Some(program) = ["miniupnpd", "nft"].into_iter().find(|program| !installed(program)) {
        bail!("{program} is not installed; run .ci/install");
    }
    let links = Links::build(stage)?;
    let pcp = protocol == "pcp";
    let _router = router(stage, &links, pcp)?;
    let mut tracker = ours(stage.host(2).command(stage.binary), stage.dir);
    tracker.arg("tracker").arg(format!("--listen={TRACKER}"));
    let mut tracker = Running::start("our tracker", tracker, &stage.dir.join("tracker.log"))?;
    let url = tracker.line(SOON, |line| line.starts_with("http://"))?;
    let (torrent, dir) = torrent(stage, &url, if pcp { 33 } else { 34 })?;

    let mut command = ours(stage.host(0).command(stage.binary), &stage.dir.join("home"));
    command.arg("seed").arg(&torrent).arg("-o").arg(&dir).args(["--json", "--no-dht", "--no-lsd"]);
    command.arg(format!("--listen={HOME}"));
    let mut seed = Running::start("piecemeal at home", command, &stage.dir.join("seed.log"))?;
    let mapped = seed.line(SOON, |line| line.contains("\"event\":\"mapping\""))?;
    let by = format!("\"protocol\":\"{protocol}\",\"external_addr\":\"{OUTSIDE}\"");
    let moved = !mapped.contains("\"external_port\":6881");
    if !mapped.contains(&by) || moved != pcp || !links.lets_in()? {
        bail!("not mapped as it should be: {mapped}");
    }
    let began = Instant::now();
    let target = stage.dir.join("leech");
    let mut command = ours(stage.host(2).command(stage.binary), &stage.dir.join("world"));
    command.arg("get").arg(&torrent).arg("-o").arg(&target).args(["--json", "--no-dht", "--no-lsd"]);
    command.args(["--no-port-mapping".to_owned(), format!("--listen={LEECH}")]);
    Running::start("piecemeal outside", command, &stage.dir.join("leech.log"))?.finish(LIMIT)?;
    let took = began.elapsed();
    same(&dir, &target)?;
    seed.interrupt(SOON)?;
    if links.lets_in()? {
        bail!("the router still lets peers in after ours has left");
    }
    Ok(format!("{:.1} s", took.as_secs_f64()))
}

/// miniupnpd at work.
fn router(stage: &Stage<'_>, links: &Links<'_>, pcp: bool) -> Result<Running> {
    let conf = stage.dir.join("miniupnpd.conf");
    let own = if pcp { "enable_natpmp=yes\ndeny 6881 0.0.0.0/0 0-65535\n" } else { "enable_natpmp=no\n" };
    fs::write(&conf, format!("{CONF}{own}allow 1024-65535 0.0.0.0/0 1024-65535\n"))?;
    let mut command = links.router.command("miniupnpd");
    command.arg("-d").arg("-f").arg(&conf).arg("-P").arg(stage.dir.join("miniupnpd.pid"));
    let mut running = Running::start("miniupnpd", command, &stage.dir.join("miniupnpd.log"))?;
    let ready = if pcp { "Listening for NAT-PMP/PCP" } else { "HTTP listening on port" };
    running.line(SOON, |line| line.contains(ready))?;
    Ok(running)
}

/// A torrent of content of its own, and where the content is.
fn torrent(stage: &Stage<'_>, tracker: &str, pieces: u64) -> Result<(PathBuf, PathBuf)> {
    let content = Content { shape: Shape::One, piece_length: PIECE_LENGTH, pieces };
    let (dir, torrent) = (stage.content(&content)?, stage.dir.join("x.torrent"));
    let order = Order {
        content: &dir.join(NAME),
        out: &torrent,
        piece_length: PIECE_LENGTH,
        format: "v1",
        tracker: Some(tracker),
    };
    Maker::Piecemeal.make(stage.binary, stage.dir, &order)?;
    Ok((torrent, dir))
}
