//! A virtio device with a hostile driver.
//!
//! The input is a program: it writes configuration space, registers, memory and rings, rings doorbells,
//! and makes things happen on the host. After every step the device is left to work until it has nothing
//! to do, and what it says of itself must make sense; after the last one it is reset and must do a proper
//! request.

use crate::devices::{Host, Subject};
use crate::driver::{ACKNOWLEDGE, DRIVER, DRIVER_OK, Driver, FEATURES_OK, NEEDS_RESET, field};
use crate::input::Input;
use crate::world::{BAR, CONFIG, ECAM, MEMORY, MSIX_TABLE, NOTIFY, World};

/// Most steps of a program.
const STEPS: usize = 200;

/// Most queues that a program names.
const QUEUES: u8 = 4;

/// Where a hostile driver points to, besides anywhere in memory: ends of memory, the hole, registers, the
/// end of all addresses.
const PLACES: [u64; 14] = [
    0,
    0x1000,
    0x2000,
    0x3000,
    0x4000,
    MEMORY[0].1 as u64 - 16,
    MEMORY[0].1 as u64,
    MEMORY[1].0 - 8,
    MEMORY[1].0,
    MEMORY[1].0 + MEMORY[1].1 as u64 - 4,
    BAR,
    ECAM,
    1 << 63,
    u64::MAX - 15,
];

/// A program at work.
struct Program<'w> {
    world: &'w World,
    host: Box<dyn Host>,
    /// The rings of each queue as last set.
    rings: [[u64; 3]; QUEUES as usize],
    sizes: [u16; QUEUES as usize],
}

/// Runs `data` as a program on the device of `subject`.
pub fn run(subject: &Subject, data: &[u8]) {
    let mut input = Input::new(data);
    let options = input.byte();
    let (device, host) = (subject.make)(options);
    let world = World::new(device);
    let mut program = Program {
        world: &world,
        host,
        rings: [[0x1000, 0x2000, 0x3000]; QUEUES as usize],
        sizes: [8; QUEUES as usize],
    };
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        program.step(&mut input);
        world.quiet.wait();
        check(&world);
    }
    // With all features that there are, or with none but the required one.
    let mut driver = Driver::start(&world, if options & 0x80 == 0 { u64::MAX } else { 0 });
    program.host.probe(&mut driver);
    driver.finish();
}

/// What holds at any time.
fn check(world: &World) {
    let (config, bells) = (world.read(CONFIG + 4, 2), world.bells.0.lock().unwrap().len());
    let decodes = config & 2 != 0 && world.read(CONFIG + 0x10, 8) & !0xf == BAR;
    if !decodes {
        assert_eq!(world.get(field::STATUS), 0xff, "registers answer that are switched off");
        return;
    }
    let status = world.get(field::STATUS);
    let order = [(DRIVER, ACKNOWLEDGE), (FEATURES_OK, DRIVER), (DRIVER_OK, FEATURES_OK)];
    for (later, earlier) in order {
        assert!(status & later == 0 || status & earlier != 0, "status {status:#x}");
    }
    assert!(bells == 0 || status & DRIVER_OK != 0, "doorbells before the driver is ready");
    if status & (DRIVER_OK | NEEDS_RESET) == 0 {
        world.quiet.wait();
    }
}

