//! Prints what the machine looks like from within, one fact a line.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::Outcome;

/// Prints it.
pub(crate) fn machine() -> Outcome {
    println!("kernel {} {}", read("/proc/sys/kernel/osrelease"), read("/proc/sys/kernel/version"));
    println!("cpus {}", read("/sys/devices/system/cpu/online"));
    let memory = fs::read_to_string("/proc/meminfo")?;
    println!("memory {}", memory.lines().next().unwrap_or_default());
    println!("cmdline {}", read("/proc/cmdline"));
    for device in entries("/sys/bus/pci/devices")? {
        let part = |name: &str| read(device.join(name)).trim_start_matches("0x").to_owned();
        println!("pci {} {}:{}", name(&device), part("vendor"), part("device"));
    }
    for disk in disks()? {
        let sectors: u64 = read(disk.join("size")).parse()?;
        println!(
            "disk {} bytes={} serial={} ro={} pci={}",
            name(&disk),
            sectors * 512,
            read(disk.join("serial")),
            read(disk.join("ro")),
            bdf(&disk),
        );
    }
    random();
    Ok(())
}

/// The virtio disks, in the kernel's order.
pub(crate) fn disks() -> std::io::Result<Vec<PathBuf>> {
    let mut disks = entries("/sys/block")?;
    disks.retain(|disk| name(disk).starts_with("vd"));
    Ok(disks)
}

/// The last part of a path.
pub(crate) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A file's text without the spaces around it; empty if there is none.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn entries(directory: &str) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.map(|entry| Ok(entry?.path()));
    let mut entries = entries.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

/// The PCI address of a disk: `/sys/devices/pci0000:00/0000:00:03.0/virtio2/block/vda`.
fn bdf(disk: &Path) -> String {
    let device = fs::canonicalize(disk.join("device")).unwrap_or_default();
    device.parent().map(name).unwrap_or_default()
}

fn random() {
    let mut bytes = [0; 16];
    let source = fs::File::open("/dev/hwrng").and_then(|mut file| file.read_exact(&mut bytes));
    let found = source.is_ok() && bytes != [0; 16];
    println!("rng {}", if found { "present" } else { "absent" });
}
