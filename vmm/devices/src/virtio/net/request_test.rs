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

fn gather(parts: &[(u64, u32, bool)], direction: Direction) -> Result<Vec<Segment>, Malformed> {
    let mut segments = Vec::new();
    let total = collect(chain(parts).into_iter(), direction, 12, &mut segments)?;
    assert_eq!(total, segments.iter().map(|segment| segment.len).sum::<u32>());
    Ok(segments)
}

fn segments(parts: &[(u64, u32)]) -> Vec<Segment> {
    parts.iter().map(|&(at, len)| Segment { address: GuestAddress(at), len }).collect()
}

#[test]
fn frames_in_any_number_of_pieces() {
    let output =
        gather(&[(0x1000, 5, false), (0x2000, 0, false), (0x3000, 60, false)], Direction::Output);
    let mut output = output.unwrap();
    assert_eq!(output, segments(&[(0x1000, 5), (0x3000, 60)]));
    split_off_front(&mut output, 12);
    assert_eq!(output, segments(&[(0x3007, 53)]));
    split_off_front(&mut output, 53);
    assert_eq!(output, []);
}

#[test]
fn what_is_no_frame() {
    let out = |parts: &[(u64, u32, bool)]| gather(parts, Direction::Output).unwrap_err();
    assert_eq!(out(&[]), Malformed::Broken);
    assert_eq!(out(&[(0x1000, 11, false)]), Malformed::Short);
    assert_eq!(out(&[(0x1000, 12, false), (0x1000, 1, true)]), Malformed::Direction);
    assert_eq!(out(&[(u64::MAX, 12, false)]), Malformed::Address);
    assert_eq!(out(&[(0, u32::MAX, false), (0, 1, false)]), Malformed::Broken);
    assert_eq!(out(&vec![(0x1000, 1, false); 1023]), Malformed::TooLong);
    assert_eq!(gather(&[(0, 12, false)], Direction::Input), Err(Malformed::Direction));
    // Cut off: the last descriptor seen names another one.
    let cut = chain(&[(0, 12, false), (0, 12, false)]).into_iter().take(1);
    assert_eq!(collect(cut, Direction::Output, 12, &mut vec![]), Err(Malformed::Broken));
}

#[test]
fn commands_have_an_answer_at_their_end() {
    let parts = [(0x1000, 2, false), (0x2000, 1, false), (0x3000, 4, true), (0x4000, 0, true)];
    let found = command(chain(&parts).into_iter()).unwrap();
    assert_eq!(found.answer, GuestAddress(0x3003));
    assert_eq!(found.output, segments(&[(0x1000, 2), (0x2000, 1)]));
    let bad = |parts: &[(u64, u32, bool)]| command(chain(parts).into_iter()).unwrap_err();
    assert_eq!(bad(&[]), Malformed::Broken);
    assert_eq!(bad(&parts[..2]), Malformed::Short);
    assert_eq!(bad(&[parts[0], parts[2], parts[1]]), Malformed::Direction);
    assert_eq!(bad(&[(u64::MAX, 2, true)]), Malformed::Address);
}

proptest! {
    /// No byte is lost or used twice, however a frame is cut.
    #[test]
    fn bytes_add_up(lens in prop::collection::vec(0u32..40, 1..12), count in 0u32..100) {
        let parts: Vec<_> = (0u64..).zip(&lens).map(|(i, &len)| (i << 20, len)).collect();
        let all: Vec<_> = parts.iter().flat_map(|&(at, len)| at..at + u64::from(len)).collect();
        let mut list = segments(&parts);
        for (offset, at) in (0..).zip(&all) {
            prop_assert_eq!(address_of(&list, offset), Some(GuestAddress(*at)));
        }
        prop_assert_eq!(address_of(&list, u32::try_from(all.len()).unwrap()), None);
        let count = count.min(u32::try_from(all.len()).unwrap());
        split_off_front(&mut list, count);
        let left = list.iter().flat_map(|s| s.address.0..s.address.0 + u64::from(s.len));
        prop_assert_eq!(left.collect::<Vec<_>>(), &all[count as usize..]);
    }
}
