//! The documented options, one by one.

use super::*;

#[test]
fn flags_data_and_propagation_are_told_apart() {
    let parsed = MountOptions::parse(&["nosuid", "noexec", "mode=755", "size=65536k", "rslave"]);
    assert_eq!(parsed.flags, MS_NOSUID | MS_NOEXEC);
    assert_eq!(parsed.propagation, MS_SLAVE | MS_REC);
    assert_eq!(parsed.data, "mode=755,size=65536k");
}

#[test]
fn a_later_option_wins() {
    assert_eq!(MountOptions::parse(&["ro", "rw"]).flags, 0);
    assert_eq!(MountOptions::parse(&["rw", "ro"]).flags, MS_RDONLY);
    assert_eq!(MountOptions::parse(&["suid", "nosuid", "defaults"]).flags, MS_NOSUID);
    assert_eq!(MountOptions::parse(&["shared", "private"]).propagation, MS_PRIVATE);
}

#[test]
fn recursive_attributes_act_as_plain_ones() {
    assert_eq!(MountOptions::parse(&["rro", "rnodev"]).flags, MS_RDONLY | MS_NODEV);
    assert_eq!(MountOptions::parse(&["ro", "rrw"]).flags, 0);
    assert_eq!(MountOptions::parse(&["rbind"]).flags, MS_BIND | MS_REC);
    assert_eq!(MountOptions::parse(&["rrelatime"]).flags, MS_RELATIME);
}

#[test]
fn extensions_are_recognised() {
    let parsed = MountOptions::parse(&["tmpcopyup", "idmap"]);
    assert!(parsed.copy_up && parsed.id_mapped && parsed.data.is_empty());
}

proptest::proptest! {
    #[test]
    fn any_text_is_data_or_an_option(options in proptest::collection::vec(".{0,20}", 0..8)) {
        let parsed = MountOptions::parse(&options);
        proptest::prop_assert!(parsed.data.len() <= options.iter().map(|o| o.len() + 1).sum());
    }
}
