//! The actor that owns a pod.
//!
//! ```text
//! booting --Booted--> booted --Hello--> ready --Stop--> gone
//!    |                  |                 |
//!    +------------------+-----------------+--(any failure)--> failed --Stop--> gone
//! ```
//!
//! Invariant: after a failure the machine is stopped at once, and every waiter and every later command
//! gets that failure; only processes that were asked for are remembered.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::Duration;

use cofferdam_agent_protocol::{
    AgentFrame, Event, HostFrame, PROTOCOL_VERSION, PodPlan, Refusal, Request, Response,
    StreamToken, Welcome, agent_frame, event, host_frame, request, response,
};
use cofferdam_vmm_api::{Bdf, FromMonitor, ToMonitor};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::dials::{self, Dials};
use super::error::{Cause, PodError};
use super::link::Link;
use super::monitor::{Monitor, Said};
use super::vsock::{self, Incoming};
use super::{ExitStatus, PodSpec};
use crate::timeline::{PodStage, Timeline};

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the request to boot to the agent's hello.
    pub hello: Duration,
    /// For the token of a stream.
    pub token: Duration,
    /// For the monitor to end after it was told to.
    pub stop: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(120),
            token: Duration::from_secs(10),
            stop: Duration::from_secs(3),
        }
    }
}

type Reply<T> = oneshot::Sender<Result<T, PodError>>;

/// The names of a container and of a process in it; the first one's is empty.
pub(super) type Name = (String, String);

/// What the actor can be asked.
#[derive(Debug)]
pub(super) enum Command {
    /// Answer when the agent is ready.
    Ready(Reply<Vec<Bdf>>),
    /// Hand over the stream that names this token.
    Expect { token: StreamToken, stream: oneshot::Sender<UnixStream> },
    /// Ask the agent.
    Request { body: request::Body, reply: Reply<response::Body> },
    /// Ask the monitor.
    Tell { message: ToMonitor, fds: Vec<OwnedFd>, reply: Reply<FromMonitor> },
    /// Answer when a process has ended.
    Wait { of: Name, reply: Reply<ExitStatus> },
    /// A process is waited for that the guest was not asked for.
    Remember(Name),
    /// A process, or a container with all of its processes, is deleted.
    Forget(Name),
    /// Stop the machine; the last command.
    Stop,
}

/// A process.
#[derive(Debug, Default)]
struct Process {
    ended: Option<ExitStatus>,
    waiters: Vec<Reply<ExitStatus>>,
}

/// A request that is not answered yet.
#[derive(Debug)]
struct Pending {
    reply: Reply<response::Body>,
    stage: Option<PodStage>,
    tokens: Vec<StreamToken>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Actor {
    monitor: Monitor,
    spec: PodSpec,
    timeline: Timeline,
    commands: mpsc::Receiver<Command>,
    incoming: mpsc::Receiver<Incoming>,
    handshakes: vsock::Handshakes,
    link: Option<Link>,
    disks: Option<Vec<Bdf>>,
    ready: bool,
    failure: Option<PodError>,
    ready_waiters: Vec<Reply<Vec<Bdf>>>,
    dials: Dials,
    pending: HashMap<u64, Pending>,
    next_request: u64,
    /// What the monitor was asked; it answers in turn.
    asked: VecDeque<Reply<FromMonitor>>,
    processes: HashMap<Name, Process>,
    hello_deadline: Instant,
    out_of_memory: broadcast::Sender<String>,
    oom_told: bool,
}

impl Actor {
    pub(super) fn new(
        monitor: Monitor,
        spec: PodSpec,
        timeline: Timeline,
        (commands, out_of_memory): (mpsc::Receiver<Command>, broadcast::Sender<String>),
    ) -> std::io::Result<Self> {
        let (handshakes, incoming) = vsock::Handshakes::new(spec.timeouts.token);
        let hello_deadline = Instant::now() + spec.timeouts.hello;
        let dials = Dials::new(spec.timeouts.token);
        Ok(Self {
            dials,
            monitor,
            spec,
            timeline,
            commands,
            incoming,
            handshakes,
            link: None,
            out_of_memory,
            oom_told: false,
            disks: None,
            ready: false,
            failure: None,
            ready_waiters: Vec::new(),
            pending: HashMap::new(),
            next_request: 1,
            asked: VecDeque::new(),
            processes: HashMap::new(),
            hello_deadline,
        })
    }

