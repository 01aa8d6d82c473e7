//! A monitor's process.
//!
//! Invariant: it is gone, and waited for, when its [`Process`] is dropped.

use std::io;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// A process.
pub(crate) struct Process(Child);

impl Process {
    /// Starts `argv`. What it prints goes to the console.
    pub(crate) fn spawn(argv: &[String]) -> Result<Self> {
        Self::start(argv, |mut command| {
            command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).spawn()
        })
    }

    /// Has `start` start `argv`.
    pub(crate) fn start(
        argv: &[String],
        start: impl FnOnce(Command) -> io::Result<Child>,
    ) -> Result<Self> {
        let (program, arguments) = argv.split_first().context("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).stdout(io::stderr());
        start(command).map(Self).with_context(|| format!("starting {program}"))
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
