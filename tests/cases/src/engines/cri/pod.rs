//! A pod of a case, and its containers.
//!
//! Invariant: what these functions do not say is as the service's defaults have it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::super::containerd::IMAGE;
use super::messages::{
    ContainerConfig, ContainerMetadata, ContainerStatus, ContainerStatusRequest,
    ContainerStatusResponse, CreateContainerRequest, EXITED, Id, ImageSpec, LinuxContainerConfig,
    LinuxPodSandboxConfig, Mount, NamespaceOption, Nothing, PodSandboxConfig, PodSandboxMetadata,
    RUNNING, Resources, RunPodSandboxRequest, Security, StopContainerRequest, namespace,
};
use super::more_messages::{ExecSyncRequest, ExecSyncResponse};
use super::{Cri, client};
use crate::call::eventually;
use crate::run::unique_id;

/// A pod that runs, until the case is over.
pub(super) struct Pod<'a> {
    cri: &'a Cri,
    pub(super) id: String,
    pub(super) config: PodSandboxConfig,
}

/// A pod as most cases want it, with its containers' logs below `logs`.
pub(super) fn config(logs: &Path) -> PodSandboxConfig {
    let name = unique_id();
    PodSandboxConfig {
        hostname: name.clone(),
        log_directory: logs.join(&name).display().to_string(),
        metadata: Some(PodSandboxMetadata {
            uid: format!("uid-{name}"),
            namespace: "cases".into(),
            name,
            attempt: 0,
        }),
        linux: Some(LinuxPodSandboxConfig::default()),
        ..PodSandboxConfig::default()
    }
}

impl ContainerConfig {
    /// What it may do, to be changed.
    pub(super) fn security(&mut self) -> &mut Security {
        let linux = self.linux.get_or_insert_with(LinuxContainerConfig::default);
        linux.security_context.get_or_insert_with(Security::default)
    }

    /// What it may use, to be changed.
    pub(super) fn resources(&mut self) -> &mut Resources {
        let linux = self.linux.get_or_insert_with(LinuxContainerConfig::default);
        linux.resources.get_or_insert_with(Resources::default)
    }

    /// Mounts the host's `from` on `to`.
    pub(super) fn mount(&mut self, from: &Path, to: &str, readonly: bool) {
        let (container_path, host_path) = (to.to_owned(), from.display().to_string());
        self.mounts.push(Mount { container_path, host_path, readonly });
    }
}

impl<'a> Pod<'a> {
    /// Runs one.
    pub(super) fn run(cri: &'a Cri, config: PodSandboxConfig) -> Result<Self> {
        let id = run(&config)?;
        Ok(Self { cri, id, config })
    }

    /// One that runs already.
    pub(super) fn of(cri: &'a Cri, id: String, config: PodSandboxConfig) -> Self {
        Self { cri, id, config }
    }

    /// Stops it.
    pub(super) fn stop(&self) -> Result<()> {
        stop_pod(&self.id)
    }

    /// Removes it.
    pub(super) fn remove(&self) -> Result<()> {
        remove_pod(&self.id)
    }

    /// Its state.
    pub(super) fn state(&self) -> Result<i32> {
        Ok(self.cri.status(&self.id)?.state)
    }

    /// Creates a container that runs a shell script.
    pub(super) fn create(
        &self,
        script: &str,
        edit: impl FnOnce(&mut ContainerConfig),
    ) -> Result<String> {
        create(&self.id, &self.config, script, edit)
    }

    /// Starts a container that runs a shell script.
    pub(super) fn start(&self, script: &str) -> Result<String> {
        self.start_with(script, |_| {})
    }

    /// The same, its configuration changed by `edit`.
    pub(super) fn start_with(
        &self,
        script: &str,
        edit: impl FnOnce(&mut ContainerConfig),
    ) -> Result<String> {
        let id = self.create(script, edit)?;
        start(&id)?;
        Ok(id)
    }

    /// What a shell script writes that is run in a container and ends well.
    pub(super) fn prints(
        &self,
        script: &str,
        edit: impl FnOnce(&mut ContainerConfig),
    ) -> Result<String> {
        let id = self.start_with(script, edit)?;
        let status = ended(&id)?;
        let text = self.log(&id)?;
        ensure!(status.exit_code == 0, "{script}: {status:?}: {text}");
        Ok(text)
    }

    /// The file of a container's log.
    pub(super) fn log_file(&self, id: &str) -> Result<PathBuf> {
        Ok(status(id)?.log_path.into())
    }

    /// What a container has written, of both streams.
    pub(super) fn log(&self, id: &str) -> Result<String> {
        let path = self.log_file(id)?;
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Line::all(&text)?.iter().map(Line::content).collect())
    }
}

/// A line of a log: time, stream, `P` for a part of a line or `F`, and what was written.
pub(super) struct Line<'a> {
    pub(super) time: &'a str,
    pub(super) stream: &'a str,
    pub(super) is_part: bool,
    pub(super) text: &'a str,
}

