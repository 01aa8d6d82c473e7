//! Port-forwarding: what connects to a port of the loopback interface in the pod's network namespace on the host gets to
//! that port in the guest.
//!
//! A CRI implementation connects there itself (`PortForward` of `runtime.v1`), and nobody of the pod could listen.
//!
//! Invariant: nothing of it is left when it is dropped or the process dies: a socket and a program of the kernel, which
//! both go with their descriptors.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener as StdListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::container::Saved;
use crate::control::ToSupervisor;
use crate::living::connect;
use crate::run::ask;
use crate::sys::lookup::take_loopback;

/// Most connections that wait for the guest at a time; others wait to be accepted.
const MOST: usize = 16;

/// How long no connection is accepted after one that could not be.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(super) struct Forwarding {
    _link: OwnedFd,
    /// Ends with this.
    _listening: JoinSet<()>,
}

impl Forwarding {
    /// Forwards what connects in the network namespace at `network` to the pod of `saved`, whose state directory is below
    /// `root`. Must be called within a `LocalSet`.
    ///
    /// # Errors
    /// The failure of a system call: a kernel without `BPF_PROG_TYPE_SK_LOOKUP`, for example.
    pub(super) fn start(network: &Path, root: &Path, saved: &Saved) -> io::Result<Self> {
        let network = File::open(network)?;
        refuse_ours(&network)?;
        let (v4, v6) = listen_in(&network)?;
        let fds = (v4.as_fd(), v6.as_ref().map(AsFd::as_fd));
        let link = take_loopback(fds, network.as_fd())?;
        let room = Arc::new(Semaphore::new(MOST));
        let mut listening = JoinSet::new();
        for listener in [Some(v4), v6].into_iter().flatten() {
            let listener = TcpListener::from_std(listener)?;
            listening.spawn_local(accept(listener, room.clone(), (root.to_owned(), saved.clone())));
        }
        Ok(Self { _link: link, _listening: listening })
    }
}

/// The loopback interface of the host is not ours to take.
fn refuse_ours(network: &File) -> io::Result<()> {
    let found = network.metadata()?;
    for own in ["/proc/self/ns/net", "/proc/1/ns/net"] {
        let own = std::fs::metadata(own)?;
        if (own.dev(), own.ino()) == (found.dev(), found.ino()) {
            return Err(io::Error::other("it is the host's network namespace"));
        }
    }
    Ok(())
}

/// Sockets that listen in another network namespace, on loopback addresses: by IPv4, and by IPv6 if there is that.
fn listen_in(network: &File) -> io::Result<(StdListener, Option<StdListener>)> {
    let listen = || {
        // Only this thread moves; it ends.
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        let v4 = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let v6 = StdListener::bind((Ipv6Addr::LOCALHOST, 0)).ok();
        for listener in [Some(&v4), v6.as_ref()].into_iter().flatten() {
            listener.set_nonblocking(true)?;
        }
        Ok((v4, v6))
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, listen)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    })
}

async fn accept(listener: TcpListener, room: Arc<Semaphore>, pod: (PathBuf, Saved)) {
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (root, saved) = pod.clone();
                tokio::task::spawn_local(async move {
                    if let Err(error) = forward(stream, &root, &saved).await {
                        tracing::info!(id = saved.id, "forwarding a connection: {error:#}");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection to forward");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Hands a connection over to the pod's supervisor.
async fn forward(stream: TcpStream, root: &Path, saved: &Saved) -> anyhow::Result<()> {
    let port = stream.local_addr()?.port();
    let stream = stream.into_std()?;
    let supervisor = connect(root, saved)?;
    ask(&supervisor, &ToSupervisor::Forward(port), &[stream.as_fd()]).await?;
    Ok(())
}
