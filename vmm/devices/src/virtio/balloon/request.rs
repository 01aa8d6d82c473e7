//! Which ranges of memory a chain names (virtio 1.2, 5.5.6).
//!
//! Invariant: the work and the memory that one chain costs are bounded, whatever it says.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, GuestAddress};

use crate::ports::Ram;

/// Bytes of a page, whatever the guest's pages are (virtio 1.2, 5.5.6).
const PAGE: u64 = 4096;

/// Bytes of a page number.
const PFN: usize = 4;

/// Most page numbers of one chain; Linux sends 256. The others stay the guest's.
const MAX_PFNS: usize = 4096;

/// Most buffers of one chain that are looked at; Linux sends 32. What the others name stays the guest's.
const MAX_BUFFERS: usize = 64;

/// Calls `give_back` with address and bytes of the pages in a list of page numbers.
pub(super) fn inflate(
    ram: &Ram,
    chain: impl Iterator<Item = Descriptor>,
    mut give_back: impl FnMut(u64, u64),
) {
    let mut pfns = Vec::new();
    for descriptor in chain.take(MAX_BUFFERS).filter(|descriptor| !descriptor.is_write_only()) {
        let wanted = usize::try_from(descriptor.len()).unwrap_or(usize::MAX) / PFN;
        for index in 0..wanted.min(MAX_PFNS - pfns.len()) {
            let at = descriptor.addr().checked_add((index * PFN) as u64);
            let Some(pfn) = at.and_then(|at| read_pfn(ram, at)) else { break };
            pfns.push(pfn);
        }
    }
    for (address, len) in runs(pfns) {
        give_back(address, len);
    }
}

fn read_pfn(ram: &Ram, at: GuestAddress) -> Option<u32> {
    ram.read_obj::<u32>(at).ok().map(u32::from_le)
}

/// Address and bytes of each run of consecutive pages.
fn runs(mut pfns: Vec<u32>) -> Vec<(u64, u64)> {
    pfns.sort_unstable();
    pfns.dedup();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for pfn in pfns {
        let address = u64::from(pfn) * PAGE;
        match runs.last_mut() {
            Some((start, len)) if *start + *len == address => *len += PAGE,
            _ => runs.push((address, PAGE)),
        }
    }
    runs
}

/// Calls `give_back` with address and bytes of each reported block: the buffers themselves.
pub(super) fn report(chain: impl Iterator<Item = Descriptor>, mut give_back: impl FnMut(u64, u64)) {
    // A buffer that the device may not write is no report.
    for descriptor in chain.take(MAX_BUFFERS).filter(|descriptor| descriptor.is_write_only()) {
        give_back(descriptor.addr().0, descriptor.len().into());
    }
}
