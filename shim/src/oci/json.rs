//! JSON of engines to the types of the specification, with the path of the field in each error.
//!
//! Engines are written in Go, whose parser takes some things that ours does not: a `null` for a field that is not
//! there, a missing `user`, names that are newer than this runtime. What fails at first is tried again without them.
//!
//! Invariant: what is not understood is an error that names its field, or is told as a warning.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::capabilities;

/// JSON that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{}{cause}", self.place())]
pub struct JsonError {
    /// The path of the field, such as `process.args[0]`; empty where the text is no JSON at all.
    pub field: String,
    /// What is wrong, with line and column where they are known.
    pub cause: serde_json::Error,
}

impl JsonError {
    /// The field, before the cause.
    fn place(&self) -> String {
        if self.field.is_empty() { String::new() } else { format!("{}: ", self.field) }
    }

    fn new(error: serde_path_to_error::Error<serde_json::Error>) -> Self {
        let path = error.path().to_string();
        let cause = error.into_inner();
        // Where the text ends early, the field is just where the parser was.
        let field = if cause.is_data() && path != "." { path } else { String::new() };
        Self { field, cause }
    }

    /// This error of the field `parent`.
    fn inside(mut self, parent: &str) -> Self {
        if self.cause.is_data() {
            let dot = if self.field.is_empty() || parent.is_empty() { "" } else { "." };
            self.field = format!("{parent}{dot}{}", self.field);
        }
        self
    }
}

/// What `bytes` hold, and what was ignored in it. `parent` is where a configuration has such a value: empty for the
/// whole of it, else `process` or `linux.resources`.
///
/// # Errors
/// [`JsonError`].
pub(super) fn parse<T: DeserializeOwned>(
    bytes: &[u8],
    parent: &str,
) -> Result<(T, Vec<String>), JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut reader).map_err(JsonError::new);
    let parsed = parsed.and_then(|value| {
        reader.end().map(|()| value).map_err(|cause| JsonError { field: String::new(), cause })
    });
    let text = serde_json::from_slice::<Value>(bytes);
    let (first, mut value) = match (parsed, text) {
        // The types take more names of capabilities than there are, in any case and without their prefix.
        (Ok(value), Ok(text)) if !has_odd_capabilities(&text, parent) => {
            return Ok((value, Vec::new()));
        }
        (Ok(_), Ok(text)) => (None, text),
        (Err(error), Ok(text)) => (Some(error.inside(parent)), text),
        (Err(error), Err(_)) => return Err(error.inside(parent)),
        (Ok(_), Err(cause)) => return Err(JsonError { field: String::new(), cause }),
    };
    let warnings = relax(&mut value, parent);
    match serde_path_to_error::deserialize(value).map_err(JsonError::new) {
        Ok(parsed) => Ok((parsed, warnings)),
        Err(error) => {
            let again = error.inside(parent);
            // If the first is about the same, it knows the line as well.
            let same = |first: &JsonError| first.to_string().starts_with(&again.to_string());
            Err(first.filter(same).unwrap_or(again))
        }
    }
}

/// Whether the process in `value` names capabilities that there are not.
fn has_odd_capabilities(value: &Value, parent: &str) -> bool {
    let process = match parent {
        "" => value.get("process"),
        "process" => Some(value),
        _ => None,
    };
    process.is_some_and(capabilities::has_unknown)
}

/// Takes out of `value` what Go's parser, and runc, would not mind; tells what of it has a meaning.
fn relax(value: &mut Value, parent: &str) -> Vec<String> {
    drop_nulls(value);
    let process = match parent {
        "" => value.get_mut("process"),
        "process" => Some(value),
        _ => None,
    };
    let Some(process) = process.filter(|process| process.is_object()) else { return Vec::new() };
    if process.get("user").is_none() {
        process["user"] = Value::Object(serde_json::Map::new());
    }
    flags(process);
    affinity(process);
    capabilities::take_unknown(process)
}

/// Removes members that are `null`: they are as good as missing.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The names that the types have for the two flags whose names they get wrong.
fn flags(process: &mut Value) {
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        match flag.as_str() {
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
            _ => {}
        }
    }
}

/// runc allows for spaces and empty elements in a list of CPUs.
fn affinity(process: &mut Value) {
    let lists = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut);
    let Some(lists) = lists else { return };
    for list in lists.values_mut() {
        let Some(text) = list.as_str() else { continue };
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let plain = parts.collect::<Vec<_>>().join(",");
        *list = if text.is_empty() { Value::Null } else { plain.into() };
    }
}

#[cfg(test)]
#[path = "json_test.rs"]
mod json_test;