impl Program<'_> {
    fn step(&mut self, input: &mut Input<'_>) {
        let world = self.world;
        match input.below(16) {
            0 => self.registers(input, CONFIG, 0x1000),
            1 => self.registers(input, BAR, 0x4000),
            2 => self.registers(input, MSIX_TABLE, 0x100),
            3 => self.field(input),
            4 => self.queue(input),
            5 => world.agree(self.features(input)),
            6 => world.set(field::STATUS, 0xf),
            7 => {
                let (address, len) = (place(input), input.below(64));
                world.store(address, input.bytes(len.into()));
            }
            8 | 9 => self.chain(input),
            10 => self.publish(input),
            11 => world.ring(input.below(QUEUES).into()),
            12 => world.write(NOTIFY + u64::from(input.byte()), input.pick(&[1, 2, 4, 8]), 0),
            13 => self.host.act(input),
            14 => self.start(input),
            _ => {
                world.set(field::STATUS, 0);
                assert!(matches!(world.get(field::STATUS), 0 | 0xff), "the device did not reset");
            }
        }
    }

    /// An access somewhere within `len` bytes of registers.
    fn registers(&self, input: &mut Input<'_>, base: u64, len: u16) {
        let (size, offset) = (input.pick(&[1, 2, 4, 8]), input.short());
        let address = base + u64::from(offset % len);
        match offset & 0x8000 {
            0 => self.world.write(address, size, input.long()),
            _ => drop(self.world.read(address, size)),
        }
    }

    /// A write to one field of the common configuration.
    fn field(&self, input: &mut Input<'_>) {
        use field::*;
        let fields = [
            DEVICE_FEATURE_SELECT,
            DRIVER_FEATURE_SELECT,
            DRIVER_FEATURE,
            CONFIG_VECTOR,
            NUM_QUEUES,
            STATUS,
            QUEUE_SELECT,
            QUEUE_SIZE,
            QUEUE_VECTOR,
            QUEUE_ENABLE,
            QUEUE_RINGS[0],
            QUEUE_RINGS[1],
            QUEUE_RINGS[2],
        ];
        let chosen = input.pick(&fields);
        let value = if chosen.1 == 8 { place(input) } else { input.word().into() };
        self.world.set(chosen, value);
    }

    /// Sets a queue up, soundly or not.
    fn queue(&mut self, input: &mut Input<'_>) {
        let index = input.below(QUEUES);
        let size = input.pick(&[1, 2, 4, 8, 16, 256, 3, 0, 0x8000]);
        let rings = [0, 1, 2].map(|_| place(input));
        self.rings[usize::from(index)] = rings;
        self.sizes[usize::from(index)] = size.max(1);
        self.world.set_queue(index.into(), size, rings);
    }

    /// Features offered, less some, or ones that were not offered.
    fn features(&self, input: &mut Input<'_>) -> u64 {
        let offered = self.world.offered() | 1 << 32;
        match input.below(4) {
            0 => offered,
            1 => offered & !(1 << 29),
            2 => offered & (input.long() | 1 << 32),
            _ => input.long(),
        }
    }

    /// All that makes a device start, with all queues sound, so that programs get past it easily.
    fn start(&mut self, input: &mut Input<'_>) {
        self.world.set(field::STATUS, 0);
        self.world.agree(self.features(input));
        for index in 0..QUEUES {
            let base = 0x4000 + 0x1000 * u64::from(index);
            let rings = [base, base + 0x200, base + 0x400];
            let clear = [0; 4];
            self.world.store(rings[1], &clear);
            self.world.store(rings[2], &clear);
            self.rings[usize::from(index)] = rings;
            self.sizes[usize::from(index)] = 16;
            self.world.set_queue(index.into(), 16, rings);
            let entry = MSIX_TABLE + 16 * u64::from(index);
            self.world.write(entry, 8, 0xfee0_0000);
            self.world.write(entry + 8, 8, u64::from(index));
        }
        self.world.write(CONFIG + 0x04, 2, 0x0406);
        self.world.set(field::STATUS, 0xf);
    }

    /// Writes descriptors of a queue, or of an indirect table.
    fn chain(&self, input: &mut Input<'_>) {
        let queue = usize::from(input.below(QUEUES));
        let table = match input.below(8) {
            0 => place(input),
            _ => self.rings[queue][0],
        };
        let (first, count) = (input.below(16), input.below(6) + 1);
        for index in first..first.saturating_add(count) {
            let address = place(input);
            let len = input.pick(&[0, 1, 16, 44, 64, 512, 4096, 0x1_0000, 0x4_0000, u32::MAX]);
            // Mostly a chain in order, with any flags.
            let (flags, next) = match input.below(8) {
                choice @ (0..=5) => (choice & 3 | u8::from(choice > 3), index + 1),
                6 => (4, 0),
                _ => (input.byte(), input.byte()),
            };
            self.world.descriptor(table, index.into(), (address, len), (flags.into(), next.into()));
        }
        if input.below(2) == 0 {
            self.make_available(queue, first.into(), 1);
        }
    }

    /// Makes a head available, or claims that very many are.
    fn publish(&self, input: &mut Input<'_>) {
        let queue = usize::from(input.below(QUEUES));
        let head = input.byte().into();
        self.make_available(queue, head, input.pick(&[1, 1, 1, 2, 16, 17, 256, 0x8000, 0xffff]));
    }

    fn make_available(&self, queue: usize, head: u16, count: u16) {
        let ([_, avail, _], size) = (self.rings[queue], self.sizes[queue]);
        let mut index = [0; 2];
        let at = vm_memory::GuestAddress(avail.wrapping_add(2));
        if vm_memory::Bytes::read_slice(&self.world.ram, &mut index, at).is_err() {
            return;
        }
        let index = u16::from_le_bytes(index);
        let slot = avail.wrapping_add(4 + 2 * u64::from(index % size));
        self.world.store(slot, &head.to_le_bytes());
        self.world.store(avail.wrapping_add(2), &index.wrapping_add(count).to_le_bytes());
        self.world.ring(queue as u16);
    }
}

/// An address: one of [`PLACES`], somewhere in memory, or anything.
fn place(input: &mut Input<'_>) -> u64 {
    match input.byte() {
        choice @ (0..=127) => PLACES[usize::from(choice) % PLACES.len()],
        128..=239 => u64::from(input.short()) << 2,
        _ => input.long(),
    }
}
