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
    assert_eq!(rustix::fs::fstat(&place).unwrap().st_size, 5);
    assert_eq!(std::io::read_to_string(place.open().unwrap()).unwrap(), "first");
}

#[test]
fn what_is_not_there_is_not_found() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Place::find(&directory.path().join("missing")).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn mount_points_are_read_as_the_kernel_writes_them() {
    let text = b"22 1 8:1 / /a\\040b rw - ext4 /dev/sda rw\n23 22 0:5 /x /a\\134\\011 ro shared:1 - tmpfs t rw\n24 broken\n";
    let found: Vec<_> = mount_points(text).collect();
    assert_eq!(found, [(22, PathBuf::from("/a b")), (23, PathBuf::from("/a\\\t"))]);
}

#[test]
fn what_is_mounted_below_a_place_is_found() {
    let dev = Place::find(Path::new("/")).unwrap();
    let below = dev.mounted_below().unwrap();
    let (_, proc) = below.iter().find(|(path, _)| path == Path::new("proc")).unwrap();
    assert!(proc.mounted_below().unwrap().iter().all(|(path, _)| !path.starts_with("proc")));
    assert!(below.iter().all(|(path, _)| path.is_relative()));
    let directory = tempfile::tempdir().unwrap();
    assert!(Place::find(directory.path()).unwrap().mounted_below().unwrap().is_empty());
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
