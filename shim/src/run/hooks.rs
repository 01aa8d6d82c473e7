//! The hooks of a run, each list one after the other.
//!
//! Invariant: while a hook runs, the guardian knows of it; dropping the future of a list kills the one that runs.

use super::{RunError, RunOptions, RunPlan};
use crate::oci::hooks::Hook;
use crate::pod::Guardian;

/// Those that come before the container is created. One that fails ends the run.
pub(super) async fn create(
    plan: &RunPlan,
    options: &RunOptions,
    guardian: &mut Guardian,
) -> Result<(), RunError> {
    all(&plan.hooks.create, &state(plan, options, "creating"), guardian).await
}

/// Those that come after the container's start. One that fails is a warning.
pub(super) async fn poststart(plan: &RunPlan, options: &RunOptions, guardian: &mut Guardian) {
    warn(all(&plan.hooks.poststart, &state(plan, options, "running"), guardian).await);
}

/// Those that come after the machine's end. One that fails is a warning.
pub(super) async fn poststop(plan: &RunPlan, options: &RunOptions, guardian: &mut Guardian) {
    warn(all(&plan.hooks.poststop, &state(plan, options, "stopped"), guardian).await);
}

async fn all(hooks: &[Hook], state: &str, guardian: &mut Guardian) -> Result<(), RunError> {
    for hook in hooks {
        hook.run(state, |pid| guardian.watch_hook(pid)).await?;
    }
    Ok(())
}

fn warn(result: Result<(), RunError>) {
    result.unwrap_or_else(|error| tracing::warn!("{:#}", anyhow::Error::from(error)));
}

/// The container's state (OCI runtime-spec, runtime#state).
fn state(plan: &RunPlan, options: &RunOptions, status: &str) -> String {
    let mut state = serde_json::json!({
        "ociVersion": "1.2.0",
        "id": options.id,
        "status": status,
        "bundle": plan.bundle,
        "annotations": plan.annotations,
    });
    if status != "stopped" {
        state["pid"] = std::process::id().into();
    }
    state.to_string()
}
