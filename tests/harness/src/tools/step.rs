//! Running an external command as a visible step: a line that says what is going on and for how long,
//! the command's output in a log file, and the tail of that log when the command fails.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Lines of the log shown when a step fails.
const TAIL_LINES: usize = 30;

/// Runs `command` as the step `title`, its output going to `log`.
///
/// Prints one line when the step starts and one when it ends; a terminal shows the last line of the
/// output in between, anything else a line every 30 seconds.
///
/// # Errors
/// If the command cannot be started or fails; the message holds the tail of the log.
pub fn run(title: &str, log: &Path, command: &mut Command) -> Result<()> {
    if let Some(parent) = log.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    let output = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    eprintln!("==> {title}");
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("duplicating the log")?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("{title}: starting {:?}", command.get_program()))?;
    let mut said = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("{title}: waiting"))? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(100));
        let interval = if std::io::stderr().is_terminal() { 1 } else { 30 };
        if said.elapsed() >= Duration::from_secs(interval) {
            said = Instant::now();
            progress(log, started.elapsed());
        }
    };
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    if !status.success() {
        bail!("{title}: {status}\n--- {} ---\n{}", log.display(), tail(log, TAIL_LINES));
    }
    eprintln!("    done in {:.0?}", started.elapsed());
    Ok(())
}

/// Shows how long the step has run and the last line it printed.
fn progress(log: &Path, elapsed: Duration) {
    let last: String = tail(log, 1).chars().take(100).collect();
    let mut err = std::io::stderr();
    let (start, end) = if err.is_terminal() { ("\r\x1b[K", "") } else { ("", "\n") };
    // A progress line that cannot be shown is no reason to stop.
    let _ = write!(err, "{start}    {:>4} s  {last}{end}", elapsed.as_secs());
    let _ = err.flush();
}

/// The last `lines` lines of the file at `path`; empty if it cannot be read.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
