//! From the PCI address of a disk to its block device.
//!
//! Invariant: a disk is known by its address only, never by the name the kernel happened to give it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::{Failure, Result};

/// How long a disk may take to appear.
const APPEARS_WITHIN: Duration = Duration::from_secs(10);

/// The address as sysfs writes it: `bus << 8 | device << 3 | function` of segment 0.
pub(crate) fn name(address: u32) -> Result<String> {
    if address > 0xffff {
        return Err(Failure::unsupported(format!("{address:#x} is no PCI address")));
    }
    let (bus, device, function) = (address >> 8, address >> 3 & 0x1f, address & 7);
    Ok(format!("0000:{bus:02x}:{device:02x}.{function}"))
}

/// The block device at `address`. Waits for it, and has the bus scanned for it, if it is not there.
pub(crate) async fn find(address: u32) -> Result<PathBuf> {
    let name = name(address)?;
    let device = Path::new("/sys/bus/pci/devices").join(&name);
    let until = Instant::now() + APPEARS_WITHIN;
    let mut pause = Duration::from_millis(1);
    let mut scanned = false;
    loop {
        if let Some(node) = block_device(&device) {
            return Ok(node);
        }
        if !scanned && !device.exists() {
            // A disk plugged in since the last scan.
            let _ = fs::write("/sys/bus/pci/rescan", "1");
            scanned = true;
            continue;
        }
        if Instant::now() >= until {
            let what = if device.exists() { "has no disk" } else { "does not exist" };
            return Err(Failure::other(format!("the PCI device {name} {what}")));
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The node in /dev of the disk that the driver of the PCI device at `device` made.
fn block_device(device: &Path) -> Option<PathBuf> {
    let child = |path: &Path, prefix: &str| {
        let entries = fs::read_dir(path).ok()?;
        let mut names = entries.flatten().map(|entry| entry.path());
        names.find(|path| {
            path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(prefix))
        })
    };
    let disk = child(&child(device, "virtio")?.join("block"), "")?;
    let node = Path::new("/dev").join(disk.file_name()?);
    node.exists().then_some(node)
}

#[cfg(test)]
#[path = "disk_test.rs"]
mod disk_test;
