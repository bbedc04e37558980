//! What stands around the `info`: trackers, sources, texts, piece layers; read and written.
//!
//! Owns the outer dictionary. The `info` inside is judged by `info`, in the same way for all who bring one.

use super::error::MetainfoError as Error;
use super::info::text;
use super::{Info, Lint, MAX_SOURCES, Metainfo, info};
use crate::bencode::{Bencode, Encoder, Kind, Limits, Value, decode};
use crate::merkle::{self, Hash};
use std::collections::{BTreeMap, BTreeSet};

/// Keys that are read and written by name; the others are kept as they are.
const KNOWN: &[&[u8]] = &[
    b"announce",
    b"announce-list",
    b"comment",
    b"comment.utf-8",
    b"created by",
    b"creation date",
    b"info",
    b"nodes",
    b"piece layers",
    b"url-list",
];
/// Bytes of an address; longer than any that servers accept.
const URL_MAX_BYTES: usize = 8192;

pub(super) fn parse(bytes: &[u8]) -> Result<Metainfo, Error> {
    let tape = decode(bytes, Limits::TORRENT)?;
    let root = tape.root();
    if root.kind() != Kind::Dict {
        return Err(Error::kind("torrent", "a dictionary"));
    }
    // Which of two should count is a matter of taste, and other programs differ in it.
    if root.duplicate_key().is_some() {
        return Err(Error::value("torrent", "a key stands twice"));
    }
    let raw_info = root.get(b"info").ok_or_else(|| Error::missing("info"))?;
    let mut torrent = bare(raw_info.raw())?;
    for (found, lint) in [
        (tape.flags().unsorted_keys, Lint::UnsortedKeys),
        (tape.flags().odd_ints, Lint::OddInts),
        (tape.flags().duplicate_keys, Lint::DuplicateKeys),
    ] {
        if found && !torrent.lints.contains(&lint) {
            torrent.lints.push(lint);
        }
    }
    let mut dropped = 0;
    torrent.trackers = tidy(tiers(root), &mut dropped);
    torrent.web_seeds = tidy(vec![web_seeds(root)], &mut dropped).concat();
    torrent.nodes = nodes(root, &mut dropped);
    if dropped > 0 {
        torrent.lints.push(Lint::SourcesDropped { count: dropped });
    }
    torrent.comment = root.get_bytes(b"comment.utf-8").or(root.get_bytes(b"comment")).map(text);
    torrent.created_by = root.get_bytes(b"created by").map(text);
    torrent.creation_date = root.get_int(b"creation date");
    let extra = root.as_dict().into_iter().flatten().filter(|(key, _)| !KNOWN.contains(key));
    torrent.extra = extra.map(|(key, value)| (key.to_vec(), value.raw().to_vec())).collect();
    if torrent.info.version.has_v2() {
        read_layers(&mut torrent, root)?;
    }
    finish_lints(&mut torrent);
    Ok(torrent)
}

pub(super) fn from_info(raw_info: &[u8], trackers: Vec<Vec<String>>) -> Result<Metainfo, Error> {
    let mut torrent = bare(raw_info)?;
    let mut dropped = 0;
    let tiers = trackers.into_iter().map(|tier| tier.into_iter().map(Some).collect());
    torrent.trackers = tidy(tiers.collect(), &mut dropped);
    finish_lints(&mut torrent);
    Ok(torrent)
}

pub(super) fn add_web_seeds(torrent: &mut Metainfo, urls: Vec<String>) {
    let all = std::mem::take(&mut torrent.web_seeds).into_iter().chain(urls).map(Some).collect();
    let mut dropped = 0;
    torrent.web_seeds = tidy(vec![all], &mut dropped).concat();
    if dropped > 0 {
        torrent.lints.push(Lint::SourcesDropped { count: dropped });
    }
}

pub(super) fn to_bytes(torrent: &Metainfo) -> Vec<u8> {
    let outer = Outer {
        raw_info: &torrent.raw_info,
        trackers: &torrent.trackers,
        web_seeds: &torrent.web_seeds,
        nodes: &torrent.nodes,
        comment: torrent.comment.as_deref(),
        created_by: torrent.created_by.as_deref(),
        creation_date: torrent.creation_date,
        layers: torrent.info.version.has_v2().then_some(&torrent.layers),
        extra: Some(&torrent.extra),
    };
    outer.to_bytes()
}

