//! Layers and the scratch disk.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use anyhow::{Result, ensure};

use super::cases;
use crate::monitor::{Boot, KERNEL};
use crate::run::{Run, busybox_rootfs};

cases!("disks":
    sixty_four_mebibytes_come_back_unchanged,
    a_full_scratch_disk_is_an_ordinary_error,
    the_writable_side_may_be_memory,
    a_changed_root_file_system_is_noticed,
    special_files_come_through,
    the_monitor_reads_and_writes_disks,
    a_read_only_disk_refuses_writes,
);

fn sixty_four_mebibytes_come_back_unchanged() -> Result<()> {
    let script = "dd if=/dev/urandom of=/f bs=1M count=64 status=none; a=$(sha256sum < /f); sync; \
                  echo 3 > /proc/sys/vm/drop_caches 2>/dev/null; b=$(sha256sum < /f); \
                  test \"$a\" = \"$b\" && echo same; stat -c %s /f";
    Run::shell(script).output()?.exits(0)?.prints("same\n67108864").map(drop)
}

fn a_full_scratch_disk_is_an_ordinary_error() -> Result<()> {
    Run::shell("dd if=/dev/zero of=/f bs=1M count=64 status=none; rm /f; echo still here")
        .flags(&["--scratch", "32M"])
        .output()?
        .exits(0)?
        .prints("still here")?
        .complains("No space left on device")
        .map(drop)
}

fn the_writable_side_may_be_memory() -> Result<()> {
    Run::shell("echo x > /f && cat /f; ls /sys/block | grep -c vd")
        .flags(&["--scratch", "tmpfs"])
        .output()?
        .exits(0)?
        .prints("x\n1")
        .map(drop)
}

fn a_changed_root_file_system_is_noticed() -> Result<()> {
    let (_directory, root) = busybox_rootfs()?;
    fs::write(root.join("etc/version"), "one")?;
    let read = || Run::in_rootfs(&root, &["cat", "/etc/version"]).output()?.exits(0);
    read()?.prints("one")?;
    fs::write(root.join("etc/version"), "two")?;
    read()?.prints("two").map(drop)
}

fn special_files_come_through() -> Result<()> {
    let (_directory, root) = busybox_rootfs()?;
    let path = root.join("etc/special");
    fs::write(&path, "x")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6751))?;
    std::os::unix::fs::chown(&path, Some(70_000), Some(4_000_000_000))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6751))?;
    fs::hard_link(&path, root.join("etc/twin"))?;
    std::os::unix::fs::symlink("no/such/target", root.join("etc/link"))?;
    let name = root.join("etc").join(std::ffi::OsStr::new("sp ace\nünï"));
    fs::write(&name, "")?;
    let script = "stat -c '%a %u %g %h' /etc/special; readlink /etc/link; \
                  test /etc/special -ef /etc/twin && echo twins; cat \"/etc/sp ace\nünï\" && echo named";
    ensure!(fs::metadata(&path)?.uid() == 70_000);
    Run::in_rootfs(&root, &["sh", "-c", script])
        .output()?
        .exits(0)?
        .prints("6751 70000 4000000000 2\nno/such/target\ntwins\nnamed")
        .map(drop)
}

/// An empty disk of `mib` mebibytes.
fn disk(mib: u64) -> Result<tempfile::NamedTempFile> {
    let file = tempfile::NamedTempFile::new()?;
    file.as_file().set_len(mib << 20)?;
    Ok(file)
}

fn the_monitor_reads_and_writes_disks() -> Result<()> {
    let (a, b) = (disk(16)?, disk(8)?);
    let (first, second) = (a.path().display().to_string(), b.path().display().to_string());
    let flags = ["--disk", &first, "--disk", &second];
    Boot::new(KERNEL, "test.action=disk").flags(&flags).succeeds()?;
    ensure!(fs::read(a.path())?.iter().any(|&byte| byte != 0), "nothing was written to {first}");
    Ok(())
}

fn a_read_only_disk_refuses_writes() -> Result<()> {
    let file = disk(8)?;
    let flag = format!("{}:ro", file.path().display());
    // The guest finds it read-only, and only reads.
    Boot::new(KERNEL, "test.action=disk").flags(&["--disk", &flag]).succeeds()?;
    ensure!(fs::read(file.path())?.iter().all(|&byte| byte == 0), "the disk was written");
    Ok(())
}
