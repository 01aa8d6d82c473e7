use std::sync::mpsc::channel;
use std::time::Duration;

use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;

use super::super::F_EVENT_IDX;
use super::super::testing::{Buf, Machine, TestQueue, spawn};
use super::*;

fn ring(machine: &Machine, queue: &TestQueue, features: u64) -> Ring {
    let interrupt = Arc::clone(&machine.interrupt) as Arc<dyn Interrupt>;
    Ring::new(queue.active(features), machine.ram.clone(), interrupt)
}

fn pass(ring: &mut Ring) -> Result<(usize, bool), BrokenRing> {
    let mut seen = 0;
    let more = ring.pass(&Stop::new().unwrap(), &mut |_, _| {
        seen += 1;
        0
    })?;
    Ok((seen, more))
}

#[test]
fn a_pass_takes_all_and_interrupts_once() {
    for features in [0, F_EVENT_IDX] {
        let machine = Machine::new();
        let mut queue = machine.queue(0, 8);
        let mut ring = ring(&machine, &queue, features);
        for _ in 0..5 {
            queue.add(&[Buf::room(1)]);
        }
        assert_eq!(pass(&mut ring).unwrap(), (5, false));
        assert_eq!(machine.interrupt.queue_count(0), 1);
        assert_eq!(pass(&mut ring).unwrap(), (0, false));
        assert_eq!(machine.interrupt.queue_count(0), 1);
        (0..5).for_each(|head| assert_eq!(queue.used(), Some((head, 0))));
    }
}

#[test]
fn the_driver_can_do_without_interrupts() {
    let machine = Machine::new();
    // By the flag.
    let mut queue = machine.queue(0, 8);
    let mut flagged = ring(&machine, &queue, 0);
    machine.ram.write_obj(NO_INTERRUPT, GuestAddress(queue.avail)).unwrap();
    queue.add(&[Buf::room(1)]);
    pass(&mut flagged).unwrap();
    assert_eq!(machine.interrupt.queue_count(0), 0);

    // By the event index: it wants to know of the third only.
    let mut queue = machine.queue(1, 8);
    let mut indexed = ring(&machine, &queue, F_EVENT_IDX);
    machine.ram.write_obj(2u16, GuestAddress(queue.avail + 4 + 16)).unwrap();
    for (count, interrupts) in [(1, 0), (2, 0), (3, 1), (4, 1)] {
        queue.add(&[Buf::room(1)]);
        pass(&mut indexed).unwrap();
        assert_eq!(machine.interrupt.queue_count(1), interrupts, "after {count}");
    }
}

#[test]
fn the_device_does_without_notifications_while_at_work() {
    let machine = Machine::new();
    let mut queue = machine.queue(0, 8);
    let mut ring = ring(&machine, &queue, 0);
    queue.add(&[Buf::room(1)]);
    let (ram, flags) = (machine.ram.clone(), GuestAddress(queue.used));
    let stop = Stop::new().unwrap();
    ring.pass(&stop, &mut |_, _| {
        assert_eq!(ram.read_obj::<u16>(flags).unwrap(), 1);
        0
    })
    .unwrap();
    assert_eq!(machine.ram.read_obj::<u16>(flags).unwrap(), 0);
}

/// When a driver that made chain `chain` available rings (virtio 1.2, 2.7.10).
fn rings(machine: &Machine, queue: &TestQueue, chain: u16) -> bool {
    let at = GuestAddress(queue.used + 4 + 8 * 8);
    let event: u16 = machine.ram.read_obj(at).unwrap();
    event == chain
}

#[test]
fn a_driver_with_event_index_rings_when_it_was_asked_to() {
    let machine = Machine::new();
    let mut queue = machine.queue(0, 8);
    let mut ring = ring(&machine, &queue, F_EVENT_IDX);
    // For the first, the third; at most the last that fits; never.
    for (count, late, chain) in [(1, false, 0), (3, true, 2), (100, true, 7)] {
        assert_eq!(ring.listen_for(count).unwrap(), (false, late));
        assert!(rings(&machine, &queue, chain), "{count}");
    }
    ring.quiet().unwrap();
    assert!((0..=8).all(|chain| !rings(&machine, &queue, chain)));
    // What is there already is told of, whatever was asked for.
    queue.add(&[Buf::room(1)]);
    assert_eq!(ring.listen_for(3).unwrap(), (true, true));
    ring.pop().unwrap().unwrap();
    assert_eq!(ring.listen_for(1).unwrap(), (false, false));
    assert!(rings(&machine, &queue, 1));
}

#[test]
fn a_driver_without_event_index_rings_for_the_first() {
    let machine = Machine::new();
    let queue = machine.queue(0, 8);
    let mut ring = ring(&machine, &queue, 0);
    ring.quiet().unwrap();
    assert_eq!(ring.listen_for(3).unwrap(), (false, false));
    assert_eq!(machine.ram.read_obj::<u16>(GuestAddress(queue.used)).unwrap(), 0);
}

