//! Messages and exit codes.

use std::io::Write;

use cofferdam_agent_protocol::ErrorKind;

use super::*;
use crate::pod::{Cause, PodError};
use crate::timeline::PodStage;

fn pod(cause: Cause) -> RunError {
    Failure::from(PodError { stage: Some(PodStage::KernelEntered), cause }).into()
}

#[test]
fn a_guest_failure_shows_stage_and_console() {
    let mut console = tempfile::tempfile().unwrap();
    console.write_all(b"Kernel panic - not syncing: \x1b[31mno init\n").unwrap();
    let error = pod(Cause::NoHello(5)).with_console(Some(&mut console));
    let text = report(&error, "", None);
    assert!(text.contains("last stage reached: kernel entered"), "{text}");
    assert!(text.contains("  | Kernel panic - not syncing: ?[31mno init"), "{text}");
    let first = sentence(&error, "", None);
    assert!(text.starts_with(&first) && !first.contains('\n'), "{first}");
    assert!(
        first.ends_with(
            "(last stage reached: kernel entered); the guest's kernel said: ?[31mno init"
        ),
        "{first}"
    );
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn a_missing_command_reads_as_with_runc() {
    let kind = ErrorKind::CommandNotFound;
    let error = pod(Cause::Agent { kind, message: String::new() });
    let text = report(&error, "", None);
    assert!(text.ends_with("exec: \"\": executable file not found in $PATH"), "{text}");
    assert_eq!(error.exit_code(), 127);
    let kind = ErrorKind::CommandNotExecutable;
    assert_eq!(pod(Cause::Agent { kind, message: String::new() }).exit_code(), 126);
    assert_eq!(RunError::Interrupted(libc::SIGINT).exit_code(), 130);
}

#[test]
fn causes_are_chained_without_repetition() {
    let source = io::Error::from(io::ErrorKind::NotFound);
    let error = RunError::Open { what: "guest kernel", path: "/x/vmlinux".into(), source };
    assert_eq!(report(&error, "", None), "opening the guest kernel /x/vmlinux: entity not found");
}

#[test]
fn a_sentence_is_one_line() {
    let message = "running mkfs.erofs: exit status: 1: first\n  second\tthird\n\n".to_owned();
    let error = RunError::from(Failure::other(message));
    let expected = "running mkfs.erofs: exit status: 1: first; second?third";
    assert_eq!(sentence(&error, "", None), expected);
}

#[test]
fn a_panic_is_told_once_without_its_frame() {
    let console = "[ 1.0] Kernel panic - not syncing: no init\n[ 1.1] ---[ end Kernel panic - not syncing: no init ]---";
    assert_eq!(panic_of(console), Some("no init"));
    assert_eq!(panic_of("nothing of the kind"), None);
}
