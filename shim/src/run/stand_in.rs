//! What stands on the host for a process in the guest, and the streams that it gets.
//!
//! Invariant: exactly one process stands for one in the guest: we ourselves, or a proxy that outlives us if the process
//! was made. containerd's shim stands for all of its pod.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::sync::mpsc;

use cofferdam_vmm_api::Channel;

use super::RunError;
use crate::oci::HostNetwork;
use crate::pod::Pump;
use crate::proxy::{self, Network};
use crate::pty::Pty;
use crate::socket::Socket;
use crate::terminal;

/// The terminal of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// Rows; 0 leaves the size unset.
    pub(crate) rows: u32,
    /// Columns, likewise.
    pub(crate) columns: u32,
}

impl Terminal {
    /// That of `plan`, which is fitted to our own terminal unless the process is `detached` from us.
    pub(crate) fn of(plan: &mut cofferdam_agent_protocol::Terminal, detached: bool) -> Self {
        if let Some((rows, columns)) = terminal::size().filter(|_| !detached) {
            (plan.rows, plan.columns) = (rows.into(), columns.into());
        }
        plan.plain_newlines = !detached;
        Self { rows: plan.rows, columns: plan.columns }
    }
}

/// A number for one of several containers that the same process stands for: that of a thread of it, which waits until this
/// value goes. By the path `/proc/NUMBER/ns/KIND`, others name the one container whose namespace they mean.
#[derive(Debug)]
pub(crate) struct Number {
    pid: u32,
    _ends: mpsc::Sender<()>,
}

/// The stack of a thread that does nothing: the least that there is.
const STACK: usize = 16 << 10;

impl Number {
    fn new() -> io::Result<Self> {
        let (ends, end) = mpsc::channel::<()>();
        let (tell, told) = mpsc::sync_channel(1);
        let wait = move || {
            let _ = tell.send(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs());
            let _ = end.recv();
        };
        std::thread::Builder::new().name("container".to_owned()).stack_size(STACK).spawn(wait)?;
        let pid = told.recv().map_err(io::Error::other)?;
        Ok(Self { pid, _ends: ends })
    }

    /// The number.
    pub(crate) fn get(&self) -> u32 {
        self.pid
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct StandIn {
    /// The process.
    pub(crate) pid: u32,
    /// That this number is one of several of ours.
    pub(crate) number: Option<Number>,
    /// Our end of the socket, if we stand for it.
    pub(crate) ours: Option<Socket>,
    /// The proxy, which ends with this value.
    proxy: Option<Child>,
    theirs: Channel,
    streams: [OwnedFd; 3],
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(mut proxy) = self.proxy.take() {
            // It may have ended by itself.
            let _ = proxy.kill();
            let _ = proxy.wait();
        }
    }
}

impl StandIn {
    /// Ourselves, with our own streams. Must be called within a runtime.
    ///
    /// # Errors
    /// The failure of a system call.
    pub(crate) fn ours() -> Result<Self, RunError> {
        let made = || {
            let (ours, theirs) = Channel::pair()?;
            let (ours, mut streams) = (Some(Socket::new(ours)?), standard_streams()?);
            if io::stdin().is_terminal() {
                // Read by us, who are stopped in the background: the supervisor would take what others type.
                let (reader, writer) = io::pipe()?;
                let [stdin, ..] = &mut streams;
                let terminal = std::mem::replace(stdin, reader.into());
                Pump::start("stdin", terminal, writer.into())?;
            }
            Ok(Self { pid: std::process::id(), number: None, ours, proxy: None, theirs, streams })
        };
        made().map_err(|error| RunError::Host("standard streams", error))
    }

    /// Ourselves, who supervise the pod, too, with these streams. Must be called within a runtime.
    ///
    /// # Errors
    /// The failure of a system call.
    pub(crate) fn within(streams: &[OwnedFd; 3]) -> Result<Self, RunError> {
        let made = || {
            let (ours, theirs) = Channel::pair()?;
            let [stdin, stdout, stderr] = streams;
            let streams = [stdin.try_clone()?, stdout.try_clone()?, stderr.try_clone()?];
            let ours = Some(Socket::new(ours)?);
            Ok(Self { pid: std::process::id(), number: None, ours, proxy: None, theirs, streams })
        };
        made().map_err(|error| RunError::Host("standard streams", error))
    }

    /// The same with a number of its own.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn numbered(mut self) -> Result<Self, RunError> {
        let number = Number::new().map_err(|error| RunError::Host("starting a thread", error))?;
        self.pid = number.get();
        self.number = Some(number);
        Ok(self)
    }

    /// A proxy in the network namespace `network`, with our own streams, or with a `terminal` whose other side goes to
    /// whoever listens at `console`.
    ///
    /// # Errors
    /// The failure of a system call, or a terminal that nobody takes.
    pub(crate) fn proxy(
        command_line: &[Vec<u8>],
        terminal: Option<Terminal>,
        console: Option<&Path>,
        network: &HostNetwork,
    ) -> Result<Self, RunError> {
        let network = enter(network)?;
        let failed = |error| RunError::Host("starting the proxy of the container", error);
        let streams = match terminal {
            None => standard_streams().map_err(failed)?,
            Some(terminal) => open(terminal, console)?,
        };
        let controlling = terminal.map(|_| streams[0].try_clone()).transpose().map_err(failed)?;
        let (child, theirs) = proxy::start(command_line, controlling, network).map_err(failed)?;
        Ok(Self { pid: child.id(), number: None, ours: None, proxy: Some(child), theirs, streams })
    }

    /// The process is made, and its proxy goes on without us.
    pub(crate) fn leave(&mut self) {
        self.proxy = None;
    }

    /// What a supervisor needs of it, in the order of its messages.
    pub(crate) fn fds(&self) -> [BorrowedFd<'_>; 4] {
        let [stdin, stdout, stderr] = &self.streams;
        [self.theirs.as_fd(), stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]
    }
}

fn enter(network: &HostNetwork) -> Result<Network, RunError> {
    match network {
        HostNetwork::Host => Ok(Network::Same),
        HostNetwork::New => Ok(Network::New),
        HostNetwork::At(path) => {
            let opened = std::fs::File::open(path);
            let what = "network namespace";
            let failed = |source| RunError::Open { what, path: path.clone(), source };
            Ok(Network::Existing(opened.map_err(failed)?.into()))
        }
    }
}

fn open(terminal: Terminal, console: Option<&Path>) -> Result<[OwnedFd; 3], RunError> {
    let missing = || {
        io::Error::other("cannot allocate tty if runc will detach without setting console socket")
    };
    let console = console.ok_or_else(|| RunError::Host("terminal", missing()))?;
    let made = || {
        let pty = Pty::open(terminal.rows, terminal.columns)?;
        let slave = pty.slave.try_clone()?;
        let streams = [pty.slave.try_clone()?, slave, pty.slave.try_clone()?];
        pty.send(console)?;
        Ok(streams)
    };
    let what = "console socket";
    made().map_err(|source| RunError::Open { what, path: console.to_owned(), source })
}

fn standard_streams() -> io::Result<[OwnedFd; 3]> {
    Ok([
        io::stdin().as_fd().try_clone_to_owned()?,
        io::stdout().as_fd().try_clone_to_owned()?,
        io::stderr().as_fd().try_clone_to_owned()?,
    ])
}

#[cfg(test)]
#[path = "stand_in_test.rs"]
mod stand_in_test;
