//! Rules 1 and 4: which crate may import which, and that no pure crate can reach the system.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Finding, PURE};
use crate::run::output;

/// The table of the house: a crate, and what it may import. Tests may look from further up, so dev-dependencies are
/// no arrows.
const TABLE: [(&str, &[&str]); 14] = [
    ("metainfo", &[]),
    ("wire", &["metainfo"]),
    ("package", &["metainfo"]),
    ("transport", &["wire"]),
    ("discovery", &["wire", "metainfo"]),
    ("engine", &["metainfo", "wire", "package", "transport", "discovery"]),
    ("shell", &["metainfo", "wire", "package", "transport", "discovery", "engine"]),
    ("session", &["metainfo", "wire", "package", "transport", "discovery", "engine", "shell"]),
    ("api", &["metainfo"]),
    ("daemon", &["session", "api"]),
    ("cli", &["api", "metainfo"]),
    ("trackerd", &["shell", "discovery"]),
    ("app", &["session", "daemon", "cli", "trackerd"]),
    ("sim", &["metainfo", "wire", "package", "transport", "discovery", "engine"]),
];

/// Arrows that the table's prose implies and its rows do not spell out. They go down as all do.
const IMPLIED: [(&str, &str, &str); 6] = [
    ("transport", "metainfo", "what time is"),
    ("session", "api", "its values are what a session answers with"),
    ("app", "api", "it hands an api client to cli"),
    ("app", "metainfo", "the values that api speaks in"),
    ("trackerd", "wire", "the values that discovery's book speaks in"),
    ("trackerd", "metainfo", "the values that discovery's book speaks in"),
];

/// Tools: they may look everywhere, and nothing may look at them.
const TOOLS: [&str; 2] = ["xtask", "fuzz"];
/// Outside crates that are doors to the system. Below the shell nothing may reach them.
const DOORS: [&str; 13] = [
    "getrandom",
    "rand",
    "fastrand",
    "tokio",
    "mio",
    "socket2",
    "rustix",
    "nix",
    "crossbeam-channel",
    "reqwest",
    "hyper",
    "parking_lot",
    "async-io",
];
/// Features that pull randomness from the system into crates that are pure without them.
const DICE: [&str; 6] = ["getrandom", "os_rng", "sys_rng", "thread_rng", "std_rng", "fastrand"];

/// Arrows that are not in the table, and doors within reach of pure crates.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let metadata = output(root, "cargo", &["metadata", "--format-version=1", "--no-deps"])?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata")?;
    let imports = imports(&metadata);
    let mut findings = compare(&imports);
    for house in PURE.iter().filter(|house| imports.contains_key(**house)) {
        let package = format!("piecemeal-{house}");
        let tree = output(
            root,
            "cargo",
            &["tree", "--package", &package, "--edges=normal", "--prefix=none", "--format={p}|{f}"],
        )?;
        findings.extend(doors(house, &tree));
    }
    Ok(findings)
}

/// What each crate of the workspace imports of it, by short name.
fn imports(metadata: &Value) -> BTreeMap<String, Vec<String>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut imports = BTreeMap::new();
    for package in list(&metadata["packages"]) {
        let deps = list(&package["dependencies"]);
        let deps = deps.iter().filter(|dep| dep["kind"].as_str() != Some("dev") && !dep["path"].is_null());
        let deps = deps.filter_map(|dep| dep["name"].as_str()).map(house).collect();
        imports.insert(house(package["name"].as_str().unwrap_or_default()), deps);
    }
    imports
}

fn house(package: &str) -> String {
    match package {
        "piecemeal" => "session".to_owned(),
        other => other.strip_prefix("piecemeal-").unwrap_or(other).to_owned(),
    }
}

