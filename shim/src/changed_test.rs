//! Which files are read again.

use serde_json::json;

use super::*;

#[test]
fn bound_files_that_were_written_since_are_read_again() {
    let bundle = tempfile::tempdir().unwrap();
    for name in ["old", "new", "other"] {
        std::fs::write(bundle.path().join(name), name).unwrap();
    }
    let since = SystemTime::now() - Duration::from_secs(60);
    let old = std::fs::File::options().write(true).open(bundle.path().join("old")).unwrap();
    old.set_modified(since - Duration::from_secs(60)).unwrap();
    let bound = |source: &str, options: &[&str]| json!({"destination": "/d", "source": source, "options": options});
    let mounts = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        bound("old", &["bind"]), bound("new", &["rbind", "ro"]), bound("other", &["ro"]),
        bound("missing", &["bind"]), bound(".", &["bind"]),
    ]);
    let mounts: Vec<Mount> = serde_json::from_value(mounts).unwrap();
    let found = changed(&mounts, bundle.path(), since);
    assert_eq!(found, [request::FileContent { mount: 2, content: b"new".to_vec() }]);
}
