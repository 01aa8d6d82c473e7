//! Each filter in a child process of its own: what it lets through and what it does not.
#![allow(unsafe_code, reason = "system calls as a hostile thread would make them")]

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, dup2_stderr, fork};

use super::*;
use crate::jail::STOPPED_BY_FILTER;

/// How a child ends that calls `attempt` under the filter of `kind`, and what it says.
fn child(kind: Kind, attempt: &dyn Fn()) -> (WaitStatus, String) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    // SAFETY: the child makes system calls only, and ends without returning from here.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            dup2_stderr(&writer).unwrap();
            // In the child: the filters hold its own number.
            Filters::new().unwrap().apply(kind).unwrap();
            attempt();
            // SAFETY: ends this process.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut said = String::new();
            reader.read_to_string(&mut said).unwrap();
            (waitpid(child, None).unwrap(), said)
        }
    }
}

fn is_let_through(kind: Kind, attempt: &dyn Fn()) {
    let (status, said) = child(kind, attempt);
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{kind:?}: {status:?}: {said}");
}

fn is_stopped(kind: Kind, name: &str, attempt: &dyn Fn()) {
    let (status, said) = child(kind, attempt);
    let expected = i32::from(STOPPED_BY_FILTER);
    assert!(
        matches!(status, WaitStatus::Exited(_, code) if code == expected),
        "{kind:?}: {status:?}"
    );
    let message = format!("stopped by its system-call filter: {name} (");
    assert!(said.contains(&message) && said.contains(kind.name()), "{kind:?}: {said}");
}

/// A system call with these arguments, whatever comes of it.
fn call(number: c_long, arguments: [c_long; 5]) {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the arguments are numbers, or null, or point to what outlives the call; none of the calls that
    // are let through writes to memory of this process.
    let _ = unsafe { libc::syscall(number, a, b, c, d, e) };
}

fn number(value: impl TryInto<c_long, Error: std::fmt::Debug>) -> c_long {
    value.try_into().unwrap()
}

#[test]
fn all_filters_together_name_at_most_52_calls() {
    let all: BTreeSet<i64> = Kind::ALL.into_iter().flat_map(calls).collect();
    assert!(all.len() <= 52, "{}", all.len());
}

#[test]
fn no_call_is_allowed_both_always_and_under_conditions() {
    for kind in Kind::ALL {
        let all: Vec<_> = everywhere().into_iter().chain(particular(kind, 1)).collect();
        let always = all.iter().filter(|(_, rules)| rules.is_empty()).map(|(call, _)| call);
        for call in always {
            let count = all.iter().filter(|(other, _)| other == call).count();
            assert_eq!(count, 1, "{kind:?}: call {call}: one rule would hide the other");
        }
    }
}

#[test]
fn what_every_thread_needs_is_let_through() {
    for kind in Kind::ALL {
        is_let_through(kind, &|| {
            let mut memory = vec![0u8; 8 << 20];
            memory.resize(16 << 20, 1);
            drop(memory);
            eprintln!("{:?}", std::time::Instant::now());
            let _ = std::collections::HashMap::<u8, u8>::new();
            std::thread::yield_now();
        });
    }
}

