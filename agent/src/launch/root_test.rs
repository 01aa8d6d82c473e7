//! Paths stay inside the root, whatever its links say.

use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;

fn root() -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::open(directory.path().to_str().unwrap()).unwrap();
    (directory, root)
}

#[test]
fn directories_and_files_are_made() {
    let (directory, root) = root();
    root.make_dir(b"/a/b/c").unwrap();
    root.make_file(b"/x/y").unwrap();
    assert!(directory.path().join("a/b/c").is_dir());
    assert!(directory.path().join("x/y").is_file());
}

#[test]
fn an_absolute_link_is_taken_inside_the_root() {
    let (directory, root) = root();
    symlink("/run", directory.path().join("var-run")).unwrap();
    root.make_dir(b"/var-run/made-by-test").unwrap();
    assert!(directory.path().join("run/made-by-test").is_dir());
    assert!(!std::path::Path::new("/run/made-by-test").exists());
}

#[test]
fn dots_do_not_lead_out() {
    let (directory, root) = root();
    symlink("../../../../../..", directory.path().join("up")).unwrap();
    root.make_file(b"/up/../../file").unwrap();
    assert!(directory.path().join("file").is_file());
    symlink("../../../../../target", directory.path().join("link")).unwrap();
    root.make_file(b"/link").unwrap();
    assert!(directory.path().join("target").is_file());
}

#[test]
fn a_loop_of_links_ends() {
    let (directory, root) = root();
    symlink("b", directory.path().join("a")).unwrap();
    symlink("a", directory.path().join("b")).unwrap();
    assert_eq!(root.make_dir(b"/a").unwrap_err(), Errno::ELOOP);
    assert_eq!(root.make_file(b"/a").unwrap_err(), Errno::ELOOP);
}

#[test]
fn a_file_in_the_way_is_an_error() {
    let (directory, root) = root();
    fs::write(directory.path().join("file"), "").unwrap();
    assert_eq!(root.make_dir(b"/file/below").unwrap_err(), Errno::ENOTDIR);
}

#[test]
fn clean_paths() {
    for (path, cleaned) in
        [("", "/"), ("/", "/"), ("a//b/", "/a/b"), ("/../a/./b/../c", "/a/c"), ("..", "/")]
    {
        assert_eq!(clean(path.as_bytes()), cleaned.as_bytes(), "{path}");
    }
    assert_eq!(split(b"/a/b"), Some((&b"/a"[..], &b"b"[..])));
    assert_eq!(split(b"/a"), Some((&b"/"[..], &b"a"[..])));
    assert_eq!(split(b"/"), None);
}

proptest! {
    #[test]
    fn a_clean_path_is_absolute_and_has_no_dots(path in "[a./]{0,40}") {
        let cleaned = clean(path.as_bytes());
        prop_assert_eq!(cleaned.first(), Some(&b'/'));
        prop_assert!(cleaned.split(|b| *b == b'/').all(|part| part != b".." && part != b"."));
        prop_assert_eq!(clean(&cleaned), cleaned);
    }
}
