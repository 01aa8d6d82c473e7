//! Both ways to copy give the same.

use cofferdam_vmm_hv::allocate_ram;

use super::*;
use crate::testing::file;

const HIGH: u64 = 1 << 32;

fn ram() -> GuestRam {
    allocate_ram(&[(0, 0x4000), (HIGH, 0x4000)]).unwrap()
}

fn bytes(ram: &GuestRam, at: u64) -> [u8; 6] {
    let mut bytes = [0; 6];
    ram.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

#[test]
fn it_copies_to_any_region_and_nothing_more() {
    let file = file(b"0123456789");
    for copy in [copy as fn(&GuestRam, &File, Span) -> io::Result<()>, read] {
        for to in [0x1234, HIGH + 0x567] {
            let ram = ram();
            copy(&ram, &file, Span { offset: 2, to, size: 4 }).unwrap();
            assert_eq!(&bytes(&ram, to - 1), b"\x002345\0");
        }
    }
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
