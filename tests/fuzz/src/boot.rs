//! Kernels and initramfs that someone else has made.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use cofferdam_vmm::boot;
use cofferdam_vmm::plan::Plan;
use cofferdam_vmm::plan::layout::{ACPI, BOOT_PARAMS, HIGH_RAM, MODULES, START_INFO, dword};
use cofferdam_vmm_api::{API_VERSION, BootSpec, FdSlot, MachineSpec, MiB};
use cofferdam_vmm_hv::{EntryState, GuestRam, allocate_ram, give_back};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{Bytes, GuestAddress};

/// What an initramfs begins with.
const INITRD: &[u8; 9] = b"initramfs";

/// Memory of the machine in MiB.
const MEMORY: u32 = 48;

/// Loads `data` as a kernel; its first byte chooses the size of an initramfs.
pub fn run(data: &[u8]) {
    let (&choice, kernel) = data.split_first().unwrap_or((&0, &[]));
    let plan = Plan::new(specification(choice & 1 != 0), 2).unwrap();
    let ram = memory(&plan);
    let mut kernel = file(kernel);
    // Kernels are large, inputs are not: the rest of the file is a hole.
    let length = kernel.metadata().unwrap().len();
    kernel.set_len(length.max(u64::from(choice >> 4) << 20)).unwrap();
    let mut initrd = file(INITRD);
    let size = u64::from(choice >> 1 & 7) << 22;
    initrd.set_len(size).unwrap();

    let Ok(entry) = boot::load(&plan, &ram, &mut kernel, Some(&mut initrd)) else { return };

    // Whatever the kernel is, what it is told stands where it belongs.
    let mut tables = vec![0; plan.acpi.bytes.len()];
    ram.read_slice(&mut tables, GuestAddress(ACPI)).unwrap();
    assert!(tables == plan.acpi.bytes, "the kernel lies over the ACPI tables");
    let read = |at| u64::from(ram.read_obj::<u32>(GuestAddress(at)).unwrap());
    let module = match entry {
        EntryState::Protected { ebx, .. } => {
            assert_eq!((ebx, read(START_INFO)), (dword(START_INFO), 0x336e_c578));
            (read(START_INFO + 12) > 0).then(|| (read(MODULES), read(MODULES + 8)))
        }
        EntryState::Long { entry, rsi, .. } => {
            assert!((HIGH_RAM..plan.memory.low_end()).contains(&entry), "entry {entry:#x}");
            assert_eq!((rsi, read(BOOT_PARAMS + 0x202)), (BOOT_PARAMS, 0x5372_6448));
            let module = (read(BOOT_PARAMS + 0x218), read(BOOT_PARAMS + 0x21c));
            (module.1 > 0).then_some(module)
        }
        other @ EntryState::Real { .. } => panic!("{other:?}"),
    };
    assert_eq!(module.map(|(_, size)| size), (size > 0).then_some(size));
    if let Some((start, size)) = module {
        assert!(start >= HIGH_RAM && start + size <= plan.memory.low_end(), "initramfs {start:#x}");
        let mut found = [0; INITRD.len()];
        ram.read_slice(&mut found, GuestAddress(start)).unwrap();
        assert_eq!(found, *INITRD);
    }
}

/// The machine's memory, without contents. A process has one for as long as it lives: nothing unmaps it.
fn memory(plan: &Plan) -> GuestRam {
    static RAM: OnceLock<GuestRam> = OnceLock::new();
    let ram = RAM.get_or_init(|| allocate_ram(&plan.memory.ram, false).unwrap());
    give_back(ram, 0, u64::MAX).unwrap();
    ram.clone()
}

fn file(contents: &[u8]) -> File {
    let file = File::from(memfd_create(c"image", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all_at(contents, 0).unwrap();
    file
}

fn specification(cmdline: bool) -> MachineSpec {
    MachineSpec {
        version: API_VERSION,
        vcpus: 1,
        max_vcpus: None,
        memory: MiB(MEMORY),
        max_memory: None,
        boot: BootSpec {
            kernel: FdSlot(0),
            initrd: Some(FdSlot(1)),
            cmdline: if cmdline { "x".repeat(2000) } else { String::new() },
        },
        disks: vec![],
        vsock: None,
        rng: true,
        nets: vec![],
        balloon: true,
        spare_queues: 0,
        huge_pages: false,
        console: None,
    }
}
