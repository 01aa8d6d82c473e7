//! Hooks of the container's namespace: createContainer and startContainer (OCI runtime-spec,
//! config#posix-platform-hooks).
//!
//! They run in the guest, and name programs of the container's root file system: those of the host are not there.
//!
//! Invariant: the state is written here, but for the process's number, which only the guest knows.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cofferdam_agent_protocol::{GuestHook, GuestHooks};

use super::OciError;
use super::hooks::{self, Hook};

/// What the hooks are told of the container.
pub(super) struct About<'a> {
    /// Its id.
    pub(super) id: &'a str,
    /// Its bundle.
    pub(super) bundle: &'a Path,
    /// Its annotations.
    pub(super) annotations: &'a BTreeMap<String, String>,
}

/// The lists createContainer and startContainer; an empty one is `None`.
pub(super) fn hooks(
    hooks: Option<&oci_spec::runtime::Hooks>,
    about: &About<'_>,
) -> Result<(Option<GuestHooks>, Option<GuestHooks>), OciError> {
    let Some(hooks) = hooks else { return Ok((None, None)) };
    let list = |name: &str,
                status: &str,
                list: &Option<Vec<oci_spec::runtime::Hook>>|
     -> Result<_, OciError> {
        let hooks = hooks::list(name, list.as_deref())?;
        Ok((!hooks.is_empty()).then(|| plan(name, status, &hooks, about)))
    };
    Ok((
        list("createContainer", "creating", hooks.create_container())?,
        list("startContainer", "created", hooks.start_container())?,
    ))
}

fn plan(name: &str, status: &str, hooks: &[Hook], about: &About<'_>) -> GuestHooks {
    let state = serde_json::json!({
        "ociVersion": "1.2.0",
        "id": about.id,
        "status": status,
        "bundle": about.bundle,
        "annotations": about.annotations,
    });
    let state = state.to_string();
    // The number goes in as the last member.
    let open = state.strip_suffix('}').unwrap_or(&state);
    GuestHooks {
        name: name.to_owned(),
        hooks: hooks.iter().map(hook).collect(),
        state_before_pid: format!("{open},\"pid\":"),
        state_after_pid: "}".to_owned(),
    }
}

fn hook(hook: &Hook) -> GuestHook {
    let path = hook.path.as_os_str().as_bytes().to_vec();
    let mut args: Vec<Vec<u8>> = hook.args.iter().map(|arg| arg.clone().into_bytes()).collect();
    if args.is_empty() {
        args.push(path.clone());
    }
    let pair = |(key, value): &(String, String)| format!("{key}={value}").into_bytes();
    let seconds = hook.timeout.map_or(0, |timeout| timeout.as_secs());
    let timeout = u32::try_from(seconds).unwrap_or(u32::MAX);
    GuestHook { path, args, env: hook.env.iter().flatten().map(pair).collect(), timeout }
}

#[cfg(test)]
#[path = "guest_hooks_test.rs"]
mod guest_hooks_test;
