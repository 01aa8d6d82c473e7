//! Kernels of every kind, sound and corrupt.

use std::io::Write;

use cofferdam_vmm_api::MachineSpec;
use cofferdam_vmm_hv::allocate_ram;
use proptest::prelude::*;

use super::*;
use crate::plan::layout::{BOOT_PARAMS, MEMORY_MAP, MODULES, START_INFO};
use crate::plan::plan_test::spec;
use crate::testing::{ENTRY, elf, file, pvh_elf};

fn plan(memory: u32) -> Plan {
    let spec: MachineSpec = spec(1, memory, 0);
    Plan::new(spec, 4).unwrap()
}

fn booted(kernel: &[u8], initrd: Option<&[u8]>) -> (Result<EntryState, BootError>, GuestRam) {
    let plan = plan(64);
    let ram = allocate_ram(&plan.memory.ram, false).unwrap();
    let mut initrd = initrd.map(file);
    (load(&plan, &ram, &mut file(kernel), initrd.as_mut()), ram)
}

fn refused(kernel: &[u8]) -> String {
    booted(kernel, None).0.unwrap_err().to_string()
}

/// A bzImage: header fields as the boot protocol has them, and `size` bytes of kernel.
fn bzimage(size: usize) -> Vec<u8> {
    let mut image = vec![0; 1024 + size];
    image[0x1f1] = 1; // one sector of setup
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[0x211] = 1; // loaded high
    image[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    image[0x236] = 1; // 64-bit entry
    image[0x258..0x260].copy_from_slice(&0x100_0000_u64.to_le_bytes());
    image[0x260..0x264].copy_from_slice(&0x20_0000_u32.to_le_bytes());
    image[1024..].fill(0x90);
    image
}

fn read<const N: usize>(ram: &GuestRam, address: u64) -> [u8; N] {
    let mut bytes = [0; N];
    ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

fn read_u64(ram: &GuestRam, address: u64) -> u64 {
    u64::from_le_bytes(read(ram, address))
}

#[test]
fn a_vmlinux_with_a_pvh_note_gets_a_start_info() {
    let (entry, ram) = booted(&pvh_elf(&[0xf4, 0xeb, 0xfd]), Some(b"initramfs"));
    assert_eq!(entry.unwrap(), EntryState::Protected { entry: ENTRY, ebx: 0x6000 });
    assert_eq!(read::<3>(&ram, ENTRY.into()), [0xf4, 0xeb, 0xfd]);
    assert_eq!(read::<4>(&ram, START_INFO), 0x336e_c578_u32.to_le_bytes());
    assert_eq!(read_u64(&ram, START_INFO + 32), ACPI);
    assert_eq!(read::<8>(&ram, ACPI), *b"RSD PTR ");
    assert_eq!(read::<6>(&ram, CMDLINE), *b"quiet\0");
    let (start, size) = (read_u64(&ram, MODULES), read_u64(&ram, MODULES + 8));
    assert_eq!((start, size), (0x10_1000, 9));
    assert_eq!(read::<9>(&ram, start), *b"initramfs");
    let entries = u32::from_le_bytes(read(&ram, START_INFO + 48));
    assert_eq!(entries, 4);
    assert_eq!(read_u64(&ram, MEMORY_MAP + 8), 0x9_fc00);
}

#[test]
fn without_an_initramfs_there_is_no_module() {
    for initrd in [None, Some(&b""[..])] {
        let (entry, ram) = booted(&pvh_elf(&[0xf4]), initrd);
        entry.unwrap();
        assert_eq!(read::<4>(&ram, START_INFO + 12), [0; 4]);
    }
}

#[test]
fn a_vmlinux_without_the_note_gets_boot_params() {
    let (entry, ram) = booted(&elf(&[0xf4], false), Some(b"initramfs"));
    let EntryState::Long { entry, rsi, page_table, gdt } = entry.unwrap() else {
        panic!("the 64-bit entry is expected")
    };
    assert_eq!((entry, rsi, gdt), (ENTRY.into(), BOOT_PARAMS, (0x500, 32)));
    assert_eq!(read_u64(&ram, page_table), 0xa003);
    assert_eq!(read_u64(&ram, 0xb000 + 8), 0x20_0083);
    assert_eq!(read_u64(&ram, BOOT_PARAMS + 0x70), ACPI);
    assert_eq!(read::<4>(&ram, BOOT_PARAMS + 0x228), [0, 0, 2, 0]);
    assert_eq!(read::<4>(&ram, BOOT_PARAMS + 0x218), 0x0010_1000_u32.to_le_bytes());
    assert_eq!(read::<4>(&ram, BOOT_PARAMS + 0x21c), 9_u32.to_le_bytes());
    assert_eq!(read::<1>(&ram, BOOT_PARAMS + 0x1e8), [4]);
}

#[test]
fn a_bzimage_is_loaded_without_its_setup() {
    let (entry, ram) = booted(&bzimage(4096), None);
    assert!(matches!(entry.unwrap(), EntryState::Long { entry: 0x10_0200, .. }));
    assert_eq!(read::<4>(&ram, 0x10_0000), [0x90; 4]);
    assert_eq!(read::<4>(&ram, BOOT_PARAMS + 0x202), *b"HdrS");
    assert_eq!(read::<1>(&ram, BOOT_PARAMS + 0x210), [0xff]);
}

#[test]
fn what_is_no_kernel_is_said_to_be_none() {
    for (image, why) in [
        (vec![], "only 0 bytes"),
        (b"#!/bin/sh\n".to_vec(), "only 10 bytes"),
        (vec![0; 4096], "neither an ELF vmlinux nor a bzImage"),
        (pvh_elf(&[0xf4])[..0x200].to_vec(), "only 512 bytes"),
    ] {
        assert_eq!(refused(&image), format!("not a kernel: {why}"));
    }
}

#[test]
fn corrupt_elf_files_are_refused() {
    let changed = |at: usize, bytes: &[u8]| {
        let mut image = pvh_elf(&[0xf4]);
        image[at..at + bytes.len()].copy_from_slice(bytes);
        refused(&image)
    };
    assert!(changed(4, &[1]).contains("another processor"));
    assert!(changed(18, &[183]).contains("another processor"));
    assert!(changed(32, &[0xff; 8]).contains("program headers are not in the file"));
    assert!(changed(56, &[0xff; 2]).contains("program headers are not in the file"));
    assert!(changed(56, &[0; 2]).contains("nothing to load"));
    assert!(changed(120 + 8, &[0xff; 8]).contains("cut off"));
    assert!(changed(120 + 32, &[0xff; 4]).contains("cut off"));
    assert!(changed(120 + 24, &[0; 8]).contains("segment at address 0x0"));
    assert!(changed(120 + 40, &[0, 0, 0, 0, 1]).starts_with("too little memory"));
    assert!(changed(24, &[0; 8]).starts_with("not a kernel"));
}

#[test]
fn corrupt_bzimages_are_refused() {
    let mut old = bzimage(16);
    old[0x206] = 0x05;
    assert!(refused(&old).contains("without a 64-bit entry"));
    let mut low = bzimage(16);
    low[0x211] = 0;
    assert!(refused(&low).starts_with("not a kernel"));
    let mut short = bzimage(16);
    short.truncate(0x220);
    assert!(refused(&short).contains("cut off"));
    let mut large = bzimage(16);
    large[0x260..0x264].fill(0xff);
    assert!(refused(&large).starts_with("too little memory"));
}

#[test]
fn too_little_memory_says_how_much_is_needed() {
    let plan = plan(48);
    let ram = allocate_ram(&plan.memory.ram, false).unwrap();
    let mut initrd = file(&[]);
    initrd.set_len(60 << 20).unwrap();
    let error = load(&plan, &ram, &mut file(&pvh_elf(&[0xf4])), Some(&mut initrd)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "too little memory: the kernel needs 2 MiB and the initramfs 60 MiB of the machine's 48 MiB"
    );
}

#[test]
fn a_directory_is_no_kernel() {
    let plan = plan(48);
    let ram = allocate_ram(&plan.memory.ram, false).unwrap();
    let mut directory = File::open("/").unwrap();
    let error = load(&plan, &ram, &mut directory, None).unwrap_err();
    assert_eq!(error.to_string(), "not a kernel: it is not a regular file");
}

#[test]
fn an_initramfs_that_cannot_be_read_is_named() {
    let plan = plan(48);
    let ram = allocate_ram(&plan.memory.ram, false).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("write-only");
    let mut initrd = File::create(path).unwrap();
    initrd.write_all(b"x").unwrap();
    let error = load(&plan, &ram, &mut file(&pvh_elf(&[0xf4])), Some(&mut initrd)).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the initramfs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_image_makes_it_panic(
        changes in proptest::collection::vec((0usize..0x268, any::<u8>()), 1..12),
        which in 0..3,
    ) {
        let mut image = match which {
            0 => pvh_elf(&[0xf4; 64]),
            1 => elf(&[0xf4; 64], false),
            _ => bzimage(64),
        };
        image.resize(image.len().max(0x268), 0);
        for (at, byte) in changes {
            image[at] = byte;
        }
        let _ = booted(&image, None);
    }
}
