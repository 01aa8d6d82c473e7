//! Opening KVM and checking that it can do what is needed.
//!
//! Invariant: a [`Hypervisor`] exists only if every capability that the rest of this crate uses is there.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::{Cap, Kvm};

use crate::cpuid::CpuidTable;
use crate::memory::GuestRam;
use crate::vm::{Vm, VmError};

/// What the rest of this crate relies on, by KVM's own names.
const REQUIRED: [(Cap, &str); 9] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// A KVM that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device node is absent.
    #[error(
        "{path} does not exist: load the module kvm_intel or kvm_amd, and switch on virtualisation in the firmware"
    )]
    Missing {
        /// The device node.
        path: String,
    },
    /// This user may not open it.
    #[error("no permission to open {path}: be in the group kvm, or root")]
    Permission {
        /// The device node.
        path: String,
    },
    /// It cannot be opened for another reason.
    #[error("cannot open {path}")]
    Open {
        /// The device node.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not KVM, or a KVM from before 2007.
    #[error("/dev/kvm answers with API version {0}, not {KVM_API_VERSION}: is it KVM?")]
    Version(i32),
    /// A capability is absent.
    #[error("this host's KVM lacks {0}")]
    Capability(&'static str),
    /// A fact about KVM cannot be read.
    #[error("cannot read {what} from KVM")]
    Query {
        /// What was read.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Opens the device node of KVM, for [`Hypervisor::from_fd`] here or in another process.
///
/// # Errors
/// [`OpenError`] says what is wrong and what helps.
pub fn open_kvm(path: &str) -> Result<OwnedFd, OpenError> {
    let opened = File::options().read(true).write(true).open(path);
    opened.map(OwnedFd::from).map_err(|source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => OpenError::Missing { path },
            io::ErrorKind::PermissionDenied => OpenError::Permission { path },
            _ if source.raw_os_error() == Some(libc::ENXIO) => OpenError::Missing { path },
            _ => OpenError::Open { path, source },
        }
    })
}

/// The host's KVM.
#[derive(Debug)]
pub struct Hypervisor {
    kvm: Kvm,
}

impl Hypervisor {
    /// Opens `/dev/kvm`.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong and what helps.
    pub fn open() -> Result<Self, OpenError> {
        Self::from_fd(open_kvm("/dev/kvm")?)
    }

    /// Uses a KVM that somebody else opened.
    ///
    /// # Errors
    /// [`OpenError`] if it is not KVM or lacks something.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, OpenError> {
        // SAFETY: `fd` is open and owned, and its ownership moves into the `Kvm`.
        Self::checked(unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) })
    }

    fn checked(kvm: Kvm) -> Result<Self, OpenError> {
        let version = kvm.get_api_version();
        if u32::try_from(version) != Ok(KVM_API_VERSION) {
            return Err(OpenError::Version(version));
        }
        match REQUIRED.iter().find(|(capability, _)| !kvm.check_extension(*capability)) {
            Some((_, name)) => Err(OpenError::Capability(name)),
            None => Ok(Self { kvm }),
        }
    }

    /// Most virtual CPUs of one machine.
    #[must_use]
    pub fn max_vcpus(&self) -> usize {
        self.kvm.get_max_vcpus()
    }

    /// Most memory slots of one machine.
    #[must_use]
    pub fn max_memory_slots(&self) -> usize {
        self.kvm.get_nr_memslots()
    }

    /// What guests may be told of the CPU.
    ///
    /// # Errors
    /// [`OpenError::Query`].
    pub fn cpuid(&self) -> Result<CpuidTable, OpenError> {
        let supported =
            self.kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).map_err(|errno| {
                OpenError::Query { what: "the supported CPUID", source: errno.into() }
            })?;
        let deadline_timer = self.kvm.check_extension(Cap::TscDeadlineTimer);
        Ok(CpuidTable::new(supported.as_slice(), deadline_timer))
    }

    /// A machine with `ram`, an interrupt controller and no vCPU.
    ///
    /// # Errors
    /// [`VmError`].
    pub fn create_vm(&self, ram: &GuestRam) -> Result<Vm, VmError> {
        let fd = self
            .kvm
            .create_vm()
            .map_err(|errno| VmError::refused("create a virtual machine", errno))?;
        Vm::new(fd, ram)
    }
}

#[cfg(test)]
#[path = "open_test.rs"]
mod open_test;
