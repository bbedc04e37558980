//! Running other programs: those that end soon, and those that must not outlive us.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::proc::cpu_time;

/// How often a process is looked at while we wait for it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The root of the workspace.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Runs to the end with our streams; fails with the command line when it failed.
pub fn run(dir: &Path, program: &str, args: &[&str]) -> Result<()> {
    let status =
        Command::new(program).args(args).current_dir(dir).status().with_context(|| program.to_owned())?;
    if status.success() { Ok(()) } else { bail!("`{program} {}`: {}", args.join(" "), ended(status)) }
}

/// Runs to the end and gives its stdout; its stderr is ours, and so is its failure.
pub fn output(dir: &Path, program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .current_dir(dir)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| program.to_owned())?;
    if !output.status.success() {
        bail!("`{program} {}`: {}", args.join(" "), ended(output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program can be found.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// How a process ended, in words.
pub fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// A process in a group of its own, with its output in a file. Dropped, the whole group is killed.
pub struct Running {
    /// What we call it.
    pub name: String,
    /// Its stdout and stderr.
    pub log: PathBuf,
    child: Child,
    status: Option<ExitStatus>,
}

impl Running {
    /// Starts it.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Running> {
        let out = File::create(log).with_context(|| log.display().to_string())?;
        let program = command.get_program().to_owned();
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out).process_group(0);
        let child = command.spawn().with_context(|| format!("{name}: {}", program.to_string_lossy()))?;
        Ok(Running { name: name.to_owned(), log: log.to_owned(), child, status: None })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None` while it runs.
    pub fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits until it ends.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.poll()? {
                return Ok(status);
            }
            if Instant::now() > until {
                bail!("{}: not done after {} s; {}", self.name, limit.as_secs(), self.tail());
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until it ends well; gives the CPU time it took in all, children left out.
    pub fn finish_counting(&mut self, limit: Duration) -> Result<Duration> {
        let until = Instant::now() + limit;
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("no process id")?;
        // Not taken leave of yet, so that the kernel still has its times.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while waitid(WaitId::Pid(pid), look)?.is_none() {
            if Instant::now() > until {
                bail!("{}: not done after {} s; {}", self.name, limit.as_secs(), self.tail());
            }
            thread::sleep(LOOK_EVERY);
        }
        let cpu = cpu_time(self.pid())?;
        self.finish(limit).map(|()| cpu)
    }

    /// Waits until it ends well.
    pub fn finish(&mut self, limit: Duration) -> Result<()> {
        let status = self.wait(limit)?;
        if status.success() { Ok(()) } else { Err(self.failed(status)) }
    }

    /// Waits for a line of its output that `wanted` likes; fails if it ends without.
    pub fn line(&mut self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let until = Instant::now() + limit;
        loop {
            let over = self.poll()?;
            if let Some(line) = self.lines().into_iter().find(|line| wanted(line)) {
                return Ok(line);
            }
            if let Some(status) = over {
                return Err(self.failed(status));
            }
            if Instant::now() > until {
                bail!("{}: silent for {} s; {}", self.name, limit.as_secs(), self.tail());
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// What it has said so far.
    pub fn lines(&self) -> Vec<String> {
        let Ok(file) = File::open(&self.log) else { return Vec::new() };
        BufReader::new(file)
            .split(b'\n')
            .map_while(Result::ok)
            .map(|line| String::from_utf8_lossy(&line).into_owned())
            .collect()
    }

    /// Asks it to end, as Ctrl-C does, and waits a while.
    pub fn interrupt(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::INT);
        self.wait(limit)
    }

    /// Sends a signal to it and all it started.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Gone already is as good.
            let _ = kill_process_group(pid, signal);
        }
    }

    fn failed(&self, status: ExitStatus) -> anyhow::Error {
        anyhow!("{}: {}; {}", self.name, ended(status), self.tail())
    }

    fn tail(&self) -> String {
        let lines = self.lines();
        let last: Vec<_> =
            lines.iter().rev().filter(|line| !line.trim().is_empty()).take(3).cloned().collect();
        let last: Vec<_> =
            last.into_iter().rev().map(|line| line.chars().take(300).collect::<String>()).collect();
        format!("its last words: {:?}", last.join(" / "))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}
