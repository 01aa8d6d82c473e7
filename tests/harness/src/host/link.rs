//! The way into a test host: commands and files over one multiplexed ssh connection.
//!
//! Invariant: a command's streams are never mixed or cut, and its exit code is the caller's.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::machine::Machine;
use crate::tools::debian::quote;

/// What a command in the host is run with.
#[derive(Debug, Default)]
pub struct Options {
    /// A terminal for the command. Its size follows ours and keys such as Ctrl-C are interpreted there.
    pub tty: bool,
    /// The working directory; root's home if empty.
    pub cwd: String,
    /// Variables added to the environment.
    pub env: Vec<(String, String)>,
    /// Where standard output goes, if not to our own.
    pub stdout: Option<OwnedFd>,
}

impl Options {
    /// Standard output as a child process gets it.
    pub(super) fn stdout(&self) -> Result<Stdio> {
        let Some(fd) = &self.stdout else { return Ok(Stdio::inherit()) };
        Ok(fd.try_clone().context("duplicating a descriptor")?.into())
    }
}

/// Signals that are passed on to the command.
const PASSED: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// How often the same signal must come before the command is given up.
const INSIST: u32 = 3;

impl Machine {
    /// Opens the connection that all commands share, if it is not open.
    ///
    /// # Errors
    /// If the ssh server does not let us in.
    pub fn connect(&self) -> Result<()> {
        if self.ssh(&["-O", "check"]).stderr(Stdio::null()).status().is_ok_and(|s| s.success()) {
            return Ok(());
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let output = self
                .ssh(&["-o", "ControlMaster=yes", "-o", "ConnectTimeout=20", "-f", "-N"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .context("starting ssh")?;
            if output.success() {
                return Ok(());
            }
            if Instant::now() > deadline || !self.alive() {
                bail!("no ssh connection to the test host\n{}", self.console(20));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Runs `argv` with our own standard streams, unless `options` says otherwise, and passes signals on.
    ///
    /// # Errors
    /// If the command cannot be started, or the machine dies under it (with the tail of its console).
    pub fn run(&self, argv: &[String], options: &Options) -> Result<ExitStatus> {
        let signals: SigSet = PASSED.into_iter().chain([Signal::SIGCHLD]).collect();
        let old = signals.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
        let result = self.run_masked(argv, options, &signals);
        old.thread_set_mask()?;
        result
    }

    fn run_masked(&self, argv: &[String], options: &Options, set: &SigSet) -> Result<ExitStatus> {
        let signals =
            SignalFd::with_flags(set, SfdFlags::SFD_NONBLOCK).context("making a signalfd")?;
        let token = token();
        let mut command = self.command(argv, options, &token);
        command.stdout(options.stdout()?);
        let mut child = command.spawn().context("starting ssh")?;
        let mut count = 0;
        loop {
            if let Some(status) = child.try_wait().context("waiting for ssh")? {
                return self.judge(status);
            }
            // Another thread may swallow the SIGCHLD that tells of the end, hence the limit.
            let mut wait = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            match poll(&mut wait, PollTimeout::from(100_u8)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("waiting for a signal"),
            }
            let Some(info) = signals.read_signal().context("reading a signal")? else { continue };
            let Some(signal) = i32::try_from(info.ssi_signo).ok().and_then(|n| n.try_into().ok())
            else {
                continue;
            };
            if signal == Signal::SIGCHLD {
                continue;
            }
            count += 1;
            if count >= INSIST {
                child.kill().context("ending ssh")?;
            } else {
                self.send(signal, &token);
            }
        }
    }

    /// The command that runs `argv` in the host, for callers that want to handle its streams.
    ///
    /// `token` names it for [`Machine::send`].
    #[must_use]
    pub fn command(&self, argv: &[String], options: &Options, token: &str) -> Command {
        let mut line = String::new();
        if !options.cwd.is_empty() {
            line = format!("cd {} && ", quote(&options.cwd));
        }
        line.push_str("exec env");
        for (name, value) in &options.env {
            line = format!("{line} {}", quote(&format!("{name}={value}")));
        }
        if !options.tty {
            line = format!("{line} host-exec {token}");
        }
        for word in argv {
            line = format!("{line} {}", quote(word));
        }
        // ssh itself must not hear the signals that we pass on, and must not outlive us.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "env"]);
        command.args(PASSED.map(|signal| format!("--block-signal={}", &signal.as_str()[3..])));
        let ssh = self.ssh(&[if options.tty { "-tt" } else { "-T" }]);
        command.arg(ssh.get_program()).args(ssh.get_args()).arg(line);
        command
    }

    /// Runs `line` by the host's shell and gives what it wrote on its standard output.
    ///
    /// # Errors
    /// If it fails; the message holds its standard error.
    pub fn read(&self, line: &str) -> Result<String> {
        let output = self.ssh(&["-T"]).arg(line).output().context("starting ssh")?;
        if !output.status.success() {
            bail!("{line}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Sends `signal` to the command `token` and all that it started.
    pub fn send(&self, signal: Signal, token: &str) {
        let line = format!("host-exec --signal {} {token}", &signal.as_str()[3..]);
        // The command may have ended meanwhile.
        let _ = self.ssh(&["-T"]).arg(line).stderr(Stdio::null()).status();
    }

    /// Makes the host's directory `to` equal to `from`: only what differs is copied, what is not in `from` goes.
    ///
    /// # Errors
    /// If rsync fails.
    pub fn mirror(&self, from: &Path, to: &str) -> Result<()> {
        self.rsync(&["--delete"], &slash(from), &format!("kvm-test-host:{to}/"))
    }

    /// Copies the contents of `from` over the host's directory `to`, which keeps what else it has.
    ///
    /// # Errors
    /// If rsync fails.
    pub fn put(&self, from: &Path, to: &str) -> Result<()> {
        self.rsync(&["--omit-dir-times"], &slash(from), &format!("kvm-test-host:{to}/"))
    }

    /// Copies what is new or changed in the host's directory `from` to `to`. What is newer in `to` is left alone, and
    /// nothing is removed from it.
    ///
    /// # Errors
    /// If rsync fails.
    pub fn get(&self, from: &str, to: &Path) -> Result<()> {
        self.rsync(&["--update"], &format!("kvm-test-host:{from}/"), &slash(to))
    }

    fn rsync(&self, options: &[&str], from: &str, to: &str) -> Result<()> {
        let ssh = self.ssh(&["-T"]);
        // rsync adds the host's name, which is our alias, as the first argument: it stands for the address.
        let words = ssh.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>();
        let shell = format!("ssh {}", words[..words.len() - 1].join(" "));
        let output = Command::new("rsync")
            .args(["-rlptgoDHS", "--numeric-ids", "-e", &shell])
            .args(options)
            .args([from, to])
            .output()
            .context("starting rsync")?;
        if !output.status.success() {
            bail!(
                "copying {from} to {to}: {}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// An ssh command to the host, before the remote command line.
    fn ssh(&self, options: &[&str]) -> Command {
        let image = self.image();
        let mut command = Command::new("ssh");
        command.args([
            "-F",
            "none",
            "-q",
            "-o",
            "BatchMode=yes",
            "-o",
            "HostKeyAlias=kvm-test-host",
        ]);
        command.args(["-o", "HostName=127.0.0.1", "-o", "StrictHostKeyChecking=yes", "-l", "root"]);
        command.args(["-p", &self.port().to_string()]);
        for (name, path) in [
            ("IdentityFile", image.key()),
            ("UserKnownHostsFile", image.known_hosts()),
            ("ControlPath", self.dir().join("ssh")),
        ] {
            command.arg("-o").arg(format!("{name}={}", path.display()));
        }
        command.args(options).arg("kvm-test-host");
        command
    }

    /// Tells a failure of the connection (ssh's code 255) from the command's own code.
    fn judge(&self, status: ExitStatus) -> Result<ExitStatus> {
        let broken = status.code().is_none_or(|code| code == 255);
        // ssh may notice the end of the connection before QEMU's socket is gone.
        let dead = || {
            std::thread::sleep(Duration::from_millis(100));
            !self.alive()
        };
        if broken && (0..10).any(|_| dead()) {
            bail!("the test host died\n--- its console ---\n{}", self.console(30));
        }
        Ok(status.code().map_or_else(|| ExitStatus::from_raw(130 << 8), |_| status))
    }
}

/// A name for one command of this process.
fn token() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// `path` as rsync wants it to mean a directory's contents.
fn slash(path: &Path) -> String {
    format!("{}/", path.display())
}
