//! Tests of EROFS images, with the real `mkfs.erofs`; read back with `fsck.erofs`.

use std::fs;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Uid, mkfifo};

use super::*;

/// Unpacks `image` into a new directory.
fn extract(image: &Path) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("out");
    let output = Command::new("fsck.erofs")
        .arg(format!("--extract={}", to.display()))
        .arg(image)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    directory
}

/// An image mounted by this machine's kernel, until it is dropped.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// `None` where the kernel has no EROFS or no loop devices.
    fn new(image: &Path) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "erofs", "-o", "loop,ro"]).arg(image).arg(place.path());
        mount.output().unwrap().status.success().then_some(Self(place))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0.path()).status().unwrap();
    }
}

/// A cache and a directory to make images of.
fn setup() -> (tempfile::TempDir, LayerCache, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    let cache = LayerCache::new(directory.path().join("cache"));
    (directory, cache, root)
}

#[test]
fn image_holds_files_links_modes_and_owners() {
    let (_directory, cache, root) = setup();
    fs::create_dir(root.join("bin")).unwrap();
    fs::write(root.join("bin/tool"), vec![7; 100_000]).unwrap();
    fs::set_permissions(root.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("bin/tool"), root.join("bin/hard")).unwrap();
    symlink("tool", root.join("bin/soft")).unwrap();
    mkfifo(&root.join("pipe"), Mode::from_bits_truncate(0o640)).unwrap();
    let is_root = Uid::effective().is_root();
    if is_root {
        let null = root.join("null");
        mknod(&null, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
        std::os::unix::fs::chown(root.join("bin/tool"), Some(100_000), Some(70_000)).unwrap();
        fs::set_permissions(root.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    }

    let layer = cache.layer(&root, |_| {}).unwrap();

    let extracted = extract(&layer.path);
    let mounted = is_root.then(|| Mounted::new(&layer.path)).flatten();
    let out = mounted.as_ref().map_or(extracted.path().join("out"), |m| m.0.path().to_owned());
    let tool = fs::metadata(out.join("bin/tool")).unwrap();
    assert_eq!(fs::read(out.join("bin/hard")).unwrap(), vec![7; 100_000]);
    assert_eq!(fs::read_link(out.join("bin/soft")).unwrap(), Path::new("tool"));
    assert!(fs::metadata(out.join("pipe")).unwrap().file_type().is_fifo());
    if is_root {
        assert_eq!((tool.uid(), tool.gid(), tool.mode() & 0o777), (100_000, 70_000, 0o755));
        assert_eq!(fs::metadata(out.join("null")).unwrap().rdev(), makedev(1, 3));
    }
    if mounted.is_some() {
        // fsck.erofs loses this bit and makes copies of links.
        assert_eq!(tool.mode() & 0o7777, 0o4755);
        assert_eq!(tool.ino(), fs::metadata(out.join("bin/hard")).unwrap().ino());
    }
}

#[test]
fn same_directory_is_read_once_and_a_changed_one_again() {
    let (_directory, cache, root) = setup();
    fs::write(root.join("file"), "one").unwrap();
    let first = cache.layer(&root, |_| {}).unwrap();

    let again = cache.layer(&root, |_| panic!("made again")).unwrap();
    fs::write(root.join("file"), "two").unwrap();
    let changed = cache.layer(&root, |_| {}).unwrap();

    assert_eq!(first.path, again.path);
    assert_eq!(first.file.metadata().unwrap().ino(), again.file.metadata().unwrap().ino());
    assert_ne!(first.fingerprint, changed.fingerprint);
    assert_eq!(fs::read(extract(&changed.path).path().join("out/file")).unwrap(), b"two");
}

#[test]
fn holes_are_not_written() {
    let (_directory, cache, root) = setup();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"middle", 32 << 20).unwrap();
    // fsck.erofs 1.8 cuts a hole at the end off when it unpacks; the image has it.
    sparse.write_all_at(b"end", (64 << 20) - 3).unwrap();
    fs::write(root.join("small"), "small").unwrap();

    let layer = cache.layer(&root, |_| {}).unwrap();

    assert!(layer.file.metadata().unwrap().len() < 1 << 20);
    let out = extract(&layer.path);
    let copy = fs::read(out.path().join("out/sparse")).unwrap();
    assert_eq!(copy.len(), 64 << 20);
    assert_eq!(&copy[32 << 20..][..6], b"middle");
    assert_eq!(copy.iter().filter(|byte| **byte != 0).count(), 9);
    assert_eq!(fs::read(out.path().join("out/small")).unwrap(), b"small");
}

#[test]
fn builders_of_the_same_directory_share_one_image() {
    let (_directory, cache, root) = setup();
    fs::write(root.join("file"), vec![1; 1 << 20]).unwrap();

    let inodes: Vec<u64> = thread::scope(|scope| {
        let layer = || cache.layer(&root, |_| {}).unwrap().file.metadata().unwrap().ino();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(layer)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });

    assert!(inodes.iter().all(|inode| *inode == inodes[0]));
    assert_eq!(fs::read_dir(root.parent().unwrap().join("cache")).unwrap().count(), 1);
}

#[test]
fn directory_that_changes_while_it_is_read_is_refused_and_leaves_nothing() {
    let (_directory, cache, root) = setup();
    fs::write(root.join("big"), vec![1; 20 << 20]).unwrap();
    let done = AtomicBool::new(false);

    // Somebody changes it all the time: how often progress is told depends on the machine.
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::File::options().write(true).open(root.join("big")).unwrap();
            for count in 0.. {
                file.set_modified(UNIX_EPOCH + Duration::from_secs(count)).unwrap();
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let outcome = cache.layer(&root, |_| {});
        done.store(true, Ordering::Relaxed);
        outcome.unwrap_err()
    });

    assert!(matches!(error, LayerError::Changing { .. }), "{error}");
    assert_eq!(fs::read_dir(root.parent().unwrap().join("cache")).unwrap().count(), 0);
}

#[test]
fn progress_stays_within_its_total() {
    let (_directory, cache, root) = setup();
    fs::write(root.join("big"), vec![1; 20 << 20]).unwrap();
    let mut seen = Vec::new();

    cache.layer(&root, |progress| seen.push(progress)).unwrap();

    assert!(seen.iter().all(|progress| progress.written <= progress.total));
    assert!(seen.iter().all(|progress| progress.total == 20 << 20));
}

#[test]
fn missing_directory_is_named() {
    let (_directory, cache, root) = setup();

    let error = cache.layer(&root.join("none"), |_| {}).unwrap_err();

    assert!(error.to_string().ends_with("root/none"), "{error}");
}
