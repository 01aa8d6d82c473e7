//! A disk whose every sector holds its own number, read and written at random with any number of requests at once.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use cofferdam_vmm_devices::virtio::block::{Block, BlockOptions};
use cofferdam_vmm_devices::virtio::{F_INDIRECT_DESC, F_VERSION_1};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{Bytes, GuestAddress};

use crate::Round;
use crate::driver::{INDIRECT, Machine, NEXT, Queue, WRITE, describe};
use crate::random::Random;

/// Bytes of a request, and of the disk in those.
const BLOCK: u32 = 4096;
const BLOCKS: u64 = 256;

/// `VIRTIO_BLK_F_FLUSH`.
const F_FLUSH: u64 = 1 << 9;

/// Request types.
const READ: u32 = 0;
const WRITE_OUT: u32 = 1;
const FLUSH: u32 = 4;

/// Where a request is in memory: header, data, status, and a table of descriptors.
#[derive(Clone, Copy)]
struct Slot {
    header: u64,
    data: u64,
    status: u64,
    table: u64,
    /// What it does now, with which block.
    work: Option<(u32, u64)>,
}

/// In memory: the test is about doorbells, and must not keep the host's disk busy.
fn image() -> File {
    let mut file = File::from(memfd_create(c"disk", MFdFlags::MFD_CLOEXEC).unwrap());
    for block in 0..BLOCKS {
        file.write_all(&contents(block)).unwrap();
    }
    file
}

fn contents(block: u64) -> Vec<u8> {
    block.to_le_bytes().repeat(BLOCK as usize / 8)
}

/// A round with `io_uring` (where this host has it), or with ordinary calls; the requests done.
pub(crate) fn round(round: Round, random: &mut Random) -> u64 {
    let mut disk = Block::new(image(), BlockOptions::default()).unwrap();
    if random.below(4) == 0 {
        // The first driver's start takes the ring with it.
        let machine = Machine::new(round.event_idx);
        machine.start(&mut disk, F_VERSION_1, &[&machine.queue(0, 2)]).stop();
    }
    let machine = Machine::new(round.event_idx);
    let queue = machine.queue(0, round.size);
    let worker = machine.start(&mut disk, F_VERSION_1 | F_INDIRECT_DESC | F_FLUSH, &[&queue]);
    let indirect = round.size < 4 || random.below(2) == 0;
    let count = if indirect { round.size } else { round.size / 4 };
    let depth = 1 + random.below(count.into());
    let mut driver = Driver::new(&machine, queue, (depth, indirect));
    let mut done = 0;
    while Instant::now() < round.end {
        driver.submit(1 + random.below(driver.free.len()), random);
        machine.rest(&mut [&mut driver.queue]);
        done += driver.complete();
    }
    while driver.free.len() < driver.slots.len() {
        machine.rest(&mut [&mut driver.queue]);
        done += driver.complete();
    }
    worker.stop();
    done
}

struct Driver<'m> {
    machine: &'m Machine,
    queue: Queue,
    slots: Vec<Slot>,
    free: Vec<usize>,
    indirect: bool,
}

impl<'m> Driver<'m> {
    fn new(machine: &'m Machine, queue: Queue, (depth, indirect): (usize, bool)) -> Self {
        let slot = |_| Slot {
            header: machine.alloc(16),
            data: machine.alloc(BLOCK.into()),
            status: machine.alloc(1),
            table: machine.alloc(64),
            work: None,
        };
        let slots: Vec<Slot> = (0..depth).map(slot).collect();
        Self { machine, queue, free: (0..slots.len()).collect(), slots, indirect }
    }

    /// Adds up to `count` requests, with a doorbell for all of them or for each.
    fn submit(&mut self, count: usize, random: &mut Random) {
        let each = random.below(2) == 0;
        for _ in 0..count {
            let Some(index) = self.free.pop() else { break };
            let kind = [READ, READ, READ, WRITE_OUT, WRITE_OUT, FLUSH][random.below(6)];
            self.prepare(index, kind, random.below(BLOCKS as usize) as u64);
            if each {
                self.queue.kick();
            }
        }
        self.queue.kick();
    }

    fn prepare(&mut self, index: usize, kind: u32, block: u64) {
        let slot = &mut self.slots[index];
        slot.work = Some((kind, block));
        let ram = &self.machine.ram;
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&(block * u64::from(BLOCK) / 512).to_le_bytes());
        ram.write_slice(&header, GuestAddress(slot.header)).unwrap();
        ram.write_obj(0xffu8, GuestAddress(slot.status)).unwrap();
        let fill = if kind == WRITE_OUT { contents(block) } else { vec![0xee; BLOCK as usize] };
        ram.write_slice(&fill, GuestAddress(slot.data)).unwrap();
        let mut parts = vec![(slot.header, 16, 0)];
        match kind {
            READ => parts.push((slot.data, BLOCK, WRITE)),
            WRITE_OUT => parts.push((slot.data, BLOCK, 0)),
            _ => {}
        }
        parts.push((slot.status, 1, WRITE));
        let index = index as u16;
        let (table, first) = (slot.table, if self.indirect { 0 } else { 4 * index });
        for (i, &(at, len, flags)) in (0u16..).zip(&parts) {
            let next = if usize::from(i) + 1 < parts.len() { NEXT } else { 0 };
            let descriptor = (at, len, flags | next, first + i + 1);
            match self.indirect {
                true => describe(ram, table, i, descriptor),
                false => self.queue.describe(first + i, descriptor),
            }
        }
        if self.indirect {
            let len = 16 * parts.len() as u32;
            self.queue.describe(index, (table, len, INDIRECT, 0));
        }
        self.queue.add(if self.indirect { index } else { first });
    }

    /// Takes note of what is done.
    fn complete(&mut self) -> u64 {
        let mut done = 0;
        while let Some((head, _)) = self.queue.take() {
            let index = usize::from(if self.indirect { head } else { head / 4 });
            let slot = &mut self.slots[index];
            let (kind, block) = slot.work.take().expect("a request that was not under way is used");
            let ram = &self.machine.ram;
            assert_eq!(
                ram.read_obj::<u8>(GuestAddress(slot.status)).unwrap(),
                0,
                "a request failed"
            );
            if kind == READ {
                let mut data = vec![0; BLOCK as usize];
                ram.read_slice(&mut data, GuestAddress(slot.data)).unwrap();
                assert_eq!(data, contents(block));
            }
            self.free.push(index);
            done += 1;
        }
        done
    }
}