impl<'a> Line<'a> {
    /// Those of `log`.
    pub(super) fn all(log: &'a str) -> Result<Vec<Self>> {
        log.lines().map(|line| Self::of(line).with_context(|| format!("{line:?}"))).collect()
    }

    fn of(line: &'a str) -> Option<Self> {
        let mut parts = line.splitn(4, ' ');
        let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
        let is_part = match tag {
            "P" => true,
            "F" => false,
            _ => return None,
        };
        Some(Self { time, stream, is_part, text: parts.next()? })
    }

    fn content(&self) -> String {
        format!("{}{}", self.text, if self.is_part { "" } else { "\n" })
    }
}

/// Stops the pod `id`.
pub(super) fn stop_pod(id: &str) -> Result<()> {
    let _: Nothing = client::call("StopPodSandbox", &Id { id: id.to_owned() })?;
    Ok(())
}

/// Removes the pod `id`.
pub(super) fn remove_pod(id: &str) -> Result<()> {
    let _: Nothing = client::call("RemovePodSandbox", &Id { id: id.to_owned() })?;
    Ok(())
}

/// Runs a pod; its id.
pub(super) fn run(config: &PodSandboxConfig) -> Result<String> {
    fs::create_dir_all(&config.log_directory)?;
    let runtime_handler = Cri::handler().to_owned();
    let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler };
    let Id { id } = client::call("RunPodSandbox", &request)?;
    Ok(id)
}

/// Creates a container in the pod `pod` that runs a shell script; `pods` is the pod's configuration.
pub(super) fn create(
    pod: &str,
    pods: &PodSandboxConfig,
    script: &str,
    edit: impl FnOnce(&mut ContainerConfig),
) -> Result<String> {
    let name = unique_id();
    let mut config = ContainerConfig {
        log_path: format!("{name}.log"),
        metadata: Some(ContainerMetadata { name, attempt: 0 }),
        image: Some(ImageSpec { image: IMAGE.to_owned() }),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        linux: Some(LinuxContainerConfig::default()),
        ..ContainerConfig::default()
    };
    // Processes are shared unless somebody says otherwise; Kubernetes always does.
    config.security().namespace_options =
        Some(NamespaceOption { pid: namespace::CONTAINER, ..Default::default() });
    edit(&mut config);
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.to_owned(),
        config: Some(config),
        sandbox_config: Some(pods.clone()),
    };
    let Id { id } = client::call("CreateContainer", &request)?;
    Ok(id)
}

/// Starts a container.
pub(super) fn start(id: &str) -> Result<()> {
    let _: Nothing = client::call("StartContainer", &Id { id: id.to_owned() })?;
    Ok(())
}

/// Stops one, with this many seconds for it to end by itself.
pub(super) fn stop(id: &str, timeout: i64) -> Result<()> {
    let request = StopContainerRequest { container_id: id.to_owned(), timeout };
    let _: Nothing = client::call("StopContainer", &request)?;
    Ok(())
}

/// Removes one.
pub(super) fn remove(id: &str) -> Result<()> {
    let _: Nothing = client::call("RemoveContainer", &Id { id: id.to_owned() })?;
    Ok(())
}

/// The status of one.
pub(super) fn status(id: &str) -> Result<ContainerStatus> {
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let answer: ContainerStatusResponse = client::call("ContainerStatus", &request)?;
    answer.status.context("no status of the container")
}

/// Waits for its end.
pub(super) fn ended(id: &str) -> Result<ContainerStatus> {
    let mut last = ContainerStatus::default();
    let what = format!("the end of {id}");
    eventually(&what, || {
        last = status(id)?;
        Ok(last.state == EXITED)
    })?;
    Ok(last)
}

/// It runs.
pub(super) fn runs(id: &str) -> Result<()> {
    let status = status(id)?;
    ensure!(status.state == RUNNING, "{status:?}");
    Ok(())
}

/// Runs a command in a container, with a limit in seconds, or none if that is 0.
pub(super) fn exec_for(id: &str, command: &[&str], timeout: i64) -> Result<ExecSyncResponse> {
    let cmd = command.iter().map(|&word| word.to_owned()).collect();
    let request = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
    client::call("ExecSync", &request)
}

/// Runs a shell script in a container.
pub(super) fn exec(id: &str, script: &str) -> Result<ExecSyncResponse> {
    exec_for(id, &["sh", "-c", script], 0)
}

/// What a shell script prints that is run in a container and ends well, without the white space around it.
pub(super) fn says(id: &str, script: &str) -> Result<String> {
    let answer = exec(id, script)?;
    let (stdout, stderr) = (text(&answer.stdout), text(&answer.stderr));
    ensure!(answer.exit_code == 0, "{script}: code {}: {stdout}{stderr}", answer.exit_code);
    Ok(stdout.trim().to_owned())
}

/// Bytes as text.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The refusal that `result` is.
pub(super) fn refusal<T: std::fmt::Debug>(result: Result<T>) -> Result<client::Refused> {
    match result {
        Ok(answer) => anyhow::bail!("not refused: {answer:?}"),
        Err(error) => error.downcast::<client::Refused>().context("an error of another kind"),
    }
}
