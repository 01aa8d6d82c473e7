//! Commands are found as runc finds them, and missing ones reported in its words.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn path(value: &std::path::Path) -> Vec<Vec<u8>> {
    vec![b"PATH=/nowhere".to_vec(), [b"PATH=/nowhere:", value.as_os_str().as_bytes()].concat()]
}

fn file(directory: &tempfile::TempDir, name: &str, mode: u32) -> String {
    let file = directory.path().join(name);
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_bare_name_is_searched_in_the_last_path() {
    let directory = tempfile::tempdir().unwrap();
    let found = file(&directory, "tool", 0o755);
    assert_eq!(command(b"tool", &path(directory.path())).unwrap(), found.as_bytes());
}

#[test]
fn a_missing_command_is_reported_as_runc_does() {
    let directory = tempfile::tempdir().unwrap();
    file(&directory, "plain", 0o644);
    for name in ["foo", "plain", ""] {
        let failure = command(name.as_bytes(), &path(directory.path())).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::CommandNotFound);
        let text = format!("exec: \"{name}\": executable file not found in $PATH");
        assert_eq!(failure.message, text);
    }
}

#[test]
fn paths_with_a_slash_are_not_searched() {
    let directory = tempfile::tempdir().unwrap();
    let plain = file(&directory, "plain", 0o644);
    let of = |name: &str| command(name.as_bytes(), &[]).unwrap_err();

    let missing = of("/nope");
    assert_eq!(missing.kind, ErrorKind::CommandNotFound);
    assert_eq!(missing.message, "exec: \"/nope\": stat /nope: no such file or directory");

    let forbidden = of(&plain);
    assert_eq!(forbidden.kind, ErrorKind::CommandNotExecutable);
    assert_eq!(forbidden.message, format!("exec: \"{plain}\": permission denied"));

    let folder = of("/tmp/");
    assert_eq!(folder.kind, ErrorKind::CommandNotExecutable);
    assert_eq!(folder.message, "exec: \"/tmp/\": is a directory");
}

#[test]
fn the_working_directory_is_not_searched() {
    let tool = tempfile::NamedTempFile::new_in(".").unwrap();
    fs::set_permissions(tool.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let name = tool.path().file_name().unwrap().as_bytes();
    for env in [vec![], vec![b"PATH=".to_vec()], vec![b"PATH=:/nowhere:".to_vec()]] {
        assert_eq!(command(name, &env).unwrap_err().kind, ErrorKind::CommandNotFound);
        assert!(command(&[b"./", name].concat(), &env).is_ok());
    }
}
