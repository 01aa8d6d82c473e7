//! What the guardian cleans up, and what it leaves alone.

use super::*;

fn dead_state() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("c")).unwrap();
    root
}

/// The state directory and a cache below `root`.
fn places(root: &tempfile::TempDir) -> Places {
    Places { state: root.path().join("c"), caches: vec![root.path().join("layers")] }
}

#[test]
fn a_supervisor_that_was_killed_is_cleaned_up_after() {
    let root = dead_state();
    let mut monitor = Command::new("sleep").arg("60").spawn().unwrap();
    serve(&places(&root), format!("monitor {}\n", monitor.id()).as_bytes());
    assert!(!root.path().join("c").exists());
    assert!(!monitor.wait().unwrap().success(), "it was killed");
}

#[test]
fn one_that_ended_well_is_left_alone() {
    let root = dead_state();
    let mut monitor = Command::new("sleep").arg("60").spawn().unwrap();
    serve(&places(&root), format!("monitor {}\ndone\n", monitor.id()).as_bytes());
    assert!(root.path().join("c").exists());
    assert!(monitor.try_wait().unwrap().is_none());
    monitor.kill().unwrap();
    monitor.wait().unwrap();
}

#[test]
fn a_running_hook_is_killed_with_its_group_and_one_that_ended_is_forgotten() {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 60; true"]).process_group(0).stdout(Stdio::piped());
    let mut hook = command.spawn().unwrap();
    serve(&places(&dead_state()), format!("hook {}\nhook 0\n", hook.id()).as_bytes());
    assert!(hook.try_wait().unwrap().is_none());
    serve(&places(&dead_state()), format!("hook {}\n", hook.id()).as_bytes());
    // Its output ends when the last of its group has.
    let output = hook.wait_with_output().unwrap();
    assert!(!output.status.success(), "it was killed");
}

#[test]
fn a_file_that_was_being_made_goes_when_its_maker_does() {
    let root = dead_state();
    let partial = root.path().join("layers/.x.erofs.partial");
    std::fs::create_dir(root.path().join("layers")).unwrap();
    let file = std::fs::File::create(&partial).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let maker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(file);
    });
    serve(&places(&root), &b""[..]);
    assert!(!partial.exists());
    maker.join().unwrap();
}

#[test]
fn only_the_hidden_command_is_the_guardian() {
    let arguments = |list: &[&str]| list.iter().map(std::ffi::OsString::from).collect::<Vec<_>>();
    let found = requested(arguments(&["cofferdam", "guardian", "/run/c", "/a", "/b"]).into_iter());
    assert_eq!(
        found,
        Some(Places { state: "/run/c".into(), caches: vec!["/a".into(), "/b".into()] })
    );
    assert_eq!(requested(arguments(&["cofferdam", "run", "/run/c"]).into_iter()), None);
    assert_eq!(requested(arguments(&["cofferdam"]).into_iter()), None);
}
