//! Wrong input: one line that names the thing and what to do, an exit code, and nothing left behind.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Result, bail};

use super::cli::{Answer, ask};
use super::{Case, Stage};

/// All of these fail at once.
const LIMIT: Duration = Duration::from_secs(20);
/// Done wrong, and not understood.
const FAILED: i32 = 1;
const USAGE: i32 = 2;

/// A command line, the exit code it must have, and words its one line must hold.
type Row = (&'static [&'static str], i32, &'static [&'static str]);

/// Paths as `prepare` makes them.
const TABLE: [Row; 37] = [
    (&[], USAGE, &["command"]),
    (&["gte", "good.torrent"], USAGE, &["gte"]),
    (&["get"], USAGE, &["SOURCE"]),
    (&["get", "none.torrent"], FAILED, &["none.torrent", "not found"]),
    (&["get", "junk.torrent"], FAILED, &["junk.torrent"]),
    (&["get", "cut.torrent"], FAILED, &["cut.torrent"]),
    (&["get", "empty.torrent"], FAILED, &["empty.torrent"]),
    (&["get", "deep.torrent"], FAILED, &["deep.torrent"]),
    (&["get", "good"], FAILED, &["good", "directory"]),
    (&["get", "ftp://127.0.0.1/x.torrent"], FAILED, &["ftp"]),
    (&["get", "http://127.0.0.1:1/x.torrent"], FAILED, &["127.0.0.1:1"]),
    (&["get", "magnet:?xt=urn:btih:12"], FAILED, &["magnet:?xt=urn:btih:12"]),
    (&["get", "magnet:?xt=urn:btmh:1220"], FAILED, &["info-hash"]),
    (&["get", "good.torrent", "--peer=nobody"], USAGE, &["--peer", "nobody"]),
    (&["get", "good.torrent", "--listen=1.2.3:4"], USAGE, &["--listen", "1.2.3:4"]),
    (&["get", "good.torrent", "--down-limit=fast"], USAGE, &["--down-limit", "fast"]),
    (&["get", "good.torrent", "--seed-ratio=-1"], USAGE, &["--seed-ratio"]),
    (&["get", "good.torrent", "--select=*.nothing"], FAILED, &["*.nothing"]),
    (&["get", "good.torrent", "-o", "file"], FAILED, &["file"]),
    (&["create", "none"], FAILED, &["none", "not found"]),
    (&["create", "good", "-o", "none/x.torrent"], FAILED, &["none/x.torrent"]),
    (&["create", "good", "-o", "there.torrent"], FAILED, &["there.torrent", "exists"]),
    (&["create", "good", "--piece-length=3MiB"], USAGE, &["--piece-length", "3MiB"]),
    (&["create", "good", "--tracker=here"], USAGE, &["--tracker", "here"]),
    (&["create", "good", "--v1", "--v2"], USAGE, &["--v1", "--v2"]),
    (&["create", "void", "-o", "void.torrent"], FAILED, &["no bytes"]),
    (&["create", "good", "--from=magnet:?dn=x"], USAGE, &["--from"]),
    (&["create", "--from=magnet:?dn=x"], FAILED, &["magnet:?dn=x"]),
    (&["show", "junk.torrent"], FAILED, &["junk.torrent"]),
    (&["show", "magnet:?xt=urn:btih:12"], FAILED, &["magnet"]),
    (&["verify", "good.torrent", "none"], FAILED, &["none", "directory"]),
    (&["verify", "junk.torrent", "."], FAILED, &["junk.torrent"]),
    (&["seed", "none"], FAILED, &["none", "not found"]),
    (&["seed", "good.torrent", "-o", "void"], FAILED, &["not there"]),
    (&["seed", "good.torrent", "-o", "damaged"], FAILED, &["missing or bad"]),
    (&["demo", "--size=1"], USAGE, &["--size"]),
    (&["peers", "junk.torrent"], FAILED, &["junk.torrent"]),
];

/// The table, and an address that is taken.
pub fn cases() -> Vec<Case> {
    vec![Case::new("inputs/wrong", wrong), Case::new("inputs/address-taken", address_taken)]
}

fn wrong(stage: &Stage<'_>) -> Result<String> {
    prepare(stage)?;
    let before = listing(stage)?;
    let mut bad = Vec::new();
    for (args, code, words) in TABLE {
        if let Err(why) = one_line(&ask(stage, args, LIMIT)?, code, words) {
            bad.push(format!("`{}`: {why}", args.join(" ")));
        }
        let after = listing(stage)?;
        if after != before {
            let new: Vec<_> = after.iter().filter(|name| !before.contains(name)).collect();
            bail!("`{}` left something behind: {new:?}", args.join(" "));
        }
    }
    if fs::read(stage.dir.join("there.torrent"))? != b"mine" || fs::read(stage.dir.join("file"))? != b"mine" {
        bail!("a file that was there is not what it was");
    }
    if bad.is_empty() {
        Ok(format!("{} wrong command lines", TABLE.len()))
    } else {
        bail!("{}", bad.join("\n     "))
    }
}