    /// Boots the machine and serves the pod until it is told to stop.
    pub(super) async fn run(mut self) -> Timeline {
        let descriptors = std::mem::take(&mut self.spec.descriptors);
        let boot = ToMonitor::Boot(Box::new(self.spec.machine.clone()));
        if let Err(error) = self.monitor.send(&boot, &descriptors) {
            self.monitor_lost(&error).await;
        }
        drop(descriptors);
        while self.turn().await {}
        self.fail(Cause::Stopped).await;
        self.monitor.end(self.spec.timeouts.stop).await;
        self.timeline.reach(PodStage::MachineGone);
        self.timeline
    }

    /// Handles one thing that happened; whether there is more to do.
    async fn turn(&mut self) -> bool {
        let alive = self.failure.is_none();
        let waiting = alive && !self.ready;
        let due = self.dials.next();
        tokio::select! {
            command = self.commands.recv() => match command {
                None | Some(Command::Stop) => return false,
                Some(command) => self.command(command).await,
            },
            said = self.monitor.next(), if alive => match said {
                Said::Message(Ok(message)) => self.monitor_said(message).await,
                Said::Message(Err(error)) => self.monitor_lost(&error).await,
                Said::Connection(port, stream) => {
                    self.handshakes.accept(port, stream, self.link.is_some());
                }
            },
            incoming = self.incoming.recv(), if alive => {
                if let Some(incoming) = incoming {
                    self.incoming(incoming).await;
                }
            }
            frame = receive(&mut self.link), if alive => match frame {
                Ok(frame) => self.frame(frame).await,
                Err(reason) => self.agent_lost(reason).await,
            },
            () = sleep_until(self.hello_deadline), if waiting => {
                self.fail(Cause::NoHello(self.spec.timeouts.hello.as_secs())).await;
            }
            () = sleep_until(due.unwrap_or(self.hello_deadline)), if due.is_some() => {
                self.dials.give_up();
            }
        }
        true
    }

    async fn command(&mut self, command: Command) {
        match (command, self.failure.clone()) {
            (Command::Ready(reply), Some(failure)) => drop(reply.send(Err(failure))),
            (Command::Request { reply, .. }, Some(failure)) => drop(reply.send(Err(failure))),
            (Command::Tell { reply, .. }, Some(failure)) => drop(reply.send(Err(failure))),
            (Command::Tell { message, fds, reply }, None) => {
                self.asked.push_back(reply);
                if let Err(error) = self.monitor.send(&message, &fds) {
                    self.monitor_lost(&error).await;
                }
            }
            (Command::Wait { of, reply }, failure) => self.wait(&of, reply, failure),
            (Command::Remember(name), _) => drop(self.processes.entry(name).or_default()),
            (Command::Forget((container, process)), _) => self.processes.retain(|name, _| {
                name.0 != container || !(process.is_empty() || name.1 == process)
            }),
            (Command::Expect { .. }, Some(_)) | (Command::Stop, _) => {}
            (Command::Ready(reply), None) => {
                self.ready_waiters.push(reply);
                self.tell_ready();
            }
            (Command::Expect { token, stream }, None) => self.dials.expect(token, stream),
            (Command::Request { body, reply }, None) => self.request(body, reply).await,
        }
    }

    fn wait(&mut self, of: &Name, reply: Reply<ExitStatus>, failure: Option<PodError>) {
        let process = self.processes.get_mut(of);
        match (process, failure) {
            (Some(Process { ended: Some(status), .. }), _) => drop(reply.send(Ok(*status))),
            (_, Some(failure)) => drop(reply.send(Err(failure))),
            (Some(process), None) => process.waiters.push(reply),
            (None, None) => drop(reply.send(Err(self.error(Cause::WrongAnswer("wait"))))),
        }
    }

