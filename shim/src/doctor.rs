//! `cofferdam doctor`: what a host lacks to run pods, and how to get it.
//!
//! Invariant: changes nothing; each complaint comes with a remedy.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::{self, Overrides, Settings};
use crate::install::{self, Prefix};
use crate::run::default_monitor;

/// Free space below which a person should know.
const LOW_SPACE: u64 = 1 << 30;

/// The result of one check.
enum Finding {
    Good(String),
    Warning { problem: String, remedy: String },
    Bad { problem: String, remedy: String },
}

fn bad(problem: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding::Bad { problem: problem.into(), remedy: remedy.into() }
}

/// Checks this host; prints what was found; the exit code is 0 if pods can run.
pub(crate) fn run(file: &Path, root: &Path) -> u8 {
    let (overrides, config_finding) = match Overrides::from_file(file) {
        Ok(overrides) => (overrides, Finding::Good(format!("configuration {}", file.display()))),
        Err(error) => {
            let problem = format!("{:#}", anyhow::Error::from(error));
            (Overrides::default(), bad(problem, "correct or remove the file"))
        }
    };
    let settings = Settings::from_environment(overrides);
    let findings = [
        kvm(Path::new("/dev/kvm")),
        cgroup2(),
        config_finding,
        monitor(&settings),
        artefact("guest kernel", &settings.kernel, "cargo xtask kernel"),
        artefact("guest image", &settings.image, "cargo xtask image"),
        tool("mkfs.erofs", "erofs-utils"),
        tool("mke2fs", "e2fsprogs"),
        file_server(),
        space(&settings.data),
        state(root),
    ];
    let mut failures = 0;
    for finding in findings.into_iter().chain(installation()) {
        match finding {
            Finding::Good(text) => println!("ok       {text}"),
            Finding::Warning { problem, remedy } => {
                println!("warning  {problem}\n         {remedy}")
            }
            Finding::Bad { problem, remedy } => {
                failures += 1;
                println!("missing  {problem}\n         {remedy}");
            }
        }
    }
    match failures {
        0 => println!("This host can run pods."),
        n => println!("{n} thing{} to put right.", if n == 1 { "" } else { "s" }),
    }
    u8::from(failures > 0)
}

fn kvm(path: &Path) -> Finding {
    match File::options().read(true).write(true).open(path) {
        Ok(_) => Finding::Good(format!("KVM: {} can be opened", path.display())),
        Err(error) => {
            let problem = format!("KVM: {}: {error}", path.display());
            bad(problem, kvm_remedy(error.kind()))
        }
    }
}

/// What helps against an error of opening `/dev/kvm`.
pub(crate) fn kvm_remedy(kind: std::io::ErrorKind) -> &'static str {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let extension = |name| cpu.split_ascii_whitespace().any(|word| word == name);
    match kind {
        std::io::ErrorKind::PermissionDenied => {
            "be root, or a member of the group kvm: adduser YOU kvm, and log in again"
        }
        _ if extension("vmx") => "modprobe kvm_intel",
        _ if extension("svm") => "modprobe kvm_amd",
        _ => {
            "switch on virtualisation (VT-x, AMD-V) in the firmware, or nested virtualisation for this guest"
        }
    }
}

fn cgroup2() -> Finding {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return Finding::Good("cgroup v2 at /sys/fs/cgroup".into());
    }
    Finding::Warning {
        problem: "cgroup v2 is not mounted at /sys/fs/cgroup".into(),
        remedy: "containers have their limits in the guest all the same; to limit the machines \
                 themselves boot with systemd.unified_cgroup_hierarchy=1"
            .into(),
    }
}

fn monitor(settings: &Settings) -> Finding {
    let program = settings.monitor.clone().unwrap_or_else(default_monitor);
    let found = if program.components().count() > 1 {
        executable(&program).then_some(program.clone())
    } else {
        find(&program)
    };
    match found {
        Some(path) => Finding::Good(format!("monitor {}", path.display())),
        None => bad(
            format!("monitor {}: not there, or not executable", program.display()),
            "install cofferdam-vmm beside cofferdam or in PATH, or set monitor in the configuration",
        ),
    }
}

