//! A driver that does all as it should: it brings a device up from whatever state it is in, and makes
//! requests that must succeed.
//!
//! Invariant: but for its buffers and the device's side of the rings, memory stays as it was.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::quiet::{PATIENCE, pause};
use crate::world::{BAR, COMMON, CONFIG, MEMORY, MSIX_TABLE, World};

/// Fields of the common configuration (virtio 1.2, 4.1.4.3): offset and bytes.
pub mod field {
    /// Which half of the features is offered below.
    pub const DEVICE_FEATURE_SELECT: (u64, usize) = (0x00, 4);
    /// Half of the features offered.
    pub const DEVICE_FEATURE: (u64, usize) = (0x04, 4);
    /// Which half is accepted below.
    pub const DRIVER_FEATURE_SELECT: (u64, usize) = (0x08, 4);
    /// Half of the features accepted.
    pub const DRIVER_FEATURE: (u64, usize) = (0x0c, 4);
    /// The vector of changes.
    pub const CONFIG_VECTOR: (u64, usize) = (0x10, 2);
    /// How many queues there are.
    pub const NUM_QUEUES: (u64, usize) = (0x12, 2);
    /// The status.
    pub const STATUS: (u64, usize) = (0x14, 1);
    /// Which queue the fields below are of.
    pub const QUEUE_SELECT: (u64, usize) = (0x16, 2);
    /// Entries.
    pub const QUEUE_SIZE: (u64, usize) = (0x18, 2);
    /// Its vector.
    pub const QUEUE_VECTOR: (u64, usize) = (0x1a, 2);
    /// Whether it is in use.
    pub const QUEUE_ENABLE: (u64, usize) = (0x1c, 2);
    /// Descriptors, driver's and device's ring.
    pub const QUEUE_RINGS: [(u64, usize); 3] = [(0x20, 8), (0x28, 8), (0x30, 8)];
}

/// Status bits.
pub const ACKNOWLEDGE: u64 = 1;
/// See [`ACKNOWLEDGE`].
pub const DRIVER: u64 = 2;
/// See [`ACKNOWLEDGE`].
pub const DRIVER_OK: u64 = 4;
/// See [`ACKNOWLEDGE`].
pub const FEATURES_OK: u64 = 8;
/// See [`ACKNOWLEDGE`].
pub const NEEDS_RESET: u64 = 64;

/// Descriptor flags.
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// Where buffers are; the rings lie below.
const HEAP: u64 = 0x8000;

/// Entries of the driver's queues.
const SIZE: u16 = 8;

impl World {
    /// Reads a field of the common configuration.
    #[must_use]
    pub fn get(&self, (offset, size): (u64, usize)) -> u64 {
        self.read(COMMON + offset, size)
    }

    /// Writes a field of the common configuration.
    pub fn set(&self, (offset, size): (u64, usize), value: u64) {
        self.write(COMMON + offset, size, value);
    }

    /// The features that the device offers.
    #[must_use]
    pub fn offered(&self) -> u64 {
        let halves = [0, 1].map(|half| {
            self.set(field::DEVICE_FEATURE_SELECT, half);
            self.get(field::DEVICE_FEATURE)
        });
        halves[0] | halves[1] << 32
    }

