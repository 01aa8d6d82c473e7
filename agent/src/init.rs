//! What PID 1 of the guest does before there is a session, and at the very end.
//!
//! Invariant: after its mounts, the root directory is a mount of its own, so that containers can
//! `pivot_root`, and all mounts are private.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use cofferdam_agent_protocol::PodPlan;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use nix::unistd::{chdir, chroot, sethostname};

use crate::error::{Context, Result};
use crate::guest::cgroup::MAX_DEPTH;
use crate::guest::{self, Place};
use crate::launch::MAX_FILES;
use crate::sys;

/// The mounts of the guest: type, mount point, flags, options.
const MOUNTS: [(&str, &str, MsFlags, &str); 9] = {
    let plain = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);
    let closed = plain.union(MsFlags::MS_NODEV);
    [
        ("proc", "/proc", closed, ""),
        ("sysfs", "/sys", closed, ""),
        ("devtmpfs", "/dev", plain, "mode=0755"),
        ("devpts", "/dev/pts", plain, "mode=0620,gid=5,ptmxmode=0666"),
        ("tmpfs", "/dev/shm", closed, "mode=1777"),
        ("mqueue", "/dev/mqueue", closed, ""),
        // Files of the host that are brought along are here, an engine's init among them.
        ("tmpfs", "/run", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=0755"),
        ("tmpfs", "/tmp", closed, "mode=1777"),
        ("cgroup2", "/sys/fs/cgroup", closed, "nsdelegate,memory_recursiveprot"),
    ]
};

/// Prepares the guest.
///
/// # Errors
/// What failed; there is no guest then.
pub(crate) fn prepare() -> Result<Place> {
    own_root()?;
    for (fstype, path, flags, data) in MOUNTS {
        let attempted = || format!("mounting {fstype} at {path}");
        fs::create_dir_all(path).context(attempted)?;
        let outcome = mount(Some(fstype), path, Some(fstype), flags, Some(data));
        match fstype {
            // The kernel may have mounted it itself (CONFIG_DEVTMPFS_MOUNT), or do without it.
            "devtmpfs" | "mqueue" => {
                if let Err(errno) = outcome {
                    crate::log!("{}: {errno}", attempted());
                }
            }
            _ => outcome.context(attempted)?,
        }
        if fstype == "devtmpfs" {
            crate::log::open();
        }
    }
    // Before there is a process to see it.
    if symlink("/proc/self/fd", "/dev/fd").is_err() {
        crate::log!("cannot make /dev/fd");
    }
    sys::loopback_up().context(|| "bringing lo up".into())?;
    // Several descriptors for each process. What containers get is another matter.
    setrlimit(Resource::RLIMIT_NOFILE, MAX_FILES, MAX_FILES)
        .context(|| "raising the limit of open files".into())?;
    let place = Place {
        run: "/run/cofferdam".into(),
        cgroup: "/sys/fs/cgroup/pod".into(),
        cpus: "/sys/devices/system/cpu".into(),
        disks: None,
    };
    control_groups(Path::new("/sys/fs/cgroup"), &place.cgroup)?;
    Ok(place)
}

/// Moves this process to a root directory that is a mount point. The initial file system is none, and
/// `pivot_root(2)` refuses to leave it.
fn own_root() -> Result<()> {
    let attempted = || "making the root directory a mount point".into();
    let new = "/root";
    fs::create_dir_all(new).context(attempted)?;
    mount(Some("/"), new, None::<&str>, MsFlags::MS_BIND, None::<&str>).context(attempted)?;
    // The one below is the mount of this process's program. A container can get hold of that by the /proc/PID/exe of what
    // becomes a launcher: it must not change its owner or its permissions.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context(attempted)?;
    chdir(new).context(attempted)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context(attempted)?;
    chroot(".").context(attempted)?;
    chdir("/").context(attempted)
}

/// Lets groups below `root` and `pod` use every controller there is.
pub(crate) fn control_groups(root: &Path, pod: &Path) -> Result<()> {
    let attempted = || format!("making the control group {}", pod.display());
    fs::create_dir_all(pod).context(attempted)?;
    // Those of containers, and what they may make below.
    let deepest = (1 + MAX_DEPTH).to_string();
    fs::write(pod.join("cgroup.max.depth"), deepest).context(attempted)?;
    for group in [root, pod] {
        let controllers =
            fs::read_to_string(group.join("cgroup.controllers")).context(attempted)?;
        let switch = group.join("cgroup.subtree_control");
        // All at once: the kernel goes through the whole tree for each write.
        let all: Vec<String> =
            controllers.split_whitespace().map(|controller| format!("+{controller}")).collect();
        if fs::write(&switch, all.join(" ")).is_ok() {
            continue;
        }
        for controller in all {
            if let Err(error) = fs::write(&switch, &controller) {
                crate::log!("control group controller {controller}: {error}");
            }
        }
    }
    Ok(())
}

/// Applies what the host wants of the guest as a whole.
///
/// # Errors
/// What failed.
pub(crate) fn apply(plan: &PodPlan) -> Result<()> {
    if plan.realtime_ns != 0 {
        let attempted = || "setting the clock".into();
        let (seconds, rest) = (plan.realtime_ns / 1_000_000_000, plan.realtime_ns % 1_000_000_000);
        let number = |n: u64| i64::try_from(n).unwrap_or(0);
        let time = TimeSpec::new(number(seconds), number(rest));
        clock_settime(ClockId::CLOCK_REALTIME, time).context(attempted)?;
    }
    if !plan.hostname.is_empty() {
        let name = plan.hostname.as_str();
        sethostname(name).context(|| format!("setting the host name {name}"))?;
    }
    plan.sysctls.iter().try_for_each(guest::write_sysctl)
}

/// Writes all disks back and switches the machine off.
pub(crate) fn power_off() {
    nix::unistd::sync();
    let Err(errno) = reboot(RebootMode::RB_POWER_OFF);
    crate::log!("switching off: {errno}");
}
