//! A runtime under test with a state directory of its own, and containers made by its command line.
//!
//! Invariant: what is made here goes with the value that stands for it: containers, mounts, processes, files.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use cofferdam_shim::oci::default_spec_text;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::call::{Call, eventually, input};
use crate::run::{COFFERDAM, Outcome, ROOTFS, unique_id};

/// Another `runc` than the one in the path.
const RUNC: &str = "COFFERDAM_CASE_RUNC";

/// A variable in the environment of every command, which no container may see.
pub(super) const SECRET: &str = "COFFERDAM_CASE_SECRET";

/// The annotations by which an engine says which containers are a pod: that of the sandbox has its own id.
pub(super) const SANDBOX_TYPE: &str = "io.kubernetes.cri.container-type";
pub(super) const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";

/// Which runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Runc,
    Cofferdam,
}

impl Program {
    /// Its name in the names of trials.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Cofferdam => "cofferdam",
        }
    }

    /// What to start.
    fn path(self) -> String {
        match self {
            Self::Runc => std::env::var(RUNC).unwrap_or_else(|_| "runc".to_owned()),
            Self::Cofferdam => COFFERDAM.to_owned(),
        }
    }

    /// The first line that `--version` prints; none if there is no such program.
    pub(super) fn version(self) -> Option<String> {
        let output = Command::new(self.path()).arg("--version").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
    }
}

/// One runtime with its own `--root`.
pub(super) struct Runtime {
    pub(super) program: Program,
    /// The state directory and the files of commands.
    directory: TempDir,
    /// Ids of every container that may be there.
    ids: RefCell<Vec<String>>,
    /// Processes whose end somebody else waits for.
    awaited: RefCell<BTreeSet<i32>>,
}

impl Runtime {
    /// `program` without any container. Processes that lose their parent become children of this program, as
    /// they become those of an engine.
    pub(super) fn new(program: Program) -> Result<Self> {
        set_child_subreaper(true).context("becoming a subreaper")?;
        let directory = TempDir::with_prefix("runtime-")?;
        // To runc, a directory that was named and is not there is an error.
        fs::create_dir(directory.path().join("root"))?;
        let (ids, awaited) = (RefCell::default(), RefCell::default());
        Ok(Self { program, directory, ids, awaited })
    }

    /// Whether it is ours.
    pub(super) fn ours(&self) -> bool {
        self.program == Program::Cofferdam
    }

    /// The state directory.
    pub(super) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// A path for a file of a case.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `RUNTIME --root ROOT ARGUMENTS`.
    pub(super) fn call<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Outcome> {
        self.start(arguments, Stdio::null())?.finish()
    }

    /// The same with `text` as standard input.
    pub(super) fn call_with<S: AsRef<str>>(&self, arguments: &[S], text: &str) -> Result<Outcome> {
        self.start(arguments, input(text)?)?.finish()
    }

    /// The same, not waited for.
    pub(super) fn start<S: AsRef<str>>(&self, arguments: &[S], stdin: Stdio) -> Result<Call> {
        let mut command = self.command();
        command.args(arguments.iter().map(AsRef::as_ref)).stdin(stdin);
        self.spawn(command)
    }

