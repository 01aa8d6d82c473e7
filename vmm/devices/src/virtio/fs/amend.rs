//! The two words that are changed in the server's replies, for mounts with id maps (`linux/fuse.h`).
//!
//! Linux makes an id-mapped mount of a FUSE file system only if the server says that it knows of them
//! (`FUSE_ALLOW_IDMAP`). What changes for the server is who a request comes from: with requests that make a file it is
//! the mapped user and group, with all others it is told nobody (-1), because the kernel has checked permissions itself
//! (`default_permissions`, which Linux always sets on virtio-fs). virtiofsd takes on a user only where it makes files,
//! and so is right without knowing it; it does not say so.
//!
//! Linux (6.12) lets no submount be id-mapped. Volumes are submounts, so that their inode numbers are apart; those that
//! are to be id-mapped, by their names, are none.
//!
//! Invariant: pure; nothing else is changed.

use super::request::{InHeader, OUT_HEADER, word};

const LOOKUP: u32 = 1;
const INIT: u32 = 26;

/// The root's node.
const ROOT: u64 = 1;

/// How the names of volumes begin that are to be id-mapped.
pub const MAPPED_PREFIX: u8 = b'm';

/// In `flags` of both directions: `flags2` is valid.
const INIT_EXT: u32 = 1 << 30;
/// `FUSE_ALLOW_IDMAP`, in `flags2`.
const ALLOW_IDMAP: u32 = 1 << (40 - 32);
/// `FUSE_ATTR_SUBMOUNT`.
const SUBMOUNT: u32 = 1 << 0;

/// `flags` and `flags2` of `struct fuse_init_in`, behind its header; of `struct fuse_init_out`.
const IN_FLAGS: usize = 12;
const IN_FLAGS2: usize = 16;
const OUT_FLAGS: usize = OUT_HEADER + 12;
const OUT_FLAGS2: usize = OUT_HEADER + 32;

/// `attr.flags` of `struct fuse_entry_out`.
const ENTRY_FLAGS: usize = OUT_HEADER + 40 + 84;

/// How many bytes of a request behind its header, and of a reply, are looked at.
pub(super) const LOOKED_AT: usize = 160;

/// Whether replies to such requests may have to be changed.
pub(super) fn concerns(header: &InHeader) -> bool {
    header.opcode == INIT || header.opcode == LOOKUP && header.node == ROOT
}

/// Changes `reply` to the request of `header`, whose first bytes behind the header are `request`.
pub(super) fn amend(header: &InHeader, request: &[u8], reply: &mut [u8]) {
    if header.opcode == INIT {
        let can = word(request, IN_FLAGS) & INIT_EXT != 0;
        if can && word(request, IN_FLAGS2) & ALLOW_IDMAP != 0 {
            let flags = word(reply, OUT_FLAGS);
            let more = if flags & INIT_EXT != 0 { word(reply, OUT_FLAGS2) } else { 0 };
            if set(reply, OUT_FLAGS2, more | ALLOW_IDMAP) {
                set(reply, OUT_FLAGS, flags | INIT_EXT);
            }
        }
    } else if concerns(header) && request.first() == Some(&MAPPED_PREFIX) {
        let flags = word(reply, ENTRY_FLAGS);
        set(reply, ENTRY_FLAGS, flags & !SUBMOUNT);
    }
}

/// Whether the word is there to be set.
fn set(bytes: &mut [u8], at: usize, value: u32) -> bool {
    match bytes.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut()) {
        Some(word) => {
            *word = value.to_le_bytes();
            true
        }
        None => false,
    }
}

#[cfg(test)]
#[path = "amend_test.rs"]
mod amend_test;
