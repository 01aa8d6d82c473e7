//! One sealed file behind all ranges.

use std::os::unix::fs::MetadataExt;

use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion};

use super::*;

#[test]
fn ranges_share_one_sealed_file() {
    let ram = allocate_ram(&[(0, 0x10_0000), (0x1_0000_0000, 0x20_0000)]).unwrap();
    let files: Vec<_> = ram.iter().map(|region| region.file_offset().unwrap().clone()).collect();
    assert_eq!(files[0].start(), 0);
    assert_eq!(files[1].start(), 0x10_0000);
    assert_eq!(
        files[0].file().metadata().unwrap().ino(),
        files[1].file().metadata().unwrap().ino()
    );
    assert!(files[0].file().set_len(0).is_err());
}

#[test]
fn it_reads_as_zero_and_keeps_what_is_written() {
    let ram = allocate_ram(&[(0, 0x1000), (0x1_0000_0000, 0x1000)]).unwrap();
    let address = GuestAddress(0x1_0000_0ff8);
    assert_eq!(ram.read_obj::<u64>(address).unwrap(), 0);
    ram.write_obj(0x1234_u64, address).unwrap();
    assert_eq!(ram.read_obj::<u64>(address).unwrap(), 0x1234);
    assert!(ram.write_obj(0_u64, GuestAddress(0x1000)).is_err());
}

#[test]
fn impossible_ranges_are_refused() {
    assert!(allocate_ram(&[(0, 0x2000), (0x1000, 0x2000)]).is_err());
    assert!(allocate_ram(&[(u64::MAX - 0xfff, 0x2000)]).is_err());
    assert!(allocate_ram(&[(0, u64::MAX)]).is_err());
    assert!(allocate_ram(&[]).is_err());
}
