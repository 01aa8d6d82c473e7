use std::os::unix::fs::FileExt;

use tempfile::tempfile;
use vm_memory::Bytes;

use super::*;

fn segment(address: u64, len: u32) -> Segment {
    Segment { address: GuestAddress(address), len }
}

/// Two regions side by side, then a hole, then one page.
fn ram() -> Ram {
    let page = 0x1000;
    let at = GuestAddress;
    crate::ram::fixed(
        vm_memory::GuestMemoryMmap::from_ranges(&[
            (at(0), page),
            (at(0x1000), page),
            (at(0x8000), page),
        ])
        .unwrap(),
    )
}

#[test]
fn moves_across_regions_and_segments() {
    let (ram, file) = (ram(), tempfile().unwrap());
    let bytes: Vec<u8> = (0..=255).cycle().take(0x1800).collect();
    file.write_all_at(&bytes, 512).unwrap();
    let segments = [segment(0x800, 0x1000), segment(0x8000, 0), segment(0x8000, 0x800)];
    read_file(&ram, &segments, &file, 512).unwrap();
    let mut seen = vec![0; 0x1000];
    ram.read_slice(&mut seen, GuestAddress(0x800)).unwrap();
    assert_eq!(seen, bytes[..0x1000]);

    write_file(&ram, &segments, &file, 0x4000).unwrap();
    let mut copy = vec![0; 0x1800];
    file.read_exact_at(&mut copy, 0x4000).unwrap();
    assert_eq!(copy, bytes);
}

#[test]
fn more_buffers_than_one_call_takes() {
    let (ram, file) = (ram(), tempfile().unwrap());
    let bytes: Vec<u8> = (0..=255).cycle().take(3000).collect();
    ram.write_slice(&bytes, GuestAddress(0)).unwrap();
    let segments: Vec<_> = (0..3000).map(|i| segment(i, 1)).collect();
    write_file(&ram, &segments, &file, 0).unwrap();
    let mut copy = vec![0; 3000];
    file.read_exact_at(&mut copy, 0).unwrap();
    assert_eq!(copy, bytes);
}

#[test]
fn nothing_outside_of_memory_is_touched() {
    let (ram, file) = (ram(), tempfile().unwrap());
    file.set_len(0x10000).unwrap();
    for bad in
        [segment(0x1800, 0x1000), segment(0x2000, 1), segment(u64::MAX, 2), segment(0, u32::MAX)]
    {
        for result in [read_file(&ram, &[bad], &file, 0), write_file(&ram, &[bad], &file, 0)] {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EFAULT), "{bad:?}");
        }
    }
}

#[test]
fn the_end_of_the_file_and_absurd_offsets_are_errors() {
    let (ram, file) = (ram(), tempfile().unwrap());
    file.set_len(100).unwrap();
    let error = read_file(&ram, &[segment(0, 200)], &file, 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(write_file(&ram, &[segment(0, 1)], &file, u64::MAX).is_err());
    assert!(read_file(&ram, &[], &file, u64::MAX).is_ok());
}

#[test]
fn random_bytes_differ() {
    let (mut one, mut other) = ([0; 1000], [0; 1000]);
    random(&mut one).unwrap();
    random(&mut other).unwrap();
    assert_ne!(one, other);
}
