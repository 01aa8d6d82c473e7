use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::super::super::Interrupt;
use super::super::super::testing::{Buf, Machine, TestQueue};
use super::super::super::uring::Prepared;
use super::super::{BlockOptions, Counts};
use super::*;

/// Bytes of the disk.
const DISK: u64 = 32 << 20;

/// Bytes of a large segment, and how many of them a request has that is nearly as large as one may be.
const SEGMENT: u32 = 128 << 10;
const SEGMENTS: u64 = 254;

struct Parts {
    machine: Machine,
    queue: TestQueue,
    file: File,
    backend: Arc<Backend>,
    intake: Intake,
}

/// A disk of sevens, and what an engine for it is made of.
fn parts() -> Parts {
    let machine = Machine::new();
    let queue = machine.queue(0, 64);
    let file = tempfile::tempfile_in(".").unwrap();
    file.set_len(DISK).unwrap();
    file.write_all_at(&[7; 64 << 10], 0).unwrap();
    let copy = file.try_clone().unwrap();
    let backend = Arc::new(Backend::new(copy, DISK, BlockOptions::default()).unwrap());
    let intake = Intake::new(Arc::clone(&backend), Arc::new(Counts::default()), false);
    Parts { machine, queue, file, backend, intake }
}

impl Parts {
    fn ring(&self) -> Ring {
        let interrupt = Arc::clone(&self.machine.interrupt) as Arc<dyn Interrupt>;
        Ring::new(self.queue.active(0), self.machine.ram.clone(), interrupt)
    }

    /// Two extents of 4 KiB to be erased.
    fn add_erasure(&mut self) -> u16 {
        let extent = |sector: u64| {
            let words = [sector.to_le_bytes(), 8u64.to_le_bytes()];
            words.concat()
        };
        let list = [extent(0), extent(64)].concat();
        self.queue.add(&[header(11, 0), Buf::out(&list), Buf::room(1)])
    }

    fn bytes(&self, offset: u64) -> [u8; 4096] {
        let mut bytes = [0; 4096];
        self.file.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }
}

fn header(kind: u32, sector: u64) -> Buf {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    Buf::out(&bytes)
}

/// The engine for `parts`, unless this host has no ring for it.
fn uring(parts: Parts) -> Option<(UringEngine, Parts)> {
    let Ok(prepared) = Prepared::new() else {
        println!("SKIPPED: no io_uring here");
        return None;
    };
    let ring = parts.ring();
    let file = Arc::clone(parts.backend.file());
    let uring = Uring::new(prepared, file, parts.machine.ram.clone()).unwrap();
    let intake = Intake::new(Arc::clone(&parts.backend), Arc::new(Counts::default()), false);
    Some((UringEngine::new(ring, uring, intake), parts))
}

#[test]
fn a_stop_lets_no_further_step_begin() {
    let Some((mut engine, mut parts)) = uring(parts()) else { return };
    let head = parts.add_erasure();
    engine.take_up().unwrap();
    let stop = Stop::new().unwrap();
    stop.request();
    engine.serve(&stop);
    assert_eq!(parts.bytes(0), [0; 4096]);
    assert_eq!(parts.bytes(64 * 512), [7; 4096]);
    assert_eq!(parts.queue.used().unwrap().0, head);
    assert_eq!(parts.queue.read(head), [1]);
}

#[test]
fn ordinary_calls_end_with_a_stop_as_well() {
    let mut parts = parts();
    let head = parts.add_erasure();
    let (mut ring, ram) = (parts.ring(), parts.machine.ram.clone());
    let stop = Stop::new().unwrap();
    stop.request();
    let chain = ring.pop().unwrap().unwrap();
    perform(&parts.backend, &mut parts.intake, (&ram, chain), &stop);
    assert_eq!(parts.bytes(0), [7; 4096]);
    assert_eq!(parts.queue.read(head), [1]);
}

#[test]
fn what_is_under_way_is_bounded_and_all_of_it_is_done() {
    let Some((mut engine, mut parts)) = uring(parts()) else { return };
    let at = parts.machine.alloc(SEGMENT.into());
    let heads: Vec<u16> = (0..8).map(|_| add_large_read(&mut parts, at)).collect();
    assert_eq!(engine.take_up().unwrap(), 3);
    assert_eq!(engine.load, 3 * SEGMENTS * u64::from(SEGMENT));
    let stop = Arc::new(Stop::new().unwrap());
    let wish = Arc::clone(&stop);
    let (count, interrupt) = (heads.len(), Arc::clone(&parts.machine.interrupt));
    let driver = std::thread::spawn(move || {
        let used: Vec<u16> = (0..count).map(|_| parts.queue.wait_used().0).collect();
        wish.request();
        used
    });
    engine.serve(&stop);
    let mut used = driver.join().unwrap();
    used.sort_unstable();
    assert_eq!(used, heads);
    assert_eq!(interrupt.needs_reset_count(), 0);
}

/// A request to read nearly as much as one may, all of it to the same place.
fn add_large_read(parts: &mut Parts, at: u64) -> u16 {
    let mut bufs = vec![header(0, 0)];
    bufs.extend((0..SEGMENTS).map(|_| Buf::At(at, SEGMENT)));
    bufs.push(Buf::room(1));
    parts.queue.add_indirect(&bufs)
}
