//! Creating a container: the same steps as `cofferdam create`, with containerd's root file system and streams.
//!
//! Invariant: a creation that fails leaves nothing: no mount, no machine, no state directory, and the id is free.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use containerd_shim_protos::api::CreateTaskRequest;
use containerd_shim_protos::ttrpc::Code;

use super::super::forward::Forwarding;
use super::super::refusal::Refusal;
use super::super::stdio::{Owner, Stdio};
use super::super::{mounts, options};
use super::process::Process;
use super::{Container, Tasks};
use crate::config::Overrides;
use crate::container::Saved;
use crate::control::{Of, ToSupervisor};
use crate::hostgroup::is_of_systemd;
use crate::living::{ask_at, connect};
use crate::oci::{Bundle, HostNetwork};
use crate::pod::check_id;
use crate::run::{Number, Options, PodKind, RunError, RunPlan, create_and_leave};
use crate::signals::Signals;

/// A container that is to be.
pub(super) struct Wanted<'a> {
    pub(super) id: &'a str,
    pub(super) bundle: &'a Bundle,
    /// The configuration file.
    pub(super) config: PathBuf,
    pub(super) stdio: Stdio,
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
        let claim = self.claim(&request.id)?;
        let directory = Path::new(&request.bundle).join(mounts::ROOTFS);
        let mounted = mounts::all(&request.rootfs, directory).await;
        let mounted = mounted.map_err(|error| Refusal::from(anyhow::Error::from(error)))?;
        let container = self.make_of(request).await;
        drop(mounted);
        let container = Rc::new(container?);
        if !claim.is_wanted() {
            return Err(self.undo(&request.id, &container).await);
        }
        self.ending.set(false);
        self.containers.borrow_mut().insert(request.id.clone(), container.clone());
        self.tell_of_creation(request, container.pid());
        self.watch_memory(&container);
        self.watch(container.first.clone());
        Ok(container.pid())
    }

    /// Ends a container that nobody wants any more, now that it is made.
    async fn undo(&self, id: &str, container: &Container) -> Refusal {
        if let Ok(supervisor) = connect(&self.root, &container.saved) {
            drop(ask_at(&supervisor, &ToSupervisor::kill(id)).await);
        }
        if let Err(refusal) = self.clear(id, container).await {
            return refusal;
        }
        Refusal::new(Code::CANCELLED, format!("the creation of the container {id} was given up"))
    }

    async fn make_of(&self, request: &CreateTaskRequest) -> Result<Container, Refusal> {
        let mut bundle = Bundle::load(Path::new(&request.bundle)).map_err(RunError::from)?;
        let sandbox = self.sandbox.borrow().clone();
        if let Some(sandbox) = &sandbox {
            let added = sandbox.files.add_to(&mut bundle.spec);
            added.map_err(|error| Refusal::new(Code::INVALID_ARGUMENT, format!("{error:#}")))?;
        }
        let config = options::configuration(request.options.as_ref());
        let config = config.map_err(|error| Refusal::new(Code::INVALID_ARGUMENT, error))?;
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        self.make(Wanted { id: &request.id, bundle: &bundle, config, stdio }).await
    }

    /// Makes a container.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn make(&self, wanted: Wanted<'_>) -> Result<Container, Refusal> {
        let Wanted { id, bundle, config, stdio } = wanted;
        let file = Overrides::from_file(&config);
        let file = file.map_err(|error| RunError::Plan(error.into()))?;
        let plan = RunPlan::new((self.root.as_path(), id), bundle, file, Overrides::default());
        let mut plan = plan.map_err(RunError::from)?;
        plan.vacate();
        if let Some(sandbox) = self.sandbox.borrow().as_ref() {
            sandbox.files.share(&mut plan.container.mounts);
        }
        for warning in bundle.warnings.iter().chain(&plan.warnings) {
            tracing::warn!(id, "{warning}");
        }
        let owner = Owner { namespace: &self.namespace, container: id };
        let opened = stdio.open(owner).await;
        let opened = opened.map_err(|error| Refusal::from(anyhow::Error::from(error)))?;
        let systemd = plan.cgroups_path.as_deref().is_some_and(is_of_systemd);
        let options = Options { systemd, ..self.options(id, opened.streams) };
        let created = create_and_leave(&plan, &options, &mut Signals::none()).await;
        let program = plan.program();
        let created = created.map_err(|error| Refusal::of(&error, &program, Some(&plan)))?;
        let forwarding = self.forward(&plan, &created.saved);
        let of = Of { container: id.to_owned(), process: String::new() };
        let pid = created.number.as_ref().map_or(self.pid, Number::get);
        let first = Process::new(of, "", stdio).with_pid(pid);
        let socket = created.ours.ok_or_else(|| {
            Refusal::new(Code::INTERNAL, "the container was created without a way to it")
        })?;
        first.is_made(socket, opened.open);
        Ok(Container {
            bundle: bundle.directory.display().to_string(),
            saved: created.saved,
            number: created.number,
            first: Rc::new(first),
            added: RefCell::default(),
            next: Cell::new(0),
            paused: Cell::new(false),
            memory: RefCell::default(),
            _forwarding: forwarding,
        })
    }

    /// Forwards ports of the pod, if it is one with a network namespace of its own.
    fn forward(&self, plan: &RunPlan, saved: &Saved) -> Option<Forwarding> {
        let HostNetwork::At(network) = &plan.network else { return None };
        if !matches!(plan.pod, PodKind::Sandbox) {
            return None;
        }
        let forwarding = Forwarding::start(network, &self.root, saved);
        let told = forwarding.inspect_err(|error| {
            tracing::warn!(network = %network.display(), "ports cannot be forwarded: {error}");
        });
        told.ok()
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
pub(super) struct Claim<'a> {
    tasks: &'a Tasks,
    id: String,
}

impl Tasks {
    /// Takes an id.
    ///
    /// # Errors
    /// It is taken.
    pub(super) fn claim(&self, id: &str) -> Result<Claim<'_>, Refusal> {
        let is_there = self.containers.borrow().contains_key(id);
        if is_there || self.creating.borrow().contains_key(id) {
            let text = format!("container with given ID already exists: {id}");
            return Err(Refusal::new(Code::ALREADY_EXISTS, text));
        }
        self.creating.borrow_mut().insert(id.to_owned(), true);
        Ok(Claim { tasks: self, id: id.to_owned() })
    }
}

impl Claim<'_> {
    /// Whether nobody has deleted it meanwhile.
    fn is_wanted(&self) -> bool {
        self.tasks.creating.borrow().get(&self.id).is_some_and(|wanted| *wanted)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.tasks.creating.borrow_mut().remove(&self.id);
        if self.tasks.ending.get() {
            self.tasks.shut_down();
        }
    }
}

#[cfg(test)]
#[path = "create_test.rs"]
mod create_test;
