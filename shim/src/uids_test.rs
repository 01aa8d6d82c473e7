//! Ranges, and what is picked from them.

use super::*;

#[test]
fn a_range_is_written_with_a_dash() {
    assert_eq!("2000000000-2000065535".parse(), Ok(UidRange::default()));
    assert_eq!(" 7 - 7 ".parse(), Ok(UidRange { first: 7, last: 7 }));
    for wrong in ["", "7", "0-7", "8-7", "1-4294967295", "1-2-3", "a-b", "-1-2"] {
        let error = wrong.parse::<UidRange>().unwrap_err();
        assert!(error.contains("2000000000-2000065535"), "{error}");
    }
}

#[test]
fn every_user_is_picked_before_there_are_none() {
    let range = UidRange { first: 10, last: 14 };
    for seed in [0, 3, u64::MAX] {
        let mut taken = BTreeSet::from([9, 12]);
        while let Some(uid) = range.pick(seed, &taken) {
            assert!((10..=14).contains(&uid) && taken.insert(uid), "{uid}");
        }
        assert_eq!(taken.len(), 6);
    }
}
