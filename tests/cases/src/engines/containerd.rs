//! containerd with an image, driven by ctr.
//!
//! Invariant: what containerd made on the host goes with this value.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::engine::{Engine, SERVICES, Was};
use super::image;
use crate::call::{Call, eventually, input};
use crate::run::{Outcome, unique_id};

/// The image.
pub(super) const IMAGE: &str = "localhost/case:latest";

/// The namespace of containerd's that ctr works in.
const NAMESPACE: &str = "default";

/// Those that the test host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Debian's.
    One,
    /// A later one beside it.
    Two,
}

impl Version {
    /// What `host-services` calls it.
    fn name(self) -> &'static str {
        match self {
            Self::One => "containerd",
            Self::Two => "containerd2",
        }
    }

    fn ctr(self) -> &'static str {
        match self {
            Self::One => "ctr",
            Self::Two => "/opt/containerd2/bin/ctr",
        }
    }

    /// The file with the number of the process.
    pub(super) fn pid_file(self) -> String {
        format!("/run/{}.pid", self.name())
    }

    /// Why its cases cannot run here, if so.
    pub(super) fn lacking(self) -> Option<String> {
        let lacks = Command::new(self.ctr()).arg("--version").output().is_err();
        let why = format!("this machine has no {} that can be started and stopped", self.name());
        (lacks || !Path::new(SERVICES).exists()).then_some(why)
    }

    /// Whether the service is there; and started or stopped by this.
    fn service(self, what: &str) -> Result<()> {
        let name = self.name();
        let status = Command::new(SERVICES).args([what, name]).stdin(Stdio::null()).status()?;
        ensure!(status.success(), "host-services {what} {name}: {status}");
        Ok(())
    }
}

/// A running containerd.
pub(super) struct Containerd {
    pub(super) version: Version,
    directory: TempDir,
    was: Was,
}

impl Containerd {
    /// Starts it and imports the image.
    pub(super) fn start(version: Version) -> Result<Self> {
        let containerd = Self::start_with(version, |_| Ok(()))?;
        containerd.import(NAMESPACE)?;
        Ok(containerd)
    }

    /// Starts it after `prepare` has done what is to be done before, in the directory for files.
    pub(super) fn start_with(
        version: Version,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let directory = TempDir::with_prefix("engine-")?;
        let containerd = Self { version, directory, was: Was::now() };
        prepare(containerd.directory.path())?;
        version.service("start")?;
        Ok(containerd)
    }

    /// Imports the images into a namespace of containerd's.
    pub(super) fn import(&self, namespace: &str) -> Result<()> {
        let archive = image::archive(self.directory.path(), IMAGE)?.display().to_string();
        self.ctr(&["--namespace", namespace, "image", "import", &archive])?.exits(0)?;
        Ok(())
    }

    /// Removes them.
    pub(super) fn forget(&self, namespace: &str) {
        let _ = self.ctr(&["--namespace", namespace, "image", "remove", IMAGE, image::PAUSE]);
    }

    /// Kills it and starts it again: what it started goes on.
    pub(super) fn restart(&self) -> Result<()> {
        self.restart_after(Duration::ZERO)
    }

    /// The same, with some time between.
    pub(super) fn restart_after(&self, pause: Duration) -> Result<()> {
        let pid = fs::read_to_string(self.version.pid_file())?;
        let killed = Command::new("kill").args(["-9", pid.trim()]).status()?;
        ensure!(killed.success(), "killing containerd");
        self.version.service("stop")?;
        std::thread::sleep(pause);
        self.version.service("start")
    }

