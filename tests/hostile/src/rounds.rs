//! Rounds of garbage: each device is reset, started in some way, and then written to without sense.
//!
//! Invariant: what would end the machine in an orderly way is not touched: power, reset, panic notifier.

use crate::device::{BALLOON, Device, ENTROPY, SLOTS};
use crate::garbage::{ARENA, ARENA_SIZE, Garbage};
use crate::metal::{exchange, print, read, write};

/// Where the monitor puts the command line.
const CMDLINE: u64 = 0x2_0000;
/// Its longest length.
const CMDLINE_MAX: usize = 2048;

/// Bytes of a BAR, and where in it the interrupt table is.
const BAR_SIZE: u64 = 0x4000;
const MSIX: core::ops::Range<u64> = 0x2000..0x3000;

/// Where interrupts are written to: the processors; the 20 bits below say to which of them and how.
const LOCAL_APIC: u64 = 0xfee0_0000;

/// Bits 8 to 10 of an interrupt's data: how it is delivered. Zero is an ordinary one.
const ORDINARY: u64 = 0xffff_f8ff_ffff_f8ff;

/// Ports that end the machine.
const DEADLY: [core::ops::RangeInclusive<u16>; 2] = [0x502..=0x505, 0x5fd..=0x602];

/// Accesses of each kind in a round.
const ACCESSES: u64 = 24;

/// What the command line asks for.
pub(crate) struct Words {
    seed: u64,
    rounds: u64,
    wild: bool,
}

impl Words {
    /// Reads it.
    pub(crate) fn read() -> Self {
        let mut words = Self { seed: 1, rounds: 4, wild: false };
        let mut text = [0; CMDLINE_MAX];
        for (byte, at) in text.iter_mut().zip(CMDLINE..) {
            *byte = u8::try_from(read(at, 1)).unwrap_or(0);
        }
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(0);
        for word in text[..end].split(|byte| *byte == b' ') {
            if let [b'h', b'o', b's', b't', b'i', b'l', b'e', b'.', rest @ ..] = word {
                words.take(rest);
            }
        }
        words
    }

    fn take(&mut self, word: &[u8]) {
        let number = |digits: &[u8]| {
            digits.iter().fold(0_u64, |value, digit| {
                value.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0')))
            })
        };
        // Patterns, because comparing slices would need the C library.
        match word {
            [b's', b'e', b'e', b'd', b'=', digits @ ..] => self.seed = number(digits),
            [b'r', b'o', b'u', b'n', b'd', b's', b'=', digits @ ..] => self.rounds = number(digits),
            [b'w', b'i', b'l', b'd'] => self.wild = true,
            _ => {}
        }
    }
}

/// All rounds, and the request that must succeed afterwards.
pub(crate) fn all(words: &Words) -> Result<(), &'static str> {
    let mut garbage = Garbage::new(words.seed);
    let mut found = 0;
    for round in 0..words.rounds {
        for slot in 0..SLOTS {
            let Some(device) = Device::find(slot) else { continue };
            // It takes the memory that it is told to take, this program's own as well.
            if device.id() == BALLOON && !words.wild {
                continue;
            }
            found += u64::from(round == 0);
            one(&device, &mut garbage, words.wild);
            device.restore();
            if !device.reset() {
                return Err("a device does not reset");
            }
        }
        print(".");
    }
    if found == 0 {
        return Err("no devices");
    }
    let mut entropy = (0..SLOTS).filter_map(Device::find).filter(|device| device.id() == ENTROPY);
    entropy.try_for_each(|device| device.fill())
}

/// One round with one device.
fn one(device: &Device, garbage: &mut Garbage, wild: bool) {
    for _ in 0..ACCESSES {
        access(device.config + garbage.below(0x1000), garbage, u64::MAX);
    }
    device.restore();
    let _reset = device.reset();
    device.agree(if garbage.below(2) == 0 { u64::MAX } else { garbage.long() });
    // The table of interrupts open, each to somewhere.
    for entry in 0..device.queues().min(16) + 1 {
        let at = device.bar + MSIX.start + 16 * entry;
        let anywhere = if garbage.below(2) == 0 {
            garbage.long()
        } else {
            LOCAL_APIC | garbage.below(1 << 20)
        };
        write(at, 8, if wild { anywhere } else { LOCAL_APIC });
        write(at + 8, 8, garbage.long() & if wild { u64::MAX } else { 0xff });
    }
    headers(garbage);
    for index in 0..device.queues().min(16) {
        // Rings that work, mostly: what is in them is bad enough.
        let sound = garbage.below(4) != 0;
        let rings = match sound {
            true => [garbage.page(), garbage.page(), garbage.page()],
            false => [garbage.address(), garbage.address(), garbage.address()],
        };
        fill(&rings, garbage);
        let size = if sound { 16 } else { garbage.queue_size() };
        device.set_queue(index, size, &rings);
    }
    let _started = device.start();
    for _ in 0..ACCESSES {
        device.ring(device.any_queue(garbage));
        bar(device, garbage, wild);
        port(garbage);
        memory(garbage);
    }
}