    /// `RUNTIME --root ROOT`, to be added to.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(self.program.path());
        command.arg("--root").arg(self.root()).env(SECRET, "1").current_dir(self.directory.path());
        command
    }

    /// Starts `command`.
    pub(super) fn spawn(&self, command: Command) -> Result<Call> {
        let call = Call::start(command, self.directory.path())?;
        self.awaited.borrow_mut().insert(call.pid()?);
        Ok(call)
    }

    /// A bundle whose process is the shell script `script`, changed by `edit`.
    pub(super) fn bundle(&self, script: &str, edit: Edit) -> Result<Bundle> {
        let mut config = base()?;
        config["root"] = serde_json::json!({ "path": ROOTFS, "readonly": false });
        config["process"]["terminal"] = false.into();
        config["process"]["noNewPrivileges"] = false.into();
        config["process"]["args"] = serde_json::json!(["sh", "-c", script]);
        let bundle = Bundle::new(self.program)?;
        if bundle.overlay {
            config["root"]["path"] = "rootfs".into();
        }
        edit(&mut config);
        bundle.write(&config)?;
        Ok(bundle)
    }

    /// `run`s a container to its end.
    pub(super) fn run(&self, script: &str, edit: Edit) -> Result<Outcome> {
        let bundle = self.bundle(script, edit)?;
        self.call(&["run", "--bundle", &bundle.path(), &self.id()])
    }

    /// An id that goes with the runtime.
    pub(super) fn id(&self) -> String {
        let id = unique_id();
        self.ids.borrow_mut().push(id.clone());
        id
    }

    /// `create`s a container.
    pub(super) fn create(&self, script: &str, edit: Edit) -> Result<Container<'_>> {
        self.make(&["create"], script, edit)
    }

    /// A container that runs on its own.
    pub(super) fn detached(&self, script: &str, edit: Edit) -> Result<Container<'_>> {
        self.make(&["run", "--detach"], script, edit)
    }

    /// A container made by `command`, which gets bundle, pid file and id.
    pub(super) fn make(&self, command: &[&str], script: &str, edit: Edit) -> Result<Container<'_>> {
        let bundle = self.bundle(script, edit)?;
        let id = self.id();
        let mut config = bundle.config()?;
        if config["annotations"][SANDBOX_TYPE] == "sandbox" {
            config["annotations"][SANDBOX_ID] = id.as_str().into();
            bundle.write(&config)?;
        }
        let pid_file = bundle.directory.path().join("pid");
        let (path, file) = (bundle.path(), pid_file.display().to_string());
        let mut arguments = command.to_vec();
        arguments.extend(["--bundle", &path, "--pid-file", &file, &id]);
        let call = self.start(&arguments, Stdio::null())?;
        let (stdout, stderr) = (call.stdout.clone(), call.stderr.clone());
        call.finish()?.exits(0)?;
        let pid = fs::read_to_string(&pid_file).context("reading the pid file")?;
        let pid: i32 = pid.parse().with_context(|| format!("the pid file holds {pid:?}"))?;
        self.awaited.borrow_mut().insert(pid);
        Ok(Container { runtime: self, id, bundle, pid, stdout, stderr })
    }
}

impl Runtime {
    /// Waits for orphans that became ours and ended, as an engine does. Until then, the first process of their
    /// namespace cannot end.
    fn reap(&self) {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let text = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let fields =
                text.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect::<Vec<_>>());
            let ended = fields
                .is_some_and(|f| f.starts_with(&["Z"]) && f.get(1) == Some(&&*own.to_string()));
            if ended && !self.awaited.borrow().contains(&pid) {
                let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
            }
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for id in self.ids.take() {
            if self.root().join(&id).exists() {
                let _ = self.call(&["delete", "--force", id.as_str()]);
            }
        }
        let _ = set_child_subreaper(false);
        // Orphans that became ours; nothing else of this program runs now.
        while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
            waitpid(None, Some(WaitPidFlag::WNOHANG))
        {}
    }
}

/// Changes a configuration.
pub(super) type Edit = fn(&mut Value);

/// The configuration is as it is.
pub(super) fn plain(_: &mut Value) {}

/// The configuration from which both runtimes start.
fn base() -> Result<Value> {
    Ok(serde_json::from_str(&default_spec_text())?)
}

/// A directory with `config.json`, and for runc, which writes to it, a root file system of its own.
pub(super) struct Bundle {
    pub(super) directory: TempDir,
    overlay: bool,
}

impl Bundle {
    fn new(program: Program) -> Result<Self> {
        let directory = TempDir::with_prefix("bundle-")?;
        let overlay = program == Program::Runc;
        if overlay {
            for name in ["rootfs", "upper", "work"] {
                fs::create_dir(directory.path().join(name))?;
            }
            let at = |name: &str| directory.path().join(name).display().to_string();
            let data = format!("lowerdir={ROOTFS},upperdir={},workdir={}", at("upper"), at("work"));
            let target = directory.path().join("rootfs");
            mount(Some("overlay"), &target, Some("overlay"), MsFlags::empty(), Some(&*data))
                .with_context(|| format!("mounting {}", target.display()))?;
        }
        Ok(Self { directory, overlay })
    }

