use proptest::prelude::*;

use super::super::features::{MRG_RXBUF, OFFLOADS, UDP_OFFLOADS};
use super::*;

const ALL: u64 = OFFLOADS | UDP_OFFLOADS;

/// flags, gso type, header length, segment size, checksum start and offset.
fn header(flags: u8, gso: u8, words: [u16; 4]) -> [u8; 12] {
    let mut header = [0; 12];
    header[..2].copy_from_slice(&[flags, gso]);
    for (at, word) in (2..).step_by(2).zip(words) {
        header[at..at + 2].copy_from_slice(&word.to_le_bytes());
    }
    header
}

#[test]
fn a_plain_frame_has_an_empty_header() {
    let noisy = header(0, 0, [1, 2, 3, 4]);
    assert_eq!(check(noisy, 60, ALL), Ok([0; 12]));
    // Flags that the driver may not set, and the number of buffers.
    let mut noisy = header(0xfe, 0, [0; 4]);
    noisy[10] = 7;
    assert_eq!(check(noisy, 60, 0), Ok([0; 12]));
}

#[test]
fn what_was_agreed_on_passes() {
    for gso in [GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, GSO_TCPV4 | GSO_ECN, GSO_TCPV6 | GSO_ECN] {
        let large = header(1, gso, [54, 1448, 34, 16]);
        assert_eq!(check(large, 60_000, ALL), Ok(large));
        assert_eq!(check(large, 60_000, CSUM), Err(BadHeader::Feature), "type {gso}");
    }
    let checksum = header(1, 0, [0, 0, 34, 16]);
    assert_eq!(check(checksum, 60, CSUM), Ok(checksum));
    assert_eq!(check(checksum, 60, ALL & !CSUM), Err(BadHeader::Feature));
    let ecn = header(1, GSO_TCPV4 | GSO_ECN, [54, 1448, 34, 16]);
    assert_eq!(check(ecn, 60_000, ALL & !HOST_ECN), Err(BadHeader::Feature));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let large = |words| header(1, GSO_TCPV4, words);
    for (bad, len, why) in [
        ([0; 12], 13, BadHeader::Length(13)),
        ([0; 12], MAX_FRAME + 1, BadHeader::Length(MAX_FRAME + 1)),
        (header(1, 0, [0, 0, 34, 25]), 60, BadHeader::Checksum),
        (header(1, 0, [0, 0, u16::MAX, u16::MAX]), 60, BadHeader::Checksum),
        (header(0, GSO_TCPV4, [54, 1448, 34, 16]), 6000, BadHeader::Checksum),
        (large([54, 0, 34, 16]), 6000, BadHeader::Segments(0)),
        (large([54, 1, 34, 16]), 6000, BadHeader::Segments(1)),
        (large([6001, 1448, 34, 16]), 6000, BadHeader::HeaderLength),
        // UFO is gone; VLAN, unknown ones, ECN without TCP.
        (header(1, 3, [54, 1448, 34, 16]), 6000, BadHeader::Feature),
        (header(1, 2, [54, 1448, 34, 16]), 6000, BadHeader::Feature),
        (header(1, 0x80, [54, 1448, 34, 16]), 6000, BadHeader::Feature),
        (header(1, 0x85, [54, 1448, 34, 16]), 6000, BadHeader::Feature),
    ] {
        assert_eq!(check(bad, len, ALL), Err(why), "{bad:?}");
    }
    assert_eq!(check(header(1, 0, [0, 0, 34, 24]), 60, ALL), Ok(header(1, 0, [0, 0, 34, 24])));
}

#[test]
fn the_longest_packet_depends_on_what_is_taken() {
    assert_eq!(longest(MRG_RXBUF, 1500), 12 + 1518);
    assert_eq!(longest(GUEST_CSUM, 9000), 12 + 9018);
    assert_eq!(longest(GUEST_TSO4, 1500), 12 + 1518);
    assert_eq!(longest(GUEST_CSUM | GUEST_TSO6, 1500), 12 + MAX_FRAME);
}

proptest! {
    /// What passes stays within its frame and within what was agreed on, and passes again as it is.
    #[test]
    fn never_beyond_the_frame(header: [u8; 12], likely: bool, len in 0u32..70_000, features: u64) {
        let mut header = header;
        if likely {
            header[0] = 1;
            header[1] &= 0x85;
        }
        let Ok(checked) = check(header, len, features) else { return Ok(()) };
        let word = |at: usize| u32::from(u16::from_le_bytes([checked[at], checked[at + 1]]));
        prop_assert!((14..=MAX_FRAME).contains(&len));
        prop_assert!(checked[0] <= 1 && checked[10..] == [0, 0]);
        if checked[0] == 1 {
            prop_assert!(features & CSUM != 0 && word(6) + word(8) + 2 <= len);
        } else {
            prop_assert_eq!(checked, [0; 12]);
        }
        if checked[1] != 0 {
            prop_assert!(checked[0] == 1 && features & (HOST_TSO4 | HOST_TSO6 | HOST_USO) != 0);
            prop_assert!(word(2) <= len && len.div_ceil(word(4)) <= MAX_SEGMENTS);
        } else {
            prop_assert_eq!((word(2), word(4)), (0, 0));
        }
        prop_assert_eq!(check(checked, len, features), Ok(checked));
    }
}
