//! The last steps: from a process in the right place to the program that the plan names.
//!
//! Order, as runc's: without `no_new_privs` a seccomp filter needs `CAP_SYS_ADMIN`, so it is installed
//! before the capabilities go; with it, as late as can be, so that the filter sees the least of us.
//!
//! Invariant: after the user id changes, nothing happens that the process itself could not do.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use cofferdam_agent_protocol::{Capabilities, ErrorKind, GuestHooks, ProcessPlan};
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, fstat, makedev, umask};
use nix::unistd::{Gid, Uid, chdir, fchown, getcwd, setgroups, setresgid, setresuid, setsid};

use super::channel::{self, Message};
use super::{hooks, lookup, passwd};
use crate::error::{Context, Failure, Result, describe, show};
use crate::sys;

/// Supplementary groups the kernel takes (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65536;

/// Detaches from the agent's session and keys.
pub(crate) fn new_session() -> Result<()> {
    setsid().context(|| "starting a session".into())?;
    sys::new_session_keyring().context(|| "joining a new session keyring".into())
}

/// Becomes the process, after `hooks`; returns only when that fails.
pub(crate) fn run(
    plan: &ProcessPlan,
    hooks: Option<&GuestHooks>,
    channel: BorrowedFd<'_>,
) -> Result<()> {
    // Before a filter that may not allow it.
    sys::close_on_exec_from(3).context(|| "closing descriptors".into())?;
    own_streams(plan.uid)?;
    if let Some(persona) = plan.personality {
        sys::personality(persona).context(|| format!("setting the personality {persona:#x}"))?;
    }
    umask(Mode::from_bits_truncate(plan.umask.unwrap_or(0o022) & 0o777));
    if !plan.no_new_privileges {
        seccomp(plan)?;
    }
    identity(plan)?;
    let env = environment(plan);
    let name = plan.args.first().ok_or_else(|| Failure::unsupported("a process without args"))?;
    let path = lookup::command(name, &plan.env)?;
    let c_path = c_string(&path)?;
    let c_args = plan.args.iter().map(|arg| c_string(arg)).collect::<Result<Vec<_>>>()?;
    let c_env = env.iter().map(|entry| c_string(entry)).collect::<Result<Vec<_>>>()?;

    // As long as it waits, which may be for ever, signals mean to it what they mean to most programs.
    sys::end_on_signals();
    channel::send(channel, &Message::Ready).context(|| "telling the agent".into())?;
    match channel::read(channel).context(|| "waiting for the agent".into())? {
        Some(Message::Go) => {}
        // The agent gave the process up.
        _ => return Err(Failure::other("the agent ended")),
    }
    if let Some(hooks) = hooks {
        hooks::run(hooks, &hooks::As { process: plan, env: Some(&c_env) })?;
    }
    sys::default_signals().context(|| "resetting signals".into())?;
    if plan.no_new_privileges {
        sys::no_new_privileges().context(|| "setting no_new_privs".into())?;
        seccomp(plan)?;
    }
    Err(refused(&path, sys::exec_fd(None, &c_path, &c_args, &c_env)))
}

/// The failure of `execve`, as runc words it.
fn refused(path: &[u8], errno: Errno) -> Failure {
    let kind = match errno {
        Errno::ENOENT | Errno::ENOTDIR => ErrorKind::CommandNotFound,
        _ => ErrorKind::CommandNotExecutable,
    };
    Failure::new(kind, format!("exec {}: {}", show(path), describe(errno)))
}

/// Gives the process its standard streams, so that it can open /dev/stdout again. Not /dev/null, which
/// is everybody's.
fn own_streams(uid: u32) -> Result<()> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let stat = fstat(stream).context(|| "stat of a standard stream".into())?;
        let device = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits();
        if (device && stat.st_rdev == makedev(1, 3)) || stat.st_uid == uid {
            continue;
        }
        match fchown(stream, Some(Uid::from_raw(uid)), None) {
            // As runc: a user namespace may not own it, or the file system may not be writable.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS) => {}
            Err(errno) => return Err(errno).context(|| "giving the standard streams away".into()),
        }
    }
    Ok(())
}

/// Working directory, groups, user and capabilities.
fn identity(plan: &ProcessPlan) -> Result<()> {
    let none = Capabilities::default();
    let sets = plan.capabilities.as_ref().unwrap_or(&none);
    let kernel = sys::supported_capabilities();
    sys::drop_bounding(kernel, sets.bounding).context(|| "dropping the bounding set".into())?;
    sys::set_keep_capabilities(true).context(|| "keeping capabilities".into())?;
    let changed = change_directory(&plan.cwd);
    ids(plan)?;
    // As another user, where the directory is that user's alone.
    match changed {
        Err(Errno::EACCES | Errno::EPERM) => change_directory(&plan.cwd),
        changed => changed,
    }
    .map_err(|errno| {
        let (cwd, why) = (show(&plan.cwd), describe(errno));
        let text = format!("chdir to cwd (\"{cwd}\") set in config.json failed: {why}");
        Failure::other(text)
    })?;
    sys::set_keep_capabilities(false).context(|| "not keeping capabilities".into())?;
    sys::clear_ambient().context(|| "clearing the ambient set".into())?;
    sys::set_capabilities(kernel, sets).context(|| "setting capabilities".into())?;
    sys::raise_ambient(kernel, sets).context(|| "setting ambient capabilities".into())
}

/// Groups and user.
fn ids(plan: &ProcessPlan) -> Result<()> {
    if plan.additional_gids.len() > MAX_GROUPS {
        return Err(Failure::unsupported("too many additional groups"));
    }
    let groups: Vec<Gid> = plan.additional_gids.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).context(|| "setting the additional groups".into())?;
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    setresgid(gid, gid, gid).context(|| format!("setting the group id {gid}"))?;
    setresuid(uid, uid, uid).context(|| format!("setting the user id {uid}"))
}

/// Goes to `cwd`, which must be inside the root directory.
fn change_directory(cwd: &[u8]) -> nix::Result<()> {
    chdir(if cwd.is_empty() { b"/".as_slice() } else { cwd })?;
    // The kernel says "(unreachable)/..." for a directory outside of it.
    if getcwd()?.is_absolute() { Ok(()) } else { Err(Errno::ENOENT) }
}

/// Installs the filters.
fn seccomp(plan: &ProcessPlan) -> Result<()> {
    for filter in &plan.seccomp {
        sys::install_seccomp(&filter.program, filter.flags)
            .context(|| "installing a seccomp filter".into())?;
    }
    Ok(())
}

/// The environment, with `HOME` from the container's /etc/passwd where there is none.
fn environment(plan: &ProcessPlan) -> Vec<Vec<u8>> {
    // Of several with one name, the last one counts.
    let name = |entry: &[u8]| entry.split(|byte| *byte == b'=').next().map(<[u8]>::to_vec);
    let mut seen = BTreeSet::new();
    let last = plan.env.iter().rev().filter(|entry| seen.insert(name(entry)));
    let mut env: Vec<Vec<u8>> = last.cloned().collect();
    env.reverse();
    let home = env.iter().rev().find_map(|entry| entry.strip_prefix(b"HOME="));
    if home.is_none_or(<[u8]>::is_empty) {
        env.retain(|entry| !entry.starts_with(b"HOME="));
        env.push([b"HOME=", passwd::home(plan.uid).as_slice()].concat());
    }
    env
}

/// `bytes` for the kernel.
pub(super) fn c_string(bytes: &[u8]) -> Result<CString> {
    let refused = |_| Failure::unsupported(format!("\"{}\" has a NUL byte", show(bytes)));
    CString::new(bytes).map_err(refused)
}
