//! Names and numbers.

use std::fs;

use super::*;

fn rootfs() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n")
        .unwrap();
    fs::write(root.path().join("etc/group"), "root:x:0:\nstaff:x:50:web\n").unwrap();
    root
}

#[test]
fn names_and_numbers_are_resolved() {
    let root = rootfs();
    let is = |user: &str| resolve(root.path(), user).map_err(|error| error.to_string());
    assert_eq!(is("web"), Ok((33, 34)));
    assert_eq!(is("33"), Ok((33, 34)));
    assert_eq!(is("7"), Ok((7, 0)));
    assert_eq!(is("7:8"), Ok((7, 8)));
    assert_eq!(is("web:staff"), Ok((33, 50)));
    assert!(is("nobody").unwrap_err().contains("\"nobody\""));
    assert!(is("web:nobody").unwrap_err().contains("/etc/group"));
}

#[test]
fn links_do_not_lead_out_of_the_root() {
    let root = rootfs();
    fs::remove_file(root.path().join("etc/passwd")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", root.path().join("etc/passwd")).unwrap();
    assert!(resolve(root.path(), "root").is_err());
}
