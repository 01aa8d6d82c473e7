//! Creating a container: the same steps as `cofferdam create`, with containerd's root file system and streams.
//!
//! Invariant: a creation that fails leaves nothing: no mount, no machine, no state directory, and the id is free.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use containerd_shim_protos::api::CreateTaskRequest;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::Code;
use prost::Message;

use super::super::mounts;
use super::super::refusal::Refusal;
use super::super::stdio::{Owner, Stdio};
use super::process::Process;
use super::{Container, Tasks};
use crate::config::{self, Overrides};
use crate::control::Of;
use crate::oci::Bundle;
use crate::pod::check_id;
use crate::run::{Options, RunError, RunPlan, create_and_leave};
use crate::signals::Signals;

/// The type of options by which containerd names a configuration file.
const OPTIONS: &str = "runtimeoptions.v1.Options";

/// Options of a runtime that has none of its own (`containerd/api/types/runtimeoptions/v1`).
#[derive(Clone, PartialEq, Message)]
struct RuntimeOptions {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    config_path: String,
}

/// The configuration file that the options name, or the usual one.
fn configuration(options: Option<&Any>) -> Result<PathBuf, Refusal> {
    let usual = config::usual;
    let Some(options) = options.filter(|any| any.type_url.ends_with(OPTIONS)) else {
        return Ok(usual());
    };
    let options = RuntimeOptions::decode(options.value.as_slice());
    let options = options.map_err(|error| {
        Refusal::new(Code::INVALID_ARGUMENT, format!("options of the runtime: {error}"))
    })?;
    Ok(if options.config_path.is_empty() { usual() } else { options.config_path.into() })
}

impl Tasks {
    /// Creates the container that `request` describes.
    ///
    /// # Errors
    /// Why there is none.
    pub(in super::super) async fn create(
        self: &Rc<Self>,
        request: &CreateTaskRequest,
    ) -> Result<u32, Refusal> {
        if !request.checkpoint.is_empty() {
            let text = "checkpoint: a container in a virtual machine cannot be restored yet";
            return Err(Refusal::new(Code::UNIMPLEMENTED, text));
        }
        check_id(&request.id).map_err(RunError::from)?;
        let _claim = Claim::of(self, &request.id)?;
        let directory = Path::new(&request.bundle).join(mounts::ROOTFS);
        let mounted = mounts::all(&request.rootfs, directory).await;
        let mounted = mounted.map_err(|error| Refusal::from(anyhow::Error::from(error)))?;
        let container = self.make(request).await;
        drop(mounted);
        let container = Rc::new(container?);
        self.containers.borrow_mut().insert(request.id.clone(), container.clone());
        self.tell_of_creation(request);
        self.watch_memory(&container);
        self.watch(container.first.clone());
        Ok(self.pid)
    }

    async fn make(&self, request: &CreateTaskRequest) -> Result<Container, Refusal> {
        let bundle = Bundle::load(Path::new(&request.bundle)).map_err(RunError::from)?;
        let file = Overrides::from_file(&configuration(request.options.as_ref())?);
        let file = file.map_err(|error| RunError::Plan(error.into()))?;
        let place = (self.root.as_path(), request.id.as_str());
        let plan = RunPlan::new(place, &bundle, file, Overrides::default());
        let plan = plan.map_err(RunError::from)?;
        for warning in bundle.warnings.iter().chain(&plan.warnings) {
            tracing::warn!(id = request.id, "{warning}");
        }
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let owner = Owner { namespace: &self.namespace, container: &request.id };
        let opened = stdio.open(owner).await;
        let opened = opened.map_err(|error| Refusal::from(anyhow::Error::from(error)))?;
        let options = self.options(&request.id, opened.streams);
        let created = create_and_leave(&plan, &options, &mut Signals::none()).await;
        let program = plan.program();
        let created = created.map_err(|error| Refusal::of(&error, &program, Some(&plan)))?;
        let of = Of { container: request.id.clone(), process: String::new() };
        let first = Process::new(of, "", stdio);
        let socket = created.ours.ok_or_else(|| {
            Refusal::new(Code::INTERNAL, "the container was created without a way to it")
        })?;
        first.is_made(socket, opened.open);
        Ok(Container {
            bundle: request.bundle.clone(),
            saved: created.saved,
            first: Rc::new(first),
            added: RefCell::default(),
            next: Cell::new(0),
            paused: Cell::new(false),
            memory: RefCell::default(),
        })
    }

    fn options(&self, id: &str, streams: [std::os::fd::OwnedFd; 3]) -> Options {
        Options {
            id: id.to_owned(),
            root: self.root.clone(),
            console_log: None,
            pid_file: None,
            pidfd_socket: None,
            console_socket: None,
            detached: true,
            streams: Some(Arc::new(streams)),
            keep: true,
            systemd: false,
            global: Vec::new(),
        }
    }
}

/// An id that is taken while its container is being created.
struct Claim<'a> {
    tasks: &'a Tasks,
    id: String,
}

impl<'a> Claim<'a> {
    fn of(tasks: &'a Tasks, id: &str) -> Result<Self, Refusal> {
        let is_there = tasks.containers.borrow().contains_key(id);
        if is_there || !tasks.creating.borrow_mut().insert(id.to_owned()) {
            let text = format!("container with given ID already exists: {id}");
            return Err(Refusal::new(Code::ALREADY_EXISTS, text));
        }
        Ok(Self { tasks, id: id.to_owned() })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.tasks.creating.borrow_mut().remove(&self.id);
    }
}

#[cfg(test)]
#[path = "create_test.rs"]
mod create_test;
