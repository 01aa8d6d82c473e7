//! A command on a terminal of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use crate::run::{Run, Running};

/// A command whose standard streams are one pseudo-terminal.
pub(crate) struct Terminal {
    child: Running,
    controller: File,
    /// Kept open so that the terminal's settings can be read after the run.
    device: OwnedFd,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts `run` on a terminal of `rows` by `columns`.
    pub(crate) fn start(run: &Run, rows: u16, columns: u16) -> Result<Self> {
        Self::of(run.to_command(), rows, columns)
    }

    /// Starts `command` on a terminal of `rows` by `columns`.
    pub(crate) fn of(mut command: Command, rows: u16, columns: u16) -> Result<Self> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None)?;
        let stdio = || Ok::<_, std::io::Error>(Stdio::from(slave.try_clone()?));
        let child = command.stdin(stdio()?).stdout(stdio()?).stderr(stdio()?).spawn()?;
        let controller = File::from(master);
        let mut reader = controller.try_clone()?;
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let growing = seen.clone();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut chunk) {
                let mut all = growing.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend_from_slice(&chunk[..length]);
            }
        });
        Ok(Self { child: Running(child), controller, device: slave, seen })
    }

    fn seen(&self) -> MutexGuard<'_, Vec<u8>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything shown so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen()).into_owned()
    }

    /// Types `text`.
    pub(crate) fn types(&mut self, text: &str) -> Result<()> {
        Ok(self.controller.write_all(text.as_bytes())?)
    }

    /// Changes the window's size, and tells the program as a terminal would.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let size =
            rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.device, size)?;
        let pid = i32::try_from(self.child.0.id())?;
        Ok(kill(Pid::from_raw(pid), Signal::SIGWINCH)?)
    }

    /// Waits until `text` is shown.
    pub(crate) fn wait_for(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !self.text().contains(text) {
            if let Some(status) = self.child.0.try_wait()? {
                thread::sleep(Duration::from_millis(200));
                ensure!(
                    self.text().contains(text),
                    "ended ({status}) without {text:?}: {}",
                    self.text()
                );
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "never showed {text:?}: {}", self.text());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits for the end; returns the exit code. The terminal must be as it was: line mode with echo.
    pub(crate) fn finish(mut self) -> Result<i32> {
        let Some(status) = self.child.end(Duration::from_secs(120))? else {
            bail!("still running: {}", self.text());
        };
        let flags = tcgetattr(&self.device)?.local_flags;
        ensure!(
            flags.contains(LocalFlags::ICANON | LocalFlags::ECHO),
            "the terminal (descriptor {}) was left in raw mode",
            self.device.as_raw_fd()
        );
        Ok(status.code().unwrap_or(-1))
    }
}
