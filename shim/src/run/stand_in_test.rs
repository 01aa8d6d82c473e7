//! Numbers that are no process's.

use std::path::PathBuf;

use super::*;
use crate::container::Mark;

#[test]
fn a_number_names_one_of_several_while_it_is_kept() {
    let (first, second) = (Number::new().unwrap(), Number::new().unwrap());
    assert_ne!(first.get(), second.get());
    assert_ne!(first.get(), std::process::id());
    let marks = [&first, &second].map(|number| Mark::of(number.get()).unwrap());
    assert!(marks.iter().all(Mark::is_alive));
    assert!(PathBuf::from(format!("/proc/{}/ns/pid", first.get())).exists());
    drop(first);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while marks[0].is_alive() {
        assert!(std::time::Instant::now() < end, "the thread goes on");
        std::thread::yield_now();
    }
    assert!(marks[1].is_alive());
}
