//! How an end is told.

use super::*;

#[test]
fn an_end_is_a_code_or_a_signal() {
    let of = |status| {
        let told = ended("c", "p", status);
        (told.code, told.signal)
    };
    assert_eq!(of(0), (0, 0));
    assert_eq!(of(255 << 8), (255, 0));
    assert_eq!(of(libc::SIGKILL), (0, 9));
    // With a core dump, and a real-time signal.
    assert_eq!(of(libc::SIGSEGV | 0x80), (0, 11));
    assert_eq!(of(64), (0, 64));
}
