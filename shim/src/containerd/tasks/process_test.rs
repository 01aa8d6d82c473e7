//! The life of a process, with a supervisor that a test plays.

use super::*;
use crate::control::Failure;
use cofferdam_vmm_api::Channel;

fn process() -> Process {
    let of = Of { container: "c".into(), process: String::new() };
    Process::new(of, "", Stdio::default())
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tokio::task::LocalSet::new().run_until(test))
}

fn made(process: &Process) -> Channel {
    let (ours, theirs) = Channel::pair().unwrap();
    process.is_made(Socket::new(ours).unwrap(), None);
    theirs
}

#[test]
fn only_what_was_created_is_started_and_the_end_is_the_end() {
    let process = process();
    process.begin().unwrap();
    process.begin().unwrap_err();
    process.set(Life::Running);
    process.begin().unwrap_err();
    let exit = Exit { status: 3, at: UNIX_EPOCH };
    process.set(Life::Ended(exit));
    process.set(Life::Running);
    assert_eq!(process.life(), Life::Ended(exit));
    assert_eq!(run(process.ended()), exit);
}

#[test]
fn the_end_is_told_after_the_start() {
    run(async {
        let process = Rc::new(process());
        let supervisor = made(&process);
        process.begin().unwrap();
        let at_ns = 1_500_000_000_000_000_001;
        supervisor.send(&End { result: Ok((0, 15)), at_ns, stages: Vec::new() }, &[]).unwrap();
        let watched = process.clone();
        let exit = tokio::task::spawn_local(async move { watched.exit().await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!exit.is_finished());
        process.set(Life::Running);
        let exit = exit.await.unwrap();
        assert_eq!(exit.status, 143);
        assert_eq!(exit.at, UNIX_EPOCH + Duration::from_nanos(at_ns));
    });
}

#[test]
fn a_pod_that_fails_or_goes_away_has_killed_its_processes() {
    run(async {
        let process = process();
        let supervisor = made(&process);
        let failed = Err(Failure::other("the monitor is gone"));
        supervisor.send(&End { result: failed, at_ns: 7, stages: Vec::new() }, &[]).unwrap();
        assert_eq!(process.exit().await.status, KILLED);
        drop(supervisor);
        assert_eq!(process.exit().await.status, KILLED);
    });
}

#[test]
fn sizes_go_to_the_guest_or_wait_for_the_start() {
    run(async {
        let process = process();
        process.resize(31, 97).await;
        assert_eq!(process.size(), Some((31, 97)));
        let supervisor = made(&process);
        process.resize(50, 132).await;
        let said = supervisor.receive::<FromProxy>().unwrap().body;
        assert!(matches!(said, FromProxy::Size(50, 132)), "{said:?}");
    });
}

#[test]
fn an_input_that_ends_during_the_start_is_not_kept_open() {
    run(async {
        let process = process();
        let (ours, _theirs) = Channel::pair().unwrap();
        process.close_input();
        let (reader, writer) = std::io::pipe().unwrap();
        process.is_made(Socket::new(ours).unwrap(), Some(writer.into()));
        assert_eq!(std::io::Read::read(&mut &reader, &mut [0]).unwrap(), 0);
    });
}
