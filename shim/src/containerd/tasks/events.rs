//! What containerd is told without asking.
//!
//! Invariant: one function for each kind of event.

use containerd_shim_protos::api::{CreateTaskRequest, Mount};
use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::MessageField;

use super::Tasks;
use super::process::{Exit, Process};

impl Tasks {
    pub(super) fn tell_of_creation(&self, request: &CreateTaskRequest, pid: u32) {
        let mount = |mount: &Mount| containerd_shim_protos::types::mount::Mount {
            type_: mount.type_.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
            ..Default::default()
        };
        let io = TaskIO {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
            ..Default::default()
        };
        let event = TaskCreate {
            container_id: request.id.clone(),
            bundle: request.bundle.clone(),
            rootfs: request.rootfs.iter().map(mount).collect(),
            io: MessageField::some(io),
            pid,
            ..Default::default()
        };
        self.events.tell("/tasks/create", &event);
    }

    pub(super) fn tell_of_start(&self, process: &Process) {
        let (container_id, pid) = (process.of.container.clone(), process.pid);
        if process.exec_id.is_empty() {
            let event = TaskStart { container_id, pid, ..Default::default() };
            return self.events.tell("/tasks/start", &event);
        }
        let exec_id = process.exec_id.clone();
        let event = TaskExecStarted { container_id, exec_id, pid, ..Default::default() };
        self.events.tell("/tasks/exec-started", &event);
    }

    pub(super) fn tell_of_addition(&self, process: &Process) {
        let event = TaskExecAdded {
            container_id: process.of.container.clone(),
            exec_id: process.exec_id.clone(),
            ..Default::default()
        };
        self.events.tell("/tasks/exec-added", &event);
    }

    pub(super) fn tell_of_end(&self, process: &Process, exit: Exit) {
        let container_id = process.of.container.clone();
        let is_first = process.exec_id.is_empty();
        let id = if is_first { container_id.clone() } else { process.exec_id.clone() };
        let event = TaskExit {
            container_id,
            id,
            pid: process.pid,
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at.into()),
            ..Default::default()
        };
        self.events.tell("/tasks/exit", &event);
    }

    pub(super) fn tell_of_deletion(&self, id: &str, pid: u32, exit: Exit) {
        let event = TaskDelete {
            container_id: id.to_owned(),
            pid,
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at.into()),
            ..Default::default()
        };
        self.events.tell("/tasks/delete", &event);
    }

    pub(super) fn tell_of_memory(&self, id: &str) {
        let event = TaskOOM { container_id: id.to_owned(), ..Default::default() };
        self.events.tell("/tasks/oom", &event);
    }

    pub(super) fn tell_of_freezing(&self, id: &str, frozen: bool) {
        let container_id = id.to_owned();
        if frozen {
            self.events.tell("/tasks/paused", &TaskPaused { container_id, ..Default::default() });
        } else {
            self.events.tell("/tasks/resumed", &TaskResumed { container_id, ..Default::default() });
        }
    }
}
