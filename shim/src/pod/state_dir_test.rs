//! Ids in use, dead owners, and what is left.

use super::*;

/// Makes a directory as state directories are.
fn private(path: &Path) {
    DirBuilder::new().mode(0o700).create(path).unwrap();
}

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
        private(&root.path().join(id));
        std::fs::write(root.path().join(id).join("console.log"), "x").unwrap();
    }
    let state = StateDir::create(root.path(), "dead").unwrap();
    assert!(!state.path().join("console.log").exists());
    assert!(!root.path().join("other-dead").exists());
    assert!(!clear_dead(state.path(), false, Duration::from_millis(50)));
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
    private(&dead);
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
    let log = root.path().join("log");
    private(&log);
    std::fs::write(log.join("console.log"), "theirs").unwrap();
    std::fs::write(log.join("other"), "theirs").unwrap();
    let open = root.path().join("open");
    DirBuilder::new().mode(0o755).create(&open).unwrap();
    drop(StateDir::create(root.path(), "ours").unwrap());
    assert!(theirs.join("state.json").exists() && log.join("console.log").exists());
    assert!(open.exists());
}

#[test]
fn an_id_is_free_when_its_pod_gave_it_up() {
    let root = tempfile::tempdir().unwrap();
    let mut pod = StateDir::create(root.path(), "one").unwrap();
    std::fs::write(pod.path().join("status"), "stopped").unwrap();
    let name = pod.move_aside().unwrap();
    assert!(check_id(&name).is_err() && pod.path() == root.path().join(&name));
    assert!(!pod.path().join("status").exists());
    drop(StateDir::create(root.path(), "one").unwrap());
    assert!(pod.path().exists(), "a living owner's directory stays");
    drop(pod);
    assert!(!root.path().join(name).exists());
}

#[test]
fn nobody_else_can_hold_the_lock() {
    let root = tempfile::tempdir().unwrap();
    drop(StateDir::create(root.path(), "one").unwrap());
    let mode = root.path().join(LOCK).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
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

#[test]
fn a_busy_group_is_left_to_the_next_run() {
    let root = tempfile::tempdir().unwrap();
    let groups = tempfile::tempdir().unwrap();
    let group = groups.path().join("cofferdam-1");
    std::fs::create_dir_all(group.join("busy")).unwrap();
    let pod = StateDir::create(root.path(), "pod").unwrap();
    let path = pod.path().to_owned();
    std::fs::write(path.join(cgroup::NOTE), group.to_str().unwrap()).unwrap();
    drop(pod);
    assert!(path.join(cgroup::NOTE).exists());
    drop(StateDir::create(root.path(), "other").unwrap());
    assert!(path.join(cgroup::NOTE).exists() && group.exists());
    std::fs::remove_dir(group.join("busy")).unwrap();
    drop(StateDir::create(root.path(), "other").unwrap());
    assert!(!path.exists() && !group.exists());
}

#[test]
fn a_busy_group_is_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let group = root.path().join("cofferdam-1");
    std::fs::create_dir_all(group.join("busy")).unwrap();
    let path = root.path().join("dead");
    private(&path);
    std::fs::write(path.join(cgroup::NOTE), group.to_str().unwrap()).unwrap();
    assert!(!clear_dead(&path, false, Duration::from_millis(50)));
    assert!(path.exists() && group.exists());
    let last = {
        let busy = group.join("busy");
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            std::fs::remove_dir(busy).unwrap();
        })
    };
    assert!(clear_dead(&path, false, Duration::from_secs(60)));
    last.join().unwrap();
    assert!(!path.exists() && !group.exists());
}

#[test]
fn a_user_that_a_process_has_is_not_free() {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new("sleep");
    let Ok(mut process) = command.arg("60").uid(7005).spawn() else {
        println!("SKIPPED: only root can give a process another user");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let pod = StateDir::create(root.path(), "pod").unwrap();
    let taken = ["7005-7006", "7005-7005"].map(|range| pod.take_uid(range.parse().unwrap()));
    process.kill().unwrap();
    process.wait().unwrap();
    let [other, none] = taken;
    assert_eq!(other.unwrap(), 7006);
    assert!(matches!(none, Err(StateError::Users(_))));
    assert_eq!(pod.take_uid("7005-7005".parse().unwrap()).unwrap(), 7005);
}

#[test]
fn what_an_engine_is_to_delete_stays_without_what_was_the_pods() {
    let root = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let process = container::Mark::of(child.id()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    for (id, keep) in [("kept", true), ("run", false)] {
        let path = root.path().join(id);
        private(&path);
        std::fs::write(path.join(UID), "7000").unwrap();
        let saved = Saved {
            id: id.into(),
            bundle: "/b".into(),
            rootfs: "/r".into(),
            created: String::new(),
            annotations: std::collections::BTreeMap::new(),
            process: process.clone(),
            pod: id.into(),
            keep,
            scratch: None,
            cgroup: None,
            owner: 0,
        };
        saved.save(&path, b"{}").unwrap();
    }
    let pod = StateDir::create(root.path(), "new").unwrap();
    assert!(Saved::load(root.path(), "kept").is_ok() && !root.path().join("run").exists());
    assert_eq!(pod.take_uid("7000-7000".parse().unwrap()).unwrap(), 7000);
    assert!(clear_dead(&root.path().join("kept"), false, Duration::ZERO));
    assert!(!root.path().join("kept").exists());
}
