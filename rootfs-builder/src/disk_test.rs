//! Tests of scratch disks, with the real `mke2fs`; checked with `e2fsck` and `debugfs`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

use super::*;

const MIB: u64 = 1 << 20;

/// Runs a program on the disk through a path that names its descriptor.
fn inspect(disk: &File, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).arg("/proc/self/fd/0").env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    command.stdin(disk.try_clone().unwrap()).output().unwrap()
}

#[test]
fn disk_holds_a_clean_file_system_of_its_size_without_a_journal() {
    let directory = tempfile::tempdir().unwrap();
    let disks = ScratchDisks::new(directory.path().join("templates"));

    let disk = disks.create(directory.path(), 64 * MIB).unwrap();

    assert_eq!(disk.metadata().unwrap().len(), 64 * MIB);
    let check = inspect(&disk, "e2fsck", &["-f", "-n"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    let header = inspect(&disk, "dumpe2fs", &["-h"]);
    let header = String::from_utf8(header.stdout).unwrap();
    assert!(header.contains("extent") && !header.contains("has_journal"), "{header}");
    assert!(header.lines().any(|line| line == "Block count:              16384"), "{header}");
}

#[test]
fn large_disk_takes_little_space_and_has_no_name() {
    let directory = tempfile::tempdir().unwrap();
    let templates = directory.path().join("templates");
    let place = directory.path().join("place");
    fs::create_dir(&place).unwrap();

    let disk = ScratchDisks::new(&templates).create(&place, 20 << 30).unwrap();

    let metadata = disk.metadata().unwrap();
    assert!(metadata.blocks() * 512 < MIB, "{} blocks", metadata.blocks());
    assert_eq!(metadata.nlink(), 0);
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    assert!(inspect(&disk, "e2fsck", &["-f", "-n"]).status.success());
}

#[test]
fn disks_are_separate_and_the_template_is_made_once() {
    let directory = tempfile::tempdir().unwrap();
    let disks = ScratchDisks::new(directory.path().join("templates"));
    let template = directory.path().join("templates/ext4-8388608.img");

    let first = disks.create(directory.path(), 8 * MIB).unwrap();
    let inode = fs::metadata(&template).unwrap().ino();
    first.write_all_at(&[0xff; 4096], 0).unwrap();
    let second = disks.create(directory.path(), 8 * MIB - 5).unwrap();

    assert!(inspect(&second, "e2fsck", &["-f", "-n"]).status.success());
    assert_eq!(fs::metadata(&template).unwrap().ino(), inode);
}

#[test]
fn senseless_sizes_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let disks = ScratchDisks::new(directory.path());

    for size in [0, 4096, LARGEST + 1, u64::MAX] {
        let error = disks.create(directory.path(), size).unwrap_err();
        assert!(matches!(error, DiskError::Size { .. }), "{error}");
    }
}

#[test]
fn smallest_disk_is_usable() {
    let directory = tempfile::tempdir().unwrap();

    let disk = ScratchDisks::new(directory.path()).create(directory.path(), SMALLEST).unwrap();

    assert!(inspect(&disk, "e2fsck", &["-f", "-n"]).status.success());
}

#[test]
fn directory_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");

    let error = ScratchDisks::new(directory.path()).create(&missing, 8 * MIB).unwrap_err();

    assert_eq!(
        error.to_string(),
        format!("creating a scratch disk of 8388608 bytes in {}", missing.display())
    );
}

#[test]
fn copy_keeps_holes_and_data() {
    let from = tempfile::tempfile().unwrap();
    let to = tempfile::tempfile().unwrap();
    for file in [&from, &to] {
        file.set_len(10 * MIB).unwrap();
    }
    from.write_all_at(&[3; 200_000], 5 * MIB).unwrap();
    from.write_all_at(b"end", 10 * MIB - 3).unwrap();

    copy_data(&from, &to).unwrap();

    let mut bytes = vec![0; 200_000];
    to.read_exact_at(&mut bytes, 5 * MIB).unwrap();
    assert_eq!(bytes, vec![3; 200_000]);
    to.read_exact_at(&mut bytes[..3], 10 * MIB - 3).unwrap();
    assert_eq!(&bytes[..3], b"end");
    assert!(to.metadata().unwrap().blocks() * 512 < MIB);
}
