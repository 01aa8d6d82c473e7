//! Memory that a machine gets and loses while it runs.
//!
//! ```text
//! Room::reserve ──► addresses of this process ──► MemHotplug (the device) ──► GuestMemory: how much there is
//! ```
//!
//! Invariant: a machine that is to have no more than it starts with has none of this.

use std::io;
use std::sync::Arc;

use cofferdam_vmm_api::{MachineSpec, MemoryState, MiB};
use cofferdam_vmm_devices::ports::{self, Reclaim};
use cofferdam_vmm_devices::ram;
use cofferdam_vmm_devices::virtio::mem_hotplug::{Blocks, CHUNK, MemHotplug, MemorySize};
use cofferdam_vmm_hv::{GuestRam, MemoryChunks, MemoryError, Vm, allocate_ram, give_back};

use crate::plan::Plan;

/// Why a machine's memory stays as it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResizeError {
    /// It has what it has.
    #[error("this machine has {0} of memory and can have no more or less")]
    Fixed(MiB),
    /// Too much or too little.
    #[error("{wanted} of memory: this machine can have {boot} to {max}")]
    Size {
        /// What it should have.
        wanted: MiB,
        /// What it started with.
        boot: MiB,
        /// The most it can have.
        max: MiB,
    },
}

/// Addresses for memory to be plugged in: nothing behind them costs anything yet.
pub(super) struct Room {
    address: u64,
    memory: GuestRam,
    blocks: Arc<Blocks>,
}

impl Room {
    /// As `plan` has it.
    pub(super) fn reserve(plan: &Plan) -> Result<Option<Self>, MemoryError> {
        let Some((address, size)) = plan.memory.pluggable else { return Ok(None) };
        let memory = allocate_ram(&[(address, size)], plan.spec.huge_pages)?;
        Ok(Some(Self { address, memory, blocks: Arc::new(Blocks::new(size)) }))
    }

    /// The chunks that it comes in, each of which takes a memory slot.
    pub(super) fn chunks(&self) -> usize {
        usize::try_from(self.blocks.chunks()).unwrap_or(usize::MAX)
    }

    /// The device that plugs it in, in the machine `vm`.
    pub(super) fn device(&self, vm: &Vm) -> MemHotplug {
        let chunks = vm.memory_chunks(&self.memory, self.blocks.chunks(), CHUNK);
        let behind = Behind { chunks, memory: self.memory.clone() };
        MemHotplug::new(self.address, Arc::clone(&self.blocks), Arc::new(behind))
    }
}

/// The memory that devices see: `fixed` and what is plugged in.
pub(super) fn seen(fixed: &GuestRam, room: Option<&Room>) -> Result<ports::Ram, MemoryError> {
    let Some(room) = room else { return Ok(ram::fixed(fixed.clone())) };
    let (start, size) = (room.address, u64::from(room.blocks.chunks()) * CHUNK);
    ram::growing(fixed.clone(), room.memory.clone(), &room.blocks)
        .map_err(|_| MemoryError::Range { start, size })
}

/// What is behind the device.
struct Behind {
    chunks: MemoryChunks,
    memory: GuestRam,
}

impl Reclaim for Behind {
    fn give_back(&self, address: u64, len: u64) -> io::Result<()> {
        give_back(&self.memory, address, len)
    }
}

impl ports::MemoryChunks for Behind {
    fn map(&self, index: u32) -> io::Result<()> {
        self.chunks.map(index).map_err(io::Error::other)
    }

    fn unmap(&self, index: u32) {
        // A chunk that is still there has nothing plugged in: what the guest writes to it comes to nothing for others.
        let _ = self.chunks.unmap(index);
    }
}

/// Takes back memory that the guest does not use, wherever it is.
pub(super) struct Returned(Vec<GuestRam>);

impl Returned {
    /// Of a machine with this memory.
    pub(super) fn new(fixed: &GuestRam, room: Option<&Room>) -> Self {
        let plugged = room.map(|room| room.memory.clone());
        Self([Some(fixed.clone()), plugged].into_iter().flatten().collect())
    }
}

impl Reclaim for Returned {
    fn give_back(&self, address: u64, len: u64) -> io::Result<()> {
        self.0.iter().try_for_each(|memory| give_back(memory, address, len))
    }
}

/// How much memory a guest has.
#[derive(Clone)]
pub(super) struct GuestMemory {
    boot: MiB,
    max: MiB,
    plugged: Option<MemorySize>,
}

impl GuestMemory {
    /// That of a machine as `spec` has it, whose memory device tells its size.
    pub(super) fn new(spec: &MachineSpec, plugged: Option<MemorySize>) -> Self {
        Self { boot: spec.memory, max: spec.all_memory(), plugged }
    }

    /// Has the guest take or give back memory until it has `wanted`.
    pub(super) fn set(&self, wanted: MiB) -> Result<MemoryState, ResizeError> {
        let Self { boot, max, plugged } = self;
        let plugged = plugged.as_ref().ok_or(ResizeError::Fixed(*boot))?;
        if !(boot..=max).contains(&&wanted) {
            return Err(ResizeError::Size { wanted, boot: *boot, max: *max });
        }
        plugged.request(wanted.bytes() - boot.bytes());
        Ok(self.state())
    }

    /// What it has, and shall have.
    pub(super) fn state(&self) -> MemoryState {
        let total = |of: fn(&MemorySize) -> u64| {
            let more = self.plugged.as_ref().map_or(0, of) >> 20;
            MiB(self.boot.0.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)))
        };
        MemoryState { wanted: total(MemorySize::requested), present: total(MemorySize::plugged) }
    }
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod memory_test;