#[test]
fn what_comes_during_a_pass_is_not_missed() {
    let machine = Machine::new();
    let mut queue = machine.queue(0, 4);
    let mut ring = ring(&machine, &queue, F_EVENT_IDX);
    queue.add(&[Buf::room(1)]);
    let stop = Stop::new().unwrap();
    // Each request makes the driver add another: a pass ends all the same.
    let mut handled = 0;
    let more = ring.pass(&stop, &mut |_, _| {
        handled += 1;
        queue.publish(0);
        0
    });
    assert_eq!((handled, more.unwrap()), (4, true));
}

#[test]
fn a_stop_ends_a_pass_early() {
    let machine = Machine::new();
    let mut queue = machine.queue(0, 8);
    let mut ring = ring(&machine, &queue, 0);
    for _ in 0..8 {
        queue.add(&[Buf::room(1)]);
    }
    let stop = Stop::new().unwrap();
    let mut handled = 0;
    ring.pass(&stop, &mut |_, _| {
        handled += 1;
        stop.request();
        0
    })
    .unwrap();
    assert_eq!(handled, 1);
}

#[test]
fn serves_until_stopped_and_misses_no_doorbell() {
    let machine = Machine::new();
    let mut queue = machine.queue(0, 4);
    let ring = ring(&machine, &queue, F_EVENT_IDX);
    // One is there before the thread is.
    queue.add(&[Buf::room(1)]);
    let worker = spawn(move |stop| ring.serve(stop, |_, _| 1));
    queue.wait_used();
    for _ in 0..500 {
        queue.request(&[Buf::room(1)]);
    }
    worker.stop();
}

#[test]
fn a_driver_that_never_stops_adding_cannot_hold_up_a_stop() {
    let machine = Machine::new();
    let mut queue = machine.queue(0, 4);
    let ring = ring(&machine, &queue, F_EVENT_IDX);
    queue.add(&[Buf::room(1)]);
    queue.kick();
    let (sender, receiver) = channel();
    let body = move |stop: &Stop| {
        ring.serve(stop, |_, _| {
            queue.publish(0);
            let _ = sender.send(());
            0
        });
    };
    let worker = spawn(body);
    receiver.recv_timeout(Duration::from_secs(5)).unwrap();
    worker.stop();
}

#[test]
fn a_broken_ring_needs_a_reset_and_can_be_stopped() {
    let machine = Machine::new();
    let queue = machine.queue(0, 4);
    let ring = ring(&machine, &queue, 0);
    // More available than there are.
    machine.ram.write_obj(5u16, GuestAddress(queue.avail + 2)).unwrap();
    let worker = spawn(move |stop| ring.serve(stop, |_, _| 0));
    machine.interrupt.wait_needs_reset();
    worker.stop();
    assert_eq!(machine.interrupt.needs_reset_count(), 1);
}

#[test]
fn a_head_out_of_bounds_is_broken() {
    let machine = Machine::new();
    let mut queue = machine.queue(0, 4);
    let mut ring = ring(&machine, &queue, 0);
    queue.publish(4);
    assert!(pass(&mut ring).is_err());
}

#[test]
fn one_by_one() {
    let machine = Machine::new();
    let mut queue = machine.queue(0, 4);
    let mut ring = ring(&machine, &queue, 0);
    assert!(ring.pop().unwrap().is_none());
    let head = queue.add(&[Buf::out(b"x"), Buf::room(3)]);
    assert_eq!(ring.pop().unwrap().unwrap().head_index(), head);
    ring.push(head, 3).unwrap();
    ring.interrupt().unwrap();
    assert_eq!(queue.used(), Some((head, 3)));
    assert_eq!(machine.interrupt.queue_count(0), 1);
}

proptest! {
    /// Whatever is in the rings, a pass ends, handles no more than a queue full and no chain of it is
    /// longer than a table.
    #[test]
    fn any_content_ends(descriptors in prop::collection::vec((0u64..1 << 25, any::<u32>(), 0u16..8, 0u16..20), 8),
                        avail in prop::collection::vec(0u16..10, 8), index in 0u16..20, event: bool) {
        let machine = Machine::new();
        let queue = machine.queue(0, 8);
        for (i, &(address, len, flags, next)) in (0u16..).zip(&descriptors) {
            queue.descriptor(i, Descriptor::new(address, len, flags, next));
        }
        for (i, &head) in (0u64..).zip(&avail) {
            machine.ram.write_obj(head, GuestAddress(queue.avail + 4 + 2 * i)).unwrap();
        }
        machine.ram.write_obj(index, GuestAddress(queue.avail + 2)).unwrap();
        let mut ring = ring(&machine, &queue, if event { F_EVENT_IDX } else { 0 });
        let mut handled = 0;
        let result = ring.pass(&Stop::new().unwrap(), &mut |_, chain| {
            handled += 1;
            assert!(chain.count() <= usize::from(u16::MAX));
            0
        });
        prop_assert!(handled <= 8);
        prop_assert!(result.is_ok() || index > 8 || avail.iter().any(|&head| head >= 8));
    }
}
