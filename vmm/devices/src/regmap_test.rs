use proptest::prelude::*;

use super::*;

/// Three registers with a gap: `a` 0..4, `b` 4..5, `c` 8..16.
const MAP: RegMap<usize> = RegMap(&[
    Register { id: 0, offset: 0, size: 4 },
    Register { id: 1, offset: 4, size: 1 },
    Register { id: 2, offset: 8, size: 8 },
]);

struct Values([u64; 3]);

impl Registers<usize> for Values {
    fn get(&self, id: usize) -> u64 {
        self.0[id]
    }

    fn set(&mut self, id: usize, value: u64) {
        self.0[id] = value;
    }
}

#[test]
fn a_partial_write_keeps_the_rest() {
    let mut values = Values([0x4433_2211, 0x55, 0]);
    MAP.write(&mut values, 3, &[0xaa, 0xbb]);
    assert_eq!(values.0, [0xaa33_2211, 0xbb, 0]);
}

#[test]
fn gaps_read_as_zero() {
    let mut data = [0xff; 8];
    MAP.read(&Values([u64::MAX; 3]), 2, &mut data);
    assert_eq!(data, [0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0xff]);
}

proptest! {
    /// Any access does what the same access to plain bytes would do, but for the gap.
    #[test]
    fn behaves_as_bytes(accesses in prop::collection::vec((0u64..20, any::<[u8; 8]>(), 1usize..=8), 1..20)) {
        let mut values = Values([0; 3]);
        let mut model = [0u8; 32];
        for (offset, bytes, len) in accesses {
            MAP.write(&mut values, offset, &bytes[..len]);
            for (i, &byte) in bytes[..len].iter().enumerate() {
                let at = usize::try_from(offset).unwrap() + i;
                if matches!(at, 0..=4 | 8..=15) {
                    model[at] = byte;
                }
            }
            let mut data = [0; 8];
            MAP.read(&values, offset, &mut data[..len]);
            let start = usize::try_from(offset).unwrap();
            prop_assert_eq!(&data[..len], &model[start..start + len]);
        }
    }

    #[test]
    fn no_offset_is_too_large(offset: u64) {
        let mut data = [0; 8];
        MAP.read(&Values([0; 3]), offset, &mut data);
        MAP.write(&mut Values([0; 3]), offset, &data);
    }
}
