//! The message.

use super::*;

#[test]
fn a_call_has_its_name() {
    let mut text = String::new();
    describe(&mut text, "vcpu", 257, 0xae80).unwrap();
    let expected = "cofferdam-vmm: stopped by its system-call filter: openat (second argument 0xae80) \
                    by the vcpu thread\n";
    assert_eq!(text, expected);
    text.clear();
    describe(&mut text, "vcpu", -7, 0).unwrap();
    assert!(text.contains("system call -7"), "{text}");
}

#[test]
fn a_line_that_is_too_long_is_cut() {
    let mut line = Line { bytes: [0; 160], length: 0 };
    assert!(describe(&mut line, &"x".repeat(200), 0, 0).is_err());
    assert_eq!(line.length, 160);
}
