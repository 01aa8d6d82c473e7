//! The machine's size, as containers come, change and go.
//!
//! ```text
//! a container comes, or wants more:  noted ──► grown ──► created           not grown: forgotten, an error
//! a container goes, or wants less:   forgotten ──► shrunk, in the background
//! ```
//!
//! Invariant: one change at a time. To shrink holds up nobody: whoever wants another size interrupts it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use cofferdam_agent_protocol::CgroupSetting;
use cofferdam_vmm_api::MiB;
use tokio::sync::{Mutex, Notify};

use super::Shared;
use crate::control::Failure;
use crate::oci::Needs;
use crate::pod::{Cause, Pod, PodError};
use crate::room::Room;
use crate::sizing::Size;

/// How long a guest that is to take more memory may stand still.
const TAKES_WITHIN: Duration = Duration::from_secs(30);

/// The same of one that is to give memory back: its kernel may have to move every page of it.
const GIVES_WITHIN: Duration = Duration::from_secs(60);

/// What changes the size of a machine.
pub(super) trait Resize {
    /// See [`Pod::set_cpus`].
    async fn cpus(&self, online: u8) -> Result<u8, PodError>;
    /// See [`Pod::grow_memory`].
    async fn more_memory(&self, wanted: MiB) -> Result<MiB, PodError>;
    /// See [`Pod::set_memory`].
    async fn less_memory(&self, wanted: MiB) -> Result<MiB, PodError>;
}

impl Resize for Pod {
    async fn cpus(&self, online: u8) -> Result<u8, PodError> {
        self.set_cpus(online).await
    }

    async fn more_memory(&self, wanted: MiB) -> Result<MiB, PodError> {
        self.grow_memory(wanted, TAKES_WITHIN).await
    }

    async fn less_memory(&self, wanted: MiB) -> Result<MiB, PodError> {
        self.set_memory(wanted, GIVES_WITHIN).await
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Sizer {
    room: Room,
    /// What the living containers that joined ask for.
    needs: RefCell<BTreeMap<String, Needs>>,
    /// What was asked of the machine.
    asked: Mutex<Asked>,
    /// Told when another size is wanted.
    changed: Notify,
    /// Somebody shrinks it.
    shrinking: Cell<bool>,
}

/// What was asked of the machine last.
#[derive(Debug)]
struct Asked {
    size: Size,
    /// It may have more memory.
    more: bool,
}

impl Sizer {
    /// Of a machine that has just started.
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            needs: RefCell::default(),
            asked: Mutex::new(Asked { size: room.boot, more: false }),
            changed: Notify::new(),
            shrinking: Cell::new(false),
        }
    }

    fn wanted(&self) -> Size {
        self.room.size(self.needs.borrow().values())
    }

    /// What a container asks for, if it counts.
    fn needs_of(&self, id: &str) -> Option<Needs> {
        self.needs.borrow().get(id).copied()
    }

    /// Notes what a container asks for; nothing, if it has gone.
    fn note(&self, id: &str, needs: Option<Needs>) {
        let mut all = self.needs.borrow_mut();
        match needs {
            Some(needs) => all.insert(id.to_owned(), needs),
            None => all.remove(id),
        };
        drop(all);
        self.changed.notify_waiters();
    }

    /// Makes the machine as large as it is to be with what the container `id` asks for.
    ///
    /// # Errors
    /// It does not become so large. Then the container asks for what it asked before.
    pub(super) async fn grow(
        &self,
        machine: &impl Resize,
        id: &str,
        needs: Needs,
    ) -> Result<(), Failure> {
        if !self.room.grows() {
            return Ok(());
        }
        let before = self.needs_of(id);
        self.note(id, Some(needs));
        let mut asked = self.asked.lock().await;
        let (from, wanted) = (asked.size, self.wanted());
        let grown = async {
            if wanted.memory > from.memory {
                machine.more_memory(wanted.memory).await?;
                asked.size.memory = wanted.memory;
            }
            if wanted.vcpus > from.vcpus {
                asked.size.vcpus = machine.cpus(wanted.vcpus).await?;
            }
            Ok::<(), PodError>(())
        };
        grown.await.map_err(|error| {
            asked.more = true;
            self.note(id, before);
            Failure::other(format!(
                "making the pod's machine larger for the container {id}, from {} and {} vCPUs to {} and {}: {error}",
                from.memory, from.vcpus, wanted.memory, wanted.vcpus
            ))
        })
    }

    /// Makes the machine as small as it may be. Of a guest that does not see to it there is a line in the log, no more.
    async fn shrink(&self, machine: &impl Resize) {
        loop {
            let mut asked = self.asked.lock().await;
            let wanted = self.wanted();
            if wanted.vcpus < asked.size.vcpus {
                asked.size.vcpus = wanted.vcpus;
                if let Err(error) = machine.cpus(wanted.vcpus).await {
                    complain(&error, "the machine keeps its vCPUs");
                }
                // Another size may be wanted by now.
                continue;
            }
            if wanted.memory >= asked.size.memory && !asked.more {
                return;
            }
            asked.size.memory = asked.size.memory.min(wanted.memory);
            asked.more = true;
            tokio::select! {
                given = machine.less_memory(asked.size.memory) => {
                    asked.more = false;
                    if let Err(error) = given {
                        complain(&error, "the machine keeps some of its memory");
                    }
                }
                () = self.changed.notified() => {}
            }
        }
    }
}

/// Says in the log that the machine did not become smaller.
fn complain(error: &PodError, what: &str) {
    if error.cause == Cause::Stopped {
        return;
    }
    tracing::warn!(%error, "{what}");
}

impl Shared {
    /// Makes room for a container that joins the pod.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn make_room(self: &Rc<Self>, id: &str, needs: Needs) -> Result<(), Failure> {
        let grown = self.sizer.grow(&self.pod, id, needs).await;
        if grown.is_err() {
            self.fit();
        }
        grown
    }

    /// A container that had joined asks for nothing any more.
    pub(super) fn leave_room(self: &Rc<Self>, id: &str) {
        if self.sizer.needs_of(id).is_some() {
            self.sizer.note(id, None);
            self.fit();
        }
    }

    /// Makes the machine smaller in the background, if it may be.
    fn fit(self: &Rc<Self>) {
        if self.sizer.shrinking.replace(true) {
            return;
        }
        let shared = self.clone();
        tokio::task::spawn_local(async move {
            shared.sizer.shrink(&shared.pod).await;
            shared.sizer.shrinking.set(false);
        });
    }

    /// Writes files of a container's control group, in a machine that fits what it asks for from then on.
    ///
    /// # Errors
    /// The machine does not become larger, or the guest's.
    pub(super) async fn update(
        self: &Rc<Self>,
        id: &str,
        settings: Vec<CgroupSetting>,
        needs: Needs,
    ) -> Result<(), Failure> {
        let before = self.sizer.needs_of(id);
        if before.is_some() {
            self.make_room(id, needs).await?;
        }
        let updated = if self.is_vacant(id) {
            // Its limits are the machine's size.
            Ok(())
        } else {
            self.pod.update(id, settings).await
        };
        // It may have ended meanwhile.
        if updated.is_err() && self.sizer.needs_of(id).is_some() {
            self.sizer.note(id, before);
        }
        if before.is_some() {
            self.fit();
        }
        Ok(updated?)
    }
}

#[cfg(test)]
#[path = "sizer_test.rs"]
mod sizer_test;
