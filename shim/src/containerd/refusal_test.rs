//! Codes and sentences.

use super::*;

fn told(error: RunError) -> (Code, String) {
    let refusal = Refusal::from(error);
    (refusal.code, refusal.message)
}

#[test]
fn kinds_become_codes() {
    let failed = |kind| told(Failure::new("it went wrong".into(), kind).into()).0;
    assert_eq!(failed(FailureKind::NotFound), Code::NOT_FOUND);
    assert_eq!(failed(FailureKind::WrongState), Code::FAILED_PRECONDITION);
    assert_eq!(failed(FailureKind::Machine), Code::UNKNOWN);
    let exists = StateError::Exists("c".into());
    let (code, text) = told(exists.into());
    assert_eq!(code, Code::ALREADY_EXISTS);
    assert!(text.ends_with("already exists: c"), "{text}");
}

#[test]
fn the_console_is_not_part_of_the_sentence() {
    let failure = Failure::new("booting: no hello".into(), FailureKind::Machine);
    let error = RunError::Pod { failure, console: "a\nb".into() };
    assert_eq!(told(error).1, "booting: no hello");
}

#[test]
fn causes_are_told_in_one_line() {
    let error = anyhow::anyhow!("no such file").context("opening it");
    assert_eq!(Refusal::from(error).message, "opening it: no such file");
    let error = anyhow::anyhow!("one\ntwo\n");
    assert_eq!(Refusal::from(error).message, "one; two");
}
