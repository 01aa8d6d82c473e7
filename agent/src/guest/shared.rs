//! Memory that the containers of a pod share: a tmpfs for each name, such as the `/dev/shm` of all of them.
//!
//! Invariant: one that was made stays as long as the guest: what one container left in it, the next finds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cofferdam_agent_protocol::{Mount, MountKind};
use nix::mount::{MsFlags, mount};

use super::Place;
use super::disks::make_dir;
use crate::error::{Context, Failure, Result, show};

/// Most of them in a pod.
const MOST: usize = 64;

/// Those that there are, by their names.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    made: BTreeMap<Vec<u8>, PathBuf>,
}

impl Shared {
    /// Makes what `mounts` name and is not there, and has each be a bind mount of it.
    ///
    /// # Errors
    /// Those of `mount(2)`.
    pub(crate) fn provide(&mut self, place: &Place, mounts: &mut [Mount]) -> Result<()> {
        let shared = mounts.iter_mut().filter(|mount| mount.kind() == MountKind::Shared);
        for plan in shared {
            let path = match self.made.get(&plan.source) {
                Some(path) => path.clone(),
                None => self.make(place, plan)?,
            };
            plan.kind = MountKind::Bind.into();
            plan.source = path.into_os_string().into_encoded_bytes();
            plan.data.clear();
        }
        Ok(())
    }

    fn make(&mut self, place: &Place, plan: &Mount) -> Result<PathBuf> {
        let count = self.made.len();
        if count >= MOST {
            return Err(Failure::unsupported(format!("more than {MOST} shared mounts")));
        }
        let path = place.run.join("shared").join(count.to_string());
        make_dir(&path, 0o755)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let data = Some(plan.data.as_slice());
        mount(Some("shm"), &path, Some("tmpfs"), flags, data)
            .context(|| format!("mounting memory to share at {}", show(&plan.destination)))?;
        self.made.insert(plan.source.clone(), path.clone());
        Ok(path)
    }
}
