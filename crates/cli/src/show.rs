//! `piecemeal show`: everything a torrent or a magnet link says.
//!
//! Owns the facts as they are printed and as they are in JSON; what is valid is `metainfo`'s.

use std::fmt::Write as _;
use std::path::Path;

use piecemeal_api::Tools;
use piecemeal_metainfo::{FileEntry, Magnet, Metainfo, Version, to_hex};
use serde::Serialize;

use crate::args::Show;
use crate::fail::Failure;
use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::seek::{self, Link};
use crate::source::{Torrent, is_magnet};
use crate::text::{self, safe};
use crate::units::{count, date, size};

/// Runs the command.
pub fn run(args: &Show, tools: &dyn Tools, host: &mut Host, stop: &Interrupt) -> Result<(), Failure> {
    if let Some(link) = args.what.to_str().filter(|text| is_magnet(text)) {
        return link_facts(&Link::parse(link)?, args, tools, host, stop);
    }
    let torrent = Torrent::read(&host.at(Path::new(&args.what)))?;
    let facts = Facts::of(&torrent.metainfo);
    let said = if args.json { host.say_json(&facts) } else { host.say(facts.text().trim_end()) };
    Ok(said?)
}

/// What a link leads to and asks for; if that cannot be had, what it says itself.
fn link_facts(
    link: &Link,
    args: &Show,
    tools: &dyn Tools,
    host: &mut Host,
    stop: &Interrupt,
) -> Result<(), Failure> {
    let said = MagnetFacts::of(&link.magnet);
    let torrent = if args.offline {
        None
    } else {
        let resolved = seek::resolve(link, &args.find, tools, host, stop);
        Some(resolved.and_then(|resolved| Torrent::parse(resolved.metainfo, &link.name())))
    };
    let Some(Ok(torrent)) = torrent else {
        if args.json {
            host.say_json(&said)?
        } else {
            host.say(said.text().trim_end())?
        }
        return torrent.map_or(Ok(()), |failed| failed.map(drop));
    };
    let facts = Facts { link: Some(said), ..Facts::of(&torrent.metainfo) };
    let said = if args.json { host.say_json(&facts) } else { host.say(facts.text().trim_end()) };
    Ok(said?)
}

/// What a .torrent file says.
#[derive(Serialize)]
struct Facts {
    name: String,
    info_hash: Option<String>,
    info_hash_v2: Option<String>,
    version: &'static str,
    /// Bytes of content, pad files left out.
    size: u64,
    piece_length: u32,
    pieces: u32,
    private: bool,
    /// Peers must have a certificate, and speak TLS alone.
    tls: bool,
    source: Option<String>,
    comment: Option<String>,
    created_by: Option<String>,
    /// Seconds since 1970, as claimed.
    created: Option<i64>,
    trackers: Vec<Vec<String>>,
    web_seeds: Vec<String>,
    nodes: Vec<String>,
    files: Vec<FileFacts>,
    pad_files: usize,
    unknown_keys: Vec<String>,
    magnet: String,
    warnings: Vec<String>,
    /// What the link said that led to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<MagnetFacts>,
}

#[derive(Serialize)]
struct FileFacts {
    file: usize,
    path: String,
    /// The name as the torrent has it, where it was not safe to use.
    #[serde(skip_serializing_if = "Option::is_none")]
    named: Option<String>,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pieces_root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_to: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    executable: bool,
    #[serde(skip_serializing_if = "is_false")]
    hidden: bool,
}

/// What a magnet link says.
#[derive(Serialize)]
struct MagnetFacts {
    name: Option<String>,
    info_hash: Option<String>,
    info_hash_v2: Option<String>,
    trackers: Vec<String>,
    web_seeds: Vec<String>,
    peers: Vec<String>,
    /// First and last index of the files to fetch; none means all.
    select: Vec<[u32; 2]>,
}

