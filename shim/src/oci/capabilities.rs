//! Names of capabilities that this runtime does not know (OCI runtime-spec, config#linux-process).
//!
//! The specification asks for a warning, and runc ignores them: an engine may be newer than its runtime.
//!
//! Invariant: only names are taken out of a configuration, and each is told.

use serde_json::Value;

use super::process::CAPABILITIES;

/// Whether a capability set of `process` has an unknown name.
pub(super) fn has_unknown(process: &Value) -> bool {
    let sets = process.get("capabilities").and_then(Value::as_object);
    let names = sets.into_iter().flat_map(|sets| sets.values().filter_map(Value::as_array));
    names.flatten().filter_map(Value::as_str).any(|name| !known(name))
}

/// Takes unknown names out of the capability sets of `process`; a warning for each set that had some.
pub(super) fn take_unknown(process: &mut Value) -> Vec<String> {
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    let mut warnings = Vec::new();
    for (set, names) in sets.into_iter().flatten() {
        let Some(names) = names.as_array_mut() else { continue };
        let mut unknown = Vec::new();
        names.retain(|name| match name.as_str() {
            Some(name) if !known(name) => {
                unknown.push(name.to_owned());
                false
            }
            _ => true,
        });
        if !unknown.is_empty() {
            warnings.push(format!(
                "process.capabilities.{set}: unknown capabilities {unknown:?}; ignored"
            ));
        }
    }
    warnings
}

/// Whether a capability has this name.
fn known(name: &str) -> bool {
    name.strip_prefix("CAP_").is_some_and(|name| CAPABILITIES.contains(&name))
}

#[cfg(test)]
#[path = "capabilities_test.rs"]
mod capabilities_test;
