use std::io::Write;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use tempfile::tempfile;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use super::super::F_VERSION_1;
use super::super::testing::{Buf, INDIRECT, Machine, NEXT, RAM_SIZE, TestQueue, WRITE};
use super::*;

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;
const UNTOUCHED: u8 = 0;

/// A disk of `sectors` sectors: each byte is the number of its sector.
fn image(sectors: u8) -> File {
    let mut file = tempfile().unwrap();
    (0..sectors).for_each(|sector| file.write_all(&[sector; 512]).unwrap());
    file
}

fn options(readonly: bool) -> BlockOptions {
    BlockOptions { readonly, serial: "disk-7".into(), queues: 1 }
}

fn header(kind: u32, sector: u64) -> Buf {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    Buf::out(&bytes)
}

/// A disk at work.
struct Running {
    machine: Machine,
    queue: TestQueue,
    file: File,
    worker: Option<Box<dyn Worker>>,
}

/// Both engines, if this host has both.
fn engines() -> Vec<bool> {
    if Prepared::new().is_ok() { vec![true, false] } else { vec![false] }
}

impl Running {
    fn new(file: File, readonly: bool, features: u64) -> Self {
        Self::with(true, file, readonly, features)
    }

    /// With `io_uring`, or without.
    fn with(uring: bool, file: File, readonly: bool, features: u64) -> Self {
        let machine = Machine::new();
        let mut queue = machine.queue(0, 64);
        let (ours, size) = (file.try_clone().unwrap(), file.metadata().unwrap().len());
        let block = match uring {
            true => Block::new(ours, options(readonly)),
            false => Block::of_size(ours, size, options(readonly)),
        };
        let mut block = block.unwrap();
        let worker = machine.activate(&mut block, features | F_VERSION_1, &mut [&mut queue]);
        Self { machine, queue, file, worker: Some(worker) }
    }

    fn usual(sectors: u8) -> Self {
        Self::new(image(sectors), false, F_FLUSH | F_EVENT_IDX | F_INDIRECT_DESC)
    }

    /// Everything writable of the chain, and the length reported.
    fn request(&mut self, bufs: &[Buf]) -> (Vec<u8>, u32) {
        let head = self.queue.add(bufs);
        self.queue.kick();
        let (used, len) = self.queue.wait_used();
        assert_eq!(used, head);
        (self.queue.read(head), len)
    }

    fn read(&mut self, sector: u64, len: u32) -> (Vec<u8>, u8, u32) {
        let (mut bytes, used) = self.request(&[header(0, sector), Buf::room(len), Buf::room(1)]);
        let status = bytes.pop().unwrap();
        (bytes, status, used)
    }

    fn write(&mut self, sector: u64, data: &[u8]) -> u8 {
        self.request(&[header(1, sector), Buf::out(data), Buf::room(1)]).0[0]
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.worker.take().unwrap().stop();
    }
}

#[test]
fn a_disk_must_be_whole_sectors() {
    let file = tempfile().unwrap();
    file.set_len(1000).unwrap();
    let error = Block::new(file, options(false)).err().unwrap();
    assert_eq!(error.to_string(), "disk of 1000 bytes: the size must be a multiple of 512 bytes");
}

#[test]
fn what_is_done_is_counted() {
    let machine = Machine::new();
    let mut queue = machine.queue(0, 64);
    let mut block = Block::new(image(4), options(false)).unwrap();
    let counters = block.counters();
    let worker = machine.activate(&mut block, F_FLUSH | F_VERSION_1, &mut [&mut queue]);
    queue.request(&[header(0, 0), Buf::room(1024), Buf::room(1)]);
    queue.request(&[header(1, 1), Buf::out(&[7; 512]), Buf::room(1)]);
    queue.request(&[header(4, 0), Buf::room(1)]);
    queue.request(&[header(0, 4), Buf::room(512), Buf::room(1)]);
    queue.request(&[header(99, 0), Buf::room(1)]);
    worker.stop();
    let counts: Vec<u64> = counters.read().into_iter().map(|(_, count)| count).collect();
    // Reads and their bytes, writes and theirs, flushes, erasures, errors.
    assert_eq!(counts, [1, 1024, 1, 512, 1, 0, 2]);
}

#[test]
fn what_is_no_disk_is_refused() {
    let null = File::open("/dev/null").unwrap();
    assert!(matches!(Block::new(null, options(true)), Err(BlockError::NotADisk)));
    let long = BlockOptions { readonly: true, serial: "x".repeat(21), queues: 1 };
    assert!(matches!(Block::new(image(1), long), Err(BlockError::Serial(_))));
}

