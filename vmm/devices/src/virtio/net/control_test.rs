use proptest::prelude::*;

use super::*;

const OWN: Mac = [2, 0, 0, 0, 0, 1];
const OTHER: Mac = [2, 0, 0, 0, 0, 2];
const GROUP: Mac = [1, 0, 0x5e, 0, 0, 1];
const ALL: Mac = [0xff; 6];

/// A card that has left promiscuous mode, as Linux does when it is set up.
fn control() -> Control {
    let mut control = Control::new(Some(OWN), 4);
    control.perform(&[0, 0, 0]).unwrap();
    control
}

fn accepted(control: &Control) -> [bool; 4] {
    [OWN, OTHER, GROUP, ALL].map(|mac| control.accepts(mac))
}

fn tables(unicast: &[Mac], multicast: &[Mac]) -> Vec<u8> {
    let mut command = vec![1, 0];
    for table in [unicast, multicast] {
        command.extend(u32::try_from(table.len()).unwrap().to_le_bytes());
        command.extend(table.concat());
    }
    command
}

#[test]
fn everything_until_the_driver_says_otherwise() {
    assert_eq!(accepted(&Control::new(Some(OWN), 1)), [true; 4]);
    assert_eq!(accepted(&control()), [true, false, false, true]);
    let mut unnamed = Control::new(None, 1);
    unnamed.perform(&[0, 0, 0]).unwrap();
    assert_eq!(accepted(&unnamed), [true, true, false, true]);
}

#[test]
fn each_mode_lets_through_what_it_says() {
    for (mode, expected) in [
        (0, [true; 4]),
        (1, [true, false, true, true]),
        (2, [true, true, false, true]),
        (4, [false, false, false, true]),
        (5, [true, false, false, false]),
    ] {
        let mut control = control();
        control.perform(&[0, mode, 1]).unwrap();
        assert_eq!(accepted(&control), expected, "mode {mode}");
        control.perform(&[0, mode, 0]).unwrap();
        assert_eq!(accepted(&control), [true, false, false, true], "mode {mode}");
    }
    let mut control = control();
    control.perform(&tables(&[], &[GROUP])).unwrap();
    assert!(control.accepts(GROUP));
    control.perform(&[0, 3, 1]).unwrap();
    assert!(!control.accepts(GROUP));
}

#[test]
fn addresses_and_tables() {
    let mut control = control();
    control.perform(&tables(&[OTHER], &[GROUP])).unwrap();
    assert_eq!(accepted(&control), [true; 4]);
    control.perform(&tables(&[], &[])).unwrap();
    assert_eq!(accepted(&control), [true, false, false, true]);
    control.perform(&[&[1, 1][..], &OTHER].concat()).unwrap();
    assert_eq!(control.mac, Some(OTHER));
    assert_eq!(accepted(&control), [false, true, false, true]);
    // Too many to remember: everything of the kind.
    control.perform(&tables(&[OTHER; 65], &[GROUP; 64])).unwrap();
    assert!(control.accepts([4; 6]) && !control.accepts([5; 6]));
}

#[test]
fn pairs_are_those_that_exist() {
    let mut control = control();
    for (pairs, fine) in [(0u16, false), (1, true), (4, true), (5, false), (u16::MAX, false)] {
        let done = control.perform(&[&[4, 0][..], &pairs.to_le_bytes()].concat());
        assert_eq!(done.is_ok(), fine, "{pairs}");
    }
    assert_eq!(control.pairs, 4);
}

#[test]
fn what_is_refused_changes_nothing() {
    let before = control();
    let mut control = before.clone();
    let half = tables(&[OTHER], &[GROUP]);
    let mut long = half.clone();
    long.push(0);
    let huge = [&[1, 0][..], &u32::MAX.to_le_bytes()].concat();
    for command in [
        &[][..],
        &[0],
        &[0, 0],
        &[0, 0, 2],
        &[0, 0, 1, 0],
        &[0, 6, 1],
        &[1, 1, 0],
        &[1, 2],
        &[2, 0, 0, 0],
        &[4, 0, 1],
        &[4, 1, 1, 0],
        &[3, 0],
        &half[..half.len() - 1],
        &long,
        &huge,
    ] {
        assert_eq!(control.perform(command), Err(Refused), "{command:?}");
    }
    assert_eq!(control, before);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        commands in prop::collection::vec(
            (0u8..6, 0u8..7, prop::collection::vec(any::<u8>(), 0..40)), 0..20),
        to: Mac,
    ) {
        let mut control = Control::new(None, 3);
        for (class, command, data) in commands {
            let before = control.clone();
            let done = control.perform(&[&[class, command][..], &data].concat());
            prop_assert!(done.is_ok() || control == before);
            prop_assert!((1..=3).contains(&control.pairs));
            control.accepts(to);
        }
    }
}
