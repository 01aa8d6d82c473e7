//! Starting and stopping a device.
//!
//! Invariant: doorbells are connected exactly while a worker runs; every queue handed to a device has
//! rings that lie in memory.

use std::io;
use std::sync::Arc;

use virtio_queue::{Queue, QueueState, QueueT};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::super::{ActivateError, Activation, ActiveQueue, F_EVENT_IDX, Interrupt};
use super::VirtioPci;
use super::common::{CommonState, QueueSetup};
use super::layout;
use crate::ports::Ram;

/// Why a device does not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("queue {0} has an invalid size, or rings that are not aligned or not in memory")]
    Queue(u16),
    #[error("connecting the doorbell of queue {0}: {1}")]
    Doorbell(u16, #[source] io::Error),
    #[error("starting the device: {0}")]
    Device(#[from] ActivateError),
}

impl VirtioPci {
    /// The driver is ready: starts the device, or sets `DEVICE_NEEDS_RESET`.
    pub(super) fn activate(&mut self) {
        if let Err(error) = self.start() {
            self.disconnect();
            self.failure = Some(error.to_string());
            self.link.needs_reset();
        }
    }

    fn start(&mut self) -> Result<(), StartError> {
        let features = self.common.driver_features;
        let mut queues = Vec::new();
        for (index, setup) in (0u16..).zip(&self.common.queues) {
            if setup.enabled {
                let queue = queue(setup, features & F_EVENT_IDX != 0, &self.wiring.ram);
                queues.push((index, queue.ok_or(StartError::Queue(index))?));
            }
        }
        let mut active = Vec::with_capacity(queues.len());
        for (index, queue) in queues {
            let doorbell = self.connect(index).map_err(|e| StartError::Doorbell(index, e))?;
            active.push(ActiveQueue { index, queue, doorbell });
        }
        let interrupt: Arc<dyn Interrupt> = Arc::clone(&self.link) as _;
        let ram = self.wiring.ram.clone();
        let thread = Arc::clone(&self.thread);
        let activation = Activation { ram, features, queues: active, interrupt, thread };
        self.running = Some(self.device.activate(activation)?);
        Ok(())
    }

    /// Connects the doorbell of queue `index`; the device's end of it.
    fn connect(&mut self, index: u16) -> io::Result<EventFd> {
        let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        let device_end = event.try_clone()?;
        self.wiring.doorbells.connect(self.notify_address(index), &event)?;
        self.doorbells.push((index, event));
        Ok(device_end)
    }

    fn disconnect(&mut self) {
        for (index, event) in std::mem::take(&mut self.doorbells) {
            // Nothing can be done about an error; the event has no reader any more.
            let _ = self.wiring.doorbells.disconnect(self.notify_address(index), &event);
        }
    }

    fn notify_address(&self, index: u16) -> u64 {
        self.bar.address() + layout::notify_offset(index)
    }

    /// Back to the state after reset (virtio 1.2, 2.4); at any point of life.
    pub(super) fn reset(&mut self) {
        if let Some(worker) = self.running.take() {
            worker.stop();
        }
        self.disconnect();
        self.failure = None;
        self.common = CommonState::new(self.device.queue_sizes());
        self.link.reset();
    }
}

/// The queue that the driver has set up, if it is one (virtio 1.2, 2.7).
fn queue(setup: &QueueSetup, event_idx_enabled: bool, ram: &Ram) -> Option<Queue> {
    let queue = Queue::try_from(QueueState {
        max_size: setup.max_size,
        next_avail: 0,
        next_used: 0,
        event_idx_enabled,
        size: setup.size,
        ready: true,
        desc_table: setup.descriptors,
        avail_ring: setup.driver,
        used_ring: setup.device,
    });
    queue.ok().filter(|queue| queue.is_valid(ram))
}
