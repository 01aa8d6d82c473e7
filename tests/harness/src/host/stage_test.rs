use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use super::*;

#[test]
fn a_staged_file_keeps_its_time_and_whether_it_is_a_program() {
    let source = tempfile::NamedTempFile::new().unwrap();
    fs::write(&source, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o710)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    source.as_file().set_modified(time).unwrap();

    let stage = Stage::new().unwrap();
    stage.add(source.path(), "/usr/local/bin/x").unwrap();

    let metadata = fs::metadata(stage.tree().join("usr/local/bin/x")).unwrap();
    assert_eq!(metadata.modified().unwrap(), time);
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o755);
}

#[test]
fn a_directory_is_staged_with_its_links_and_modes() {
    let source = tempfile::tempdir().unwrap();
    fs::create_dir(source.path().join("bin")).unwrap();
    fs::write(source.path().join("bin/tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(source.path().join("bin/tool"), fs::Permissions::from_mode(0o750)).unwrap();
    std::os::unix::fs::symlink("tool", source.path().join("bin/other")).unwrap();

    let stage = Stage::new().unwrap();
    stage.add_tree(source.path(), "/usr/lib/x").unwrap();
    stage.add(Path::new("/etc/os-release"), "/usr/lib/x/bin/more").unwrap();

    let bin = stage.tree().join("usr/lib/x/bin");
    assert_eq!(fs::metadata(bin.join("tool")).unwrap().permissions().mode() & 0o7777, 0o750);
    assert_eq!(fs::read_link(bin.join("other")).unwrap(), Path::new("tool"));
    assert!(bin.join("more").is_file());
    let error = stage.add_tree(Path::new("/nonexistent"), "/y").unwrap_err().to_string();
    assert!(error.contains("/nonexistent"), "{error}");
}

#[test]
fn a_missing_source_is_named() {
    let error = Stage::new().unwrap().add(Path::new("/nonexistent"), "/x").unwrap_err();
    assert!(error.to_string().contains("/nonexistent"), "{error}");
}

#[test]
fn the_tar_holds_the_tree() {
    let stage = Stage::new().unwrap();
    stage.add(Path::new("/etc/os-release"), "/usr/lib/x").unwrap();
    let tar = stage.tar().unwrap();
    let list = Command::new("tar").arg("-tf").arg(&tar).output().unwrap();
    assert!(String::from_utf8(list.stdout).unwrap().contains("./usr/lib/x\n"));
    // QEMU shows whole sectors of it to the guest.
    assert_eq!(fs::metadata(&tar).unwrap().len() % 512, 0);
}
