//! QEMU's machine `microvm` with the same kernel, the same image and the same devices.
//!
//! The machine's own devices are virtio-mmio; the guest kernel knows PCI alone, so PCI and ACPI are switched on, and the
//! agent's connection goes through the host's vhost-vsock. Everything that the machine can leave out is left out, and
//! its firmware is the small one (qboot): the shape in which it starts fastest.
//!
//! Invariant: the guest does the same work up to the agent's hello as under our monitor.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use cofferdam_agent_protocol::CONTROL_PORT;
use cofferdam_test_bench::{Run, place};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, listen, socket,
};

use crate::Started;
use crate::process::Process;

/// The guest's context id.
const GUEST_CID: u32 = 3;

/// Any context id of the host's (`VMADDR_CID_ANY`, `vsock(7)`).
const ANY_CID: u32 = u32::MAX;

struct Machine {
    listener: OwnedFd,
    process: Process,
}

/// Starts it.
pub(crate) fn start(run: &Run, disks: &[String]) -> Result<impl Started + use<>> {
    let listener = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .context("making a vsock socket")?;
    let address = VsockAddr::new(ANY_CID, CONTROL_PORT);
    bind(listener.as_raw_fd(), &address).context("binding the agent's port")?;
    listen(&listener, Backlog::new(1)?).context("listening on the agent's port")?;
    let process = Process::spawn(&command(run, disks))?;
    Ok(Machine { listener, process })
}

/// What is started.
fn command(run: &Run, disks: &[String]) -> Vec<String> {
    let mut cmdline = run.cmdline.clone();
    let serial = if run.console { "on" } else { "off" };
    let machine = format!(
        "microvm,acpi=on,pcie=on,rtc=off,pit=off,pic=off,x-option-roms=off,isa-serial={serial}"
    );
    let mut words: Vec<String> =
        [place::QEMU, "-no-user-config", "-nodefaults", "-display", "none"]
            .map(str::to_owned)
            .into();
    let mut option = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
    option("-accel", "kvm");
    option("-cpu", "host");
    option("-machine", &machine);
    option("-bios", "/usr/share/qemu/qboot.rom");
    option("-m", &run.memory_mib.to_string());
    option("-smp", &run.vcpus.to_string());
    option("-kernel", place::KERNEL);
    option("-initrd", place::INITRAMFS);
    option("-device", &format!("vhost-vsock-pci,guest-cid={GUEST_CID}"));
    option("-device", "virtio-rng-pci");
    for (index, path) in disks.iter().enumerate() {
        let readonly = if index == 0 { "on" } else { "off" };
        let drive = format!("id=disk{index},if=none,format=raw,file={path},readonly={readonly}");
        option("-drive", &drive);
        option("-device", &format!("virtio-blk-pci,drive=disk{index},serial=disk{index}"));
    }
    if run.console {
        cmdline.push_str(" console=ttyS0");
        option("-serial", "file:/tmp/console");
    }
    option("-append", &cmdline);
    words
}

impl Started for Machine {
    fn connection(&mut self) -> Result<File> {
        let stream = rustix::net::accept(&self.listener).context("waiting for the agent")?;
        Ok(File::from(stream))
    }

    fn stages(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    fn process(&self) -> &Process {
        &self.process
    }
}