/// A read or a write of any width.
fn access(address: u64, garbage: &mut Garbage, mask: u64) {
    let width = garbage.width();
    match garbage.below(4) {
        0 => drop(read(address, width)),
        _ => write(address, width, garbage.long() & mask),
    }
}

/// A register of the device.
fn bar(device: &Device, garbage: &mut Garbage, wild: bool) {
    // Half of them where most registers are.
    let end = if garbage.below(2) == 0 { 0x40 } else { BAR_SIZE };
    let offset = garbage.below(end);
    if MSIX.contains(&offset) && !wild {
        access(device.bar + (offset & !7), garbage, ORDINARY);
    } else {
        access(device.bar + offset, garbage, u64::MAX);
    }
}

/// An I/O port that does not end the machine.
fn port(garbage: &mut Garbage) {
    let near = [0x3f9, 0x40, 0x60, 0x70, 0xcf8, 0xcfc][garbage.index(6)];
    let any = u16::try_from(garbage.below(0x1_0000)).unwrap_or(near);
    let port = if garbage.below(2) == 0 { near } else { any };
    if !DEADLY.iter().any(|range| range.contains(&port)) {
        let value = u32::try_from(garbage.below(1 << 32)).unwrap_or(0);
        exchange(port, [1, 2, 4][garbage.index(3)], value);
    }
}

/// Memory that devices may be working on at this moment.
fn memory(garbage: &mut Garbage) {
    let at = ARENA + garbage.below(ARENA_SIZE - 8);
    write(at, 8, garbage.long());
}

/// What devices take for requests, at the start of each page: of a disk (virtio 1.2, 5.2.6), or a packet
/// (5.10.6) of the context id that `cofferdam-vmm boot` gives.
fn headers(garbage: &mut Garbage) {
    for page in (ARENA..ARENA + ARENA_SIZE).step_by(0x1000) {
        if garbage.below(2) == 0 {
            write(page, 8, [0, 1, 1, 4, 8, 11][garbage.index(6)]);
            write(page + 8, 8, garbage.below(32));
        } else {
            write(page, 8, 3);
            write(page + 8, 8, 2);
            write(page + 16, 8, garbage.below(4) | garbage.below(4) << 32);
            write(page + 24, 8, garbage.len() & 0xffff | 1 << 32 | garbage.below(9) << 48);
            write(page + 32, 8, garbage.below(4) | garbage.long() << 32);
            write(page + 40, 4, garbage.below(0x1000));
        }
    }
}

/// Rings that look like something: chains of buffers anywhere, and many of them available.
fn fill(&[table, avail, used]: &[u64; 3], garbage: &mut Garbage) {
    let inside = |at: u64| (ARENA..ARENA + ARENA_SIZE - 0x1000).contains(&at);
    if inside(table) {
        for index in 0..16 {
            let at = table + 16 * index;
            write(at, 8, garbage.address());
            // Most are thirds of a disk's request, or parts of any other: header, data, status.
            let sound = garbage.below(8) != 0;
            let (len, flags) = match index % 3 {
                0 if sound => (16, 1),
                1 if sound => (512 << garbage.below(3), 1 | garbage.below(2) << 1),
                2 if sound => (1, 2),
                _ => (garbage.len(), garbage.below(4) | ((garbage.below(16) / 15) << 2)),
            };
            write(at + 8, 4, len);
            write(at + 12, 2, flags);
            write(at + 14, 2, if garbage.below(8) == 0 { garbage.long() } else { index + 1 });
        }
    }
    if inside(avail) {
        write(avail, 4, [1, 4, 16, 16, 256, 0x8000][garbage.index(6)] << 16);
        for index in 0..16 {
            write(avail + 4 + 2 * index, 2, garbage.below(6) * 3);
        }
    }
    if inside(used) {
        write(used, 8, 0);
    }
}
