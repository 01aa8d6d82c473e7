//! The thread that keeps a pod's volumes mounted, and the file server that serves them.
//!
//! It has a mount namespace of its own. In it, once the server runs, is nothing but a small file system in memory, with
//! the volumes in its directory `root`. The server's namespace is a copy of it, to which what is mounted in `root`
//! spreads; the server makes that directory the root of all that it sees.
//!
//! Invariant: the thread ends when nobody can ask it for anything any more, and then the server has ended; if the process
//! is killed, the server ends by itself, and the namespaces go with their last process.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat, unlinkat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount, mount_bind,
    mount_change, mount_remount, move_mount, unmount,
};
use rustix::process::{PidfdFlags, chdir, pidfd_open, pivot_root};
use tokio::sync::oneshot;

use super::handshake::{Connected, connect};
use crate::sys;

/// How long the server may take to end.
const ENDING: Duration = Duration::from_secs(2);

/// Most bytes of the server's standard error that are kept.
const MAX_WORDS: u64 = 4096;

/// What the server may do: serve files of any owner, and make files as any user; no more device nodes, nor
/// capabilities of files.
const CAPABILITIES: &str = "--modcaps=-MKNOD:-SETFCAP";

/// The directory that is shared, and the server's socket.
const ROOT: &str = "root";
const SOCKET: &str = "socket";

/// Owner and permission bits of the file system in memory; it is as small as the kernel makes one.
const OPTIONS: &std::ffi::CStr = c"mode=0700,size=64k,nr_inodes=4k";

/// What the keeper is asked for.
#[derive(Debug)]
pub(super) enum Order {
    /// Mount this tree under this name.
    Add { tree: OwnedFd, name: String, reply: oneshot::Sender<io::Result<()>> },
    /// Unmount what has this name.
    Remove { name: String },
}

/// A server that runs.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) connected: Connected,
    /// Readable when it has ended.
    pub(super) end: OwnedFd,
    /// Its process.
    pub(super) pid: u32,
    /// What it writes on standard error.
    pub(super) words: OwnedFd,
}

/// The thread's body: starts `program`, tells of it, and does what it is asked for. `directory` is any directory.
pub(super) fn keep(
    program: &Path,
    directory: &Path,
    started: oneshot::Sender<io::Result<Started>>,
    orders: &Receiver<Order>,
) {
    let (keeper, child, end) = match begin(program, directory) {
        Ok((keeper, child, end)) => (keeper, child, end),
        Err(error) => return drop(started.send(Err(error))),
    };
    let running = Running { child, socket: keeper.1 };
    if started.send(Ok(end)).is_ok() {
        for order in orders {
            match order {
                // Whoever asked may be gone.
                Order::Add { tree, name, reply } => drop(reply.send(keeper.0.add(&tree, &name))),
                Order::Remove { name } => keeper.0.remove(&name),
            }
        }
    }
    running.stop();
}

/// The server's process; it ends when the socket closes.
struct Running {
    child: Child,
    socket: UnixStream,
}

