//! The volumes of the pod's containers.
//!
//! Invariant: the file server is started once, with the first volume; a volume belongs to a client or to a container, and
//! goes with it.

use std::os::fd::OwnedFd;

use super::Shared;
use crate::control::{Failure, NewVolumes};
use crate::pod::place_beside_monitor;
use crate::volumes::{TAG, Volumes};

impl Shared {
    /// Mounts `trees`; the names that the guest finds them by. If one cannot be had, none is.
    pub(super) async fn mount(
        &self,
        new: NewVolumes,
        trees: Vec<OwnedFd>,
    ) -> Result<Vec<String>, Failure> {
        let failed = |error: std::io::Error| Failure::other(format!("mounting a volume: {error}"));
        let NewVolumes { server, mapped } = new;
        if trees.len() != mapped.len() {
            return Err(Failure::other("as many descriptors as volumes were expected"));
        }
        let mut volumes = self.volumes.lock().await;
        if volumes.is_none() {
            let state = self.state.borrow().as_ref().map(|state| state.path().to_owned());
            let state = state.ok_or_else(|| Failure::other("the pod ends"))?;
            let (started, server) = Volumes::start(server, &state).await.map_err(failed)?;
            place_beside_monitor(&state, &server.pids);
            self.pod.attach_fs(TAG, server.descriptors).await?;
            *volumes = Some(started);
        }
        let mut names = Vec::new();
        let Some(volumes) = volumes.as_mut() else { return Ok(names) };
        for (tree, mapped) in trees.into_iter().zip(mapped) {
            match volumes.add(tree, mapped).await {
                Ok(name) => names.push(name),
                Err(error) => {
                    names.into_iter().for_each(|name| volumes.remove(name));
                    return Err(failed(error));
                }
            }
        }
        Ok(names)
    }

    /// Unmounts volumes.
    pub(super) async fn unmount(&self, names: Vec<String>) {
        if let Some(volumes) = self.volumes.lock().await.as_ref() {
            names.into_iter().for_each(|name| volumes.remove(name));
        }
    }
}
