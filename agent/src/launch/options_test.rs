//! Mount flags, case by case.

use super::*;

#[test]
fn flags_of_another_operation_are_left_out() {
    let plan =
        (MsFlags::MS_NOSUID | MsFlags::MS_REMOUNT | MsFlags::MS_SHARED | MsFlags::MS_MOVE).bits();
    assert_eq!(flags(plan), MsFlags::MS_NOSUID);
    assert_eq!(flags(u64::MAX) & (PROPAGATION | MsFlags::MS_REMOUNT), MsFlags::empty());
}

#[test]
fn propagation_needs_a_type() {
    assert_eq!(propagation(0), None);
    assert_eq!(propagation(MsFlags::MS_REC.bits()), None);
    let shared = MsFlags::MS_SHARED | MsFlags::MS_REC;
    assert_eq!(propagation(shared.bits()), Some(shared));
    assert_eq!(propagation((shared | MsFlags::MS_RDONLY).bits()), Some(shared));
}

#[test]
fn a_plain_bind_is_not_remounted() {
    assert_eq!(remount(MsFlags::MS_BIND | MsFlags::MS_REC), None);
    assert_eq!(
        remount(MsFlags::MS_BIND | MsFlags::MS_RDONLY),
        Some(MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY)
    );
}

#[test]
fn present_flags_are_translated() {
    let flags = FsFlags::ST_RDONLY | FsFlags::ST_RELATIME | FsFlags::ST_NODEV;
    let expected = MsFlags::MS_RDONLY | MsFlags::MS_RELATIME | MsFlags::MS_NODEV;
    assert_eq!(present(flags), expected);
}

#[test]
fn a_tmpfs_keeps_the_mode_of_its_mount_point() {
    assert_eq!(tmpfs(b"size=1m", None), b"size=1m");
    assert_eq!(tmpfs(b"size=1m", Some(0o41777)), b"mode=1777,size=1m");
    assert_eq!(tmpfs(b"", Some(0o755)), b"mode=0755");
}
