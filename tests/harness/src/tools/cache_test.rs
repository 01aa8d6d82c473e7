//! Tests of the cache.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::bail;

use super::*;

/// What is in `directory` besides locks.
fn entries(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with(".lock"));
    names.sort();
    names
}

#[test]
fn racing_builders_build_once() {
    let directory = tempfile::tempdir().unwrap();
    let builds = AtomicU32::new(0);
    let build = |entry: &Path| {
        builds.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(30));
        Ok(fs::write(entry.join("file"), "whole")?)
    };

    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let entry = entry_in(directory.path(), "key", build).unwrap();
                assert_eq!(fs::read(entry.join("file")).unwrap(), b"whole");
            });
        }
    });

    assert_eq!(builds.load(Ordering::SeqCst), 1);
    assert_eq!(entries(directory.path()), ["key"]);
}

#[test]
fn failed_build_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();

    entry_in(directory.path(), "key", |_| bail!("no")).unwrap_err();

    assert_eq!(entries(directory.path()), [""; 0]);
}

#[test]
fn interrupted_builds_go_and_running_ones_stay() {
    let directory = tempfile::tempdir().unwrap();
    for half in ["key.aaa", "other.bbb", "running.ccc"] {
        fs::create_dir(directory.path().join(half)).unwrap();
    }
    drop(lock(directory.path(), "other").unwrap());
    let _running = lock(directory.path(), "running").unwrap();

    entry_in(directory.path(), "key", |_| Ok(())).unwrap();

    assert_eq!(entries(directory.path()), ["key", "running.ccc"]);
}
