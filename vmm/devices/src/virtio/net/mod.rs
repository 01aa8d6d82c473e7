//! The network card (virtio 1.2, 5.1): a tap of the host.
//!
//! ```text
//!  worker    a thread for each queue pair, the control queue
//!  receive   tap to driver             transmit  driver to tap
//!  request   chains (pure)             header    offloads of one packet (pure)
//!  control   the driver's wishes (pure)
//!  backend   the tap                   features  bits, and what they mean to the tap (pure)
//! ```
//!
//! Checksums and segmentation are left to whoever can do them best: the header that says what is missing
//! passes between driver and tap, checked on its way out of the guest.
//!
//! Invariant: the guest sends no frame whose header was not checked field by field; it gets no frame cut
//! short; nothing it writes costs more than its own packets.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, RwLock};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::queue::Ring;
use super::{
    ActivateError, Activation, ActiveQueue, DeviceId, F_EVENT_IDX, F_INDIRECT_DESC, VirtioDevice,
    Worker, mem, thread,
};
use crate::sync;

mod backend;
mod control;
mod features;
mod header;
mod receive;
mod request;
mod transmit;
mod worker;

pub use backend::SetOffloads;
pub use control::{MAC_LEN, Mac};

use backend::Tap;
use control::Control;
use receive::Receiver;
use transmit::Sender;
use worker::{Pair, Shared};

/// Most queue pairs of a card.
pub const MAX_PAIRS: usize = 8;

/// Entries of receive and transmit queues, and of the control queue.
const QUEUE_SIZE: u16 = 256;
const CONTROL_SIZE: u16 = 64;

/// The MTU of Ethernet, where none is given.
const ETHERNET_MTU: u16 = 1500;

/// Bytes of the configuration up to and with the MTU; what follows reads as zero.
const CONFIG_LEN: usize = 12;

/// `VIRTIO_NET_S_LINK_UP`.
const LINK_UP: u16 = 1;

/// How a card is offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetOptions {
    /// The card's address; without one the driver chooses.
    pub mac: Option<Mac>,
    /// The largest packet; without it the driver takes that of Ethernet.
    pub mtu: Option<u16>,
}

/// A card that cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The number of descriptors.
    #[error("a network card with {0} queue pairs; 1 to {MAX_PAIRS} are possible")]
    Pairs(usize),
    /// The tap.
    #[error("telling a tap which offloads are taken")]
    Tap(#[source] io::Error),
}

/// Receive and transmit queue of each pair, and the control queue.
type Sorted = (Vec<(ActiveQueue, ActiveQueue)>, Option<ActiveQueue>);

/// A network card.
pub struct Net {
    tap: Arc<Tap>,
    control: Arc<RwLock<Control>>,
    options: NetOptions,
    queue_sizes: Vec<u16>,
}

