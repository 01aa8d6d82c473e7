//! Chains and headers, without a device.

use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;
use vm_memory::GuestAddress;

use super::*;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A chain of buffers of these lengths and directions.
fn chain(buffers: &[(u32, bool)]) -> Vec<Descriptor> {
    let last = buffers.len().saturating_sub(1);
    let flags = |index, write| if index == last { 0 } else { NEXT } | if write { WRITE } else { 0 };
    let describe = |(index, &(len, write))| Descriptor::new(0x1000, len, flags(index, write), 1);
    buffers.iter().enumerate().map(describe).collect()
}

fn fill(chain: Vec<Descriptor>) -> (Parts, Result<(), Malformed>) {
    let mut parts = Parts::default();
    let filled = parts.fill(chain.into_iter());
    (parts, filled)
}

#[test]
fn a_chain_is_sorted_into_request_and_reply() {
    let (parts, filled) = fill(chain(&[(40, false), (8, false), (16, true), (4096, true)]));
    filled.unwrap();
    assert_eq!((parts.sent(), parts.room()), (Some(48), Some(4112)));
}

#[test]
fn a_request_may_get_no_reply() {
    let (parts, filled) = fill(chain(&[(56, false)]));
    filled.unwrap();
    assert_eq!(parts.room(), Some(0));
}

#[test]
fn what_is_no_request_is_refused() {
    let of = |buffers: &[(u32, bool)]| fill(chain(buffers)).1.unwrap_err();
    assert_eq!(of(&[(39, false), (16, true)]), Malformed::Header);
    assert_eq!(of(&[(40, false), (15, true)]), Malformed::Header);
    assert_eq!(of(&[(40, false), (16, true), (8, false)]), Malformed::Order);
    assert_eq!(of(&[]), Malformed::Broken);
    let large = u32::try_from(SLOT_BYTES).unwrap();
    assert_eq!(of(&[(large, false), (16, true)]), Malformed::TooLarge);
    assert_eq!(of(&[(40, false), (large, true)]), Malformed::TooLarge);
    assert_eq!(of(&[(u32::MAX, false), (u32::MAX, true)]), Malformed::TooLarge);
    assert_eq!(of(&[(8, false); 1025]), Malformed::TooLong);
    let unfinished = vec![Descriptor::new(0, 40, NEXT, 1)];
    assert_eq!(fill(unfinished).1, Err(Malformed::Broken));
    let around = vec![Descriptor::new(u64::MAX - 3, 40, 0, 0)];
    assert_eq!(fill(around).1, Err(Malformed::Address));
}

#[test]
fn the_largest_write_and_read_of_linux_fit() {
    fill(chain(&[(40, false), (40, false), (1 << 20, false), (16, true), (8, true)])).1.unwrap();
    fill(chain(&[(40, false), (40, false), (16, true), (1 << 20, true)])).1.unwrap();
}

#[test]
fn headers_are_where_linux_has_them() {
    let mut bytes = [0; IN_HEADER];
    for (byte, value) in bytes.iter_mut().zip(1u8..) {
        *byte = value;
    }
    let header = InHeader::parse(&bytes);
    assert_eq!(header.len, 0x0403_0201);
    assert_eq!(header.opcode, 0x0807_0605);
    assert_eq!(header.unique, 0x100f_0e0d_0c0b_0a09);
    assert_eq!(header.node, 0x1817_1615_1413_1211);
    let failed = OutHeader::failed(5, 7);
    assert_eq!(failed.bytes(), [16, 0, 0, 0, 0xfb, 0xff, 0xff, 0xff, 7, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(OutHeader::parse(&failed.bytes()), failed);
}

#[test]
fn only_a_proper_reply_answers() {
    let request = InHeader { len: 40, opcode: 3, unique: 9, node: 1 };
    let reply = OutHeader { len: 120, error: 0, unique: 9 };
    assert!(reply.answers(&request, 120));
    assert!(!reply.answers(&request, 121), "another length");
    assert!(!OutHeader { unique: 8, ..reply }.answers(&request, 120), "another request");
    assert!(OutHeader::failed(2, 9).answers(&request, 16));
    assert!(!OutHeader { error: -2, ..reply }.answers(&request, 120), "more than an error");
    assert!(!OutHeader::failed(-2, 9).answers(&request, 16), "a positive error");
    assert!(!OutHeader::failed(512, 9).answers(&request, 16), "an error of the kernel's own");
    assert!(!OutHeader { len: 15, error: 0, unique: 9 }.answers(&request, 15), "no header");
}

proptest! {
    #[test]
    fn what_is_collected_fits_a_slot(
        buffers in proptest::collection::vec((0u64.., 0u32..1 << 21, any::<bool>()), 0..40),
        flags in proptest::collection::vec(any::<u16>(), 40),
    ) {
        let buffers = buffers.into_iter().zip(flags);
        let describe = |((at, len, write), flags): ((u64, u32, bool), u16)| {
            let flags = flags & NEXT | if write { WRITE } else { 0 };
            Descriptor::new(at, len, flags, 0)
        };
        let (parts, filled) = fill(buffers.map(describe).collect());
        if filled.is_ok() {
            let (sent, room) = (parts.sent().unwrap(), parts.room().unwrap());
            prop_assert!(sent >= IN_HEADER && (room == 0 || room >= OUT_HEADER));
            prop_assert!(reply_offset(sent).unwrap() + room <= SLOT_BYTES);
            for segment in parts.request.iter().chain(&parts.reply) {
                let GuestAddress(at) = segment.address;
                prop_assert!(at.checked_add(segment.len.into()).is_some());
            }
        }
    }
}
