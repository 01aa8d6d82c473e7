//! Where memory is, and what it costs.

use vm_memory::{Bytes, GuestMemoryBackend};

use super::*;

const HIGH: u64 = 1 << 32;

fn ram(ranges: &[(u64, u64)]) -> Result<GuestRam, MemoryError> {
    allocate_ram(ranges, false)
}

#[test]
fn ranges_begin_at_huge_pages() {
    for (low, high) in [(0x10_0000, 0x20_0000), (0x1000, 0x30_1000)] {
        for region in ram(&[(0, low), (HIGH, high)]).unwrap().iter() {
            assert_eq!(region.as_ptr().addr() % (2 << 20), 0);
        }
    }
}

#[test]
fn it_reads_as_zero_and_keeps_what_is_written() {
    let ram = ram(&[(0, 0x1000), (HIGH, 0x1000)]).unwrap();
    let address = GuestAddress(HIGH + 0xff8);
    assert_eq!(ram.read_obj::<u64>(address).unwrap(), 0);
    ram.write_obj(0x1234_u64, address).unwrap();
    assert_eq!(ram.read_obj::<u64>(address).unwrap(), 0x1234);
    assert!(ram.write_obj(0_u64, GuestAddress(0x1000)).is_err());
}

/// The flags of the mapping that `ram` has at guest address `at`.
fn flags(ram: &GuestRam, at: u64) -> String {
    let place = ram.get_host_address(GuestAddress(at)).unwrap().addr();
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut found = false;
    for line in text.lines() {
        let range = line.split(' ').next().unwrap().split_once('-');
        let hex = |text| usize::from_str_radix(text, 16).ok();
        if let Some((Some(start), Some(end))) = range.map(|(start, end)| (hex(start), hex(end))) {
            found = (start..end).contains(&place);
        } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| found) {
            return format!("{flags} ");
        }
    }
    panic!("not mapped");
}

#[test]
fn huge_pages_are_asked_for_where_they_are_wanted() {
    let size = 16 << 20;
    let small = ram(&[(0, size), (HIGH, size)]).unwrap();
    prefer_huge_pages(&small, 0x50_0000..0x61_0000);
    for (at, huge) in [(0x3f_f000, false), (0x40_0000, true), (0x7f_f000, true), (0x80_0000, false)]
    {
        assert_eq!(flags(&small, at).contains(" hg "), huge, "{at:#x}");
    }
    assert!(flags(&small, HIGH).contains(" nh "));
    let huge = allocate_ram(&[(0, size)], true).unwrap();
    assert!(flags(&huge, 0).contains(" hg "));
    // Beyond the end of memory.
    prefer_huge_pages(&huge, size - 1..u64::MAX);
}

#[test]
fn impossible_ranges_are_refused() {
    assert!(ram(&[(0, 0x20_2000), (0x20_0000, 0x2000)]).is_err());
    assert!(ram(&[(0x1000, 0x2000)]).is_err());
    assert!(ram(&[(u64::MAX - 0x1f_ffff, 0x40_0000)]).is_err());
    assert!(ram(&[(0, u64::MAX)]).is_err());
    assert!(ram(&[(0, 0)]).is_err());
    assert!(ram(&[]).is_err());
}
