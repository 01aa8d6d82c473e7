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
