//! What can be said of mounts without making any.

use super::*;

fn at(destination: &str, kind: MountKind) -> Mount {
    let mut mount = Mount { destination: destination.into(), ..Mount::default() };
    mount.set_kind(kind);
    mount
}

#[test]
fn only_a_bind_mount_brings_its_own_dev() {
    let tmpfs = at("/dev", MountKind::Filesystem);
    let bound = at("/dev/", MountKind::Bind);
    assert!(!brings_own_dev(&[]));
    assert!(!brings_own_dev(std::slice::from_ref(&tmpfs)));
    assert!(brings_own_dev(&[tmpfs.clone(), bound.clone()]));
    assert!(!brings_own_dev(&[bound, tmpfs]));
    assert!(!brings_own_dev(&[at("/dev/x", MountKind::Bind)]));
}

#[test]
fn messages_name_source_and_destination() {
    let mut mount = at("/x", MountKind::Filesystem);
    mount.fstype = "tmpfs".into();
    assert_eq!(attempted(&mount), "mounting tmpfs at /x");
    mount.set_kind(MountKind::Bind);
    mount.source = b"/a".into();
    assert_eq!(attempted(&mount), "binding /a to /x");
}
