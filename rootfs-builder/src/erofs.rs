//! The command line of `mkfs.erofs`, versions 1.5 (Debian 12) to 1.8 (Debian 13).
//!
//! Images are uncompressed, so that reading one is a copy out of the host's page cache. All of a file comes
//! along by default: owner, mode, times, extended attributes and ACLs, device nodes, hard links.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::fingerprint::Tree;
use crate::tool::Tool;

/// The program.
pub(crate) const MKFS: Tool = Tool { program: "mkfs.erofs", package: "erofs-utils" };

/// Holes of all files together, in bytes, from which on it pays not to write them.
const HOLES_WORTH_KEEPING: u64 = 16 << 20;

/// The unit in which holes are kept: the block of the file system, so that no small file grows.
const CHUNK: &str = "--chunksize=4096";

/// Arguments that make an image of the directory `root`, which holds `tree`, at `image`.
pub(crate) fn arguments(tree: &Tree, root: &Path, image: &Path) -> Vec<OsString> {
    let mut arguments: Vec<&OsStr> = vec![OsStr::new("--quiet")];
    // Without chunks a hole is written as zeros; with them, every file has a table of its blocks.
    if tree.holes >= HOLES_WORTH_KEEPING {
        arguments.push(OsStr::new(CHUNK));
    }
    arguments.push(image.as_os_str());
    arguments.push(root.as_os_str());
    arguments.into_iter().map(OsStr::to_owned).collect()
}
