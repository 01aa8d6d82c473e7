//! What a pod could leave behind on its host, and that it does not.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// Everything of Cofferdam's that lives outside of its caches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    processes: BTreeSet<String>,
    mounts: BTreeSet<String>,
    state: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    networks: BTreeSet<String>,
    /// Mode, owner and group of `/dev/kvm`.
    kvm: Option<(u32, u32, u32)>,
    sockets: BTreeSet<String>,
    temporary: BTreeSet<String>,
}

impl Host {
    /// The host as it is.
    pub(crate) fn now() -> Self {
        Self {
            processes: processes(),
            mounts: lines("/proc/self/mounts"),
            state: state(),
            cgroups: cgroups(),
            networks: entries("/sys/class/net"),
            kvm: fs::metadata("/dev/kvm").ok().map(|kvm| (kvm.mode(), kvm.uid(), kvm.gid())),
            sockets: lines("/proc/net/unix")
                .into_iter()
                .filter(|l| l.contains("cofferdam"))
                .collect(),
            temporary: [
                entries("/var/lib/cofferdam/layers"),
                entries("/var/lib/cofferdam/scratch"),
            ]
            .into_iter()
            .flatten()
            .filter(|name| name.contains("tmp") || name.contains(".part"))
            .collect(),
        }
    }

    /// Waits up to five seconds for the host to be as it was.
    ///
    /// # Errors
    /// What is there now that was not.
    pub(crate) fn unchanged(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let now = Self::now();
            if now == *self {
                return Ok(());
            }
            if Instant::now() > deadline {
                ensure!(now == *self, "left behind:\nbefore: {self:#?}\nafter: {now:#?}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Programs that make file systems for us, or serve them.
const TOOLS: [&str; 3] = ["mkfs.erofs", "mke2fs", "virtiofsd"];

/// Processes whose program is one of ours or works for us, with their arguments.
fn processes() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for name in entries("/proc").into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
    {
        let directory = Path::new("/proc").join(&name);
        let command = fs::read(directory.join("comm")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).trim().to_owned();
        // `comm` holds 15 bytes, so this program's own name is cut.
        let line = fs::read(directory.join("cmdline")).unwrap_or_default();
        // A supervisor and a proxy are started by way of `/proc/self/exe`, and called so.
        let ours = (command.starts_with("cofferdam") && command != "cofferdam-test-")
            || line.starts_with(b"cofferdam\0");
        if ours || TOOLS.contains(&command.as_str()) {
            found.insert(format!("{name} {}", String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

/// The groups at the top of the hierarchy, and those that supervisors made for their monitors: below their own group,
/// which is this program's or one below it.
fn cgroups() -> BTreeSet<String> {
    let mut found = entries("/sys/fs/cgroup");
    let mut left = Vec::from_iter(own_group());
    while let Some(group) = left.pop() {
        let below = groups(&group);
        let name = |group: &Path| group.file_name().map(|name| name.to_string_lossy().into_owned());
        let ours =
            |group: &&PathBuf| name(group).is_some_and(|name| name.starts_with("cofferdam-"));
        found.extend(below.iter().filter(ours).map(|group| group.display().to_string()));
        left.extend(below);
    }
    found
}

/// The directory of this program's own control group; none without cgroup v2.
pub(crate) fn own_group() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut mounts = mounts.lines().map(fields);
    let mount = mounts.find(|fields| fields.get(2).is_some_and(|kind| kind == "cgroup2"))?;
    Some(Path::new(mount.get(1)?).join(own))
}

/// The groups right below the one at `path`.
fn groups(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|entry| entry.path()).collect()
}

/// Names below the ordinary root of state directories, and those of containerd's namespaces, but for the locks, which
/// stay.
fn state() -> BTreeSet<String> {
    const CONTAINERD: &str = "/run/cofferdam-containerd";
    let mut names = entries("/run/cofferdam");
    for namespace in entries(CONTAINERD) {
        names.extend(entries(&format!("{CONTAINERD}/{namespace}")));
    }
    names.remove(",lock");
    names
}

/// Names in the directory at `path`; none if there is no such directory.
pub(crate) fn entries(path: &str) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(path) else { return BTreeSet::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Lines of the file at `path`.
fn lines(path: &str) -> BTreeSet<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}