/// What a manifest beside the guest kernel or image says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Manifest {
    version: String,
    protocol_version: Option<u32>,
}

fn artefact(what: &str, path: &Path, command: &str) -> Finding {
    let remedy = || format!("{command} makes one; COFFERDAM_LIB names another directory");
    if let Err(error) = File::open(path) {
        return bad(format!("{what} {}: {error}", path.display()), remedy());
    }
    let mut manifest = path.as_os_str().to_owned();
    manifest.push(".json");
    let manifest = PathBuf::from(manifest);
    let text = match std::fs::read_to_string(&manifest) {
        Ok(text) => text,
        Err(error) => {
            let problem =
                format!("{what} {}: no manifest {}: {error}", path.display(), manifest.display());
            return Finding::Warning { problem, remedy: remedy() };
        }
    };
    match serde_json::from_str::<Manifest>(&text) {
        Err(error) => bad(format!("manifest {}: {error}", manifest.display()), remedy()),
        Ok(manifest) => {
            let ours = cofferdam_agent_protocol::PROTOCOL_VERSION;
            match manifest.protocol_version.filter(|theirs| *theirs != ours) {
                Some(theirs) => bad(
                    format!(
                        "{what} {}: agent protocol {theirs}; this cofferdam has {ours}",
                        path.display()
                    ),
                    remedy(),
                ),
                None => Finding::Good(format!("{what} {} {}", path.display(), manifest.version)),
            }
        }
    }
}

/// How the files are that were placed with this program, if it was installed.
fn installation() -> Option<Finding> {
    let prefix = Prefix::new(&config::own_prefix()?, Path::new("/")).ok()?;
    let remedy = || "cofferdam install of that release places them anew";
    Some(match install::verify(&prefix).transpose()? {
        Ok(faults) if faults.is_empty() => {
            Finding::Good(format!("installed in {}", prefix.path().display()))
        }
        Ok(faults) => bad(format!("installed files: {}", faults.join(", ")), remedy()),
        Err(error) => bad(format!("installed files: {error:#}"), remedy()),
    })
}

fn tool(program: &str, package: &str) -> Finding {
    match find(Path::new(program)) {
        Some(path) => Finding::Good(format!("{program}: {}", path.display())),
        None => bad(format!("{program} is not installed"), format!("apt-get install {package}")),
    }
}

fn file_server() -> Finding {
    match crate::volumes::program() {
        Some(path) => Finding::Good(format!("virtiofsd: {}", path.display())),
        None => Finding::Warning {
            problem: "virtiofsd is not installed: no directory of the host can be a volume".into(),
            remedy: crate::volumes::REMEDY.into(),
        },
    }
}

fn find(program: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|directory| directory.join(program))
        .find(|path| executable(path))
}

fn executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

fn space(data: &Path) -> Finding {
    let there = data.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let what = format!("layers and scratch disks in {}", data.display());
    match rustix::fs::statvfs(there) {
        Err(error) => bad(format!("{what}: {error}"), "make the directory writable"),
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let text = format!("{what}: {} MiB free", free >> 20);
            if free < LOW_SPACE {
                let remedy = "free some space, or set data in the configuration".into();
                Finding::Warning { problem: text, remedy }
            } else if rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_err() {
                bad(format!("{what}: not writable"), "be root, or set data in the configuration")
            } else {
                Finding::Good(text)
            }
        }
    }
}

fn state(root: &Path) -> Finding {
    let there = root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    if rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_ok() {
        Finding::Good(format!("state of pods in {}", root.display()))
    } else {
        bad(format!("state of pods: {} is not writable", there.display()), "be root, or use --root")
    }
}
