//! Commands with a limit of time, their output in files: a container that goes on writes to them, too.
//!
//! Invariant: a command does not outlive the value that stands for it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::run::{Outcome, Running};

/// Longest time for one command, or for what it sets going, on a slow machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A started command.
pub(crate) struct Call {
    child: Running,
    pub(crate) stdout: PathBuf,
    pub(crate) stderr: PathBuf,
    text: String,
}

impl Call {
    /// Starts `command` with its output in files in `directory`.
    pub(crate) fn start(mut command: Command, directory: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = |name: &str| directory.join(format!("{name}-{number}"));
        let (stdout, stderr) = (file("out"), file("err"));
        let text = format!("{command:?}");
        let child = command
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("starting {text}"))?;
        Ok(Self { child: Running(child), stdout, stderr, text })
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.child.0.id())?)
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Result<Outcome> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.end(LIMIT)?;
        let stderr = String::from_utf8_lossy(&fs::read(&self.stderr)?).into_owned();
        let stdout = fs::read(&self.stdout)?;
        let Some(status) = status else {
            bail!("still running after {LIMIT:?}: {}\n{stderr}", self.text);
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ok(Outcome { code, stdout, stderr })
    }

    /// Waits until it has printed `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> Result<()> {
        let path = self.stdout.clone();
        eventually(&format!("{text:?} from {}", self.text), || {
            Ok(fs::read_to_string(&path)?.contains(text))
        })
    }
}

/// Standard input that holds `text`.
pub(crate) fn input(text: &str) -> Result<Stdio> {
    use std::io::{Seek, SeekFrom, Write};
    let mut file = tempfile::tempfile()?;
    file.write_all(text.as_bytes())?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

/// Waits until `true_now` is.
pub(crate) fn eventually(what: &str, mut true_now: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !true_now()? {
        ensure!(Instant::now() < deadline, "waited {LIMIT:?} for {what}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
