//! The coming and going of disks, network cards and file systems, as the host tells of it.
//!
//! Invariant: what was expected is at the address that the host said and bears the mark that the host chose for it: a
//! disk its serial number, a card its address, a file system its tag.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cofferdam_agent_protocol::{DeviceNumber, ErrorKind, Found, request};

use super::disks::Disks;
use super::pci::{self, APPEARS_WITHIN, BUS, Class};
use crate::error::{Context, Failure, Result};

/// Most devices of one request: the functions of a bus.
const MAX_DEVICES: usize = 256;

/// Waits until all of `expected` are there, and looks whether they are those that the host means.
///
/// # Errors
/// The first that is not there, or another one.
pub(crate) async fn expect(expected: &request::Expect) -> Result<Found> {
    expect_on(Path::new(BUS), expected, APPEARS_WITHIN).await
}

async fn expect_on(bus: &Path, expected: &request::Expect, within: Duration) -> Result<Found> {
    let request::Expect { disks, nets, filesystems } = expected;
    let count = disks.len() + nets.len() + filesystems.len();
    if count > MAX_DEVICES {
        return Err(Failure::unsupported(format!("{count} devices at once")));
    }
    let disk = |disk: &request::Disk| Ok((pci::name(disk.address)?, Class::Block));
    let net = |net: &request::Net| Ok((pci::name(net.address)?, Class::Net));
    let fs = |fs: &request::Fs| Ok((pci::name(fs.address)?, Class::Fs));
    let wanted = disks.iter().map(disk).chain(nets.iter().map(net));
    let wanted = wanted.chain(filesystems.iter().map(fs));
    let wanted = wanted.collect::<Result<Vec<_>>>()?;
    let shown = pci::appear(bus, &wanted, within).await?;
    let marks = disks.iter().map(|disk| &disk.serial).chain(nets.iter().map(|net| &net.mac));
    let marks = marks.chain(filesystems.iter().map(|fs| &fs.tag));
    for ((shown, (name, class)), mark) in shown.iter().zip(&wanted).zip(marks) {
        check(shown, name, *class, mark)?;
    }
    let interfaces =
        shown.iter().skip(disks.len()).take(nets.len()).filter_map(|shown| shown.file_name());
    let interfaces = interfaces.map(|name| name.to_string_lossy().into_owned()).collect();
    let disks = shown.iter().take(disks.len()).map(|shown| number(shown));
    Ok(Found { interfaces, disks: disks.collect::<Result<_>>()? })
}

/// The device number of the block device that is shown there.
fn number(shown: &Path) -> Result<DeviceNumber> {
    let file = shown.join("dev");
    let text = fs::read_to_string(&file).context(|| format!("reading {}", file.display()))?;
    let parsed = text.trim_end().split_once(':').and_then(|(major, minor)| {
        Some(DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? })
    });
    parsed.ok_or_else(|| Failure::other(format!("{} holds no device number", file.display())))
}

/// The device bears `mark`.
fn check(shown: &Path, name: &str, class: Class, mark: &str) -> Result<()> {
    let (file, device, called) = match class {
        Class::Block => ("serial", "disk", "serial number"),
        Class::Net => ("address", "network card", "address"),
        Class::Fs => ("tag", "file system", "tag"),
    };
    let attempted = || format!("reading the {called} of the {device} {name}");
    let found = fs::read_to_string(shown.join(file)).context(attempted)?;
    let found = found.trim_end_matches(['\n', '\0']);
    if found == mark {
        return Ok(());
    }
    let text = format!("the {device} {name} has the {called} {found:?}, not {mark:?}");
    Err(Failure::other(text))
}

/// Has the kernel let go of the devices at `addresses`, of which none may be a mounted disk.
///
/// # Errors
/// A disk that is in use; all are still there then.
pub(crate) fn release(disks: &Disks, addresses: &[u32]) -> Result<()> {
    release_on(Path::new(BUS), addresses, |address| disks.is_mounted(address))
}

fn release_on(bus: &Path, addresses: &[u32], mounted: impl Fn(u32) -> bool) -> Result<()> {
    let names: Vec<_> = addresses.iter().map(|at| pci::name(*at)).collect::<Result<_>>()?;
    if let Some((name, _)) = names.iter().zip(addresses).find(|(_, address)| mounted(**address)) {
        let text = format!("the disk {name} is mounted");
        return Err(Failure::new(ErrorKind::WrongState, text));
    }
    names.iter().try_for_each(|name| pci::remove(bus, name))
}

#[cfg(test)]
#[path = "plug_test.rs"]
mod plug_test;