/// That `layer` belongs to the file under `root`.
pub(super) fn check_layer(info: &Info, root: &Hash, layer: &[Hash]) -> Result<(), Error> {
    let piece_length = u64::from(info.piece_length);
    let mut files =
        info.files.iter().filter(|file| file.pieces_root == Some(*root) && file.length > piece_length);
    let Some(file) = files.next() else {
        return Err(Error::value("piece layers", "a root that no file has"));
    };
    verify_layer(root, layer, file.length, info.piece_length)
}

/// A .torrent file about to be written.
pub(crate) struct Outer<'a> {
    pub(crate) raw_info: &'a [u8],
    pub(crate) trackers: &'a [Vec<String>],
    pub(crate) web_seeds: &'a [String],
    pub(crate) nodes: &'a [(String, u16)],
    pub(crate) comment: Option<&'a str>,
    pub(crate) created_by: Option<&'a str>,
    pub(crate) creation_date: Option<i64>,
    /// `None` for v1.
    pub(crate) layers: Option<&'a BTreeMap<Hash, Vec<Hash>>>,
    pub(crate) extra: Option<&'a BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Outer<'_> {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut pairs: BTreeMap<&[u8], Vec<u8>> = BTreeMap::new();
        for (key, raw) in self.extra.into_iter().flatten() {
            pairs.insert(key, raw.clone());
        }
        let mut put = |key: &'static [u8], value: Option<Bencode>| {
            if let Some(value) = value {
                pairs.insert(key, value.encode());
            }
        };
        let strings =
            |list: &[String]| list.iter().map(|text| Bencode::from(text.as_str())).collect::<Vec<_>>();
        let first = self.trackers.iter().flatten().next();
        put(b"announce", first.map(|url| url.as_str().into()));
        let several = self.trackers.iter().flatten().nth(1).is_some();
        let tiers = self.trackers.iter().map(|tier| strings(tier).into()).collect::<Vec<Bencode>>();
        put(b"announce-list", several.then(|| tiers.into()));
        put(b"comment", self.comment.map(Bencode::from));
        put(b"created by", self.created_by.map(Bencode::from));
        put(b"creation date", self.creation_date.map(Bencode::from));
        let node =
            |(host, port): &(String, u16)| Bencode::List(vec![host.as_str().into(), i64::from(*port).into()]);
        let nodes = self.nodes.iter().map(node).collect::<Vec<Bencode>>();
        put(b"nodes", (!nodes.is_empty()).then(|| nodes.into()));
        put(
            b"url-list",
            match self.web_seeds {
                [] => None,
                [one] => Some(one.as_str().into()),
                many => Some(strings(many).into()),
            },
        );
        let layers = self.layers.map(|layers| {
            let pairs = layers.iter().map(|(root, layer)| (root.to_vec(), layer.concat().into()));
            Bencode::Dict(pairs.collect())
        });
        put(b"piece layers", layers);
        pairs.insert(b"info", self.raw_info.to_vec());
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out);
        encoder.begin_dict();
        pairs.iter().for_each(|(key, raw)| {
            encoder.key(key).raw(raw);
        });
        encoder.end();
        out
    }
}

/// A torrent of which only the `info` is known.
fn bare(raw_info: &[u8]) -> Result<Metainfo, Error> {
    let (info, hashes, lints) = info::parse(raw_info)?;
    Ok(Metainfo {
        hashes,
        info,
        raw_info: raw_info.into(),
        trackers: Vec::new(),
        web_seeds: Vec::new(),
        nodes: Vec::new(),
        comment: None,
        created_by: None,
        creation_date: None,
        layers: BTreeMap::new(),
        extra: BTreeMap::new(),
        lints,
    })
}

fn finish_lints(torrent: &mut Metainfo) {
    if torrent.info.private && torrent.trackers.is_empty() {
        torrent.lints.push(Lint::PrivateWithoutTracker);
    }
    let files = torrent.missing_layers().count();
    if files > 0 {
        torrent.lints.push(Lint::MissingLayers { files });
    }
}

