//! The thread of the device: takes requests from the driver's two queues to the server, and replies back.
//!
//! Everything is edge-triggered, so an idle device makes no system call.
//!
//! Invariant: a driver that never stops adding cannot hold a reset up: one round takes no more than a queue full.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::super::queue::{BrokenRing, Ring};
use super::super::thread::Stop;
use super::Counts;
use super::request::Parts;
use super::session::{Begun, Session};
use crate::sync;

/// Epoll data: what has to be known of an event.
const OTHER: u64 = 0;
const SERVER: u64 = 1;

/// Why the thread cannot go on.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error(transparent)]
    Ring(#[from] BrokenRing),
    #[error("waiting for a file system")]
    Host(#[from] io::Error),
}

/// The device at work.
pub(super) struct Worker<'a> {
    /// By the order in which they are served.
    rings: Vec<Ring>,
    session: MutexGuard<'a, Session>,
    counts: &'a Counts,
    /// Of each ring, whether something was given back since the driver was told.
    used: Vec<bool>,
}

impl Worker<'_> {
    /// Works until asked to stop.
    pub(super) fn serve(
        rings: Vec<Ring>,
        session: &Arc<Mutex<Session>>,
        counts: &Counts,
        stop: &Stop,
    ) {
        let used = vec![false; rings.len()];
        let mut worker = Worker { rings, session: sync::lock(session), counts, used };
        worker.session.abandon();
        if worker.run(stop).is_err() {
            worker.rings.iter().take(1).for_each(Ring::needs_reset);
        }
        worker.session.abandon();
    }

    fn run(&mut self, stop: &Stop) -> Result<(), WorkerError> {
        let epoll = Epoll::new()?;
        let add = |fd: RawFd, data| {
            let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, data);
            epoll.ctl(ControlOperation::Add, fd, event)
        };
        add(stop.event().as_raw_fd(), OTHER)?;
        for ring in &self.rings {
            add(ring.doorbell().as_raw_fd(), OTHER)?;
        }
        let [call, server] = self.session.events();
        add(call, OTHER)?;
        add(server, SERVER)?;
        let mut events = [EpollEvent::default(); 8];
        // The first round takes what was there before the first doorbell.
        while !stop.requested() {
            let more = self.round(stop)?;
            let count = match epoll.wait(if more { 0 } else { -1 }, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error.into()),
            };
            if events.iter().take(count).any(|event| event.data() == SERVER) {
                // What it did before its end counts.
                self.replies()?;
                self.ended()?;
            }
        }
        Ok(())
    }

    /// Moves what can be moved; whether there is more.
    fn round(&mut self, stop: &Stop) -> Result<bool, WorkerError> {
        for ring in &mut self.rings {
            ring.quiet()?;
        }
        self.replies()?;
        let mut passed = false;
        for index in 0..self.rings.len() {
            passed |= self.requests(index, stop)?;
        }
        if passed {
            self.session.kick();
        }
        let mut more = false;
        for (ring, used) in self.rings.iter_mut().zip(&mut self.used) {
            if std::mem::take(used) {
                ring.interrupt()?;
            }
            more |= ring.listen()?;
        }
        // Without room, the next thing to happen is a reply.
        Ok(more && self.session.has_room())
    }

    /// Hands back what the server is done with.
    fn replies(&mut self) -> Result<(), BrokenRing> {
        loop {
            let Some(ram) = self.rings.first().map(|ring| ring.ram().clone()) else {
                return Ok(());
            };
            match self.session.next(&ram) {
                Ok(Some((waiting, len))) => {
                    self.counts.bytes_replied.add(len.into());
                    self.give_back(waiting.queue, waiting.head, len)?;
                }
                Ok(None) => return Ok(()),
                Err(_) => return self.ended(),
            }
        }
    }

    /// Nothing comes from the server any more.
    fn ended(&mut self) -> Result<(), BrokenRing> {
        for waiting in self.session.end() {
            let Some(ring) = self.rings.first() else { continue };
            let len = waiting.fail(ring.ram());
            self.counts.errors.add(1);
            self.give_back(waiting.queue, waiting.head, len)?;
        }
        for (ring, used) in self.rings.iter_mut().zip(&mut self.used) {
            if std::mem::take(used) {
                ring.interrupt()?;
            }
        }
        Ok(())
    }

    fn give_back(&mut self, queue: usize, head: u16, len: u32) -> Result<(), BrokenRing> {
        if let (Some(ring), Some(used)) = (self.rings.get_mut(queue), self.used.get_mut(queue)) {
            ring.push(head, len)?;
            *used = true;
        }
        Ok(())
    }

    /// Begins what is available in a queue; whether the server has more to do.
    fn requests(&mut self, queue: usize, stop: &Stop) -> Result<bool, BrokenRing> {
        let mut passed = false;
        let Some(most) = self.rings.get(queue).map(Ring::size) else { return Ok(false) };
        for _ in 0..most {
            if stop.requested() || !self.session.has_room() {
                break;
            }
            let Some(ring) = self.rings.get_mut(queue) else { break };
            let ram = ring.ram().clone();
            let Some(mut chain) = ring.pop()? else { break };
            let head = chain.head_index();
            let mut parts = Parts::default();
            let fine = parts.fill(&mut chain).is_ok();
            self.counts.requests.add(1);
            match self.session.begin(&ram, (queue, head), (parts, fine)) {
                Begun::Passed => passed = true,
                Begun::Refused(len) => {
                    self.counts.errors.add(1);
                    self.give_back(queue, head, len)?;
                }
            }
        }
        Ok(passed)
    }
}
