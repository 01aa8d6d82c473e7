//! The features are those of the specification, and true.

use super::*;
use crate::oci::takes_mount_option;

#[test]
fn they_are_what_the_specification_calls_features() {
    let features: oci_spec::runtime::Features = serde_json::from_str(&features()).unwrap();
    let options = features.mount_options().clone().unwrap();
    assert!(options.len() > 60 && options.iter().all(|option| takes_mount_option(option)));
    assert!(!takes_mount_option("size=1m"));
}
