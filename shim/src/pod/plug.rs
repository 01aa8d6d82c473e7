//! Disks that come to and go from a running pod.
//!
//! ```text
//! attach:  monitor: on the bus ──► agent: found, serial number right ──► usable
//! detach:  agent: not mounted, let go of ──► monitor: off the bus
//! ```
//!
//! Invariant: one change of the bus at a time; a disk that was not found by the guest, or is not the one it was
//! told to expect, is off the bus again when [`Pod::attach`] returns.

use std::fs::File;
use std::future::Future;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use cofferdam_agent_protocol::request;
use cofferdam_vmm_api::{Bdf, DiskSpec, FdSlot, FromMonitor, NewDevice, ToMonitor};

use super::actor::Command;
use super::{Cause, Pod, PodError, stream};

/// How long the guest may take for a change of the bus. Its agent gives up after ten seconds.
const WITHIN: Duration = Duration::from_secs(60);

/// A disk to be attached.
#[derive(Debug)]
pub struct NewDisk {
    /// A regular file or block device, of whole sectors.
    pub file: File,
    /// The guest may not write.
    pub readonly: bool,
}

impl Pod {
    /// Attaches disks to the running machine, and waits until the guest has found them all: their addresses, in
    /// order. If one cannot be had, none is attached.
    ///
    /// Not to be cancelled: disks that are on the bus by then would stay there.
    ///
    /// # Errors
    /// [`Cause::Plug`] says which step failed and why.
    pub async fn attach(&self, disks: Vec<NewDisk>) -> Result<Vec<Bdf>, PodError> {
        let _one_at_a_time = self.plugging.lock().await;
        let mut expected = Vec::with_capacity(disks.len());
        let attached = self.attach_to_machine(disks, &mut expected).await;
        let found = match attached {
            Ok(()) => {
                let expect = request::Expect { disks: expected.clone() };
                let found = self.done(request::Body::Expect(expect), "expect");
                in_time("waiting for the guest to find a disk", found).await
            }
            Err(error) => Err(error),
        };
        let addresses: Vec<_> = expected.iter().filter_map(|disk| bdf(disk.address)).collect();
        match found {
            Ok(()) => Ok(addresses),
            Err(error) => {
                // The failure to tell is the first one.
                if !addresses.is_empty() {
                    let _ = self.let_go(&addresses).await;
                    let _ = self.take_away(&addresses).await;
                }
                Err(error)
            }
        }
    }

    /// Detaches disks, none of which may be mounted, from guest and machine.
    ///
    /// # Errors
    /// [`Cause::Plug`]. If the guest does not let go of all of them, all stay.
    pub async fn detach(&self, disks: &[Bdf]) -> Result<(), PodError> {
        let _one_at_a_time = self.plugging.lock().await;
        self.let_go(disks).await?;
        self.take_away(disks).await.map(drop)
    }

    /// Takes disks away from a guest that does not let go of them: what it reads and writes there from now on it
    /// waits for in vain, and their addresses are not used again. Whether it used any.
    ///
    /// # Errors
    /// [`Cause::Plug`].
    pub async fn detach_by_force(&self, disks: &[Bdf]) -> Result<bool, PodError> {
        let _one_at_a_time = self.plugging.lock().await;
        self.take_away(disks).await
    }

    /// Puts disks on the bus; in `expected` is what the guest has to find, also after a failure half-way.
    async fn attach_to_machine(
        &self,
        disks: Vec<NewDisk>,
        expected: &mut Vec<request::Disk>,
    ) -> Result<(), PodError> {
        let step = "attaching a disk to the machine";
        for NewDisk { mut file, readonly } in disks {
            let refused_here =
                |error: io::Error| plug(step)(failed(Cause::Unfit(error.to_string())));
            let bytes = size(&mut file).map_err(refused_here)?;
            let serial = format!("hot-{:016x}", stream::token().map_err(refused_here)?);
            let disk = DiskSpec { file: FdSlot(0), readonly, serial: serial.clone() };
            let message = ToMonitor::Attach(NewDevice::Disk { disk, bytes });
            let fds = vec![file.into()];
            let tell = |reply| Command::Tell { message, fds, reply };
            match self.command(tell).await.map_err(plug(step))? {
                FromMonitor::Attached(address) => {
                    expected.push(request::Disk { address: address.0.into(), serial });
                }
                other => return Err(plug(step)(refused(other))),
            }
        }
        Ok(())
    }

    async fn let_go(&self, disks: &[Bdf]) -> Result<(), PodError> {
        let addresses = disks.iter().map(|address| address.0.into()).collect();
        let release = request::Release { addresses };
        let released = self.done(request::Body::Release(release), "release");
        in_time("waiting for the guest to let go of a disk", released).await
    }

    /// Takes disks off the bus; whether the guest used any.
    async fn take_away(&self, disks: &[Bdf]) -> Result<bool, PodError> {
        let step = "detaching a disk from the machine";
        let mut used = false;
        for address in disks {
            let message = ToMonitor::Detach(*address);
            let tell = |reply| Command::Tell { message, fds: Vec::new(), reply };
            match self.command(tell).await.map_err(plug(step))? {
                FromMonitor::Detached { in_use, .. } => used |= in_use,
                other => return Err(plug(step)(refused(other))),
            }
        }
        Ok(used)
    }
}

/// The size in bytes of a regular file or block device, which a confined monitor could not ask for.
fn size(file: &mut File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok(metadata.len())
    } else if metadata.file_type().is_block_device() {
        file.seek(SeekFrom::End(0))
    } else {
        Err(io::Error::other("a disk must be a regular file or a block device"))
    }
}

/// What comes of `change` in time.
async fn in_time(
    step: &'static str,
    change: impl Future<Output = Result<(), PodError>>,
) -> Result<(), PodError> {
    let late = || failed(Cause::AgentLost(format!("no answer within {} s", WITHIN.as_secs())));
    match tokio::time::timeout(WITHIN, change).await {
        Ok(outcome) => outcome.map_err(plug(step)),
        Err(_) => Err(plug(step)(late())),
    }
}

fn plug(step: &'static str) -> impl Fn(PodError) -> PodError {
    move |PodError { stage, cause }| PodError {
        stage,
        cause: Cause::Plug { step, cause: Box::new(cause) },
    }
}

fn refused(answer: FromMonitor) -> PodError {
    failed(match answer {
        FromMonitor::Refused(why) => Cause::Unfit(format!("the monitor refused it: {why}")),
        other => Cause::Monitor(format!("it answers {other:?}")),
    })
}

fn failed(cause: Cause) -> PodError {
    PodError { stage: None, cause }
}

/// An address that came from the monitor as one.
fn bdf(address: u32) -> Option<Bdf> {
    u16::try_from(address).ok().map(Bdf)
}