#[test]
fn the_configuration_says_what_is_offered() {
    let block = Block::new(image(9), options(true)).unwrap();
    let erasing = F_DISCARD | F_WRITE_ZEROES;
    assert_eq!(block.features() & (F_RO | erasing | F_MQ), F_RO);
    let writable = Block::new(image(9), BlockOptions { queues: 99, ..options(false) }).unwrap();
    assert_eq!(writable.features() & (F_RO | erasing | F_MQ), erasing | F_MQ);
    assert_eq!(writable.queue_sizes(), [256; 8]);
    let mut config = [0; 64];
    block.read_config(0, &mut config);
    assert_eq!(config[..8], 9u64.to_le_bytes());
    assert_eq!(block.features() & (F_SIZE_MAX | F_SEG_MAX), F_SIZE_MAX | F_SEG_MAX);
    assert_eq!(config[8..12], (128u32 << 10).to_le_bytes());
    assert_eq!(config[12..16], 254u32.to_le_bytes());
    assert_eq!(config[20..24], 512u32.to_le_bytes());
    assert_eq!(config[24..34], [0; 10]);
    assert_eq!(config[34..36], [1, 0]);
    let word = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().unwrap());
    assert_eq!([word(36), word(40), word(44)], [1 << 21, 16, 8]);
    assert_eq!([word(48), word(52), word(56), word(60)], [1 << 21, 16, 1, 0]);
    let mut past = [0; 4];
    block.read_config(usize::MAX - 4, &mut past);
    assert_eq!(past, [0; 4]);
}

#[test]
fn reads_what_is_there() {
    for uring in engines() {
        let mut disk = Running::with(uring, image(8), false, F_FLUSH);
        let (data, status, used) = disk.read(3, 1024);
        assert_eq!((status, used), (OK, 1025));
        assert_eq!(data, [[3; 512], [4; 512]].concat());
    }
}

#[test]
fn writes_and_flushes() {
    engines().into_iter().for_each(writes_and_flushes_with);
}

fn writes_and_flushes_with(uring: bool) {
    let mut disk = Running::with(uring, image(8), false, F_FLUSH | F_EVENT_IDX);
    assert_eq!(disk.write(6, &[0xaa; 1024]), OK);
    assert_eq!(disk.request(&[header(4, 0), Buf::room(1)]), (vec![OK], 1));
    let mut bytes = [0; 4096];
    disk.file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes[5 * 512..6 * 512], &bytes[6 * 512..]), (&[5; 512][..], &[0xaa; 1024][..]));
}

#[test]
fn without_flushes_writes_are_stable_at_once() {
    for uring in engines() {
        let mut disk = Running::with(uring, image(2), false, 0);
        assert_eq!(disk.write(0, &[0xaa; 512]), OK);
        assert_eq!(disk.read(0, 512).0, [0xaa; 512]);
    }
}

#[test]
fn nothing_beyond_the_end_or_across_it() {
    let mut disk = Running::usual(8);
    for (sector, len) in [(8, 512), (7, 1024), (u64::MAX, 512), (0, 100), (0, 9 * 512)] {
        let (data, status, used) = disk.read(sector, len);
        assert_eq!((status, used), (IO_ERROR, 0), "sector {sector}, {len} bytes");
        assert!(data.iter().all(|&byte| byte == UNTOUCHED));
    }
    assert_eq!(disk.write(7, &[1; 1024]), IO_ERROR);
    assert_eq!(disk.file.metadata().unwrap().len(), 4096);
    assert_eq!(disk.read(7, 512).0, [7; 512]);
}

#[test]
fn a_read_only_disk_is_not_written() {
    let mut disk = Running::new(image(2), true, F_RO | F_FLUSH);
    assert_eq!(disk.write(0, &[9; 512]), IO_ERROR);
    assert_eq!(disk.read(0, 512).0, [0; 512]);
    assert_eq!(disk.request(&[header(4, 0), Buf::room(1)]).0, [OK]);
}

#[test]
fn the_host_s_error_reaches_the_guest() {
    engines().into_iter().for_each(the_host_s_error_with);
}

fn the_host_s_error_with(uring: bool) {
    // The descriptor is read-only although the disk is not, and the file shrinks behind our back.
    let path = tempfile::NamedTempFile::new().unwrap();
    path.as_file().set_len(4096).unwrap();
    let mut disk = Running::with(uring, File::open(path.path()).unwrap(), false, F_FLUSH);
    assert_eq!(disk.write(0, &[1; 512]), IO_ERROR);
    path.as_file().set_len(1024).unwrap();
    assert_eq!(disk.read(2, 512).1, IO_ERROR);
    assert_eq!(disk.read(1, 512).1, OK);
}

