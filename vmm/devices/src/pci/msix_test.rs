use proptest::prelude::*;

use super::super::config::Identity;
use super::super::testing::{FakeMsi, FakeVector};
use super::*;

const ENABLED: u8 = CONTROL_ENABLE;
const MASKED: u8 = CONTROL_ENABLE | CONTROL_MASK;

fn msix(vectors: u16) -> (Msix, FakeMsi) {
    let controller = FakeMsi::default();
    (Msix::new(vectors, &controller).unwrap(), controller)
}

/// Programs an entry as Linux does: three words, then the control.
fn program(msix: &Msix, index: u64, data: u32, masked: bool) {
    let base = index * ENTRY_SIZE;
    msix.write_table(base, &0xfee0_1000u32.to_le_bytes());
    msix.write_table(base + 4, &0u32.to_le_bytes());
    msix.write_table(base + 8, &data.to_le_bytes());
    msix.write_table(base + 12, &u32::from(masked).to_le_bytes());
}

fn pending(msix: &Msix) -> u8 {
    let mut data = [0];
    msix.read_pending(0, &mut data);
    data[0]
}

fn first(controller: &FakeMsi) -> Arc<FakeVector> {
    controller.vector_at(0)
}

#[test]
fn a_programmed_vector_is_routed_once_and_raised() {
    let (msix, controller) = msix(2);
    msix.control_written(ENABLED);
    program(&msix, 1, 0x41, false);
    let vector = controller.vector_at(1);
    assert_eq!(vector.message(), Some(MsiMessage { address: 0xfee0_1000, data: 0x41 }));
    assert_eq!(vector.routes(), 1);
    msix.raise(1);
    assert_eq!((vector.raised(), first(&controller).raised(), pending(&msix)), (1, 0, 0));
}

#[test]
fn masked_entries_pend_until_unmasked() {
    let (msix, controller) = msix(1);
    msix.control_written(ENABLED);
    program(&msix, 0, 1, true);
    msix.raise(0);
    msix.raise(0);
    assert_eq!((first(&controller).raised(), pending(&msix)), (0, 1));
    program(&msix, 0, 1, false);
    assert_eq!((first(&controller).raised(), pending(&msix)), (1, 0));
    // Masking disconnects, so that nothing else reaches the guest through the eventfd.
    program(&msix, 0, 1, true);
    assert_eq!(first(&controller).message(), None);
}

#[test]
fn the_function_mask_covers_all() {
    let (msix, controller) = msix(3);
    msix.control_written(MASKED);
    (0..3).for_each(|index| program(&msix, index, 7, false));
    (0..3).for_each(|index| msix.raise(index));
    assert_eq!(pending(&msix), 0b111);
    msix.control_written(ENABLED);
    assert_eq!(pending(&msix), 0);
    assert!((0..3).all(|index| controller.vector_at(index).raised() == 1));
}

#[test]
fn while_disabled_nothing_is_raised_or_kept() {
    let (msix, controller) = msix(1);
    program(&msix, 0, 1, false);
    msix.raise(0);
    assert_eq!(pending(&msix), 0);
    msix.control_written(ENABLED);
    assert_eq!(first(&controller).raised(), 0);

    // Pending interrupts do not survive a disable.
    program(&msix, 0, 1, true);
    msix.raise(0);
    msix.control_written(0);
    assert_eq!((pending(&msix), first(&controller).message()), (0, None));
}

#[test]
fn a_message_may_change_while_connected() {
    let (msix, controller) = msix(1);
    msix.control_written(ENABLED);
    program(&msix, 0, 1, false);
    msix.write_table(8, &2u32.to_le_bytes());
    assert_eq!(first(&controller).message().unwrap().data, 2);
}

