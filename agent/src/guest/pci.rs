//! PCI functions, and what their drivers make of them.
//!
//! The agent is the one who has the bus scanned: nothing in the machine tells the kernel that the host has plugged
//! a device in. It asks for one scan for all devices it is told to expect, and waits for the kernel's notices of new
//! ones. A device goes the other way round: the kernel lets go of it before the host takes it away.
//!
//! Invariant: a device is known by its address, never by the name the kernel happened to give it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::uevent::Uevents;
use crate::error::{Context, Failure, Result};

/// The bus as the kernel shows it.
pub(super) const BUS: &str = "/sys/bus/pci";

/// The file systems of all virtio devices, from [`BUS`] on.
const FILE_SYSTEMS: &str = "../../fs/virtiofs";

/// How long a device may take to appear. The agent serves one request at a time: meanwhile it hears nothing else, and
/// the host waits 10 s for a signal to be passed on. Half of that leaves a signal its time after the wait.
pub(super) const APPEARS_WITHIN: Duration = Duration::from_secs(5);

/// What a driver makes of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A block device.
    Block,
    /// A network interface.
    Net,
    /// A file system of the host's.
    Fs,
}

impl Class {
    /// Its directory below the virtio device.
    fn directory(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Net => "net",
            Self::Fs => "fs",
        }
    }

    /// What messages call it.
    fn name(self) -> &'static str {
        match self {
            Self::Block => "disk",
            Self::Net => "network interface",
            Self::Fs => "file system",
        }
    }
}

/// The address as sysfs writes it: `bus << 8 | device << 3 | function` of segment 0.
pub(crate) fn name(address: u32) -> Result<String> {
    if address > 0xffff {
        return Err(Failure::unsupported(format!("{address:#x} is no PCI address")));
    }
    let (bus, device, function) = (address >> 8, address >> 3 & 0x1f, address & 7);
    Ok(format!("0000:{bus:02x}:{device:02x}.{function}"))
}

/// Waits until the drivers have made something of all of `wanted`, functions by name on the bus shown at `bus`; where
/// the kernel shows that, in this order.
pub(super) async fn appear(
    bus: &Path,
    wanted: &[(String, Class)],
    within: Duration,
) -> Result<Vec<PathBuf>> {
    let device = |name: &str| bus.join("devices").join(name);
    let made = |(name, class): &(String, Class)| made(&device(name), *class);
    let all = || wanted.iter().map(made).collect::<Option<Vec<_>>>();
    if let Some(all) = all() {
        return Ok(all);
    }
    // From before the scan on, so that no notice is missed.
    let notices = Uevents::listen().context(|| "listening for new devices".into())?;
    if !wanted.iter().all(|(name, _)| device(name).exists()) {
        fs::write(bus.join("rescan"), "1").context(|| "scanning the PCI bus".into())?;
    }
    let until = Instant::now() + within;
    loop {
        if let Some(all) = all() {
            return Ok(all);
        }
        if timeout_at(until, notices.next()).await.is_err() {
            let lacking = wanted.iter().find(|wanted| made(wanted).is_none());
            let (name, what) = lacking.map_or(("", ""), |(name, class)| (name, class.name()));
            let what = match device(name).exists() {
                true => format!("has no {what}"),
                false => "does not exist".to_owned(),
            };
            return Err(Failure::other(format!("the PCI device {name} {what}")));
        }
    }
}

/// What the driver of the PCI device at `device` made, as the kernel shows it.
fn made(device: &Path, class: Class) -> Option<PathBuf> {
    let child = |path: &Path, prefix: &str| {
        let entries = fs::read_dir(path).ok()?;
        let mut names = entries.flatten().map(|entry| entry.path());
        names.find(|path| {
            path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(prefix))
        })
    };
    let function = child(device, "virtio")?;
    if class == Class::Fs {
        return file_system(device, &function);
    }
    let shown = child(&function.join(class.directory()), "")?;
    (class != Class::Block || node(&shown).exists()).then_some(shown)
}

/// Where the kernel shows the file system of the virtio device `function` of `device`: not below it, but by a link from
/// where all of them are.
fn file_system(device: &Path, function: &Path) -> Option<PathBuf> {
    let all = device.parent()?.parent()?.join(FILE_SYSTEMS);
    let of_it = |shown: &PathBuf| {
        let link = fs::canonicalize(shown.join("device")).ok();
        link.is_some_and(|link| link.file_name() == function.file_name())
    };
    fs::read_dir(all).ok()?.flatten().map(|entry| entry.path()).find(of_it)
}

/// The node in /dev of the block device that is shown there.
pub(super) fn node(shown: &Path) -> PathBuf {
    Path::new("/dev").join(shown.file_name().unwrap_or_default())
}

/// Has the kernel let go of the function `name`. One that is gone already is no error.
pub(super) fn remove(bus: &Path, name: &str) -> Result<()> {
    let remove = bus.join("devices").join(name).join("remove");
    match fs::OpenOptions::new().write(true).open(&remove) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        opened => opened
            .and_then(|mut file| std::io::Write::write_all(&mut file, b"1"))
            .context(|| format!("removing the PCI device {name}")),
    }
}

#[cfg(test)]
#[path = "pci_test.rs"]
mod pci_test;
