//! The host's side: sockets, requests, streams.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cofferdam_agent_protocol::*;

/// Streams get tokens from here.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A running agent and the connection to it.
pub(crate) struct Host {
    agent: Child,
    control: UnixStream,
    stdio: UnixListener,
    streams: HashMap<u64, UnixStream>,
    events: Vec<event::Body>,
    requests: u64,
    pub(crate) directory: tempfile::TempDir,
}

/// What became of a process.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: u32,
    pub(crate) signal: u32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Whether this machine can run the agent; says why it cannot.
pub(crate) fn possible() -> bool {
    if in_guest() {
        return true;
    }
    let root = nix::unistd::geteuid().is_root();
    let cgroup = Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists();
    if !root || !cgroup {
        eprintln!("skipped: needs root and cgroup v2 at /sys/fs/cgroup/unified");
    }
    root && cgroup
}

/// A program to run instead of the agent, with the same environment: a script that starts a guest whose
/// vsock ends at the sockets, for example.
const INSTEAD: &str = "COFFERDAM_TEST_AGENT";

/// Whether the agent is in a guest, where this machine's files are not.
pub(crate) fn in_guest() -> bool {
    std::env::var_os(INSTEAD).is_some()
}

/// The address of the only layer: the disk after vsock and rng in a guest.
fn layer() -> u32 {
    if in_guest() { 0x18 } else { 0x10 }
}

impl Host {
    /// An agent that was greeted.
    pub(crate) fn new() -> Self {
        let mut host = Self::silent();
        host.welcome(PROTOCOL_VERSION);
        host
    }

    /// Answers the agent's greeting.
    pub(crate) fn welcome(&mut self, protocol_version: u32) {
        let pod = Some(PodPlan::default());
        self.send(host_frame::Body::Welcome(Welcome { protocol_version, pod }));
    }

