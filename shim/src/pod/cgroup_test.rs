//! Where the group goes, and what is removed.

use super::*;

const MOUNTS: &str = "\
22 1 0:21 / /proc rw,nosuid - proc proc rw
30 1 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 1 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw
";

#[test]
fn it_goes_below_the_supervisors_own() {
    let groups = "4:memory:/elsewhere\n0::/machine.slice/a\n";
    let place = own(MOUNTS, groups).unwrap();
    assert_eq!(place, Path::new("/sys/fs/cgroup/unified/machine.slice/a"));
    assert_eq!(own(MOUNTS, "0::/\n").unwrap(), Path::new("/sys/fs/cgroup/unified"));
}

#[test]
fn a_mount_of_a_part_of_the_tree_is_followed() {
    let mounts = "31 1 0:27 /pod /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    assert_eq!(own(mounts, "0::/pod/a\n").unwrap(), Path::new("/sys/fs/cgroup/a"));
    assert_eq!(own(mounts, "0::/other\n"), None);
}

#[test]
fn without_cgroup_v2_there_is_none() {
    assert_eq!(own("22 1 0:21 / /proc rw - proc proc rw\n", "0::/\n"), None);
    assert_eq!(own(MOUNTS, "4:memory:/elsewhere\n"), None);
}

#[test]
fn only_what_is_ours_and_empty_is_removed() {
    let state = tempfile::tempdir().unwrap();
    let groups = tempfile::tempdir().unwrap();
    let note = |path: &Path| fs::write(state.path().join(NOTE), path.to_str().unwrap()).unwrap();
    for (name, stays) in [("cofferdam-1", false), ("others", true)] {
        let group = groups.path().join(name);
        fs::create_dir(&group).unwrap();
        note(&group);
        assert!(remove(state.path(), Duration::ZERO));
        assert_eq!(group.exists(), stays, "{name}");
        assert!(!state.path().join(NOTE).exists());
    }
    // Without a note there is nothing to do.
    assert!(remove(state.path(), Duration::ZERO));
}
