//! The memory of a descriptor chain (virtio 1.2, 2.7.5) as a list of slices.
//!
//! Invariant: at most [`MAX_SLICES`] slices, each within guest memory; a chain that loops, is longer or
//! points elsewhere is cut off there.

use virtio_queue::DescriptorChain;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{GuestMemory, Permissions, VolatileSlice};

use crate::ports::Ram;

/// Most pieces of memory of one packet; Linux uses two, and with zero-copy sends a few more.
const MAX_SLICES: usize = 64;

/// A piece of guest memory.
pub(super) type Slice<'m> = VolatileSlice<'m, ()>;

/// The readable or the writable part of a chain.
#[derive(Debug)]
pub(super) struct Buffers<'m> {
    slices: Vec<Slice<'m>>,
    len: usize,
}

impl<'m> Buffers<'m> {
    /// What the guest wrote for the device.
    pub(super) fn readable(ram: &'m Ram, chain: DescriptorChain<&Ram>) -> Self {
        Self::collect(ram, chain.take(MAX_SLICES).filter(|d| !d.is_write_only()), Permissions::Read)
    }

    /// What the guest left room for.
    pub(super) fn writable(ram: &'m Ram, chain: DescriptorChain<&Ram>) -> Self {
        Self::collect(ram, chain.take(MAX_SLICES).filter(|d| d.is_write_only()), Permissions::Write)
    }

    fn collect(
        ram: &'m Ram,
        descriptors: impl Iterator<Item = Descriptor>,
        access: Permissions,
    ) -> Self {
        let mut buffers = Self { slices: Vec::with_capacity(2), len: 0 };
        for descriptor in descriptors {
            let Ok(len) = usize::try_from(descriptor.len()) else { break };
            let Ok(slices) = ram.get_slices(descriptor.addr(), len, access) else { break };
            for slice in slices {
                let Ok(slice) = slice else { return buffers };
                if buffers.slices.len() == MAX_SLICES {
                    return buffers;
                }
                buffers.len += slice.len();
                buffers.slices.push(slice);
            }
        }
        buffers
    }

    /// These pieces.
    #[cfg(test)]
    pub(super) fn of(slices: Vec<Slice<'m>>) -> Self {
        let len = slices.iter().map(|slice| slice.len()).sum();
        Self { slices, len }
    }

    /// Bytes in all.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The first `N` bytes, if there are so many. They are read once: the guest may change them meanwhile.
    pub(super) fn read_first<const N: usize>(&self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let mut at = 0;
        for slice in self.range(0, N) {
            at += slice.copy_to(&mut bytes[at..]);
        }
        (at == N).then_some(bytes)
    }

    /// Writes to the beginning; what does not fit is left out.
    pub(super) fn write_first(&self, mut bytes: &[u8]) {
        for slice in self.range(0, bytes.len()) {
            let (now, later) = bytes.split_at(slice.len().min(bytes.len()));
            slice.copy_from(now);
            bytes = later;
        }
    }

    /// The pieces of `len` bytes from `start` on, fewer if there are fewer.
    pub(super) fn range(&self, start: usize, len: usize) -> impl Iterator<Item = Slice<'m>> {
        let mut skip = start;
        let mut left = len;
        self.slices.iter().filter_map(move |slice| {
            let from = skip.min(slice.len());
            skip -= from;
            let count = left.min(slice.len() - from);
            left -= count;
            if count == 0 { None } else { slice.subslice(from, count).ok() }
        })
    }
}

#[cfg(test)]
#[path = "chain_test.rs"]
mod chain_test;