impl Facts {
    fn of(metainfo: &Metainfo) -> Self {
        let info = metainfo.info();
        let hashes = metainfo.info_hashes();
        let unknown = metainfo.extra().keys().map(|key| lossy(key));
        let unknown_info = metainfo.extra_info_keys().into_iter().map(|key| format!("info.{}", lossy(&key)));
        Facts {
            name: info.name.to_string(),
            info_hash: hashes.v1.map(|hash| hash.to_string()),
            info_hash_v2: hashes.v2.map(|hash| hash.to_string()),
            version: match info.version {
                Version::V1 => "v1",
                Version::V2 => "v2",
                Version::Hybrid => "hybrid",
            },
            size: info.content_length,
            piece_length: info.piece_length,
            pieces: info.piece_count,
            private: info.private,
            tls: info.tls_root.is_some(),
            source: info.source.clone(),
            comment: metainfo.comment().map(str::to_owned),
            created_by: metainfo.created_by().map(str::to_owned),
            created: metainfo.creation_date(),
            trackers: metainfo.trackers().to_vec(),
            web_seeds: metainfo.web_seeds().to_vec(),
            nodes: metainfo.nodes().iter().map(address).collect(),
            files: metainfo
                .files()
                .iter()
                .enumerate()
                .filter(|(_, file)| !file.pad)
                .map(FileFacts::of)
                .collect(),
            pad_files: metainfo.files().iter().filter(|file| file.pad).count(),
            unknown_keys: unknown.chain(unknown_info).collect(),
            magnet: metainfo.magnet(),
            warnings: metainfo.lints().iter().map(ToString::to_string).collect(),
            link: None,
        }
    }

    fn text(&self) -> String {
        let mut page = Page::default();
        page.field("Name", &self.name);
        page.maybe("Info-hash v1", self.info_hash.as_deref());
        page.maybe("Info-hash v2", self.info_hash_v2.as_deref());
        page.field("Version", self.version);
        page.field("Size", &format!("{} ({} bytes)", size(self.size), self.size));
        page.field("Pieces", &format!("{} of {}", self.pieces, size(u64::from(self.piece_length))));
        page.field("Private", if self.private { "yes" } else { "no" });
        if self.tls {
            page.field("TLS", "for peers with a certificate of its root alone");
        }
        page.maybe("Source", self.source.as_deref());
        page.maybe("Comment", self.comment.as_deref());
        page.maybe("Created by", self.created_by.as_deref());
        let created = self.created.map(|s| date(s).unwrap_or_else(|| format!("{s} seconds since 1970")));
        page.maybe("Created", created.as_deref());
        for (tier, urls) in (1..).zip(&self.trackers) {
            urls.iter().for_each(|url| page.row("Trackers", &format!("tier {tier}  {url}")));
        }
        self.web_seeds.iter().for_each(|url| page.row("Web seeds", url));
        self.nodes.iter().for_each(|node| page.row("DHT nodes", node));
        if let Some(link) = &self.link {
            link.wishes(&mut page);
        }
        self.unknown_keys.iter().for_each(|key| page.row("Unknown keys", key));
        page.field("Magnet", &self.magnet);
        let pads = if self.pad_files > 0 {
            format!(" and {}", count(self.pad_files as u64, "pad file"))
        } else {
            String::new()
        };
        page.field("Files", &format!("{}{pads}", self.files.len()));
        tree(&self.files, &mut page.0);
        self.warnings.iter().for_each(|warning| page.row("Warnings", warning));
        page.0
    }
}

impl FileFacts {
    fn of((index, file): (usize, &FileEntry)) -> Self {
        FileFacts {
            file: index,
            path: file.path.as_str().to_owned(),
            named: file.raw_path.as_deref().map(lossy),
            size: file.length,
            pieces_root: file.pieces_root.map(|root| to_hex(&root[..])),
            link_to: file.symlink.as_ref().map(|path| path.as_str().to_owned()),
            executable: file.executable,
            hidden: file.hidden,
        }
    }

