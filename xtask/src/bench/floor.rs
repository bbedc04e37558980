//! The plainest programs that do the same work: what is below them, no client can reach.
//!
//! `receive` reads a socket, hashes (SHA-1) and writes a file; `send` is sendfile; `hash` reads and hashes pieces on
//! all cores. They know no protocol, have no peers, and check nothing.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::fs::sendfile;
use sha1::{Digest, Sha1};

/// What one read of a socket or file takes at most: more no longer saves anything.
const STEP_BYTES: usize = 256 << 10;
/// As in the torrents of the benchmark.
pub const PIECE_BYTES: u64 = 1 << 20;

/// `xtask floor send LISTEN FILE`, `receive ADDR FILE`, `hash FILE THREADS`.
pub fn run(args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["send", listen, file] => send(listen, Path::new(file)),
        ["receive", from, file] => receive(from, Path::new(file)),
        ["hash", file, threads] => hash(Path::new(file), threads.parse().context("THREADS")?),
        _ => bail!("floor send LISTEN FILE | receive ADDR FILE | hash FILE THREADS"),
    }
}

/// Sends the file to everybody who asks, one after the other, until killed.
fn send(listen: &str, path: &Path) -> Result<()> {
    let listener = TcpListener::bind(listen)?;
    println!("READY");
    for stream in listener.incoming() {
        let (stream, file) = (stream?, File::open(path)?);
        let size = file.metadata()?.len();
        let mut sent = 0;
        while sent < size {
            let part = usize::try_from(size - sent).unwrap_or(usize::MAX);
            if sendfile(&stream, &file, Some(&mut sent), part)? == 0 {
                bail!("{}: shorter than it was", path.display());
            }
        }
    }
    Ok(())
}

fn receive(from: &str, path: &Path) -> Result<()> {
    let mut stream = TcpStream::connect(from)?;
    let mut file = File::create(path)?;
    let mut buffer = vec![0; STEP_BYTES];
    let (mut hash, mut in_piece, mut last) = (Sha1::new(), 0, None);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let room = usize::try_from(PIECE_BYTES - in_piece).unwrap_or(usize::MAX).min(rest.len());
            hash.update(&rest[..room]);
            in_piece += room as u64;
            rest = &rest[room..];
            if in_piece == PIECE_BYTES {
                last = Some(hash.finalize_reset());
                in_piece = 0;
            }
        }
        file.write_all(&buffer[..read])?;
    }
    // Looked at, so that no compiler leaves the work out.
    if last.is_some_and(|last| last.iter().all(|byte| *byte == 0)) {
        bail!("a hash of zeros");
    }
    Ok(())
}

fn hash(path: &Path, threads: u64) -> Result<()> {
    let file = OpenOptions::new().read(true).open(path)?;
    let size = file.metadata()?.len();
    let next = AtomicU64::new(0);
    let zeros = AtomicU64::new(0);
    thread::scope(|scope| {
        let work = || -> Result<()> {
            let mut buffer = vec![0; usize::try_from(PIECE_BYTES)?];
            loop {
                let at = next.fetch_add(PIECE_BYTES, Ordering::Relaxed);
                if at >= size {
                    return Ok(());
                }
                let length = usize::try_from(PIECE_BYTES.min(size - at))?;
                file.read_exact_at(&mut buffer[..length], at)?;
                if Sha1::digest(&buffer[..length]).iter().all(|byte| *byte == 0) {
                    zeros.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    if zeros.into_inner() > 0 { bail!("a hash of zeros") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_sent_is_received() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, vec![7; 3_000_001]).unwrap();
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (listen, path) = (addr.clone(), from.clone());
        thread::spawn(move || send(&listen, &path));
        while receive(&addr, &to).is_err() {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(std::fs::read(&to).unwrap(), std::fs::read(&from).unwrap());
        hash(&from, 2).unwrap();
    }
}
