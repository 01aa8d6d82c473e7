//! A monitor and an agent made of a thread, for tests of the actor: they speak the real protocols over
//! socket pairs.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use cofferdam_agent_protocol::*;
use cofferdam_vmm_api::*;

use super::{Monitor, Pod, PodSpec, Timeouts};
use crate::timeline::Timeline;

/// The other side of a pod: what the monitor and the guest do.
pub(super) struct Guest {
    pub(super) control: Channel,
    pub(super) connections: Channel,
}

/// The agent's control connection.
pub(super) struct Agent {
    pub(super) stream: UnixStream,
}

impl Guest {
    /// Takes the request to boot, and tells of all stages.
    pub(super) fn boot(&self) {
        let message = self.control.receive::<ToMonitor>().unwrap();
        let ToMonitor::Boot(spec) = message.body else { panic!("{:?}", message.body) };
        spec.check(message.fds.len()).unwrap();
        for name in [StageName::MonitorStarted, StageName::MachineBuilt, StageName::KernelEntered] {
            self.reach(name);
        }
        let disks =
            (0..spec.disks.len()).map(|n| Bdf(24 + 8 * u16::try_from(n).unwrap())).collect();
        self.tell(&FromMonitor::Booted(Booted { disks }));
        self.reach(StageName::DriversStarted);
    }

    pub(super) fn reach(&self, name: StageName) {
        self.tell(&FromMonitor::Reached(Stage { name, at_ns: crate::timeline::now_ns() }));
    }

    pub(super) fn tell(&self, message: &FromMonitor) {
        self.control.send(message, &[]).unwrap();
    }

    /// The guest dials `port` of the host.
    pub(super) fn dial(&self, port: u32) -> UnixStream {
        let (near, far) = UnixStream::pair().unwrap();
        self.connections.send_bytes(&port.to_le_bytes(), &[far.as_fd()]).unwrap();
        near.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        near
    }

    pub(super) fn dial_agent(&self) -> Agent {
        Agent { stream: self.dial(CONTROL_PORT) }
    }

    /// The agent greets and is welcomed.
    pub(super) fn agent(&self) -> Agent {
        let mut agent = self.dial_agent();
        agent.hello(PROTOCOL_VERSION);
        assert!(matches!(agent.receive(), Some(host_frame::Body::Welcome(_))));
        agent
    }

    pub(super) fn dial_stream(&self, token: StreamToken) -> UnixStream {
        let mut stream = self.dial(STDIO_PORT);
        stream.write_all(&token.to_le_bytes()).unwrap();
        stream
    }

    /// Waits for the word to stop, or the end of the socket, and ends.
    pub(super) fn end(self) {
        while let Ok(message) = self.control.receive::<ToMonitor>() {
            if message.body == ToMonitor::Stop {
                let _ = self.control.send(&FromMonitor::Exited(ExitReason::Stopped), &[]);
                return;
            }
        }
    }
}

impl Agent {
    pub(super) fn hello(&mut self, protocol_version: u32) {
        self.send(agent_frame::Body::Hello(Hello {
            protocol_version,
            agent_version: "0".into(),
            kernel_release: "6.12".into(),
        }));
    }

    pub(super) fn send(&mut self, body: agent_frame::Body) {
        let bytes = encode(&AgentFrame { body: Some(body) }).unwrap();
        let _ = self.stream.write_all(&bytes);
    }

    pub(super) fn receive(&mut self) -> Option<host_frame::Body> {
        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header).ok()?;
        let mut body = vec![0; frame_length::<HostFrame>(header).unwrap()];
        self.stream.read_exact(&mut body).ok()?;
        decode::<HostFrame>(&body).unwrap().body
    }

    /// The next request.
    pub(super) fn request(&mut self) -> (u64, request::Body) {
        match self.receive() {
            Some(host_frame::Body::Request(Request { id, body: Some(body) })) => (id, body),
            other => panic!("no request but {other:?}"),
        }
    }

    pub(super) fn answer(&mut self, id: u64, body: response::Body) {
        self.send(agent_frame::Body::Response(Response { id, body: Some(body) }));
    }

    /// Takes the request to create, and says it is done.
    pub(super) fn created(&mut self) -> ContainerPlan {
        let (id, request::Body::Create(plan)) = self.request() else { panic!("not create") };
        self.answer(id, response::Body::Created(Created { pid: 9 }));
        *plan
    }

    /// Takes the request to start, and says it is done.
    pub(super) fn started(&mut self) {
        let (id, request::Body::Start(_)) = self.request() else { panic!("not start") };
        self.answer(id, response::Body::Done(response::Done {}));
    }

    pub(super) fn ended(&mut self, code: u32, signal: u32) {
        self.ended_of("c", code, signal);
    }

    pub(super) fn ended_of(&mut self, container: &str, code: u32, signal: u32) {
        let ended = Ended { container: container.into(), process: String::new(), code, signal };
        self.send(agent_frame::Body::Event(Event { body: Some(event::Body::Ended(ended)) }));
    }
}

/// A plan with the three standard streams.
pub(super) fn container() -> ContainerPlan {
    let stdio = Stdio { stdin: Some(0), stdout: Some(0), stderr: Some(0) };
    let process = ProcessPlan { stdio: Some(stdio), ..Default::default() };
    ContainerPlan { id: "c".into(), process: Some(process), ..Default::default() }
}

fn spec(connections: OwnedFd) -> PodSpec {
    let disk = DiskSpec { file: FdSlot(1), readonly: true, serial: String::new() };
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    PodSpec {
        machine: MachineSpec {
            version: API_VERSION,
            vcpus: 1,
            max_vcpus: None,
            memory: MiB(64),
            max_memory: None,
            huge_pages: false,
            boot: BootSpec { kernel: FdSlot(0), initrd: None, cmdline: String::new() },
            disks: vec![disk],
            vsock: Some(VsockSpec { cid: Cid(3), connections: FdSlot(2) }),
            rng: false,
            nets: vec![],
            balloon: false,
            spare_queues: 0,
            console: None,
        },
        descriptors: vec![null(), null(), connections],
        plan: PodPlan::default(),
        timeouts: Timeouts {
            hello: Duration::from_secs(2),
            token: Duration::from_millis(200),
            stop: Duration::from_secs(2),
        },
    }
}

/// Runs `host` on a pod whose other side is `guest`; gives what `host` gave and the timeline.
pub(super) fn with<T>(
    guest: impl FnOnce(Guest) + Send + 'static,
    host: impl AsyncFnOnce(&Pod) -> T,
) -> (T, Timeline) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (ours, theirs) = Channel::pair().unwrap();
        let (monitor, connections) = Monitor::over(ours).unwrap();
        let own = Channel::new(connections.try_clone().unwrap());
        let thread: JoinHandle<()> =
            std::thread::spawn(|| guest(Guest { control: theirs, connections: own }));
        let pod = Pod::launch(monitor, spec(connections), Timeline::default()).unwrap();
        let result = tokio::time::timeout(Duration::from_secs(30), host(&pod)).await.unwrap();
        let timeline = pod.stop().await;
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
        (result, timeline)
    })
}

/// A specification for a pod whose monitor says nothing.
pub(super) fn bare_spec() -> PodSpec {
    spec(std::fs::File::open("/dev/null").unwrap().into())
}