#[test]
fn no_thread_opens_starts_signals_or_talks() {
    let path = c"/dev/null".as_ptr() as c_long;
    let forbidden: [(&str, c_long, [c_long; 5]); 12] = [
        ("openat", libc::SYS_openat, [number(libc::AT_FDCWD), path, 0, 0, 0]),
        ("open", libc::SYS_open, [path, 0, 0, 0, 0]),
        ("socket", libc::SYS_socket, [number(libc::AF_UNIX), number(libc::SOCK_STREAM), 0, 0, 0]),
        ("socket", libc::SYS_socket, [number(libc::AF_INET), number(libc::SOCK_DGRAM), 0, 0, 0]),
        ("kill", libc::SYS_kill, [1, 0, 0, 0, 0]),
        ("tgkill", libc::SYS_tgkill, [1, 1, number(libc::SIGKILL), 0, 0]),
        ("clone", libc::SYS_clone, [0; 5]),
        ("clone3", libc::SYS_clone3, [0; 5]),
        ("execve", libc::SYS_execve, [path, 0, 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [0; 5]),
        ("prctl", libc::SYS_prctl, [0; 5]),
        ("setuid", libc::SYS_setuid, [0; 5]),
    ];
    for kind in Kind::ALL {
        for (name, number, arguments) in forbidden {
            if (kind, name) == (Kind::Main, "clone3") {
                continue;
            }
            is_stopped(kind, name, &|| call(number, arguments));
        }
    }
}

#[test]
fn no_thread_makes_memory_executable() {
    let flags = number(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let executable = number(libc::PROT_READ | libc::PROT_EXEC);
    for kind in Kind::ALL {
        is_stopped(kind, "mmap", &|| call(libc::SYS_mmap, [0, 4096, executable, flags, -1]));
        is_stopped(kind, "mprotect", &|| call(libc::SYS_mprotect, [0, 4096, executable, 0, 0]));
    }
}

#[test]
fn arguments_are_looked_at() {
    let null = File::open("/dev/null").unwrap();
    let fd = number(null.as_raw_fd());
    for kind in Kind::ALL {
        is_stopped(kind, "ioctl", &|| call(libc::SYS_ioctl, [fd, 0x5413, 0, 0, 0]));
    }
    is_let_through(Kind::Vcpu, &|| call(libc::SYS_ioctl, [fd, KVM_RUN.into(), 0, 0, 0]));
    is_stopped(Kind::Block, "ioctl", &|| call(libc::SYS_ioctl, [fd, KVM_RUN.into(), 0, 0, 0]));
    let duplicate = number(libc::F_DUPFD_CLOEXEC);
    is_let_through(Kind::Vcpu, &|| call(libc::SYS_fcntl, [fd, duplicate, 0, 0, 0]));
    is_stopped(Kind::Vcpu, "fcntl", &|| call(libc::SYS_fcntl, [fd, 4, 0, 0, 0]));
    is_stopped(Kind::Block, "fcntl", &|| call(libc::SYS_fcntl, [fd, duplicate, 0, 0, 0]));
}

#[test]
fn only_the_socket_device_makes_pairs_and_only_local_streams() {
    let mut ends = [0i32; 2];
    let ends = ends.as_mut_ptr() as c_long;
    let pair = |domain, kind| [number(domain), number(kind), 0, ends, 0];
    let usual = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let local = pair(libc::AF_UNIX, usual);
    is_let_through(Kind::Vsock, &|| call(libc::SYS_socketpair, local));
    let other = pair(libc::AF_UNIX, libc::SOCK_SEQPACKET);
    is_stopped(Kind::Vsock, "socketpair", &|| call(libc::SYS_socketpair, other));
    let inet = pair(libc::AF_INET, usual);
    is_stopped(Kind::Vsock, "socketpair", &|| call(libc::SYS_socketpair, inet));
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Vsock) {
        is_stopped(kind, "socketpair", &|| call(libc::SYS_socketpair, local));
    }
}

#[test]
fn only_the_first_thread_signals_and_only_its_own_process() {
    extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    // Without a handler the signal would end the child.
    vmm_sys_util::signal::register_signal_handler(libc::SIGRTMIN(), nothing).unwrap();
    // The one thread of the child has the child's number.
    let tid = std::process::id;
    is_let_through(Kind::Main, &|| {
        call(libc::SYS_tgkill, [number(tid()), number(tid()), number(libc::SIGRTMIN()), 0, 0]);
    });
    is_stopped(Kind::Main, "tgkill", &|| {
        call(libc::SYS_tgkill, [number(tid()), number(tid()), number(libc::SIGKILL), 0, 0]);
    });
    is_stopped(Kind::Main, "tgkill", &|| {
        call(libc::SYS_tgkill, [1, 1, number(libc::SIGRTMIN()), 0, 0]);
    });
}

#[test]
fn only_the_first_thread_starts_threads_and_no_processes() {
    is_let_through(Kind::Main, &|| std::thread::spawn(|| ()).join().unwrap());
    let namespace = number(THREAD | libc::CLONE_NEWUSER);
    is_stopped(Kind::Main, "clone", &|| call(libc::SYS_clone, [namespace, 0, 0, 0, 0]));
    is_stopped(Kind::Main, "clone", &|| call(libc::SYS_clone, [number(libc::SIGCHLD), 0, 0, 0, 0]));
    is_let_through(Kind::Main, &|| {
        // SAFETY: it fails, whatever its argument.
        let made = unsafe { libc::syscall(libc::SYS_clone3, 0, 0) };
        assert_eq!(
            (made, std::io::Error::last_os_error().raw_os_error()),
            (-1, Some(libc::ENOSYS))
        );
    });
}

#[test]
fn a_thread_started_later_is_held_to_its_own_filter_too() {
    let filters = Filters::new().unwrap();
    let later = |attempt: fn()| {
        std::thread::scope(|scope| {
            let confined = scope.spawn(|| {
                filters.apply(Kind::Block).unwrap();
                attempt();
            });
            confined.join().unwrap();
        });
    };
    is_let_through(Kind::Main, &|| later(|| ()));
    // The first thread may.
    let receive = || call(libc::SYS_recvmsg, [-1, 0, 0, 0, 0]);
    is_let_through(Kind::Main, &receive);
    let (status, said) = child(Kind::Main, &|| later(receive));
    let expected = i32::from(STOPPED_BY_FILTER);
    assert!(matches!(status, WaitStatus::Exited(_, code) if code == expected), "{status:?}");
    assert!(said.contains("recvmsg (") && said.contains("block"), "{said}");
}

#[test]
fn calls_of_32_bits_kill() {
    let (status, _) = child(Kind::Vcpu, &|| {
        // SAFETY: asks for the number of the process, as a 32-bit program would.
        unsafe {
            std::arch::asm!("push rbx", "int 0x80", "pop rbx", inlateout("eax") 20 => _);
        }
    });
    assert!(
        matches!(status, WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGSYS, _)),
        "{status:?}"
    );
}
