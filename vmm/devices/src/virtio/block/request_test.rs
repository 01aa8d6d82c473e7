use proptest::prelude::*;

use super::super::super::testing::{NEXT, WRITE};
use super::*;

/// A chain of (address, length, writable).
fn chain(parts: &[(u64, u32, bool)]) -> Vec<Descriptor> {
    let descriptor = |(i, &(address, len, writable)): (usize, &(u64, u32, bool))| {
        let next = if i + 1 < parts.len() { NEXT } else { 0 };
        let flags = next | if writable { WRITE } else { 0 };
        Descriptor::new(address, len, flags, u16::try_from(i + 1).unwrap())
    };
    parts.iter().enumerate().map(descriptor).collect()
}

fn fill(parts: &[(u64, u32, bool)]) -> Result<(Layout, u64), Malformed> {
    let mut layout = Layout::default();
    let status = layout.fill(chain(parts).into_iter())?;
    Ok((layout, status.0))
}

fn segments(parts: &[(u64, u32)]) -> Vec<Segment> {
    parts.iter().map(|&(at, len)| Segment { address: GuestAddress(at), len }).collect()
}

#[test]
fn the_usual_read() {
    let (layout, status) =
        fill(&[(0x1000, 16, false), (0x2000, 4096, true), (0x3000, 1, true)]).unwrap();
    assert_eq!(layout.header, segments(&[(0x1000, 16)]));
    assert_eq!(layout.output, []);
    assert_eq!(layout.input, segments(&[(0x2000, 4096)]));
    assert_eq!(status, 0x3000);
}

#[test]
fn the_usual_write() {
    let (layout, status) =
        fill(&[(0x1000, 16, false), (0x2000, 512, false), (0x3000, 1, true)]).unwrap();
    assert_eq!(layout.output, segments(&[(0x2000, 512)]));
    assert_eq!((layout.input.len(), status), (0, 0x3000));
}

#[test]
fn any_framing_is_the_same_request() {
    // The header in three pieces with data right behind, the status at the end of the data.
    let parts = [(0x1000, 4, false), (0x1100, 0, false), (0x1200, 10, false), (0x1300, 514, false)];
    let (layout, status) = fill(&[&parts[..], &[(0x2000, 21, true)]].concat()).unwrap();
    assert_eq!(layout.header, segments(&[(0x1000, 4), (0x1100, 0), (0x1200, 10), (0x1300, 2)]));
    assert_eq!(layout.output, segments(&[(0x1302, 512)]));
    assert_eq!(layout.input, segments(&[(0x2000, 20)]));
    assert_eq!(status, 0x2014);
}

