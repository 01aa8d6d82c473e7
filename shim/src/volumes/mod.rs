//! Directories and files of the host that the containers of a pod see as they are: volumes.
//!
//! ```text
//! command       place: found once, by a descriptor ─► tree: a copy of the mount, attached nowhere
//!                                                          │ passed on
//! supervisor    keeper: a thread in a mount namespace of its own
//!                 /root           read-only; all that the file server sees
//!                 /root/NAME      a volume, mounted here
//!               virtiofsd: in a namespace that gets what is mounted there
//! ```
//!
//! Invariant: there is one file server for a pod, and only if it has a volume; what it sees is what was mounted for it.
//! It ends with the supervisor, and nothing of it is in the host's mount namespace.

mod handshake;
mod keeper;
mod place;
mod server;

use std::path::{Path, PathBuf};

use cofferdam_vmm_api::is_privileged;

pub use place::Place;
pub(crate) use place::{Wish, tree};
pub(crate) use server::Volumes;

/// What the guest mounts the file system of its volumes by.
pub(crate) const TAG: &str = "volumes";

/// How the names of volumes begin that are to be id-mapped. The monitor has the guest see them as directories of one
/// file system, because Linux maps no other.
const MAPPED_PREFIX: char = 'm';

/// Where Debian has the file server.
const PROGRAMS: [&str; 3] =
    ["/usr/libexec/virtiofsd", "/usr/local/libexec/virtiofsd", "/usr/lib/virtiofsd"];

/// What installs it.
pub(crate) const REMEDY: &str = "apt-get install virtiofsd (Debian 13 and later)";

/// The file server, or why this host can have no volumes.
///
/// # Errors
/// In words.
pub fn server_program() -> Result<PathBuf, String> {
    if !is_privileged() {
        return Err("only root can give a pod directories of the host".to_owned());
    }
    program().ok_or_else(|| format!("this host lacks the program virtiofsd: {REMEDY}"))
}

/// The file server, if it is there.
pub(crate) fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|directory| directory.join("virtiofsd"));
    let executable = |path: &PathBuf| {
        path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    PROGRAMS.iter().map(Path::new).map(Path::to_owned).chain(in_path).find(executable)
}
