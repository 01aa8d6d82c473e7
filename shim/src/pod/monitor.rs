//! The monitor: the process `cofferdam-vmm` and the two sockets to it.
//!
//! Invariant: its process is reaped before [`Monitor::end`] returns; what it writes on standard error is
//! kept up to [`MAX_STDERR`] bytes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cofferdam_vmm_api::{Channel, ChannelError, FromMonitor, ToMonitor, start_monitor};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::socket::Socket;

/// Bytes of the monitor's standard error that are kept.
const MAX_STDERR: usize = 4096;

/// A monitor that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program.
    #[error("starting the monitor {program}")]
    Program {
        /// What was to be executed.
        program: PathBuf,
        /// Why it was not.
        source: io::Error,
    },
    /// A socket.
    #[error("making a socket to the monitor")]
    Socket(#[from] io::Error),
}

/// See the module.
#[derive(Debug)]
pub struct Monitor {
    control: Option<Socket>,
    connections: Option<Socket>,
    process: Option<Process>,
}

/// What comes from a monitor.
#[derive(Debug)]
pub(super) enum Said {
    /// A message, or why there are no more.
    Message(Result<FromMonitor, String>),
    /// The guest dialled this port.
    Connection(u32, OwnedFd),
}

#[derive(Debug)]
struct Process {
    child: Child,
    pidfd: AsyncFd<OwnedFd>,
    stderr: Option<JoinHandle<String>>,
}

impl Monitor {
    /// Starts `program`, which dies with the calling thread. Must be called within a runtime. Gives also the
    /// monitor's end of the connections socket, to be sent along with the machine's other descriptors.
    ///
    /// # Errors
    /// [`SpawnError`].
    pub fn spawn(program: &Path) -> Result<(Self, OwnedFd), SpawnError> {
        let (control, theirs) = Channel::pair()?;
        let failed = |source| SpawnError::Program { program: program.to_owned(), source };
        let mut command = Command::new(program);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = start_monitor(command, theirs.into_inner()).map_err(failed)?;
        let stderr = child.stderr.take().map(|pipe| tokio::spawn(last_words(pipe.into())));
        let pidfd = match pidfd(&child) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(error));
            }
        };
        let (mut monitor, connections) = Self::over(control)?;
        monitor.process = Some(Process { child, pidfd, stderr });
        Ok((monitor, connections))
    }

    /// A monitor at the other end of `control`, without a process of ours.
    pub(super) fn over(control: Channel) -> io::Result<(Self, OwnedFd)> {
        let (connections, theirs) = Channel::pair()?;
        let monitor = Self {
            control: Some(Socket::new(control)?),
            connections: Some(Socket::new(connections)?),
            process: None,
        };
        Ok((monitor, theirs.into_inner()))
    }

    /// Its process id, if it has a process of its own.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    /// Has it give up its rights, but for `kvm`; as the user `uid`, if we may give it another than ours.
    pub fn confine(&self, uid: Option<u32>, kvm: OwnedFd) {
        // If it is gone already, the next message finds out, and why.
        let _ = self.send(&ToMonitor::Confine { uid }, &[kvm]);
    }

    pub(super) fn send(&self, message: &ToMonitor, fds: &[OwnedFd]) -> Result<(), String> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let control = self.control.as_ref().ok_or("it is closed")?;
        control.channel().send(message, &fds).map_err(|error| error.to_string())
    }

    /// What comes next from it. May be cancelled.
    pub(super) async fn next(&mut self) -> Said {
        tokio::select! {
            message = message(self.control.as_ref()) => Said::Message(message),
            (port, stream) = connection(&mut self.connections) => Said::Connection(port, stream),
        }
    }

    /// The next message. May be cancelled.
    pub(super) async fn receive(&self) -> Result<FromMonitor, String> {
        message(self.control.as_ref()).await
    }

    /// Tells it to stop; it may be gone already.
    pub(super) fn stop(&self) {
        let _ = self.send(&ToMonitor::Stop, &[]);
    }

    /// If its process ends within a moment: how, and its last words.
    pub(super) async fn obituary(&mut self) -> Option<String> {
        let process = self.process.as_mut()?;
        let ended = tokio::time::timeout(Duration::from_secs(1), process.pidfd.readable()).await;
        let _ = ended.ok()?.ok()?;
        let status = process.child.wait().ok()?;
        let words = match process.stderr.take() {
            Some(words) => tokio::time::timeout(Duration::from_secs(1), words).await.ok()?.ok()?,
            None => String::new(),
        };
        Some(if words.is_empty() { status.to_string() } else { format!("{status}: {words}") })
    }

    /// Closes its sockets, waits up to `patience` for its end, then kills it; reaps it.
    pub(super) async fn end(&mut self, patience: Duration) {
        if self.process.is_none() {
            self.control = None;
            return;
        }
        let gone = tokio::time::timeout(patience, async {
            // It was told to stop. A closed socket tells it once more.
            self.control = None;
            if let Some(process) = &self.process {
                let _ = process.pidfd.readable().await;
            }
        });
        let gone = gone.await.is_ok();
        if let Some(mut process) = self.process.take() {
            if !gone {
                let _ = pidfd_send_signal(process.pidfd.get_ref(), Signal::KILL);
            }
            let _ = process.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only reached with a living process when the actor was dropped in the middle.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn pidfd(child: &Child) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = Pid::from_child(child);
    crate::sys::watch(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

async fn message(control: Option<&Socket>) -> Result<FromMonitor, String> {
    let Some(control) = control else { return std::future::pending().await };
    let receive = |channel: &Channel| channel.receive::<FromMonitor>();
    control.ready(receive).await.map(|message| message.body).map_err(|e| e.to_string())
}

/// Port and stream of the next connection. Malformed ones are dropped; when there can be no more, waits for
/// ever: the control socket tells why.
async fn connection(connections: &mut Option<Socket>) -> (u32, OwnedFd) {
    while let Some(socket) = connections {
        let mut port = [0; 4];
        match socket.ready(|channel: &Channel| channel.receive_bytes(&mut port)).await {
            Ok((4, mut fds)) if fds.len() == 1 => {
                if let Some(fd) = fds.pop() {
                    return (u32::from_le_bytes(port), fd);
                }
            }
            Ok(_) | Err(ChannelError::TooLong) => {
                tracing::warn!("a malformed connection of the guest");
            }
            Err(_) => *connections = None,
        }
    }
    std::future::pending().await
}

/// Reads to the end; gives the last [`MAX_STDERR`] bytes.
async fn last_words(pipe: OwnedFd) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    if let Ok(mut pipe) = pipe::Receiver::from_owned_fd(pipe) {
        while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
            kept.extend_from_slice(&buffer[..count]);
            let excess = kept.len().saturating_sub(MAX_STDERR);
            kept.drain(..excess);
        }
    }
    crate::tail::printable(&kept)
}
