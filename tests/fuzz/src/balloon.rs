//! The balloon: the host only remembers what it is given back.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use cofferdam_vmm_devices::ports::Reclaim;
use cofferdam_vmm_devices::virtio::balloon::Balloon;

use crate::devices::{Host, Subject};
use crate::driver::{Buf, Driver};
use crate::input::Input;

/// The balloon, whose host takes back everything, or nothing.
pub const BALLOON: Subject = Subject {
    make: |options| {
        let ledger = Arc::new(Ledger { refuses: options & 1 != 0, ..Ledger::default() });
        (Box::new(Balloon::new(Arc::clone(&ledger) as _)), Box::new(Returned(ledger)))
    },
};

/// What was given back.
#[derive(Default)]
struct Ledger {
    refuses: bool,
    last: Mutex<Option<(u64, u64)>>,
}

impl Reclaim for Ledger {
    fn give_back(&self, address: u64, len: u64) -> io::Result<()> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((address, len));
        if self.refuses { Err(io::ErrorKind::Unsupported.into()) } else { Ok(()) }
    }
}

struct Returned(Arc<Ledger>);

impl Returned {
    fn last(&self) -> Option<(u64, u64)> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Host for Returned {
    /// Nothing happens on the host.
    fn act(&mut self, _input: &mut Input<'_>) {}

    fn probe(&mut self, driver: &mut Driver<'_>) {
        self.last();
        let pages = [0x12u32, 0x13].map(u32::to_le_bytes).concat();
        driver.request(0, &[Buf::Out(pages.clone())]);
        assert_eq!(self.last(), Some((0x12000, 0x2000)), "inflating");
        driver.request(1, &[Buf::Out(pages)]);
        assert_eq!(self.last(), None, "deflating gives nothing back");
        // Without the feature there is a third queue all the same, and nobody who uses it.
        assert!(driver.request(2, &[Buf::Room(4096)]).is_empty());
        assert_eq!(self.last().map(|(_, len)| len), Some(4096), "reporting");
    }
}
