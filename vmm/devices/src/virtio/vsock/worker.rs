//! The device's thread: waits for the guest's doorbells and the host's sockets, and moves packets.
//!
//! Everything is edge-triggered but the socket of connections and the order to stop, so an idle device
//! makes no system call and a socket that nobody reads wakes nobody.
//!
//! Invariant: one round handles at most [`BUDGET`] packets each way, so the order to stop is seen soon
//! whatever the guest does.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use virtio_queue::{DescriptorChain, Error as QueueError, Queue, QueueOwnedT, QueueT};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::Counts;
use super::backend::Backend;
use super::chain::Buffers;
use super::muxer::{CONNECTIONS, LAST_ID, Muxer};
use super::packet::{HEADER_LEN, Header};
use crate::ports::Ram;
use crate::virtio::thread::Stop;
use crate::virtio::{ActiveQueue, Interrupt};

/// Packets each way before anything else is looked at.
const BUDGET: usize = 256;

/// Epoll data of the order to stop.
const STOP: u64 = u64::MAX;

/// Epoll data of a doorbell: there is something to do; a round looks at all there is.
const DOORBELL: u64 = u64::MAX - 2;

/// What the thread works on.
pub(super) struct Pump {
    ram: Ram,
    rx: ActiveQueue,
    tx: ActiveQueue,
    interrupt: Arc<dyn Interrupt>,
    epoll: Arc<Epoll>,
    muxer: Muxer,
    counts: Arc<Counts>,
    /// The transmit queue may hold packets.
    tx_pending: bool,
    /// The guest was asked to tell of new receive buffers.
    rx_starved: bool,
}

/// A ring that makes no sense; the device cannot go on.
#[derive(Debug)]
struct Broken;

impl From<QueueError> for Broken {
    fn from(_: QueueError) -> Self {
        Self
    }
}

impl Pump {
    /// Prepares the work.
    ///
    /// # Errors
    /// If the host has no descriptors left.
    pub(super) fn new(
        guest_cid: u64,
        (backend, counts): (Backend, Arc<Counts>),
        ram: Ram,
        (rx, tx): (ActiveQueue, ActiveQueue),
        interrupt: Arc<dyn Interrupt>,
    ) -> io::Result<Self> {
        let epoll = Arc::new(Epoll::new()?);
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, DOORBELL);
        for queue in [&rx, &tx] {
            epoll.ctl(ControlOperation::Add, queue.doorbell.as_raw_fd(), event)?;
        }
        let muxer = Muxer::new(guest_cid, backend, Arc::clone(&epoll), Arc::clone(&counts))?;
        let (tx_pending, rx_starved) = (true, true);
        Ok(Self { ram, rx, tx, interrupt, epoll, muxer, counts, tx_pending, rx_starved })
    }

    /// Works until asked to stop.
    pub(super) fn run(mut self, stop: &Stop) {
        let mut events = [EpollEvent::default(); 64];
        let order = EpollEvent::new(EventSet::IN, STOP);
        if self.epoll.ctl(ControlOperation::Add, stop.event().as_raw_fd(), order).is_err() {
            return self.interrupt.needs_reset();
        }
        loop {
            let more = match self.round() {
                Ok(more) => more,
                Err(Broken) => return self.interrupt.needs_reset(),
            };
            let timeout = if more { 0 } else { self.timeout() };
            let count = match self.epoll.wait(timeout, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(_) => return self.interrupt.needs_reset(),
            };
            for event in &events[..count] {
                if event.data() == STOP {
                    return;
                }
                self.event(event);
            }
        }
    }

    fn event(&mut self, event: &EpollEvent) {
        let now = Instant::now();
        match event.data() {
            CONNECTIONS => self.muxer.connections_event(event.event_set(), now),
            id @ ..=LAST_ID => self.muxer.socket_event(id, event.event_set(), now),
            _ => self.tx_pending = true,
        }
    }

    /// Milliseconds to the next deadline, rounded up; -1 if there is none.
    fn timeout(&self) -> i32 {
        self.muxer.next_deadline().map_or(-1, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            i32::try_from(left).map_or(i32::MAX, |left| left.saturating_add(1))
        })
    }

    /// Moves packets both ways; true if there is more to do at once.
    fn round(&mut self) -> Result<bool, Broken> {
        let now = Instant::now();
        self.muxer.expire(now);
        if self.tx_pending && self.transmit(now)? {
            self.signal(1);
        }
        let (any, more) = self.deliver(now)?;
        if any {
            self.signal(0);
        }
        Ok(more || (self.tx_pending && !self.muxer.is_blocked()))
    }

    /// Takes packets from the guest; true if there were any.
    fn transmit(&mut self, now: Instant) -> Result<bool, Broken> {
        let Self { ram, tx, muxer, counts, .. } = self;
        let mut any = false;
        tx.queue.disable_notification(&*ram)?;
        for _ in 0..BUDGET {
            if muxer.is_blocked() {
                break;
            }
            let Some(chain) = next(&mut tx.queue, ram)? else {
                if tx.queue.enable_notification(&*ram)? {
                    continue;
                }
                self.tx_pending = false;
                break;
            };
            let head = chain.head_index();
            let packet = Buffers::readable(ram, chain);
            if let Some(bytes) = packet.read_first::<HEADER_LEN>() {
                muxer.receive(&Header::parse(&bytes), &packet, now);
                counts.packets_from_guest.add(1);
                counts.bytes_from_guest.add((packet.len() - HEADER_LEN) as u64);
            }
            tx.queue.add_used(&*ram, head, 0)?;
            any = true;
        }
        Ok(any)
    }

    /// Gives packets to the guest; whether there were any, and whether there are more for which it may
    /// have buffers.
    fn deliver(&mut self, now: Instant) -> Result<(bool, bool), Broken> {
        let Self { ram, rx, muxer, counts, .. } = self;
        let mut any = false;
        for _ in 0..BUDGET {
            if !muxer.has_output() {
                return Ok((any, false));
            }
            let Some(chain) = next(&mut rx.queue, ram)? else {
                self.rx_starved = true;
                if rx.queue.enable_notification(&*ram)? {
                    continue;
                }
                return Ok((any, false));
            };
            if self.rx_starved {
                self.rx_starved = false;
                rx.queue.disable_notification(&*ram)?;
            }
            let head = chain.head_index();
            let room = Buffers::writable(ram, chain);
            let mut used = 0;
            if room.len() >= HEADER_LEN {
                let Some(header) = muxer.produce(&room, now) else {
                    rx.queue.set_next_avail(rx.queue.next_avail().wrapping_sub(1));
                    return Ok((any, false));
                };
                room.write_first(&header.encode());
                used = header.len.saturating_add(44);
                counts.packets_to_guest.add(1);
                counts.bytes_to_guest.add(header.len.into());
            }
            rx.queue.add_used(&*ram, head, used)?;
            any = true;
        }
        Ok((any, muxer.has_output()))
    }

    fn signal(&mut self, queue: u16) {
        let active = if queue == 0 { &mut self.rx } else { &mut self.tx };
        if active.queue.needs_notification(&self.ram).unwrap_or(true) {
            self.interrupt.queue(queue);
        }
    }
}

/// The next chain of a queue, if the guest has made one available.
fn next<'m>(queue: &mut Queue, ram: &'m Ram) -> Result<Option<DescriptorChain<&'m Ram>>, Broken> {
    Ok(queue.iter(ram)?.next())
}