impl Running {
    fn stop(self) {
        let Self { mut child, socket } = self;
        drop(socket);
        let until = Instant::now() + ENDING;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        // It has ended by itself, unless it waits for a file system of the host.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The namespace.
struct Keeper {
    /// The directory with the mount points, to be changed; and as it is shared.
    points: OwnedFd,
    shared: OwnedFd,
}

fn begin(program: &Path, directory: &Path) -> io::Result<((Keeper, UnixStream), Child, Started)> {
    let keeper = Keeper::new(directory).map_err(doing("making a mount namespace for volumes"))?;
    let (mut child, socket) = start(program).map_err(doing("starting virtiofsd"))?;
    let told = tell(&mut child, &socket);
    let left = told.and_then(|started| leave_host().map(|()| started));
    match left {
        Ok(started) => Ok(((keeper, socket), child, started)),
        Err(error) => {
            let _ = child.kill();
            let mut words = String::new();
            if let Some(stderr) = child.stderr.take() {
                let _ = stderr.take(MAX_WORDS).read_to_string(&mut words);
            }
            let _ = child.wait();
            let words = crate::tail::printable(words.as_bytes());
            Err(io::Error::other(format!("talking to virtiofsd: {error} {words}")))
        }
    }
}

fn doing(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

impl Keeper {
    /// Moves the calling thread into a namespace with a small file system over `directory`, its working directory.
    fn new(directory: &Path) -> io::Result<Self> {
        // Paths and the working directory are the thread's own with that, too.
        unshare(CloneFlags::CLONE_NEWNS)?;
        let follow = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", follow)?;
        let none = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("volumes", directory, "tmpfs", none, OPTIONS)?;
        chdir(directory)?;
        // The server does not own what it sees: it is not to look into the root directory as nobody.
        mkdirat(CWD, ROOT, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let points = openat(CWD, ROOT, flags, Mode::empty())?;
        mount_bind(ROOT, ROOT)?;
        mount_remount(ROOT, MountFlags::BIND | MountFlags::RDONLY | none, c"")?;
        mount_change(ROOT, MountPropagationFlags::SHARED)?;
        let shared = openat(CWD, ROOT, flags, Mode::empty())?;
        Ok(Self { points, shared })
    }

    fn add(&self, tree: &OwnedFd, name: &str) -> io::Result<()> {
        let stat = rustix::fs::fstat(tree)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            mkdirat(&self.points, name, Mode::from_raw_mode(0o700))?;
        } else {
            let mode = Mode::from_raw_mode(0o600);
            mknodat(&self.points, name, FileType::RegularFile, mode, 0)?;
        }
        let moved =
            move_mount(tree, "", &self.shared, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
        if moved.is_err() {
            self.remove_point(name);
        }
        Ok(moved?)
    }

    fn remove(&self, name: &str) {
        let path: PathBuf = [ROOT, name].iter().collect();
        if let Err(error) = unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            tracing::warn!(%error, name, "unmounting a volume");
        }
        self.remove_point(name);
    }

    fn remove_point(&self, name: &str) {
        // One of the two.
        if unlinkat(&self.points, name, AtFlags::REMOVEDIR).is_err() {
            let _ = unlinkat(&self.points, name, AtFlags::empty());
        }
    }
}

/// Starts the server, with the socket that it takes one connection from as its standard input.
fn start(program: &Path) -> io::Result<(Child, UnixStream)> {
    let listener = UnixListener::bind(SOCKET)?;
    let socket = UnixStream::connect(SOCKET)?;
    let directory = std::env::current_dir()?.join(ROOT);
    let mut command = Command::new(program);
    command.arg("--fd=0").arg("--shared-dir").arg(directory);
    command.args(["--sandbox=namespace", "--seccomp=kill", CAPABILITIES]);
    command.args(["--inode-file-handles=never", "--announce-submounts", "--posix-acl"]);
    // As many threads as requests come at once: one that a file system of the host holds up holds up no other. What is
    // written to loses its set-user-ID bit.
    command.args(["--thread-pool-size=8", "--killpriv-v2"]);
    // What either side does, the other sees at once; files can be mapped all the same.
    command.args(["--cache=never", "--allow-mmap", "--log-level=error"]);
    command.env_clear().process_group(0);
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::piped());
    sys::die_with_us(&mut command);
    Ok((command.spawn()?, socket))
}

fn tell(child: &mut Child, socket: &UnixStream) -> io::Result<Started> {
    let connected = connect(socket)?;
    let end = pidfd_open(rustix::process::Pid::from_child(child), PidfdFlags::empty())?;
    let lost = || io::Error::other("no standard error");
    let words = OwnedFd::from(child.stderr.take().ok_or_else(lost)?);
    Ok(Started { connected, end, pid: child.id(), words })
}

/// Makes the working directory the root, and lets go of everything else: a copy of the host's mounts would keep alive
/// what the host unmounts.
fn leave_host() -> io::Result<()> {
    pivot_root(".", ".").map_err(io::Error::from).map_err(doing("changing the root"))?;
    unmount(".", UnmountFlags::DETACH)
        .map_err(io::Error::from)
        .map_err(doing("leaving the root"))?;
    chdir("/")?;
    Ok(())
}

/// The processes that the process `pid` has started.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let mut listed = String::new();
    if let Ok(mut file) = File::open(format!("/proc/{pid}/task/{pid}/children")) {
        let _ = file.read_to_string(&mut listed);
    }
    listed.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