    async fn request(&mut self, body: request::Body, reply: Reply<response::Body>) {
        let stage = match &body {
            request::Body::Create(plan) => {
                self.processes.entry((plan.id.clone(), String::new())).or_default();
                Some(PodStage::ContainerCreated)
            }
            request::Body::Exec(exec) => {
                self.processes.entry((exec.container.clone(), exec.process.clone())).or_default();
                None
            }
            request::Body::Start(_) => Some(PodStage::ContainerStarted),
            _ => None,
        };
        let id = self.next_request;
        self.next_request += 1;
        // Whoever has given up waits no more.
        self.pending.retain(|_, pending| !pending.reply.is_closed());
        self.pending.insert(id, Pending { reply, stage, tokens: dials::tokens(&body) });
        self.send(host_frame::Body::Request(Request { id, body: Some(body) })).await;
    }

    async fn send(&mut self, body: host_frame::Body) {
        let result = match self.link.as_mut().filter(|_| self.ready) {
            Some(link) => link.send(&HostFrame { body: Some(body) }),
            None => Err("it is not there yet".into()),
        };
        if let Err(reason) = result {
            self.agent_lost(reason).await;
        }
    }

    async fn monitor_said(&mut self, message: FromMonitor) {
        match message {
            FromMonitor::Reached(stage) => self.timeline.reach_at(stage.name.into(), stage.at_ns),
            FromMonitor::Booted(booted) if booted.disks.len() == self.spec.machine.disks.len() => {
                self.disks = Some(booted.disks);
                self.tell_ready();
            }
            FromMonitor::Booted(booted) => {
                let text = format!("it tells of {} disks", booted.disks.len());
                self.fail(Cause::Monitor(text)).await;
            }
            FromMonitor::Confined { missing } => {
                for what in missing {
                    tracing::warn!("this host lets the monitor run without {what} only");
                }
            }
            // Nobody asks for it yet; the last account comes unasked.
            FromMonitor::Stats(_) => {}
            FromMonitor::Paused
            | FromMonitor::Resumed
            | FromMonitor::Memory(_)
            | FromMonitor::Attached(_)
            | FromMonitor::Detached { .. }
            | FromMonitor::Refused(_) => match self.asked.pop_front() {
                Some(reply) => drop(reply.send(Ok(message))),
                None => self.fail(Cause::Monitor("it answers what nobody asked".into())).await,
            },
            FromMonitor::Failed(text) => self.fail(Cause::Build(text)).await,
            FromMonitor::Exited(reason) => self.fail(Cause::Ended(reason)).await,
        }
    }

    /// The monitor closed its socket or sent nonsense. If it died, its own words are the better cause.
    async fn monitor_lost(&mut self, error: &str) {
        let cause = match self.monitor.obituary().await {
            Some(text) => Cause::MonitorGone(text),
            None => Cause::Monitor(error.to_owned()),
        };
        self.fail(cause).await;
    }

    /// The agent's connection broke. When the whole machine ended, that is the better cause: the monitor
    /// is given a moment to tell.
    async fn agent_lost(&mut self, reason: String) {
        let told = tokio::time::timeout(Duration::from_secs(1), async {
            loop {
                match self.monitor.receive().await {
                    Ok(FromMonitor::Exited(reason)) => break Ok(reason),
                    Ok(FromMonitor::Reached(stage)) => {
                        self.timeline.reach_at(stage.name.into(), stage.at_ns);
                    }
                    Ok(_) => {}
                    Err(error) => break Err(error),
                }
            }
        });
        match told.await {
            Ok(Ok(ended)) => self.fail(Cause::Ended(ended)).await,
            Ok(Err(error)) => self.monitor_lost(&error).await,
            Err(_) => self.fail(Cause::AgentLost(reason)).await,
        }
    }

    async fn incoming(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Control(stream) if self.link.is_none() => {
                self.link = Some(Link::new(stream));
            }
            Incoming::Control(_) => {}
            Incoming::Stream(token, stream) => {
                if !self.dials.came(token, stream) {
                    tracing::debug!("the guest named an unknown stream");
                }
            }
        }
    }

