use std::cell::Cell;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::unistd::{read, write};
use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use super::super::F_VERSION_1;
use super::super::testing::{Buf, INDIRECT, Machine, NEXT, PATIENCE, RAM_SIZE, TestQueue, WRITE};
use super::features::{CSUM, CTRL_VQ, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, MQ, MRG_RXBUF};
use super::*;

const PLAIN: u64 = F_VERSION_1 | F_EVENT_IDX | F_INDIRECT_DESC;
const MERGED: u64 = PLAIN | MRG_RXBUF;

thread_local! {
    /// What the tap was told last.
    static OFFLOADS: Cell<u32> = const { Cell::new(0) };
}

fn note(_: BorrowedFd<'_>, offloads: u32) -> io::Result<()> {
    OFFLOADS.set(offloads);
    Ok(())
}

/// A card whose tap is one end of a pair of sockets each.
fn card(pairs: usize, options: NetOptions) -> (Net, Vec<OwnedFd>) {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let pair = || socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    let (ours, theirs): (Vec<_>, Vec<_>) = (0..pairs).map(|_| pair()).unzip();
    for socket in &ours {
        setsockopt(socket, sockopt::SndBuf, &(512 << 10)).unwrap();
    }
    (Net::with(Tap::with(theirs, note).unwrap(), options), ours)
}

/// A frame of `len` bytes for everybody, with a number in it.
fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 12];
    frame.extend([8, 0]);
    frame.extend(number.to_le_bytes());
    frame.extend((0..=255).cycle().take(len - frame.len()));
    frame
}

/// As it is in a tap: with a header whose last two bytes nobody has set.
fn packet(frame: &[u8]) -> Vec<u8> {
    [&[0; 10][..], &[0xaa; 2], frame].concat()
}

