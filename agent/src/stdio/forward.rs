//! Connections of the host to ports of the pod.
//!
//! Invariant: the host gets the stream that it asked for, whatever becomes of the port; one that ends at once says that
//! nobody listens.

use std::io;

use cofferdam_agent_protocol::{StreamToken, request};

use super::dial::{Dialer, local};
use super::relay;
use crate::error::{Failure, Result};

/// What the stream begins with, if the port is connected.
const CONNECTED: u8 = 1;

/// Starts to connect a stream to a port.
///
/// # Errors
/// There is no such port.
pub(crate) fn forward(dialer: &Dialer, wanted: &request::Forward) -> Result<()> {
    let port = u16::try_from(wanted.port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| Failure::unsupported(format!("port {}", wanted.port)))?;
    let (dialer, token) = (dialer.clone(), wanted.stream);
    tokio::spawn(async move {
        if let Err(error) = serve(&dialer, token, port).await {
            crate::log!("forwarding a connection to port {port}: {error}");
        }
    });
    Ok(())
}

async fn serve(dialer: &Dialer, token: StreamToken, port: u16) -> io::Result<()> {
    let host = dialer.stream(token).await?;
    let port = local(port).await?;
    host.write_all(&[CONNECTED]).await?;
    relay::both(host, port).await
}
