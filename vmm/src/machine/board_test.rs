//! Places and threads come back, also from a guest that lets go of nothing.

use std::io;
use std::thread::JoinHandle;

use cofferdam_vmm_devices::ports::{
    ConfigPage, Doorbells, MsiController, MsiMessage, MsiVector, Threads,
};
use cofferdam_vmm_devices::ram::fixed;
use cofferdam_vmm_devices::virtio::block::{Block, BlockOptions};
use cofferdam_vmm_hv::allocate_ram;
use vmm_sys_util::eventfd::EventFd;

use super::*;

struct Nothing;

impl MsiVector for Nothing {
    fn route(&self, _: Option<MsiMessage>) -> io::Result<()> {
        Ok(())
    }

    fn raise(&self) {}
}

impl MsiController for Nothing {
    fn vector(&self) -> io::Result<Arc<dyn MsiVector>> {
        Ok(Arc::new(Self))
    }
}

impl Doorbells for Nothing {
    fn connect(&self, _: u64, _: &EventFd) -> io::Result<()> {
        Ok(())
    }

    fn disconnect(&self, _: u64, _: &EventFd) -> io::Result<()> {
        Ok(())
    }
}

impl ConfigPages for Nothing {
    fn page(&self, _: u8) -> Option<Box<dyn ConfigPage>> {
        None
    }
}

impl Threads for Nothing {
    fn start(&self, _: DeviceId, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        Ok(thread::spawn(body))
    }
}

/// A board on which `places` device numbers are left, with `spares` threads.
fn board(places: usize, spares: usize) -> Board {
    let mut slots = Slots::new();
    for _ in places..31 {
        slots.take().unwrap();
    }
    let wiring = Wiring {
        ram: fixed(allocate_ram(&[(0, 0x10000)], false).unwrap()),
        msi: Arc::new(Nothing),
        doorbells: Arc::new(Nothing),
        threads: Arc::new(Nothing),
    };
    let outcome = Arc::new(Outcome::new().unwrap());
    let board = Board::new(Arc::default(), slots, Box::new(Nothing), wiring, outcome).unwrap();
    let spare = |_| DeviceThread::spare(|body| Ok(thread::spawn(body))).map(Arc::new);
    board.with_spares((0..spares).map(spare).collect::<Result<_, _>>().unwrap())
}

fn disk(queues: u16) -> Box<Block> {
    let options = BlockOptions { queues, ..BlockOptions::default() };
    Box::new(Block::of_size(tempfile::tempfile().unwrap(), 512, options).unwrap())
}

fn plug(board: &mut Board) -> Result<Bdf, PlugError> {
    board.plug(None, disk(1)).map(|metered| metered.address)
}

/// A driver takes the disk at `address` into use.
fn drive(board: &Board, address: Bdf) {
    let memory = &board.space.memory;
    memory.write(ECAM + (u64::from(address.0) << 12) + 4, &[6, 0]);
    let bar = board.present[&address].slot.bar;
    // VERSION_1; queue 0 with its rings in three pages; status with DRIVER_OK (virtio 1.2, 4.1.4.3).
    let registers: [(u64, &[u8]); 8] = [
        (0x14, &[3]),
        (0x08, &[1, 0, 0, 0]),
        (0x0c, &[1, 0, 0, 0]),
        (0x14, &[11]),
        (0x20, &[0, 0x10, 0, 0]),
        (0x28, &[0, 0x20, 0, 0]),
        (0x30, &[0, 0x30, 0, 0]),
        (0x1c, &[1, 0]),
    ];
    for (offset, value) in registers {
        assert!(memory.write(bar + offset, value), "{offset:#x}");
    }
    memory.write(bar + 0x14, &[15]);
    let mut status = [0];
    memory.read(bar + 0x14, &mut status);
    assert_eq!(status, [15]);
}

#[test]
fn what_the_guest_has_let_go_of_leaves_nothing() {
    let mut board = board(1, 1);
    let place = plug(&mut board).unwrap();
    drive(&board, place);
    let bar = board.present[&place].slot.bar;
    assert!(board.space.memory.write(bar + 0x14, &[0]));
    assert!(!board.unplug(place).unwrap());
    assert!(!board.space.memory.write(bar + 0x14, &[0]), "nothing answers there");
    let mut data = [0; 4];
    board.space.memory.read(ECAM + (u64::from(place.0) << 12), &mut data);
    assert_eq!(data, [0xff; 4]);
    assert_eq!(plug(&mut board).unwrap(), place);
}

#[test]
fn what_the_guest_still_uses_goes_and_its_place_with_it() {
    let mut board = board(2, 3);
    let (first, second) = (plug(&mut board).unwrap(), plug(&mut board).unwrap());
    drive(&board, first);
    assert!(board.unplug(first).unwrap());
    // The other device number.
    let third = plug(&mut board).unwrap();
    assert_eq!(third.0, (first.0 | 7) + 1);
    assert!(!board.unplug(second).unwrap());
    drive(&board, third);
    assert!(board.unplug(third).unwrap());
    assert!(matches!(plug(&mut board), Err(PlugError::Full)));
    assert_eq!((board.spares.len(), board.present.len()), (3, 0));
}

#[test]
fn what_is_refused_takes_neither_place_nor_thread() {
    let mut board = board(1, 2);
    let wide = board.plug(None, disk(3)).err();
    assert!(matches!(wide, Some(PlugError::Busy { wanted: 3, free: 2 })));
    let name = || Some("it".to_owned());
    let place = board.plug(name(), disk(1)).unwrap().address;
    assert!(matches!(board.plug(name(), disk(1)), Err(PlugError::Twice(_))));
    assert!(matches!(board.unplug(Bdf(0)), Err(PlugError::Absent(Bdf(0)))));
    assert_eq!((board.spares.len(), board.present.len()), (1, 1));
    assert!(!board.unplug(place).unwrap());
    assert_eq!(board.plug(name(), disk(2)).unwrap().address, place);
}

#[test]
fn accesses_while_devices_come_and_go_meet_a_whole_device_or_none() {
    let mut board = board(1, 1);
    let place = plug(&mut board).unwrap();
    let (space, bar) = (Arc::clone(&board.space), board.present[&place].slot.bar);
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let hostile = {
        let done = Arc::clone(&done);
        thread::spawn(move || {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let config = ECAM + (u64::from(place.0) << 12);
                space.memory.write(config + 4, &[6, 0]);
                let mut vendor = [0; 4];
                space.memory.read(config, &mut vendor);
                assert!([[0xff; 4], [0xf4, 0x1a, 0x42, 0x10]].contains(&vendor), "{vendor:x?}");
                // A driver that only looks: one that began would keep the place.
                for value in [1, 0] {
                    space.memory.write(bar + 0x14, &[value]);
                }
            }
        })
    };
    for _ in 0..500 {
        let in_use = board.unplug(place).unwrap();
        assert!(!in_use, "no driver began");
        assert_eq!(plug(&mut board).unwrap(), place);
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    hostile.join().unwrap();
}