    /// Its path.
    pub(super) fn path(&self) -> String {
        self.directory.path().display().to_string()
    }

    /// Its configuration.
    pub(super) fn config(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(self.directory.path().join("config.json"))?)?)
    }

    /// Writes `config.json`.
    pub(super) fn write(&self, config: &Value) -> Result<()> {
        let path = self.directory.path().join("config.json");
        Ok(fs::write(path, serde_json::to_vec_pretty(config)?)?)
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if self.overlay {
            let _ = umount2(&self.directory.path().join("rootfs"), MntFlags::MNT_DETACH);
        }
    }
}

/// A container that goes with this value.
pub(super) struct Container<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) id: String,
    pub(super) bundle: Bundle,
    /// What the pid file held.
    pub(super) pid: i32,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Container<'_> {
    /// `COMMAND ID`, where `command` may have flags.
    pub(super) fn call(&self, command: &[&str]) -> Result<Outcome> {
        self.runtime.call(&[command, &[&self.id]].concat())
    }

    /// `exec FLAGS ID COMMAND`.
    pub(super) fn exec(&self, flags: &[&str], command: &[&str]) -> Result<Outcome> {
        self.runtime.call(&[&["exec"], flags, &[&self.id], command].concat())
    }

    /// A shell script by `exec`: what it prints.
    pub(super) fn shell(&self, script: &str) -> Result<String> {
        Ok(self.exec(&[], &["sh", "-c", script])?.exits(0)?.text().trim().to_owned())
    }

    /// What `state` says.
    pub(super) fn state(&self) -> Result<Value> {
        let outcome = self.call(&["state"])?.exits(0)?;
        serde_json::from_slice(&outcome.stdout).with_context(|| format!("state printed {outcome}"))
    }

    /// `state` says `status`.
    pub(super) fn is(&self, status: &str) -> Result<()> {
        let state = self.state()?;
        ensure!(state["status"] == status, "the status is {}, not {status}", state["status"]);
        Ok(())
    }

    /// Waits until `state` says `status`.
    pub(super) fn becomes(&self, status: &str) -> Result<()> {
        eventually(&format!("status {status}"), || {
            self.runtime.reap();
            Ok(self.state()?["status"] == status)
        })
    }

    /// What it has written to standard output.
    pub(super) fn output(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.stdout)?).into_owned())
    }

    /// Waits until it has written `text`.
    pub(super) fn prints(&self, text: &str) -> Result<()> {
        let printed = eventually(&format!("{text:?}"), || Ok(self.output()?.contains(text)));
        printed.with_context(|| {
            let errors = fs::read_to_string(&self.stderr).unwrap_or_default();
            format!("printed {:?}, errors {errors:?}", self.output().unwrap_or_default())
        })
    }

    /// Sends a signal by `kill`.
    pub(super) fn kill(&self, signal: &str) -> Result<()> {
        self.runtime.call(&["kill", &self.id, signal])?.exits(0).map(drop)
    }

    /// Waits for the end of the process that the pid file names, as an engine does; its code.
    pub(super) fn exit_code(&self) -> Result<i32> {
        let mut code = None;
        eventually(&format!("the end of process {}", self.pid), || {
            let pid = Pid::from_raw(self.pid);
            self.runtime.reap();
            code = match waitpid(pid, Some(WaitPidFlag::WNOHANG)).context("waiting for it")? {
                WaitStatus::Exited(_, code) => Some(code),
                WaitStatus::Signaled(_, signal, _) => Some(128 + signal as i32),
                _ => None,
            };
            Ok(code.is_some())
        })?;
        code.context("no status")
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if self.runtime.root().join(&self.id).exists() {
            let _ = self.kill("KILL");
            let _ = self.becomes("stopped");
            let _ = self.call(&["delete", "--force"]);
        }
    }
}

/// The value at `path` of `value`, which must be there.
pub(super) fn field<'a>(value: &'a Value, path: &str) -> Result<&'a Value> {
    value.pointer(path).with_context(|| format!("no {path} in {value}"))
}

/// Whether there is a process `pid` that has not ended.
pub(super) fn lives(pid: i32) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    status.is_ok_and(|text| !text.contains(") Z"))
}