    /// The runtime under test, as containerd calls it.
    pub(super) fn runtime() -> &'static str {
        if Engine::is_ours() { "io.containerd.cofferdam.v2" } else { "io.containerd.runc.v2" }
    }

    /// A path for a file of a case.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a command of ctr.
    pub(super) fn ctr(&self, arguments: &[&str]) -> Result<Outcome> {
        self.begin(arguments)?.finish()
    }

    /// The same, with `text` as standard input.
    pub(super) fn ctr_with(&self, arguments: &[&str], text: &str) -> Result<Outcome> {
        let mut command = self.command(arguments);
        command.stdin(input(text)?);
        Call::start(command, self.directory.path())?.finish()
    }

    /// The same, not waited for.
    pub(super) fn begin(&self, arguments: &[&str]) -> Result<Call> {
        Call::start(self.command(arguments), self.directory.path())
    }

    /// ctr, to be started.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.version.ctr());
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// `run --rm FLAGS IMAGE ID COMMAND`.
    pub(super) fn run(&self, flags: &[&str], command: &[&str]) -> Result<Outcome> {
        let id = unique_id();
        let fixed = ["run", "--rm", "--runtime", Self::runtime()];
        self.ctr(&[&fixed, flags, &[IMAGE, &id], command].concat())
    }

    /// A container in the background that runs a shell script; its id.
    pub(super) fn detached(&self, flags: &[&str], script: &str) -> Result<String> {
        let id = unique_id();
        let fixed = ["run", "--detach", "--runtime", Self::runtime()];
        let command = [IMAGE, &id, "sh", "-c", script];
        self.ctr(&[&fixed, flags, &command].concat())?.exits(0)?;
        Ok(id)
    }

    /// The same, with its output in a file; the id and the file.
    pub(super) fn logged(&self, flags: &[&str], script: &str) -> Result<(String, PathBuf)> {
        let file = self.file(&format!("{}.log", unique_id()));
        let uri = format!("file://{}", file.display());
        let id = self.detached(&[flags, &["--log-uri", &uri]].concat(), script)?;
        Ok((id, file))
    }

    /// What a shell script prints that is run in a container.
    pub(super) fn exec(&self, id: &str, script: &str) -> Result<Outcome> {
        let exec = unique_id();
        self.ctr(&["task", "exec", "--exec-id", &exec, id, "sh", "-c", script])
    }

    /// What `task list` says of a container, or nothing.
    pub(super) fn status(&self, id: &str) -> Result<String> {
        let list = self.ctr(&["task", "list"])?.exits(0)?.text();
        let mut lines = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = lines.find(|words| words.first() == Some(&id));
        Ok(line.and_then(|words| words.last().map(|word| (*word).to_owned())).unwrap_or_default())
    }

    /// The number on the host of the process of a container.
    pub(super) fn pid(&self, id: &str) -> Result<u32> {
        let list = self.ctr(&["task", "list"])?.exits(0)?.text();
        let mut lines = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = lines.find(|words| words.first() == Some(&id));
        let pid = line.and_then(|words| words.get(1)?.parse().ok());
        pid.with_context(|| format!("no process of {id}: {list}"))
    }

    /// Waits until it says so.
    pub(super) fn wait_for(&self, id: &str, status: &str) -> Result<()> {
        eventually(&format!("{id} to be {status}"), || Ok(self.status(id)? == status))
    }

    /// The exit code that is told when the task of a container is deleted.
    pub(super) fn end(&self, id: &str) -> Result<i32> {
        let outcome = self.ctr(&["task", "delete", id])?.exits(0)?;
        // ctr speaks only of those that are not 0.
        let told = outcome.stderr.split_once("non-zero exit code ");
        let code = told.and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
        code.map_or(Ok(0), |code| code.parse().with_context(|| format!("{outcome}")))
    }

    /// The same; the container goes, too.
    pub(super) fn delete(&self, id: &str) -> Result<i32> {
        let code = self.end(id)?;
        self.ctr(&["container", "delete", id])?.exits(0)?;
        Ok(code)
    }

    /// Listens to events from now on.
    pub(super) fn events(&self) -> Result<Events> {
        let mut call = self.begin(&["events"])?;
        // It says nothing before the first one: make some until it hears one.
        let id = unique_id();
        eventually("ctr events to listen", || {
            self.ctr(&["container", "create", IMAGE, &id])?.exits(0)?;
            self.ctr(&["container", "delete", &id])?.exits(0)?;
            Ok(fs::read_to_string(&call.stdout)?.contains("/containers/delete"))
        })?;
        call.wait_for("/containers/delete")?;
        Ok(Events(call))
    }

    /// Removes all containers.
    pub(super) fn clear(&self) -> Result<()> {
        let tasks = self.ctr(&["task", "list", "--quiet"])?.exits(0)?.text();
        for id in tasks.lines() {
            self.ctr(&["task", "delete", "--force", id])?;
        }
        let containers = self.ctr(&["container", "list", "--quiet"])?.exits(0)?.text();
        for id in containers.lines() {
            self.ctr(&["container", "delete", id])?.exits(0)?;
        }
        let left = self.ctr(&["task", "list", "--quiet"])?.exits(0)?;
        left.prints("").map(drop)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.clear();
        self.forget(NAMESPACE);
        let _ = self.version.service("stop");
        self.was.restore(self.directory.path());
    }
}

/// What `ctr events` prints.
pub(super) struct Events(Call);

impl Events {
    /// The events of the container `id` about its tasks: topics and contents.
    pub(super) fn of(&self, id: &str) -> Result<Vec<(String, Value)>> {
        let text = fs::read_to_string(&self.0.stdout)?;
        let mut found = Vec::new();
        // The last line may not be whole.
        for line in text.lines().filter(|line| line.ends_with('}')) {
            let (Some(topic), Some(at)) =
                (line.split_whitespace().find(|word| word.starts_with('/')), line.find('{'))
            else {
                continue;
            };
            let content: Value = serde_json::from_str(&line[at..]).context(line.to_owned())?;
            if topic.starts_with("/tasks/") && content["container_id"] == id {
                found.push((topic.to_owned(), content));
            }
        }
        Ok(found)
    }

    /// Waits until the last of them are those of `topics`.
    pub(super) fn end_with(&self, id: &str, topics: &[&str]) -> Result<Vec<(String, Value)>> {
        let mut found = Vec::new();
        let ended = eventually("the events", || {
            found = self.of(id)?;
            let seen: Vec<&str> = found.iter().map(|(topic, _)| topic.as_str()).collect();
            Ok(seen.ends_with(topics))
        });
        ended.with_context(|| format!("{found:#?} instead of {topics:?}"))?;
        Ok(found)
    }
}
