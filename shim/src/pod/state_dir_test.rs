//! Ids in use, dead owners, and what is left.

use super::*;

#[test]
fn an_id_in_use_is_refused_as_runc_does() {
    let root = tempfile::tempdir().unwrap();
    let first = StateDir::create(root.path(), "one").unwrap();
    let error = StateDir::create(root.path(), "one").unwrap_err().to_string();
    assert!(error.starts_with("container with given ID already exists"), "{error}");
    let other = StateDir::create(root.path(), "two").unwrap();
    assert!(first.path().is_dir() && other.path().is_dir());
    drop(first);
    drop(StateDir::create(root.path(), "one").unwrap());
    assert!(!root.path().join("one").exists());
}

#[test]
fn directories_of_dead_owners_are_removed() {
    let root = tempfile::tempdir().unwrap();
    for id in ["dead", "other-dead"] {
        std::fs::create_dir(root.path().join(id)).unwrap();
        std::fs::write(root.path().join(id).join("console.log"), "x").unwrap();
    }
    let state = StateDir::create(root.path(), "dead").unwrap();
    assert!(!state.path().join("console.log").exists());
    assert!(!root.path().join("other-dead").exists());
    remove_if_dead(state.path());
    assert!(state.path().exists(), "a living owner's directory stays");
}

#[test]
fn no_two_living_pods_have_the_same_user() {
    let root = tempfile::tempdir().unwrap();
    let range: UidRange = "7000-7002".parse().unwrap();
    let pods = ["a", "b", "c"].map(|id| StateDir::create(root.path(), id).unwrap());
    let uids: BTreeSet<u32> = pods.iter().map(|pod| pod.take_uid(range).unwrap()).collect();
    assert_eq!(uids, BTreeSet::from([7000, 7001, 7002]));
    let more = StateDir::create(root.path(), "d").unwrap();
    let error = more.take_uid(range).unwrap_err().to_string();
    assert!(error.contains("7000-7002"), "{error}");
    let [first, ..] = pods;
    drop(first);
    more.take_uid(range).unwrap();
}

#[test]
fn the_user_and_the_group_of_a_dead_pod_are_free_again() {
    let root = tempfile::tempdir().unwrap();
    let dead = root.path().join("dead");
    let group = root.path().join("cofferdam-1");
    std::fs::create_dir(&dead).unwrap();
    std::fs::create_dir(&group).unwrap();
    std::fs::write(dead.join("uid"), "7000").unwrap();
    std::fs::write(dead.join("cgroup"), group.to_str().unwrap()).unwrap();
    let pod = StateDir::create(root.path(), "new").unwrap();
    assert!(!dead.exists() && !group.exists());
    assert_eq!(pod.take_uid("7000-7000".parse().unwrap()).unwrap(), 7000);
}

#[test]
fn directories_of_other_programs_stay() {
    let root = tempfile::tempdir().unwrap();
    let theirs = root.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::fs::write(theirs.join("state.json"), "{}").unwrap();
    drop(StateDir::create(root.path(), "ours").unwrap());
    assert!(theirs.join("state.json").exists());
}

#[test]
fn the_directory_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::create(&root.path().join("below"), "c").unwrap();
    assert_eq!(state.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    state.file("console.log").unwrap();
}

#[test]
fn ids_are_checked() {
    for id in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(256)] {
        assert!(matches!(check_id(id), Err(StateError::Id(_))), "{id}");
    }
    for id in ["a", "A-b_c+d.e", "..."] {
        assert!(check_id(id).is_ok(), "{id}");
    }
}

#[test]
fn a_root_that_cannot_be_made_is_named() {
    let error = StateDir::create(Path::new("/proc/nothing/here"), "c").unwrap_err().to_string();
    assert_eq!(error, "state directory /proc/nothing/here");
}