#[test]
fn the_serial_number() {
    let mut disk = Running::usual(1);
    let (bytes, used) = disk.request(&[header(8, 0), Buf::room(20), Buf::room(1)]);
    assert_eq!(bytes, b"disk-7\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(used, 21);
    let (bytes, _) = disk.request(&[header(8, 0), Buf::room(3), Buf::room(1), Buf::room(1)]);
    assert_eq!(bytes, b"disk\0");
}

#[test]
fn unknown_requests_are_unsupported() {
    let mut disk = Running::usual(1);
    for kind in [2, 3, 14, u32::MAX] {
        assert_eq!(disk.request(&[header(kind, 0), Buf::room(1)]).0, [UNSUPPORTED]);
    }
}

fn extent(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

#[test]
fn what_is_discarded_or_zeroed_reads_as_zero() {
    for uring in engines() {
        for (kind, flags) in [(11, 0), (13, 0), (13, 1)] {
            // A file of the working directory: not every temporary directory can zero a range.
            let file = tempfile::tempfile_in(".").unwrap();
            file.write_all_at(&[7; 64 << 10], 0).unwrap();
            let mut disk = Running::with(uring, file, false, F_FLUSH | F_DISCARD | F_WRITE_ZEROES);
            let list = [extent(8, 8, flags), extent(40, 16, flags)].concat();
            let done = disk.request(&[header(kind, 0), Buf::out(&list), Buf::room(1)]);
            assert_eq!(done, (vec![OK], 1), "type {kind}, flags {flags}");
            let mut bytes = vec![1; 64 << 10];
            disk.file.read_exact_at(&mut bytes, 0).unwrap();
            let zero = |at: usize| (8..16).contains(&(at / 512)) || (40..56).contains(&(at / 512));
            assert!(bytes.iter().enumerate().all(|(at, &byte)| (byte == 0) == zero(at)));
            assert_eq!(disk.file.metadata().unwrap().len(), 64 << 10);
        }
    }
}

#[test]
fn the_host_gets_the_room_of_what_is_discarded_back() {
    use std::os::unix::fs::MetadataExt;
    let file = tempfile::tempfile_in(".").unwrap();
    file.write_all_at(&[7; 1 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let before = file.metadata().unwrap().blocks();
    let mut disk = Running::new(file, false, F_FLUSH | F_DISCARD);
    let list = extent(0, 1024, 0);
    assert_eq!(disk.request(&[header(11, 0), Buf::out(&list), Buf::room(1)]).0, [OK]);
    assert!(disk.file.metadata().unwrap().blocks() <= before - 1024);
}

#[test]
fn one_bad_extent_and_nothing_is_erased() {
    let mut disk = Running::usual(8);
    for (bad, status) in [
        (extent(7, 2, 0), IO_ERROR),
        (extent(u64::MAX, 1, 0), IO_ERROR),
        (extent(0, u32::MAX, 0), IO_ERROR),
        (extent(0, 1, 1), UNSUPPORTED),
        (extent(0, 1, 2), UNSUPPORTED),
    ] {
        let list = [extent(0, 8, 0), bad].concat();
        assert_eq!(disk.request(&[header(11, 0), Buf::out(&list), Buf::room(1)]).0, [status]);
    }
    // No list at all, half an entry, more than there may be, the wrong direction.
    for len in [0, 8, 17 * 16] {
        let list = vec![0; len];
        assert_eq!(disk.request(&[header(11, 0), Buf::out(&list), Buf::room(1)]).0, [IO_ERROR]);
    }
    assert_eq!(disk.request(&[header(11, 0), Buf::room(17)]).0[16], IO_ERROR);
    assert_eq!(disk.read(7, 512).0, [7; 512]);
    let mut readonly = Running::new(image(2), true, F_RO | F_FLUSH);
    let list = extent(0, 1, 0);
    for kind in [11, 13] {
        let done = readonly.request(&[header(kind, 0), Buf::out(&list), Buf::room(1)]);
        assert_eq!(done.0, [IO_ERROR]);
    }
}

#[test]
fn each_queue_works_by_itself() {
    let machine = Machine::new();
    let options = BlockOptions { queues: 4, ..options(false) };
    let mut block = Block::new(image(8), options).unwrap();
    // The driver may leave some out.
    let mut queues: Vec<_> = [0, 1, 3].map(|index| machine.queue(index, 8)).into();
    let features = F_VERSION_1 | F_EVENT_IDX | F_MQ;
    let worker = machine.activate(&mut block, features, &mut queues.iter_mut().collect::<Vec<_>>());
    for (sector, queue) in (0u8..).zip(&mut queues) {
        let request = [header(0, sector.into()), Buf::room(512), Buf::room(1)];
        assert_eq!(queue.request(&request)[..512], [sector; 512]);
    }
    worker.stop();
    assert_eq!(machine.interrupt.queue_count(1), 1);
    assert_eq!(machine.interrupt.queue_count(2), 0);
}

#[test]
fn many_at_once_all_come_back() {
    for uring in engines() {
        let mut disk =
            Running::with(uring, image(64), false, F_FLUSH | F_EVENT_IDX | F_INDIRECT_DESC);
        for round in 0..50u8 {
            let mut expected = std::collections::HashMap::new();
            for i in 0..32u8 {
                let sector = i.wrapping_mul(7).wrapping_add(round) % 64;
                let bufs = [header(0, sector.into()), Buf::room(512), Buf::room(1)];
                expected.insert(disk.queue.add_indirect(&bufs), sector);
            }
            disk.queue.kick();
            while !expected.is_empty() {
                let (head, len) = disk.queue.wait_used();
                let sector = expected.remove(&head).unwrap();
                assert_eq!(len, 513);
                assert_eq!(disk.queue.read(head)[..512], [sector; 512]);
            }
        }
    }
}

#[test]
fn one_at_a_time_misses_no_doorbell() {
    for uring in engines() {
        let mut disk = Running::with(uring, image(8), false, F_FLUSH | F_EVENT_IDX);
        for _ in 0..500 {
            assert_eq!(disk.read(3, 512).1, OK);
        }
    }
}

#[test]
fn indirect_tables_and_odd_framing() {
    let mut disk = Running::usual(8);
    let bufs = [header(0, 1), Buf::room(100), Buf::room(924), Buf::room(1)];
    let head = disk.queue.add_indirect(&bufs);
    disk.queue.kick();
    assert_eq!(disk.queue.wait_used(), (head, 1025));
    assert_eq!(disk.queue.read(head), [&[1; 512][..], &[2; 512], &[OK]].concat());

    // The status behind the data in one buffer; the header in two.
    let bufs = [Buf::out(&[0; 8]), Buf::out(&5u64.to_le_bytes()), Buf::room(513)];
    assert_eq!(disk.request(&bufs).0, [&[5; 512][..], &[OK]].concat());
}

#[test]
fn as_many_segments_as_offered() {
    let mut disk = Running::usual(128);
    let mut bufs = vec![header(0, 0)];
    bufs.extend((0..254).map(|_| Buf::room(256)));
    bufs.push(Buf::room(1));
    let head = disk.queue.add_indirect(&bufs);
    disk.queue.kick();
    assert_eq!(disk.queue.wait_used(), (head, 254 * 256 + 1));
    bufs.push(Buf::room(1));
    let head = disk.queue.add_indirect(&bufs);
    disk.queue.kick();
    assert_eq!(disk.queue.wait_used(), (head, 0));
}

#[test]
fn chains_that_make_no_sense_come_back_unused() {
    let mut disk = Running::usual(8);
    let queue = &mut disk.queue;
    // A loop of two, an index out of bounds, a table in nowhere, a table within a table.
    queue.descriptor(0, Descriptor::new(0x1000, 16, NEXT, 1));
    queue.descriptor(1, Descriptor::new(0x1000, 16, NEXT, 0));
    queue.descriptor(2, Descriptor::new(0x1000, 16, NEXT, 64));
    queue.descriptor(3, Descriptor::new(RAM_SIZE, 32, INDIRECT, 0));
    queue.descriptor(4, Descriptor::new(0x1000, 33, INDIRECT, 0));
    for head in [0, 2, 3, 4] {
        queue.publish(head);
        queue.kick();
        assert_eq!(queue.wait_used(), (head, 0));
    }
    assert_eq!(disk.read(0, 512).1, OK);
}

#[test]
fn buffers_outside_of_memory_are_errors() {
    let mut disk = Running::usual(8);
    let status = disk.machine.alloc(1);
    disk.machine.ram.write_obj(0xff_u8, GuestAddress(status)).unwrap();
    let header = disk.machine.alloc(16);
    for address in [RAM_SIZE - 256, RAM_SIZE, u64::MAX - 4096] {
        disk.queue.descriptor(60, Descriptor::new(header, 16, NEXT, 61));
        disk.queue.descriptor(61, Descriptor::new(address, 512, WRITE | NEXT, 62));
        disk.queue.descriptor(62, Descriptor::new(status, 1, WRITE, 0));
        disk.queue.publish(60);
        disk.queue.kick();
        assert_eq!(disk.queue.wait_used(), (60, 0));
        assert_eq!(disk.machine.ram.read_obj::<u8>(GuestAddress(status)).unwrap(), IO_ERROR);
    }
}

#[test]
fn a_batch_is_one_interrupt() {
    let machine = Machine::new();
    let mut queue = machine.queue(0, 64);
    let mut block = Block::new(image(8), options(false)).unwrap();
    for sector in 0..8 {
        queue.add(&[header(0, sector), Buf::room(512), Buf::room(1)]);
    }
    let worker = machine.activate(&mut block, F_VERSION_1 | F_EVENT_IDX, &mut [&mut queue]);
    machine.interrupt.wait_queue(0, 1);
    assert!((0..8).all(|_| queue.used().is_some()));
    worker.stop();
    assert_eq!(machine.interrupt.queue_count(0), 1);
}

#[test]
fn it_can_be_stopped_and_started_again() {
    let machine = Machine::new();
    let mut block = Block::new(image(8), options(false)).unwrap();
    for _ in 0..3 {
        let mut queue = machine.queue(0, 8);
        let worker = machine.activate(&mut block, F_VERSION_1, &mut [&mut queue]);
        assert_eq!(queue.request(&[header(0, 2), Buf::room(512), Buf::room(1)])[0], 2);
        worker.stop();
        // Nobody is at work any more.
        queue.add(&[header(0, 2), Buf::room(512), Buf::room(1)]);
        queue.kick();
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert_eq!(queue.used(), None);
    }
}

#[test]
fn without_a_queue_it_does_not_start() {
    let machine = Machine::new();
    let mut block = Block::new(image(1), options(false)).unwrap();
    let interrupt = Arc::clone(&machine.interrupt) as _;
    let activation = super::super::Activation {
        ram: machine.ram.clone(),
        features: 0,
        queues: vec![],
        interrupt,
        threads: super::super::testing::threads(1),
    };
    assert!(matches!(block.activate(activation), Err(ActivateError::MissingQueue(0))));
}

proptest! {
    /// Whatever is in the rings and in memory: the disk stays what it is, but for whole sectors that
    /// the guest may write, and a sane request works afterwards.
    #[test]
    fn any_ring_is_survived(
        descriptors in prop::collection::vec((0u64..0x2000, 0u32..1200, 0u16..8, 0u16..9), 8),
        heads in prop::collection::vec(0u16..8, 1..8),
        kind in prop_oneof![Just(0u32), Just(1), Just(4), Just(8), Just(11), Just(13), any::<u32>()],
        sector in prop_oneof![0u64..9, any::<u64>()],
        (readonly, uring) in any::<(bool, bool)>(),
    ) {
        let machine = Machine::new();
        let mut queue = machine.queue(0, 8);
        let base = machine.alloc(0x3000);
        for at in (base..base + 0x3000).step_by(16) {
            machine.ram.write_obj(u64::from(kind), GuestAddress(at)).unwrap();
            machine.ram.write_obj(sector, GuestAddress(at + 8)).unwrap();
        }
        for (i, &(address, len, flags, next)) in (0u16..).zip(&descriptors) {
            // Most buffers are where the header is valid, some at the end of memory.
            let address = if address < 0x100 { RAM_SIZE - address } else { base + (address & !15) };
            queue.descriptor(i, Descriptor::new(address, len, flags, next));
        }
        let file = image(8);
        let mut block = Block::new(file.try_clone().unwrap(), options(readonly)).unwrap();
        if !uring {
            block.lanes.iter_mut().for_each(|lane| lane.uring = None);
        }
        heads.iter().for_each(|&head| queue.publish(head));
        let worker = machine.activate(&mut block, F_VERSION_1 | F_INDIRECT_DESC | F_FLUSH, &mut [&mut queue]);
        let mut used: Vec<_> = heads.iter().map(|_| queue.wait_used().0).collect();
        let mut heads = heads;
        heads.sort_unstable();
        used.sort_unstable();
        prop_assert_eq!(used, heads);
        worker.stop();
        prop_assert_eq!(file.metadata().unwrap().len(), 4096);
        if readonly {
            let mut bytes = vec![0; 4096];
            file.read_exact_at(&mut bytes, 0).unwrap();
            prop_assert!(bytes.iter().enumerate().all(|(at, &byte)| usize::from(byte) == at / 512));
        }
        prop_assert_eq!(machine.interrupt.needs_reset_count(), 0);
    }
}
