//! A network of our own: a bridge and hosts with one address each, seen by nobody else.
//!
//! Each host is a network namespace, so that every peer has an address of its own, as in the world; Transmission
//! refuses to speak to 127.0.0.0/8. Processes and mounts live in namespaces too: when the run ends, however it ends,
//! the kernel takes all of it away. Where namespaces are refused, all hosts are ports of 127.0.0.1.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{ended, run};

/// Set for the process that runs inside.
const INSIDE: &str = "PIECEMEAL_XTASK_INSIDE";
/// Peers listen here where they have an address of their own.
const PEER_PORT: u16 = 6881;
/// The first port of the first host where they have not; each takes `PORTS_A_HOST`.
const FIRST_PORT: u16 = 26000;
const PORTS_A_HOST: u16 = 10;

/// The network of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Net {
    /// Hosts of their own.
    Hosts,
    /// Ports of this machine.
    Loopback,
}

/// A machine of the network.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its number, from 1.
    pub number: u16,
    net: Net,
    /// Its address is taken from IPv6.
    six: bool,
}

/// Hosts whose IPv4 addresses are gone as long as this lives.
pub struct SixOnly(Vec<u16>);

/// Runs this very command again inside namespaces; `None` when it is inside already or must do without.
pub fn enter(loopback: bool) -> Result<Option<i32>> {
    if std::env::var_os(INSIDE).is_some() || loopback {
        return Ok(None);
    }
    let possible = inside("true").output().is_ok_and(|output| output.status.success());
    if !possible {
        eprintln!(
            "xtask: no namespaces here; going on with ports of 127.0.0.1, without Transmission and mounts"
        );
        return Ok(None);
    }
    let own = std::env::current_exe().context("where is this program")?;
    let status = inside(own).args(std::env::args_os().skip(1)).env(INSIDE, "1").status()?;
    match status.code() {
        Some(code) => Ok(Some(code)),
        None => bail!("the run: {}", ended(status)),
    }
}

/// A program in new namespaces that dies, with all it started, when we do.
fn inside(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare"]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]).arg(program);
    command
}

impl Net {
    /// Builds the network, if we are inside.
    pub fn build(hosts: u16) -> Result<Net> {
        if std::env::var_os(INSIDE).is_none() {
            return Ok(Net::Loopback);
        }
        // The list of named namespaces lives below /run; this one is ours alone.
        ip_tool("mount", "-t tmpfs tmpfs /run")?;
        ip("link set lo up")?;
        ip("link add name bridge0 type bridge")?;
        ip("addr add 10.99.0.254/24 dev bridge0")?;
        ip("addr add fd00::254/64 dev bridge0 nodad")?;
        ip("link set bridge0 up")?;
        for number in 1..=hosts {
            ip(&format!("netns add host{number}"))?;
            ip(&format!("link add name to{number} type veth peer name eth0 netns host{number}"))?;
            ip(&format!("link set to{number} master bridge0 up"))?;
            ip(&format!("-n host{number} addr add 10.99.0.{number}/24 dev eth0"))?;
            ip(&format!("-n host{number} addr add fd00::{number:x}/64 dev eth0 nodad"))?;
            ip(&format!("-n host{number} link set eth0 up"))?;
            // As a default route would: not every program names the interface for what it sends to a group.
            ip(&format!("-n host{number} route add 224.0.0.0/4 dev eth0"))?;
            ip(&format!("-n host{number} link set lo up"))?;
        }
        Ok(Net::Hosts)
    }

    /// A host by number, from 1.
    pub fn host(self, number: u16) -> Host {
        Host { number, net: self, six: false }
    }

    /// Takes the IPv4 addresses of hosts away. One that leads nowhere stays on the inside: without any, libevent
    /// finds not even 127.0.0.1, where Transmission is told what to do.
    pub fn six_only(hosts: &[&Host]) -> Result<SixOnly> {
        let mut gone = SixOnly(Vec::new());
        for host in hosts {
            gone.0.push(host.number);
            ip(&format!("-n host{0} addr del 10.99.0.{0}/24 dev eth0", host.number))?;
            ip(&format!("-n host{} addr replace 192.0.2.1/32 dev lo", host.number))?;
        }
        Ok(gone)
    }

    /// Where this program itself can be reached by all hosts.
    pub fn own_ip(self) -> Ipv4Addr {
        match self {
            Net::Hosts => Ipv4Addr::new(10, 99, 0, 254),
            Net::Loopback => Ipv4Addr::LOCALHOST,
        }
    }
}

impl Drop for SixOnly {
    fn drop(&mut self) {
        for number in &self.0 {
            // A host that stays without makes its next case fail, which says so.
            let _ = ip(&format!("-n host{number} addr del 192.0.2.1/32 dev lo"));
            let _ = ip(&format!("-n host{number} addr replace 10.99.0.{number}/24 dev eth0"));
            let _ = ip(&format!("-n host{number} route replace 224.0.0.0/4 dev eth0"));
        }
    }
}

impl Host {
    /// The same host by its IPv6 address.
    pub fn by_six(&self) -> Host {
        Host { six: true, ..self.clone() }
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        match self.net {
            Net::Hosts if self.six => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, self.number).into(),
            Net::Hosts => Ipv4Addr::new(10, 99, 0, self.number.to_le_bytes()[0]).into(),
            Net::Loopback => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Where its peer listens.
    pub fn peer(&self) -> SocketAddr {
        self.port(0, PEER_PORT)
    }

    /// Where its tracker listens.
    pub fn tracker(&self) -> SocketAddr {
        self.port(1, 6969)
    }

    /// Where its remote control listens. Transmission's knows no IPv6; it is used from the host itself.
    pub fn control(&self) -> SocketAddr {
        if self.six {
            return (Ipv4Addr::LOCALHOST, 9091).into();
        }
        self.port(2, 9091)
    }

    /// A program on this host.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match self.net {
            Net::Loopback => Command::new(program),
            Net::Hosts => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/host{}", self.number)).arg("--").arg(program);
                command
            }
        }
    }

    /// Changes its links and addresses, as `ip` does.
    pub fn ip_tool(&self, args: &str) -> Result<()> {
        ip(&format!("-n host{} {args}", self.number))
    }

    fn port(&self, nth: u16, usual: u16) -> SocketAddr {
        match self.net {
            Net::Hosts => (self.ip(), usual).into(),
            Net::Loopback => (self.ip(), FIRST_PORT + self.number * PORTS_A_HOST + nth).into(),
        }
    }
}

/// Runs `ip`, with words between single spaces.
pub fn ip(args: &str) -> Result<()> {
    ip_tool("ip", args)
}

fn ip_tool(program: &str, args: &str) -> Result<()> {
    let args: Vec<_> = args.split(' ').collect();
    run(Path::new("/"), program, &args)
}