    /// Accepts `features`, up to `FEATURES_OK`.
    pub fn agree(&self, features: u64) {
        self.set(field::STATUS, ACKNOWLEDGE);
        self.set(field::STATUS, ACKNOWLEDGE | DRIVER);
        for half in [0, 1] {
            self.set(field::DRIVER_FEATURE_SELECT, half);
            self.set(field::DRIVER_FEATURE, features >> (32 * half) & 0xffff_ffff);
        }
        self.set(field::STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    }

    /// Sets a queue up and enables it.
    pub fn set_queue(&self, index: u16, size: u16, rings: [u64; 3]) {
        self.set(field::QUEUE_SELECT, index.into());
        self.set(field::QUEUE_SIZE, size.into());
        self.set(field::QUEUE_VECTOR, u64::from(index) + 1);
        for (field, address) in field::QUEUE_RINGS.into_iter().zip(rings) {
            self.set(field, address);
        }
        self.set(field::QUEUE_ENABLE, 1);
    }

    /// Writes descriptor `index` of the table at `table`.
    pub fn descriptor(
        &self,
        table: u64,
        index: u16,
        (at, len): (u64, u32),
        (flags, next): (u16, u16),
    ) {
        let mut bytes = at.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.store(table.wrapping_add(16 * u64::from(index)), &bytes);
    }
}

/// A buffer of a request.
#[derive(Clone, Debug)]
pub enum Buf {
    /// Bytes for the device.
    Out(Vec<u8>),
    /// Room for the device.
    Room(u32),
}

/// A queue as the driver sees it.
#[derive(Debug)]
struct Side {
    rings: [u64; 3],
    next: u16,
    added: u16,
    seen: u16,
    /// Where the room of each chain under way is, by head.
    room: BTreeMap<u16, Vec<(u64, u32)>>,
}

/// The driver.
pub struct Driver<'w> {
    world: &'w World,
    queues: Vec<Side>,
    /// Free memory.
    free: u64,
    before: Vec<u8>,
    /// What may differ from `before` in the end.
    written: Vec<(u64, u64)>,
}

