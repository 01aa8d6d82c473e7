use std::time::Duration;

use super::*;

#[test]
fn a_comma_in_a_path_does_not_end_an_option() {
    assert_eq!(option("file:", Path::new("/a,b"), ",x=on"), "file:/a,,b,x=on");
}

#[test]
fn a_directory_without_a_listener_is_no_machine() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!alive(dir.path()));
    let socket = std::os::unix::net::UnixListener::bind(dir.path().join("qmp")).unwrap();
    assert!(alive(dir.path()));
    drop(socket);
    // What a killed QEMU leaves: the socket's file, and nobody behind it.
    assert!(!alive(dir.path()));
}

#[test]
fn only_old_directories_of_dead_machines_are_removed() {
    let parent = tempfile::tempdir().unwrap();
    let make = |name: &str, age: u64| {
        let dir = parent.path().join(name);
        fs::create_dir(&dir).unwrap();
        let time = SystemTime::now() - Duration::from_secs(age);
        (dir.clone(), move || File::open(&dir).unwrap().set_modified(time).unwrap())
    };
    let (old, age_old) = make("old", 3600);
    let (young, _) = make("young", 0);
    let (living, age_living) = make("living", 3600);
    let _socket = std::os::unix::net::UnixListener::bind(living.join("qmp")).unwrap();
    age_old();
    age_living();

    remove_stale(parent.path());

    assert!(!old.exists() && young.exists() && living.exists());
}

#[test]
fn versions_of_qemu_are_compared_without_their_epoch() {
    assert!(new_enough("1:10.0.2+ds-2+deb13u1~bpo12+1"));
    assert!(new_enough("11.2"));
    assert!(!new_enough("1:7.2+dfsg-7+deb12u13"));
    assert!(!new_enough(""));
}
