//! What is copied goes where it should, and nothing else.

use cofferdam_vmm_hv::allocate_ram;

use vm_memory::Bytes;

use super::*;
use crate::testing::file;

const HIGH: u64 = 1 << 32;

fn ram() -> GuestRam {
    allocate_ram(&[(0, 0x4000), (HIGH, 0x4000)], false).unwrap()
}

fn bytes(ram: &GuestRam, at: u64) -> [u8; 6] {
    let mut bytes = [0; 6];
    ram.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

#[test]
fn it_copies_to_any_region_and_nothing_more() {
    let short = file(b"0123456789");
    for to in [0x1234, HIGH + 0x567] {
        let ram = ram();
        copy(&ram, &short, Span { offset: 2, to, size: 4 }).unwrap();
        assert_eq!(&bytes(&ram, to - 1), b"\x002345\0");
    }
    let words: Vec<u8> = (0..0x3000_u32).flat_map(u32::to_le_bytes).collect();
    let (ram, long) = (ram(), file(&words));
    copy(&ram, &long, Span { offset: 0x1804, to: 0x123, size: 0x3201 }).unwrap();
    let mut copied = vec![0; 0x3203];
    ram.read_slice(&mut copied, GuestAddress(0x122)).unwrap();
    assert_eq!((copied[0], copied[0x3202]), (0, 0));
    assert_eq!(copied[1..0x3202], words[0x1804..0x4a05]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let file = file(&[1; 0x5000]);
    for (to, size) in [(0x3fff, 2), (0x4000, 1), (HIGH + 0x4000, 1), (0, 0x4001), (0, u64::MAX)] {
        assert!(copy(&ram(), &file, Span { offset: 0, to, size }).is_err(), "{to:#x} {size:#x}");
    }
}

#[test]
fn a_file_that_ends_early_is_an_error() {
    let error = copy(&ram(), &file(b"abc"), Span { offset: 1, to: 0, size: 3 }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn nothing_is_copied_from_what_cannot_be() {
    let directory = File::open("/").unwrap();
    assert!(copy(&ram(), &directory, Span { offset: 0, to: 0, size: 3 }).is_err());
    copy(&ram(), &directory, Span { offset: 0, to: 0, size: 0 }).unwrap();
}
