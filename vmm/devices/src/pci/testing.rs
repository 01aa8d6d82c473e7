//! A machine around a PCI function, for tests: vectors and doorbells that remember.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

use crate::ports::{Doorbells, MsiController, MsiMessage, MsiVector};

/// An interrupt vector that counts.
#[derive(Default)]
pub(crate) struct FakeVector {
    /// What it is connected to.
    pub(crate) message: Mutex<Option<MsiMessage>>,
    /// Messages that would refuse to be routed.
    refused: Option<u64>,
    routes: AtomicUsize,
    raised: Mutex<usize>,
    changed: Condvar,
}

impl FakeVector {
    pub(crate) fn raised(&self) -> usize {
        *self.raised.lock().unwrap()
    }

    pub(crate) fn message(&self) -> Option<MsiMessage> {
        *self.message.lock().unwrap()
    }

    pub(crate) fn routes(&self) -> usize {
        self.routes.load(Ordering::Relaxed)
    }

    /// Waits for interrupt number `count`.
    pub(crate) fn wait(&self, count: usize) {
        let raised = self.raised.lock().unwrap();
        let patience = Duration::from_secs(5);
        let (_guard, timeout) =
            self.changed.wait_timeout_while(raised, patience, |raised| *raised < count).unwrap();
        assert!(!timeout.timed_out(), "no interrupt in time");
    }
}

impl MsiVector for FakeVector {
    fn route(&self, message: Option<MsiMessage>) -> io::Result<()> {
        self.routes.fetch_add(1, Ordering::Relaxed);
        if message.is_some_and(|message| Some(message.address) == self.refused) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        *self.message.lock().unwrap() = message;
        Ok(())
    }

    fn raise(&self) {
        // While disconnected nothing happens.
        if self.message().is_some() {
            *self.raised.lock().unwrap() += 1;
            self.changed.notify_all();
        }
    }
}

/// Makes [`FakeVector`]s and keeps them.
#[derive(Default)]
pub(crate) struct FakeMsi {
    pub(crate) vectors: Mutex<Vec<Arc<FakeVector>>>,
    /// An address that vectors refuse.
    pub(crate) refused: Option<u64>,
    /// How many vectors there are at most; 0 means any number.
    pub(crate) limit: usize,
}

impl FakeMsi {
    pub(crate) fn vector_at(&self, index: usize) -> Arc<FakeVector> {
        Arc::clone(&self.vectors.lock().unwrap()[index])
    }
}

impl MsiController for FakeMsi {
    fn vector(&self) -> io::Result<Arc<dyn MsiVector>> {
        let mut vectors = self.vectors.lock().unwrap();
        if self.limit != 0 && vectors.len() == self.limit {
            return Err(io::ErrorKind::StorageFull.into());
        }
        vectors.push(Arc::new(FakeVector { refused: self.refused, ..FakeVector::default() }));
        Ok(Arc::clone(vectors.last().unwrap()) as _)
    }
}

/// Doorbells by address.
#[derive(Default)]
pub(crate) struct FakeDoorbells {
    pub(crate) connected: Mutex<HashMap<u64, EventFd>>,
    /// An address that is refused.
    pub(crate) refused: Option<u64>,
}

impl FakeDoorbells {
    /// The guest rings; `false` if nothing is connected there.
    pub(crate) fn ring(&self, address: u64) -> bool {
        let connected = self.connected.lock().unwrap();
        connected.get(&address).is_some_and(|event| event.write(1).is_ok())
    }

    pub(crate) fn count(&self) -> usize {
        self.connected.lock().unwrap().len()
    }
}

impl Doorbells for FakeDoorbells {
    fn connect(&self, address: u64, event: &EventFd) -> io::Result<()> {
        if Some(address) == self.refused {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let old = self.connected.lock().unwrap().insert(address, event.try_clone()?);
        assert!(old.is_none(), "connected twice: {address:#x}");
        Ok(())
    }

    fn disconnect(&self, address: u64, _event: &EventFd) -> io::Result<()> {
        let old = self.connected.lock().unwrap().remove(&address);
        assert!(old.is_some(), "not connected: {address:#x}");
        Ok(())
    }
}
