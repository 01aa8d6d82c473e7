//! A device's thread: it is there from the start, and does the device's work each time it is activated.
//!
//! Starting a thread is a right that a confined monitor gives up before the guest runs, so a driver that
//! activates and resets a device starts and ends bodies of work, never threads.
//!
//! Invariant: after [`Worker::stop`] returns, the body has ended. A body must come back soon after
//! [`Stop::requested`] turns true; it may wait on [`Stop::event`] among others.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{DeviceId, Worker};
use crate::ports::Threads;

/// The wish that a body of work ends.
pub struct Stop {
    requested: AtomicBool,
    event: EventFd,
}

impl Stop {
    /// A wish that is not yet there.
    ///
    /// # Errors
    /// If the host has no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            requested: AtomicBool::new(false),
            event: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        })
    }

    /// Whether to end.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Readable from the moment [`Stop::requested`] is true.
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Asks for the end.
    pub fn request(&self) {
        self.requested.store(true, Ordering::Release);
        // Fails only if the counter is full, and then the event is readable anyway.
        let _full = self.event.write(1);
    }
}

/// One body of work.
struct Job {
    body: Box<dyn FnOnce(&Stop) + Send>,
    stop: Arc<Stop>,
    /// Dropped when the body has ended, in whatever way.
    _running: Sender<()>,
}

/// See the module.
pub struct DeviceThread {
    jobs: Option<Sender<Job>>,
    handle: Option<JoinHandle<()>>,
}

impl DeviceThread {
    /// A thread for the device `id`, waiting for work.
    ///
    /// # Errors
    /// If the host refuses a thread.
    pub fn start(id: DeviceId, threads: &dyn Threads) -> io::Result<Self> {
        Self::spare(|body| threads.start(id, body))
    }

    /// A thread that `start` makes, waiting for work of whatever device.
    ///
    /// # Errors
    /// That of `start`.
    pub fn spare(
        start: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
    ) -> io::Result<Self> {
        let (jobs, inbox) = channel();
        let handle = start(Box::new(move || work(&inbox)))?;
        Ok(Self { jobs: Some(jobs), handle: Some(handle) })
    }

    /// Has the thread run `body`, after those that it was given before.
    ///
    /// # Errors
    /// If the thread is gone, or the host has no descriptors left.
    pub fn run(
        self: &Arc<Self>,
        body: impl FnOnce(&Stop) + Send + 'static,
    ) -> io::Result<Box<dyn Worker>> {
        let stop = Arc::new(Stop::new()?);
        let (running, ended) = channel();
        let job = Job { body: Box::new(body), stop: Arc::clone(&stop), _running: running };
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(io::Error::other("the device's thread is gone"));
        }
        Ok(Box::new(Running { stop, ended, _thread: Arc::clone(self) }))
    }
}

/// All of `started` as one worker. If one could not be started, those before it are stopped.
///
/// # Errors
/// That of the first that could not be started; the others are not tried.
pub fn all(
    started: impl Iterator<Item = io::Result<Box<dyn Worker>>>,
) -> io::Result<Box<dyn Worker>> {
    let mut workers = Workers(Vec::new());
    for worker in started {
        match worker {
            Ok(worker) => workers.0.push(worker),
            Err(error) => {
                Box::new(workers).stop();
                return Err(error);
            }
        }
    }
    Ok(Box::new(workers))
}

/// Several workers that are one.
struct Workers(Vec<Box<dyn Worker>>);

impl Worker for Workers {
    fn stop(self: Box<Self>) {
        self.0.into_iter().for_each(Worker::stop);
    }
}

fn work(inbox: &Receiver<Job>) {
    for job in inbox {
        (job.body)(&job.stop);
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        // Without a sender there is no more work, and the thread ends.
        self.jobs = None;
        if let Some(handle) = self.handle.take() {
            // An error is a panic of the thread: it is gone, which is what was asked for.
            let _panicked = handle.join();
        }
    }
}

/// The thread at `index` of an activation's.
///
/// # Errors
/// If the device asked for fewer.
pub fn at(threads: &[Arc<DeviceThread>], index: usize) -> io::Result<&Arc<DeviceThread>> {
    threads.get(index).ok_or_else(|| io::Error::other("a device with too few threads"))
}

/// A body under way.
struct Running {
    stop: Arc<Stop>,
    ended: Receiver<()>,
    _thread: Arc<DeviceThread>,
}

impl Worker for Running {
    fn stop(self: Box<Self>) {
        self.stop.request();
        // Nothing is ever sent: this returns when the body's end of the channel is dropped.
        let _ended = self.ended.recv();
    }
}

#[cfg(test)]
#[path = "thread_test.rs"]
mod thread_test;
