use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::write;

use super::super::super::Interrupt;
use super::super::super::testing::{Buf, Machine, TestQueue};
use super::*;

const PACKET: usize = 100;

fn ignore(_: BorrowedFd<'_>, _: u32) -> io::Result<()> {
    Ok(())
}

/// A tap, and its other end.
fn tap() -> (Tap, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    (Tap::with(vec![theirs], ignore).unwrap(), ours)
}

/// A packet for everybody.
fn packet() -> Vec<u8> {
    [vec![0; 12], vec![0xff; PACKET - 12]].concat()
}

/// A driver that answers each interrupt with another chain that is of no use, up to a limit.
struct Stubborn {
    queue: Mutex<TestQueue>,
    added: AtomicU16,
}

impl Interrupt for Stubborn {
    fn queue(&self, _index: u16) {
        if self.added.fetch_add(1, Ordering::Relaxed) < 10_000 {
            self.queue.lock().unwrap().publish(0);
        }
    }

    fn config(&self) {}

    fn needs_reset(&self) {
        panic!("gave up");
    }
}

#[test]
fn a_driver_with_useless_buffers_without_end_holds_nothing_up() {
    let machine = Machine::new();
    let mut queue = machine.queue(0, 8);
    let active = queue.active(0);
    queue.add(&[Buf::room(11)]);
    let driver = Arc::new(Stubborn { queue: Mutex::new(queue), added: AtomicU16::new(0) });
    let ring = Ring::new(active, machine.ram.clone(), Arc::clone(&driver) as _);
    let mut receiver = Receiver::new(ring, 0, 1500);
    let (tap, _host) = tap();
    let control = Control::new(None, 1);
    let received = receiver.receive(&tap, 0, &control).unwrap();
    assert_eq!(received, Received::Useless);
    assert_eq!(driver.added.load(Ordering::Relaxed), 9);
}

/// A receiver with merged buffers of a driver that cut `chains` chains into `count` pieces of `len` bytes.
fn crumbs(chains: u16, count: u32, len: u32) -> (Machine, TestQueue, Receiver) {
    let machine = Machine::new();
    let mut queue = machine.queue(0, 16);
    for _ in 0..chains {
        queue.add_indirect(&(0..count).map(|_| Buf::room(len)).collect::<Vec<_>>());
    }
    let interrupt = Arc::clone(&machine.interrupt) as Arc<dyn Interrupt>;
    let ring = Ring::new(queue.active(0), machine.ram.clone(), interrupt);
    (machine, queue, Receiver::new(ring, MRG_RXBUF, 1500))
}

#[test]
fn what_one_call_does_not_take_is_no_room() {
    // Three chains of 600 pieces of 1 byte: only one of them goes into a call.
    let (_machine, mut queue, mut receiver) = crumbs(3, 600, 1);
    let (tap, host) = tap();
    let control = Control::new(None, 1);
    let long = [packet(), vec![0x55; 700]].concat();
    write(&host, &long).unwrap();
    write(&host, &packet()).unwrap();
    // The long one is dropped, not cut.
    for expected in [None, Some((0, 100))] {
        assert_eq!(receiver.receive(&tap, 0, &control).unwrap(), Received::Packet);
        assert_eq!(queue.used(), expected);
    }
    // The next chain has its turn.
    write(&host, &packet()).unwrap();
    receiver.receive(&tap, 0, &control).unwrap();
    assert_eq!(queue.used(), Some((1, 100)));
    let read = queue.read(1);
    assert_eq!(read[12..100], packet()[12..]);
}

#[test]
fn small_buffers_that_go_into_a_call_are_merged() {
    let (_machine, mut queue, mut receiver) = crumbs(8, 100, 1);
    let (tap, host) = tap();
    let control = Control::new(None, 1);
    let long = [packet(), vec![0x55; 700]].concat();
    write(&host, &long).unwrap();
    assert_eq!(receiver.receive(&tap, 0, &control).unwrap(), Received::Starved);
    for _ in 0..8 {
        queue.add_indirect(&[Buf::room(1600)]);
    }
    assert_eq!(receiver.receive(&tap, 0, &control).unwrap(), Received::Packet);
    let used: Vec<_> = std::iter::from_fn(|| queue.used()).collect();
    assert_eq!(used, (0..8).map(|head| (head, 100)).collect::<Vec<_>>());
}
