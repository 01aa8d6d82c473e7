//! The confinement of this process: what it gives up before it looks at anything of a guest's.
//!
//! ```text
//! start_monitor (the parent)   a process-id namespace; descriptors 0, 1, 2
//! close_inherited              no other descriptor
//! enter                        namespaces, an empty root, another user, no capabilities, limits
//!   ... the machine is built from the descriptors that came ...
//! Filters::apply (each thread) only the system calls of its kind, before the first guest instruction
//! ```
//!
//! Invariant: nothing that [`enter`] gave up can be had again; when it fails, the process must end.

mod filter;
mod program;
mod root;
mod sys;
mod trap;

use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, getegid, geteuid, getpid, setgroups, setresgid, setresuid};
use rustix::thread::{CapabilitySet, CapabilitySets};

pub use filter::{Filters, Kind, calls};
pub use sys::{close_inherited, end_on_panic};
pub use trap::STOPPED_BY_FILTER;

/// Most descriptors: 4096 connections with, for a moment, both their ends, and what the devices need.
const DESCRIPTORS: u64 = 16 << 10;

/// Descriptors of a machine with all the devices it can have.
const EXPECTED_DESCRIPTORS: u64 = 1024;

/// Most threads of the user that this process becomes: vCPUs, devices, spares, and the kernel's own for rings.
const THREADS: u64 = 1024;

/// Something that could not be given up.
#[derive(Debug, thiserror::Error)]
#[error("cannot confine the monitor: {step}")]
pub struct JailError {
    step: &'static str,
    #[source]
    source: io::Error,
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> JailError {
    move |error| JailError { step, source: error.into() }
}

/// Confines this process, which must have one thread, as the user and group `uid`, or as who it is. Returns
/// what the host did not let it have, in words.
///
/// With a `uid` every step must succeed. Without, this process has no privileges to begin with: it makes a
/// user namespace for the sake of the others, and does without where the host allows none.
///
/// # Errors
/// The step that failed. The process must not go on.
pub fn enter(uid: Option<u32>) -> Result<Vec<String>, JailError> {
    sys::share_heap();
    let mut missing = Vec::new();
    if getpid().as_raw() != 1 {
        missing.push("a process-id namespace".to_owned());
    }
    match uid {
        Some(_) => leave_host()?,
        None => {
            // Some hosts allow a user namespace, but little within it.
            if let Err(JailError { step, source }) = become_owner().and_then(|()| leave_host()) {
                missing.push(format!("namespaces and an empty root ({step}: {source})"));
            }
        }
    }
    drop_bounding_set(uid.is_some())?;
    if let Some(uid) = uid {
        become_user(uid)?;
    }
    drop_capabilities()?;
    limit(uid.is_some())?;
    make_room()?;
    prctl::set_no_new_privs().map_err(failed("renouncing new privileges"))?;
    // Nobody of the same user may look into this process. Changing the user has reset the next one.
    prctl::set_dumpable(false).map_err(failed("becoming undumpable"))?;
    die_with_parent()?;
    Ok(missing)
}

/// Has the kernel end this process when the thread that started it ends. A parent that is gone already is
/// noticed by its end of the control socket.
///
/// # Errors
/// [`JailError`].
pub fn die_with_parent() -> Result<(), JailError> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed("asking to end with the parent"))
}

/// Namespaces of its own, with nothing in them: no file, no network interface, nobody to share memory with.
fn leave_host() -> Result<(), JailError> {
    let spaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(spaces).map_err(failed("making namespaces"))?;
    root::empty().map_err(failed("making an empty root"))
}

/// Owns a new user namespace, in which it is the user that it was.
fn become_owner() -> Result<(), JailError> {
    // Within the new namespace nobody has a number until it is written down.
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(failed("making a user namespace"))?;
    std::fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")))
        .and_then(|()| std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")))
        .map_err(failed("staying oneself in a user namespace"))
}

/// While it still has the right to: no program that it might execute could gain a capability.
fn drop_bounding_set(privileged: bool) -> Result<(), JailError> {
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // A kernel older or newer than the list.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) if privileged => return Err(failed("bounding its capabilities")(error)),
            Err(_) => break,
        }
    }
    Ok(())
}

fn become_user(uid: u32) -> Result<(), JailError> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
    setgroups(&[]).map_err(failed("leaving its groups"))?;
    setresgid(gid, gid, gid).map_err(failed("changing its group"))?;
    setresuid(uid, uid, uid).map_err(failed("changing its user"))
}

fn drop_capabilities() -> Result<(), JailError> {
    let none = CapabilitySet::empty();
    rustix::thread::clear_ambient_capability_set()
        .map_err(failed("dropping ambient capabilities"))?;
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, none).map_err(failed("dropping its capabilities"))
}

/// Has the kernel make the table of descriptors as long as a machine's ever gets, but for connections. As long as there is
/// one thread that costs nothing; later each time that it grows one of them waits for every processor of the host.
fn make_room() -> Result<(), JailError> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed("reading its limits"))?;
    let last = i32::try_from(soft.clamp(1, EXPECTED_DESCRIPTORS) - 1).unwrap_or(0);
    // Made and dropped: the table stays.
    let made = rustix::io::fcntl_dupfd_cloexec(io::stdin(), last).map(drop);
    made.map_err(failed("making room for its descriptors"))
}

/// `RLIMIT_FSIZE` is not among them: it would hold for the disks of the guest, whose size the devices check.
fn limit(own_user: bool) -> Result<(), JailError> {
    let mut limits = vec![
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
    ];
    if own_user {
        // It counts all threads of a user, so it means something only for a user of one's own.
        limits.push((Resource::RLIMIT_NPROC, THREADS));
    }
    for (resource, most) in limits {
        let (_, hard) = getrlimit(resource).map_err(failed("reading its limits"))?;
        let most = most.min(hard);
        setrlimit(resource, most, most).map_err(failed("setting its limits"))?;
    }
    Ok(())
}
