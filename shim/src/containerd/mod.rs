//! containerd's shim: this program by the name `containerd-shim-cofferdam-v2` (containerd, `core/runtime/v2/README.md`).
//!
//! ```text
//! containerd --- start, delete, -info: short commands that print an answer
//!     |  ttrpc: Task and Sandbox services                    events, ttrpc
//!     v                                                          ^
//! resident: service -> jobs -> tasks (one thread owns all state) -> events
//!                                |  the messages of control.rs, as any client
//!                              supervisor of the pod: a task of the same process
//! ```
//!
//! One resident process serves one pod: what belongs to the same sandbox is sent to it. It supervises the pod itself and
//! stands for all processes in it: their number on the host is its own.
//!
//! Invariant: what a container is, is decided by the same functions as for the command line; nothing here knows OCI.

mod events;
mod flags;
mod forward;
mod launch;
mod metrics;
mod mounts;
mod options;
mod pod_config;
mod pod_files;
mod refusal;
mod remove;
mod resident;
mod sandboxes;
mod service;
mod stdio;
mod tasks;

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use flags::{Action, Flags};

/// The name of the program for which it is a shim.
const NAME: &str = "containerd-shim-cofferdam-v2";

/// The runtime that containerd calls it by.
const RUNTIME: &str = "io.containerd.cofferdam.v2";

/// Where the state directories are, one directory for each of containerd's namespaces: ids may be the same in two.
const ROOT: &str = "/run/cofferdam-containerd";

/// Longest message on standard input.
const MAX_INPUT: u64 = 1 << 20;

/// Whether the command line is the shim's.
#[must_use]
pub fn requested(mut arguments: impl Iterator<Item = OsString>) -> bool {
    let name = arguments.next().map(PathBuf::from);
    name.is_some_and(|name| name.file_name().is_some_and(|name| name == NAME))
}

/// The shim's `main`.
#[must_use]
pub fn main() -> ExitCode {
    match Flags::parse(std::env::args_os().skip(1)).and_then(|flags| execute(&flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = crate::run::one_line(&format!("{NAME}: {error:#}"));
            // containerd puts it in the middle of a sentence of its own.
            let end = if std::io::stderr().is_terminal() { "\n" } else { "" };
            // Nobody may read it.
            let _ = write!(std::io::stderr(), "{text}{end}");
            ExitCode::FAILURE
        }
    }
}

fn execute(flags: &Flags) -> Result<()> {
    let print = |bytes: &[u8]| std::io::stdout().write_all(bytes).context("writing the answer");
    match flags.action {
        Action::Version => print(version().as_bytes()),
        Action::Info => print(&info()?),
        Action::Start => print(launch::start(flags, &input()?)?.as_bytes()),
        Action::Delete => print(&remove::delete(flags)?),
        Action::Serve => {
            crate::sys::keep_descriptors_private();
            resident::serve(flags)
        }
    }
}

/// What is on standard input, unless a person would have to type it.
fn input() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        stdin.take(MAX_INPUT + 1).read_to_end(&mut bytes).context("reading standard input")?;
    }
    if bytes.len() as u64 > MAX_INPUT {
        bail!("standard input: over {MAX_INPUT} bytes");
    }
    Ok(bytes)
}

fn version() -> String {
    format!("{NAME}:\n  Version:  {}\n  Runtime:  {RUNTIME}\n", env!("CARGO_PKG_VERSION"))
}

/// What containerd is told of the runtime.
fn info() -> Result<Vec<u8>> {
    let version =
        RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), ..Default::default() };
    let info = RuntimeInfo {
        name: RUNTIME.into(),
        version: MessageField::some(version),
        ..Default::default()
    };
    info.write_to_bytes().context("encoding the answer")
}

/// The directory of the state directories of `namespace`.
fn root(namespace: &str) -> Result<PathBuf> {
    let sound = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if namespace.is_empty() || namespace.starts_with('.') || !namespace.bytes().all(sound) {
        bail!("-namespace {namespace:?}: containerd has no such names");
    }
    Ok(Path::new(ROOT).join(namespace))
}
