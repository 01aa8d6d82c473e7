//! What is streamed: a websocket to containerd with several channels (kubernetes,
//! `apimachinery/pkg/util/remotecommand`, `v4.channel.k8s.io`).
//!
//! Invariant: nothing is waited for without a limit of time.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, Message, WebSocket};

use crate::call::LIMIT;

const PROTOCOL: &str = "v4.channel.k8s.io";

/// The channels.
const STDIN: u8 = 0;
pub(super) const STDOUT: usize = 1;
pub(super) const STDERR: usize = 2;
const STATUS: usize = 3;
const SIZE: u8 = 4;

/// Time between two looks whether time is up.
const LOOK: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct Stream {
    socket: WebSocket<TcpStream>,
    seen: [Vec<u8>; 5],
    over: bool,
}

impl Stream {
    /// The stream at `url`, as the service has told it.
    pub(super) fn open(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("http://").with_context(|| format!("the address {url}"))?;
        let host = rest.split('/').next().unwrap_or_default();
        let connection =
            TcpStream::connect(host).with_context(|| format!("connecting to {url}"))?;
        let mut request = format!("ws://{rest}").into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", PROTOCOL.parse()?);
        let opened = tungstenite::client(request, connection);
        let (socket, _) = opened.map_err(|error| anyhow::anyhow!("opening {url}: {error}"))?;
        socket.get_ref().set_read_timeout(Some(LOOK))?;
        Ok(Self { socket, seen: Default::default(), over: false })
    }

    /// Writes to its standard input.
    pub(super) fn types(&mut self, text: &str) -> Result<()> {
        self.send(STDIN, text.as_bytes())
    }

    /// Tells the size of its terminal.
    pub(super) fn resize(&mut self, rows: u16, columns: u16) -> Result<()> {
        self.send(SIZE, json!({ "Width": columns, "Height": rows }).to_string().as_bytes())
    }

    fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<()> {
        let message = [&[channel], bytes].concat();
        self.socket.send(Message::binary(message)).context("writing to a stream")
    }

    /// What a channel has brought.
    pub(super) fn text(&self, channel: usize) -> String {
        String::from_utf8_lossy(&self.seen[channel]).into_owned()
    }

    /// Waits until a channel has brought `text`.
    pub(super) fn wait_for(&mut self, channel: usize, text: &str) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !self.text(channel).contains(text) {
            ensure!(!self.over, "over before {text:?} came: {}", self.all());
            ensure!(Instant::now() < deadline, "{text:?} never came: {}", self.all());
            self.read()?;
        }
        Ok(())
    }

    /// Waits for its end: the exit code of the process.
    pub(super) fn finish(&mut self) -> Result<i64> {
        let deadline = Instant::now() + LIMIT;
        while !self.over {
            ensure!(Instant::now() < deadline, "it does not end: {}", self.all());
            self.read()?;
        }
        let status: Value = serde_json::from_slice(&self.seen[STATUS])
            .with_context(|| format!("the status: {}", self.all()))?;
        if status["status"] == "Success" {
            return Ok(0);
        }
        let code = status.pointer("/details/causes/0/message").and_then(Value::as_str);
        code.and_then(|code| code.parse().ok()).with_context(|| format!("{status}"))
    }

    fn all(&self) -> String {
        self.seen.iter().map(|seen| format!("{:?} ", String::from_utf8_lossy(seen))).collect()
    }

    /// Reads a message, if one comes soon.
    fn read(&mut self) -> Result<()> {
        match self.socket.read() {
            Ok(Message::Binary(message)) => {
                let Some((channel, bytes)) = message.split_first() else { return Ok(()) };
                let seen = self.seen.get_mut(usize::from(*channel));
                seen.with_context(|| format!("channel {channel}"))?.extend_from_slice(bytes);
            }
            Ok(Message::Close(_))
            | Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => {
                self.over = true;
            }
            Ok(_) => {}
            Err(Error::Io(error)) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => self.over = true,
                _ => bail!(error),
            },
            Err(error) => bail!(error),
        }
        Ok(())
    }
}
