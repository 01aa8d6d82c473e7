//! containerd's sandbox: the machine, which belongs to no container (`containerd.runtime.sandbox.v1`).
//!
//! It is created as a container is, from a specification made of what containerd says of the pod; nothing runs in it.
//!
//! Invariant: a sandbox is gone from the host when its shutdown is answered.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::sandbox_api::CreateSandboxRequest;
use containerd_shim_protos::ttrpc::Code;

use super::super::pod_config::{PodSandboxConfig, specification};
use super::super::pod_files::PodFiles;
use super::super::refusal::Refusal;
use super::super::stdio::Stdio;
use super::create::Wanted;
use super::process::{Exit, Life};
use super::requests::{ENDS_WITHIN, wrong};
use super::{Container, Tasks};
use crate::control::ToSupervisor;
use crate::living::{ask_at, connect};
use crate::oci::Bundle;
use crate::pod::check_id;
use crate::run::RunError;

/// See the module.
#[derive(Debug)]
pub(super) struct Sandbox {
    id: String,
    container: Rc<Container>,
    created: SystemTime,
    /// What its containers share.
    pub(super) files: PodFiles,
}

/// What is known of a sandbox.
#[derive(Debug)]
pub(in super::super) struct SandboxStatus {
    /// Its machine runs, and it was started.
    pub(in super::super) is_ready: bool,
    /// The process that stands for it.
    pub(in super::super) pid: u32,
    /// When it was created.
    pub(in super::super) created: SystemTime,
    /// How it ended, if it has.
    pub(in super::super) exit: Option<Exit>,
}

impl Sandbox {
    /// Whether it is the one with this id.
    pub(super) fn is(&self, id: &str) -> bool {
        self.id == id
    }
}

impl Tasks {
    /// Creates the sandbox of this process.
    ///
    /// # Errors
    /// Why there is none.
    pub(in super::super) async fn create_sandbox(
        &self,
        request: &CreateSandboxRequest,
        config: PathBuf,
    ) -> Result<(), Refusal> {
        let id = request.sandbox_id.as_str();
        check_id(id).map_err(RunError::from)?;
        let _claim = self.claim(id)?;
        if self.sandbox.borrow().is_some() {
            let text = format!("sandbox {id}: this shim has a sandbox already");
            return Err(Refusal::new(Code::ALREADY_EXISTS, text));
        }
        let directory = Path::new(&request.bundle_path);
        let described = PodSandboxConfig::of(request)
            .and_then(|pod| Ok((specification(request, &pod)?, PodFiles::make(directory, &pod)?)));
        let (spec, files) = described.map_err(|error| {
            Refusal::new(Code::INVALID_ARGUMENT, format!("sandbox {id}: {error:#}"))
        })?;
        let bundle = Bundle {
            directory: directory.to_owned(),
            rootfs: directory.join("rootfs"),
            spec,
            warnings: Vec::new(),
        };
        let wanted = Wanted { id, bundle: &bundle, config, stdio: Stdio::default() };
        let container = Rc::new(self.make(wanted).await?);
        let first = container.first.clone();
        // Whoever waits for the sandbox is told of its end; there is no event.
        tokio::task::spawn_local(async move {
            let exit = first.exit().await;
            first.set(Life::Ended(exit));
        });
        let created = SystemTime::now();
        *self.sandbox.borrow_mut() =
            Some(Rc::new(Sandbox { id: id.to_owned(), container, created, files }));
        Ok(())
    }

    /// Starts the sandbox.
    ///
    /// # Errors
    /// There is none, or it was started before, or is gone.
    pub(in super::super) async fn start_sandbox(
        &self,
        id: &str,
    ) -> Result<(u32, SystemTime), Refusal> {
        let sandbox = self.sandbox(id)?;
        let first = &sandbox.container.first;
        first.begin()?;
        let started = crate::living::start(&self.root, &sandbox.container.saved).await;
        first.set(if started.is_ok() { Life::Running } else { Life::Created });
        started.map_err(Refusal::from)?;
        Ok((self.pid, sandbox.created))
    }

    /// Ends the sandbox and all that runs in it.
    ///
    /// # Errors
    /// It does not end within `limit`.
    pub(in super::super) async fn stop_sandbox(
        &self,
        id: &str,
        limit: Duration,
    ) -> Result<(), Refusal> {
        let sandbox = self.sandbox(id)?;
        let limit = if limit.is_zero() { ENDS_WITHIN } else { limit };
        self.end(&sandbox, limit).await.map(drop)
    }

    async fn end(&self, sandbox: &Sandbox, limit: Duration) -> Result<Exit, Refusal> {
        let first = &sandbox.container.first;
        if !matches!(first.life(), Life::Ended(_))
            && let Ok(supervisor) = connect(&self.root, &sandbox.container.saved)
        {
            // It may end by itself meanwhile.
            drop(ask_at(&supervisor, &ToSupervisor::kill(&sandbox.id)).await);
        }
        let ended = tokio::time::timeout(limit, first.ended()).await;
        ended.map_err(|_| wrong(format!("the sandbox {} does not end", sandbox.id)))
    }

    /// Waits for the end of the sandbox.
    ///
    /// # Errors
    /// There is none.
    pub(in super::super) async fn wait_sandbox(&self, id: &str) -> Result<Exit, Refusal> {
        let first = self.sandbox(id)?.container.first.clone();
        Ok(first.ended().await)
    }

    /// The status of the sandbox.
    ///
    /// # Errors
    /// There is none.
    pub(in super::super) fn sandbox_status(&self, id: &str) -> Result<SandboxStatus, Refusal> {
        let sandbox = self.sandbox(id)?;
        let life = sandbox.container.first.life();
        let exit = if let Life::Ended(exit) = life { Some(exit) } else { None };
        let is_ready = life == Life::Running;
        Ok(SandboxStatus { is_ready, pid: self.pid, created: sandbox.created, exit })
    }

    /// The accounting of the whole pod.
    ///
    /// # Errors
    /// The guest does not tell.
    pub(in super::super) async fn sandbox_metrics(&self, id: &str) -> Result<Any, Refusal> {
        self.stats_of(&self.sandbox(id)?.container.saved).await
    }

    /// Ends the sandbox, forgets it, and ends this process.
    ///
    /// # Errors
    /// It does not end.
    pub(in super::super) async fn shut_down_sandbox(&self, id: &str) -> Result<(), Refusal> {
        let found = self.sandbox.borrow().clone();
        if let Some(sandbox) = found.filter(|sandbox| sandbox.id == id) {
            self.end(&sandbox, ENDS_WITHIN).await?;
            self.clear(id, &sandbox.container).await?;
            drop(self.sandbox.take());
            // containerd forgets this process, whatever tasks it has not deleted.
            self.over.notify_one();
        }
        self.shut_down();
        Ok(())
    }

    fn sandbox(&self, id: &str) -> Result<Rc<Sandbox>, Refusal> {
        let sandbox = self.sandbox.borrow();
        let found = sandbox.as_ref().filter(|sandbox| sandbox.id == id);
        let missing = || Refusal::new(Code::NOT_FOUND, format!("sandbox {id} does not exist"));
        found.cloned().ok_or_else(missing)
    }
}