fn compare(imports: &BTreeMap<String, Vec<String>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (from, to) in imports {
        let manifest = format!("crates/{from}/Cargo.toml");
        if TOOLS.contains(&from.as_str()) {
            continue;
        }
        let Some((_, may)) = TABLE.iter().find(|(name, _)| name == from) else {
            findings.push(Finding::new(
                &manifest,
                None,
                format!("{from} has no row in the table of the house"),
            ));
            continue;
        };
        for to in to {
            let implied = IMPLIED.iter().any(|(a, b, _)| a == from && b == to);
            if !may.contains(&to.as_str()) && !implied {
                let text =
                    format!("{from} -> {to} is no arrow of the house; {from} may import: {}", may.join(", "));
                findings.push(Finding::new(&manifest, None, text));
            }
        }
    }
    findings
}

/// Doors in a tree of lines `name v1.2.3 ...|feature,feature`.
fn doors(house: &str, tree: &str) -> Vec<Finding> {
    let manifest = format!("crates/{house}/Cargo.toml");
    let mut seen = BTreeSet::new();
    for line in tree.lines() {
        let (package, features) = line.split_once('|').unwrap_or((line, ""));
        let name = package.split(' ').next().unwrap_or_default();
        if DOORS.contains(&name) {
            seen.insert(format!(
                "{house} reaches {name}, a door to the system; turn the feature off that brings it"
            ));
        }
        let features = features.trim_end_matches(" (*)").split(',');
        for feature in features.filter(|feature| DICE.contains(feature)) {
            seen.insert(format!(
                "{house} has {name} with feature {feature}: randomness comes in as an argument"
            ));
        }
    }
    seen.into_iter().map(|text| Finding::new(&manifest, None, text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(from: &str, to: &str, kind: &str) -> Value {
        let dep = |name: &str, path: Value| serde_json::json!({"name": name, "kind": kind, "path": path});
        let deps = [dep(to, "/x".into()), dep("thiserror", Value::Null)];
        serde_json::json!({"packages": [{"name": from, "dependencies": deps}]})
    }

    fn found(from: &str, to: &str, kind: &str) -> usize {
        let kind: Value = if kind.is_empty() { Value::Null } else { kind.into() };
        let mut metadata = metadata(from, to, "");
        metadata["packages"][0]["dependencies"][0]["kind"] = kind;
        compare(&imports(&metadata)).len()
    }

    #[test]
    fn an_arrow_up_or_aside_is_found() {
        assert_eq!(found("piecemeal-engine", "piecemeal-shell", ""), 1);
        assert_eq!(found("piecemeal-cli", "piecemeal-engine", ""), 1);
        assert_eq!(found("piecemeal-wire", "piecemeal-package", "build"), 1);
        assert_eq!(found("piecemeal-shell", "piecemeal", ""), 1);
        assert_eq!(found("piecemeal-sim", "piecemeal-shell", ""), 1);
    }

    #[test]
    fn an_arrow_down_is_none_and_neither_is_a_tests() {
        assert_eq!(found("piecemeal-engine", "piecemeal-wire", ""), 0);
        assert_eq!(found("piecemeal", "piecemeal-shell", ""), 0);
        assert_eq!(found("piecemeal", "piecemeal-trackerd", "dev"), 0);
        assert_eq!(found("xtask", "piecemeal", ""), 0);
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        assert_eq!(found("piecemeal-util", "piecemeal-wire", ""), 1);
    }

    #[test]
    fn the_table_has_no_circle() {
        for (name, may) in TABLE {
            let before: Vec<_> = TABLE.iter().map(|row| row.0).take_while(|other| *other != name).collect();
            let known = |other: &&&str| !before.contains(*other) && **other != "api" && **other != "daemon";
            assert_eq!(may.iter().find(known), None, "{name}");
        }
    }

    #[test]
    fn doors_and_dice_are_found() {
        let tree = "piecemeal-engine v0.1.0 (/x)|\nsha1 v0.11.0|default\nrand_core v0.10.1|sys_rng (*)\n\
                    getrandom v0.4.0|\ngetrandom v0.4.0| (*)\n";
        let found: Vec<_> = doors("engine", tree).iter().map(Finding::to_string).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(doors("engine", "rand_core v0.10.1|\nppv-lite86 v0.2.21|simd\n").is_empty());
    }
}