#[test]
fn a_refused_message_leaves_the_vector_pending() {
    let controller = FakeMsi { refused: Some(0xfee0_1000), ..FakeMsi::default() };
    let msix = Msix::new(1, &controller).unwrap();
    msix.control_written(ENABLED);
    program(&msix, 0, 1, false);
    msix.raise(0);
    assert_eq!((first(&controller).raised(), pending(&msix)), (0, 1));
    // A good message later delivers it.
    msix.write_table(0, &0xfee0_2000u32.to_le_bytes());
    assert_eq!((first(&controller).raised(), pending(&msix)), (1, 0));
}

#[test]
fn the_table_reads_back() {
    let (msix, _controller) = msix(2);
    msix.write_table(16, &0x1234_5678_9abc_def3u64.to_le_bytes());
    msix.write_table(24, &0xffff_fffe_5566_7788u64.to_le_bytes());
    let mut data = [0; 8];
    msix.read_table(16, &mut data);
    assert_eq!(u64::from_le_bytes(data), 0x1234_5678_9abc_def0);
    msix.read_table(24, &mut data);
    assert_eq!(u64::from_le_bytes(data), 0x5566_7788);
    // Entries start masked; past the last one there is nothing.
    msix.read_table(8, &mut data);
    assert_eq!(u64::from_le_bytes(data), 1 << 32);
    msix.read_table(32, &mut data);
    assert_eq!(data, [0; 8]);
}

#[test]
fn the_capability_says_where_things_are() {
    let (msix, _controller) = msix(3);
    let identity = Identity {
        vendor: 1,
        device: 1,
        revision: 0,
        class: [0; 3],
        subsystem_vendor: 0,
        subsystem: 0,
    };
    let mut config = ConfigSpace::new(&identity);
    let control = msix.add_capability(&mut config, 0x2000, 0x3000).unwrap();
    assert_eq!(control, 0x43);
    config.write(0x40, &[0xff; 12]);
    assert_eq!(config.get(0x40), [0x11, 0, 2, 0xc0, 0, 0x20, 0, 0, 0, 0x30, 0, 0]);
}

#[test]
fn no_vectors_left_is_an_error() {
    let controller = FakeMsi { limit: 2, ..FakeMsi::default() };
    assert!(Msix::new(3, &controller).is_err());
}

/// What a guest or a device can do.
#[derive(Clone, Debug)]
enum Step {
    Table(u64, Vec<u8>),
    Control(u8),
    Raise(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..80, prop::collection::vec(any::<u8>(), 1..=8))
            .prop_map(|(at, data)| Step::Table(at, data)),
        any::<u8>().prop_map(Step::Control),
        (0u16..6).prop_map(Step::Raise),
    ]
}

proptest! {
    /// Whatever the guest does: an interrupt is either pending or was delivered, never both, and a
    /// vector is connected exactly when it may fire.
    #[test]
    fn nothing_is_lost_and_routes_follow_the_masks(steps in prop::collection::vec(step(), 1..60)) {
        let (msix, controller) = msix(4);
        for step in steps {
            let before: Vec<_> = (0..4).map(|index| controller.vector_at(index).raised()).collect();
            let pended = pending(&msix);
            match &step {
                Step::Table(at, data) => msix.write_table(*at, data),
                Step::Control(control) => msix.control_written(*control),
                Step::Raise(index) => msix.raise(*index),
            }
            let state = msix.state();
            for (index, before) in before.into_iter().enumerate() {
                let vector = controller.vector_at(index);
                let open = state.enabled && !state.function_masked && !state.entries[index].masked;
                prop_assert_eq!(vector.message().is_some(), open);
                let asked = matches!(step, Step::Raise(raised) if usize::from(raised) == index);
                let due = state.enabled && (asked || pended >> index & 1 != 0);
                prop_assert_eq!(vector.raised() - before, usize::from(due && open));
                prop_assert_eq!(pending(&msix) >> index & 1 != 0, due && !open);
            }
        }
    }

    #[test]
    fn any_access_is_harmless(offset: u64, len in 1usize..=8) {
        let (msix, _controller) = msix(2);
        let mut data = [0; 8];
        msix.read_table(offset, &mut data[..len]);
        msix.write_table(offset, &data[..len]);
        msix.read_pending(offset, &mut data[..len]);
    }
}
