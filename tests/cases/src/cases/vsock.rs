//! The socket device between a guest and its host, by the conventions of `cofferdam-vmm boot --vsock`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{ChildStdout, Stdio};

use anyhow::{Context, Result, ensure};

use super::cases;
use crate::monitor::{Boot, KERNEL};
use crate::run::Running;

cases!("vsock":
    the_host_connects_and_half_closes,
    a_thousand_connections_at_once,
    megabytes_go_both_ways,
    a_port_nobody_listens_on_is_refused,
);

/// A machine that is killed with the case.
struct Machine {
    process: Running,
    console: BufReader<ChildStdout>,
    seen: String,
}

impl Machine {
    fn start(action: &str, socket: &Path) -> Result<Self> {
        let socket = socket.display().to_string();
        let mut command = Boot::new(KERNEL, action).flags(&["--vsock", &socket]).into_command();
        let mut process = Running(command.stdout(Stdio::piped()).spawn()?);
        let console = BufReader::new(process.0.stdout.take().context("no console")?);
        Ok(Self { process, console, seen: String::new() })
    }

    /// Waits until the guest's console says `text`.
    fn says(&mut self, text: &str) -> Result<()> {
        while !self.seen.contains(text) {
            let more = self.console.read_line(&mut self.seen)?;
            ensure!(more > 0, "the machine ended before it said {text:?}: {}", self.seen);
        }
        Ok(())
    }

    /// Waits for the guest to end; it must say that all is well.
    fn succeeds(mut self) -> Result<()> {
        self.says("TEST OK")?;
        self.process.0.wait()?;
        Ok(())
    }
}

/// Connects to `port` in the guest.
fn connect(socket: &Path, port: u32) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    writeln!(stream, "CONNECT {port}")?;
    let mut answer = String::new();
    // One byte at a time: what follows the line belongs to the connection.
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        answer.push(char::from(byte[0]));
    }
    ensure!(answer.starts_with("OK "), "answer {answer:?}");
    Ok(stream)
}

fn the_host_connects_and_half_closes() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("vsock");
    let mut machine =
        Machine::start("test.action=vsock-echo test.port=5000 test.count=3", &socket)?;
    machine.says("LISTENING 5000")?;
    for round in 0..3 {
        let mut stream = connect(&socket, 5000)?;
        let text = format!("hello {round}\n");
        stream.write_all(text.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut echoed = String::new();
        BufReader::new(&stream).read_to_string(&mut echoed)?;
        ensure!(echoed == text, "{echoed:?}");
    }
    machine.succeeds()
}

fn a_thousand_connections_at_once() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("vsock");
    let listener = UnixListener::bind(directory.path().join("vsock_6000"))?;
    let machine =
        Machine::start("test.action=vsock-connect test.port=6000 test.count=1000", &socket)?;
    let mut open = Vec::new();
    for _ in 0..1000 {
        open.push(listener.accept().context("accepting")?.0);
    }
    // All are open now; each gets back what it says.
    for stream in &mut open {
        let mut said = Vec::new();
        stream.read_to_end(&mut said)?;
        stream.write_all(&said)?;
        stream.shutdown(Shutdown::Write)?;
    }
    drop(open);
    machine.succeeds()
}

fn megabytes_go_both_ways() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("vsock");
    let listener = UnixListener::bind(directory.path().join("vsock_7000"))?;
    let machine =
        Machine::start("test.action=vsock-bulk test.port=7000 test.bytes=16777216", &socket)?;
    let (stream, _) = listener.accept()?;
    let mut reader = stream.try_clone()?;
    let mut writer = stream;
    // Everything the guest sends goes back to it; it compares checksums.
    let copied = std::io::copy(&mut reader, &mut writer)?;
    writer.shutdown(Shutdown::Write)?;
    ensure!(copied == 16 << 20, "{copied} bytes");
    machine.succeeds()
}

fn a_port_nobody_listens_on_is_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("vsock");
    let mut machine = Machine::start("test.action=vsock-echo test.port=5000", &socket)?;
    machine.says("LISTENING 5000")?;
    // The answer `OK` says that the guest is being asked; its refusal ends the stream.
    let mut refused = connect(&socket, 5001)?;
    let mut text = String::new();
    let ended = refused.read_to_string(&mut text);
    ensure!(ended.is_err() || text.is_empty(), "port 5001 said {text:?}");
    drop(connect(&socket, 5000)?);
    machine.succeeds()
}
