//! Standard streams as containerd names them: pipes in the file system, `file://` and `binary://`.
//!
//! Invariant: nothing here waits for the other end of a pipe; only a logger is waited for, until it is ready.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// How long a logger may take to be ready.
const LOGGER_PATIENCE: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stdio {
    pub(super) stdin: String,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) terminal: bool,
}

/// A stream that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("opening the {stream} {uri:?}")]
pub(super) struct StdioError {
    stream: &'static str,
    uri: String,
    source: io::Error,
}

/// Open streams.
#[derive(Debug)]
pub(super) struct Opened {
    /// Standard input, output and error.
    pub(super) streams: [OwnedFd; 3],
    /// Keeps standard input from its end, until somebody says that it is there.
    pub(super) open: Option<OwnedFd>,
}

/// Whose streams they are: containerd's namespace and the container.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub(super) namespace: &'a str,
    pub(super) container: &'a str,
}

impl Stdio {
    /// Opens them.
    ///
    /// # Errors
    /// [`StdioError`].
    pub(super) async fn open(&self, owner: Owner<'_>) -> Result<Opened, StdioError> {
        let failed = |stream, uri: &str| {
            let uri = uri.to_owned();
            move |source| StdioError { stream, uri, source }
        };
        let (stdin, open) = input(&self.stdin).map_err(failed("standard input", &self.stdin))?;
        let logged = self.stdout.strip_prefix("binary://");
        if let Some(logger) = logged {
            let started = log_to(&Logger::of(logger), owner).await;
            let [stdout, stderr] = started.map_err(failed("logger", &self.stdout))?;
            return Ok(Opened { streams: [stdin, stdout, stderr], open });
        }
        let stdout = output(&self.stdout).map_err(failed("standard output", &self.stdout))?;
        let stderr = output(&self.stderr).map_err(failed("standard error", &self.stderr))?;
        Ok(Opened { streams: [stdin, stdout, stderr], open })
    }
}

/// Standard input, and what keeps it open.
fn input(path: &str) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
    if path.is_empty() {
        return Ok((File::open("/dev/null")?.into(), None));
    }
    let path = path.strip_prefix("fifo://").unwrap_or(path);
    // Without a writer, yet: that is no end.
    let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !reader.metadata()?.file_type().is_fifo() {
        return Ok((reader.into(), None));
    }
    let writer = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    Ok((reader.into(), Some(writer.into())))
}

fn output(uri: &str) -> io::Result<OwnedFd> {
    if uri.is_empty() {
        return Ok(File::options().write(true).open("/dev/null")?.into());
    }
    if let Some(path) = uri.strip_prefix("file://") {
        let path = decoded(path.split('?').next().unwrap_or_default());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut options = File::options();
        return Ok(options.append(true).create(true).mode(0o644).open(path)?.into());
    }
    let path = uri.strip_prefix("fifo://").unwrap_or(uri);
    if path.contains("://") {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "only fifo, file and binary are known",
        ));
    }
    // With a reading end of our own, nobody's absence breaks the pipe: containerd may be restarted.
    let is_fifo = std::fs::metadata(path)?.file_type().is_fifo();
    let mut options = File::options();
    options.read(is_fifo).write(is_fifo).append(!is_fifo);
    Ok(options.open(path)?.into())
}

/// A program that takes what a container writes.
#[derive(Debug, PartialEq, Eq)]
struct Logger {
    program: PathBuf,
    arguments: Vec<String>,
}

impl Logger {
    /// That of `/path/of/program?name=value&...`: each name and each value is an argument.
    fn of(text: &str) -> Self {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let mut arguments = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let text = |part: &str| decoded(&part.replace('+', " ")).to_string_lossy().into_owned();
            arguments.push(text(name));
            if !value.is_empty() {
                arguments.push(text(value));
            }
        }
        Self { program: decoded(path), arguments }
    }
}

/// A path whose bytes may be written as `%xx`.
fn decoded(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let digits = more.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let (b'%', Some(byte)) = (first, byte) {
            bytes.push(byte);
            rest = &more[2..];
        } else {
            bytes.push(*first);
            rest = more;
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// Starts a logger (containerd, `core/runtime/v2/logging`): it reads descriptors 3 and 4, and closes 5 when it is ready.
/// Gives what is to be written to.
async fn log_to(logger: &Logger, owner: Owner<'_>) -> io::Result<[OwnedFd; 2]> {
    let (stdout, to_stdout) = io::pipe()?;
    let (stderr, to_stderr) = io::pipe()?;
    let (ready, is_ready) = io::pipe()?;
    let mut command = Command::new(&logger.program);
    command.args(&logger.arguments);
    command.env("CONTAINER_ID", owner.container).env("CONTAINER_NAMESPACE", owner.namespace);
    let fds = [OwnedFd::from(stdout), stderr.into(), is_ready.into()];
    crate::sys::pass_descriptors(&mut command, fds)?;
    let mut child = command.spawn()?;
    // The descriptors that it has are closed here.
    drop(command);
    let reap = move || drop(child.wait());
    std::thread::Builder::new().name("logger".to_owned()).spawn(reap)?;
    wait_for(ready).await?;
    Ok([to_stdout.into(), to_stderr.into()])
}

async fn wait_for(mut ready: io::PipeReader) -> io::Result<()> {
    let read = tokio::task::spawn_blocking(move || ready.read(&mut [0]));
    match tokio::time::timeout(LOGGER_PATIENCE, read).await {
        Ok(Ok(read)) => read.map(drop),
        _ => Err(io::Error::new(io::ErrorKind::TimedOut, "it did not become ready")),
    }
}

#[cfg(test)]
#[path = "stdio_test.rs"]
mod stdio_test;
