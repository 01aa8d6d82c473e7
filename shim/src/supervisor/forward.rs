//! Connections to ports of the pod.
//!
//! Invariant: the client's connection ends as the guest's does: one that the guest did not make is reset.

use std::io;
use std::net::TcpStream as StdStream;
use std::os::fd::OwnedFd;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixStream};

use super::Shared;
use crate::control::Failure;

impl Shared {
    /// Connects `client` to the port `port` of the pod; the answer comes when it is, or cannot be.
    ///
    /// # Errors
    /// Nobody listens there, or the guest does not answer.
    pub(super) async fn forward(&self, port: u16, client: Option<OwnedFd>) -> Result<(), Failure> {
        let client = client.ok_or_else(|| Failure::other("no descriptor came"))?;
        let client = StdStream::from(client);
        let prepared = client.set_nonblocking(true).and_then(|()| TcpStream::from_std(client));
        let client = prepared.map_err(Failure::other)?;
        match self.pod.forward(port).await {
            Ok(stream) => {
                tokio::task::spawn_local(copy(client, stream));
                Ok(())
            }
            Err(error) => {
                // It fails on a socket that is closed already.
                let _ = rustix::net::sockopt::set_socket_linger(
                    &client,
                    Some(std::time::Duration::ZERO),
                );
                Err(error.into())
            }
        }
    }
}

/// Copies both ways to the end.
async fn copy(mut client: TcpStream, mut stream: UnixStream) {
    let copied: io::Result<_> = copy_bidirectional(&mut client, &mut stream).await;
    if let Err(error) = copied {
        tracing::debug!(%error, "a forwarded connection broke");
    }
}
