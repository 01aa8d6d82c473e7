//! One thread for each queue pair; the first one serves the control queue, too.
//!
//! Each pair sends through its own queue of the tap. The host spreads what comes in over all queues of the
//! tap, also over those whose pair the driver does not use: pair `i` of `n` in use receives from the queues
//! `i`, `i + n`, `i + 2n` and so on.
//!
//! Everything is edge-triggered, so an idle card makes no system call.
//!
//! Invariant: once a change of the pairs in use is acknowledged, no other pair receives (virtio 1.2,
//! 5.1.6.5.6.1): who receives holds the lock that the change takes.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, RwLock};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::super::mem::Segment;
use super::super::queue::{BrokenRing, Chain, Ring};
use super::super::thread::Stop;
use super::backend::Tap;
use super::control::{Control, MAX_COMMAND};
use super::receive::{Received, Receiver};
use super::request::{self, Command};
use super::transmit::Sender;
use crate::ports::Ram;
use crate::sync;

/// Packets from the tap before anything else is looked at.
const BUDGET: usize = 128;

/// Packets of each queue thrown away at the start: what came while no driver was there.
const MAX_STALE: usize = 4096;

/// Epoll data; below are the queues of the tap.
const STOP: u64 = u64::MAX;
const RECEIVE: u64 = u64::MAX - 1;
const TRANSMIT: u64 = u64::MAX - 2;
const CONTROL: u64 = u64::MAX - 3;
const CHANGED: u64 = u64::MAX - 4;

/// Answers of the control queue.
const ACK_OK: u8 = 0;
const ACK_ERR: u8 = 1;

/// What all threads of a card share.
pub(super) struct Shared {
    pub(super) tap: Arc<Tap>,
    pub(super) control: Arc<RwLock<Control>>,
    /// Tells the thread of each pair that the pairs in use have changed.
    pub(super) changed: Vec<EventFd>,
}

