//! The threads of a machine: each is confined to what its kind needs before it does anything.
//!
//! Invariant: a thread whose filter cannot be installed does no work, and [`Crew::confined`] says so.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use cofferdam_vmm_devices::ports::Threads;
use cofferdam_vmm_devices::virtio::DeviceId;
use cofferdam_vmm_devices::virtio::thread::DeviceThread;

use crate::jail::{Filters, Kind};

/// Neither devices nor vCPUs recurse, and both keep their buffers on the heap.
const STACK: usize = 256 * 1024;

/// Starts threads; clones start them for the same machine.
#[derive(Clone)]
pub(super) struct Crew {
    filters: Arc<Filters>,
    muster: Arc<Muster>,
}

/// Who is there.
#[derive(Default)]
struct Muster {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    started: usize,
    confined: usize,
    failure: Option<io::Error>,
}

impl Crew {
    pub(super) fn new(filters: Arc<Filters>) -> Self {
        Self { filters, muster: Arc::default() }
    }

    /// A thread called `name` that does `body` as one of `kind`.
    pub(super) fn spawn(
        &self,
        name: String,
        kind: Kind,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let (filters, muster) = (Arc::clone(&self.filters), Arc::clone(&self.muster));
        let thread = Builder::new().name(name).stack_size(STACK).spawn(move || {
            let confined = filters.apply(kind);
            let works = confined.is_ok();
            muster.report(confined);
            if works {
                body();
            }
        })?;
        self.muster.change(|state| state.started += 1);
        Ok(thread)
    }

    /// `count` threads for devices that are plugged in later.
    pub(super) fn spares(&self, count: u8) -> io::Result<Vec<Arc<DeviceThread>>> {
        let start = |body| self.spawn("spare".to_owned(), Kind::Spare, body);
        (0..count).map(|_| DeviceThread::spare(start).map(Arc::new)).collect()
    }

    /// Waits until all threads are confined, then confines the calling one to what the first thread needs.
    pub(super) fn confined(&self) -> io::Result<()> {
        self.muster.wait()?;
        self.filters.apply(Kind::Main)
    }
}

impl Threads for Crew {
    fn start(&self, id: DeviceId, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        let unknown =
            || io::Error::other(format!("no system-call filter for a {} device", id.name()));
        self.spawn(id.name().to_owned(), Kind::of(id).ok_or_else(unknown)?, body)
    }
}

impl Muster {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn report(&self, confined: io::Result<()>) {
        self.change(|state| match confined {
            Ok(()) => state.confined += 1,
            Err(error) => state.failure = Some(error),
        });
    }

    fn wait(&self) -> io::Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = |state: &mut State| state.failure.is_none() && state.confined < state.started;
        let state = self.changed.wait_while(state, missing);
        match state.unwrap_or_else(PoisonError::into_inner).failure.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "crew_test.rs"]
mod crew_test;