    /// `[3]  1.5 MiB` and what else there is to say, without the name.
    fn facts(&self) -> String {
        let mut text = format!("[{}]  {}", self.file, size(self.size));
        if self.executable {
            text.push_str(", executable");
        }
        if self.hidden {
            text.push_str(", hidden");
        }
        if let Some(path) = &self.link_to {
            let _ = write!(text, ", link to {}", safe(path));
        }
        if let Some(named) = &self.named {
            let _ = write!(text, ", named \"{}\"", safe(named));
        }
        text
    }
}

impl MagnetFacts {
    fn of(magnet: &Magnet) -> Self {
        MagnetFacts {
            name: magnet.name.clone(),
            info_hash: magnet.hashes.v1.map(|hash| hash.to_string()),
            info_hash_v2: magnet.hashes.v2.map(|hash| hash.to_string()),
            trackers: magnet.trackers.clone(),
            web_seeds: magnet.web_seeds.clone(),
            peers: magnet.peers.iter().map(address).collect(),
            select: magnet.select.iter().map(|range| [*range.start(), *range.end()]).collect(),
        }
    }

    fn text(&self) -> String {
        let mut page = Page::default();
        page.maybe("Name", self.name.as_deref());
        page.maybe("Info-hash v1", self.info_hash.as_deref());
        page.maybe("Info-hash v2", self.info_hash_v2.as_deref());
        self.trackers.iter().for_each(|url| page.row("Trackers", url));
        self.web_seeds.iter().for_each(|url| page.row("Web seeds", url));
        self.wishes(&mut page);
        page.0
    }

    /// What a link says that is no fact of the torrent.
    fn wishes(&self, page: &mut Page) {
        self.peers.iter().for_each(|peer| page.row("Peers", peer));
        for [first, last] in &self.select {
            let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
            page.row("Files wanted", &range);
        }
    }
}

/// Labels to the left, values to the right; each value in one line, safe to print.
#[derive(Default)]
struct Page(String);

impl Page {
    /// Columns of the labels.
    const LABELS: usize = 14;

    fn field(&mut self, label: &str, value: &str) {
        let _ = writeln!(self.0, "{label:0$}{1}", Self::LABELS, safe(value));
    }

    fn maybe(&mut self, label: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.field(label, value);
        }
    }

    /// One of several values: the label stands before the first only.
    fn row(&mut self, label: &str, value: &str) {
        let first =
            !self.0.lines().any(|line| line.starts_with(label) && line[label.len()..].starts_with(' '));
        self.field(if first { label } else { "" }, value);
    }
}

/// Files under their directories, in the order of the torrent. A directory is printed when it is entered.
fn tree(files: &[FileFacts], page: &mut String) {
    let mut inside: Vec<&str> = Vec::new();
    let widest = files.iter().map(|file| columns(&file.path)).max().unwrap_or(0).min(60);
    for file in files {
        let mut parts: Vec<&str> = file.path.split('/').collect();
        let name = parts.pop().unwrap_or_default();
        let common = inside.iter().zip(&parts).take_while(|(a, b)| a == b).count();
        for (depth, part) in parts.iter().enumerate().skip(common) {
            let _ = writeln!(page, "{:1$}{2}/", "", 2 + 2 * depth, safe(part));
        }
        let indent = 2 + 2 * parts.len();
        let gap = (widest + 2).saturating_sub(columns(&file.path)).max(2);
        let _ = writeln!(page, "{:indent$}{}{:gap$}{}", "", safe(name), "", file.facts());
        inside = parts;
    }
}

/// Columns that a file takes in the tree, its indentation included.
fn columns(path: &str) -> usize {
    let name = path.rsplit('/').next().unwrap_or_default();
    2 * path.matches('/').count() + text::width(&safe(name))
}

fn address((host, port): &(String, u16)) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_false(value: &bool) -> bool {
    !*value
}
