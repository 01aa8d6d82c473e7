//! A pod's machine while it runs: how large it is, and whether it stands still.
//!
//! Invariant: nothing here waits for the guest without a limit that the caller knows.

use cofferdam_agent_protocol::{request, response};
use cofferdam_vmm_api::{FromMonitor, ToMonitor};

use super::Pod;
use super::actor::Command;
use super::error::{Cause, PodError};

impl Pod {
    /// Has the guest use this many of its vCPUs, from 1 to the most that its machine can have; gives how many are
    /// online.
    ///
    /// # Errors
    /// The agent's, which names the CPU that stays as it was, or why the pod failed.
    pub async fn set_cpus(&self, online: u8) -> Result<u8, PodError> {
        let wanted = request::SetCpus { online: online.into() };
        let wrong = || PodError { stage: None, cause: Cause::WrongAnswer("set_cpus") };
        match self.request(request::Body::SetCpus(wanted)).await? {
            response::Body::Cpus(cpus) => u8::try_from(cpus.online).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }

    /// Lets no vCPU run, parked ones neither.
    ///
    /// # Errors
    /// Why the pod failed.
    pub async fn pause_machine(&self) -> Result<(), PodError> {
        match self.ask_monitor(ToMonitor::Pause).await? {
            FromMonitor::Paused => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Undoes [`Pod::pause_machine`].
    ///
    /// # Errors
    /// Why the pod failed.
    pub async fn resume_machine(&self) -> Result<(), PodError> {
        match self.ask_monitor(ToMonitor::Resume).await? {
            FromMonitor::Resumed => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask_monitor(&self, message: ToMonitor) -> Result<FromMonitor, PodError> {
        self.command(|reply| Command::Tell { message, fds: Vec::new(), reply }).await
    }
}

/// An answer that does not fit the question.
fn unexpected(answer: &FromMonitor) -> PodError {
    PodError { stage: None, cause: Cause::Monitor(format!("it answered {answer:?}")) }
}

#[cfg(test)]
#[path = "machine_test.rs"]
mod machine_test;
