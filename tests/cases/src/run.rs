//! `cofferdam run` in ten lines: what to run, what goes in, what must come out.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// The root file system that the cases run in.
pub(crate) const ROOTFS: &str = "/var/lib/cofferdam-test/rootfs";

/// The program under test.
pub(crate) const COFFERDAM: &str = "cofferdam";

/// Longest time for one run, on a slow machine.
const LIMIT: Duration = Duration::from_secs(180);

/// A run of `cofferdam run`, described.
pub(crate) struct Run {
    /// The runtime.
    program: &'static str,
    /// Flags before the id or the command.
    flags: Vec<String>,
    /// What comes after them.
    operands: Vec<String>,
    stdin: Vec<u8>,
    environment: Vec<(String, String)>,
    /// The user and group that it runs as, if not those of the cases.
    user: Option<(u32, u32)>,
    /// The bundle, gone after the run.
    bundle: Option<TempDir>,
}

impl Run {
    /// `cofferdam run --rootfs ROOTFS -- COMMAND`.
    pub(crate) fn command(command: &[&str]) -> Self {
        Self::in_rootfs(Path::new(ROOTFS), command)
    }

    /// `cofferdam run --rootfs DIRECTORY -- COMMAND`.
    pub(crate) fn in_rootfs(directory: &Path, command: &[&str]) -> Self {
        let mut operands = vec!["--".to_owned()];
        operands.extend(command.iter().map(|&word| word.to_owned()));
        Self {
            program: COFFERDAM,
            flags: vec!["--rootfs".into(), directory.display().to_string()],
            operands,
            stdin: Vec::new(),
            environment: Vec::new(),
            user: None,
            bundle: None,
        }
    }

    /// A shell script in the root file system.
    pub(crate) fn shell(script: &str) -> Self {
        Self::command(&["sh", "-c", script])
    }

    /// `cofferdam run --bundle DIR ID` with the configuration that `cofferdam spec` writes, made to run
    /// the shell script `script` without a terminal and then changed by `edit`.
    pub(crate) fn bundle(script: &str, edit: impl FnOnce(&mut Value)) -> Result<Self> {
        let bundle = bundle()?;
        let path = bundle.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
        config["root"] = serde_json::json!({ "path": ROOTFS, "readonly": false });
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = serde_json::json!(["sh", "-c", script]);
        edit(&mut config);
        fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
        Ok(Self::of_bundle(bundle))
    }

    /// `cofferdam run --bundle DIR ID` with `bundle` as it is.
    pub(crate) fn of_bundle(bundle: TempDir) -> Self {
        Self {
            program: COFFERDAM,
            flags: vec!["--bundle".into(), bundle.path().display().to_string()],
            operands: vec![unique_id()],
            stdin: Vec::new(),
            environment: Vec::new(),
            user: None,
            bundle: Some(bundle),
        }
    }

    /// Adds flags of `cofferdam run`.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// Has another runtime run the same bundle.
    pub(crate) fn by(mut self, program: &'static str) -> Self {
        self.program = program;
        self
    }

    /// Sets an environment variable of `cofferdam` itself.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it as this user and group, without any other.
    pub(crate) fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// What standard input holds.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// The arguments after `cofferdam`.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut all = vec!["run".to_owned()];
        all.extend(self.flags.iter().cloned());
        all.extend(self.operands.iter().cloned());
        all
    }

    /// The command, its streams not yet set.
    pub(crate) fn to_command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.args(self.arguments()).envs(self.environment.iter().cloned());
        if let Some((uid, gid)) = self.user {
            // Without privileges the standard library drops the other groups, too.
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Runs it to its end.
    pub(crate) fn output(self) -> Result<Outcome> {
        self.start()?.finish()
    }

    /// Starts it.
    pub(crate) fn start(self) -> Result<Started> {
        let mut command = self.to_command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting cofferdam")?;
        let mut input = child.stdin.take().context("no standard input")?;
        let bytes = self.stdin.clone();
        // A container that does not read its input ends the pipe early: no error.
        thread::spawn(move || drop(input.write_all(&bytes)));
        let stdout = collect(child.stdout.take().context("no standard output")?);
        let stderr = collect(child.stderr.take().context("no standard error")?);
        Ok(Started { child: Running(child), stdout, stderr, _bundle: self.bundle })
    }
}

type Collected = thread::JoinHandle<Vec<u8>>;
type Shared = std::sync::Arc<std::sync::Mutex<Vec<u8>>>;

