//! Every way in which a bundle can be wrong, and the path in the message.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::oci::{default_spec_text, translate};

fn bundle(config: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("rootfs")).unwrap();
    fs::write(directory.path().join("config.json"), config).unwrap();
    directory
}

fn error(config: &str) -> String {
    let directory = bundle(config);
    let error = Bundle::load(directory.path()).unwrap_err();
    let text = anyhow::Error::from(error);
    format!("{text:#}")
}

#[test]
fn the_default_configuration_loads() {
    let directory = bundle(&default_spec_text());
    let bundle = Bundle::load(directory.path()).unwrap();
    assert!(bundle.rootfs.ends_with("rootfs"));
}

#[test]
fn a_missing_bundle_and_a_missing_configuration_are_named() {
    let error = anyhow::Error::from(Bundle::load(Path::new("/nowhere/at/all")).unwrap_err());
    assert!(format!("{error:#}").contains("bundle /nowhere/at/all: No such file"), "{error:#}");
    let empty = tempfile::tempdir().unwrap();
    let error = anyhow::Error::from(Bundle::load(empty.path()).unwrap_err());
    assert!(format!("{error:#}").contains("config.json: No such file"), "{error:#}");
}

#[test]
fn a_truncated_configuration_is_named_with_the_place() {
    let text = default_spec_text();
    let message = error(&text[..text.len() / 2]);
    assert!(
        message.contains("config.json: EOF while parsing") && message.contains("line"),
        "{message}"
    );
}

#[test]
fn an_unknown_capability_is_a_warning_and_not_the_end() {
    let text = default_spec_text().replacen("CAP_KILL", "CAP_FLY", 1);
    let loaded = Bundle::load(bundle(&text).path()).unwrap();
    let read = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    let plan = translate("c", &loaded, &read, &|_| None).unwrap();
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    assert!(plan.warnings[0].contains("CAP_FLY"), "{:?}", plan.warnings);

    let message = error(&text.replacen("\"cwd\": \"/\"", "\"cwd\": 5", 1));
    assert!(message.contains("process.cwd: "), "another fault is told with its field: {message}");
}

#[test]
fn unknown_versions_are_refused() {
    for version in ["", "2.0.0", "0.9.0", "1", "1.0", "1.x.0", "one"] {
        let message = error(&default_spec_text().replacen("1.2.0", version, 1));
        assert!(message.contains(&format!("ociVersion {version:?}")), "{message}");
    }
    for version in ["1.0.0", "1.0.2-dev", "1.1.0+dev", "1.3.0-rc.1"] {
        assert!(version_known(version), "{version}");
    }
}

#[test]
fn root_and_process_must_be_there() {
    assert!(
        error(r#"{"ociVersion":"1.0.2","process":{"user":{},"cwd":"/"}}"#).contains("root.path")
    );
    assert!(
        error(r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"}}"#).contains("process is missing")
    );
    let message = error(&default_spec_text().replacen("\"rootfs\"", "\"nothing-here\"", 1));
    assert!(message.contains("nothing-here: No such file"), "{message}");
    let message = error(&default_spec_text().replacen("\"rootfs\"", "\"config.json\"", 1));
    assert!(message.contains("config.json: not a directory"), "{message}");
}

/// One change to a JSON document: a byte replaced, removed or put in.
fn mutate(text: &[u8], changes: &[(usize, u8, u8)]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for (place, kind, byte) in changes {
        let at = place % bytes.len();
        match kind % 3 {
            0 => bytes[at] = *byte,
            1 => drop(bytes.remove(at)),
            _ => bytes.insert(at, *byte),
        }
    }
    bytes
}

/// Replaces the `which`-th value of a document by `with`.
fn replace(value: &mut serde_json::Value, which: &mut usize, with: &serde_json::Value) {
    if *which == 0 {
        *value = with.clone();
    }
    *which = which.wrapping_sub(1);
    match value {
        serde_json::Value::Array(items) => items.iter_mut().for_each(|v| replace(v, which, with)),
        serde_json::Value::Object(map) => map.values_mut().for_each(|v| replace(v, which, with)),
        _ => {}
    }
}

const EXAMPLES: [&str; 3] = [
    include_str!("../../testdata/docker.json"),
    include_str!("../../testdata/podman.json"),
    include_str!("../../testdata/everything.json"),
];

fn digest(bytes: &[u8]) {
    if let Ok((spec, warnings)) = parse(bytes, Path::new("config.json")) {
        let bundle = Bundle { directory: "/b".into(), rootfs: "/b/rootfs".into(), spec, warnings };
        let _ = translate("c", &bundle, &|_| Err(io::ErrorKind::NotFound.into()), &|_| None);
    }
}

proptest! {
    #[test]
    fn changed_bytes_never_panic(
        example in 0..3usize,
        changes in proptest::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..6),
    ) {
        digest(&mutate(EXAMPLES[example].as_bytes(), &changes));
    }

    #[test]
    fn changed_values_never_panic(
        example in 0..3usize, which in 0..900usize,
        with in prop_oneof![
            any::<i64>().prop_map(serde_json::Value::from), any::<u64>().prop_map(serde_json::Value::from),
            ".{0,12}".prop_map(serde_json::Value::from), Just(serde_json::Value::Null),
            Just(serde_json::json!([])), Just(serde_json::json!({})), Just(serde_json::json!("/../..")),
        ],
    ) {
        let mut value: serde_json::Value = serde_json::from_str(EXAMPLES[example]).unwrap();
        replace(&mut value, &mut which.clone(), &with);
        digest(value.to_string().as_bytes());
    }
}