fn prepare(stage: &Stage<'_>) -> Result<()> {
    let dir = stage.dir;
    for folder in ["good", "void", "damaged/good"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    fs::write(dir.join("good/a"), vec![7; 100_000])?;
    fs::write(dir.join("good/b"), b"b")?;
    ask(stage, &["create", "good", "-o", "good.torrent", "--v1"], LIMIT)?.expect(0, "create")?;
    let good = fs::read(dir.join("good.torrent"))?;
    fs::write(dir.join("cut.torrent"), &good[..good.len() - 9])?;
    fs::write(dir.join("junk.torrent"), "<html>login first</html>")?;
    fs::write(dir.join("empty.torrent"), "")?;
    fs::write(dir.join("deep.torrent"), "l".repeat(1 << 20))?;
    fs::write(dir.join("there.torrent"), "mine")?;
    fs::write(dir.join("file"), "mine")?;
    fs::write(dir.join("damaged/good/a"), vec![8; 100_000])?;
    Ok(fs::write(dir.join("damaged/good/b"), b"b")?)
}

/// Everything but the state that the program keeps for itself.
fn listing(stage: &Stage<'_>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut folders = vec![stage.dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.strip_prefix(stage.dir)?.to_string_lossy().into_owned();
            if ["state", "data", "config"].iter().any(|own| name.starts_with(own)) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            }
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The exit code is right; the last line is ours, names what it must, and says what to do.
fn one_line(answer: &Answer, code: i32, words: &[&str]) -> Result<()> {
    let lines: Vec<_> = answer.err.lines().filter(|line| !line.trim().is_empty()).collect();
    let Some(last) = lines.last() else { bail!("says nothing, exit code {:?}", answer.code) };
    if answer.code != Some(code) {
        bail!("exit code {:?} instead of {code}: {last}", answer.code);
    }
    let errors = lines.iter().filter(|line| line.starts_with("piecemeal: ")).count();
    if errors != 1 || !last.starts_with("piecemeal: ") || answer.err.contains("panicked") {
        bail!("not one line: {}", answer.err.trim());
    }
    if !last.contains("; ") {
        bail!("does not say what to do: {last}");
    }
    match words.iter().find(|word| !last.contains(**word)) {
        Some(word) => bail!("does not name {word}: {last}"),
        None => Ok(()),
    }
}

fn address_taken(stage: &Stage<'_>) -> Result<String> {
    prepare(stage)?;
    // On the host itself: elsewhere its address cannot be bound.
    let held = TcpListener::bind((stage.net.own_ip(), 0))?;
    let addr = held.local_addr()?.to_string();
    let tracker = ask_here(stage, &["tracker", &format!("--listen={addr}")])?;
    one_line(&tracker, FAILED, &[&addr])?;
    let seed = ask_here(stage, &["seed", "good.torrent", &format!("--listen={addr}")])?;
    one_line(&seed, FAILED, &[&addr])?;
    Ok(format!("{addr} refused by name"))
}

/// In this program's own network rather than on a host.
fn ask_here(stage: &Stage<'_>, args: &[&str]) -> Result<Answer> {
    let output = super::peers::ours(std::process::Command::new("timeout"), stage.dir)
        .arg(LIMIT.as_secs().to_string())
        .arg(stage.binary)
        .args(args)
        .current_dir(stage.dir)
        .output()?;
    Ok(Answer {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(code: i32, err: &str) -> bool {
        let answer = Answer { code: Some(code), out: String::new(), err: err.to_owned() };
        one_line(&answer, 1, &["x.torrent"]).is_ok()
    }

    #[test]
    fn what_counts_as_one_line() {
        assert!(judge(1, "piecemeal: x.torrent: not found; check the path\n"));
        assert!(judge(1, "listening on 1.2.3.4:5\npiecemeal: x.torrent: not found; check the path\n"));
        assert!(!judge(2, "piecemeal: x.torrent: not found; check the path\n"));
        assert!(!judge(1, "piecemeal: y.torrent: not found; check the path\n"));
        assert!(!judge(1, "piecemeal: x.torrent: not found\n"));
        assert!(!judge(1, "piecemeal: x.torrent: a; b\npiecemeal: x.torrent: a; b\n"));
        assert!(!judge(1, "thread 'main' panicked at x.torrent\npiecemeal: x.torrent: a; b\n"));
        assert!(!judge(1, ""));
    }
}
