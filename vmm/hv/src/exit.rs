//! Why a vCPU left the guest, as plain data.
//!
//! Invariant: lengths and offsets that KVM gives are checked against the shared page before use.

use kvm_bindings::{
    KVM_EXIT_DEBUG, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR,
    KVM_EXIT_IO, KVM_EXIT_IO_IN, KVM_EXIT_MEMORY_FAULT, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN,
    KVM_EXIT_SYSTEM_EVENT, kvm_run,
};

/// Why a vCPU left the guest. Reads are answered by filling `data` before the next entry.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit<'a> {
    /// The guest reads an I/O port, `data.len() / size` times.
    PortIn {
        /// Which.
        port: u16,
        /// Bytes of each access: 1, 2 or 4.
        size: usize,
        /// The answer.
        data: &'a mut [u8],
    },
    /// The guest writes an I/O port, `data.len() / size` times.
    PortOut {
        /// Which.
        port: u16,
        /// Bytes of each access: 1, 2 or 4.
        size: usize,
        /// What it writes.
        data: &'a [u8],
    },
    /// The guest reads an address that is not memory.
    MmioRead {
        /// Which.
        address: u64,
        /// The answer: 1 to 8 bytes.
        data: &'a mut [u8],
    },
    /// The guest writes to an address that is not memory.
    MmioWrite {
        /// Which.
        address: u64,
        /// What it writes: 1 to 8 bytes.
        data: &'a [u8],
    },
    /// A triple fault.
    Shutdown,
    /// The thread was told to leave, or a signal came, or the vCPU waits to be started.
    Interrupted,
    /// KVM or the processor cannot go on; the text says why.
    Failed(String),
}

/// Reads the page that KVM shares with a vCPU's thread after an entry that it says has ended well.
pub(crate) fn decode(run: &mut kvm_run, page_size: usize) -> Exit<'_> {
    match run.exit_reason {
        KVM_EXIT_IO => decode_port(run, page_size),
        KVM_EXIT_MMIO => {
            // SAFETY: KVM's exit reason names this member of the union.
            let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
            let address = mmio.phys_addr;
            let length = usize::try_from(mmio.len).unwrap_or(usize::MAX).min(mmio.data.len());
            let data = &mut mmio.data[..length];
            match mmio.is_write {
                0 => Exit::MmioRead { address, data },
                _ => Exit::MmioWrite { address, data },
            }
        }
        KVM_EXIT_SHUTDOWN => Exit::Shutdown,
        KVM_EXIT_INTR => Exit::Interrupted,
        KVM_EXIT_FAIL_ENTRY => {
            // SAFETY: KVM's exit reason names this member of the union.
            let entry = unsafe { run.__bindgen_anon_1.fail_entry };
            Exit::Failed(format!(
                "the processor refused to enter the guest: reason {:#x} on CPU {}",
                entry.hardware_entry_failure_reason, entry.cpu
            ))
        }
        KVM_EXIT_INTERNAL_ERROR => {
            // SAFETY: KVM's exit reason names this member of the union.
            let internal = unsafe { run.__bindgen_anon_1.internal };
            let known = usize::try_from(internal.ndata).unwrap_or(0).min(internal.data.len());
            Exit::Failed(format!(
                "KVM internal error {} ({}), data {:x?}",
                internal.suberror,
                internal_error_name(internal.suberror),
                &internal.data[..known]
            ))
        }
        KVM_EXIT_MEMORY_FAULT => {
            // SAFETY: KVM's exit reason names this member of the union.
            let fault = unsafe { run.__bindgen_anon_1.memory_fault };
            Exit::Failed(format!("no memory behind guest address {:#x}", fault.gpa))
        }
        KVM_EXIT_HLT => Exit::Failed("the vCPU halted outside of KVM".to_owned()),
        KVM_EXIT_SYSTEM_EVENT => Exit::Failed("a system event that x86 does not have".to_owned()),
        KVM_EXIT_DEBUG => Exit::Failed("a debug event that nobody asked for".to_owned()),
        reason => Exit::Failed(format!("unknown KVM exit reason {reason}")),
    }
}

fn decode_port(run: &mut kvm_run, page_size: usize) -> Exit<'_> {
    // SAFETY: the caller saw that KVM's exit reason names this member of the union.
    let io = unsafe { run.__bindgen_anon_1.io };
    let size = usize::from(io.size);
    let length = size.saturating_mul(usize::try_from(io.count).unwrap_or(usize::MAX));
    let start = usize::try_from(io.data_offset).unwrap_or(usize::MAX);
    let inside = start >= size_of::<kvm_run>() && start.saturating_add(length) <= page_size;
    if !matches!(size, 1 | 2 | 4) || length == 0 || !inside {
        return Exit::Failed(format!("a port access of {} times {size} bytes", io.count));
    }
    let base: *mut u8 = std::ptr::from_mut(run).cast();
    // SAFETY: the mapping that `run` begins is `page_size` bytes long and lives as long as `run` is borrowed;
    // the bytes are within it and behind the structure itself.
    let data = unsafe { std::slice::from_raw_parts_mut(base.add(start), length) };
    match u32::from(io.direction) {
        KVM_EXIT_IO_IN => Exit::PortIn { port: io.port, size, data },
        _ => Exit::PortOut { port: io.port, size, data },
    }
}

fn internal_error_name(suberror: u32) -> &'static str {
    match suberror {
        1 => "an instruction it cannot emulate",
        2 => "exceptions at the same time",
        3 => "an exit while delivering an event",
        4 => "an exit it does not know",
        _ => "no name",
    }
}

#[cfg(test)]
#[path = "exit_test.rs"]
mod exit_test;