/// Announce URLs as they stand; `None` for what is no text. A list that says something overrides `announce`
/// (BEP 12).
fn tiers(root: Value<'_>) -> Vec<Vec<Option<String>>> {
    let tier = |tier: Value<'_>| tier.as_list().into_iter().flatten().map(owned).collect::<Vec<_>>();
    let list: Vec<_> =
        root.get(b"announce-list").and_then(|list| list.as_list()).into_iter().flatten().map(tier).collect();
    if list.iter().flatten().any(|url| url.as_deref().is_some_and(|url| !url.trim().is_empty())) {
        return list;
    }
    root.get(b"announce").map(|url| vec![vec![owned(url)]]).unwrap_or_default()
}

/// `url-list` is one string or a list of them (BEP 19).
fn web_seeds(root: Value<'_>) -> Vec<Option<String>> {
    let Some(value) = root.get(b"url-list") else { return Vec::new() };
    match value.as_list() {
        Some(list) => list.map(owned).collect(),
        // Some makers write an empty string where they mean none.
        None => {
            value.as_str().filter(|url| !url.is_empty()).map(|url| Some(url.to_owned())).into_iter().collect()
        }
    }
}

fn owned(value: Value<'_>) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Trimmed, without empty, double and overlong ones and empty tiers, at most [`MAX_SOURCES`].
fn tidy(tiers: Vec<Vec<Option<String>>>, dropped: &mut usize) -> Vec<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for tier in tiers {
        let mut row = Vec::new();
        for url in tier {
            let url = url.as_deref().map(str::trim).unwrap_or_default();
            let fits = (1..=URL_MAX_BYTES).contains(&url.len()) && !url.contains(char::is_control);
            if fits && seen.len() < MAX_SOURCES && seen.insert(url.to_owned()) {
                row.push(url.to_owned());
            } else {
                *dropped += 1;
            }
        }
        if !row.is_empty() {
            kept.push(row);
        }
    }
    kept
}

fn nodes(root: Value<'_>, dropped: &mut usize) -> Vec<(String, u16)> {
    let mut kept = Vec::new();
    for node in root.get(b"nodes").and_then(|list| list.as_list()).into_iter().flatten() {
        let mut parts = node.as_list().into_iter().flatten();
        let host = parts.next().and_then(|host| host.as_str()).filter(|host| (1..=255).contains(&host.len()));
        let port = parts.next().and_then(|port| port.as_int()).and_then(|port| u16::try_from(port).ok());
        match (host, port) {
            (Some(host), Some(port @ 1..)) if kept.len() < MAX_SOURCES => kept.push((host.to_owned(), port)),
            _ => *dropped += 1,
        }
    }
    kept
}

fn read_layers(torrent: &mut Metainfo, root: Value<'_>) -> Result<(), Error> {
    const FIELD: &str = "piece layers";
    let Some(layers) = root.get(b"piece layers") else { return Ok(()) };
    let layers = layers.as_dict().ok_or_else(|| Error::kind(FIELD, "a dictionary"))?;
    let lengths = info::lengths_by_root(&torrent.info.files)?;
    let mut needless = 0;
    for (key, value) in layers {
        let root: Hash = key.try_into().map_err(|_| Error::value(FIELD, "a key that is not 32 bytes"))?;
        let bytes = value.as_bytes().ok_or_else(|| Error::kind(FIELD, "a dictionary of strings"))?;
        let (layer, []) = bytes.as_chunks::<32>() else {
            return Err(Error::value(FIELD, "a layer that is no multiple of 32 bytes"));
        };
        let length = *lengths.get(&root).ok_or_else(|| Error::value(FIELD, "a root that no file has"))?;
        if length <= u64::from(torrent.info.piece_length) {
            needless += 1;
            continue;
        }
        if torrent.layers.contains_key(&root) {
            return Err(Error::value(FIELD, "a root stands twice"));
        }
        verify_layer(&root, layer, length, torrent.info.piece_length)?;
        torrent.layers.insert(root, layer.to_vec());
    }
    if needless > 0 {
        torrent.lints.push(Lint::NeedlessLayers { layers: needless });
    }
    Ok(())
}

fn verify_layer(root: &Hash, layer: &[Hash], length: u64, piece_length: u32) -> Result<(), Error> {
    if merkle::verify_layer(root, layer, length, piece_length) {
        Ok(())
    } else {
        Err(Error::value("piece layers", "a layer that does not come to its root"))
    }
}
