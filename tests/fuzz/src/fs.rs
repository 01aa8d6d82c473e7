//! The file system, between a hostile driver and a hostile file server.
//!
//! Invariant: whatever the server did, once it has ended each request gets an error.

use std::fs::File;
use std::io::{PipeWriter, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};

use cofferdam_vmm_devices::virtio::fs::{
    AVAILABLE, DESCRIPTORS, Fs, MEMORY, QUEUE_SIZE, Server, USED,
};
use cofferdam_vmm_devices::virtio::shared::SharedMemory;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::Bytes;

use crate::devices::{Host, Made, Subject};
use crate::driver::{Buf, Driver};
use crate::input::Input;

/// The file system.
pub const FS: Subject = Subject { make: fs };

/// The server.
struct Peer {
    memory: SharedMemory,
    call: File,
    alive: Option<PipeWriter>,
    seen: u16,
    used: u16,
}

fn fs(_options: u8) -> Made {
    let memory = memfd_create(c"volumes", MFdFlags::MFD_CLOEXEC).unwrap();
    nix::unistd::ftruncate(&memory, MEMORY as i64).unwrap();
    let map = SharedMemory::map(memory.as_fd(), MEMORY).unwrap();
    let event = || OwnedFd::from(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
    let (kick, call) = (event(), event());
    let (end, alive) = pipe().unwrap();
    let ours = call.try_clone().unwrap().into();
    let peer = Peer { memory: map, call: ours, alive: Some(alive), seen: 0, used: 0 };
    let server = Server { memory, kick: kick.into(), call, end: end.into() };
    (Box::new(Fs::new("volumes", server).unwrap()), Box::new(peer))
}

impl Peer {
    fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        if let Some(slice) = self.memory.slice(at, N) {
            slice.read_slice(&mut bytes, 0).unwrap();
        }
        bytes
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        if let Some(slice) = self.memory.slice(at, bytes.len()) {
            slice.write_slice(bytes, 0).unwrap();
        }
    }

    fn call(&mut self) {
        // Its counter may be full: then it is signalled.
        let _full = self.call.write(&1u64.to_ne_bytes());
    }

    /// The next request is answered as it should be, with so many bytes behind the header.
    fn answer(&mut self, body: usize) {
        if u16::from_le_bytes(self.read(AVAILABLE + 2)) == self.seen {
            return;
        }
        let entry = AVAILABLE + 4 + 2 * usize::from(self.seen % QUEUE_SIZE);
        let head = u16::from_le_bytes(self.read(entry));
        self.seen = self.seen.wrapping_add(1);
        let part = |index: u16| {
            let at = DESCRIPTORS + 16 * usize::from(index);
            let start = u64::from_le_bytes(self.read(at)) as usize;
            (start, u32::from_le_bytes(self.read(at + 8)) as usize, self.read::<1>(at + 12)[0])
        };
        let (request, _, flags) = part(head);
        let mut len = 0;
        if flags & 1 != 0 {
            let (reply, room, _) = part(head.wrapping_add(1));
            len = room.min(16 + body) as u32;
            let header = [&len.to_le_bytes()[..], &[0; 4], &self.read::<8>(request + 8)].concat();
            self.write(reply, &header);
        }
        self.put(u32::from(head), len);
    }

    /// Uses a chain.
    fn put(&mut self, head: u32, len: u32) {
        let entry = USED + 4 + 8 * usize::from(self.used % QUEUE_SIZE);
        self.write(entry, &[head.to_le_bytes(), len.to_le_bytes()].concat());
        self.used = self.used.wrapping_add(1);
        self.write(USED + 2, &self.used.to_le_bytes());
        self.call();
    }
}

impl Host for Peer {
    fn act(&mut self, input: &mut Input<'_>) {
        match input.below(8) {
            0..=2 => self.answer(input.short().into()),
            3 => self.put(input.below(20).into(), input.word()),
            4 => {
                let at = usize::from(input.short()) % 0x1100;
                self.write(at, input.bytes(24));
                self.call();
            }
            5 => {
                self.used = self.used.wrapping_add(input.short());
                self.write(USED + 2, &self.used.to_le_bytes());
                self.call();
            }
            6 => self.call(),
            _ => drop(self.alive.take()),
        }
    }

    fn probe(&mut self, driver: &mut Driver<'_>) {
        drop(self.alive.take());
        let header = [40u32, 3].map(u32::to_le_bytes).concat();
        let request = [&header[..], &7u64.to_le_bytes(), &[0; 24]].concat();
        let answer = driver.request(1, &[Buf::Out(request), Buf::Room(100)]);
        let expected = [&16u32.to_le_bytes()[..], &(-5i32).to_le_bytes(), &7u64.to_le_bytes()];
        assert_eq!(answer[..16], expected.concat());
    }
}
