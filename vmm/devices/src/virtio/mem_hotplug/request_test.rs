//! Requests, answers and the chains that they come in.

use proptest::prelude::*;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::*;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// The bytes of a request.
pub(in super::super) fn bytes(kind: u16, address: u64, blocks: u16) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    bytes[..2].copy_from_slice(&kind.to_le_bytes());
    bytes[8..16].copy_from_slice(&address.to_le_bytes());
    bytes[16..18].copy_from_slice(&blocks.to_le_bytes());
    bytes
}

#[test]
fn each_type_is_told_apart() {
    let span = Span { address: 0x1_2345_6789, blocks: 0x102 };
    let parse = |kind| Request::parse(&bytes(kind, span.address, span.blocks));
    assert_eq!(parse(0), Some(Request::Plug(span)));
    assert_eq!(parse(1), Some(Request::Unplug(span)));
    assert_eq!(parse(2), Some(Request::UnplugAll));
    assert_eq!(parse(3), Some(Request::State(span)));
    assert_eq!((parse(4), parse(0x100)), (None, None));
}

#[test]
fn answers_are_as_the_driver_reads_them() {
    let word = |answer: Answer| (answer.bytes()[0], answer.bytes()[8]);
    let answers = [Answer::Ack, Answer::Nack, Answer::Busy, Answer::Error];
    assert_eq!(answers.map(word), [(0, 0), (1, 0), (2, 0), (3, 0)]);
    let states = [State::Plugged, State::Unplugged, State::Mixed];
    assert_eq!(states.map(|state| word(Answer::State(state))), [(0, 0), (0, 1), (0, 2)]);
}

fn ram() -> Ram {
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
    let ram = crate::ram::fixed(ram);
    ram.write_slice(&bytes(2, 0, 0), GuestAddress(0x100)).unwrap();
    ram.write_slice(&[0xee; 32], GuestAddress(0x200)).unwrap();
    ram
}

fn answered(ram: &Ram, chain: &[(u64, u32, u16)]) -> u32 {
    let chain = chain.iter().map(|&(at, len, flags)| Descriptor::new(at, len, flags, 0));
    serve(ram, chain, |request| match request {
        Some(Request::UnplugAll) => Answer::Busy,
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_request_may_be_cut_anywhere() {
    let ram = ram();
    let whole = [(0x100, 24, NEXT), (0x200, 10, WRITE)];
    assert_eq!(answered(&ram, &whole), 10);
    let cut = [(0x100, 1, NEXT), (0x101, 0, NEXT), (0x101, 30, NEXT), (0x200, 9, WRITE | NEXT)];
    let cut = [&cut[..], &[(0x209, 100, WRITE)]].concat();
    assert_eq!(answered(&ram, &cut), 10);
    let answer: [u8; 11] = ram.read_obj(GuestAddress(0x200)).unwrap();
    assert_eq!(answer, [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xee]);
}

#[test]
fn what_is_too_short_or_elsewhere_is_not_answered() {
    let ram = ram();
    for chain in [
        &[][..],
        &[(0x100, 23, NEXT), (0x200, 10, WRITE)],
        &[(0x100, 24, NEXT), (0x200, 9, WRITE)],
        &[(0x100, 24, WRITE), (0x200, 10, WRITE)],
        &[(0x3ff0, 24, NEXT), (0x200, 10, WRITE)],
        &[(u64::MAX - 7, 24, NEXT), (0x200, 10, WRITE)],
    ] {
        assert_eq!(answered(&ram, chain), 0, "{chain:?}");
    }
    assert_eq!(answered(&ram, &[(0x100, 24, NEXT), (0x3ffa, 10, WRITE)]), 0);
    assert_eq!(ram.read_obj::<[u8; 2]>(GuestAddress(0x200)).unwrap(), [0xee; 2]);
}

proptest! {
    #[test]
    fn any_chain_is_survived(
        chain in prop::collection::vec((0u64..0x5000, any::<u32>(), 0u16..4), 0..100),
        contents in prop::collection::vec(any::<u8>(), 64),
    ) {
        let ram = ram();
        ram.write_slice(&contents, GuestAddress(0x100)).unwrap();
        let chain = chain.into_iter().map(|(at, len, flags)| Descriptor::new(at, len, flags, 0));
        let written = serve(&ram, chain, |_| Answer::Nack);
        prop_assert!(written == 0 || written == 10);
    }
}
