//! Flags and options of mounts.
//!
//! Invariant: pure functions.

use nix::mount::MsFlags;
use nix::sys::statvfs::FsFlags;

/// All flags that set a propagation type.
pub(crate) const PROPAGATION: MsFlags = MsFlags::MS_SHARED
    .union(MsFlags::MS_SLAVE)
    .union(MsFlags::MS_PRIVATE)
    .union(MsFlags::MS_UNBINDABLE);

/// The flags of a mount in the plan. Those that mean another operation than a mount are left out.
pub(crate) fn flags(plan: u64) -> MsFlags {
    let bits = i32::try_from(plan & 0x7fff_ffff).unwrap_or(0);
    let flags = MsFlags::from_bits_retain(libc::c_ulong::from(bits.cast_unsigned()));
    flags.difference(PROPAGATION | MsFlags::MS_REMOUNT | MsFlags::MS_MOVE)
}

/// The propagation in the plan, or `None` if it names none.
pub(crate) fn propagation(plan: u64) -> Option<MsFlags> {
    let flags = MsFlags::from_bits_retain(plan);
    let wanted = flags.intersection(PROPAGATION | MsFlags::MS_REC);
    wanted.intersects(PROPAGATION).then_some(wanted)
}

/// What a bind mount must be remounted with, since the kernel ignores all but these flags at first;
/// `None` if there is nothing to change.
pub(crate) fn remount(flags: MsFlags) -> Option<MsFlags> {
    let rest = flags.difference(MsFlags::MS_BIND | MsFlags::MS_REC);
    (!rest.is_empty()).then_some(rest | MsFlags::MS_BIND | MsFlags::MS_REMOUNT)
}

/// The flags that a mount has already. A user namespace may not take them away.
pub(crate) fn present(flags: FsFlags) -> MsFlags {
    [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ]
    .into_iter()
    .filter(|(has, _)| flags.contains(*has))
    .fold(MsFlags::empty(), |all, (_, flag)| all | flag)
}

/// Options of a tmpfs whose mount point has the permission bits `mode`: it keeps them, unless the
/// options say otherwise, as with runc.
pub(crate) fn tmpfs(data: &[u8], mode: Option<u32>) -> Vec<u8> {
    let Some(mode) = mode else { return data.to_vec() };
    let mut options = format!("mode={:04o}", mode & 0o7777).into_bytes();
    if !data.is_empty() {
        options.push(b',');
        options.extend_from_slice(data);
    }
    options
}

#[cfg(test)]
#[path = "options_test.rs"]
mod options_test;