    /// An agent that said hello and got no answer.
    pub(crate) fn silent() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(directory.path(), Some(0), Some(0)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), mode).unwrap();
        let disks = directory.path().join("disks");
        std::fs::create_dir(&disks).unwrap();
        std::os::unix::fs::symlink("/", disks.join("0000:00:02.0")).unwrap();
        let listen =
            |port: u32| UnixListener::bind(directory.path().join(port.to_string())).unwrap();
        let (control, stdio) = (listen(CONTROL_PORT), listen(STDIO_PORT));
        let built = env!("CARGO_BIN_EXE_cofferdam-agent").into();
        let agent = Command::new(std::env::var_os(INSTEAD).unwrap_or(built))
            .env("COFFERDAM_AGENT_DIR", directory.path())
            .spawn()
            .unwrap();
        let (control, _) = control.accept().unwrap();
        control.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let mut host = Self {
            agent,
            control,
            stdio,
            streams: HashMap::new(),
            events: Vec::new(),
            requests: 0,
            directory,
        };
        let Some(agent_frame::Body::Hello(hello)) = host.receive() else { panic!("no hello") };
        assert_eq!(hello.protocol_version, PROTOCOL_VERSION);
        host
    }

    /// Sends one frame.
    pub(crate) fn send(&mut self, body: host_frame::Body) {
        let bytes = encode(&HostFrame { body: Some(body) }).unwrap();
        self.control.write_all(&bytes).unwrap();
    }

    /// The next frame; `None` at the end.
    pub(crate) fn receive(&mut self) -> Option<agent_frame::Body> {
        let mut header = [0; HEADER];
        self.control.read_exact(&mut header).ok()?;
        let mut body = vec![0; frame_length::<AgentFrame>(header).unwrap()];
        self.control.read_exact(&mut body).unwrap();
        decode::<AgentFrame>(&body).unwrap().body
    }

    /// Makes a request; events on the way are kept.
    pub(crate) fn request(&mut self, body: request::Body) -> response::Body {
        self.requests += 1;
        let id = self.requests;
        self.send(host_frame::Body::Request(Request { id, body: Some(body) }));
        loop {
            match self.receive().expect("the agent ended") {
                agent_frame::Body::Response(response) => {
                    assert_eq!(response.id, id);
                    return response.body.unwrap();
                }
                agent_frame::Body::Event(event) => self.events.push(event.body.unwrap()),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Makes a request that must be done.
    pub(crate) fn done(&mut self, body: request::Body) {
        let answer = self.request(body);
        assert!(matches!(answer, response::Body::Done(_)), "{answer:?}");
    }

    /// Makes a request that must fail.
    pub(crate) fn refused(&mut self, body: request::Body) -> (ErrorKind, String) {
        match self.request(body) {
            response::Body::Error(error) => (error.kind(), error.message),
            other => panic!("{other:?}"),
        }
    }

    /// Creates a container; returns its first process's id.
    pub(crate) fn create(&mut self, plan: ContainerPlan) -> u32 {
        match self.request(request::Body::Create(Box::new(plan))) {
            response::Body::Created(created) => created.pid,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn start(&mut self, container: &str) {
        self.done(request::Body::Start(request::Start {
            container: container.into(),
            files: vec![],
        }));
    }

    /// Starts one more process.
    pub(crate) fn exec(&mut self, container: &str, process: &str, plan: ProcessPlan) -> u32 {
        match self.request(exec(container, process, plan)) {
            response::Body::Created(created) => created.pid,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn delete(&mut self, container: &str, force: bool) {
        let delete = request::Delete { container: container.into(), process: String::new(), force };
        self.done(request::Body::Delete(delete));
    }

    /// The next event.
    pub(crate) fn event(&mut self) -> event::Body {
        if !self.events.is_empty() {
            return self.events.remove(0);
        }
        match self.receive().expect("the agent ended") {
            agent_frame::Body::Event(event) => event.body.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the end of a process: its code and signal.
    pub(crate) fn ended(&mut self, container: &str, process: &str) -> (u32, u32) {
        match self.event() {
            event::Body::Ended(ended) => {
                assert_eq!(
                    (ended.container.as_str(), ended.process.as_str()),
                    (container, process)
                );
                (ended.code, ended.signal)
            }
            other @ event::Body::OutOfMemory(_) => panic!("{other:?}"),
        }
    }

    /// The connection of the stream `token`.
    pub(crate) fn stream(&mut self, token: u64) -> UnixStream {
        loop {
            if let Some(stream) = self.streams.remove(&token) {
                return stream;
            }
            let (mut stream, _) = self.stdio.accept().unwrap();
            let mut got = [0; 8];
            stream.read_exact(&mut got).unwrap();
            self.streams.insert(u64::from_le_bytes(got), stream);
        }
    }

    /// All that comes from the stream `token`.
    pub(crate) fn all(&mut self, token: u64) -> String {
        let mut text = String::new();
        self.stream(token).read_to_string(&mut text).unwrap();
        text
    }

    /// Runs a container to its end and deletes it.
    pub(crate) fn run(&mut self, plan: ContainerPlan) -> Outcome {
        let id = plan.id.clone();
        let stdio = plan.process.as_ref().unwrap().stdio.clone().unwrap();
        self.create(plan);
        self.start(&id);
        let stdout = self.all(stdio.stdout.unwrap());
        let stderr = self.all(stdio.stderr.unwrap());
        let (code, signal) = self.ended(&id, "");
        self.delete(&id, false);
        Outcome { code, signal, stdout, stderr }
    }

    /// Runs a shell script in a container of the ordinary kind; its output.
    pub(crate) fn shell(&mut self, script: &str) -> String {
        self.shell_in(container("shell", &["/bin/sh", "-c", script]))
    }

    /// Runs a container that must succeed; its output.
    pub(crate) fn shell_in(&mut self, plan: ContainerPlan) -> String {
        let outcome = self.run(plan);
        assert_eq!((outcome.code, outcome.signal), (0, 0), "{outcome:?}");
        outcome.stdout
    }

    /// A directory that stands for the disk `name`, on a file system that an overlay can write to.
    pub(crate) fn disk(&self, name: &str) -> tempfile::TempDir {
        let disk = tempfile::tempdir_in("/dev/shm").unwrap();
        std::os::unix::fs::symlink(disk.path(), self.directory.path().join("disks").join(name))
            .unwrap();
        disk
    }

    /// Whether something is mounted at `path` below the agent's directory, as the agent sees it.
    pub(crate) fn is_mounted(&self, path: &str) -> bool {
        let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", self.agent.id())).unwrap();
        let path = self.directory.path().join(path);
        let wanted = path.to_str();
        mounts.lines().any(|line| line.split(' ').nth(1) == wanted)
    }

    /// How the agent ended.
    pub(crate) fn status(&mut self) -> std::process::ExitStatus {
        self.agent.wait().unwrap()
    }

    /// Asks the agent to shut down; nothing of it may be left.
    pub(crate) fn shutdown(mut self) {
        self.done(request::Body::Shutdown(request::Shutdown {}));
        assert!(self.agent.wait().unwrap().success());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        let _ = self.agent.wait();
        let groups = Path::new("/sys/fs/cgroup/unified/cofferdam-test");
        let group = groups.join(self.agent.id().to_string());
        for container in std::fs::read_dir(&group).into_iter().flatten().flatten() {
            let _ = std::fs::write(container.path().join("cgroup.kill"), "1");
            std::thread::sleep(Duration::from_millis(20));
            let _ = std::fs::remove_dir(container.path());
        }
        let _ = std::fs::remove_dir(&group);
        let _ = std::fs::remove_dir(groups);
    }
}

/// A token for a stream.
pub(crate) fn token() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A request to start one more process.
pub(crate) fn exec(container: &str, process: &str, plan: ProcessPlan) -> request::Body {
    let (container, process) = (container.into(), process.into());
    let (plan, cgroup) = (Some(Box::new(plan)), String::new());
    request::Body::Exec(request::Exec { container, process, plan, cgroup })
}

/// A process that runs `args`, with streams.
pub(crate) fn process(args: &[&str]) -> ProcessPlan {
    let all = (1 << 41) - 1;
    // The machine that runs the tests may lack some.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).unwrap();
    let all = all & u64::from_str_radix(line, 16).unwrap();
    ProcessPlan {
        args: args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env: vec![b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_vec()],
        cwd: b"/".into(),
        capabilities: Some(Capabilities {
            bounding: all,
            effective: all,
            inheritable: 0,
            permitted: all,
            ambient: 0,
        }),
        stdio: Some(Stdio { stdin: None, stdout: Some(token()), stderr: Some(token()) }),
        ..ProcessPlan::default()
    }
}

/// A mount of a file system.
pub(crate) fn filesystem(fstype: &str, destination: &str, data: &str) -> Mount {
    let mut mount = Mount {
        fstype: fstype.into(),
        source: fstype.into(),
        destination: destination.into(),
        data: data.into(),
        ..Mount::default()
    };
    mount.set_kind(MountKind::Filesystem);
    mount
}

/// A new namespace.
pub(crate) fn namespace(kind: NamespaceKind) -> Namespace {
    let mut namespace = Namespace::default();
    namespace.set_kind(kind);
    namespace
}

/// The devices that the host's plans bring for every container.
fn devices() -> Vec<DeviceNode> {
    let all = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9)];
    let device = |(name, major, minor)| {
        let path = format!("/dev/{name}").into_bytes();
        let mut device = DeviceNode { path, major, minor, mode: 0o666, ..DeviceNode::default() };
        device.set_kind(DeviceType::Character);
        device
    };
    all.into_iter().chain([("tty", 5, 0)]).map(device).collect()
}

/// The namespace of the container `target`.
pub(crate) fn joined(kind: NamespaceKind, target: &str) -> Namespace {
    Namespace { join: target.into(), ..namespace(kind) }
}

/// A container of the ordinary kind that runs `args`.
pub(crate) fn container(id: &str, args: &[&str]) -> ContainerPlan {
    let kinds = [
        NamespaceKind::Mount,
        NamespaceKind::Pid,
        NamespaceKind::Network,
        NamespaceKind::Ipc,
        NamespaceKind::Uts,
        NamespaceKind::Cgroup,
    ];
    ContainerPlan {
        id: id.into(),
        rootfs: Some(RootfsPlan {
            layers: vec![layer()],
            upper: Some(Upper::Tmpfs(upper::Tmpfs { bytes: 64 << 20 })),
            ..RootfsPlan::default()
        }),
        mounts: vec![
            filesystem("proc", "/proc", ""),
            filesystem("tmpfs", "/dev", "mode=755,size=65536k"),
            filesystem("devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620,gid=5"),
            filesystem("tmpfs", "/dev/shm", "mode=1777"),
            filesystem("mqueue", "/dev/mqueue", ""),
            filesystem("sysfs", "/sys", ""),
            filesystem("cgroup", "/sys/fs/cgroup", ""),
        ],
        namespaces: kinds.map(namespace).to_vec(),
        devices: devices(),
        hostname: "boxed".into(),
        process: Some(process(args)),
        ..ContainerPlan::default()
    }
}