    async fn frame(&mut self, frame: AgentFrame) {
        match frame.body {
            Some(agent_frame::Body::Hello(hello)) if !self.ready => {
                if hello.protocol_version == PROTOCOL_VERSION {
                    self.welcome().await;
                } else {
                    self.refuse(hello.protocol_version).await;
                }
            }
            Some(agent_frame::Body::Refusal(Refusal { reason })) => {
                self.fail(Cause::Refused(crate::tail::printable(reason.as_bytes()))).await;
            }
            Some(agent_frame::Body::Response(response)) if self.ready => self.response(response),
            Some(agent_frame::Body::Event(event)) if self.ready => self.event(event),
            _ => self.fail(Cause::AgentLost("it sent a frame out of turn".into())).await,
        }
    }

    async fn welcome(&mut self) {
        self.timeline.reach(PodStage::AgentHello);
        self.ready = true;
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let realtime_ns = u64::try_from(since.as_nanos()).unwrap_or(0);
        let pod = PodPlan { realtime_ns, ..self.spec.plan.clone() };
        let welcome = Welcome { protocol_version: PROTOCOL_VERSION, pod: Some(pod) };
        self.send(host_frame::Body::Welcome(welcome)).await;
        self.tell_ready();
    }

    async fn refuse(&mut self, theirs: u32) {
        let reason = format!("this host speaks protocol version {PROTOCOL_VERSION}");
        let refusal = HostFrame { body: Some(host_frame::Body::Refusal(Refusal { reason })) };
        if let Some(link) = self.link.as_mut() {
            let _ = link.send(&refusal);
        }
        self.fail(Cause::Version { theirs, ours: PROTOCOL_VERSION }).await;
    }

    fn response(&mut self, response: Response) {
        let (Some(pending), Some(body)) = (self.pending.remove(&response.id), response.body) else {
            return;
        };
        if matches!(body, response::Body::Created(_)) {
            self.dials.made(pending.tokens);
        }
        if let Some(stage) = pending.stage.filter(|_| !matches!(body, response::Body::Error(_))) {
            self.timeline.reach(stage);
        }
        let _ = pending.reply.send(Ok(body));
    }

    fn event(&mut self, event: Event) {
        match event.body {
            Some(event::Body::Ended(ended)) => {
                let first = ended.process.is_empty();
                let name = (ended.container, ended.process);
                let Some(process) = self.processes.get_mut(&name) else { return };
                let byte = |n: u32| u8::try_from(n & 0xff).unwrap_or(0);
                let status = ExitStatus { code: byte(ended.code), signal: byte(ended.signal) };
                process.ended.get_or_insert(status);
                if first {
                    self.timeline.reach(PodStage::ContainerExited);
                }
                for waiter in process.waiters.drain(..) {
                    let _ = waiter.send(Ok(status));
                }
            }
            Some(event::Body::OutOfMemory(of)) => {
                // Once: the guest decides how often it says so.
                if !std::mem::replace(&mut self.oom_told, true) {
                    tracing::warn!("the guest's kernel killed a process for lack of memory");
                }
                // There may be nobody who listens.
                let _ = self.out_of_memory.send(of.container);
            }
            None => {}
        }
    }

    fn tell_ready(&mut self) {
        if let Some(disks) = self.disks.as_ref().filter(|_| self.ready) {
            for waiter in self.ready_waiters.drain(..) {
                let _ = waiter.send(Ok(disks.clone()));
            }
        }
    }

    /// Fails the pod, once; everyone who waits is told.
    async fn fail(&mut self, cause: Cause) {
        if self.failure.is_some() {
            return;
        }
        let failure = self.error(cause);
        self.failure = Some(failure.clone());
        self.monitor.stop();
        self.link = None;
        self.dials.clear();
        for waiter in self.ready_waiters.drain(..) {
            let _ = waiter.send(Err(failure.clone()));
        }
        for reply in self.asked.drain(..) {
            let _ = reply.send(Err(failure.clone()));
        }
        for (_, pending) in self.pending.drain() {
            let _ = pending.reply.send(Err(failure.clone()));
        }
        for waiter in self.processes.values_mut().flat_map(|process| process.waiters.drain(..)) {
            let _ = waiter.send(Err(failure.clone()));
        }
    }

    fn error(&self, cause: Cause) -> PodError {
        PodError { stage: self.timeline.last(), cause }
    }
}

/// The next frame of the agent; never without one.
async fn receive(link: &mut Option<Link>) -> Result<AgentFrame, String> {
    match link {
        Some(link) => link.receive().await,
        None => std::future::pending().await,
    }
}
