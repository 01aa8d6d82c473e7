//! How the host does what requests ask for: with `io_uring`, many at a time; where the kernel has none for
//! us, one after the other by ordinary calls.
//!
//! Ordering is the driver's: it waits for what must come first (virtio 1.2, 5.2.6.2). A flush covers the
//! writes that were reported done before it was asked for, and those have left this engine.
//!
//! Several requests at a time cost less than one doorbell each: while a driver keeps several under way, it is asked to
//! ring only when as many more are there as came together last, and the ring is looked at after [`PATIENCE`] anyway.
//!
//! Invariant: when an engine returns, nothing of it is under way; the work that it then waits for is bounded
//! ([`MAX_LOAD`]), whatever the driver asked for.

use std::io;
use std::time::Duration;

use super::super::mem::Segment;
use super::super::queue::{BrokenRing, Chain, Ring};
use super::super::thread::Stop;
use super::super::uring::{Event, Op, Uring};
use super::backend::{Backend, erase_mode};
use super::job::{Intake, Job, Step};
use super::request::{MAX_DATA, total};
use crate::ports::Ram;

/// Work under way, in bytes of data, from which on no more requests are taken up.
const MAX_LOAD: u64 = 2 * MAX_DATA;

/// What an extent counts as, however long it is: the host frees or zeroes without touching most of it.
const EXTENT_LOAD: u64 = 16 << 20;

/// The longest that requests wait for others to come, if the driver was not asked to ring for the first.
const PATIENCE: Duration = Duration::from_micros(50);

/// Serves a queue with ordinary calls.
pub(super) fn serve(ring: Ring, backend: &Backend, intake: &mut Intake, stop: &Stop) {
    ring.serve(stop, |ram, chain| perform(backend, intake, (ram, chain), stop));
}

/// Does a request with ordinary calls; the length for the used ring.
fn perform(
    backend: &Backend,
    intake: &mut Intake,
    (ram, chain): (&Ram, Chain<'_>),
    stop: &Stop,
) -> u32 {
    let head = chain.head_index();
    let mut job = match intake.begin(ram, head, chain) {
        Ok(job) => job,
        Err(len) => return len,
    };
    let mut result = Ok(());
    while let (Ok(()), Some(step)) = (&result, job.next()) {
        result = if stop.requested() { cancelled() } else { backend.perform(ram, &job.data, step) };
    }
    intake.end(ram, &job, result)
}

/// How a job ends that is not finished because nobody waits for it any more.
fn cancelled() -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::ECANCELED))
}

/// What a step counts as while it is under way, in bytes of data.
fn load(step: Step, data: &[Segment]) -> u64 {
    match step {
        Step::Read(_) | Step::Write(_) => total(data),
        Step::Sync => 0,
        Step::Erase(_) => EXTENT_LOAD,
    }
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
    uring: Uring<(Job, u64)>,
    intake: Intake,
    /// Work under way; see [`MAX_LOAD`].
    load: u64,
    /// Most requests that came together since the last wait.
    together: usize,
    /// The last wait was for several and brought nothing.
    in_vain: bool,
}

impl UringEngine {
    pub(super) fn new(ring: Ring, uring: Uring<(Job, u64)>, intake: Intake) -> Self {
        Self { ring, uring, intake, load: 0, together: 0, in_vain: false }
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
            self.together = self.together.max(started);
            // Several at once: hand them over and look at the ring again before asking for doorbells. A
            // single one is handed over by the call that waits.
            let wait = if started > 1 { Wait::Not } else { self.rest(stopping)? };
            self.in_vain = match wait {
                Wait::Within(limit) => !self.uring.enter_within(limit)? && started == 0,
                _ => false,
            };
            if wait == Wait::Forever || (wait == Wait::Not && self.uring.has_queued()) {
                self.uring.enter(wait == Wait::Forever)?;
            }
            self.give_back(stopping)?;
        }
    }

    /// Whether there is no room for more.
    fn is_full(&self) -> bool {
        self.uring.under_way() >= usize::from(self.ring.size()) || self.load >= MAX_LOAD
    }

    /// Sees to it that a wait ends when the driver has something to do, and says how long it may be.
    fn rest(&mut self, stopping: bool) -> Result<Wait, EngineError> {
        let together = std::mem::take(&mut self.together);
        if stopping || self.is_full() {
            return Ok(Wait::Forever);
        }
        // What is under way ends the wait as well, and then the ring is looked at.
        let several = together.max(self.uring.under_way() / 2);
        let wanted = if self.in_vain { 1 } else { u16::try_from(several).unwrap_or(1).max(1) };
        let (more, rings_late) = self.ring.listen_for(wanted)?;
        Ok(match (more, rings_late) {
            (true, _) => Wait::Not,
            (false, true) => Wait::Within(PATIENCE),
            (false, false) => Wait::Forever,
        })
    }

    /// Starts what is available, at most a queue full in all; how many.
    fn take_up(&mut self) -> Result<usize, EngineError> {
        self.ring.quiet()?;
        let mut started = 0;
        let mut refused = false;
        while !self.is_full() {
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
        let load = load(step, &data);
        self.load += load;
        let op = match step {
            Step::Read(offset) => Op::Read(&data, offset),
            Step::Write(offset) => Op::Write(&data, offset),
            Step::Sync => Op::Sync,
            Step::Erase(extent) => {
                Op::Allocate(erase_mode(extent).bits(), extent.offset, extent.len)
            }
        };
        Ok(self.uring.start(op, (job, load))?)
    }

    /// Takes note of what has ended, with one interrupt for all of it.
    fn give_back(&mut self, stopping: bool) -> Result<(), EngineError> {
        let mut used = false;
        while let Some(event) = self.uring.event()? {
            let Event::Done((job, load), mut result) = event else { continue };
            self.load -= load;
            if result.is_ok() && job.has_next() {
                if !stopping {
                    self.advance(job)?;
                    continue;
                }
                result = cancelled();
            }
            let len = self.intake.end(self.ring.ram(), &job, result);
            self.ring.push(job.head, len)?;
            used = true;
        }
        if used {
            // The driver is about to have more, and the ring will be looked at.
            self.ring.quiet()?;
            self.ring.interrupt()?;
        }
        Ok(())
    }
}

/// How long to wait for something to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Not,
    Within(Duration),
    Forever,
}

#[cfg(test)]
#[path = "engine_test.rs"]
mod engine_test;
