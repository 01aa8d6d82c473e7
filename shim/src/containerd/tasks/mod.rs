//! The containers of a pod, as containerd asks for them.
//!
//! One thread owns all of it. What is asked is asked of the pod's supervisor as any other client would.
//!
//! Invariant: an event is told when what it tells of is true, and those of one process in their order.

mod create;
mod events;
mod process;
mod requests;
mod sandbox;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use containerd_shim_protos::ttrpc::Code;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::events::Events;
use super::forward::Forwarding;
use super::refusal::Refusal;
use crate::container::Saved;
use crate::control::{Answer, ToSupervisor};
use crate::living::connect;
use crate::run::Number;
use process::{Life, Process};
use sandbox::Sandbox;

/// How long the events that are left may take.
const PARTING: Duration = Duration::from_secs(2);

/// Time between two events of the same container that runs out of memory.
const MEMORY_PAUSE: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug)]
pub(super) struct Tasks {
    namespace: String,
    /// Where the state directories are.
    root: PathBuf,
    /// The number of this process, which stands for all.
    pid: u32,
    containers: RefCell<BTreeMap<String, Rc<Container>>>,
    /// Containers that are being created, and whether they are still wanted.
    creating: RefCell<BTreeMap<String, bool>>,
    /// containerd wants this process to end, but for what is being created.
    ending: Cell<bool>,
    /// The sandbox, if containerd leaves that to us.
    sandbox: RefCell<Option<Rc<Sandbox>>>,
    events: Events,
    over: Notify,
}

/// A container.
#[derive(Debug)]
struct Container {
    bundle: String,
    saved: Saved,
    /// Kept as long as the container.
    number: Option<Number>,
    first: Rc<Process>,
    /// Processes that were added, by containerd's names.
    added: RefCell<BTreeMap<String, Rc<Process>>>,
    /// The number of the next one.
    next: Cell<u32>,
    paused: Cell<bool>,
    /// Who listens whether it runs out of memory.
    memory: RefCell<Option<AbortHandle>>,
    /// Kept as long as the container.
    _forwarding: Option<Forwarding>,
}

impl Container {
    /// The number on the host.
    fn pid(&self) -> u32 {
        self.number.as_ref().map_or_else(std::process::id, Number::get)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(listener) = self.memory.take() {
            listener.abort();
        }
    }
}

impl Tasks {
    /// Those of containerd's `namespace`, with state directories below `root`.
    pub(super) fn new(namespace: &str, root: PathBuf, events: Events) -> Self {
        Self {
            namespace: namespace.to_owned(),
            root,
            pid: std::process::id(),
            containers: RefCell::default(),
            creating: RefCell::default(),
            ending: Cell::default(),
            sandbox: RefCell::default(),
            events,
            over: Notify::new(),
        }
    }

    /// Waits until containerd needs this process no more.
    pub(super) async fn over(&self) {
        self.over.notified().await;
    }

    /// Tells what is left to be told.
    pub(super) async fn finish(self) {
        self.events.finish(PARTING).await;
    }

    fn container(&self, id: &str) -> Result<Rc<Container>, Refusal> {
        let containers = self.containers.borrow();
        let missing = || Refusal::new(Code::NOT_FOUND, format!("container {id} does not exist"));
        containers.get(id).cloned().ok_or_else(missing)
    }

    /// The process `exec_id` of the container `id`; the first one if that is empty.
    fn process(&self, id: &str, exec_id: &str) -> Result<Rc<Process>, Refusal> {
        let container = self.container(id)?;
        if exec_id.is_empty() {
            return Ok(container.first.clone());
        }
        let added = container.added.borrow();
        let missing = || {
            let text = format!("process {exec_id} of the container {id} does not exist");
            Refusal::new(Code::NOT_FOUND, text)
        };
        added.get(exec_id).cloned().ok_or_else(missing)
    }

    /// Tells of the end of a process when it comes.
    fn watch(self: &Rc<Self>, process: Rc<Process>) {
        let tasks = self.clone();
        tokio::task::spawn_local(async move {
            let exit = process.exit().await;
            tasks.tell_of_end(&process, exit);
            process.close_input();
            process.set(Life::Ended(exit));
        });
    }

    /// Tells each time that the container runs out of memory.
    fn watch_memory(self: &Rc<Self>, container: &Rc<Container>) {
        let tasks = self.clone();
        let saved = container.saved.clone();
        let listener = tokio::task::spawn_local(async move {
            let Ok(socket) = connect(&tasks.root, &saved) else { return };
            let question = ToSupervisor::OutOfMemory(saved.id.clone());
            if socket.send(&question, &[]).await.is_err() {
                return;
            }
            while let Ok(message) = socket.receive::<Answer>().await {
                if matches!(message.body, Answer::OutOfMemory) {
                    tasks.tell_of_memory(&saved.id);
                    // How often is for the guest to say: others have to be heard, too.
                    tokio::time::sleep(MEMORY_PAUSE).await;
                }
            }
        });
        *container.memory.borrow_mut() = Some(listener.abort_handle());
    }
}
