//! What is taken out, and what stays.

use serde_json::json;

use super::*;

#[test]
fn unknown_names_are_taken_out_of_each_set_and_told() {
    let mut config = json!({"capabilities": {
        "bounding": ["CAP_KILL", "CAP_FLY", "kill"],
        "effective": ["CAP_CHECKPOINT_RESTORE"],
        "ambient": "CAP_FLY",
    }});
    let warnings = take_unknown(&mut config);
    assert_eq!(
        warnings,
        ["process.capabilities.bounding: unknown capabilities [\"CAP_FLY\", \"kill\"]; ignored"]
    );
    let sets = &config["capabilities"];
    assert_eq!(sets["bounding"], json!(["CAP_KILL"]));
    assert_eq!(sets["effective"], json!(["CAP_CHECKPOINT_RESTORE"]));
    // Nonsense of another kind is for the parser.
    assert_eq!(sets["ambient"], "CAP_FLY");
}

#[test]
fn a_configuration_without_capabilities_stays_as_it_is() {
    for config in [json!({}), json!(5), json!({"capabilities": null})] {
        let mut changed = config.clone();
        assert!(take_unknown(&mut changed).is_empty());
        assert_eq!(changed, config);
    }
}
