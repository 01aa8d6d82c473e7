use virtio_queue::desc::RawDescriptor;
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{Queue, QueueOwnedT};
use vm_memory::{Bytes, GuestAddress};

use super::*;

const F_NEXT: u16 = 1;
const F_WRITE: u16 = 2;

/// What the device sees of a chain of these (address, length, flags); one with `F_NEXT` in the last
/// loops.
fn with_chain<T>(
    pieces: &[(u64, u32, u16)],
    see: impl FnOnce(&Ram, DescriptorChain<&Ram>) -> T,
) -> T {
    // Two regions next to each other, so that a buffer can cross.
    let (low, high) = ((GuestAddress(0), 0x1_0000), (GuestAddress(0x1_0000), 0x1_0000));
    let ram = crate::ram::fixed(vm_memory::GuestMemoryMmap::from_ranges(&[low, high]).unwrap());
    let mock = MockSplitQueue::new(&ram, 128);
    let count = u16::try_from(pieces.len()).unwrap();
    for (index, (address, len, flags)) in (0..).zip(pieces) {
        let next = if index + 1 < count { F_NEXT } else { 0 };
        let what = Descriptor::new(*address, *len, flags | next, (index + 1) % count);
        mock.desc_table().store(index, RawDescriptor::from(what)).unwrap();
    }
    mock.avail().ring().ref_at(0).unwrap().store(0);
    mock.avail().idx().store(1);
    let mut queue: Queue = mock.create_queue().unwrap();
    let chain = queue.iter(&ram).unwrap().next().unwrap();
    see(&ram, chain)
}

fn lengths(pieces: &[(u64, u32, u16)]) -> (usize, usize) {
    with_chain(pieces, |ram, chain| {
        (Buffers::readable(ram, chain.clone()).len(), Buffers::writable(ram, chain).len())
    })
}

#[test]
fn directions_are_kept_apart() {
    let pieces = [(0x4000, 10, 0), (0x5000, 20, F_WRITE), (0x6000, 30, 0)];
    assert_eq!(lengths(&pieces), (40, 20));
}

#[test]
fn a_chain_is_cut_off_where_it_makes_no_sense() {
    assert_eq!(lengths(&[(0x4000, 10, 0), (0x4_0000, 10, 0), (0x5000, 10, 0)]), (10, 0));
    assert_eq!(lengths(&[(0x4000, 10, 0), (0x1_fff8, 10, 0)]), (18, 0));
    assert_eq!(lengths(&[(u64::MAX - 4, 10, 0)]), (0, 0));
    assert_eq!(lengths(&[(0x4000, 0, 0), (0x5000, 10, 0)]), (10, 0));
}

#[test]
fn a_loop_and_a_long_chain_end() {
    assert_eq!(lengths(&[(0x4000, 10, 0), (0x5000, 10, F_NEXT)]), (640, 0));
    assert_eq!(lengths(&[(0x4000, 1, 0); 128]), (64, 0));
}

#[test]
fn the_beginning_is_read_and_written_across_pieces() {
    let pieces = [(0x4000, 3, F_WRITE), (0xfffe, 4, F_WRITE), (0x5000, 10, F_WRITE)];
    with_chain(&pieces, |ram, chain| {
        let buffers = Buffers::writable(ram, chain);
        buffers.write_first(b"abcdefgh");
        assert_eq!(buffers.read_first::<8>().as_ref(), Some(b"abcdefgh"));
        assert_eq!(buffers.read_first::<18>(), None);
        let at = |address| ram.read_obj::<u8>(GuestAddress(address)).unwrap();
        let addresses = [0x4000, 0x4002, 0xfffe, 0x1_0000, 0x1_0001, 0x5000, 0x5001];
        assert_eq!(addresses.map(at), *b"acdfgh\0");
    });
}

#[test]
fn ranges_have_the_right_pieces() {
    with_chain(&[(0x4000, 10, 0), (0x5000, 10, 0), (0x6000, 10, 0)], |ram, chain| {
        let buffers = Buffers::readable(ram, chain);
        let pieces = |start, len| buffers.range(start, len).map(|s| s.len()).collect::<Vec<_>>();
        assert_eq!(pieces(0, 30), [10, 10, 10]);
        assert_eq!(pieces(5, 10), [5, 5]);
        assert_eq!(pieces(10, 5), [5]);
        assert_eq!(pieces(15, usize::MAX), [5, 10]);
        assert_eq!(pieces(30, 1), [0; 0]);
        assert_eq!(pieces(usize::MAX, usize::MAX), [0; 0]);
    });
}
