//! Whole lines, bounded, harmless.

use std::io::Write;

use super::*;

#[test]
fn only_whole_last_lines_are_kept() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"first line\nsecond line\nthird line\n").unwrap();
    assert_eq!(of_file(&mut file, 25).unwrap(), "second line\nthird line");
    assert_eq!(of_file(&mut file, 1000).unwrap().lines().count(), 3);
}

#[test]
fn control_characters_do_not_get_through() {
    assert_eq!(printable(b"a\x1b[2Jb\r\nc\x07d\xff"), "a?[2Jb\nc?d\u{fffd}");
}
