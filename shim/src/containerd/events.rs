//! Events for containerd, in the order in which they happened.
//!
//! Invariant: what is slow to take them holds up nothing here; events wait, and are given up after some tries.

use std::time::{Duration, SystemTime};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::ttrpc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Tries for each event; between two, as many seconds pass as there were tries.
const TRIES: u32 = 5;

/// How long containerd may take for one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Events that wait; more are dropped.
const MOST: usize = 2048;

/// The way to containerd.
#[derive(Debug)]
pub(super) struct Events {
    queue: mpsc::Sender<Envelope>,
    namespace: String,
    forwarder: JoinHandle<()>,
}

impl Events {
    /// Forwards to the socket at `address`; nowhere, if that is empty. Must be called within a runtime.
    pub(super) fn to(address: &str, namespace: &str) -> Self {
        let (queue, events) = mpsc::channel(MOST);
        let address = match address.strip_prefix("unix://") {
            Some(_) => address.to_owned(),
            None => format!("unix://{address}"),
        };
        let forwarder = tokio::spawn(forward(events, address));
        Self { queue, namespace: namespace.to_owned(), forwarder }
    }

    /// Tells of an event.
    pub(super) fn tell<M: Message>(&self, topic: &str, event: &M) {
        let Ok(value) = event.write_to_bytes() else { return };
        let type_url = format!("containerd.events.{}", M::NAME);
        let event = Any { type_url, value, ..Default::default() };
        let envelope = Envelope {
            timestamp: MessageField::some(SystemTime::now().into()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: MessageField::some(event),
            ..Default::default()
        };
        if self.queue.try_send(envelope).is_err() {
            tracing::warn!(topic, "an event is dropped: too many wait for containerd");
        }
    }

    /// Waits until all are told, or for as long as `limit`.
    pub(super) async fn finish(self, limit: Duration) {
        drop(self.queue);
        let _ = tokio::time::timeout(limit, self.forwarder).await;
    }
}

async fn forward(mut events: mpsc::Receiver<Envelope>, address: String) {
    let mut client = None;
    while let Some(envelope) = events.recv().await {
        let topic = envelope.topic.clone();
        let request =
            ForwardRequest { envelope: MessageField::some(envelope), ..Default::default() };
        for attempt in 1..=TRIES {
            match send(&mut client, &address, &request).await {
                Ok(()) => break,
                Err(error) if attempt == TRIES => {
                    tracing::warn!(topic, "containerd was not told of an event: {error}");
                }
                Err(_) => {
                    // It may have been restarted.
                    client = None;
                    tokio::time::sleep(Duration::from_secs(attempt.into())).await;
                }
            }
        }
    }
}

async fn send(
    client: &mut Option<EventsClient>,
    address: &str,
    request: &ForwardRequest,
) -> ttrpc::Result<()> {
    let connected = match client.take() {
        Some(connected) => connected,
        None => EventsClient::new(Client::connect(address).await?),
    };
    let limit = i64::try_from(PATIENCE.as_nanos()).unwrap_or(i64::MAX);
    connected.forward(ttrpc::context::with_timeout(limit), request).await?;
    *client = Some(connected);
    Ok(())
}
