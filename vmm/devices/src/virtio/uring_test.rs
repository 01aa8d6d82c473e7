use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use tempfile::tempfile;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;

fn segment(address: u64, len: u32) -> Segment {
    Segment { address: GuestAddress(address), len }
}

/// A ring for `file`, unless this host has none for us.
fn ring(file: &File) -> Option<(Ram, Uring<u32>)> {
    let Ok(prepared) = Prepared::new() else {
        println!("SKIPPED: no io_uring here");
        return None;
    };
    let ram = crate::ram::fixed(
        vm_memory::GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap(),
    );
    let uring = Uring::new(prepared, Arc::new(file.try_clone().unwrap()), ram.clone()).unwrap();
    Some((ram, uring))
}

/// The next `count` operations that end, by payload.
fn ended(uring: &mut Uring<u32>, count: usize) -> Vec<(u32, io::Result<()>)> {
    let mut ended = Vec::new();
    while ended.len() < count {
        uring.enter(true).unwrap();
        while let Some(event) = uring.event().unwrap() {
            let Event::Done(payload, result) = event else { panic!("{event:?}") };
            ended.push((payload, result));
        }
    }
    ended.sort_by_key(|(payload, _)| *payload);
    ended
}

#[test]
fn more_operations_than_entries() {
    let file = tempfile().unwrap();
    let Some((ram, mut uring)) = ring(&file) else { return };
    let bytes: Vec<u8> = (0..=255).cycle().take(0x8000).collect();
    ram.write_slice(&bytes, GuestAddress(0)).unwrap();
    let count = 3 * ENTRIES;
    for i in 0..count {
        let at = u64::from(i) * 100;
        uring.start(Op::Write(&[segment(at, 60), segment(at + 60, 40)], at), i).unwrap();
    }
    let results = ended(&mut uring, usize::try_from(count).unwrap());
    assert!(results.iter().zip(0..).all(|((payload, result), i)| *payload == i && result.is_ok()));
    assert_eq!(uring.under_way(), 0);
    let mut copy = vec![0; usize::try_from(count).unwrap() * 100];
    file.read_exact_at(&mut copy, 0).unwrap();
    assert_eq!(copy, bytes[..copy.len()]);
}

#[test]
fn short_transfers_go_on_until_the_end_of_the_file() {
    let file = tempfile().unwrap();
    file.write_all_at(&[5; 3000], 0).unwrap();
    let Some((ram, mut uring)) = ring(&file) else { return };
    // More buffers than one call takes.
    let many: Vec<_> = (0..2000).map(|at| segment(at, 1)).collect();
    uring.start(Op::Read(&many, 0), 0).unwrap();
    uring.start(Op::Read(&[segment(0x4000, 4000)], 0), 1).unwrap();
    let results = ended(&mut uring, 2);
    assert!(results[0].1.is_ok());
    assert_eq!(results[1].1.as_ref().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let mut seen = [0; 2000];
    ram.read_slice(&mut seen, GuestAddress(0)).unwrap();
    assert_eq!(seen, [5; 2000]);
}

#[test]
fn errors_are_those_of_the_host() {
    let path = tempfile::NamedTempFile::new().unwrap();
    let Some((_, mut uring)) = ring(&File::open(path.path()).unwrap()) else { return };
    uring.start(Op::Write(&[segment(0, 512)], 0), 0).unwrap();
    uring.start(Op::Read(&[segment(0xf000, 0x2000)], 0), 1).unwrap();
    uring.start(Op::Allocate(-1, 0, 512), 2).unwrap();
    uring.start(Op::Sync, 3).unwrap();
    let results = ended(&mut uring, 4);
    let error = |i: usize| results[i].1.as_ref().unwrap_err().raw_os_error();
    assert_eq!([error(0), error(1)], [Some(libc::EBADF), Some(libc::EFAULT)]);
    assert!(results[2].1.is_err());
    assert!(results[3].1.is_ok());
}

#[test]
fn each_signal_of_a_watched_event_is_seen() {
    let Some((_, mut uring)) = ring(&tempfile().unwrap()) else { return };
    let events = [0, 1].map(|_| EventFd::new(EFD_NONBLOCK).unwrap());
    events.iter().for_each(|event| uring.watch(event).unwrap());
    // Nobody reads the events.
    for round in 0..200 {
        let index = usize::from(round % 3 == 0);
        let writer = events[index].try_clone().unwrap();
        let thread = std::thread::spawn(move || writer.write(1).unwrap());
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            assert!(Instant::now() < deadline, "round {round}: not seen");
            uring.enter(true).unwrap();
            if let Some(Event::Watched(seen)) = uring.event().unwrap() {
                assert_eq!(seen, index);
                break;
            }
        }
        thread.join().unwrap();
    }
}

#[test]
fn dropping_waits_for_what_is_under_way() {
    let file = tempfile().unwrap();
    let Some((ram, mut uring)) = ring(&file) else { return };
    ram.write_slice(&[9; 0x1000], GuestAddress(0)).unwrap();
    for i in 0..8 {
        uring.start(Op::Write(&[segment(0, 0x1000)], u64::from(i) * 0x1000), i).unwrap();
    }
    drop(uring);
    let mut copy = vec![0; 0x8000];
    file.read_exact_at(&mut copy, 0).unwrap();
    assert_eq!(copy, vec![9; 0x8000]);
}

#[test]
fn a_wait_can_have_an_end() {
    let Some((_, mut uring)) = ring(&tempfile().unwrap()) else { return };
    let event = EventFd::new(EFD_NONBLOCK).unwrap();
    uring.watch(&event).unwrap();
    let began = Instant::now();
    assert!(!uring.enter_within(Duration::from_millis(20)).unwrap());
    assert!(began.elapsed() >= Duration::from_millis(20));
    event.write(1).unwrap();
    assert!(uring.enter_within(Duration::from_secs(100)).unwrap());
    assert!(matches!(uring.event().unwrap(), Some(Event::Watched(0))));
}
