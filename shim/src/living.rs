//! What can be asked of a container that is there, by the command line and by containerd.
//!
//! Invariant: an error reads as runc's does where engines look for words.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use cofferdam_agent_protocol::{ProcessPlan, Stdio};
use oci_spec::runtime::{LinuxBuilder, LinuxResources, Process, Spec};

use crate::changed;
use crate::container::{CONFIG, Saved, save_config};
use crate::control::{Answer, SOCKET, ToSupervisor};
use crate::oci;
use crate::oci::hooks::Hooks;
use crate::run::{self, RunError, ask};
use crate::socket::Socket;

/// The way to the supervisor of a container's pod.
///
/// # Errors
/// It is gone.
pub(crate) fn connect(root: &Path, saved: &Saved) -> Result<Socket> {
    let directory = root.join(&saved.pod);
    Socket::connect(&directory, SOCKET)
        .with_context(|| format!("the supervisor of the pod {} is gone", saved.pod))
}

/// Asks a supervisor.
///
/// # Errors
/// What it says.
pub(crate) async fn ask_at(socket: &Socket, message: &ToSupervisor) -> Result<Answer> {
    const NONE: &[BorrowedFd<'static>] = &[];
    ask(socket, message, NONE).await.map_err(|error: RunError| error.into())
}

/// The specification of a container.
///
/// # Errors
/// It cannot be read.
pub(crate) fn config(root: &Path, saved: &Saved) -> Result<Spec> {
    let path = saved.directory(root).join(CONFIG);
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parsing {}", path.display()))
}

/// The hooks of a container.
///
/// # Errors
/// Its configuration cannot be read.
pub(crate) fn hooks(root: &Path, saved: &Saved) -> Result<Hooks> {
    Ok(crate::oci::hooks::hooks(config(root, saved)?.hooks().as_ref())?)
}

/// Starts a container that was created. One whose hooks fail is killed.
///
/// # Errors
/// Why it does not run.
pub(crate) async fn start(root: &Path, saved: &Saved) -> Result<()> {
    let spec = config(root, saved)?;
    let hooks = crate::oci::hooks::hooks(spec.hooks().as_ref())?;
    let changed = changed::parcel(&spec, saved, &saved.directory(root).join(CONFIG))?;
    let socket = connect(root, saved)?;
    let fds: Vec<BorrowedFd<'_>> = changed.iter().map(AsFd::as_fd).collect();
    ask(&socket, &ToSupervisor::Start(saved.id.clone()), &fds).await?;
    if let Err(error) = run::poststart(&hooks.poststart, saved, &socket).await {
        let _ = ask_at(&socket, &ToSupervisor::kill(&saved.id)).await;
        return Err(error.into());
    }
    Ok(())
}

/// The plan of one more process in the container of `spec`, with its streams, and what was ignored.
///
/// # Errors
/// The first thing that makes no sense or cannot be done in a pod.
pub(crate) fn exec(process: &Process, spec: &Spec) -> Result<(ProcessPlan, Vec<String>)> {
    let (mut plan, warnings) = oci::exec(process, spec)?;
    if plan.terminal.is_none() {
        let all = Some(0);
        plan.stdio = Some(Stdio { stdin: all, stdout: all, stderr: all });
    }
    Ok((plan, warnings))
}

/// Gives a container new resources: `wanted` is a text as `linux.resources`.
///
/// # Errors
/// It makes no sense, or the guest refuses it.
pub(crate) async fn update(root: &Path, saved: &Saved, wanted: &[u8]) -> Result<()> {
    let mut spec = config(root, saved)?;
    let current = spec.linux().as_ref().and_then(|linux| linux.resources().clone());
    let update = oci::update(wanted, current.as_ref())?;
    for warning in &update.warnings {
        tracing::warn!(id = saved.id, "{warning}");
    }
    let settings = update.settings.iter().map(|s| (s.file.clone(), s.value.clone())).collect();
    let socket = connect(root, saved)?;
    let stats = stats(&socket, &saved.id).await?;
    let used = |name: &str| {
        let file = stats.iter().find(|(file, _)| file == name);
        file.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
    };
    update.check_memory(used("memory.current"), used("memory.swap.current"))?;
    let (container, needs) = (saved.id.clone(), update.needs);
    ask_at(&socket, &ToSupervisor::Update { container, settings, needs }).await?;
    set(&mut spec, update.resources)?;
    save_config(&saved.directory(root), &serde_json::to_vec(&spec)?)?;
    Ok(())
}

/// The accounting of a container: files of its control group.
///
/// # Errors
/// There is none.
pub(crate) async fn stats(socket: &Socket, id: &str) -> Result<Vec<(String, String)>> {
    match ask_at(socket, &ToSupervisor::Stats(id.to_owned())).await? {
        Answer::Stats(files) => Ok(files),
        _ => bail!("no accounting from the supervisor"),
    }
}

fn set(spec: &mut Spec, resources: LinuxResources) -> Result<()> {
    let mut linux = match spec.linux().clone() {
        Some(linux) => linux,
        None => LinuxBuilder::default().build()?,
    };
    linux.set_resources(Some(resources));
    spec.set_linux(Some(linux));
    Ok(())
}
