//! Waiting until the threads of devices have nothing to do.
//!
//! A device's thread is woken by a write to an event descriptor, and runnable from that moment on; once
//! the kernel says that it sleeps, it has done all there was. So a program of operations has the same
//! result each time, although devices work on threads of their own.
//!
//! Invariant: a thread that finds no end is an error; threads that were there before are not looked at.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

/// Longest time for which a device may be busy without anything new to do, and a driver wait.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The threads of this process.
const TASKS: &str = "/proc/self/task";

/// The threads that were there before the devices' own.
#[derive(Debug)]
pub struct Quiet {
    others: BTreeSet<String>,
}

impl Quiet {
    /// All threads of now are not the devices'.
    #[must_use]
    pub fn now() -> Self {
        Self { others: tasks().collect() }
    }

    fn devices(&self) -> impl Iterator<Item = String> {
        tasks().filter(|name| !self.others.contains(name) && !is_test(name))
    }

    /// Waits until all threads of devices sleep.
    pub fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.sleeps() {
            assert!(Instant::now() < deadline, "a device is busy without end");
            pause();
        }
    }

    fn sleeps(&self) -> bool {
        self.devices().all(|name| sleeps(&name))
    }
}

fn tasks() -> impl Iterator<Item = String> {
    let entries = fs::read_dir(TASKS).expect("listing threads").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// Lets others run; spinning would keep the very thread waited for from its processor.
pub fn pause() {
    std::thread::sleep(Duration::from_micros(20));
}

/// Whether the thread is one of the test harness, named after its test; they come at any time.
fn is_test(name: &str) -> bool {
    let name = fs::read_to_string(format!("{TASKS}/{name}/comm")).unwrap_or_default();
    name.starts_with("replay_test")
}

/// Whether the thread `name` waits for something; one that is gone does nothing either.
fn sleeps(name: &str) -> bool {
    let Ok(stat) = fs::read_to_string(format!("{TASKS}/{name}/stat")) else { return true };
    // The name before it is in parentheses, and may hold some itself.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('S' | 'X' | 'Z') | None)
}