impl Net {
    /// A card with a queue pair for each of `taps`, the queues of one tap: Ethernet frames, each after a
    /// `virtio_net_hdr` of 12 bytes, non-blocking.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn new(taps: Vec<OwnedFd>, options: NetOptions) -> Result<Self, NetError> {
        Self::over(taps, mem::set_tap_offloads, options)
    }

    /// A card as [`Net::new`] makes it, over descriptors that are no tap's: each moves one packet with a read or a
    /// write. `set_offloads` is called in place of the ioctl that tells a tap what its reader takes.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn over(
        packets: Vec<OwnedFd>,
        set_offloads: SetOffloads,
        options: NetOptions,
    ) -> Result<Self, NetError> {
        if !(1..=MAX_PAIRS).contains(&packets.len()) {
            return Err(NetError::Pairs(packets.len()));
        }
        let tap = Tap::with(packets, set_offloads).map_err(NetError::Tap)?;
        Ok(Self::with(tap, options))
    }

    fn with(tap: Tap, options: NetOptions) -> Self {
        let mut queue_sizes = vec![QUEUE_SIZE; 2 * tap.len()];
        queue_sizes.push(CONTROL_SIZE);
        let control = Arc::new(RwLock::new(Control::new(options.mac, 1)));
        Self { tap: Arc::new(tap), control, options, queue_sizes }
    }

    /// `struct virtio_net_config`, as far as the features offered make it valid.
    fn config(&self) -> [u8; CONFIG_LEN] {
        let mut config = [0; CONFIG_LEN];
        let mac = sync::read(&self.control).mac;
        config[..MAC_LEN].copy_from_slice(&mac.unwrap_or_default());
        let pairs = u16::try_from(self.tap.len()).unwrap_or(1);
        let mtu = self.options.mtu.unwrap_or_default();
        for (at, word) in [(6, LINK_UP), (8, pairs), (10, mtu)] {
            config[at..at + 2].copy_from_slice(&word.to_le_bytes());
        }
        config
    }

    /// The pairs that the driver has set up, from the first one on, and the control queue.
    fn sort(&self, queues: Vec<ActiveQueue>, features: u64) -> Result<Sorted, ActivateError> {
        let mut queues: Vec<_> = queues.into_iter().map(Some).collect();
        let mut take = |index: usize| {
            let wanted = |queue: &&mut Option<ActiveQueue>| {
                queue.as_ref().is_some_and(|queue| usize::from(queue.index) == index)
            };
            queues.iter_mut().find(wanted).and_then(Option::take)
        };
        // The control queue follows the pairs that the driver knows of (virtio 1.2, 5.1.2).
        let most = if features & features::MQ != 0 { self.tap.len() } else { 1 };
        let mut pairs = Vec::new();
        for index in 0..most {
            match (take(2 * index), take(2 * index + 1)) {
                (Some(receive), Some(transmit)) => pairs.push((receive, transmit)),
                (None, _) if index == 0 => return Err(ActivateError::MissingQueue(0)),
                (_, None) if index == 0 => return Err(ActivateError::MissingQueue(1)),
                _ => break,
            }
        }
        let control = (features & features::CTRL_VQ != 0).then(|| take(2 * most)).flatten();
        Ok((pairs, control))
    }

    /// Makes the threads' common part.
    fn shared(&self, pairs: usize) -> io::Result<Arc<Shared>> {
        let changed = (0..pairs).map(|_| EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK));
        let changed = changed.collect::<io::Result<_>>()?;
        let (tap, control) = (Arc::clone(&self.tap), Arc::clone(&self.control));
        Ok(Arc::new(Shared { tap, control, changed }))
    }
}

impl VirtioDevice for Net {
    fn id(&self) -> DeviceId {
        DeviceId::Net
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn threads(&self) -> usize {
        self.tap.len()
    }

    fn features(&self) -> u64 {
        let offered = |wanted: bool, feature: u64| if wanted { feature } else { 0 };
        self.tap.offloads()
            | features::MRG_RXBUF
            | features::STATUS
            | features::CTRL_VQ
            | features::CTRL_RX
            | features::CTRL_RX_EXTRA
            | features::CTRL_MAC_ADDR
            | offered(self.options.mac.is_some(), features::MAC)
            | offered(self.options.mtu.is_some(), features::MTU)
            | offered(self.tap.len() > 1, features::MQ)
            | F_EVENT_IDX
            | F_INDIRECT_DESC
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        for (byte, value) in data.iter_mut().zip(self.config().iter().skip(offset)) {
            *byte = *value;
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn Worker>, ActivateError> {
        let Activation { ram, features, queues, interrupt, threads } = activation;
        let host = |what| move |source| ActivateError::Host { what, source };
        let (pairs, mut control) = self.sort(queues, features)?;
        self.tap.agree(features).map_err(host("telling the tap which offloads are taken"))?;
        let count = u16::try_from(pairs.len()).unwrap_or(1);
        *sync::write(&self.control) = Control::new(self.options.mac, count);
        let shared = self.shared(pairs.len()).map_err(host("making events of a network card"))?;
        let ring = |queue| Ring::new(queue, ram.clone(), Arc::clone(&interrupt));
        let mtu = self.options.mtu.unwrap_or(ETHERNET_MTU);
        let started = pairs.into_iter().enumerate().map(|(index, (receive, transmit))| {
            let (receive, transmit) = (ring(receive), ring(transmit));
            let control = control.take().map(ring);
            let shared = Arc::clone(&shared);
            let work = move |stop: &thread::Stop| {
                let receiver = Receiver::new(receive, features, mtu);
                let sender = Sender::new(transmit, index, features);
                Pair::serve(index, shared, (receiver, sender), control, stop);
            };
            thread::at(&threads, index)?.run(work)
        });
        thread::all(started).map_err(host("starting a network card's work"))
    }
}

#[cfg(test)]
#[path = "net_test.rs"]
mod net_test;
