//! Signals as people and engines write them.

use super::*;

#[test]
fn signals_have_numbers_and_names() {
    for (text, number) in [
        ("9", 9),
        ("KILL", 9),
        ("SIGTERM", 15),
        ("sigusr1", 10),
        ("RTMIN+3", 37),
        ("SIGRTMAX-1", 63),
        ("64", 64),
        ("0", 0),
    ] {
        assert_eq!(parse_signal(text).unwrap(), number, "{text}");
    }
    for text in ["-1", "65", "SIGNOTHING", "", "RTMIN+31"] {
        let error = parse_signal(text).unwrap_err().to_string();
        assert!(error.contains(&format!("{text:?}")), "{error}");
    }
}
