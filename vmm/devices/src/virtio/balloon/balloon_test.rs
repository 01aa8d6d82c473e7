use std::io;
use std::sync::Mutex;

use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use super::super::F_VERSION_1;
use super::super::testing::{Buf, Machine, NEXT, RAM_SIZE, TestQueue, WRITE};
use super::*;

/// Remembers what was given back.
#[derive(Default)]
struct Host(Mutex<Vec<(u64, u64)>>);

impl Reclaim for Host {
    fn give_back(&self, address: u64, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().push((address, len));
        Err(io::ErrorKind::Unsupported.into())
    }
}

struct Running {
    machine: Machine,
    host: Arc<Host>,
    queues: [TestQueue; 3],
    worker: Option<Box<dyn Worker>>,
}

impl Running {
    fn new(size: u16) -> Self {
        let machine = Machine::new();
        let host = Arc::new(Host::default());
        let mut queues = [0, 1, 2].map(|index| machine.queue(index, size));
        let mut balloon = Balloon::new(host.clone());
        let features = F_VERSION_1 | F_EVENT_IDX | F_REPORTING;
        let worker = machine.activate(&mut balloon, features, &mut queues.each_mut());
        Self { machine, host, queues, worker: Some(worker) }
    }

    fn given_back(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.host.0.lock().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.worker.take().unwrap().stop();
    }
}

fn list(pfns: &[u32]) -> Buf {
    Buf::out(&pfns.iter().flat_map(|pfn| pfn.to_le_bytes()).collect::<Vec<_>>())
}

#[test]
fn reports_are_given_back_as_they_are() {
    let mut running = Running::new(64);
    let queue = &mut running.queues[2];
    queue.descriptor(5, Descriptor::new(0x20_0000, 0x20_0000, WRITE | NEXT, 6));
    queue.descriptor(6, Descriptor::new(0x1000, 16, NEXT, 7));
    queue.descriptor(7, Descriptor::new(u64::MAX, u32::MAX / 2, WRITE, 0));
    queue.publish(5);
    queue.kick();
    assert_eq!(queue.wait_used(), (5, 0));
    assert_eq!(running.given_back(), [(0x20_0000, 0x20_0000), (u64::MAX, u64::from(u32::MAX / 2))]);
}

#[test]
fn inflating_gives_back_pages_in_runs() {
    let mut running = Running::new(8);
    let pages = [list(&[7, 6, 5, 9, 6]), Buf::out(&[1, 2]), list(&[u32::MAX])];
    running.queues[0].request(&pages);
    assert_eq!(
        running.given_back(),
        [(0x5000, 0x3000), (0x9000, 0x1000), (0xfff_ffff_f000, 0x1000)]
    );
    // Deflating changes nothing.
    running.queues[1].request(&[list(&[5, 6])]);
    assert_eq!(running.given_back(), []);
}

#[test]
fn one_chain_costs_no_more_than_its_bound() {
    let mut running = Running::new(8);
    let at = running.machine.alloc(1 << 20);
    for (pfn, at) in (0u32..1 << 18).zip((at..).step_by(4)) {
        running.machine.ram.write_obj(2 * pfn, GuestAddress(at)).unwrap();
    }
    let queue = &mut running.queues[0];
    queue.descriptor(0, Descriptor::new(at, 1 << 20, 0, 0));
    queue.publish(0);
    // A list that runs out of memory, and one in nowhere.
    queue.descriptor(1, Descriptor::new(RAM_SIZE - 8, 4096, NEXT, 2));
    queue.descriptor(2, Descriptor::new(u64::MAX - 1, 4096, 0, 2));
    queue.publish(1);
    queue.kick();
    assert_eq!(queue.wait_used().0, 0);
    assert_eq!(queue.wait_used().0, 1);
    // The last two numbers of memory are both zero.
    assert_eq!(running.given_back().len(), 4096 + 1);
}

#[test]
fn a_report_of_many_buffers_is_cut_off() {
    let mut running = Running::new(128);
    let queue = &mut running.queues[2];
    for index in 0..100u16 {
        let flags = if index < 99 { WRITE | NEXT } else { WRITE };
        let address = u64::from(index) * 0x1000;
        queue.descriptor(index, Descriptor::new(address, 0x1000, flags, index + 1));
    }
    queue.publish(0);
    queue.kick();
    assert_eq!(queue.wait_used(), (0, 0));
    assert_eq!(running.given_back().len(), 64);
}

#[test]
fn it_needs_inflate_and_deflate_only() {
    let machine = Machine::new();
    let mut balloon = Balloon::new(Arc::new(Host::default()));
    let mut config = [0xff; 8];
    config.fill(0);
    balloon.read_config(0, &mut config);
    assert_eq!(config, [0; 8]);
    let mut queues = [0, 1].map(|index| machine.queue(index, 8));
    let worker = machine.activate(&mut balloon, F_VERSION_1, &mut queues.each_mut());
    queues[1].request(&[list(&[1])]);
    worker.stop();
    let interrupt = Arc::clone(&machine.interrupt) as _;
    let queues = vec![queues[0].active(0)];
    let activation = Activation {
        ram: machine.ram.clone(),
        features: 0,
        queues,
        interrupt,
        threads: super::super::testing::threads(1),
    };
    assert!(matches!(balloon.activate(activation), Err(ActivateError::MissingQueue(1))));
}

#[test]
fn it_can_be_stopped_and_started_again() {
    for size in [2, 16, 128, 1024] {
        let mut running = Running::new(size);
        for _ in 0..20 {
            running.queues[0].request(&[list(&[3])]);
            running.queues[2].request(&[Buf::room(4096)]);
        }
        assert_eq!(running.given_back().len(), 40);
    }
}

proptest! {
    /// Every chain comes back, and whatever it says is a range for the host at most.
    #[test]
    fn any_ring_is_survived(
        descriptors in prop::collection::vec((any::<u64>(), any::<u32>(), 0u16..8, 0u16..9), 8),
        near: bool,
        queue in 0usize..3,
        heads in prop::collection::vec(0u16..8, 1..8),
    ) {
        let mut running = Running::new(8);
        let queue = &mut running.queues[queue];
        for (i, &(address, len, flags, next)) in (0u16..).zip(&descriptors) {
            let address = if near { address % RAM_SIZE } else { address };
            queue.descriptor(i, Descriptor::new(address, len, flags, next));
        }
        heads.iter().for_each(|&head| queue.publish(head));
        queue.kick();
        heads.iter().for_each(|&head| assert_eq!(queue.wait_used(), (head, 0)));
        prop_assert_eq!(running.machine.interrupt.needs_reset_count(), 0);
    }
}
