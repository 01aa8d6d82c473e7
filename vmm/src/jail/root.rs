//! A root without a file.
//!
//! Invariant: afterwards no mount of the host is in this process's mount namespace.

use std::io;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, pivot_root};

/// Where the empty file system is put for a moment: `/dev` is there wherever `/dev/kvm` was.
const PLACE: &str = "/dev";

/// Makes an empty, read-only file system the root, and leaves all others.
pub(super) fn empty() -> io::Result<()> {
    const NOTHING: Option<&str> = None;
    umask(Mode::from_bits_truncate(0o777));
    // What happens here is not to be seen outside.
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // The one inode is the root directory.
    let options = Some("size=4k,nr_inodes=1,mode=555");
    mount(Some("empty"), PLACE, Some("tmpfs"), flags, options)?;
    chdir(PLACE)?;
    // The old root comes to lie on top of the new one, and is taken away (pivot_root(2), NOTES).
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    Ok(())
}
