//! `start`: a resident process for the pod of a container, or the one that there is.
//!
//! Invariant: of those that start containers of one pod at a time, one makes the process.

use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use containerd_shim_protos::bootstrap_api::BootstrapParams;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::flags::Flags;
use super::{NAME, options};

/// Where the sockets are, unless containerd says otherwise.
const SOCKETS: &str = "/run/containerd/s";

/// The file of a bundle that has the address: containerd before 1.7 looks there after it was restarted.
const ADDRESS: &str = "address";

/// The pipe of a bundle by which containerd reads what a shim logs.
const LOG: &str = "log";

/// Annotations that tell what belongs together, in containerd's order.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// Does it, in the bundle as the working directory; gives what containerd reads. `input` is what it wrote.
///
/// # Errors
/// No process could be started, or it cannot serve.
pub(super) fn start(flags: &Flags, input: &[u8]) -> Result<String> {
    let asked = bootstrap(input, &flags.id);
    let group = group(Path::new("config.json"), &flags.id)?;
    let config = config(asked.as_ref(), input)?;
    let directory = asked.as_ref().and_then(|asked| asked.socket_dir.clone());
    let directory = PathBuf::from(directory.unwrap_or_else(|| SOCKETS.to_owned()));
    let socket = socket_path(&directory, [&flags.address, &flags.namespace, &group]);
    if let Some(listener) = listen(&socket)? {
        let spawned = spawn(flags, listener, (&socket, config.as_deref()));
        spawned.inspect_err(|_| drop(std::fs::remove_file(&socket)))?;
    }
    let address = format!("unix://{}", socket.display());
    write_address(&address).context("writing the address into the bundle")?;
    Ok(answer(asked.is_some(), &address))
}

/// What containerd since 2.3 writes to a shim; others write options, or nothing.
fn bootstrap(input: &[u8], id: &str) -> Option<BootstrapParams> {
    let params = BootstrapParams::parse_from_bytes(input).ok()?;
    (params.instance_id == id && !params.containerd_version.is_empty()).then_some(params)
}

/// The configuration file that containerd's own names for the runtime, if it does.
fn config(asked: Option<&BootstrapParams>, input: &[u8]) -> Result<Option<PathBuf>> {
    // Others write the options themselves, or nothing.
    let Some(asked) = asked else {
        return options::named(Any::parse_from_bytes(input).ok().as_ref());
    };
    for extension in &asked.extensions {
        if let Some(path) = options::named(extension.value.as_ref())? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Version 3 of the parameters if containerd speaks of itself so. Others do not say what they know: a bare address means
/// version 2 to all of them, whose service is here, too.
fn answer(bootstrapped: bool, address: &str) -> String {
    if bootstrapped {
        json!({ "version": 3, "address": address, "protocol": "ttrpc" }).to_string()
    } else {
        address.to_owned()
    }
}

/// The pod of the container or sandbox `id`, whose specification is the file `config`.
fn group(config: &Path, id: &str) -> Result<String> {
    let text = match std::fs::read(config) {
        // A sandbox without a container has none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(id.to_owned()),
        read => read.with_context(|| format!("reading {}", config.display()))?,
    };
    let spec: Value =
        serde_json::from_slice(&text).with_context(|| format!("parsing {}", config.display()))?;
    let named = GROUPS.iter().find_map(|name| spec.get("annotations")?.get(name)?.as_str());
    Ok(named.unwrap_or(id).to_owned())
}

fn socket_path(directory: &Path, parts: [&str; 3]) -> PathBuf {
    use std::fmt::Write;
    let digest = Sha256::digest(parts.join("/").as_bytes());
    let mut name = String::new();
    for byte in digest {
        let _ = write!(name, "{byte:02x}");
    }
    directory.join(name)
}

/// Listens at `path`; `None` if somebody does. A socket that was left there is replaced.
pub(super) fn listen(path: &Path) -> Result<Option<UnixListener>> {
    let failed = || format!("listening at {}", path.display());
    if let Some(parent) = path.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o711).create(parent).with_context(failed)?;
    }
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Ok(None);
            }
            std::fs::remove_file(path).with_context(failed)?;
            UnixListener::bind(path)
        }
        bound => bound,
    };
    let listener = listener.with_context(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(failed)?;
    Ok(Some(listener))
}

/// Most bytes of a complaint.
const MAX_COMPLAINT: u64 = 4096;

/// What a resident process says when it serves.
pub(super) const READY: &str = "ready";

/// Starts the resident process and waits until it serves: its standard input is the listening socket, its standard error
/// containerd's log, its standard output says why it does not.
fn spawn(
    flags: &Flags,
    listener: UnixListener,
    (socket, config): (&Path, Option<&Path>),
) -> Result<()> {
    let program = std::env::current_exe().context("looking for the own program")?;
    let mut command = Command::new(program);
    command.arg0(NAME).args(["-namespace", &flags.namespace, "-id", &flags.id]);
    command.args(["-address", &flags.address, "-socket"]).arg(socket);
    if let Some(config) = config {
        command.arg("-config").arg(config);
    }
    if flags.debug {
        command.arg("-debug");
    }
    // Who reads it comes and goes with containerd, and is never waited for.
    let log = std::fs::File::options().write(true).custom_flags(libc::O_NONBLOCK).open(LOG);
    command.stderr(log.map_or_else(|_| Stdio::null(), Stdio::from));
    command.stdin(std::os::fd::OwnedFd::from(listener)).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().context("starting the resident process")?;
    adjust_oom_score(child.id());
    // The listening socket is the child's alone: nobody is to connect to one that has ended.
    drop(command);
    let mut said = String::new();
    if let Some(pipe) = child.stdout.take() {
        let read = pipe.take(MAX_COMPLAINT).read_to_string(&mut said);
        read.context("listening to the resident process")?;
    }
    match said.as_str() {
        READY => Ok(()),
        "" => {
            let status = child.wait().context("waiting for the resident process")?;
            bail!("the resident process ended before it served: {status}")
        }
        complaint => bail!("the resident process: {complaint}"),
    }
}

/// The kernel should take a shim before containerd.
fn adjust_oom_score(pid: u32) {
    const MOST: i32 = 1000;
    let path = |pid: u32| format!("/proc/{pid}/oom_score_adj");
    let parent = std::os::unix::process::parent_id();
    let score = std::fs::read_to_string(path(parent)).ok().and_then(|s| s.trim().parse().ok());
    let score = score.unwrap_or(0_i32).saturating_add(1).min(MOST);
    // Without the right to lower it, it stays.
    let _ = std::fs::write(path(pid), score.to_string());
}

fn write_address(address: &str) -> io::Result<()> {
    let hidden = format!(".{ADDRESS}");
    std::fs::write(&hidden, address)?;
    std::fs::rename(&hidden, ADDRESS)
}

/// The socket of the resident process of the container whose bundle is `bundle`, if it was written down.
pub(super) fn socket_of(bundle: &Path) -> Option<PathBuf> {
    let address = std::fs::read_to_string(bundle.join(ADDRESS)).ok()?;
    address.trim().strip_prefix("unix://").map(PathBuf::from)
}

#[cfg(test)]
#[path = "launch_test.rs"]
mod launch_test;
