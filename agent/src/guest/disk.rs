//! From the PCI address of a disk to its block device, and the coming and going of disks.
//!
//! The agent is the one who has the bus scanned: nothing in the machine tells the kernel that the host has plugged
//! a disk in. It asks for one scan for all disks it is told to expect, and waits for the kernel's notices of new
//! devices. A disk goes the other way round: the kernel lets go of it before the host takes it away.
//!
//! Invariant: a disk is known by its address, never by the name the kernel happened to give it; one that was
//! expected also has the serial number that the host chose for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cofferdam_agent_protocol::{ErrorKind, request};
use tokio::time::{Instant, timeout_at};

use super::uevent::Uevents;
use crate::error::{Context, Failure, Result};

/// The PCI bus as the kernel shows it.
const PCI: &str = "/sys/bus/pci";

/// How long a disk may take to appear.
const APPEARS_WITHIN: Duration = Duration::from_secs(10);

/// Most disks of one request: the functions of a bus.
const MAX_DISKS: usize = 256;

/// A disk that is there.
#[derive(Debug, PartialEq, Eq)]
struct Disk {
    /// In /dev.
    node: PathBuf,
    /// Where the kernel shows it.
    shown: PathBuf,
}

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
    let disks = appear(Path::new(PCI), &[name(address)?], APPEARS_WITHIN).await?;
    let disk = disks.into_iter().next();
    disk.map(|disk| disk.node).ok_or_else(|| Failure::other("no disk"))
}

/// Waits until all of `expected` are there, and looks whether they are those that the host means.
pub(crate) async fn expect(expected: &request::Expect) -> Result<()> {
    expect_on(Path::new(PCI), expected, APPEARS_WITHIN).await
}

async fn expect_on(pci: &Path, expected: &request::Expect, within: Duration) -> Result<()> {
    let expected = &expected.disks;
    let count = expected.len();
    if count > MAX_DISKS {
        return Err(Failure::unsupported(format!("{count} disks at once")));
    }
    let names: Vec<_> = expected.iter().map(|disk| name(disk.address)).collect::<Result<_>>()?;
    let disks = appear(pci, &names, within).await?;
    for ((disk, name), expected) in disks.iter().zip(&names).zip(expected) {
        let attempted = || format!("reading the serial number of the disk {name}");
        let serial = fs::read_to_string(disk.shown.join("serial")).context(attempted)?;
        let (serial, wanted) = (serial.trim_end_matches(['\n', '\0']), &expected.serial);
        if serial != wanted {
            let text = format!("the disk {name} has the serial number {serial:?}, not {wanted:?}");
            return Err(Failure::other(text));
        }
    }
    Ok(())
}

/// The disks of the functions `names`, in this order, once all are there.
async fn appear(pci: &Path, names: &[String], within: Duration) -> Result<Vec<Disk>> {
    let device = |name: &String| pci.join("devices").join(name);
    let all = || names.iter().map(|name| disk(&device(name))).collect::<Option<Vec<_>>>();
    if let Some(disks) = all() {
        return Ok(disks);
    }
    // From before the scan on, so that no notice is missed.
    let notices = Uevents::listen().context(|| "listening for new devices".into())?;
    if !names.iter().all(|name| device(name).exists()) {
        fs::write(pci.join("rescan"), "1").context(|| "scanning the PCI bus".into())?;
    }
    let until = Instant::now() + within;
    loop {
        if let Some(disks) = all() {
            return Ok(disks);
        }
        if timeout_at(until, notices.next()).await.is_err() {
            let lacking = names.iter().find(|name| disk(&device(name)).is_none());
            let name = lacking.map_or("", String::as_str);
            let exists = pci.join("devices").join(name).exists();
            let what = if exists { "has no disk" } else { "does not exist" };
            return Err(Failure::other(format!("the PCI device {name} {what}")));
        }
    }
}

/// The disk that the driver of the PCI device at `device` made.
fn disk(device: &Path) -> Option<Disk> {
    let child = |path: &Path, prefix: &str| {
        let entries = fs::read_dir(path).ok()?;
        let mut names = entries.flatten().map(|entry| entry.path());
        names.find(|path| {
            path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(prefix))
        })
    };
    let shown = child(&child(device, "virtio")?.join("block"), "")?;
    let node = Path::new("/dev").join(shown.file_name()?);
    node.exists().then_some(Disk { node, shown })
}

/// Has the kernel let go of the disks at `addresses`, unless `in_use` says of one that it cannot. Those that are
/// gone already are no error.
pub(crate) fn release(addresses: &[u32], in_use: impl Fn(u32) -> bool) -> Result<()> {
    release_on(Path::new(PCI), addresses, in_use)
}

fn release_on(pci: &Path, addresses: &[u32], in_use: impl Fn(u32) -> bool) -> Result<()> {
    let names: Vec<_> = addresses.iter().map(|address| name(*address)).collect::<Result<_>>()?;
    if let Some((name, _)) = names.iter().zip(addresses).find(|(_, address)| in_use(**address)) {
        let text = format!("the disk {name} is mounted");
        return Err(Failure::new(ErrorKind::WrongState, text));
    }
    for name in names {
        let remove = pci.join("devices").join(&name).join("remove");
        match fs::OpenOptions::new().write(true).open(&remove) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            opened => opened
                .and_then(|mut file| std::io::Write::write_all(&mut file, b"1"))
                .context(|| format!("removing the PCI device {name}"))?,
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "disk_test.rs"]
mod disk_test;
