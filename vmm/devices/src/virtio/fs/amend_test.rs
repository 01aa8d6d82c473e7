//! What is changed in replies, and what is not.

use super::*;

fn header(opcode: u32, node: u64) -> InHeader {
    InHeader { opcode, node, ..InHeader::default() }
}

/// A request of `FUSE_INIT` behind its header, with these flags.
fn init(flags: u32, flags2: u32) -> Vec<u8> {
    let words = [7, 40, 0, flags, flags2, 0, 0];
    words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect()
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn id_maps_are_allowed_to_a_driver_that_knows_them() {
    let mut reply = vec![0; 80];
    put(&mut reply, OUT_FLAGS, 1);
    // Without the flag that makes it valid, this word means nothing.
    put(&mut reply, OUT_FLAGS2, 4);
    amend(&header(INIT, 0), &init(INIT_EXT, ALLOW_IDMAP), &mut reply);
    assert_eq!(word(&reply, OUT_FLAGS), 1 | INIT_EXT);
    assert_eq!(word(&reply, OUT_FLAGS2), ALLOW_IDMAP);
    put(&mut reply, OUT_FLAGS2, 4);
    amend(&header(INIT, 0), &init(INIT_EXT, ALLOW_IDMAP), &mut reply);
    assert_eq!(word(&reply, OUT_FLAGS2), 4 | ALLOW_IDMAP);
}

#[test]
fn a_driver_that_does_not_know_them_is_told_nothing() {
    for request in [init(0, ALLOW_IDMAP), init(INIT_EXT, 0), Vec::new()] {
        let mut reply = vec![0; 80];
        amend(&header(INIT, 0), &request, &mut reply);
        assert_eq!(reply, [0; 80]);
    }
}

#[test]
fn a_short_reply_stays_short_and_as_it_is() {
    let mut reply = vec![0; 40];
    amend(&header(INIT, 0), &init(INIT_EXT, ALLOW_IDMAP), &mut reply);
    assert_eq!(reply, [0; 40]);
}

#[test]
fn a_volume_to_be_mapped_is_no_submount_and_another_one_is() {
    for (node, name, opcode, expected) in [
        (ROOT, &b"m0\0"[..], LOOKUP, 6),
        (ROOT, b"0\0", LOOKUP, 7),
        (2, b"m0\0", LOOKUP, 7),
        (ROOT, b"m0\0", 3, 7),
        (ROOT, b"", LOOKUP, 7),
    ] {
        let mut reply = vec![0; 16 + 40 + 88];
        put(&mut reply, ENTRY_FLAGS, 7);
        amend(&header(opcode, node), name, &mut reply);
        assert_eq!(word(&reply, ENTRY_FLAGS), expected, "{node} {name:?} {opcode}");
    }
}
