//! Thin wrappers of the system calls that have no safe one elsewhere.
//!
//! Invariant: all `unsafe` code of the agent is below this module; each wrapper is safe to call.

mod bpf;
mod clone;
mod identity;
mod limits;
mod mount;
mod net;
mod process;
mod terminal;

pub(crate) use bpf::{install_seccomp, limit_devices};
pub(crate) use clone::{Stage, clone_process, exec_fd, exit_now, fork_process};
pub(crate) use identity::{
    clear_ambient, clear_inheritable, drop_bounding, raise_ambient, set_capabilities,
    supported_capabilities,
};
pub(crate) use limits::{set_affinity, set_io_priority, set_rlimit, set_scheduler};
pub(crate) use mount::{attach_tree, clone_tree, map_tree, set_tree_attributes};
pub(crate) use net::loopback_up;
pub(crate) use process::{
    adopt, close_on_exec_from, close_others, default_signals, end_on_signals, install_fds,
    is_stopped, new_session_keyring, next_ended, no_new_privileges, open_pidfd, out_of_the_way,
    personality, reap_for_ever, send_signal, set_domainname, set_dumpable, set_keep_capabilities,
    set_subreaper, watch,
};
pub(crate) use terminal::{
    WindowSize, keep_newlines, number as terminal_number, peer as terminal_peer, resize,
    take_control, unlock,
};

use nix::errno::Errno;

/// The result of a system call made through `libc::syscall`.
fn result(value: libc::c_long) -> nix::Result<libc::c_long> {
    Errno::result(value)
}
