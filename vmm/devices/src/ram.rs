//! The guest's memory as devices see it.
//!
//! Memory that is plugged in and out is there for devices as far as it is plugged in: anything else of its region is no
//! memory, and a device that is sent there fails as with any other address without memory. An operation that is under
//! way when its block is plugged out goes on. What it writes then takes room of the host, no more than the queues hold,
//! until anything is plugged out again; it is seen by the same guest alone.
//!
//! Invariant: whatever a device does, the host's addresses that it got from here stay mapped.

use std::sync::Arc;

use vm_memory::guest_memory::Error;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestMemoryRegionBytes,
    GuestRegionCollection, GuestRegionCollectionError, GuestRegionMmap, GuestUsize,
    MemoryRegionAddress, VolatileSlice,
};

use crate::virtio::mem_hotplug::Blocks;

/// The guest's memory; cheap to clone.
pub type Ram = GuestRegionCollection<RamRegion>;

/// A region of it.
#[derive(Debug)]
pub struct RamRegion {
    memory: Arc<GuestRegionMmap<()>>,
    /// Which of its blocks are there; without it all of the region is.
    plugged: Option<Arc<Blocks>>,
}

/// Memory that is there for the machine's whole life.
#[must_use]
pub fn fixed(memory: GuestMemoryMmap<()>) -> Ram {
    Ram::from_arc_regions(regions(memory, None)).unwrap_or_default()
}

/// The same, and that of `region`, as far as `blocks` says.
///
/// # Errors
/// If they overlap, or the region comes first.
pub fn growing(
    memory: GuestMemoryMmap<()>,
    region: GuestMemoryMmap<()>,
    blocks: &Arc<Blocks>,
) -> Result<Ram, GuestRegionCollectionError> {
    let mut all = regions(memory, None);
    all.extend(regions(region, Some(blocks)));
    Ram::from_arc_regions(all)
}

/// The regions of `memory`, by rising address.
fn regions(mut memory: GuestMemoryMmap<()>, blocks: Option<&Arc<Blocks>>) -> Vec<Arc<RamRegion>> {
    let places: Vec<_> = memory.iter().map(|r| (r.start_addr(), r.len())).collect();
    let mut regions = Vec::new();
    for (start, size) in places {
        // It was just listed.
        let Ok((rest, region)) = memory.remove_region(start, size) else { continue };
        regions.push(Arc::new(RamRegion { memory: region, plugged: blocks.cloned() }));
        memory = rest;
    }
    regions
}

impl GuestMemoryRegion for RamRegion {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.memory.len()
    }

    fn start_addr(&self) -> GuestAddress {
        self.memory.start_addr()
    }

    fn bitmap(&self) {}

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_, ()>, Error> {
        if self.plugged.as_ref().is_some_and(|blocks| !blocks.cover(offset.0, count)) {
            return Err(Error::InvalidBackendAddress);
        }
        self.memory.get_slice(offset, count)
    }
}

impl GuestMemoryRegionBytes for RamRegion {}

#[cfg(test)]
#[path = "ram_test.rs"]
mod ram_test;