/// Puts a packet into the tap.
fn inject(tap: &OwnedFd, packet: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    while write(tap, packet) != Ok(packet.len()) {
        assert!(Instant::now() < deadline, "the card does not receive");
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// The next packet that the card sent.
fn sent(tap: &OwnedFd) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    let mut packet = vec![0; 70_000];
    loop {
        match read(tap, &mut packet) {
            Ok(len) => return packet[..len].to_vec(),
            Err(_) => assert!(Instant::now() < deadline, "nothing sent in time"),
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn nothing_sent(tap: &OwnedFd) -> bool {
    std::thread::sleep(Duration::from_millis(5));
    read(tap, &mut [0; 16]).is_err()
}

/// Waits until a pair is past its start, at which it throws packets away: it then takes what is sent, here
/// something too short.
fn settle(machine: &Machine, tx: &mut TestQueue) {
    tx.add(&[Buf::out(&[0; 11])]);
    tx.kick();
    let deadline = Instant::now() + PATIENCE;
    while tx.used().is_none() && machine.interrupt.needs_reset_count() == 0 {
        assert!(Instant::now() < deadline, "the card does not start");
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// A card of one pair at work.
struct Running {
    machine: Machine,
    rx: TestQueue,
    tx: TestQueue,
    control: TestQueue,
    tap: OwnedFd,
    worker: Option<Box<dyn Worker>>,
}

impl Running {
    fn new(size: u16, features: u64) -> Self {
        let machine = Machine::new();
        let queues = [0, 1, 2].map(|index| machine.queue(index, size));
        Self::with(machine, queues, features)
    }

    fn with(machine: Machine, queues: [TestQueue; 3], features: u64) -> Self {
        let (mut net, mut taps) = card(1, NetOptions::default());
        let [mut rx, mut tx, mut control] = queues;
        let mut queues = vec![&mut rx, &mut tx];
        if features & CTRL_VQ != 0 {
            queues.push(&mut control);
        }
        let worker = machine.activate(&mut net, features, &mut queues);
        settle(&machine, &mut tx);
        Self { machine, rx, tx, control, tap: taps.remove(0), worker: Some(worker) }
    }

    /// The next packet that the driver gets: its header's number of buffers, and the frame.
    fn receive(&mut self) -> (u16, Vec<u8>) {
        let (head, len) = self.rx.wait_used();
        let first = self.rx.read(head);
        let count = u16::from_le_bytes([first[10], first[11]]);
        let mut packet = first[..len as usize].to_vec();
        for _ in 1..count {
            // All buffers of a packet are there at once.
            let (head, len) = self.rx.used().expect("a buffer of a packet is missing");
            packet.extend(&self.rx.read(head)[..len as usize]);
        }
        (count, packet.split_off(12))
    }

    fn send(&mut self, header: [u8; 12], frame: &[u8]) {
        let head = self.tx.add(&[Buf::out(&header), Buf::out(frame)]);
        self.tx.kick();
        assert_eq!(self.tx.wait_used(), (head, 0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.stop();
        }
    }
}

#[test]
fn the_configuration_says_what_is_offered() {
    let options = NetOptions { mac: Some([2, 3, 4, 5, 6, 7]), mtu: Some(1400) };
    let (net, _taps) = card(2, options);
    let mut config = [0xff; 20];
    config.fill(0);
    net.read_config(0, &mut config);
    assert_eq!(config[..12], [2, 3, 4, 5, 6, 7, 1, 0, 2, 0, 0x78, 5]);
    assert_eq!(config[12..], [0; 8]);
    let optional = features::MAC | features::MTU | features::MQ;
    assert_eq!(net.features() & optional, optional);
    assert_eq!(net.queue_sizes(), [256, 256, 256, 256, 64]);
    let (net, _taps) = card(1, NetOptions::default());
    assert_eq!(net.features() & optional, 0);
}

#[test]
fn what_is_no_tap_is_refused() {
    let (_, taps) = card(1, NetOptions::default());
    assert!(matches!(Net::new(taps, NetOptions::default()), Err(NetError::Tap(_))));
    assert!(matches!(Net::new(vec![], NetOptions::default()), Err(NetError::Pairs(0))));
}

#[test]
fn a_kernel_without_udp_offloads_is_asked_for_the_others() {
    fn old(_: BorrowedFd<'_>, offloads: u32) -> io::Result<()> {
        if offloads & 0x60 != 0 { Err(ErrorKind::InvalidInput.into()) } else { Ok(()) }
    }
    let (_, taps) = card(1, NetOptions::default());
    let tap = Tap::with(taps, old).unwrap();
    assert_eq!(tap.offloads(), features::OFFLOADS);
}

#[test]
fn the_tap_is_told_what_the_driver_takes() {
    for (agreed, told) in [
        (0, 0),
        (GUEST_TSO4, 0),
        (GUEST_CSUM, 1),
        (GUEST_CSUM | GUEST_TSO4, 3),
        (GUEST_CSUM | features::GUEST_ECN, 1),
        (GUEST_CSUM | features::GUEST_USO4, 1),
        (features::OFFLOADS | features::UDP_OFFLOADS, 0x6f),
    ] {
        let running = Running::new(8, PLAIN | agreed);
        assert_eq!(OFFLOADS.get(), told, "{agreed:#x}");
        drop(running);
    }
}

#[test]
fn frames_go_out_with_a_checked_header() {
    let mut card = Running::new(8, PLAIN | CSUM | HOST_TSO4);
    let large = frame(1, 20_000);
    let header = [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0];
    card.send(header, &large);
    assert_eq!(sent(&card.tap), [&header[..], &large].concat());
    // What has no meaning is not passed on.
    card.send([0xf0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9], &frame(2, 60));
    assert_eq!(sent(&card.tap), [&[0; 12][..], &frame(2, 60)].concat());
    // Header and frame in odd pieces, indirectly.
    let bytes = [&[0; 12][..], &frame(3, 300)].concat();
    let pieces: Vec<_> = bytes.chunks(7).map(Buf::out).collect();
    card.tx.add_indirect(&pieces);
    card.tx.kick();
    assert_eq!(sent(&card.tap), bytes);
}

#[test]
fn frames_that_make_no_sense_are_dropped() {
    let mut card = Running::new(8, PLAIN | CSUM | HOST_TSO4);
    card.send([1, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0], &frame(1, 60));
    card.send([1, 4, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0], &frame(1, 6000));
    card.send([0; 12], &[1; 13]);
    card.send([0; 12], &vec![1; 66_000]);
    card.tx.request(&[Buf::out(&[0; 11])]);
    card.tx.request(&[Buf::out(&[0; 100]), Buf::room(1)]);
    // Loops, an index out of bounds, tables that are none, a table in a table, memory that is none.
    let table = card.machine.alloc(64);
    let inner = Descriptor::new(table, 16, INDIRECT, 0);
    card.machine.ram.write_obj(inner, GuestAddress(table)).unwrap();
    let bad = [
        (0x1000, 64, NEXT, 0),
        (0x1000, 64, NEXT, 9),
        (RAM_SIZE, 32, INDIRECT, 0),
        (0x1000, 33, INDIRECT, 0),
        (table, 16, INDIRECT, 0),
        (RAM_SIZE - 20, 64, 0, 0),
        (u64::MAX - 8, 64, 0, 0),
        (0x1000, 0, 0, 0),
    ];
    for (index, (address, len, flags, next)) in (0..).zip(bad) {
        card.tx.descriptor(index, Descriptor::new(address, len, flags, next));
        card.tx.publish(index);
        card.tx.kick();
        assert_eq!(card.tx.wait_used(), (index, 0));
    }
    assert!(nothing_sent(&card.tap));
    card.send([0; 12], &frame(7, 60));
    assert_eq!(sent(&card.tap)[12..], frame(7, 60));
    assert_eq!(card.machine.interrupt.needs_reset_count(), 0);
}

#[test]
fn frames_come_in() {
    for features in [PLAIN, MERGED, F_VERSION_1] {
        let mut card = Running::new(8, features);
        for number in 0..20 {
            card.rx.add(&[Buf::room(5), Buf::room(9), Buf::room(1600)]);
            card.rx.kick();
            inject(&card.tap, &packet(&frame(number, 60 + number as usize)));
            assert_eq!(card.receive(), (1, frame(number, 60 + number as usize)));
        }
    }
}

#[test]
fn a_large_packet_is_spread_over_buffers() {
    let mut card = Running::new(64, MERGED | GUEST_CSUM | GUEST_TSO4);
    for _ in 0..64 {
        card.rx.add(&[Buf::room(1100)]);
    }
    card.rx.kick();
    inject(&card.tap, &packet(&frame(1, 20_000)));
    assert_eq!(card.receive(), (19, frame(1, 20_000)));
    // Fewer than the longest packet could need are left: the card waits for more, and drops nothing.
    inject(&card.tap, &packet(&frame(2, 60)));
    inject(&card.tap, &packet(&frame(3, 2 * 1100 - 12)));
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(card.rx.used(), None);
    for _ in 0..19 {
        card.rx.add(&[Buf::room(1100)]);
    }
    card.rx.kick();
    assert_eq!(card.receive(), (1, frame(2, 60)));
    card.rx.add(&[Buf::room(1100)]);
    card.rx.kick();
    // It uses its buffers exactly.
    assert_eq!(card.receive(), (2, frame(3, 2 * 1100 - 12)));
}

#[test]
fn nothing_comes_in_cut_short() {
    for features in [PLAIN, MERGED] {
        let mut card = Running::new(4, features);
        for _ in 0..4 {
            card.rx.add(&[Buf::room(100)]);
        }
        card.rx.kick();
        inject(&card.tap, &packet(&frame(1, 500)));
        inject(&card.tap, &packet(&frame(2, 88)));
        assert_eq!(card.receive(), (1, frame(2, 88)));
    }
}

#[test]
fn flags_are_cleared_for_a_driver_that_knows_of_none() {
    for (features, flags) in [(MERGED, 0), (MERGED | GUEST_CSUM, 2)] {
        let mut card = Running::new(2, features);
        card.rx.add(&[Buf::room(2000)]);
        let head = card.rx.add(&[Buf::room(2000)]);
        card.rx.kick();
        let mut packet = packet(&frame(1, 60));
        packet[0] = 2;
        inject(&card.tap, &packet);
        inject(&card.tap, &packet);
        card.rx.wait_used();
        card.rx.add(&[Buf::room(2000)]);
        card.rx.kick();
        assert_eq!(card.rx.wait_used().0, head);
        assert_eq!(card.rx.read(head)[0], flags);
    }
}

#[test]
fn buffers_that_make_no_sense_come_back_unused() {
    let mut card = Running::new(8, PLAIN);
    let at = card.machine.alloc(64);
    let bad = [
        (at, 64, 0, 0),
        (at, 11, WRITE, 0),
        (RAM_SIZE, 64, WRITE, 0),
        (at, 64, WRITE | NEXT, 3),
        (at, 64, WRITE | NEXT, 9),
    ];
    for (index, (address, len, flags, next)) in (0..).zip(bad) {
        card.rx.descriptor(index, Descriptor::new(address, len, flags, next));
        card.rx.publish(index);
        card.rx.kick();
        inject(&card.tap, &packet(&frame(0, 60)));
        assert_eq!(card.rx.wait_used(), (index, 0));
    }
    for _ in bad {
        card.rx.add(&[Buf::room(2000)]);
        card.rx.kick();
        assert_eq!(card.receive().1, frame(0, 60));
    }
}

#[test]
fn every_queue_size_works() {
    for size in (1..=10).map(|power| 1 << power) {
        let mut card = Running::new(size, MERGED);
        for number in 0..u32::from(size) + 3 {
            card.rx.add(&[Buf::room(1600)]);
            card.rx.kick();
            inject(&card.tap, &packet(&frame(number, 60)));
            assert_eq!(card.receive(), (1, frame(number, 60)), "size {size}");
            card.send([0; 12], &frame(number, 64));
            assert_eq!(sent(&card.tap)[12..], frame(number, 64));
        }
    }
}

#[test]
fn rings_at_the_end_of_memory() {
    let machine = Machine::new();
    let mut queues = [0, 1, 2].map(|index| machine.queue(index, 8));
    queues[0].used = (RAM_SIZE - 6 - 8 * 8) & !3;
    queues[1].used = RAM_SIZE - 0x100;
    let mut card = Running::with(machine, queues, PLAIN);
    card.rx.add(&[Buf::room(1600)]);
    card.rx.kick();
    inject(&card.tap, &packet(&frame(1, 60)));
    assert_eq!(card.receive(), (1, frame(1, 60)));
    // A ring that goes past it is the device's end, and of nothing else.
    let machine = Machine::new();
    let mut queues = [0, 1, 2].map(|index| machine.queue(index, 8));
    queues[1].used = RAM_SIZE - 4;
    let mut card = Running::with(machine, queues, PLAIN);
    card.tx.add(&[Buf::out(&[0; 100])]);
    card.tx.kick();
    card.machine.interrupt.wait_needs_reset();
}

#[test]
fn a_full_tap_delays_and_loses_nothing() {
    let mut card = Running::new(256, PLAIN);
    for number in 0..200 {
        card.tx.add_indirect(&[Buf::out(&[0; 12]), Buf::out(&frame(number, 20_000))]);
    }
    card.tx.kick();
    for number in 0..200 {
        assert_eq!(sent(&card.tap)[12..], frame(number, 20_000));
    }
    for _ in 0..200 {
        card.tx.wait_used();
    }
}

#[test]
fn no_wake_up_is_lost() {
    for features in [MERGED, F_VERSION_1 | MRG_RXBUF] {
        let mut card = Running::new(4, features);
        let tap = card.tap.try_clone().unwrap();
        // Packets come in while the driver refills one buffer at a time and sends.
        let injector = std::thread::spawn(move || {
            for number in 0..3000 {
                inject(&tap, &packet(&frame(number, 60)));
            }
        });
        for number in 0..3000 {
            card.rx.add(&[Buf::room(1600)]);
            card.rx.kick();
            assert_eq!(card.receive().1, frame(number, 60));
            if number % 8 == 0 {
                card.send([0; 12], &frame(number, 60));
                assert_eq!(sent(&card.tap)[12..], frame(number, 60));
            }
        }
        injector.join().unwrap();
    }
}

#[test]
fn it_can_be_reset_at_any_time_and_started_again() {
    let machine = Machine::new();
    let (mut net, taps) = card(1, NetOptions { mac: Some([2; 6]), mtu: None });
    for round in 0..60u32 {
        let mut rx = machine.queue(0, 16);
        let mut tx = machine.queue(1, 16);
        let mut control = machine.queue(2, 16);
        for _ in 0..round % 16 {
            rx.add(&[Buf::room(1600)]);
        }
        inject(&taps[0], &packet(&frame(round, 60)));
        let features = MERGED | CTRL_VQ;
        let worker = machine.activate(&mut net, features, &mut [&mut rx, &mut tx, &mut control]);
        tx.add(&[Buf::out(&[0; 12]), Buf::out(&frame(round, 60))]);
        tx.kick();
        control.add(&[Buf::out(&[1, 1, 4, 4, 4, 4, 4, 4]), Buf::room(1)]);
        control.kick();
        std::thread::sleep(Duration::from_micros(u64::from(round) * 20));
        worker.stop();
        // Nobody is at work any more.
        let before = (rx.used(), tx.used(), control.used());
        let seen = before.1.is_some();
        std::thread::sleep(Duration::from_micros(200));
        assert_eq!((tx.used(), control.used()), (None, None));
        if seen {
            assert_eq!(sent(&taps[0])[12..], frame(round, 60));
        }
        while read(&taps[0], &mut [0; 100]).is_ok() {}
        let mut mac = [0; 6];
        net.read_config(0, &mut mac);
        assert!(mac == [2; 6] || mac == [4; 6]);
    }
}

#[test]
fn the_driver_chooses_what_it_receives() {
    let mut card = Running::new(8, MERGED | CTRL_VQ);
    for (command, answer) in [
        (&[0, 0, 0][..], 0),
        (&[1, 1, 2, 0, 0, 0, 0, 1], 0),
        (&[0, 9, 0], 1),
        (&[4, 0, 2, 0], 1),
        (&[0; 5000], 1),
    ] {
        let (head, tail) = command.split_at(2);
        let done = card.control.request(&[Buf::out(head), Buf::out(tail), Buf::room(1)]);
        assert_eq!(done, [answer], "{:?}", &command[..3]);
    }
    for _ in 0..4 {
        card.rx.add(&[Buf::room(1600)]);
    }
    card.rx.kick();
    for (to, number) in [([2, 0, 0, 0, 0, 9], 1), ([2, 0, 0, 0, 0, 1], 2), ([0xff; 6], 3)] {
        let mut frame = frame(number, 60);
        frame[..6].copy_from_slice(&to);
        inject(&card.tap, &packet(&frame));
    }
    let seen = [card.receive().1[14], card.receive().1[14]];
    assert_eq!(seen, [2, 3]);
    // No room for an answer, an answer outside of memory.
    card.control.request(&[Buf::out(&[0, 0, 0])]);
    card.control.descriptor(0, Descriptor::new(RAM_SIZE, 1, WRITE, 0));
    card.control.publish(0);
    card.control.kick();
    assert_eq!(card.control.wait_used(), (0, 0));
    assert_eq!(card.machine.interrupt.needs_reset_count(), 0);
}

#[test]
fn what_came_before_the_driver_is_thrown_away_from_every_queue() {
    let machine = Machine::new();
    let (mut net, taps) = card(2, NetOptions::default());
    taps.iter().for_each(|tap| inject(tap, &packet(&frame(1, 60))));
    let mut queues = [0, 1].map(|index| machine.queue(index, 8));
    let worker = machine.activate(&mut net, PLAIN, &mut queues.each_mut());
    let [rx, tx] = &mut queues;
    settle(&machine, tx);
    for _ in 0..4 {
        rx.add(&[Buf::room(1600)]);
    }
    rx.kick();
    inject(&taps[1], &packet(&frame(2, 80)));
    assert_eq!(rx.wait_used().1, 12 + 80);
    assert_eq!(rx.used(), None);
    worker.stop();
}

#[test]
fn several_pairs_share_the_tap() {
    let machine = Machine::new();
    let (mut net, taps) = card(2, NetOptions::default());
    let mut queues: Vec<_> = (0..5).map(|index| machine.queue(index, 64)).collect();
    let features = MERGED | MQ | CTRL_VQ;
    let mut all: Vec<_> = queues.iter_mut().collect();
    let worker = machine.activate(&mut net, features, &mut all);
    [1, 3].iter().for_each(|&index| settle(&machine, &mut queues[index]));
    for queue in [0, 2] {
        for _ in 0..64 {
            queues[queue].add(&[Buf::room(1600)]);
        }
        queues[queue].kick();
    }
    // One pair is in use, two, one again: packets of both queues always arrive, and where they may.
    for pairs in [1, 2, 1, 2u8] {
        if pairs != 1 || machine.interrupt.queue_count(4) > 0 {
            let command = [Buf::out(&[4, 0, pairs, 0]), Buf::room(1)];
            assert_eq!(queues[4].request(&command), [0]);
        }
        for (index, tap) in taps.iter().enumerate() {
            inject(tap, &packet(&frame(7, 60)));
            let expected = if pairs == 2 { 2 * index } else { 0 };
            queues[expected].wait_used();
            assert!(queues[2 - expected].used().is_none());
        }
    }
    for (index, tap) in taps.iter().enumerate() {
        queues[2 * index + 1].request(&[Buf::out(&[0; 12]), Buf::out(&frame(5, 60))]);
        assert_eq!(sent(tap)[12..], frame(5, 60));
    }
    worker.stop();
}

#[test]
fn without_its_queues_it_does_not_start() {
    let machine = Machine::new();
    for missing in [0, 1] {
        let (mut net, _taps) = card(1, NetOptions::default());
        let queue = machine.queue(1 - missing, 8);
        let interrupt = Arc::clone(&machine.interrupt) as _;
        let queues = vec![queue.active(0)];
        let activation = Activation {
            ram: machine.ram.clone(),
            features: 0,
            queues,
            interrupt,
            threads: super::super::testing::threads(1),
        };
        let refused = net.activate(activation).err().unwrap();
        assert!(matches!(refused, ActivateError::MissingQueue(index) if index == missing));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is in the rings: the card goes on, or asks for a reset because a ring makes no sense.
    #[test]
    fn any_ring_is_survived(
        descriptors in prop::collection::vec((0u64..0x2000, 0u32..1200, 0u16..8, 0u16..9), 8),
        heads in prop::collection::vec(0u16..9, 1..8),
        merged: bool,
    ) {
        let features = if merged { MERGED } else { PLAIN } | CTRL_VQ | CSUM | HOST_TSO4;
        let mut card = Running::new(8, features);
        let base = card.machine.alloc(0x3000);
        let sane = heads.iter().all(|&head| head < 8);
        for queue in [&mut card.rx, &mut card.tx, &mut card.control] {
            for (i, &(address, len, flags, next)) in (0u16..).zip(&descriptors) {
                let near = RAM_SIZE - address;
                let address = if address < 0x100 { near } else { base + address };
                queue.descriptor(i, Descriptor::new(address, len, flags, next));
            }
            heads.iter().for_each(|&head| queue.publish(head));
            queue.kick();
        }
        for number in 0..4 {
            let _full = write(card.tap.as_fd(), &packet(&frame(number, 100)));
        }
        if sane {
            heads.iter().for_each(|&head| assert_eq!(card.tx.wait_used(), (head, 0)));
            heads.iter().for_each(|&head| assert_eq!(card.control.wait_used().0, head));
            prop_assert_eq!(card.machine.interrupt.needs_reset_count(), 0);
        }
        card.worker.take().unwrap().stop();
    }
}
