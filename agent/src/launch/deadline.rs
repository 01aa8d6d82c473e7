//! Limits of time that are not used up while the host runs something else.
//!
//! On a host with too much to do an honest launcher takes long. What the host takes from the machine it tells the
//! guest's kernel (`steal` of `proc_stat(5)`); no container can make that more.
//!
//! Invariant: a limit ends at most [`MOST`] later than it says, so the host waits longer than that for an answer.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// Most time that is added to a limit.
const MOST: Duration = Duration::from_secs(45);

/// The kernel counts such time in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// When something has to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Instant,
    /// What the host had taken when the limit began.
    stolen: Duration,
}

impl Deadline {
    /// The end of a limit that begins now.
    pub(super) fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, stolen: stolen() }
    }

    /// What comes of `future`, if it does in time.
    pub(super) async fn wait<T>(self, future: impl Future<Output = T>) -> Option<T> {
        self.wait_with(future, stolen).await
    }

    async fn wait_with<T>(
        self,
        future: impl Future<Output = T>,
        stolen: impl Fn() -> Duration,
    ) -> Option<T> {
        let mut future = pin!(future);
        let mut until = self.at;
        loop {
            if let Ok(output) = timeout_at(until, &mut future).await {
                return Some(output);
            }
            let later = self.at + stolen().saturating_sub(self.stolen).min(MOST);
            if later <= until {
                return None;
            }
            until = later;
        }
    }
}

/// How long the host has kept the machine's CPUs from running, since the boot and on average.
fn stolen() -> Duration {
    std::fs::read_to_string("/proc/stat").map_or(Duration::ZERO, |text| stolen_of(&text))
}

/// The same, in the text of `/proc/stat`.
fn stolen_of(text: &str) -> Duration {
    let mut lines = text.lines().take_while(|line| line.starts_with("cpu"));
    let all = lines.next().and_then(|line| line.split_whitespace().nth(8)?.parse::<u32>().ok());
    let cpus = u32::try_from(lines.count()).unwrap_or(u32::MAX).max(1);
    TICK.saturating_mul(all.unwrap_or(0) / cpus)
}

#[cfg(test)]
#[path = "deadline_test.rs"]
mod deadline_test;
