//! PID 1 of the guest: sets up and runs the containers of one pod.
//!
//! ```text
//! main -> init (mounts, clock) -> session (control connection) -> pod (containers)
//!              launch (the same program, executed anew for each process)    stdio (relays)
//! ```
//!
//! Outside of a guest, with `COFFERDAM_AGENT_DIR`, it serves Unix sockets in that directory instead of
//! vsock, for its tests.
//!
//! Invariant: one thread. A guest whose agent fails ends: by a panic of the kernel, or switched off.

mod error;
mod guest;
mod init;
mod launch;
mod log;
mod pod;
mod session;
mod stdio;
mod sys;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};

use error::{Context, Failure, Result};
use guest::Place;
use session::{End, Session};
use stdio::Dialer;

/// The directory with the host's sockets, outside of a guest.
const DIRECTORY: &str = "COFFERDAM_AGENT_DIR";

fn main() -> ExitCode {
    match std::env::args_os().next() {
        Some(name) if name == launch::NAME => return launch::main(),
        Some(name) if name == launch::keeper::NAME => return launch::keeper::main(),
        _ => {}
    }
    std::panic::set_hook(Box::new(|panic| log!("{panic}")));
    let in_guest = std::process::id() == 1;
    match run(in_guest) {
        Ok(end) => {
            if end == End::Lost {
                log!("the connection to the host is gone");
            }
            if in_guest {
                init::power_off();
            }
            ExitCode::SUCCESS
        }
        Err(failure) => {
            log!("{failure}");
            // The end of PID 1 is a panic of the kernel, which the host can tell from a shutdown.
            ExitCode::FAILURE
        }
    }
}

/// Runs the agent until its session ends.
fn run(in_guest: bool) -> Result<End> {
    let (place, dialer) = if in_guest { (init::prepare()?, Dialer::Vsock) } else { outside()? };
    // By its path: the file that runs may be on a mount of another namespace.
    let path = std::fs::read_link("/proc/self/exe").context(|| "finding the agent".into())?;
    let program = read_only(&path).context(|| "opening the agent".into())?;
    let null = read_only(Path::new("/dev/null")).context(|| "opening /dev/null".into())?;
    let own = pod::Own { program, null };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context(|| "starting the runtime".into())?;
    runtime.block_on(serve(place, dialer, own, in_guest))
}

/// The file at `path`, on a mount of its own that is read-only: a container that gets hold of it, of a launcher's program by
/// /proc/PID/exe for example, can change neither its owner nor its permissions.
fn read_only(path: &Path) -> nix::Result<OwnedFd> {
    /// `MOUNT_ATTR_RDONLY` of `linux/mount.h`.
    const READ_ONLY: u64 = 1;
    let file = sys::clone_tree(path, false)?;
    sys::set_tree_attributes(file.as_fd(), READ_ONLY, 0)?;
    sys::out_of_the_way(&file)
}

/// Serves the host.
async fn serve(place: Place, dialer: Dialer, own: pod::Own, in_guest: bool) -> Result<End> {
    let (mut session, plan) = Session::open(&dialer).await?;
    if in_guest {
        init::apply(&plan)?;
    }
    let mut pod = pod::Pod::new(place, dialer, own);
    let end = session.serve(&mut pod).await?;
    session.close().await;
    Ok(end)
}

/// Prepares to run outside of a guest: a mount namespace of its own, everything in one directory.
fn outside() -> Result<(Place, Dialer)> {
    let directory = std::env::var_os(DIRECTORY).map(PathBuf::from);
    let missing = || Failure::other("this is the agent of a guest; it is started by its kernel");
    let directory = directory.ok_or_else(missing)?;
    unshare(CloneFlags::CLONE_NEWNS).context(|| "making a mount namespace".into())?;
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .context(|| "making the mount tree private".into())?;
    sys::set_subreaper().context(|| "becoming the parent of orphans".into())?;
    let cgroup =
        PathBuf::from("/sys/fs/cgroup/unified/cofferdam-test").join(std::process::id().to_string());
    std::fs::create_dir_all(&cgroup).context(|| format!("making {}", cgroup.display()))?;
    let place = Place {
        run: directory.join("run"),
        cgroup,
        cpus: directory.join("cpu"),
        disks: Some(directory.join("disks")),
    };
    Ok((place, Dialer::Unix(directory)))
}
