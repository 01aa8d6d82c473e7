//! Notes, sound and hostile.

use proptest::prelude::*;

use super::*;

fn note(name: &[u8], kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [name.len(), contents.len()] {
        note.extend(u32::try_from(word).unwrap().to_le_bytes());
    }
    note.extend(kind.to_le_bytes());
    for part in [name, contents] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

#[test]
fn notes_are_told_apart() {
    let bytes = [
        note(b"GNU\0", 3, &[7; 20]),
        note(b"Linux\0", 0x100, &[1; 3]),
        note(b"Xen\0", PVH_ENTRY, &0x100_0000_u64.to_le_bytes()),
    ]
    .concat();
    let expected: [(&[u8], u32, &[u8]); 3] = [
        (b"GNU\0", 3, &[7; 20]),
        (b"Linux\0", 0x100, &[1; 3]),
        (b"Xen\0", PVH_ENTRY, &[0, 0, 0, 1, 0, 0, 0, 0]),
    ];
    assert_eq!(notes(&bytes), expected);
    assert_eq!(notes(&bytes[..bytes.len() - 1]), expected[..2]);
    assert!(notes(&[]).is_empty());
}

#[test]
fn notes_that_lie_about_their_size_are_none() {
    let sound = note(b"Xen\0", PVH_ENTRY, &[1; 4]);
    for field in [0..4, 4..8] {
        let mut long = sound.clone();
        long[field].fill(0xff);
        assert!(notes(&long).is_empty());
    }
}

/// What is read from a file with `segments` (kind, flags, contents), loaded one behind the other.
fn parsed(segments: &[(u32, u32, Vec<u8>)]) -> Elf {
    let mut bytes = vec![0; 0x210];
    bytes[4] = CLASS_64;
    bytes[18] = 62;
    bytes[24..32].copy_from_slice(&HIGH_RAM.to_le_bytes());
    bytes[32..40].copy_from_slice(&FILE_HEADER.to_le_bytes());
    bytes[54] = 56;
    bytes[56] = u8::try_from(segments.len()).unwrap();
    for (index, (kind, flags, contents)) in segments.iter().enumerate() {
        let (at, size) = (64 + index * PROGRAM_HEADER, contents.len() as u64);
        let offset = bytes.len() as u64;
        let numbers = [offset, 0, HIGH_RAM + offset, size, size, 1];
        bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&flags.to_le_bytes());
        let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        bytes[at + 8..at + 56].copy_from_slice(&numbers);
        bytes.extend(contents);
    }
    // Two sections: code, and data of which nothing is in the file.
    let table = bytes.len() as u64;
    for (kind, flags) in [(1, EXECUTABLE), (NO_BITS, EXECUTABLE), (1, 2)] {
        let mut header = [0; SECTION_HEADER];
        header[4..8].copy_from_slice(&u32::to_le_bytes(kind));
        header[8..16].copy_from_slice(&flags.to_le_bytes());
        header[24..32].copy_from_slice(&0x210_u64.to_le_bytes());
        header[32..40].copy_from_slice(&3_u64.to_le_bytes());
        bytes.extend(header);
    }
    bytes[40..48].copy_from_slice(&table.to_le_bytes());
    bytes[58] = 64;
    bytes[60] = 3;
    let size = bytes.len() as u64;
    parse(&crate::testing::file(&bytes), &bytes[..0x210], size).unwrap()
}

#[test]
fn linux_says_so_and_what_it_changes_is_known() {
    let xen = note(b"Xen\0", PVH_ENTRY, &0x100_0000_u32.to_le_bytes());
    let both = [xen.clone(), note(b"Linux\0", 0x101, &[0; 4])].concat();
    for (contents, linux) in [(xen, false), (both, true)] {
        let elf =
            parsed(&[(PT_LOAD, 5, vec![1; 10]), (PT_LOAD, 6, vec![2; 20]), (PT_NOTE, 4, contents)]);
        assert_eq!((elf.linux, elf.pvh_entry), (linux, Some(0x100_0000)));
        assert_eq!(elf.changed, [0x210..0x213, 0x21a..0x22e]);
        assert_eq!((elf.start, elf.end), (HIGH_RAM + 0x210, HIGH_RAM + 0x22e));
    }
}

proptest! {
    #[test]
    fn no_notes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = notes(&bytes);
    }
}
