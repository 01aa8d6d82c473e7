//! How the host does what requests ask for: with `io_uring`, many at a time; where the kernel has none for
//! us, one after the other by ordinary calls.
//!
//! Ordering is the driver's: it waits for what must come first (virtio 1.2, 5.2.6.2). A flush covers the
//! writes that were reported done before it was asked for, and those have left this engine.
//!
//! Invariant: when an engine returns, nothing of it is under way.

use std::io;

use super::super::queue::{BrokenRing, Chain, Ring};
use super::super::thread::Stop;
use super::super::uring::{Event, Op, Uring};
use super::backend::{Backend, erase_mode};
use super::job::{Intake, Job, Step};
use crate::ports::Ram;

/// Does a request with ordinary calls; the length for the used ring.
pub(super) fn perform(backend: &Backend, intake: &mut Intake, ram: &Ram, chain: Chain<'_>) -> u32 {
    let head = chain.head_index();
    let mut job = match intake.begin(ram, head, chain) {
        Ok(job) => job,
        Err(len) => return len,
    };
    let mut result = Ok(());
    while let (Ok(()), Some(step)) = (&result, job.next()) {
        result = backend.perform(ram, &job.data, step);
    }
    intake.end(ram, &job, result)
}

/// Why the engine cannot go on.
#[derive(Debug, thiserror::Error)]
enum EngineError {
    #[error(transparent)]
    Ring(#[from] BrokenRing),
    #[error("using io_uring")]
    Host(#[from] io::Error),
}

/// One queue, served by `io_uring`.
pub(super) struct UringEngine {
    ring: Ring,
    uring: Uring<Job>,
    intake: Intake,
}

impl UringEngine {
    pub(super) fn new(ring: Ring, uring: Uring<Job>, intake: Intake) -> Self {
        Self { ring, uring, intake }
    }

    /// Serves the queue until asked to stop, then ends what is under way.
    pub(super) fn serve(mut self, stop: &Stop) {
        if self.run(stop).is_err() {
            self.ring.needs_reset();
        }
    }

    fn run(&mut self, stop: &Stop) -> Result<(), EngineError> {
        self.uring.watch(self.ring.doorbell())?;
        self.uring.watch(stop.event())?;
        loop {
            let stopping = stop.requested();
            if stopping && self.uring.under_way() == 0 {
                return Ok(());
            }
            let started = if stopping { 0 } else { self.take_up()? };
            // Several at once: hand them over and look at the ring again before asking for doorbells. A
            // single one is handed over by the call that waits.
            let full = self.uring.under_way() >= usize::from(self.ring.size());
            let wait = started <= 1 && (stopping || full || !self.ring.listen()?);
            if wait || self.uring.has_queued() {
                self.uring.enter(wait)?;
            }
            self.give_back()?;
        }
    }

    /// Starts what is available, at most a queue full in all; how many.
    fn take_up(&mut self) -> Result<usize, EngineError> {
        self.ring.quiet()?;
        let mut started = 0;
        let mut refused = false;
        while self.uring.under_way() < usize::from(self.ring.size()) {
            let ram = self.ring.ram().clone();
            let Some(chain) = self.ring.pop()? else { break };
            let head = chain.head_index();
            started += 1;
            match self.intake.begin(&ram, head, chain) {
                Ok(job) => self.advance(job)?,
                Err(len) => {
                    self.ring.push(head, len)?;
                    refused = true;
                }
            }
            if started >= usize::from(self.ring.size()) {
                break;
            }
        }
        if refused {
            self.ring.interrupt()?;
        }
        Ok(started)
    }

    /// Starts the next step of a job that has one.
    fn advance(&mut self, mut job: Job) -> Result<(), EngineError> {
        let Some(step) = job.next() else { return Ok(()) };
        let data = std::mem::take(&mut job.data);
        let op = match step {
            Step::Read(offset) => Op::Read(&data, offset),
            Step::Write(offset) => Op::Write(&data, offset),
            Step::Sync => Op::Sync,
            Step::Erase(extent) => {
                Op::Allocate(erase_mode(extent).bits(), extent.offset, extent.len)
            }
        };
        Ok(self.uring.start(op, job)?)
    }

    /// Takes note of what has ended, with one interrupt for all of it.
    fn give_back(&mut self) -> Result<(), EngineError> {
        let mut used = false;
        while let Some(event) = self.uring.event()? {
            let Event::Done(job, result) = event else { continue };
            if result.is_ok() && job.has_next() {
                self.advance(job)?;
                continue;
            }
            let len = self.intake.end(self.ring.ram(), &job, result);
            self.ring.push(job.head, len)?;
            used = true;
        }
        if used {
            self.ring.interrupt()?;
        }
        Ok(())
    }
}