/// Why a thread cannot go on.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error(transparent)]
    Ring(#[from] BrokenRing),
    #[error("waiting for a network card")]
    Host(#[from] io::Error),
}

/// A queue pair at work.
pub(super) struct Pair {
    index: usize,
    shared: Arc<Shared>,
    receiver: Receiver,
    sender: Sender,
    control: Option<Ring>,
    epoll: Epoll,
    /// The queues of the tap that this pair receives from, and whether they may hold packets.
    sources: Vec<(usize, bool)>,
    starved: bool,
    control_pending: bool,
}

impl Pair {
    /// Works as pair `index` until asked to stop; with the control queue, if it is to serve that.
    pub(super) fn serve(
        index: usize,
        shared: Arc<Shared>,
        (receiver, sender): (Receiver, Sender),
        control: Option<Ring>,
        stop: &Stop,
    ) {
        let Ok(epoll) = Epoll::new() else { return receiver.ring().needs_reset() };
        let control_pending = control.is_some();
        let (sources, starved) = (Vec::new(), false);
        let mut pair = Self {
            index,
            shared,
            receiver,
            sender,
            control,
            epoll,
            sources,
            starved,
            control_pending,
        };
        if pair.run(stop).is_err() {
            pair.receiver.ring().needs_reset();
        }
    }

    fn run(&mut self, stop: &Stop) -> Result<(), WorkerError> {
        self.add(stop.event(), STOP)?;
        self.add(self.receiver.ring().doorbell(), RECEIVE)?;
        self.add(self.sender.ring().doorbell(), TRANSMIT)?;
        if let Some(control) = &self.control {
            self.add(control.doorbell(), CONTROL)?;
        }
        if let Some(changed) = self.shared.changed.get(self.index) {
            self.add(changed, CHANGED)?;
        }
        self.retarget()?;
        self.throw_away_stale();
        let mut events = [EpollEvent::default(); 16];
        while !stop.requested() {
            let more = self.round(stop)?;
            let count = match self.epoll.wait(if more { 0 } else { -1 }, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..count] {
                self.event(event)?;
            }
        }
        Ok(())
    }

    fn add(&self, event: &EventFd, data: u64) -> io::Result<()> {
        self.add_fd(event.as_raw_fd(), EventSet::IN, data)
    }

    fn add_fd(&self, fd: RawFd, events: EventSet, data: u64) -> io::Result<()> {
        let event = EpollEvent::new(events | EventSet::EDGE_TRIGGERED, data);
        self.epoll.ctl(ControlOperation::Add, fd, event)
    }

    /// Packets from before the driver came may need offloads that it does not take.
    fn throw_away_stale(&mut self) {
        for (queue, _) in &self.sources {
            let mut left = MAX_STALE;
            while left > 0 && self.receiver.throw_away(&self.shared.tap, *queue) {
                left -= 1;
            }
        }
    }

    /// Receives from the queues that are this pair's as things stand.
    fn retarget(&mut self) -> io::Result<()> {
        for (queue, _) in std::mem::take(&mut self.sources) {
            self.forget(queue)?;
        }
        let pairs = usize::from(sync::read(&self.shared.control).pairs);
        self.forget(self.index)?;
        let first = if self.index < pairs { self.index } else { usize::MAX };
        for queue in (first..self.shared.tap.len()).step_by(pairs) {
            self.sources.push((queue, true));
            self.listen_to(queue, EventSet::IN)?;
        }
        if self.sources.is_empty() {
            self.listen_to(self.index, EventSet::empty())?;
        }
        Ok(())
    }

    /// Waits for queue `queue` of the tap; for room in it, too, if it is the pair's own.
    fn listen_to(&self, queue: usize, events: EventSet) -> io::Result<()> {
        let Some(fd) = self.shared.tap.raw_fd(queue) else { return Ok(()) };
        let room = if queue == self.index { EventSet::OUT } else { EventSet::empty() };
        self.add_fd(fd, events | room, queue as u64)
    }

    fn forget(&self, queue: usize) -> io::Result<()> {
        let Some(fd) = self.shared.tap.raw_fd(queue) else { return Ok(()) };
        match self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn event(&mut self, event: &EpollEvent) -> io::Result<()> {
        match event.data() {
            STOP => {}
            RECEIVE => self.starved = false,
            TRANSMIT => self.sender.doorbell(),
            CONTROL => self.control_pending = true,
            CHANGED => self.retarget()?,
            queue => {
                if event.event_set().contains(EventSet::OUT) {
                    self.sender.unblock();
                }
                let source = self.sources.iter_mut().find(|(source, _)| *source as u64 == queue);
                if let Some((_, pending)) = source {
                    *pending |= event.event_set().contains(EventSet::IN);
                }
            }
        }
        Ok(())
    }

    /// Moves packets both ways; whether there is more to do at once.
    fn round(&mut self, stop: &Stop) -> Result<bool, WorkerError> {
        let mut more = self.sender.send(&self.shared.tap)?;
        more |= self.receive()?;
        if self.control_pending {
            self.control_pending = self.serve_control(stop)?;
            more |= self.control_pending;
        }
        Ok(more)
    }

    /// Gives packets to the driver; whether there may be more.
    fn receive(&mut self) -> Result<bool, BrokenRing> {
        let control = sync::read(&self.shared.control);
        if self.starved || self.index >= usize::from(control.pairs) {
            return Ok(false);
        }
        let mut any = false;
        let mut left = BUDGET;
        'sources: for (queue, pending) in &mut self.sources {
            while *pending && left > 0 {
                left -= 1;
                match self.receiver.receive(&self.shared.tap, *queue, &control)? {
                    Received::Packet => any = true,
                    Received::Empty => *pending = false,
                    Received::Starved => {
                        self.starved = true;
                        break 'sources;
                    }
                    Received::Useless => break 'sources,
                }
            }
        }
        drop(control);
        if any {
            self.receiver.interrupt()?;
        }
        Ok(!self.starved && self.sources.iter().any(|(_, pending)| *pending))
    }

    /// Serves the control queue; whether there is more.
    fn serve_control(&mut self, stop: &Stop) -> Result<bool, BrokenRing> {
        let Some(ring) = &mut self.control else { return Ok(false) };
        let shared = &self.shared;
        ring.pass(stop, &mut |ram, chain| command(shared, ram, chain))
    }
}

/// Does one command of the control queue; the bytes written.
fn command(shared: &Shared, ram: &Ram, chain: Chain<'_>) -> u32 {
    let Ok(Command { output, answer }) = request::command(chain) else { return 0 };
    let done = read(ram, &output).is_some_and(|bytes| {
        let mut control = sync::write(&shared.control);
        let before = control.pairs;
        let done = control.perform(&bytes).is_ok();
        let changed = control.pairs != before;
        drop(control);
        if changed {
            // Fails only if the counter is full, and then its reader is awake.
            shared.changed.iter().for_each(|event| drop(event.write(1)));
        }
        done
    });
    let answered = ram.write_obj(if done { ACK_OK } else { ACK_ERR }, answer);
    u32::from(answered.is_ok())
}

/// The bytes in `segments`; none if there are too many.
fn read(ram: &Ram, segments: &[Segment]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for &Segment { address: GuestAddress(address), len } in segments {
        let start = bytes.len();
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        if end > MAX_COMMAND {
            return None;
        }
        bytes.resize(end, 0);
        ram.read_slice(&mut bytes[start..], GuestAddress(address)).ok()?;
    }
    Some(bytes)
}
