//! What is run: our monitor and QEMU in turns in the same shape, then our monitor in other shapes.
//!
//! Invariant: one run differs from the default shape in one thing.

use cofferdam_test_bench::{Plan, Run, Vmm};

/// Ours in the default shape: one vCPU, 128 MiB, vsock, rng, two disks.
pub(super) const OURS: &str = "cofferdam";
/// QEMU in the same.
pub(super) const QEMU: &str = "qemu-microvm";
/// Both with exits and system calls counted.
pub(super) const OURS_TRACED: &str = "cofferdam, traced";
/// See [`OURS_TRACED`].
pub(super) const QEMU_TRACED: &str = "qemu-microvm, traced";
/// One thing more than in the default shape.
pub(super) const VCPU: &str = "one more vCPU";
/// One that is parked.
pub(super) const PARKED: &str = "one more vCPU, parked";
/// One GiB more.
pub(super) const GIB: &str = "one more GiB";
/// A third disk.
pub(super) const DISK: &str = "one more disk";
/// A serial console with a quiet kernel.
pub(super) const CONSOLE: &str = "with a console";
/// All memory in huge pages.
pub(super) const HUGE: &str = "all memory in huge pages";
/// With 256 MiB, idle.
pub(super) const IDLE: &str = "idle with 256 MiB";

/// How often the two are measured in turns.
const ROUNDS: usize = 3;

/// Seconds for which idle machines are watched.
pub(super) const IDLE_SECONDS: u64 = 20;

/// All runs. The first of each monitor warms the host up and does not count.
pub(super) fn plan() -> Plan {
    let mut runs = vec![run("warm up", Vmm::Cofferdam), run("warm up", Vmm::QemuMicrovm)];
    for _ in 0..ROUNDS {
        runs.push(run(OURS, Vmm::Cofferdam));
        runs.push(run(QEMU, Vmm::QemuMicrovm));
    }
    runs.push(Run { traced: true, ..run(OURS_TRACED, Vmm::Cofferdam) });
    runs.push(Run { traced: true, ..run(QEMU_TRACED, Vmm::QemuMicrovm) });
    let ours = |name| run(name, Vmm::Cofferdam);
    runs.push(Run { vcpus: 2, ..ours(VCPU) });
    runs.push(Run { parked: 1, ..ours(PARKED) });
    runs.push(Run { memory_mib: 128 + 1024, ..ours(GIB) });
    runs.push(Run { disks: 3, ..ours(DISK) });
    runs.push(Run { console: true, ..ours(CONSOLE) });
    runs.push(Run { huge_pages: true, ..ours(HUGE) });
    let idle_seconds = IDLE_SECONDS;
    runs.push(Run { memory_mib: 256, traced: true, idle_seconds, ..ours(IDLE) });
    Plan { runs, ..Plan::default() }
}

fn run(name: &str, vmm: Vmm) -> Run {
    Run {
        name: name.to_owned(),
        vmm,
        vcpus: 1,
        parked: 0,
        memory_mib: 128,
        disks: 2,
        console: false,
        huge_pages: false,
        cmdline: "panic=-1 reboot=acpi quiet".to_owned(),
        traced: false,
        idle_seconds: 0,
    }
}
