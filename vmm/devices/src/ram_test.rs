//! What devices see of memory that comes and goes.

use vm_memory::{Bytes, Permissions};

use super::*;
use crate::virtio::mem::{Segment, read_file};
use crate::virtio::mem_hotplug::{BLOCK, CHUNK};

const REGION: u64 = 1 << 32;

fn memory(start: u64, size: u64) -> GuestMemoryMmap<()> {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(start), size.try_into().unwrap())]).unwrap()
}

fn machine() -> (Ram, Arc<Blocks>) {
    let blocks = Arc::new(Blocks::new(CHUNK));
    (growing(memory(0, 0x1000), memory(REGION, CHUNK), &blocks).unwrap(), blocks)
}

#[test]
fn what_is_not_plugged_in_is_no_memory() {
    let (ram, blocks) = machine();
    ram.write_obj(7u32, GuestAddress(0)).unwrap();
    assert!(ram.write_obj(7u32, GuestAddress(REGION)).is_err());
    blocks.set(0..1, true);
    ram.write_obj(7u32, GuestAddress(REGION)).unwrap();
    let last = GuestAddress(REGION + BLOCK - 4);
    ram.write_obj(9u32, last).unwrap();
    assert!(ram.write_obj(9u64, last).is_err(), "half of it is in the next block");
    assert!(ram.read_obj::<u8>(GuestAddress(REGION + CHUNK - 1)).is_err());
    blocks.set(0..1, false);
    assert!(ram.read_obj::<u32>(last).is_err());
    assert_eq!(ram.read_obj::<u32>(GuestAddress(0)).unwrap(), 7);
}

#[test]
fn a_device_is_sent_there_in_vain() {
    use std::io::Write;
    use vm_memory::GuestMemory;
    let (ram, blocks) = machine();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"data").unwrap();
    let there = [Segment { address: GuestAddress(REGION), len: 4 }];
    let error = read_file(&ram, &there, &file, 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    assert!(!GuestMemory::check_range(&ram, GuestAddress(REGION), 4, Permissions::Write));
    blocks.set(0..64, true);
    let all = CHUNK.try_into().unwrap();
    assert!(GuestMemory::check_range(&ram, GuestAddress(REGION), all, Permissions::Write));
    read_file(&ram, &there, &file, 0).unwrap();
    assert_eq!(&ram.read_obj::<[u8; 4]>(GuestAddress(REGION)).unwrap(), b"data");
}

#[test]
fn regions_that_overlap_are_refused() {
    let blocks = Arc::new(Blocks::new(CHUNK));
    assert!(growing(memory(0, 0x2000), memory(0x1000, 0x1000), &blocks).is_err());
    assert_eq!(fixed(memory(0, 0x1000)).num_regions(), 1);
}
