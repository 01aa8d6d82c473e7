//! The device on a driver's queue.

use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;

use super::super::F_VERSION_1;
use super::super::testing::{Buf, Machine, RAM_SIZE, TestQueue};
use super::region::region_test::Host;
use super::request::request_test::bytes;
use super::*;

const BASE: u64 = 1 << 32;

struct Running {
    machine: Machine,
    device: MemHotplug,
    queue: TestQueue,
    worker: Option<Box<dyn Worker>>,
}

impl Running {
    fn new() -> Self {
        let machine = Machine::new();
        let blocks = Arc::new(Blocks::new(2 * CHUNK));
        let mut device = MemHotplug::new(BASE, blocks, Arc::new(Host::default()));
        let mut queue = machine.queue(0, 8);
        let features = F_VERSION_1 | F_EVENT_IDX;
        let worker = machine.activate(&mut device, features, &mut [&mut queue]);
        Self { machine, device, queue, worker: Some(worker) }
    }

    /// The answer's type to a request for blocks of the region.
    fn ask(&mut self, kind: u16, first: u64, blocks: u16) -> u8 {
        let request = bytes(kind, BASE + first * BLOCK, blocks);
        let answer = self.queue.request(&[Buf::out(&request), Buf::room(10)]);
        assert_eq!(answer.len(), 10);
        answer[0]
    }

    fn counts(&self) -> Vec<u64> {
        self.device.counters().read().into_iter().map(|(_, count)| count).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.worker.take().unwrap().stop();
    }
}

/// A field of the configuration: the `index`th of eight bytes.
fn config(device: &MemHotplug, index: usize) -> u64 {
    let mut bytes = [0; 8];
    device.read_config(8 * index, &mut bytes);
    u64::from_le_bytes(bytes)
}

#[test]
fn the_configuration_tells_the_region_and_the_sizes() {
    let mut running = Running::new();
    running.device.size().request(3 * BLOCK);
    assert_eq!(running.ask(0, 0, 2), 0);
    let seen: Vec<u64> = (0..8).map(|index| config(&running.device, index)).collect();
    let all = 2 * CHUNK;
    assert_eq!(seen, [BLOCK, 0, BASE, all, all, 2 * BLOCK, 3 * BLOCK, 0]);
}

#[test]
fn the_driver_is_told_of_another_size_while_it_is_there() {
    let mut running = Running::new();
    let size = running.device.size();
    size.request(BLOCK - 1);
    assert_eq!((size.requested(), running.machine.interrupt.config_count()), (BLOCK, 1));
    assert_eq!((running.ask(0, 0, 1), running.ask(0, 1, 1)), (0, 1));
    assert_eq!(size.plugged(), BLOCK);
    // Told again, although nothing is new: the driver tries again.
    size.request(BLOCK);
    assert_eq!(running.machine.interrupt.config_count(), 2);
    running.worker.take().unwrap().stop();
    size.request(0);
    assert_eq!(running.machine.interrupt.config_count(), 2);
    // A reset leaves what is plugged in (5.15.5.2); the driver takes it out.
    assert_eq!((size.requested(), size.plugged()), (0, BLOCK));
    let features = F_VERSION_1;
    running.queue = running.machine.queue(0, 8);
    let worker = running.machine.activate(&mut running.device, features, &mut [&mut running.queue]);
    running.worker = Some(worker);
    assert_eq!((running.ask(2, 0, 0), size.plugged()), (0, 0));
}

#[test]
fn it_counts_requests_and_refusals() {
    let mut running = Running::new();
    running.device.size().request(CHUNK);
    for (kind, first, blocks, answer) in
        [(0, 0, 64, 0), (3, 0, 9, 0), (0, 0, 1, 1), (1, 2, 0, 3), (7, 0, 0, 3), (1, 0, 4, 0)]
    {
        assert_eq!(running.ask(kind, first, blocks), answer, "{kind} {first} {blocks}");
    }
    assert_eq!(running.counts(), [6, 3, CHUNK, CHUNK - 4 * BLOCK]);
}

#[test]
fn it_needs_its_queue() {
    let machine = Machine::new();
    let blocks = Arc::new(Blocks::new(CHUNK));
    let mut device = MemHotplug::new(BASE, blocks, Arc::new(Host::default()));
    let interrupt = Arc::clone(&machine.interrupt) as _;
    let threads = super::super::testing::threads(1);
    let (ram, queues) = (machine.ram.clone(), Vec::new());
    let activation = Activation { ram, features: 0, queues, interrupt, threads };
    assert!(matches!(device.activate(activation), Err(ActivateError::MissingQueue(0))));
}

proptest! {
    /// Every chain comes back, and nothing exceeds what was requested.
    #[test]
    fn any_ring_is_survived(
        descriptors in prop::collection::vec((any::<u64>(), any::<u32>(), 0u16..8, 0u16..9), 8),
        contents in prop::collection::vec((0u16..5, 0u64..140, 0u16..70), 8),
        heads in prop::collection::vec(0u16..8, 1..8),
    ) {
        let mut running = Running::new();
        running.device.size().request(CHUNK / 2);
        let at = running.machine.alloc(8 * 32);
        for (index, &(kind, first, blocks)) in (0u64..).zip(&contents) {
            let request = bytes(kind, BASE + first * BLOCK, blocks);
            let place = vm_memory::GuestAddress(at + 32 * index);
            vm_memory::Bytes::write_slice(&running.machine.ram, &request, place).unwrap();
        }
        for (i, &(address, len, flags, next)) in (0u16..).zip(&descriptors) {
            let address = if flags & 1 != 0 { at + address % 8 * 32 } else { address % RAM_SIZE };
            running.queue.descriptor(i, Descriptor::new(address, len % 64, flags, next));
        }
        heads.iter().for_each(|&head| running.queue.publish(head));
        running.queue.kick();
        heads.iter().for_each(|&head| assert_eq!(running.queue.wait_used().0, head));
        prop_assert_eq!(running.machine.interrupt.needs_reset_count(), 0);
        prop_assert!(running.device.size().plugged() <= CHUNK / 2);
    }
}