#[test]
fn what_is_no_request() {
    let header = (0x1000, 16, false);
    let status = (0x3000, 1, true);
    assert_eq!(fill(&[]).unwrap_err(), Malformed::Broken);
    assert_eq!(fill(&[header]).unwrap_err(), Malformed::Status);
    assert_eq!(fill(&[header, (0x3000, 0, true)]).unwrap_err(), Malformed::Status);
    assert_eq!(fill(&[(0x1000, 15, false), status]).unwrap_err(), Malformed::Header);
    assert_eq!(fill(&[status]).unwrap_err(), Malformed::Header);
    assert_eq!(fill(&[header, status, (0x2000, 512, false)]).unwrap_err(), Malformed::Order);
    assert_eq!(fill(&[header, (u64::MAX - 8, 512, true)]).unwrap_err(), Malformed::Address);
    let most = [vec![header], vec![(0x2000, 512, true); 254], vec![status]].concat();
    assert_eq!(fill(&most).unwrap().0.input.len(), 254);
    let more = [vec![header], vec![(0x2000, 512, true); 255], vec![status]].concat();
    assert_eq!(fill(&more).unwrap_err(), Malformed::TooLong);
    // Cut off: the last descriptor seen names another one.
    let mut layout = Layout::default();
    let cut = chain(&[header, status]).into_iter().take(1);
    assert_eq!(layout.fill(cut), Err(Malformed::Broken));
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

const DISK: Limits = Limits { sectors: 8, readonly: false };
const VAST: Limits = Limits { sectors: 1 << 40, readonly: false };
const READONLY: Limits = Limits { sectors: 8, readonly: true };

#[test]
fn requests_within_the_disk() {
    assert_eq!(Request::parse(header(0, 0), 0, 4096, DISK), Ok(Request::Read { offset: 0 }));
    assert_eq!(Request::parse(header(0, 7), 0, 512, READONLY), Ok(Request::Read { offset: 3584 }));
    assert_eq!(Request::parse(header(1, 6), 1024, 0, DISK), Ok(Request::Write { offset: 3072 }));
    let most = Request::parse(header(0, 1), 0, MAX_DATA, VAST);
    assert_eq!(most, Ok(Request::Read { offset: 512 }));
    assert_eq!(Request::parse(header(4, 0), 0, 0, DISK), Ok(Request::Flush));
    assert_eq!(Request::parse(header(8, 0), 0, 20, DISK), Ok(Request::GetId));
}

#[test]
fn requests_that_are_refused() {
    let refused = [
        // Past the end, wrapping around, not whole sectors, nothing at all.
        (header(0, 8), 0, 512, DISK),
        (header(0, 7), 0, 1024, DISK),
        (header(0, u64::MAX), 0, 512, DISK),
        (header(0, u64::MAX / 512), 0, 512, DISK),
        (header(0, 0), 0, 511, DISK),
        (header(0, 0), 0, 0, DISK),
        (header(1, 0), 0, 0, DISK),
        // The wrong direction.
        (header(0, 0), 512, 512, DISK),
        (header(1, 0), 512, 512, DISK),
        (header(4, 0), 512, 0, DISK),
        (header(8, 0), 0, 0, DISK),
        // More than one request may move.
        (header(0, 0), 0, MAX_DATA + 512, VAST),
        (header(1, 0), MAX_DATA + 512, 0, VAST),
        (header(0, 0), 0, 4 << 30, VAST),
        // Read-only.
        (header(1, 0), 512, 0, READONLY),
    ];
    for (header, output, input, limits) in refused {
        let request = Request::parse(header, output, input, limits);
        assert_eq!(request, Err(Status::IoError), "{header:?} {output} {input}");
    }
    for kind in [2, 3, 5, 6, 7, 9, 10, 12, 14, u32::MAX] {
        assert_eq!(Request::parse(header(kind, 0), 0, 0, DISK), Err(Status::Unsupported));
    }
}

#[test]
fn erasing_takes_a_list() {
    for (kind, erase) in [(11, Erase::Discard), (13, Erase::Zero)] {
        for len in [16, 32, 256] {
            let parsed = Request::parse(header(kind, u64::MAX), len, 0, DISK);
            assert_eq!(parsed, Ok(Request::Erase(erase)));
        }
        for (output, input, limits) in [
            (0, 0, DISK),
            (15, 0, DISK),
            (17, 0, DISK),
            (272, 0, DISK),
            (16, 1, DISK),
            (16, 0, READONLY),
        ] {
            let parsed = Request::parse(header(kind, 0), output, input, limits);
            assert_eq!(parsed, Err(Status::IoError));
        }
    }
}

proptest! {
    /// An extent that is accepted lies within the disk; a discard never has a flag.
    #[test]
    fn no_extent_beyond_the_disk(
        bytes: [u8; EXTENT_LEN],
        near in prop::option::of((0u64..20, 0u32..20, 0u32..4)),
        discard: bool,
        sectors in 0u64..1 << 40,
    ) {
        let mut bytes = bytes;
        let sectors = if near.is_some() { 8 } else { sectors };
        if let Some((sector, count, flags)) = near {
            bytes[..8].copy_from_slice(&sector.to_le_bytes());
            bytes[8..12].copy_from_slice(&count.to_le_bytes());
            bytes[12..].copy_from_slice(&flags.to_le_bytes());
        }
        let erase = if discard { Erase::Discard } else { Erase::Zero };
        let parsed = Extent::parse(bytes, erase, Limits { sectors, readonly: false });
        if let Ok(Extent { offset, len, unmap }) = parsed {
            prop_assert!(len > 0 && offset % SECTOR == 0 && len % SECTOR == 0);
            prop_assert!(offset + len <= sectors * SECTOR);
            prop_assert!(len <= u64::from(MAX_EXTENT_SECTORS) * SECTOR);
            prop_assert_eq!(unmap, discard || bytes[12] == 1);
            prop_assert!(bytes[12] <= u8::from(!discard) && bytes[13..] == [0; 3]);
        } else if let Some((sector, count, flags)) = near {
            let fits = count > 0 && sector + u64::from(count) <= 8;
            prop_assert!(!fits || flags > u32::from(!discard));
        }
    }

    /// What is accepted lies within the disk, whatever is asked for.
    #[test]
    fn never_beyond_the_disk(header: [u8; 16], output: u64, input: u64, sectors in 0u64..1 << 40, readonly: bool) {
        let (offset, len) = match Request::parse(header, output, input, Limits { sectors, readonly }) {
            Ok(Request::Read { offset }) => (offset, input),
            Ok(Request::Write { offset }) if !readonly => (offset, output),
            Ok(Request::Write { .. }) => panic!("a read-only disk is written"),
            _ => return Ok(()),
        };
        prop_assert!(offset + len <= sectors * SECTOR && len <= MAX_DATA);
        prop_assert!(offset % SECTOR == 0 && len % SECTOR == 0);
    }

    #[test]
    fn any_sector_near_the_end(sector in 0u64..20, len in 0u64..20 * 512) {
        let fits = len > 0 && len % 512 == 0 && sector * 512 + len <= 8 * 512;
        prop_assert_eq!(Request::parse(header(0, sector), 0, len, DISK).is_ok(), fits);
    }

    /// No byte of a chain is lost or used twice.
    #[test]
    fn parts_add_up(parts in prop::collection::vec((0u64..1 << 40, 0u32..2000, any::<bool>()), 0..12)) {
        if let Ok((layout, status)) = fill(&parts) {
            let readable: u64 = parts.iter().filter(|p| !p.2).map(|p| u64::from(p.1)).sum();
            let writable: u64 = parts.iter().filter(|p| p.2).map(|p| u64::from(p.1)).sum();
            prop_assert_eq!(total(&layout.header), 16);
            prop_assert_eq!(total(&layout.output), readable - 16);
            prop_assert_eq!(total(&layout.input), writable - 1);
            prop_assert!(parts.iter().any(|p| p.2 && (p.0..p.0 + u64::from(p.1)).contains(&status)));
        }
    }
}
