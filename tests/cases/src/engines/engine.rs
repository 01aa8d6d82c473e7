//! An engine with a small image, to be driven by its command line.
//!
//! Invariant: what the engine made on the host goes with this value: daemons, storage, mounts, groups, bridges.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, umount2};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::call::{Call, input};
use crate::leftovers;
use crate::run::{Outcome, unique_id};

/// The image: busybox, and nothing else.
pub(super) const IMAGE: &str = "localhost/case:latest";

/// The runtime under test, if not Cofferdam.
const RUNTIME: &str = "COFFERDAM_CASE_ENGINE_RUNTIME";

/// The configuration of docker's daemon.
const DAEMON: &str = "/etc/docker/daemon.json";

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Podman,
    Docker,
}

impl Kind {
    /// Its program.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }

    /// Why its cases cannot run here, if so.
    pub(super) fn lacking(self) -> Option<String> {
        let output = Command::new(self.name()).arg("--version").output();
        let lacks = output.is_err() || (self == Self::Docker && !Path::new(SERVICES).exists());
        lacks
            .then(|| format!("this machine has no {} that can be started and stopped", self.name()))
    }
}

/// Starts and stops daemons in the test host.
pub(super) const SERVICES: &str = "/usr/local/bin/host-services";

/// A running engine.
pub(super) struct Engine {
    pub(super) kind: Kind,
    directory: TempDir,
    was: Was,
}

impl Engine {
    /// Starts it and imports the image.
    pub(super) fn start(kind: Kind) -> Result<Self> {
        let directory = TempDir::with_prefix("engine-")?;
        let engine = Self { kind, directory, was: Was::now() };
        match kind {
            Kind::Podman => engine.configure_podman()?,
            Kind::Docker => engine.start_docker()?,
        }
        engine.import()?;
        Ok(engine)
    }

    /// The runtime's program.
    pub(super) fn runtime() -> (String, &'static str) {
        match std::env::var(RUNTIME) {
            Ok(name) => {
                (name.clone(), if name == "crun" { "/usr/bin/crun" } else { "/usr/sbin/runc" })
            }
            Err(_) => ("cofferdam".to_owned(), "/usr/local/bin/cofferdam"),
        }
    }

    /// Whether Cofferdam is the runtime under test.
    pub(super) fn is_ours() -> bool {
        std::env::var_os(RUNTIME).is_none()
    }

    /// A path for a file of a case.
    pub(super) fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn configure_podman(&self) -> Result<()> {
        let (name, path) = Self::runtime();
        // The test host has no systemd.
        let text = format!(
            "[engine]\nruntime = \"{name}\"\n\
             events_logger = \"file\"\ncgroup_manager = \"cgroupfs\"\n[engine.runtimes]\n{name} = [\"{path}\"]\n\
"
        );
        Ok(fs::write(self.file("containers.conf"), text)?)
    }

    fn start_docker(&self) -> Result<()> {
        let (name, path) = Self::runtime();
        let mut config = json!({ "default-runtime": name });
        if name != "runc" {
            config["runtimes"] = json!({ name: { "path": path } });
        }
        fs::create_dir_all("/etc/docker")?;
        fs::write(DAEMON, config.to_string())?;
        let status =
            Command::new(SERVICES).args(["start", "docker"]).stdin(Stdio::null()).status()?;
        ensure!(status.success(), "host-services start docker: {status}");
        Ok(())
    }

