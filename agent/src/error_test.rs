//! Messages name the attempt and the cause, and stay bounded.

use super::*;

#[test]
fn a_message_says_what_was_attempted_and_why_it_failed() {
    let failed: nix::Result<()> = Err(Errno::EINVAL);
    let failure = failed.context(|| "mounting tmpfs at /x".into()).unwrap_err();
    assert_eq!(failure.message, "mounting tmpfs at /x: invalid argument");
    assert_eq!(failure.kind, ErrorKind::Other);
}

#[test]
fn the_kind_survives_more_context() {
    let failed: Result<()> = Err(Failure::new(ErrorKind::NotFound, "no container \"a\""));
    let failure = failed.context(|| "joining".into()).unwrap_err();
    assert_eq!(failure, Failure::new(ErrorKind::NotFound, "joining: no container \"a\""));
}

#[test]
fn errno_reads_as_runc_writes_it() {
    assert_eq!(describe(Errno::ENOENT), "no such file or directory");
    assert_eq!(describe(Errno::ENOEXEC), "exec format error");
    assert_eq!(describe(Errno::EISDIR), "is a directory");
    assert_eq!(describe(Errno::EACCES), "permission denied");
}

#[test]
fn long_messages_and_paths_are_cut_at_a_character() {
    assert!(Failure::other("é".repeat(5000)).message.len() <= MAX_MESSAGE);
    assert!(show(&[0xff; 10_000]).len() <= MAX_SHOWN * 3 + 3);
    assert_eq!(show(b"/etc"), "/etc");
}
