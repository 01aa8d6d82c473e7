//! Stopping the making of disks.

use std::process::Command;

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A tool that would take a minute.
fn tool() -> std::process::ExitStatus {
    Command::new("sleep").arg("60").status().unwrap()
}

#[test]
fn every_tool_of_an_aborted_thread_is_killed_also_those_that_come_later() {
    let runtime = runtime();
    let finished = runtime.block_on(async {
        let making = Making::of(|| {
            std::thread::sleep(Duration::from_millis(100));
            assert!(!tool().success());
            std::thread::sleep(Duration::from_millis(100));
            assert!(!tool().success());
            Ok(())
        });
        making.abort(Duration::from_secs(30)).await
    });
    assert!(finished);
}

#[test]
fn a_thread_that_does_not_come_back_is_not_waited_for_and_others_children_live() {
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let runtime = runtime();
    let making = runtime.block_on(async {
        let making = Making::of(move || {
            let _ = receiver.recv();
            Ok(())
        });
        making.abort(Duration::from_millis(100)).await
    });
    assert!(!making);
    assert!(other.try_wait().unwrap().is_none());
    drop(sender);
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_process_that_got_the_number_of_a_tool_that_ended_lives() {
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = Pid::from_child(&other);
    let reads = std::cell::Cell::new(0);
    kill_listed(|| {
        reads.set(reads.get() + 1);
        if reads.get() == 1 { vec![pid] } else { Vec::new() }
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(other.try_wait().unwrap().is_none());
    kill_listed(|| vec![pid]);
    assert!(!other.wait().unwrap().success());
}
