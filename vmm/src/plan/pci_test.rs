//! Places are given out and taken back.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn names(slots: &[Slot]) -> Vec<String> {
    slots.iter().map(|slot| slot.bdf().to_string()).collect()
}

#[test]
fn what_is_plugged_in_shares_device_numbers() {
    let mut slots = Slots::new();
    let boot = slots.take().unwrap();
    let plugged: Vec<_> = (0..10).map_while(|_| slots.plug()).collect();
    assert_eq!(boot.bdf().to_string(), "00:01.0");
    assert_eq!(names(&plugged)[..2], ["00:02.0", "00:02.1"]);
    assert_eq!(names(&plugged)[7..], ["00:02.7", "00:03.0", "00:03.1"]);
    assert_eq!(plugged[1].bar, 0xc110_0000);
    assert_eq!(slots.take().unwrap().bdf().to_string(), "00:04.0");
}

#[test]
fn a_place_is_used_again_function_0_first() {
    let mut slots = Slots::new();
    let plugged: Vec<_> = (0..3).map_while(|_| slots.plug()).collect();
    assert!(slots.release(plugged[2].bdf()) && slots.release(plugged[0].bdf()));
    assert_eq!(slots.plug(), Some(plugged[0]));
    assert_eq!(slots.plug(), Some(plugged[2]));
}

#[test]
fn what_is_spent_is_not_given_out_again() {
    let mut slots = Slots::new();
    let plugged: Vec<_> = (0..9).map_while(|_| slots.plug()).collect();
    slots.spend(plugged[3].bdf());
    assert!(!slots.release(plugged[0].bdf()) && !slots.release(plugged[3].bdf()));
    assert_eq!(names(&[slots.plug().unwrap(), slots.take().unwrap()]), ["00:02.1", "00:03.0"]);
    slots.spend(Bdf(0xffff));
}

#[test]
fn only_what_was_taken_is_released() {
    let mut slots = Slots::new();
    let boot = slots.take().unwrap();
    let plugged = slots.plug().unwrap();
    for absent in [0, 0x10, boot.bdf().0 | 1, plugged.bdf().0 | 1, 0xff, 0x108, 0xffff] {
        let wrong = Bdf(absent);
        assert_eq!(slots.release(wrong), wrong == plugged.bdf(), "{wrong}");
    }
    assert!(slots.release(boot.bdf()) && !slots.release(boot.bdf()));
    assert_eq!(slots.plug().unwrap().bdf(), boot.bdf());
}

#[test]
fn a_bus_without_its_bridge_has_31_times_8_places() {
    let mut slots = Slots::new();
    assert_eq!(std::iter::from_fn(|| slots.plug()).count(), 248);
    assert_eq!((slots.plug(), slots.take()), (None, None));
}

proptest! {
    #[test]
    fn nothing_overlaps_whatever_comes_and_goes(
        boot in 0usize..31,
        steps in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..600),
    ) {
        let mut slots = Slots::new();
        let mut there: BTreeMap<u16, Slot> =
            (0..boot).map(|_| slots.take().unwrap()).map(|slot| (slot.bdf().0, slot)).collect();
        for (plug, which) in steps {
            if plug {
                let Some(slot) = slots.plug() else { continue };
                prop_assert!(there.insert(slot.bdf().0, slot).is_none(), "given out twice");
                // Linux finds it: number 0 of its device is there.
                prop_assert!(there.contains_key(&(slot.bdf().0 & !7)));
            } else if !there.is_empty() {
                let bdf = *which.get(&there.keys().copied().collect::<Vec<_>>());
                there.remove(&bdf);
                prop_assert!(slots.release(Bdf(bdf)));
            }
            let mut end = BARS + STRIDE;
            for slot in there.values() {
                prop_assert!(slot.bar >= end && slot.bar.is_multiple_of(BAR_SIZE));
                end = slot.bar + STRIDE;
            }
            prop_assert!(end <= BARS + BARS_SIZE);
        }
    }
}
