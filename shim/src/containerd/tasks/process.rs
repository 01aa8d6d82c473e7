//! A process as containerd knows it: the first one of a container, or one that was added to it.
//!
//! ```text
//! Created --Start--> Starting --> Running --> Ended
//!    |                   \-- it could not be started: Created again
//!    +-- killed before its start -------------> Ended
//! ```
//!
//! Invariant: the end of a process is told once, after its start, with the time at which the guest told of it.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cofferdam_agent_protocol::ProcessPlan;
use containerd_shim_protos::ttrpc::Code;
use tokio::sync::watch;

use super::super::refusal::Refusal;
use super::super::stdio::Stdio;
use crate::control::{End, FromProxy, Of};
use crate::pod::ExitStatus;
use crate::socket::Socket;

/// The status of a process that was killed, or went with its pod.
const KILLED: u32 = 137;

/// How long what a killed process has written may stay without anybody who reads it.
const UNREAD: Duration = Duration::from_secs(10);

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It waits for its start.
    Created,
    /// It is being started.
    Starting,
    /// It runs.
    Running,
    /// It has ended.
    Ended(Exit),
}

/// How and when a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Exit {
    /// As a shell tells it.
    pub(in super::super) status: u32,
    /// When.
    pub(in super::super) at: SystemTime,
}

impl Exit {
    /// What a supervisor said, or that it is gone.
    fn of(end: Option<End>) -> Self {
        match end {
            Some(End { result: Ok((code, signal)), at_ns, .. }) => {
                let status = ExitStatus { code, signal }.shell_code();
                Self { status: status.into(), at: UNIX_EPOCH + Duration::from_nanos(at_ns) }
            }
            Some(End { result: Err(failure), at_ns, .. }) => {
                tracing::error!("{failure}");
                Self { status: KILLED, at: UNIX_EPOCH + Duration::from_nanos(at_ns) }
            }
            None => Self { status: KILLED, at: SystemTime::now() },
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Process {
    /// In the guest.
    pub(super) of: Of,
    /// containerd's name for it; empty for the first one.
    pub(super) exec_id: String,
    /// Its number on the host.
    pub(super) pid: u32,
    /// Its streams.
    pub(super) stdio: Stdio,
    /// What it is to be, before its start, if it was added.
    pub(super) plan: RefCell<Option<ProcessPlan>>,
    /// The terminal's size, if it came before the start.
    size: Cell<Option<(u16, u16)>>,
    /// Keeps its standard input open.
    input: RefCell<Option<OwnedFd>>,
    /// Nobody writes to it any more.
    input_ended: Cell<bool>,
    /// The socket over which we stand for it, once it is in the guest.
    socket: RefCell<Option<Rc<Socket>>>,
    life: watch::Sender<Life>,
}

impl Process {
    /// One that is not in the guest yet.
    pub(super) fn new(of: Of, exec_id: &str, stdio: Stdio) -> Self {
        Self {
            of,
            exec_id: exec_id.to_owned(),
            pid: std::process::id(),
            stdio,
            plan: RefCell::default(),
            size: Cell::default(),
            input: RefCell::default(),
            input_ended: Cell::default(),
            socket: RefCell::default(),
            life: watch::Sender::new(Life::Created),
        }
    }

    /// The same with another number on the host than that of this process.
    pub(super) fn with_pid(self, pid: u32) -> Self {
        Self { pid, ..self }
    }

    pub(super) fn life(&self) -> Life {
        *self.life.borrow()
    }

    pub(super) fn set(&self, life: Life) {
        // The end is the end.
        self.life.send_if_modified(|now| {
            let changes = !matches!(now, Life::Ended(_));
            if changes {
                *now = life;
            }
            changes
        });
    }

    /// It begins to start.
    pub(super) fn begin(&self) -> Result<(), Refusal> {
        match self.life() {
            Life::Created => {
                self.set(Life::Starting);
                Ok(())
            }
            other => {
                let state = name(other);
                let text = format!("cannot start a process in the {state} state");
                Err(Refusal::new(Code::FAILED_PRECONDITION, text))
            }
        }
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> Exit {
        let mut life = self.life.subscribe();
        loop {
            if let Life::Ended(exit) = *life.borrow_and_update() {
                return exit;
            }
            if life.changed().await.is_err() {
                return Exit::of(None);
            }
        }
    }

    /// It is in the guest: we stand for it over `socket`, and `input` keeps its standard input open.
    pub(super) fn is_made(&self, socket: Socket, input: Option<OwnedFd>) {
        *self.input.borrow_mut() = input.filter(|_| !self.input_ended.get());
        *self.socket.borrow_mut() = Some(Rc::new(socket));
    }

    /// How it ends, when the supervisor tells; not before a start that is under way.
    pub(super) async fn exit(&self) -> Exit {
        let socket = self.socket.borrow().clone();
        let end = match socket {
            Some(socket) => socket.receive::<End>().await.ok().map(|message| message.body),
            None => None,
        };
        let exit = Exit::of(end);
        let mut life = self.life.subscribe();
        while *life.borrow_and_update() == Life::Starting {
            if life.changed().await.is_err() {
                break;
            }
        }
        exit
    }

    /// Nobody writes to it any more: that may be known while it is being started.
    pub(super) fn close_input(&self) {
        self.input_ended.set(true);
        drop(self.input.borrow_mut().take());
    }

    /// Its terminal has this many rows and columns.
    pub(super) async fn resize(&self, rows: u16, columns: u16) {
        self.size.set(Some((rows, columns)));
        self.say(&FromProxy::Size(rows, columns)).await;
    }

    /// The terminal's size that came before the start.
    pub(super) fn size(&self) -> Option<(u16, u16)> {
        self.size.get()
    }

    /// What it has written is not waited for any more, once it was killed and some time has passed.
    pub(super) fn will_be_given_up(self: &Rc<Self>) {
        let process = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(UNREAD).await;
            if let Some(process) = process.upgrade()
                && !matches!(process.life(), Life::Ended(_))
            {
                process.say(&FromProxy::Signal(libc::SIGTERM.cast_unsigned())).await;
            }
        });
    }

    async fn say(&self, what: &FromProxy) {
        let socket = self.socket.borrow().clone();
        if let Some(socket) = socket {
            // A supervisor that is gone is found out by whoever waits for the end.
            let _ = socket.send(what, &[]).await;
        }
    }
}

/// What a state is called.
pub(super) fn name(life: Life) -> &'static str {
    match life {
        Life::Created => "created",
        Life::Starting => "starting",
        Life::Running => "running",
        Life::Ended(_) => "stopped",
    }
}

#[cfg(test)]
#[path = "process_test.rs"]
mod process_test;
