//! What the engine's three calls for a container in an existing pod take: create, start and delete, of each runtime in
//! turns, for the same bundle.
//!
//! Everything that works for it is in one control group of the host, this program included: the runtime's commands,
//! what stays for the container, the monitor and with it the guest. Its run time in this host is its instructions.
//!
//! Invariant: the runtimes get the same configuration, and each container has ended by itself before it is deleted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cofferdam_test_bench::{Calls, Runtime, place};
use nix::mount::{MsFlags, mount};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Where the host's control groups are, and which one is measured.
const CGROUPS: &str = "/sys/fs/cgroup";
const MEASURED: &str = "measured";

/// Where bundles are.
const BUNDLES: &str = "/tmp/bundles";

/// The namespaces that the containers of a pod share.
const SHARED: [(&str, &str); 3] = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")];

/// What comes after a call is counted with it: the guest's work, and that of the host's.
const SETTLE: Duration = Duration::from_millis(500);

/// Measures `rounds` rounds, of which the first warms up and does not count; prints what each took.
pub(crate) fn measure(rounds: u32) -> Result<()> {
    enter_group().context("making the control group that is measured")?;
    set_child_subreaper(true).context("becoming the parent of containers")?;
    let pods = [Runtime::Runc, Runtime::Cofferdam].map(Pod::start);
    for number in 0..rounds {
        for pod in &pods {
            let pod = pod.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
            let calls = pod.round(number)?;
            if number > 0 {
                println!("{}", serde_json::to_string(&calls)?);
            }
        }
    }
    for pod in pods {
        pod?.command(&["delete", "--force", "pod"])?;
    }
    Ok(())
}

fn enter_group() -> Result<()> {
    mount(Some("cgroup2"), CGROUPS, Some("cgroup2"), MsFlags::empty(), None::<&str>)?;
    let driver = Path::new(CGROUPS).join(MEASURED).join("driver");
    fs::create_dir_all(&driver)?;
    fs::write(driver.join("cgroup.procs"), "0")?;
    Ok(())
}

/// Instructions so far of all that is measured, in thousands.
fn used() -> Result<u64> {
    let path = Path::new(CGROUPS).join(MEASURED).join("cpu.stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    Ok(usage.context("no usage in cpu.stat")?.parse()?)
}

/// A running pod of one container.
struct Pod {
    runtime: Runtime,
    /// The process that stands for its first container.
    pid: Pid,
}

impl Pod {
    fn start(runtime: Runtime) -> Result<Self> {
        let pod = Self { runtime, pid: Pid::this() };
        let namespaces = json!(kinds().map(|kind| json!({ "type": kind })).collect::<Vec<_>>());
        let bundle = pod.bundle("pod", &["sleep", "1000000"], &namespaces)?;
        let pid = pod.create("pod", &bundle)?;
        pod.command(&["start", "pod"])?;
        std::thread::sleep(2 * SETTLE);
        Ok(Self { runtime, pid })
    }

    /// One container's life.
    fn round(&self, number: u32) -> Result<Calls> {
        let id = format!("container-{number}");
        let namespaces =
            kinds().map(|kind| match SHARED.iter().find(|(shared, _)| *shared == kind) {
                Some((_, file)) => json!({
                    "type": kind, "path": format!("/proc/{}/ns/{file}", self.pid),
                }),
                None => json!({ "type": kind }),
            });
        let namespaces = json!(namespaces.collect::<Vec<_>>());
        let bundle = self.bundle(&id, &["true"], &namespaces)?;
        let begin = used()?;
        let pid = self.create(&id, &bundle)?;
        std::thread::sleep(SETTLE);
        let created = used()?;
        self.command(&["start", &id])?;
        let status = waitpid(pid, None).context("waiting for the container")?;
        ensure!(matches!(status, WaitStatus::Exited(_, 0)), "{id}: {status:?}");
        std::thread::sleep(SETTLE);
        let started = used()?;
        self.command(&["delete", &id])?;
        std::thread::sleep(SETTLE);
        let deleted = used()?;
        fs::remove_dir_all(&bundle).with_context(|| format!("removing {}", bundle.display()))?;
        Ok(Calls {
            runtime: self.runtime,
            create: (created - begin) * 1000,
            start: (started - created) * 1000,
            delete: (deleted - started) * 1000,
        })
    }

    /// Creates a container; the process that stands for it.
    fn create(&self, id: &str, bundle: &Path) -> Result<Pid> {
        let file = bundle.join("pid");
        let (bundle, pid) = (bundle.to_string_lossy(), file.to_string_lossy());
        self.command(&["create", "--bundle", &bundle, "--pid-file", &pid, id])?;
        let text = fs::read_to_string(&file).context("reading the pid file")?;
        Ok(Pid::from_raw(text.trim().parse().context("reading the pid file")?))
    }

    /// Runs a command of the runtime.
    fn command(&self, arguments: &[&str]) -> Result<()> {
        let program = match self.runtime {
            Runtime::Runc => place::RUNC,
            Runtime::Cofferdam => place::COFFERDAM,
        };
        let log = format!("/tmp/{}.log", self.name());
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/bin");
        command.args(["--root", &format!("/run/{}", self.name()), "--log", &log]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().with_context(|| format!("starting {program}"))?;
        if !status.success() {
            let log = fs::read_to_string(&log).unwrap_or_default();
            bail!("{program} {}: {status}\n{log}", arguments.join(" "));
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        match self.runtime {
            Runtime::Runc => "runc",
            Runtime::Cofferdam => "cofferdam",
        }
    }

    /// Makes a bundle with the host's busybox as its root file system.
    fn bundle(&self, id: &str, args: &[&str], namespaces: &Value) -> Result<PathBuf> {
        let bundle = Path::new(BUNDLES).join(self.name()).join(id);
        let bin = bundle.join("rootfs/bin");
        fs::create_dir_all(&bin).with_context(|| format!("creating {}", bin.display()))?;
        fs::copy("/bin/busybox", bin.join("busybox")).context("copying busybox")?;
        for applet in ["sleep", "true"] {
            symlink("busybox", bin.join(applet)).context("linking an applet")?;
        }
        let config = config(&format!("/{MEASURED}/{}-{id}", self.name()), args, namespaces);
        fs::write(bundle.join("config.json"), serde_json::to_vec(&config)?)
            .context("writing config.json")?;
        Ok(bundle)
    }
}

/// The namespaces of a container.
fn kinds() -> impl Iterator<Item = &'static str> {
    ["pid", "mount", "cgroup"].into_iter().chain(SHARED.iter().map(|(kind, _)| *kind))
}

/// What an engine asks for.
fn config(cgroup: &str, args: &[&str], namespaces: &Value) -> Value {
    let capabilities = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETUID"]);
    let mount = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": args, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": namespaces,
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
        },
    })
}
