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
fn recursive_attributes_are_for_the_whole_tree() {
    let attributes = |options: &[&str]| {
        let parsed = MountOptions::parse(options);
        assert_eq!((parsed.flags, parsed.data.as_str()), (0, ""), "{options:?}");
        (parsed.recursive_set, parsed.recursive_clear)
    };
    assert_eq!(attributes(&["rro", "rnodev"]), (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV, 0));
    assert_eq!(attributes(&["rro", "rrw"]), (0, MOUNT_ATTR_RDONLY));
    assert_eq!(attributes(&["rsuid", "rnosuid"]), (MOUNT_ATTR_NOSUID, 0));
    assert_eq!(attributes(&["rdev", "rexec"]), (0, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
    assert_eq!(
        attributes(&["rnosymfollow", "rdiratime"]),
        (MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_NODIRATIME)
    );
    for (option, set) in [
        ("rrelatime", MOUNT_ATTR_RELATIME),
        ("rnoatime", MOUNT_ATTR_NOATIME),
        ("rstrictatime", MOUNT_ATTR_STRICTATIME),
        ("ratime", 0),
        ("rnostrictatime", 0),
        ("rnorelatime", 0),
    ] {
        assert_eq!(attributes(&[option]), (set, MOUNT_ATTR__ATIME), "{option}");
    }
    assert_eq!(MountOptions::parse(&["rbind"]).flags, MS_BIND | MS_REC);
}

/// The options of the table in config#mounts that are not data, as of runtime-spec 1.2.
const DOCUMENTED: &str = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev \
    nodiratime noexec noiversion nolazytime norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev \
    rdiratime relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro \
    rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave \
    strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap acl noacl mand nomand";

#[test]
fn every_documented_option_is_known() {
    for option in DOCUMENTED.split_whitespace() {
        assert_eq!(MountOptions::parse(&[option]).data, "", "{option}");
    }
    assert_eq!(
        MountOptions::parse(&["size=1m", "nr_inodes=5", "what"]).data,
        "size=1m,nr_inodes=5,what"
    );
}

#[test]
fn extensions_are_recognised() {
    let parsed = MountOptions::parse(&["tmpcopyup", "idmap"]);
    assert!(parsed.copy_up && parsed.data.is_empty());
    assert_eq!(parsed.id_map, Some(IdMapped::Here));
    assert_eq!(MountOptions::parse(&["ridmap"]).id_map, Some(IdMapped::Recursively));
}

proptest::proptest! {
    #[test]
    fn any_text_is_data_or_an_option(options in proptest::collection::vec(".{0,20}", 0..8)) {
        let parsed = MountOptions::parse(&options);
        proptest::prop_assert!(parsed.data.len() <= options.iter().map(|o| o.len() + 1).sum());
    }
}
