//! The loop that a vCPU's thread runs.
//!
//! Invariant: an access that nobody answers is harmless: reads give all ones, writes vanish.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::exit::Exit;

/// Enters the guest until something wants attention.
pub trait Enter {
    /// Runs the guest.
    fn enter(&mut self) -> Exit<'_>;
}

/// What answers a guest's accesses. `data` of a read is all ones when it comes.
pub trait AddressSpace {
    /// The guest reads an I/O port.
    fn port_in(&self, port: u16, data: &mut [u8]);
    /// The guest writes an I/O port.
    fn port_out(&self, port: u16, data: &[u8]);
    /// The guest reads memory that a device answers.
    fn mmio_read(&self, address: u64, data: &mut [u8]);
    /// The guest writes to memory that a device answers.
    fn mmio_write(&self, address: u64, data: &[u8]);
}

/// Why a vCPU does not run any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to stop.
    Stopped,
    /// A triple fault.
    Shutdown,
    /// KVM or the processor failed; the text says how.
    Failed(String),
}

/// How often a vCPU left the guest, and why.
///
/// Invariant: only the vCPU's own thread counts, so that counting costs two plain memory accesses.
#[derive(Debug, Default)]
pub struct ExitCounts {
    port_reads: AtomicU64,
    port_writes: AtomicU64,
    mmio_reads: AtomicU64,
    mmio_writes: AtomicU64,
    interruptions: AtomicU64,
}

impl ExitCounts {
    /// The counts by name.
    #[must_use]
    pub fn read(&self) -> [(&'static str, u64); 5] {
        let Self { port_reads, port_writes, mmio_reads, mmio_writes, interruptions } = self;
        [
            ("port_reads", port_reads),
            ("port_writes", port_writes),
            ("mmio_reads", mmio_reads),
            ("mmio_writes", mmio_writes),
            ("interruptions", interruptions),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// Runs `vcpu` until `stop` is set or it cannot go on.
pub fn run_vcpu(
    vcpu: &mut impl Enter,
    space: &impl AddressSpace,
    stop: &AtomicBool,
    counts: &ExitCounts,
) -> End {
    while !stop.load(Ordering::Acquire) {
        match vcpu.enter() {
            Exit::MmioRead { address, data } => {
                count(&counts.mmio_reads);
                data.fill(0xff);
                space.mmio_read(address, data);
            }
            Exit::MmioWrite { address, data } => {
                count(&counts.mmio_writes);
                space.mmio_write(address, data);
            }
            Exit::PortIn { port, size, data } => {
                count(&counts.port_reads);
                data.fill(0xff);
                data.chunks_exact_mut(size).for_each(|data| space.port_in(port, data));
            }
            Exit::PortOut { port, size, data } => {
                count(&counts.port_writes);
                data.chunks_exact(size).for_each(|data| space.port_out(port, data));
            }
            Exit::Interrupted => count(&counts.interruptions),
            Exit::Shutdown => return End::Shutdown,
            Exit::Failed(why) => return End::Failed(why),
        }
    }
    End::Stopped
}

#[cfg(test)]
#[path = "run_test.rs"]
mod run_test;