/// What was read so far.
fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Vec<u8>> {
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Reads a stream to its end on a thread, visible while it grows.
fn collect(mut stream: impl std::io::Read + Send + 'static) -> (Shared, Collected) {
    let shared = Shared::default();
    let growing = shared.clone();
    let thread = thread::spawn(move || {
        let mut chunk = [0; 65536];
        while let Ok(length @ 1..) = stream.read(&mut chunk) {
            lock(&growing).extend_from_slice(&chunk[..length]);
        }
        lock(&growing).clone()
    });
    (shared, thread)
}

/// A run in progress.
pub(crate) struct Started {
    child: Running,
    stdout: (Shared, Collected),
    stderr: (Shared, Collected),
    _bundle: Option<TempDir>,
}

/// A process that does not outlive the case that started it.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Waits for its end; kills it when that takes longer than `limit`, and then has no status.
    pub(crate) fn end(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() > deadline {
                self.0.kill()?;
                self.0.wait()?;
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has usually ended by itself.
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

impl Started {
    /// The process id of the supervisor.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.0.id()).unwrap_or(i32::MAX))
    }

    /// Waits until standard output holds `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let seen = String::from_utf8_lossy(&lock(&self.stdout.0)).into_owned();
            if seen.contains(text) {
                return Ok(());
            }
            let errors = || String::from_utf8_lossy(&lock(&self.stderr.0)).into_owned();
            if let Some(status) = self.child.0.try_wait()? {
                bail!("ended ({status}) before it said {text:?}: {seen}\n{}", errors());
            }
            ensure!(Instant::now() < deadline, "never said {text:?}: {seen}\n{}", errors());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends `signal` to the supervisor.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).context("sending a signal to cofferdam")
    }

    /// Waits for its end; kills it when it takes too long.
    pub(crate) fn finish(mut self) -> Result<Outcome> {
        let Some(status) = self.child.end(LIMIT)? else {
            let seen = String::from_utf8_lossy(&lock(&self.stdout.0)).into_owned();
            let errors = String::from_utf8_lossy(&lock(&self.stderr.0)).into_owned();
            bail!("still running after {LIMIT:?}\nstdout: {seen}\nstderr: {errors}");
        };
        use std::os::unix::process::ExitStatusExt;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let stdout = self.stdout.1.join().unwrap_or_default();
        let stderr = self.stderr.1.join().unwrap_or_default();
        Ok(Outcome { code, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// It exited with `code`.
    pub(crate) fn exits(self, code: i32) -> Result<Self> {
        ensure!(self.code == code, "exit code {}, not {code}: {self}", self.code);
        Ok(self)
    }

    /// Standard output, without the white space around it, is `text`.
    pub(crate) fn prints(self, text: &str) -> Result<Self> {
        ensure!(self.text().trim() == text, "printed other than {text:?}: {self}");
        Ok(self)
    }

    /// Standard output holds `text`.
    pub(crate) fn has(self, text: &str) -> Result<Self> {
        ensure!(self.text().contains(text), "did not print {text:?}: {self}");
        Ok(self)
    }

    /// Standard error holds `text`.
    pub(crate) fn complains(self, text: &str) -> Result<Self> {
        ensure!(self.stderr.contains(text), "did not complain about {text:?}: {self}");
        Ok(self)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text: String = self.text().chars().take(4000).collect();
        write!(f, "code {}\nstdout: {text}\nstderr: {}", self.code, self.stderr)
    }
}

/// An empty bundle with the configuration that `cofferdam spec` writes.
pub(crate) fn bundle() -> Result<TempDir> {
    let bundle = TempDir::with_prefix("bundle-")?;
    let made = Command::new(COFFERDAM).arg("spec").arg("--bundle").arg(bundle.path()).output()?;
    ensure!(made.status.success(), "cofferdam spec: {}", String::from_utf8_lossy(&made.stderr));
    Ok(bundle)
}

/// An id that no other run has.
pub(crate) fn unique_id() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("case-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The process that a runtime's `state` or an engine's description names, if it names a living one: as the target of a
/// signal, the 0 of what has ended would be every process of the caller's group.
pub(crate) fn process(state: &Value) -> Result<Pid> {
    let pid = state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.filter(|pid| *pid > 0).with_context(|| format!("no process: {state}"))?;
    Ok(Pid::from_raw(pid))
}

/// A copy of the small part of the root file system that a static busybox needs, to be changed freely.
pub(crate) fn busybox_rootfs() -> Result<(TempDir, PathBuf)> {
    let directory = TempDir::with_prefix("rootfs-")?;
    let root = directory.path().to_owned();
    for name in ["bin", "dev", "etc", "proc", "sys", "tmp", "root"] {
        fs::create_dir(root.join(name))?;
    }
    fs::copy(Path::new(ROOTFS).join("bin/busybox"), root.join("bin/busybox"))
        .context("copying busybox")?;
    for applet in ["sh", "cat", "ls", "stat", "id", "echo", "sleep", "sha256sum", "dd", "mkdir"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    Ok((directory, root))
}