impl<'w> Driver<'w> {
    /// Resets the device and starts it with the features of `wanted` that it offers.
    #[must_use]
    pub fn start(world: &'w World, wanted: u64) -> Self {
        // The registers are where firmware had put them.
        world.write(CONFIG + 0x10, 8, BAR);
        world.write(CONFIG + 0x04, 2, 0x0406);
        world.set(field::STATUS, 0);
        assert_eq!(world.get(field::STATUS), 0, "the device did not reset");
        assert!(world.bells.0.lock().unwrap().is_empty(), "a doorbell outlived the reset");
        world.quiet.wait();
        let count = world.get(field::NUM_QUEUES) as u16;
        world.agree(world.offered() & wanted | 1 << 32);
        let mut driver = Self {
            world,
            queues: Vec::new(),
            free: 0x1000,
            before: Vec::new(),
            written: Vec::new(),
        };
        for index in 0..count {
            driver.add_queue(index);
        }
        driver.before = world.memory();
        world.set(field::STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        driver.is_well();
        driver
    }

    fn add_queue(&mut self, index: u16) {
        let world = self.world;
        world.set(field::QUEUE_SELECT, index.into());
        let size = SIZE.min(world.get(field::QUEUE_SIZE) as u16);
        let rings = [0, 1, 2].map(|_| self.allocate(0x100));
        for ring in rings {
            world.store(ring, &[0; 0x100]);
        }
        world.set_queue(index, size, rings);
        let entry = MSIX_TABLE + 16 * (u64::from(index) + 1);
        for (offset, value) in [(0, 0xfee0_0000), (4, 0), (8, u64::from(index)), (12, 0)] {
            world.write(entry + offset, 4, value);
        }
        // The device's ring, and its wish for doorbells behind it.
        self.written.push((rings[2], 0x100));
        self.queues.push(Side { rings, next: 0, added: 0, seen: 0, room: BTreeMap::new() });
    }

    /// The device has not given up.
    pub fn is_well(&self) {
        let status = self.world.get(field::STATUS);
        assert_eq!(status & (NEEDS_RESET | DRIVER_OK), DRIVER_OK, "status {status:#x}");
    }

    /// Memory; what was given long ago is given again.
    fn allocate(&mut self, len: u64) -> u64 {
        if self.free + len > MEMORY[0].1 as u64 {
            self.free = HEAP;
        }
        let at = self.free;
        self.free += len.next_multiple_of(16);
        at
    }

    /// How many chains of queue `index` the device has.
    #[must_use]
    pub fn under_way(&self, index: u16) -> usize {
        self.queues[usize::from(index)].room.len()
    }

    /// Makes a chain of `bufs` available on queue `index` and rings.
    pub fn add(&mut self, index: u16, bufs: &[Buf]) -> u16 {
        let mut room = Vec::new();
        let queue = &mut self.queues[usize::from(index)];
        let (head, [table, avail, _]) = (queue.next, queue.rings);
        queue.next = (queue.next + bufs.len() as u16) % SIZE;
        for (i, buf) in (0u16..).zip(bufs) {
            let (bytes, len, flag) = match buf {
                Buf::Out(bytes) => (Some(bytes), bytes.len() as u32, 0),
                Buf::Room(len) => (None, *len, WRITE),
            };
            let at = self.allocate(len.into());
            match bytes {
                Some(bytes) => {
                    self.world.store(at, bytes);
                    let mirror = at as usize;
                    self.before[mirror..mirror + bytes.len()].copy_from_slice(bytes);
                }
                None => {
                    room.push((at, len));
                    self.written.push((at, len.into()));
                }
            }
            let (slot, next) = ((head + i) % SIZE, (head + i + 1) % SIZE);
            let chained = if usize::from(i) + 1 < bufs.len() { NEXT } else { 0 };
            self.world.descriptor(table, slot, (at, len), (flag | chained, next));
        }
        let queue = &mut self.queues[usize::from(index)];
        queue.room.insert(head, room);
        let slot = avail + 4 + 2 * u64::from(queue.added % SIZE);
        queue.added = queue.added.wrapping_add(1);
        self.world.store(slot, &head.to_le_bytes());
        self.world.store(avail + 2, &queue.added.to_le_bytes());
        for ring in [table, avail] {
            self.written.push((ring, 0x100));
        }
        self.world.ring(index);
        head
    }

    /// The next used chain of queue `index`, if there is one: its head, and what is in its room.
    pub fn used(&mut self, index: u16) -> Option<(u16, Vec<u8>)> {
        let queue = &mut self.queues[usize::from(index)];
        let ring = queue.rings[2];
        if u16::from_le_bytes(self.world.load(ring + 2)) == queue.seen {
            return None;
        }
        let slot = ring + 4 + 8 * u64::from(queue.seen % SIZE);
        queue.seen = queue.seen.wrapping_add(1);
        let head = u32::from_le_bytes(self.world.load(slot)) as u16;
        let len = u32::from_le_bytes(self.world.load(slot + 4)) as usize;
        let room = queue.room.remove(&head).expect("a chain that was not under way is used");
        let mut bytes = Vec::new();
        for (at, size) in room {
            bytes.extend((at..at + u64::from(size)).map(|at| self.world.load::<1>(at)[0]));
        }
        assert!(len <= bytes.len(), "more used than there was room: {len} of {}", bytes.len());
        bytes.truncate(len);
        Some((head, bytes))
    }

    /// Waits for the next used chain of queue `index`.
    pub fn wait(&mut self, index: u16) -> (u16, Vec<u8>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(used) = self.used(index) {
                return used;
            }
            self.is_well();
            assert!(Instant::now() < deadline, "queue {index}: nothing used in time");
            pause();
        }
    }

    /// A request and its answer.
    pub fn request(&mut self, index: u16, bufs: &[Buf]) -> Vec<u8> {
        let head = self.add(index, bufs);
        let (used, bytes) = self.wait(index);
        assert_eq!(used, head, "another chain is used than was made available");
        bytes
    }

    /// The device is well and has written nothing that it should not have.
    pub fn finish(mut self) {
        self.world.quiet.wait();
        self.is_well();
        let mut after = self.world.memory();
        for (at, len) in std::mem::take(&mut self.written) {
            let range = at as usize..(at + len) as usize;
            after[range.clone()].copy_from_slice(&self.before[range]);
        }
        let stray = after.iter().zip(&self.before).position(|(after, before)| after != before);
        assert_eq!(stray, None, "the device wrote where nobody asked it to");
    }
}
