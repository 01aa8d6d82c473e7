//! What the guardian cleans up, and what it leaves alone.

use super::*;

fn dead_state() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("c")).unwrap();
    root
}

#[test]
fn a_supervisor_that_was_killed_is_cleaned_up_after() {
    let root = dead_state();
    let mut monitor = Command::new("sleep").arg("60").spawn().unwrap();
    serve(&root.path().join("c"), format!("monitor {}\n", monitor.id()).as_bytes());
    assert!(!root.path().join("c").exists());
    assert!(!monitor.wait().unwrap().success(), "it was killed");
}

#[test]
fn one_that_ended_well_is_left_alone() {
    let root = dead_state();
    let mut monitor = Command::new("sleep").arg("60").spawn().unwrap();
    serve(&root.path().join("c"), format!("monitor {}\ndone\n", monitor.id()).as_bytes());
    assert!(root.path().join("c").exists());
    assert!(monitor.try_wait().unwrap().is_none());
    monitor.kill().unwrap();
    monitor.wait().unwrap();
}

#[test]
fn only_the_hidden_command_is_the_guardian() {
    let arguments = |list: &[&str]| list.iter().map(std::ffi::OsString::from).collect::<Vec<_>>();
    let state = requested(arguments(&["cofferdam", "guardian", "/run/c"]).into_iter());
    assert_eq!(state, Some(PathBuf::from("/run/c")));
    assert_eq!(requested(arguments(&["cofferdam", "run", "/run/c"]).into_iter()), None);
    assert_eq!(requested(arguments(&["cofferdam"]).into_iter()), None);
}
