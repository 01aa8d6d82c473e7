//! The socket device with a driver whose rings are sound and whose packets are not.
//!
//! Invariants: every packet of the device is well-formed; no connection sends more than the guest has
//! room for (virtio 1.2, 5.10.6.3); the device never gives up and always opens a connection afterwards.

use std::collections::HashMap;

use crate::devices::{CID, Host, Sockets, sockets};
use crate::driver::{Buf, Driver};
use crate::input::Input;
use crate::world::World;

/// Most steps of a program.
const STEPS: usize = 120;

/// Most rounds of buffers without room for data.
const SHORT: usize = 8;

/// Header fields (virtio 1.2, 5.10.6).
const HEADER: usize = 44;

/// Operations.
const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RST: u16 = 3;
const RW: u16 = 5;

/// A connection as the guest sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Credit {
    /// What the guest said last of its buffer and of what it took out, and before that.
    told: (u32, u32),
    before: (u32, u32),
    received: u32,
}

impl Credit {
    fn tell(&mut self, told: (u32, u32)) {
        self.before = self.told;
        self.told = told;
    }

    /// Takes data; whether there was room for it.
    fn take(&mut self, len: u32) -> bool {
        self.received = self.received.wrapping_add(len);
        let fits = |(room, taken): (u32, u32)| self.received.wrapping_sub(taken) <= room;
        fits(self.told) || fits(self.before)
    }
}

/// The guest.
struct Guest<'w> {
    driver: Driver<'w>,
    host: Sockets,
    /// Connections by the host's and the guest's port.
    credit: HashMap<(u32, u32), Credit>,
    /// Size of the next buffers to receive into.
    room: u32,
}

/// Runs `data` as a program of packets and of events on the host.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (device, host) = sockets();
    let world = World::new(device);
    let driver = Driver::start(&world, u64::MAX);
    let mut guest = Guest { driver, host, credit: HashMap::new(), room: 300 };
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        match input.below(4) {
            0 => guest.host.act(&mut input),
            1 => guest.room = input.pick(&[44, 45, 100, 300, 600]),
            _ => guest.send(&mut input),
        }
        guest.receive(&world);
    }
    let Guest { driver, mut host, .. } = guest;
    driver.finish();
    let mut driver = Driver::start(&world, u64::MAX);
    host.probe(&mut driver);
    driver.finish();
}

impl Guest<'_> {
    /// Sends one packet.
    fn send(&mut self, input: &mut Input<'_>) {
        let op = u16::from(input.below(9));
        let (guest, host) = (u32::from(input.below(3)), host_port(input));
        let payload = vec![0xaa; usize::from(input.below(64))];
        let odd = input.byte();
        let len = if odd & 3 == 3 { input.word() } else { payload.len() as u32 };
        let told = match odd >> 2 & 3 {
            0 => (input.word(), input.word()),
            choice => (u32::from(choice) * 100, self.received((host, guest))),
        };
        let source = if odd & 0x30 == 0x30 { input.long() } else { CID };
        let target = if odd & 0xc0 == 0xc0 { input.long() } else { 2 };
        let kind = if odd == 0x11 { input.short() } else { 1 };
        let mut bytes = [source, target].map(u64::to_le_bytes).concat();
        bytes.extend([guest, host, len].map(u32::to_le_bytes).concat());
        bytes.extend([kind, op].map(u16::to_le_bytes).concat());
        bytes.extend([u32::from(odd), told.0, told.1].map(u32::to_le_bytes).concat());
        bytes.extend(payload);
        if (source, target, kind) == (CID, 2, 1) {
            let credit = self.credit.entry((host, guest)).or_default();
            match op {
                // A second one for a connection that exists resets it.
                REQUEST => *credit = Credit { told, before: told, received: 0 },
                _ => credit.tell(told),
            }
        }
        self.driver.add(1, &[Buf::Out(bytes)]);
    }

    fn received(&self, key: (u32, u32)) -> u32 {
        self.credit.get(&key).map_or(0, |credit| credit.received)
    }

    /// Gives the device buffers until it has nothing more to say. One that is as long as a header comes back with news of
    /// credit, as often as there is one, as long as data waits: the guest's own doing.
    fn receive(&mut self, world: &World) {
        for _ in 0..if self.room as usize > HEADER { usize::MAX } else { SHORT } {
            while self.driver.under_way(0) < 4 {
                self.driver.add(0, &[Buf::Room(self.room)]);
            }
            world.quiet.wait();
            while self.driver.used(1).is_some() {}
            let mut any = false;
            while let Some((_, bytes)) = self.driver.used(0) {
                self.packet(&bytes);
                any = true;
            }
            if !any {
                return;
            }
        }
    }

    /// Looks at a packet of the device.
    fn packet(&mut self, bytes: &[u8]) {
        let mut input = Input::new(bytes);
        assert!(bytes.len() >= HEADER, "{} bytes", bytes.len());
        let (_source, target) = (input.long(), input.long());
        let (host, guest, len) = (input.word(), input.word(), input.word());
        let (_kind, op, _flags) = (input.short(), input.short(), input.word());
        assert_eq!(target, CID);
        assert!((REQUEST..=7).contains(&op), "operation {op}");
        assert_eq!(bytes.len() - HEADER, len as usize, "the length in the header");
        assert!(len == 0 || op == RW, "operation {op} with data");
        let credit = self.credit.entry((host, guest)).or_default();
        match op {
            REQUEST => *credit = Credit::default(),
            RST => *credit = Credit { told: credit.told, before: credit.before, received: 0 },
            RW => assert!(credit.take(len), "{len} bytes without room for them: {credit:?}"),
            RESPONSE => {}
            _ => {}
        }
    }
}

/// A port of the host: one that the guest chooses, or one of a connection that the host began.
fn host_port(input: &mut Input<'_>) -> u32 {
    let choice = input.byte();
    let base = if choice & 0x80 == 0 { 0 } else { 0x4000_0000 };
    base + u32::from(choice & 3)
}
