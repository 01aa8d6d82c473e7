use super::super::F_VERSION_1;
use super::super::testing::{Buf, Machine, NEXT, RAM_SIZE, WRITE};
use super::*;

fn machine() -> (Machine, super::super::testing::TestQueue, Box<dyn Worker>) {
    let machine = Machine::new();
    let mut queue = machine.queue(0, 16);
    let features = F_VERSION_1 | F_INDIRECT_DESC;
    let worker = machine.activate(&mut Rng::new(), features, &mut [&mut queue]);
    (machine, queue, worker)
}

#[test]
fn fills_all_writable_buffers() {
    let (machine, mut queue, worker) = machine();
    let bytes = queue.request(&[Buf::out(b"ignored"), Buf::room(1000), Buf::room(24)]);
    assert_eq!(bytes.len(), 1024);
    assert!(bytes[..1000].iter().any(|&b| b != 0) && bytes[1000..].iter().any(|&b| b != 0));
    assert_ne!(queue.request(&[Buf::room(1024)]), bytes);
    machine.interrupt.wait_queue(0, 2);
    worker.stop();
}

#[test]
fn a_request_is_bounded() {
    let (_machine, mut queue, worker) = machine();
    let bytes = queue.request(&[Buf::room(60_000), Buf::room(60_000), Buf::room(60_000)]);
    assert_eq!(bytes.len(), MAX_REQUEST);
    worker.stop();
}

#[test]
fn empty_buffers_cost_little() {
    let machine = Machine::new();
    let at = machine.alloc(16);
    let looked_at = std::cell::Cell::new(0);
    let chain = (0..u16::MAX).map(|index| {
        looked_at.set(looked_at.get() + 1);
        // The only one with room is the last that is looked at, and one that comes after it.
        let len = if index == 63 || index == 64 { 16 } else { 0 };
        Descriptor::new(at, len, WRITE | NEXT, index)
    });
    assert_eq!(fill(&machine.ram, chain), 16);
    assert_eq!(looked_at.get(), MAX_BUFFERS);
}

#[test]
fn ends_where_memory_ends() {
    let (machine, mut queue, worker) = machine();
    let good = machine.alloc(64);
    queue.descriptor(0, Descriptor::new(good, 64, WRITE | NEXT, 1));
    queue.descriptor(1, Descriptor::new(RAM_SIZE - 16, 64, WRITE, 0));
    queue.publish(0);
    queue.kick();
    assert_eq!(queue.wait_used(), (0, 64));
    assert_eq!(queue.request(&[Buf::out(b"no room")]), b"");
    worker.stop();
}

#[test]
fn requests_and_bytes_are_counted_across_resets() {
    let (machine, mut rng) = (Machine::new(), Rng::new());
    let counters = rng.counters();
    for round in 1..=2 {
        let mut queue = machine.queue(0, 16);
        let worker = machine.activate(&mut rng, F_VERSION_1, &mut [&mut queue]);
        queue.request(&[Buf::room(100)]);
        worker.stop();
        assert_eq!(counters.read(), [("requests", round), ("bytes", 100 * round)]);
    }
}
