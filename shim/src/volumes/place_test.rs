//! What is found, and what is made of it.

use super::*;

#[test]
fn a_place_stays_what_it_was_when_the_path_is_another() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, "first").unwrap();
    let place = Place::find(&path).unwrap();
    std::fs::rename(&path, directory.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", &path).unwrap();
    assert_eq!(place.look().unwrap().2, 5);
    assert_eq!(std::io::read_to_string(place.open().unwrap()).unwrap(), "first");
}

#[test]
fn what_is_not_there_is_not_found() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Place::find(&directory.path().join("missing")).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_tree_is_a_mount_without_rights_that_is_attached_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "content").unwrap();
    std::os::unix::fs::symlink("file", directory.path().join("link")).unwrap();
    let place = Place::find(directory.path()).unwrap();
    let wish = Wish { readonly: true, ..Wish::default() };
    let tree = match tree(&place, wish) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return println!("SKIPPED: mounts need root");
        }
        tree => tree.unwrap(),
    };
    let inside = |name: &str| format!("/proc/self/fd/{}/{name}", tree.as_raw_fd());
    assert_eq!(std::fs::read_to_string(inside("file")).unwrap(), "content");
    let refused = |error: io::Error| error.raw_os_error();
    assert_eq!(refused(std::fs::write(inside("new"), "").unwrap_err()), Some(libc::EROFS));
    assert_eq!(refused(std::fs::read(inside("link")).unwrap_err()), Some(libc::ELOOP));
    let flags = rustix::fs::fstatvfs(&tree).unwrap().f_flag;
    use rustix::fs::StatVfsMountFlags as Flags;
    assert!(flags.contains(Flags::NOSUID | Flags::NODEV | Flags::NOEXEC | Flags::RDONLY));
}
