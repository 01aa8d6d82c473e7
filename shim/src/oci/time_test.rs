//! Which offsets a container may have.
#![allow(clippy::needless_pass_by_value, reason = "json! makes values")]

use serde_json::{Value, json};

use super::*;

fn planned(offsets: Value, join: Option<&str>) -> Result<Vec<TimeOffset>, String> {
    let linux: Linux = serde_json::from_value(json!({ "timeOffsets": offsets })).unwrap();
    let kind = NamespaceKind::Time.into();
    let own: Vec<Namespace> =
        join.map(|join| Namespace { kind, join: join.into() }).into_iter().collect();
    super::offsets(Some(&linux), &own).map_err(|error| error.to_string())
}

#[test]
fn offsets_of_a_new_namespace() {
    let both = json!({"monotonic": {"secs": -5, "nanosecs": 7}, "boottime": {}});
    let offset = |clock: &str, seconds, nanoseconds| TimeOffset {
        clock: clock.into(),
        seconds,
        nanoseconds,
    };
    let expected = vec![offset("boottime", 0, 0), offset("monotonic", -5, 7)];
    assert_eq!(planned(both.clone(), Some("")), Ok(expected));
    assert_eq!(planned(json!({}), None), Ok(Vec::new()));
    assert!(
        planned(both.clone(), None).unwrap_err().starts_with("linux.timeOffsets: needs a time")
    );
    assert!(planned(both, Some("other")).unwrap_err().contains("another container's"));
}

#[test]
fn what_no_clock_has_is_named() {
    let other = planned(json!({"realtime": {"secs": 1}}), Some("")).unwrap_err();
    assert!(other.starts_with("linux.timeOffsets.realtime: "), "{other}");
    let over = planned(json!({"monotonic": {"nanosecs": 1_000_000_000}}), Some("")).unwrap_err();
    assert!(over.starts_with("linux.timeOffsets.monotonic.nanosecs: "), "{over}");
}
