//! A client of containerd's CRI service: gRPC over its socket.
//!
//! Invariant: a call has a connection of its own, so that none is broken by a restart of containerd, and a limit of time.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::RecvStream;
use http::HeaderMap;
use prost::Message;
use tokio::net::UnixStream;

use super::messages::Nothing;
use super::more_messages::ContainerEvent;
use crate::call::LIMIT;

const SOCKET: &str = "/run/containerd/containerd.sock";

/// Before each message: whether it is compressed, and its length.
const HEADER: usize = 5;

/// What the service refuses, as it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// `google.rpc.Code`.
    pub(super) code: u32,
    pub(super) message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "code {}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refused {}

/// Asks for `method`, and waits for the answer.
///
/// # Errors
/// [`Refused`], or the service cannot be asked.
pub(super) fn call<A: Message + Default>(method: &str, question: &impl Message) -> Result<A> {
    let asked = async {
        let mut answers = begin(method, question).await?;
        let answer = next(&mut answers, &mut BytesMut::new()).await?;
        let answer = answer.with_context(|| format!("{method}: no answer"))?;
        A::decode(answer).with_context(|| format!("{method}: the answer"))
    };
    runtime()?.block_on(async {
        let within = tokio::time::timeout(LIMIT, asked).await;
        within.with_context(|| format!("{method}: no answer within {LIMIT:?}"))?
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")
}

/// An answer that is read as it comes.
struct Answers {
    head: HeaderMap,
    body: RecvStream,
}

async fn begin(method: &str, question: &impl Message) -> Result<Answers> {
    let socket = UnixStream::connect(SOCKET).await.context(SOCKET)?;
    let (client, connection) = h2::client::handshake(socket).await?;
    // It ends with the last stream, or with the runtime.
    tokio::spawn(connection);
    let mut client = client.ready().await?;
    let request = http::Request::post(format!("http://cri/runtime.v1.RuntimeService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut body) = client.send_request(request, false)?;
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(question.encoded_len())?);
    question.encode(&mut frame)?;
    body.send_data(frame.freeze(), true)?;
    let response = response.await.with_context(|| method.to_owned())?;
    ensure!(response.status() == 200, "{method}: {response:?}");
    Ok(Answers { head: response.headers().clone(), body: response.into_body() })
}

/// The next message, or the end.
async fn next(answers: &mut Answers, buffer: &mut BytesMut) -> Result<Option<Bytes>> {
    loop {
        if let Some(message) = cut(buffer)? {
            return Ok(Some(message));
        }
        let Some(chunk) = answers.body.data().await else { break };
        let chunk = chunk.context("reading an answer")?;
        answers.body.flow_control().release_capacity(chunk.len())?;
        buffer.extend_from_slice(&chunk);
    }
    let trailers = answers.body.trailers().await.context("reading the end of an answer")?;
    // One that is nothing but a refusal has it at its beginning.
    let told = trailers.as_ref().filter(|told| told.contains_key("grpc-status"));
    let told = told.unwrap_or(&answers.head);
    let text = |name: &str| told.get(name).and_then(|value| value.to_str().ok());
    let code: u32 = text("grpc-status").context("an answer without a status")?.parse()?;
    if code != 0 {
        let message = decoded(text("grpc-message").unwrap_or_default());
        bail!(Refused { code, message });
    }
    Ok(None)
}

fn cut(buffer: &mut BytesMut) -> Result<Option<Bytes>> {
    let Some(mut header) = buffer.get(..HEADER) else { return Ok(None) };
    ensure!(header.get_u8() == 0, "a compressed answer");
    let length = usize::try_from(header.get_u32())?;
    if buffer.len() < HEADER + length {
        return Ok(None);
    }
    let mut message = buffer.split_to(HEADER + length);
    message.advance(HEADER);
    Ok(Some(message.freeze()))
}

/// Text whose bytes may be written as `%xx`.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => bytes.extend_from_slice(part.as_bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What the service tells of containers, from its creation on.
pub(super) struct Events {
    seen: Arc<Mutex<Vec<ContainerEvent>>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Events {
    /// Listens.
    pub(super) fn listen() -> Result<Self> {
        let seen = Arc::<Mutex<Vec<ContainerEvent>>>::default();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let told = seen.clone();
        let runtime = runtime()?;
        let listening = async move {
            // Its head comes with the first event only.
            let mut answers = begin("GetContainerEvents", &Nothing {}).await?;
            let mut buffer = BytesMut::new();
            while let Some(event) = next(&mut answers, &mut buffer).await? {
                let event = ContainerEvent::decode(event)?;
                told.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            }
            Ok::<_, anyhow::Error>(())
        };
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    ended = listening => if let Err(error) = ended {
                        eprintln!("events of containers: {error:#}");
                    },
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { seen, stop: Some(stop) })
    }

    /// Those of the container or pod `id`.
    pub(super) fn of(&self, id: &str) -> Vec<ContainerEvent> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|event| event.container_id == id).cloned().collect()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}
