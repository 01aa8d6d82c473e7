//! Tests of files that are made once.

use std::io::Read;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::*;

/// Publishes `content` as `name`, and returns what is read back.
fn publish(directory: &Path, name: &str, content: &str) -> String {
    let build = |partial: &Partial| -> Result<(), PublishError> {
        fs::write(partial.path(), content).map_err(PublishError::at("writing", partial.path()))
    };
    read(&mut file(directory, name, build).unwrap())
}

fn read(file: &mut File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn first_build_stays() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("a/b");

    assert_eq!(publish(&inner, "x", "first"), "first");
    assert_eq!(publish(&inner, "x", "second"), "first");
    assert_eq!(names(&inner), ["x"]);
}

#[test]
fn failed_build_leaves_nothing_and_may_be_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let failing = |partial: &Partial| {
        fs::write(partial.path(), "half").unwrap();
        Err(PublishError::at("trying", partial.path())(io::Error::other("no")))
    };

    file(directory.path(), "x", failing).unwrap_err();

    assert_eq!(names(directory.path()), [""; 0]);
    assert_eq!(publish(directory.path(), "x", "whole"), "whole");
}

#[test]
fn what_a_dead_builder_left_goes_and_a_living_one_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(".dead.partial"), "half").unwrap();
    let living = lock(directory.path(), "living").unwrap();

    publish(directory.path(), "x", "whole");

    let mut left = names(directory.path());
    left.sort();
    assert_eq!(left, [".living.partial", "x"]);
    drop(living);
}

#[test]
fn what_a_dead_builder_left_goes_even_if_there_is_nothing_to_build() {
    let directory = tempfile::tempdir().unwrap();
    publish(directory.path(), "x", "whole");
    fs::write(directory.path().join(".dead.partial"), "half").unwrap();

    publish(directory.path(), "x", "not built");

    assert_eq!(names(directory.path()), ["x"]);
}

#[test]
fn a_dying_builder_is_waited_for_and_a_living_one_not_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let dying = lock(directory.path(), "dying").unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            drop(dying);
        });
        clear_abandoned(directory.path(), Duration::from_secs(60));
    });
    assert_eq!(names(directory.path()), [""; 0]);

    let _living = lock(directory.path(), "living").unwrap();
    clear_abandoned(directory.path(), Duration::from_millis(50));
    assert_eq!(names(directory.path()), [".living.partial"]);
}

#[test]
fn half_made_file_of_the_same_name_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(".x.partial"), "a longer half of a file").unwrap();

    assert_eq!(publish(directory.path(), "x", "whole"), "whole");
}

#[test]
fn racing_builders_build_once_and_all_see_the_result() {
    let directory = tempfile::tempdir().unwrap();
    let builds = AtomicU32::new(0);
    let build = |partial: &Partial| -> Result<(), PublishError> {
        builds.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(50));
        fs::write(partial.path(), "whole").unwrap();
        Ok(())
    };

    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut file = file(directory.path(), "x", build).unwrap();
                assert_eq!(read(&mut file), "whole");
            });
        }
    });

    assert_eq!(builds.load(Ordering::SeqCst), 1);
    assert_eq!(names(directory.path()), ["x"]);
}

#[test]
fn unusable_directory_is_named() {
    let build = |_: &Partial| -> Result<(), PublishError> { Ok(()) };

    let error = file(Path::new("/proc/no-such"), "x", build).unwrap_err();

    assert_eq!(error.to_string(), "creating /proc/no-such");
}
