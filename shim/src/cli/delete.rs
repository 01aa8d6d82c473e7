//! `cofferdam kill` and `cofferdam delete`.
//!
//! Invariant: after a deletion that succeeds, nothing of the container is left on the host.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Global;
use super::common::{ask_pod, block_on, find, find_any};
use crate::container::{ContainerError, Saved, Status};
use crate::control::ToSupervisor;
use crate::living::{ask_at, connect, hooks};
use crate::pod::clear_dead;
use crate::run;

/// How long a killed container and its pod may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// Sends a signal to a container.
pub(super) fn kill(global: &Global, id: &str, signal: &str, all: bool) -> Result<()> {
    let signal = parse_signal(signal)?;
    let (saved, status) = find(&global.root, id)?;
    if status == Status::Stopped {
        // As runc: with --all, what the first process left behind would be meant, and there is nothing.
        if all {
            return Ok(());
        }
        bail!("container not running");
    }
    if signal == 0 {
        // As with kill(2): whether there is somebody was the question.
        return Ok(());
    }
    let sent = ask_pod(&global.root, &saved, &ToSupervisor::signal(id, signal, all));
    // It may have ended meanwhile, and its pod with it.
    if sent.is_err() && saved.status(&global.root) == Status::Stopped {
        return if all { Ok(()) } else { bail!("container not running") };
    }
    sent.map(drop)
}

/// The number of a signal that is given by number or by name, with or without `SIG`, real-time signals as `RTMIN+3`.
fn parse_signal(text: &str) -> Result<u32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    const OTHERS: [(&str, u32); 5] =
        [("IOT", 6), ("CLD", 17), ("POLL", 29), ("RTMIN", 34), ("RTMAX", 64)];
    if let Ok(number @ 0..=64) = text.parse() {
        return Ok(number);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let mut known = NAMES.iter().zip(1..).map(|(name, number)| (*name, number)).chain(OTHERS);
    let real_time = || {
        let offset = |prefix: &str| name.strip_prefix(prefix)?.parse::<u32>().ok();
        let low = offset("RTMIN+").filter(|n| *n <= 30).map(|n| 34 + n);
        low.or_else(|| offset("RTMAX-").filter(|n| *n <= 30).map(|n| 64 - n))
    };
    known
        .find(|(own, _)| *own == name)
        .map(|(_, number)| number)
        .or_else(real_time)
        .ok_or_else(|| anyhow::anyhow!("unknown signal {text:?}"))
}

/// Deletes a container.
pub(super) fn delete(global: &Global, id: &str, force: bool) -> Result<()> {
    let (saved, status) = match find_any(&global.root, id) {
        Err(error) if force && matches!(error.downcast_ref(), Some(ContainerError::Missing)) => {
            // What a creation that was killed left.
            let _ = clear_dead(&global.root.join(id), false, Duration::ZERO);
            return Ok(());
        }
        found => found?,
    };
    match status {
        Status::Stopped | Status::Created => {}
        _ if force => {}
        other => bail!("cannot delete container {id} that is not stopped: {other}"),
    }
    if status != Status::Stopped {
        end(&global.root, &saved)?;
    }
    let directory = saved.directory(&global.root);
    let hooks = hooks(&global.root, &saved).unwrap_or_default();
    // Others may live in its pod. If not, that is gone, or about to go.
    let message = ToSupervisor::Delete(saved.id.clone());
    if let Err(error) = ask_pod(&global.root, &saved, &message) {
        tracing::debug!("deleting it in its pod: {error:#}");
    }
    if !clear_dead(&directory, false, ENDS_WITHIN) {
        bail!("{} is still in use", directory.display());
    }
    block_on(async {
        run::poststop(&hooks.poststop, &saved).await;
        Ok(())
    })
}

/// Kills a container and waits for what stands for it to end.
fn end(root: &Path, saved: &Saved) -> Result<()> {
    let killed = block_on(async {
        let socket = connect(root, saved)?;
        ask_at(&socket, &ToSupervisor::kill(&saved.id)).await
    });
    if let Err(error) = killed {
        // A supervisor that does not answer, or is gone. The proxy ends the container, or is all that is left of it.
        tracing::debug!("killing the container: {error:#}");
        saved.process.kill();
    }
    let deadline = Instant::now() + ENDS_WITHIN;
    while saved.process.is_alive() {
        if Instant::now() > deadline {
            bail!("container init still running");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[cfg(test)]
#[path = "delete_test.rs"]
mod delete_test;
