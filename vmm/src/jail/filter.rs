//! The system calls of each kind of thread.
//!
//! Whatever else a thread calls ends the process ([`super::trap`]). No filter lets a thread open a file,
//! start a process, signal another process, map executable memory or make a socket; the one
//! exception is a pair of sockets connected with each other, which the vsock device hands out.
//!
//! The first thread alone starts threads, for devices that are plugged in. Such a thread has the first one's filter
//! besides its own, so the first one's names what those devices need. It sees no byte of the guest.
//!
//! Invariant: all filters together name at most 52 system calls.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;

use cofferdam_vmm_devices::virtio::DeviceId;
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::trap;

/// A kind of thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The first thread: the control socket, the machine's end.
    Main,
    /// Runs the guest, and answers its accesses to devices.
    Vcpu,
    /// A disk's requests.
    Block,
    /// The socket device's packets.
    Vsock,
    /// A network card's packets.
    Net,
    /// Random numbers.
    Rng,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Main, Self::Vcpu, Self::Block, Self::Vsock, Self::Net, Self::Rng];

    /// The kind of the thread of a device, if there is a filter for it.
    #[must_use]
    pub fn of(device: DeviceId) -> Option<Self> {
        match device {
            DeviceId::Block => Some(Self::Block),
            DeviceId::Vsock => Some(Self::Vsock),
            DeviceId::Net => Some(Self::Net),
            DeviceId::Rng => Some(Self::Rng),
            _ => None,
        }
    }

    /// What messages call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Vcpu => "vCPU",
            Self::Block => "block",
            Self::Vsock => "vsock",
            Self::Net => "net",
            Self::Rng => "rng",
        }
    }
}

/// An argument, by its place, has this value where the mask has ones. Only the lower 32 bits are compared: the
/// kernel takes no more of those that are compared here.
type Condition = (u8, u32, u32);

/// One of several lists of conditions that must all hold; an empty list of lists always holds.
type Rules = Vec<Vec<Condition>>;

/// A system call and when it is allowed.
type Call = (c_long, Rules);

const ALL_BITS: u32 = u32::MAX;

fn any(call: c_long) -> Call {
    (call, Vec::new())
}

/// Allowed if argument `place` is one of `values`.
fn one_of(call: c_long, place: u8, values: &[u32]) -> Call {
    (call, values.iter().map(|value| vec![(place, ALL_BITS, *value)]).collect())
}

fn bits(flags: libc::c_int) -> u32 {
    flags.cast_unsigned()
}

/// `ioctl` requests (Linux, uapi/linux/kvm.h; asm-generic/ioctls.h).
const KVM_RUN: u32 = 0xae80;
const KVM_KVMCLOCK_CTRL: u32 = 0xaead;
const KVM_SET_GSI_ROUTING: u32 = 0x4008_ae6a;
const KVM_IRQFD: u32 = 0x4020_ae76;
const KVM_IOEVENTFD: u32 = 0x4040_ae79;
const FIONBIO: u32 = 0x5421;

/// What a thread needs to live: memory, locks, eventfds, messages on standard error, an end.
fn everywhere() -> Vec<Call> {
    let no_code = vec![vec![(2, bits(libc::PROT_EXEC), 0)]];
    let mut calls = vec![
        any(libc::SYS_futex),
        any(libc::SYS_read),
        any(libc::SYS_write),
        any(libc::SYS_close),
        (libc::SYS_mmap, no_code.clone()),
        (libc::SYS_mprotect, no_code),
        any(libc::SYS_munmap),
        any(libc::SYS_mremap),
        any(libc::SYS_madvise),
        any(libc::SYS_brk),
        // The standard library's channels.
        any(libc::SYS_sched_yield),
        // Where the host's clock cannot be read without the kernel.
        any(libc::SYS_clock_gettime),
        // The seeds of hash tables.
        any(libc::SYS_getrandom),
        // The end of a thread: its alternate stack, its signals.
        any(libc::SYS_sigaltstack),
        any(libc::SYS_rt_sigprocmask),
        any(libc::SYS_rt_sigreturn),
        // After the process was stopped and went on.
        any(libc::SYS_restart_syscall),
        any(libc::SYS_exit),
        any(libc::SYS_exit_group),
    ];
    if cfg!(debug_assertions) {
        // The standard library then checks each descriptor before it closes it.
        calls.push(one_of(libc::SYS_fcntl, 1, &[bits(libc::F_GETFD)]));
    }
    calls
}

/// Raising an interrupt may be the first use of its vector: then it is connected with KVM.
const INTERRUPTS: [u32; 2] = [KVM_SET_GSI_ROUTING, KVM_IRQFD];

/// What a device's thread waits with.
fn waiting() -> Vec<Call> {
    vec![any(libc::SYS_epoll_create1), any(libc::SYS_epoll_ctl), any(libc::SYS_epoll_wait)]
}

/// The console's log.
fn console() -> Vec<Call> {
    vec![any(libc::SYS_pread64), any(libc::SYS_pwrite64), any(libc::SYS_ftruncate)]
}

/// The flags with which the C library starts a thread (`pthread_create(3)`); a process has others.
const THREAD: libc::c_int = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID;

/// `SECCOMP_SET_MODE_FILTER`.
const SET_FILTER: u32 = 1;

/// A disk is plugged in: its size, its vectors, its thread, which names and confines itself.
fn plugging() -> Vec<Call> {
    vec![
        any(libc::SYS_statx),
        any(libc::SYS_fstat),
        any(libc::SYS_lseek),
        any(libc::SYS_eventfd2),
        one_of(libc::SYS_clone, 0, &[bits(THREAD)]),
        // Refused all the same, see [`no_clone3`].
        any(libc::SYS_clone3),
        any(libc::SYS_set_robust_list),
        any(libc::SYS_rseq),
        any(libc::SYS_sched_getaffinity),
        any(libc::SYS_gettid),
        one_of(libc::SYS_prctl, 0, &[bits(libc::PR_SET_NAME), bits(libc::PR_SET_NO_NEW_PRIVS)]),
        one_of(libc::SYS_seccomp, 0, &[SET_FILTER]),
    ]
}

