//! The system calls of each kind of thread.
//!
//! Whatever else a thread calls ends the process ([`super::trap`]). No filter lets a thread open a file,
//! start a thread or process, signal another process, map executable memory or make a socket; the one
//! exception is a pair of sockets connected with each other, which the vsock device hands out.
//!
//! Invariant: all filters together name at most 40 system calls.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;

use cofferdam_vmm_devices::virtio::DeviceId;
use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule,
    apply_filter,
};

use super::program::{Table, compile};
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
    /// Gives memory back.
    Balloon,
    /// Waits for a disk or network card that is plugged in, and serves it.
    Spare,
    /// Plugs memory in and out.
    Mem,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Main,
        Self::Vcpu,
        Self::Block,
        Self::Vsock,
        Self::Net,
        Self::Rng,
        Self::Balloon,
        Self::Spare,
        Self::Mem,
    ];

    /// The kind of the thread of a device, if there is a filter for it.
    #[must_use]
    pub fn of(device: DeviceId) -> Option<Self> {
        match device {
            DeviceId::Block => Some(Self::Block),
            DeviceId::Vsock => Some(Self::Vsock),
            DeviceId::Net => Some(Self::Net),
            DeviceId::Rng => Some(Self::Rng),
            DeviceId::Balloon => Some(Self::Balloon),
            DeviceId::Mem => Some(Self::Mem),
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
            Self::Balloon => "balloon",
            Self::Spare => "spare",
            Self::Mem => "mem",
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
/// A page of configuration space that is read as memory is taken away when it stops being mere memory.
const KVM_SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;
const FIONBIO: u32 = 0x5421;

/// Which offloads a tap may leave to its reader (uapi/linux/if_tun.h).
const TUNSETOFFLOAD: u32 = 0x4004_54d0;

/// Puts a ring to work that was made before, with all its restrictions (`io_uring_register(2)`).
const IORING_REGISTER_ENABLE_RINGS: u32 = 12;

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
    let file = [libc::SYS_preadv2, libc::SYS_pwritev2, libc::SYS_ftruncate];
    // A stream is asked for room first.
    file.into_iter().chain([libc::SYS_poll]).map(any).collect()
}

/// The first thread's own. `pid` is this process.
fn first(pid: u32) -> Vec<Call> {
    vec![
        // KVM's statistics.
        any(libc::SYS_pread64),
        any(libc::SYS_recvmsg),
        any(libc::SYS_sendmsg),
        // Makes a vCPU leave the guest; glibc asks for the number of the process first.
        any(libc::SYS_getpid),
        (libc::SYS_tgkill, vec![vec![(0, ALL_BITS, pid), (2, ALL_BITS, bits(libc::SIGRTMIN()))]]),
        // Devices let go of their doorbells and pages as they are dropped; a network card that is plugged in is
        // asked for its offloads; the driver of the memory device is told of another size by an interrupt.
        one_of(
            libc::SYS_ioctl,
            1,
            &[
                KVM_IOEVENTFD,
                KVM_IRQFD,
                KVM_SET_GSI_ROUTING,
                KVM_SET_USER_MEMORY_REGION,
                TUNSETOFFLOAD,
            ],
        ),
        // The interrupt vectors of a device that is plugged in.
        any(libc::SYS_eventfd2),
    ]
}

/// What `kind` needs beside [`everywhere`]. `pid` is this process.
fn particular(kind: Kind, pid: u32) -> Vec<Call> {
    let interrupts = one_of(libc::SYS_ioctl, 1, &INTERRUPTS);
    let mut calls = match kind {
        Kind::Main => first(pid),
        Kind::Vcpu => vec![
            one_of(
                libc::SYS_ioctl,
                1,
                &[
                    KVM_RUN,
                    KVM_KVMCLOCK_CTRL,
                    KVM_SET_GSI_ROUTING,
                    KVM_IRQFD,
                    KVM_IOEVENTFD,
                    KVM_SET_USER_MEMORY_REGION,
                    TUNSETOFFLOAD,
                ],
            ),
            // A device is activated: its doorbells and what it waits with.
            any(libc::SYS_eventfd2),
            one_of(libc::SYS_fcntl, 1, &[bits(libc::F_DUPFD_CLOEXEC)]),
            any(libc::SYS_epoll_create1),
            any(libc::SYS_epoll_ctl),
        ],
        Kind::Block => vec![
            interrupts,
            any(libc::SYS_preadv2),
            any(libc::SYS_pwritev2),
            any(libc::SYS_fdatasync),
            any(libc::SYS_fallocate),
            any(libc::SYS_io_uring_enter),
            one_of(libc::SYS_io_uring_register, 1, &[IORING_REGISTER_ENABLE_RINGS]),
            // The ring watches copies of the eventfds.
            one_of(libc::SYS_fcntl, 1, &[bits(libc::F_DUPFD_CLOEXEC)]),
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
        Kind::Net => vec![interrupts, any(libc::SYS_preadv2), any(libc::SYS_pwritev2)],
        // What is plugged in has no rings of `io_uring`; a card needs nothing that a disk does not.
        Kind::Spare => vec![
            interrupts,
            any(libc::SYS_preadv2),
            any(libc::SYS_pwritev2),
            any(libc::SYS_fdatasync),
            any(libc::SYS_fallocate),
        ],
        Kind::Rng => vec![interrupts],
        // Memory is given back by `madvise`.
        Kind::Balloon => vec![interrupts],
        // So it is here; a part of the guest's address space comes or goes as a memory slot.
        Kind::Mem => vec![one_of(
            libc::SYS_ioctl,
            1,
            &[KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_SET_USER_MEMORY_REGION],
        )],
    };
    match kind {
        Kind::Main | Kind::Vcpu => calls.extend(console()),
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
}

impl Filters {
    /// Compiles them for this process, which from now on says so when one of them stops it.
    ///
    /// # Errors
    /// If a table makes no sense.
    pub fn new() -> io::Result<Self> {
        trap::install()?;
        let compile = |kind| Ok((kind, compile(&table(kind)?)?));
        let programs = Kind::ALL.into_iter().map(compile).collect::<Result<_, BackendError>>();
        Ok(Self { programs: programs.map_err(io::Error::other)? })
    }

    /// Holds the calling thread, for the rest of its life, to what `kind` needs.
    ///
    /// # Errors
    /// If the kernel refuses; the thread must not go on.
    pub fn apply(&self, kind: Kind) -> io::Result<()> {
        trap::name_thread(kind.name());
        let program = self.programs.get(&kind);
        let program = program.ok_or_else(|| io::Error::other("no filter of this kind"))?;
        apply_filter(program).map_err(io::Error::other)
    }
}

/// What is compiled for `kind`.
pub(super) fn table(kind: Kind) -> Result<Table, BackendError> {
    let mut rules = Table::new();
    for (call, conditions) in everywhere().into_iter().chain(particular(kind, std::process::id())) {
        let lists = conditions.into_iter().map(rule).collect::<Result<Vec<_>, _>>()?;
        rules.entry(call).or_default().extend(lists);
    }
    Ok(rules)
}

fn rule(conditions: Vec<Condition>) -> Result<SeccompRule, BackendError> {
    let condition = |(place, mask, value): Condition| {
        let compared = SeccompCmpOp::MaskedEq(mask.into());
        SeccompCondition::new(place, SeccompCmpArgLen::Dword, compared, value.into())
    };
    SeccompRule::new(conditions.into_iter().map(condition).collect::<Result<_, _>>()?)
}

#[cfg(test)]
#[path = "filter_test.rs"]
mod filter_test;
