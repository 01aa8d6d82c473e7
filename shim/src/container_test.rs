//! What is kept, and when it is believed.

use super::*;

fn saved(id: &str, process: Mark) -> Saved {
    Saved {
        id: id.into(),
        bundle: "/b".into(),
        rootfs: "/b/rootfs".into(),
        created: "2026-01-01T00:00:00.000000000Z".into(),
        annotations: BTreeMap::new(),
        process,
        pod: id.into(),
        keep: true,
        scratch: Some(Bdf(24)),
        cgroup: None,
        owner: 0,
    }
}

fn make(root: &Path, id: &str, process: Mark) -> Saved {
    let saved = saved(id, process);
    fs::create_dir(root.join(id)).unwrap();
    saved.save(&root.join(id), b"{}").unwrap();
    saved
}

#[test]
fn a_container_is_found_with_its_status() {
    let root = tempfile::tempdir().unwrap();
    let made = make(root.path(), "c", Mark::of(std::process::id()).unwrap());
    assert_eq!(made.status(root.path()), Status::Creating);
    Status::Running.write(&root.path().join("c")).unwrap();
    let found = Saved::load(root.path(), "c").unwrap();
    assert_eq!(found.status(root.path()), Status::Running);
    assert_eq!(found.scratch, Some(Bdf(24)));
    let state = found.state(Status::Running).to_string();
    let start = format!("{{\"ociVersion\":\"1.2.0\",\"id\":\"c\",\"pid\":{}", std::process::id());
    assert!(state.starts_with(&start), "{state}");
    assert!(found.state(Status::Stopped).to_string().contains("\"pid\":0"));
}

#[test]
fn one_whose_proxy_is_gone_has_stopped() {
    let root = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let made = make(root.path(), "c", Mark::of(child.id()).unwrap());
    Status::Running.write(&root.path().join("c")).unwrap();
    assert_eq!(made.status(root.path()), Status::Running);
    child.kill().unwrap();
    // Dead, and not yet reaped.
    while made.process.is_alive() {
        std::thread::yield_now();
    }
    assert_eq!(made.status(root.path()), Status::Stopped);
    child.wait().unwrap();
    assert_eq!(made.status(root.path()), Status::Stopped);
}

#[test]
fn a_number_that_is_another_s_now_is_no_proxy() {
    let mut mark = Mark::of(std::process::id()).unwrap();
    mark.start += 1;
    assert!(!mark.is_alive());
    let mut mark = Mark::of(std::process::id()).unwrap();
    mark.boot = "another".into();
    assert!(!mark.is_alive() && !saved("c", mark).is_kept());
}

#[test]
fn ids_do_not_lead_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    make(root.path(), "c", Mark::of(std::process::id()).unwrap());
    for id in ["../c", "", ".", "missing", "c/../c"] {
        let error = Saved::load(root.path(), id).unwrap_err();
        assert!(matches!(error, ContainerError::Missing), "{id}");
    }
    assert_eq!(Saved::all(root.path()).len(), 1);
}