/// What `kind` needs beside [`everywhere`]. `pid` is this process.
fn particular(kind: Kind, pid: u32) -> Vec<Call> {
    let interrupts = one_of(libc::SYS_ioctl, 1, &INTERRUPTS);
    let mut calls = match kind {
        Kind::Main => vec![
            any(libc::SYS_poll),
            any(libc::SYS_recvmsg),
            any(libc::SYS_sendmsg),
            // Makes a vCPU leave the guest; glibc asks for the number of the process first.
            any(libc::SYS_getpid),
            (
                libc::SYS_tgkill,
                vec![vec![(0, ALL_BITS, pid), (2, ALL_BITS, bits(libc::SIGRTMIN()))]],
            ),
            // Devices let go of their doorbells as they are dropped.
            one_of(libc::SYS_ioctl, 1, &[KVM_IOEVENTFD]),
        ],
        Kind::Vcpu => vec![
            one_of(
                libc::SYS_ioctl,
                1,
                &[KVM_RUN, KVM_KVMCLOCK_CTRL, KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_IOEVENTFD],
            ),
            // A device is activated: its doorbells and what it waits with.
            any(libc::SYS_eventfd2),
            one_of(libc::SYS_fcntl, 1, &[bits(libc::F_DUPFD_CLOEXEC)]),
            any(libc::SYS_epoll_create1),
            any(libc::SYS_epoll_ctl),
        ],
        Kind::Block => vec![
            interrupts,
            any(libc::SYS_preadv),
            any(libc::SYS_pwritev),
            any(libc::SYS_fdatasync),
        ],
        Kind::Vsock => vec![
            one_of(libc::SYS_ioctl, 1, &[KVM_SET_GSI_ROUTING, KVM_IRQFD, FIONBIO]),
            any(libc::SYS_recvmsg),
            any(libc::SYS_sendmsg),
            any(libc::SYS_shutdown),
            // A connection that the guest asks for: one end goes to the supervisor.
            (
                libc::SYS_socketpair,
                vec![vec![
                    (0, ALL_BITS, bits(libc::AF_UNIX)),
                    (1, !bits(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK), bits(libc::SOCK_STREAM)),
                ]],
            ),
        ],
        // Its packets are read and written through the descriptor that it was given.
        Kind::Net => vec![interrupts, any(libc::SYS_readv), any(libc::SYS_writev)],
        Kind::Rng => vec![interrupts],
    };
    match kind {
        Kind::Main => {
            calls.extend(console());
            calls.extend(plugging());
            calls.extend(particular(Kind::Block, pid));
        }
        Kind::Vcpu => calls.extend(console()),
        _ => calls.extend(waiting()),
    }
    calls
}

/// The numbers of the system calls that `kind` may make.
#[must_use]
pub fn calls(kind: Kind) -> BTreeSet<i64> {
    everywhere().into_iter().chain(particular(kind, 0)).map(|(call, _)| call).collect()
}

/// The filters of all kinds of threads, compiled.
#[derive(Debug)]
pub struct Filters {
    programs: BTreeMap<Kind, BpfProgram>,
    no_clone3: BpfProgram,
}

impl Filters {
    /// Compiles them for this process, which from now on says so when one of them stops it.
    ///
    /// # Errors
    /// If a table makes no sense.
    pub fn new() -> io::Result<Self> {
        trap::install()?;
        let compile = |kind| Ok((kind, program(kind).map_err(io::Error::other)?));
        let programs = Kind::ALL.into_iter().map(compile).collect::<io::Result<_>>()?;
        let no_clone3 = no_clone3().map_err(io::Error::other)?;
        Ok(Self { programs, no_clone3 })
    }

    /// Holds the calling thread, for the rest of its life, to what `kind` needs.
    ///
    /// # Errors
    /// If the kernel refuses; the thread must not go on.
    pub fn apply(&self, kind: Kind) -> io::Result<()> {
        trap::name_thread(kind.name());
        if kind == Kind::Main {
            apply_filter(&self.no_clone3).map_err(io::Error::other)?;
        }
        let program = self.programs.get(&kind);
        let program = program.ok_or_else(|| io::Error::other("no filter of this kind"))?;
        apply_filter(program).map_err(io::Error::other)
    }
}

fn program(kind: Kind) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (call, conditions) in everywhere().into_iter().chain(particular(kind, std::process::id())) {
        let lists = conditions.into_iter().map(rule).collect::<Result<Vec<_>, _>>()?;
        rules.entry(call).or_default().extend(lists);
    }
    // A call for another architecture, such as one of 32 bits, kills the process whatever the rules say.
    let filter =
        SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, TargetArch::x86_64)?;
    filter.try_into()
}

/// `clone3` has its flags in memory, where no filter can look; told that the kernel does not know it, the C library
/// takes `clone`.
fn no_clone3() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let unknown = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, unknown, TargetArch::x86_64)?.try_into()
}

fn rule(conditions: Vec<Condition>) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = |(place, mask, value): Condition| {
        let compared = SeccompCmpOp::MaskedEq(mask.into());
        SeccompCondition::new(place, SeccompCmpArgLen::Dword, compared, value.into())
    };
    SeccompRule::new(conditions.into_iter().map(condition).collect::<Result<_, _>>()?)
}

#[cfg(test)]
#[path = "filter_test.rs"]
mod filter_test;
