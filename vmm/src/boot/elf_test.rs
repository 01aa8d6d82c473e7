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
fn the_pvh_entry_is_found_among_others() {
    let notes = [
        note(b"GNU\0", 3, &[7; 20]),
        note(b"Linux\0", PVH_ENTRY, &[1; 4]),
        note(b"Xen\0", 6, b"linux\0"),
        note(b"Xen\0", PVH_ENTRY, &0x100_0000_u64.to_le_bytes()),
        note(b"Xen\0", PVH_ENTRY, &[9; 4]),
    ]
    .concat();
    assert_eq!(find_pvh_entry(&notes), Some(0x100_0000));
    assert_eq!(find_pvh_entry(&notes[..80]), None);
}

#[test]
fn notes_that_lie_about_their_size_are_no_entry() {
    let mut long = note(b"Xen\0", PVH_ENTRY, &[1; 4]);
    long[4..8].fill(0xff);
    assert_eq!(find_pvh_entry(&long), Some(0x0101_0101), "only four bytes matter");
    long[0..4].fill(0xff);
    assert_eq!(find_pvh_entry(&long), None);
    assert_eq!(find_pvh_entry(&note(b"Xen\0", PVH_ENTRY, &[1; 3])), None);
    assert_eq!(find_pvh_entry(&[]), None);
}

proptest! {
    #[test]
    fn no_notes_make_it_panic(notes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = find_pvh_entry(&notes);
    }
}
