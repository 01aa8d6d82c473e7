//! Memory that the containers of a pod share: a tmpfs for each name, such as the `/dev/shm` of all of them.
//!
//! Invariant: one that was made stays until the last container that names it is deleted: what one left in it, the next
//! finds as long as there is one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cofferdam_agent_protocol::{Mount, MountKind};
use nix::mount::{MsFlags, mount};

use super::Place;
use super::disks::{detach, make_dir};
use crate::error::{Context, Failure, Result, show};

/// Most of them in a pod.
const MOST: usize = 64;

/// The names of those that a container uses, one for each use.
pub(crate) type Names = Vec<Vec<u8>>;

/// One of them.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    users: usize,
}

/// Those that there are, by their names.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    made: BTreeMap<Vec<u8>, Made>,
    /// How many there have ever been.
    count: usize,
}

impl Shared {
    /// Makes what `mounts` name and is not there, and has each be a bind mount of it. The names are those to
    /// [`Self::release`].
    ///
    /// # Errors
    /// Those of `mount(2)`; nothing is used then.
    pub(crate) fn provide(&mut self, place: &Place, mounts: &mut [Mount]) -> Result<Names> {
        let mut used = Names::new();
        let shared = mounts.iter_mut().filter(|mount| mount.kind() == MountKind::Shared);
        for plan in shared {
            let path = match self.take(place, plan) {
                Ok(path) => path,
                Err(failure) => {
                    self.release(&used);
                    return Err(failure);
                }
            };
            used.push(std::mem::take(&mut plan.source));
            plan.kind = MountKind::Bind.into();
            plan.source = path.into_os_string().into_encoded_bytes();
            plan.data.clear();
        }
        Ok(used)
    }

    /// One user less for each of `names`. What nobody uses any more is unmounted.
    pub(crate) fn release(&mut self, names: &Names) {
        for name in names {
            let Some(made) = self.made.get_mut(name) else { continue };
            made.users = made.users.saturating_sub(1);
            if made.users == 0 && detach(&made.path) {
                if let Err(error) = std::fs::remove_dir(&made.path) {
                    crate::log!("removing {}: {error}", made.path.display());
                }
                self.made.remove(name);
            }
        }
    }

    /// The path of what `plan` names, with one user more.
    fn take(&mut self, place: &Place, plan: &Mount) -> Result<PathBuf> {
        if let Some(made) = self.made.get_mut(&plan.source) {
            made.users += 1;
            return Ok(made.path.clone());
        }
        if self.made.len() >= MOST {
            return Err(Failure::unsupported(format!("more than {MOST} shared mounts")));
        }
        let path = place.run.join("shared").join(self.count.to_string());
        self.count += 1;
        make_dir(&path, 0o755)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let data = Some(plan.data.as_slice());
        mount(Some("shm"), &path, Some("tmpfs"), flags, data)
            .context(|| format!("mounting memory to share at {}", show(&plan.destination)))?;
        self.made.insert(plan.source.clone(), Made { path: path.clone(), users: 1 });
        Ok(path)
    }
}
