//! Paths as engines write them.

use super::*;

#[test]
fn slices_are_directories_in_each_other() {
    let path = systemd_path(Path::new("machine-a-b.slice:libpod:0123")).unwrap();
    let expected = "machine.slice/machine-a.slice/machine-a-b.slice/libpod-0123.scope";
    assert_eq!(path, Path::new(expected));
    assert_eq!(systemd_path(Path::new(":x:y")).unwrap(), Path::new("system.slice/x-y.scope"));
    assert_eq!(systemd_path(Path::new("-.slice::y")).unwrap(), Path::new("y.scope"));
    assert_eq!(systemd_path(Path::new("/libpod/x")), None);
    assert!(is_of_systemd(Path::new("kubepods-pod1.slice:cri-containerd:0123")));
    for path in ["/kubepods.slice/pod1.slice", "a.slice:b", "/a:b:c", ""] {
        assert!(!is_of_systemd(Path::new(path)), "{path}");
    }
}

#[test]
fn no_path_leads_out_of_the_hierarchy() {
    assert_eq!(relative(Path::new("/libpod/x")).unwrap(), Path::new("libpod/x"));
    assert_eq!(relative(Path::new("a/../../b")), None);
    assert_eq!(relative(Path::new("/")), None);
    assert_eq!(systemd_path(Path::new("a.slice:../../x:y")), None);
}

#[test]
fn groups_are_made_and_removed_where_they_can_be() {
    let root = tempfile::tempdir().unwrap();
    make(root.path(), Path::new("a/b")).unwrap();
    let group = root.path().join("a/b");
    assert!(group.is_dir());
    make(root.path(), Path::new("a/b")).unwrap();
    let state = root.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join(NOTE), group.as_os_str().as_encoded_bytes()).unwrap();
    assert!(clear(&state, Duration::ZERO));
    assert!(!group.exists() && !state.join(NOTE).exists());
    assert!(clear(&state, Duration::ZERO));
}