    /// Makes the image from the root file system's busybox.
    fn import(&self) -> Result<()> {
        let tree = self.file("tree");
        super::image::busybox(&tree)?;
        let tar = self.file("image.tar").display().to_string();
        let status =
            Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&tree).arg(".").status()?;
        ensure!(status.success(), "tar: {status}");
        self.call(&["import", "--change", "CMD [\"sh\"]", &tar, IMAGE])?.exits(0)?;
        Ok(())
    }

    /// The engine's command line, to be added to.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(self.kind.name());
        if self.kind == Kind::Podman {
            for (flag, name) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
                command.arg(flag).arg(self.file(name));
            }
            command.env("CONTAINERS_CONF_OVERRIDE", self.file("containers.conf"));
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command of the engine.
    pub(super) fn call(&self, arguments: &[&str]) -> Result<Outcome> {
        self.begin(arguments)?.finish()
    }

    /// The same, with `text` as standard input.
    pub(super) fn call_with(&self, arguments: &[&str], text: &str) -> Result<Outcome> {
        let mut command = self.command();
        command.args(arguments).stdin(input(text)?);
        Call::start(command, self.directory.path())?.finish()
    }

    /// The same, not waited for.
    pub(super) fn begin(&self, arguments: &[&str]) -> Result<Call> {
        let mut command = self.command();
        command.args(arguments);
        Call::start(command, self.directory.path())
    }

    /// `run --rm --network=none FLAGS IMAGE COMMAND`.
    pub(super) fn run(&self, flags: &[&str], command: &[&str]) -> Result<Outcome> {
        self.call(&[&["run", "--rm", "--network=none"], flags, &[IMAGE], command].concat())
    }

    /// A container in the background that runs a shell script; its name.
    pub(super) fn detached(&self, flags: &[&str], script: &str) -> Result<String> {
        let name = unique_id();
        let fixed = ["run", "--detach", "--network=none", "--name", &name];
        self.call(&[&fixed, flags, &[IMAGE, "sh", "-c", script]].concat())?.exits(0)?;
        Ok(name)
    }

    /// What `inspect --format` prints.
    pub(super) fn inspect(&self, name: &str, format: &str) -> Result<String> {
        Ok(self.call(&["inspect", "--format", format, name])?.exits(0)?.text().trim().to_owned())
    }

    /// Waits until the logs of the container have `text`.
    pub(super) fn logs(&self, name: &str, text: &str) -> Result<()> {
        crate::call::eventually(&format!("{text:?} in the logs of {name}"), || {
            let outcome = self.call(&["logs", name])?.exits(0)?;
            Ok(outcome.text().contains(text) || outcome.stderr.contains(text))
        })
    }

    /// Removes all containers.
    pub(super) fn clear(&self) -> Result<()> {
        if self.kind == Kind::Podman {
            self.call(&["pod", "rm", "--all", "--force", "--time", "0"])?.exits(0)?;
            self.call(&["rm", "--all", "--force", "--time", "0"])?.exits(0)?;
            return Ok(());
        }
        let all = self.call(&["ps", "--all", "--quiet"])?.exits(0)?.text();
        let ids: Vec<&str> = all.lines().collect();
        if !ids.is_empty() {
            self.call(&[&["rm", "--force"], ids.as_slice()].concat())?.exits(0)?;
        }
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.clear();
        if self.kind == Kind::Docker {
            let _ = self.call(&["rmi", "--force", IMAGE]);
            for daemon in ["docker", "containerd"] {
                let _ = Command::new(SERVICES).args(["stop", daemon]).status();
            }
            let _ = fs::remove_file(DAEMON);
        }
        self.was.restore(self.directory.path());
    }
}

/// What was there before an engine.
pub(super) struct Was {
    groups: Vec<String>,
    interfaces: Vec<String>,
}

impl Was {
    /// What is there now.
    pub(super) fn now() -> Self {
        Self { groups: names("/sys/fs/cgroup"), interfaces: names("/sys/class/net") }
    }

    /// Removes mounts of engines and those below `directory`, and interfaces and groups that are new.
    pub(super) fn restore(&self, directory: &Path) {
        for place in mounts().iter().rev() {
            let own = place.starts_with(&directory.display().to_string());
            if own || ENGINES.iter().any(|directory| place.starts_with(directory)) {
                let _ = umount2(place.as_str(), MntFlags::MNT_DETACH);
            }
        }
        for name in names("/sys/class/net").iter().filter(|name| !self.interfaces.contains(name)) {
            let _ = Command::new("ip").args(["link", "delete", name]).status();
        }
        for name in names("/sys/fs/cgroup").iter().filter(|name| !self.groups.contains(name)) {
            remove_groups(&Path::new("/sys/fs/cgroup").join(name));
        }
    }
}

/// Where engines have mounts of their own.
const ENGINES: [&str; 4] = ["/run/docker", "/var/lib/docker", "/run/netns", "/run/containerd"];

/// Mount points, the first mounted first.
fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect()
}

/// Names in a directory.
fn names(path: &str) -> Vec<String> {
    leftovers::entries(path).into_iter().collect()
}

/// Removes an engine's control group and the empty ones below it.
fn remove_groups(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// A JSON document that the engine printed.
pub(super) fn parsed(outcome: &Outcome) -> Result<Value> {
    serde_json::from_slice(&outcome.stdout).with_context(|| format!("printed {outcome}"))
}
