//! The memory device: how to make one, and what it must still be able to do after anything.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use cofferdam_vmm_devices::ports::{MemoryChunks, Reclaim};
use cofferdam_vmm_devices::virtio::mem_hotplug::{BLOCK, Blocks, CHUNK, MemHotplug, MemorySize};

use crate::devices::{Host, Made, Subject};
use crate::driver::{Buf, Driver};
use crate::input::Input;

/// The memory device.
pub const MEM: Subject = Subject { make };

/// Where its region is.
const BASE: u64 = 1 << 32;

/// Chunks of its region.
const CHUNKS: u64 = 4;

/// Types of requests (virtio 1.2, 5.15.6), and the answer that all is well.
const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const UNPLUG_ALL: u16 = 2;
const ACK: u8 = 0;

/// What the guest has of the region.
#[derive(Default)]
struct Space(Mutex<BTreeSet<u32>>);

impl Reclaim for Space {
    fn give_back(&self, address: u64, len: u64) -> io::Result<()> {
        let end = BASE + CHUNKS * CHUNK;
        assert!(address >= BASE && address + len <= end, "{len:#x} bytes at {address:#x}");
        Ok(())
    }
}

impl MemoryChunks for Space {
    fn map(&self, index: u32) -> io::Result<()> {
        assert!(u64::from(index) < CHUNKS, "chunk {index}");
        assert!(self.0.lock().unwrap().insert(index), "chunk {index} is there already");
        Ok(())
    }

    fn unmap(&self, index: u32) {
        assert!(self.0.lock().unwrap().remove(&index), "chunk {index} is not there");
    }
}

/// The owner of the machine.
struct Owner {
    space: Arc<Space>,
    size: MemorySize,
    /// The most that was requested so far.
    most: u64,
}

fn make(options: u8) -> Made {
    let (space, blocks) = (Arc::new(Space::default()), Arc::new(Blocks::new(CHUNKS * CHUNK)));
    let device = MemHotplug::new(BASE, blocks, space.clone());
    let mut owner = Owner { space, size: device.size(), most: 0 };
    owner.request(u64::from(options & 0x7f) * BLOCK);
    (Box::new(device), Box::new(owner))
}

impl Owner {
    fn request(&mut self, bytes: u64) {
        self.size.request(bytes);
        self.most = self.most.max(self.size.requested());
        self.check();
    }

    /// The guest has no more than it was ever asked to have.
    fn check(&self) {
        assert!(self.size.plugged() <= self.most);
        let chunks = self.space.0.lock().unwrap().len() as u64;
        assert!(chunks <= self.most.div_ceil(CHUNK), "{chunks} chunks for {} bytes", self.most);
    }
}

impl Host for Owner {
    fn act(&mut self, input: &mut Input<'_>) {
        self.request(u64::from(input.byte()) * BLOCK);
    }

    fn probe(&mut self, driver: &mut Driver<'_>) {
        self.check();
        self.request(2 * BLOCK);
        let mut ask = |kind: u16, blocks: u16| {
            let mut request = vec![0; 24];
            request[..2].copy_from_slice(&kind.to_le_bytes());
            request[8..16].copy_from_slice(&(BASE + BLOCK).to_le_bytes());
            request[16..18].copy_from_slice(&blocks.to_le_bytes());
            let answer = driver.request(0, &[Buf::Out(request), Buf::Room(10)]);
            assert_eq!(answer.len(), 10);
            answer[0]
        };
        assert_eq!(ask(UNPLUG_ALL, 0), ACK);
        assert_eq!((ask(PLUG, 2), self.size.plugged()), (ACK, 2 * BLOCK));
        assert_eq!((ask(UNPLUG, 2), self.size.plugged()), (ACK, 0));
    }
}
