//! Lines as engines expect them, and dates.

use super::*;

#[test]
fn lines_are_those_of_runc() {
    let fields = Fields { message: "a \"quoted\"\nword".into(), others: vec![("id", "c1".into())] };
    let json = line(Format::Json, "error", "2026-01-02T03:04:05Z", &fields);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["level"], "error");
    assert_eq!(value["msg"], "a \"quoted\"\nword");
    assert_eq!(value["id"], "c1");
    assert_eq!(json.lines().count(), 1);
    let text = line(Format::Text, "error", "2026-01-02T03:04:05Z", &fields);
    let expected =
        "time=\"2026-01-02T03:04:05Z\" level=error msg=\"a \\\"quoted\\\"\\nword\" id=\"c1\"\n";
    assert_eq!(text, expected);
}

#[test]
fn dates_follow_the_calendar() {
    let at = |seconds| rfc3339(Duration::from_secs(seconds));
    assert_eq!(at(0), "1970-01-01T00:00:00Z");
    assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
    assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
    assert_eq!(at(1_798_761_599), "2026-12-31T23:59:59Z");
}
