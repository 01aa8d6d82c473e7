//! The socket device (virtio 1.2, 5.10): streams between the guest and Unix sockets of the host.
//!
//! The host's side of each stream is handed over on one `SOCK_SEQPACKET` socket, either way; see
//! [`Vsock::new`]. Layers, from the guest to the host:
//!
//! ```text
//!  worker      queues, doorbells, interrupts, one thread
//!  chain       a chain's memory          packet      the header
//!  muxer       all connections           table       their bookkeeping (pure)
//!  connection  one connection (pure)     stream      its Unix socket
//!                                        backend     the socket of connections
//! ```
//!
//! Invariant: nothing that the guest writes makes the device panic, hold more than a fixed amount of
//! memory and descriptors, or loop without looking at the order to stop.

mod backend;
mod chain;
mod connection;
mod muxer;
mod packet;
mod stream;
mod table;
mod worker;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use virtio_queue::QueueT;

use self::backend::Backend;
use self::worker::Pump;
use crate::count::{Counter, Counters};
use crate::virtio::{
    ActivateError, Activation, ActiveQueue, DeviceId, F_EVENT_IDX, VirtioDevice, Worker,
};

/// Receive, transmit and event queue (virtio 1.2, 5.10.2).
const QUEUE_SIZES: [u16; 3] = [256, 256, 16];

/// `VIRTIO_VSOCK_F_STREAM` (virtio 1.2, 5.10.3).
const F_STREAM: u64 = 1 << 0;

/// What it counts. Bytes are those of the packets' data.
#[derive(Debug, Default)]
struct Counts {
    /// Connections that either side asked for.
    connections: Counter,
    packets_from_guest: Counter,
    bytes_from_guest: Counter,
    packets_to_guest: Counter,
    bytes_to_guest: Counter,
}

impl Counters for Counts {
    fn read(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("connections", self.connections.get()),
            ("packets_from_guest", self.packets_from_guest.get()),
            ("bytes_from_guest", self.bytes_from_guest.get()),
            ("packets_to_guest", self.packets_to_guest.get()),
            ("bytes_to_guest", self.bytes_to_guest.get()),
        ]
    }
}

/// The socket device.
#[derive(Debug)]
pub struct Vsock {
    cid: u64,
    backend: Backend,
    counts: Arc<Counts>,
}

impl Vsock {
    /// A device for a guest whose context id is `cid`.
    ///
    /// `connections` is a connected `SOCK_SEQPACKET` Unix socket. Each message on it is one connection:
    /// a port (`u32`, little-endian) with the descriptor of a connected stream socket attached. The
    /// device sends one when the guest connects to that port of the host (the socket is non-blocking);
    /// the host sends one to be connected with that port of the guest, and finds the socket closed if
    /// the guest refuses or does not answer. A stream's end of file is its half-close, both ways. All
    /// streams close when the device is reset; `connections` stays for the next activation.
    ///
    /// The process must ignore `SIGPIPE`, as Rust programs do.
    #[must_use]
    pub fn new(cid: u64, connections: OwnedFd) -> Self {
        Self { cid, backend: Backend::new(connections), counts: Arc::default() }
    }
}

impl VirtioDevice for Vsock {
    fn id(&self) -> DeviceId {
        DeviceId::Vsock
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        F_STREAM | F_EVENT_IDX
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let config = self.cid.to_le_bytes();
        for (byte, value) in data.iter_mut().zip(config.iter().skip(offset)) {
            *byte = *value;
        }
    }

    fn counters(&self) -> Arc<dyn Counters> {
        Arc::clone(&self.counts) as _
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn Worker>, ActivateError> {
        let Activation { ram, features, queues, interrupt, thread } = activation;
        let (mut rx, mut tx) = (None, None);
        for mut active in queues {
            active.queue.set_event_idx(features & F_EVENT_IDX != 0);
            match active.index {
                0 => rx = Some(active),
                1 => tx = Some(active),
                // The device has no events to tell yet: they belong to migration (virtio 1.2, 5.10.6.7).
                _ => {}
            }
        }
        let queues = (required(rx, 0)?, required(tx, 1)?);
        let host = (self.backend.clone(), Arc::clone(&self.counts));
        Pump::new(self.cid, host, ram, queues, interrupt)
            .and_then(|pump| thread.run(move |stop| pump.run(stop)))
            .map_err(|source| ActivateError::Host { what: "starting the vsock device", source })
    }
}

fn required(queue: Option<ActiveQueue>, index: u16) -> Result<ActiveQueue, ActivateError> {
    queue.ok_or(ActivateError::MissingQueue(index))
}

#[cfg(test)]
mod tests;
