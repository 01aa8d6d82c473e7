//! `cofferdam run` without `--detach`: the whole life of a container, on the standard streams of this process.
//!
//! Invariant: on every way out the pod is gone, if it was the container's own, and the terminal as it was.

use std::os::fd::BorrowedFd;
use std::pin::Pin;

use super::{Created, Ground, Options, RunError, RunPlan, ask, create, hooks};
use crate::control::{End, Failure, FromProxy, ToSupervisor};
use crate::pod::ExitStatus;
use crate::signals::Signals;
use crate::socket::Socket;
use crate::terminal::{self, RawMode};
use crate::timeline::{Entry, Timeline};

/// How a run went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The container's status, or what went wrong.
    pub(crate) result: Result<ExitStatus, RunError>,
    /// The stages reached.
    pub(crate) timeline: Timeline,
}

/// Runs `plan` to its end.
pub(crate) async fn foreground(
    plan: &RunPlan,
    options: &Options,
    mut timeline: Timeline,
) -> Outcome {
    let prepared = Signals::listen()
        .map_err(|error| RunError::Host("handling signals", error))
        .and_then(|signals| Ok((signals, Ground::claim(plan, options)?)));
    let (mut signals, mut ground) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Outcome { result: Err(error), timeline },
    };
    let result = serve(plan, options, (&mut ground, &mut signals), &mut timeline).await;
    let result = result.map_err(|error| error.with_console(ground.console()));
    match result {
        Ok((created, status)) => {
            ground.delete(&options.id).await;
            ground.wait_for_supervisor();
            // What was meant for the container is no wish to be left without its clean-up.
            signals.forget();
            // A container that is kept is deleted later, and its hooks are run then.
            let hooks = if options.keep { &[][..] } else { &plan.hooks.poststop };
            tokio::select! {
                () = hooks::poststop(hooks, &created.saved) => {}
                signal = signals.interruption() => {
                    tracing::warn!(signal, "the poststop hooks were interrupted");
                }
            }
            Outcome { result: Ok(status), timeline }
        }
        Err(error) => {
            note(&mut timeline, error.stages());
            ground.abandon(&plan.hooks.poststop).await;
            Outcome { result: Err(error), timeline }
        }
    }
}

async fn serve(
    plan: &RunPlan,
    options: &Options,
    (ground, signals): (&mut Ground, &mut Signals),
    timeline: &mut Timeline,
) -> Result<(Created, ExitStatus), RunError> {
    let mut created = create(plan, options, (ground, signals), timeline).await?;
    let Some(ours) = created.ours.take() else {
        return Err(RunError::Supervisor("somebody else holds the container".into()));
    };
    let raw = if plan.terminal { RawMode::enter() } else { Ok(None) };
    let raw = raw.map_err(|error| RunError::Host("setting the terminal to raw mode", error))?;
    // From here on a signal is the container's, even one that comes before the answer.
    ask(ground.supervisor(), &ToSupervisor::Start(options.id.clone()), NO_FDS).await?;
    let hooks = hooks::poststart(&plan.hooks.poststart, &created.saved, ground.supervisor());
    let (status, stages) = hold(&ours, signals, plan.terminal, Box::pin(hooks)).await?;
    note(timeline, &stages);
    drop(raw);
    Ok((created, status))
}

fn note(timeline: &mut Timeline, stages: &[Entry]) {
    for entry in stages {
        timeline.reach_at(entry.stage, entry.at_ns);
    }
}

/// A message without descriptors.
const NO_FDS: &[BorrowedFd<'static>] = &[];

/// Stands for a process in the guest until it has ended: passes on signals and the terminal's size. Meanwhile, and to its
/// end, does what is `besides`, and kills the process if that fails; an interruption after the end ends it.
///
/// # Errors
/// What ended the pod before the process.
pub(crate) async fn hold(
    ours: &Socket,
    signals: &mut Signals,
    terminal: bool,
    mut besides: Pin<Box<dyn Future<Output = Result<(), RunError>> + '_>>,
) -> Result<(ExitStatus, Vec<Entry>), RunError> {
    let (mut busy, mut failed) = (true, None);
    let end = loop {
        tokio::select! {
            end = ours.receive::<End>() => match end {
                Ok(end) => break end.body,
                Err(error) => return Err(RunError::Supervisor(error.to_string())),
            },
            signal = signals.next() => pass(ours, signal, terminal).await,
            done = &mut besides, if busy => {
                busy = false;
                if let Err(error) = done {
                    failed = Some(error);
                    pass(ours, libc::SIGKILL, terminal).await;
                }
            }
        }
    };
    if busy {
        tokio::select! {
            done = besides => failed = done.err(),
            _ = signals.interruption() => {}
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    match end.result {
        Ok((code, signal)) => Ok((ExitStatus { code, signal }, end.stages)),
        Err(failure) => Err(Failure { stages: end.stages, ..failure }.into()),
    }
}

async fn pass(ours: &Socket, signal: i32, terminal: bool) {
    let message = match (signal, terminal::size()) {
        (libc::SIGWINCH, Some((rows, columns))) if terminal => FromProxy::Size(rows, columns),
        (libc::SIGWINCH, _) => return,
        _ => FromProxy::Signal(signal.cast_unsigned()),
    };
    // A supervisor that is gone is found out by the one who waits for the end.
    let _ = ours.send(&message, &[]).await;
}
