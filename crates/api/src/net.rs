//! How a program may speak to the network, and what an examination of that found.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::dht::IpFamily;

/// How an engine or an errand speaks to the network. What cannot go by the way named here is not sent.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct NetOptions {
    /// The one interface that is used, by its name; while it is away there is no traffic. `None`: any.
    #[serde(default)]
    pub interface: Option<String>,
    /// The address that traffic comes from, at most one of each family. If there is one, a family without is off.
    #[serde(default)]
    pub bind: Vec<IpAddr>,
    /// Speak this family alone.
    #[serde(default)]
    pub only: Option<IpFamily>,
    /// Differentiated services code point of what peers are sent, 0 to 63; 0 is that of all other programs. `None`: lower
    /// effort (RFC 8622), so that other traffic goes first.
    #[serde(default)]
    pub dscp: Option<u8>,
    /// Somebody who speaks for us.
    #[serde(default)]
    pub proxy: Option<Proxy>,
    /// Who is asked for names of hosts where the system's own look-up is not used: with an interface or an address named.
    /// `None`: the servers that the system names.
    #[serde(default)]
    pub name_server: Option<SocketAddr>,
}

/// A proxy, and what goes by it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// Its language.
    pub kind: ProxyKind,
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Name and password, if it wants them.
    #[serde(default)]
    pub credentials: Option<(String, String)>,
    /// What goes by it; empty: everything. What does and cannot, such as datagrams by an HTTP proxy, is off.
    #[serde(default)]
    pub carries: Vec<Carried>,
}

/// The language of a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyKind {
    /// SOCKS5 (RFC 1928).
    Socks5,
    /// HTTP CONNECT.
    Http,
}

/// What a proxy may carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carried {
    /// Peers; then nobody can call us, and the local network is left alone.
    Peers,
    /// Trackers.
    Trackers,
    /// Web seeds and .torrent files.
    Web,
    /// The distributed hash table.
    Dht,
}

impl Proxy {
    /// Reads `socks5://[NAME:PASSWORD@]HOST[:PORT]` or the same with `http`; name and password may be percent-encoded.
    /// `socks5h` is the same as `socks5`: names of hosts are always left to the proxy.
    ///
    /// # Errors
    /// One line: what is wrong, and what to write.
    pub fn parse(url: &str) -> Result<Proxy, String> {
        let like = "write it like socks5://name:password@host:1080 or http://host:8080";
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("`{url}` is no proxy; {like}"))?;
        let (kind, usual) = match &*scheme.to_ascii_lowercase() {
            "socks5" | "socks5h" => (ProxyKind::Socks5, 1080),
            "http" => (ProxyKind::Http, 80),
            _ => return Err(format!("proxies of kind `{scheme}` are not known here; {like}")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // The password may hold an @ by mistake; a host never does.
        let (who, place) = rest.rsplit_once('@').map_or((None, rest), |(who, place)| (Some(who), place));
        let credentials = who.map(|who| credentials(who, kind).ok_or(like)).transpose()?;
        let (host, port) =
            host_and_port(place, usual).ok_or_else(|| format!("`{place}` is no host; {like}"))?;
        Ok(Proxy { kind, host, port, credentials, carries: Vec::new() })
    }
}

fn credentials(text: &str, kind: ProxyKind) -> Option<(String, String)> {
    let (name, password) = text.split_once(':').unwrap_or((text, ""));
    let (name, password) = (decoded(name)?, decoded(password)?);
    // RFC 1929: each has 1 to 255 bytes. HTTP is content without a password (RFC 7617).
    let least = usize::from(kind == ProxyKind::Socks5);
    let fits = (1..=255).contains(&name.len()) && (least..=255).contains(&password.len());
    fits.then_some((name, password))
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn host_and_port(text: &str, usual: u16) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (host, port)
    } else {
        text.split_at(text.find(':').unwrap_or(text.len()))
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None if port.is_empty() => usual,
        None => return None,
    };
    let plain = |c: char| c.is_alphanumeric() || ".-_:".contains(c);
    (!host.is_empty() && host.chars().all(plain)).then(|| (host.to_owned(), port))
}

impl fmt::Debug for Proxy {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Proxy { kind, host, port, credentials, carries } = self;
        let name = credentials.as_ref().map(|(name, _)| name);
        write!(f, "Proxy({kind:?} {host}:{port}, as {name:?}, for {carries:?})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read() {
        let me = || Some(("me".to_owned(), "p@ss:w%".to_owned()));
        let plain = Some(("me".to_owned(), String::new()));
        let rows = [
            ("http://me@h:1", ProxyKind::Http, "h", 1, plain),
            ("socks5://127.0.0.1:9050", ProxyKind::Socks5, "127.0.0.1", 9050, None),
            ("SOCKS5h://host", ProxyKind::Socks5, "host", 1080, None),
            ("http://proxy.example:3128/", ProxyKind::Http, "proxy.example", 3128, None),
            ("http://[2001:db8::1]", ProxyKind::Http, "2001:db8::1", 80, None),
            ("socks5://me:p@ss:w%25@[::1]:1", ProxyKind::Socks5, "::1", 1, me()),
            ("socks5://me:p%40ss%3aw%25@h:1", ProxyKind::Socks5, "h", 1, me()),
        ];
        for (url, kind, host, port, credentials) in rows {
            let expected = Proxy { kind, host: host.into(), port, credentials, carries: vec![] };
            assert_eq!(Proxy::parse(url), Ok(expected), "{url}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_told_in_a_line() {
        for url in [
            "",
            "host:1080",
            "socks4://h",
            "https://h",
            "socks5://",
            "socks5://:1080",
            "socks5://h:0",
            "socks5://h:70000",
            "socks5://h:x",
            "socks5://[::1",
            "socks5://[h]:1",
            "socks5://[::1]1",
            "socks5://a b:1",
            "socks5://h/path",
            "socks5://me@h:1",
            "socks5://:pw@h:1",
            "socks5://me:%zz@h:1",
            "socks5://me:%2@h:1",
        ] {
            let why = Proxy::parse(url).expect_err(url);
            assert!(!why.contains('\n') && why.contains("write it like"), "{url}: {why}");
        }
        let shown = format!("{:?}", Proxy::parse("socks5://me:s3cret@h").unwrap());
        assert!(shown.contains("me") && !shown.contains("s3cret"), "{shown}");
    }
}
