//! A pod's machine while it runs: how large it is, and whether it stands still.
//!
//! Invariant: nothing here waits for the guest without a limit that the caller knows.

use std::time::Duration;

use cofferdam_agent_protocol::{request, response};
use cofferdam_vmm_api::{FromMonitor, MemoryState, MiB, ToMonitor};
use tokio::time::{Instant, sleep};

use super::Pod;
use super::error::{Cause, PodError};

/// How often the guest's memory is looked at while it changes.
const LOOK: Duration = Duration::from_millis(20);

/// How much longer than it may stand still a guest may take in all.
const IN_ALL: u32 = 10;

/// When a guest that has found no memory to give back is asked again: by itself it would try after most of a minute.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Pod {
    /// Has the guest use this many of its vCPUs, from 1 to the most that its machine can have; gives how many are
    /// online.
    ///
    /// # Errors
    /// The agent's, which names the CPU that stays as it was, or why the pod failed.
    pub async fn set_cpus(&self, online: u8) -> Result<u8, PodError> {
        let _one_at_a_time = self.resizing.lock().await;
        let wanted = request::SetCpus { online: online.into() };
        match self.request(request::Body::SetCpus(wanted)).await? {
            response::Body::Cpus(cpus) if cpus.online == u32::from(online) => Ok(online),
            _ => Err(PodError { stage: None, cause: Cause::WrongAnswer("set_cpus") }),
        }
    }

    /// Has the guest use `wanted` of memory, from what its machine started with to the most that it can have, and waits
    /// until it does, but no longer than `patience` after it has last come closer, and ten times that in all. Memory comes
    /// and goes in blocks of 2 MiB: an odd size is rounded up. The guest's kernel brings what it has taken online a moment
    /// later.
    ///
    /// A guest may have nothing to give back: what cannot be moved stays. It then goes on trying, and has what the
    /// error says.
    ///
    /// # Errors
    /// The monitor's, [`Cause::Memory`] with how far the guest got, or why the pod failed.
    pub async fn set_memory(&self, wanted: MiB, patience: Duration) -> Result<MiB, PodError> {
        let there = |state: MemoryState| state.present == state.wanted;
        self.memory_until(there, wanted, patience).await
    }

    /// As [`Pod::set_memory`], for more memory: what the guest has beyond `wanted`, because it is giving it back, is not
    /// waited for.
    ///
    /// # Errors
    /// As [`Pod::set_memory`].
    pub async fn grow_memory(&self, wanted: MiB, patience: Duration) -> Result<MiB, PodError> {
        self.memory_until(|state| state.present >= wanted, wanted, patience).await
    }

    /// Has the guest use `wanted` of memory, and waits until it is `there`.
    async fn memory_until(
        &self,
        there: impl Fn(MemoryState) -> bool,
        wanted: MiB,
        patience: Duration,
    ) -> Result<MiB, PodError> {
        let _one_at_a_time = self.resizing.lock().await;
        let started = Instant::now();
        let (mut closer, mut asked) = (started, started);
        let mut state = self.memory(ToMonitor::SetMemory(wanted)).await?;
        let missing = |state: MemoryState| state.present.0.abs_diff(state.wanted.0);
        let mut nearest = missing(state);
        while !there(state) {
            let limits = [(closer, patience), (started, patience * IN_ALL)];
            let passed = limits.iter().find(|(since, limit)| since.elapsed() >= *limit);
            if let Some((_, limit)) = passed {
                let MemoryState { present, wanted } = state;
                let cause = Cause::Memory { present, wanted, seconds: limit.as_secs() };
                return Err(PodError { stage: None, cause });
            }
            sleep(LOOK).await;
            let again = asked.elapsed() >= ASK_AGAIN;
            if again {
                asked = Instant::now();
            }
            let ask = if again { ToMonitor::SetMemory(wanted) } else { ToMonitor::Memory };
            state = self.memory(ask).await?;
            if missing(state) < nearest {
                (nearest, closer) = (missing(state), Instant::now());
            }
        }
        Ok(state.present)
    }

    async fn memory(&self, ask: ToMonitor) -> Result<MemoryState, PodError> {
        match self.ask_monitor(ask).await? {
            FromMonitor::Memory(state) => Ok(state),
            FromMonitor::Refused(why) => Err(PodError { stage: None, cause: Cause::Unfit(why) }),
            other => Err(unexpected(&other)),
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
        self.tell(message, Vec::new()).await
    }
}

/// An answer that does not fit the question.
fn unexpected(answer: &FromMonitor) -> PodError {
    PodError { stage: None, cause: Cause::Monitor(format!("it answered {answer:?}")) }
}

#[cfg(test)]
#[path = "machine_test.rs"]
mod machine_test;
