//! Tests of fingerprints.

use std::fs::File;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// A small tree.
fn tree() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir_all(root.join("etc/deep")).unwrap();
    fs::write(root.join("etc/passwd"), "root").unwrap();
    fs::write(root.join("etc/deep/file"), "12345").unwrap();
    symlink("passwd", root.join("etc/link")).unwrap();
    directory
}

fn fingerprint(root: &Path) -> Fingerprint {
    Tree::walk(root).unwrap().fingerprint
}

#[test]
fn unchanged_tree_keeps_its_fingerprint() {
    let tree = tree();

    assert_eq!(Tree::walk(tree.path()).unwrap(), Tree::walk(tree.path()).unwrap());
    assert_eq!(fingerprint(tree.path()).to_string().len(), 64);
}

#[test]
fn sizes_and_files_are_counted() {
    let tree = tree();
    File::create(tree.path().join("sparse")).unwrap().set_len(1 << 20).unwrap();

    let walked = Tree::walk(tree.path()).unwrap();

    assert_eq!((walked.bytes, walked.files), ((1 << 20) + 9, 6));
    assert!(walked.holes >= 1 << 20);
}

#[test]
fn every_kind_of_change_is_seen() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 7] = [
        ("same length", |root| fs::write(root.join("etc/passwd"), "toor").unwrap()),
        ("mode", |root| {
            fs::set_permissions(root.join("etc"), fs::Permissions::from_mode(0o700)).unwrap();
        }),
        ("rename", |root| fs::rename(root.join("etc/passwd"), root.join("etc/other")).unwrap()),
        ("new file", |root| drop(File::create(root.join("new")).unwrap())),
        ("removal", |root| fs::remove_file(root.join("etc/link")).unwrap()),
        ("hard link", |root| fs::hard_link(root.join("etc/passwd"), root.join("hard")).unwrap()),
        ("target", |root| {
            fs::remove_file(root.join("etc/link")).unwrap();
            symlink("elsewhere", root.join("etc/link")).unwrap();
        }),
    ];
    for (name, change) in changes {
        let tree = tree();
        let before = fingerprint(tree.path());

        change(tree.path());

        assert_ne!(before, fingerprint(tree.path()), "{name}");
    }
}

#[test]
fn root_may_be_a_link_and_must_be_a_directory() {
    let tree = tree();
    let link = tree.path().with_extension("link");
    symlink(tree.path(), &link).unwrap();

    assert_eq!(fingerprint(&link), fingerprint(tree.path()));
    fs::remove_file(&link).unwrap();
    let error = Tree::walk(&tree.path().join("etc/passwd")).unwrap_err();
    assert!(matches!(error, FingerprintError::NotADirectory { .. }), "{error}");
    let error = Tree::walk(&tree.path().join("nothing")).unwrap_err();
    assert!(error.to_string().ends_with("/nothing"), "{error}");
}

#[test]
fn mounted_view_of_the_kernel_is_refused() {
    let error = reject_pseudo(Path::new("/proc")).unwrap_err();

    assert_eq!(
        error.to_string(),
        "/proc is a mounted proc file system, which cannot be part of an image: unmount it"
    );
}
