//! containerd's shim as a program: started, asked and shut down as containerd does. No KVM is needed: no container is made.

#![allow(clippy::unwrap_used, reason = "a failing test is to panic")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{
    ConnectRequest, ConnectResponse, CreateTaskRequest, DeleteResponse, Empty, ShutdownRequest,
    StateRequest,
};
use containerd_shim_protos::bootstrap_api::BootstrapParams;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::{Client, Code, Error, Request};
use containerd_shim_protos::types::introspection::RuntimeInfo;
use serde_json::Value;

const NAME: &str = "containerd-shim-cofferdam-v2";

/// The program by its name, and a bundle.
struct Shim {
    directory: tempfile::TempDir,
}

impl Shim {
    fn new(config: &str) -> Self {
        let shim = Self { directory: tempfile::tempdir().unwrap() };
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cofferdam"), shim.path(NAME)).unwrap();
        fs::create_dir(shim.path("bundle")).unwrap();
        fs::write(shim.path("bundle/config.json"), config).unwrap();
        shim
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, id: &str, arguments: &[&str], input: &[u8]) -> Output {
        self.run_as(Command::new(self.path(NAME)), id, arguments, input)
    }

    /// The same, by the program of `command`.
    fn run_as(&self, mut command: Command, id: &str, arguments: &[&str], input: &[u8]) -> Output {
        command.args(["-namespace", "test", "-id", id, "-address", "/no/containerd.sock"]);
        command.args(arguments).current_dir(self.path("bundle")).env_remove("TTRPC_ADDRESS");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Who fails early reads nothing.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// What containerd 2.3 writes to it.
    fn parameters(&self, id: &str) -> Vec<u8> {
        let params = BootstrapParams {
            instance_id: id.into(),
            containerd_version: "2.3.0".into(),
            socket_dir: Some(self.path("s").display().to_string()),
            ..Default::default()
        };
        params.write_to_bytes().unwrap()
    }

    /// `start` as containerd 2.3 calls it; the address.
    fn start(&self, id: &str) -> String {
        let output = self.run(id, &["start"], &self.parameters(id));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{output:?}");
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&told["version"], &told["protocol"]), (&3.into(), &"ttrpc".into()));
        told["address"].as_str().unwrap().to_owned()
    }
}

/// Asks `method` of the Task service of `version`.
fn ask(
    client: &Client,
    version: &str,
    method: &str,
    what: &impl Message,
) -> Result<Vec<u8>, Error> {
    let mut request = Request::new();
    request.set_service(format!("containerd.task.{version}.Task"));
    request.set_method(method.into());
    request.set_timeout_nano(10_000_000_000);
    request.set_payload(what.write_to_bytes().unwrap());
    client.request(request).map(|response| response.payload)
}

fn refusal(result: Result<Vec<u8>, Error>) -> (Code, String) {
    match result.unwrap_err() {
        Error::RpcStatus(status) => (status.code(), status.message().to_owned()),
        other => panic!("{other}"),
    }
}

fn wait_until_gone(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while path.exists() {
        assert!(Instant::now() < deadline, "{} is there", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn one_process_serves_a_sandbox_and_ends_when_it_is_told_to() {
    let shim = Shim::new(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#);
    let address = shim.start("pod");
    assert_eq!(shim.start("container"), address);
    let written = fs::read_to_string(shim.path("bundle/address")).unwrap();
    assert_eq!(written, address);
    let client = Client::connect(&address).unwrap();
    for version in ["v2", "v3"] {
        let connect = ConnectRequest { id: "none".into(), ..Default::default() };
        let connected = ask(&client, version, "Connect", &connect).unwrap();
        let connected = ConnectResponse::parse_from_bytes(&connected).unwrap();
        assert!(connected.shim_pid > 0 && connected.task_pid == 0, "{connected}");
        let state = StateRequest { id: "none".into(), ..Default::default() };
        let (code, text) = refusal(ask(&client, version, "State", &state));
        assert_eq!((code, text.as_str()), (Code::NOT_FOUND, "container none does not exist"));
    }
    let bundle = shim.path("bundle").display().to_string();
    let create = CreateTaskRequest { id: "c".into(), bundle, ..Default::default() };
    let (code, text) = refusal(ask(&client, "v3", "Create", &create));
    assert_eq!(code, Code::INVALID_ARGUMENT, "{text}");
    assert!(text.contains("config.json"), "{text}");
    let missing = CreateTaskRequest { id: "../c".into(), ..create };
    assert_eq!(refusal(ask(&client, "v3", "Create", &missing)).0, Code::INVALID_ARGUMENT);
    let checkpoint = refusal(ask(&client, "v2", "Checkpoint", &Empty::default()));
    assert_eq!(checkpoint.0, Code::UNIMPLEMENTED);
    ask(&client, "v2", "Shutdown", &ShutdownRequest::default()).unwrap();
    wait_until_gone(Path::new(address.strip_prefix("unix://").unwrap()));
}

#[test]
fn who_cannot_serve_says_why_in_one_line() {
    let shim = Shim::new("{}");
    let complaint = |output: &Output| {
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.starts_with(NAME) && !text.contains('\n'), "{text:?}");
        text
    };
    let text = complaint(&shim.run("c", &["-namespace", "../x", "start"], &[]));
    assert!(text.contains("-namespace \"../x\""), "{text}");
    // Its sockets would be where a file is.
    fs::write(shim.path("s"), "").unwrap();
    let params = shim.parameters("c");
    let text = complaint(&shim.run("c", &["start"], &params));
    assert!(text.contains("listening at ") && text.contains("File exists"), "{text}");
    fs::remove_file(shim.path("s")).unwrap();
    // Enough descriptors to be started, not to serve.
    let mut command = Command::new("prlimit");
    command.args(["--nofile=7", "--"]).arg(shim.path(NAME));
    let output = shim.run_as(command, "c", &["start"], &params);
    let text = complaint(&output);
    let said = "the resident process: starting its event loop: Too many open files";
    assert!(text.contains(said), "{text}");
    let sockets: Vec<_> = fs::read_dir(shim.path("s")).unwrap().flatten().collect();
    assert!(sockets.is_empty(), "{sockets:?}");
    // Nobody knows what it belongs to.
    fs::write(shim.path("bundle/config.json"), "{").unwrap();
    let text = complaint(&shim.run("c", &["start"], &params));
    assert!(text.contains("parsing config.json: EOF"), "{text}");
}

#[test]
fn what_was_killed_is_deleted_with_the_status_of_a_killed_one() {
    let shim = Shim::new("{}");
    let bundle = shim.path("bundle").display().to_string();
    let output = shim.run("no-such-container", &["-bundle", &bundle, "delete"], &[]);
    assert!(output.status.success(), "{output:?}");
    let response = DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!((response.pid, response.exit_status), (0, 137));
    assert!(response.exited_at.seconds > 1_000_000_000);
}

#[test]
fn it_tells_about_itself_and_names_what_it_does_not_know() {
    let shim = Shim::new("{}");
    let info = RuntimeInfo::parse_from_bytes(&shim.run("c", &["-info"], &[]).stdout).unwrap();
    assert_eq!(info.name, "io.containerd.cofferdam.v2");
    let version = String::from_utf8(shim.run("c", &["-v"], &[]).stdout).unwrap();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let wrong = shim.run("c", &["-unknown", "x", "start"], &[]);
    assert!(!wrong.status.success());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("-unknown"));
    let without = shim.run("c", &[], &[]);
    assert!(String::from_utf8_lossy(&without.stderr).contains("containerd starts this program"));
}
