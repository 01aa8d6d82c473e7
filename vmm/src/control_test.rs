//! Whole lives of machines on the local KVM, with kernels of a few bytes.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cofferdam_vmm_api::*;
use cofferdam_vmm_hv::Hypervisor;

use super::*;
use crate::jail::Filters;
use crate::testing::{file, pvh_elf, shrink_a_heap};

/// Writes `al` to port `dx`, then spins.
fn out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee, 0xeb, 0xfe]
}

const SPIN: [u8; 2] = [0xeb, 0xfe];

/// A supervisor with its monitor in a thread.
struct Supervisor {
    channel: Channel,
    server: JoinHandle<Result<Served, ChannelError>>,
}

impl Supervisor {
    fn new() -> Self {
        let (channel, theirs) = Channel::pair().unwrap();
        shrink_a_heap();
        // The system-call filters hold for this thread and those of the machine only.
        let server = thread::spawn(move || match Hypervisor::open() {
            Ok(hypervisor) => {
                let filters = Arc::new(Filters::new().unwrap());
                serve(&theirs, &Host { hypervisor, filters }, now_ns())
            }
            Err(_) => Ok(Served::Abandoned),
        });
        Self { channel, server }
    }

    /// A machine of one vCPU with `kernel` alone, changed by `change`, which also adds descriptors.
    fn boot(&self, kernel: &[u8], change: impl FnOnce(&mut MachineSpec, &mut Vec<OwnedFd>)) {
        let mut fds: Vec<OwnedFd> = vec![file(kernel).into()];
        let mut spec = MachineSpec {
            version: API_VERSION,
            vcpus: 1,
            max_vcpus: None,
            memory: MiB(48),
            max_memory: None,
            huge_pages: false,
            boot: BootSpec { kernel: FdSlot(0), initrd: None, cmdline: String::new() },
            disks: vec![],
            vsock: None,
            rng: true,
            nets: vec![],
            balloon: true,
            spare_queues: 0,
            console: None,
        };
        change(&mut spec, &mut fds);
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        self.channel.send(&ToMonitor::Boot(Box::new(spec)), &borrowed).unwrap();
    }

    fn hear(&self) -> FromMonitor {
        self.channel.receive().unwrap().body
    }

    /// Everything until the last message.
    fn hear_all(&self) -> (Vec<StageName>, Option<Booted>, FromMonitor) {
        let (mut stages, mut booted) = (vec![], None);
        loop {
            match self.hear() {
                FromMonitor::Reached(stage) => stages.push(stage.name),
                FromMonitor::Booted(message) => booted = Some(message),
                FromMonitor::Stats(_) => {}
                last => return (stages, booted, last),
            }
        }
    }

    fn failure(kernel: &[u8], change: impl FnOnce(&mut MachineSpec, &mut Vec<OwnedFd>)) -> String {
        let supervisor = Self::new();
        supervisor.boot(kernel, change);
        let FromMonitor::Failed(text) = supervisor.hear_all().2 else { panic!("it boots") };
        assert_eq!(supervisor.server.join().unwrap().unwrap(), Served::Failed(text.clone()));
        text
    }
}

fn has_kvm() -> bool {
    match Hypervisor::open() {
        Ok(_) => true,
        Err(error) => {
            eprintln!("SKIPPED: no KVM here: {error}");
            false
        }
    }
}

/// Whether the local KVM itself failed: one that emulates in software sometimes cannot fetch an instruction.
fn kvm_failed(last: &FromMonitor) -> bool {
    let failed = matches!(last, FromMonitor::Exited(ExitReason::Error(text)) if text.contains("KVM internal error"));
    if failed {
        eprintln!("SKIPPED: this KVM failed: {last:?}");
    }
    failed
}

/// How a machine with this code ends.
fn end(code: &[u8]) -> ExitReason {
    let supervisor = Supervisor::new();
    supervisor.boot(&pvh_elf(code), |_, _| {});
    let (stages, booted, last) = supervisor.hear_all();
    use StageName::{KernelEntered, MachineBuilt, MonitorStarted};
    assert_eq!(stages, [MonitorStarted, MachineBuilt, KernelEntered]);
    assert_eq!(booted.unwrap().disks, []);
    let FromMonitor::Exited(reason) = last else { panic!("{last:?}") };
    assert_eq!(supervisor.server.join().unwrap().unwrap(), Served::Exited(reason.clone()));
    reason
}

#[test]
fn kvm_every_end_has_its_reason() {
    if !has_kvm() {
        return;
    }
    assert_eq!(end(&out(0x600, 0x34)), ExitReason::PowerOff);
    assert_eq!(end(&out(0x602, 0x01)), ExitReason::Reboot);
    assert_eq!(end(&out(0x505, 0x01)), ExitReason::Panic);
    let triple_fault = [0x0f, 0x01, 0x1d, 0x00, 0x50, 0x00, 0x00, 0x0f, 0x0b];
    assert_eq!(end(&triple_fault), ExitReason::TripleFault);
}

#[test]
fn kvm_a_machine_is_stopped_on_request() {
    if !has_kvm() {
        return;
    }
    let supervisor = Supervisor::new();
    supervisor.boot(&pvh_elf(&SPIN), |spec, _| spec.vcpus = 3);
    while !matches!(supervisor.hear(), FromMonitor::Booted(_)) {}
    supervisor.channel.send(&ToMonitor::Stop, &[]).unwrap();
    let start = Instant::now();
    let last = supervisor.hear_all().2;
    if kvm_failed(&last) {
        return;
    }
    assert_eq!(last, FromMonitor::Exited(ExitReason::Stopped));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(supervisor.server.join().unwrap().unwrap(), Served::Exited(ExitReason::Stopped));
}

#[test]
fn kvm_a_machine_does_not_outlive_its_supervisor() {
    if !has_kvm() {
        return;
    }
    let Supervisor { channel, server } = {
        let supervisor = Supervisor::new();
        supervisor.boot(&pvh_elf(&SPIN), |_, _| {});
        while !matches!(supervisor.hear(), FromMonitor::Booted(_)) {}
        supervisor
    };
    drop(channel);
    assert_eq!(server.join().unwrap().unwrap(), Served::Abandoned);
}

#[test]
fn kvm_the_console_reaches_its_log() {
    if !has_kvm() {
        return;
    }
    let mut code = Vec::new();
    for byte in *b"hello" {
        code.extend(&out(0x3f8, byte)[..7]);
    }
    code.extend(out(0x600, 0x34));
    let supervisor = Supervisor::new();
    let (mut log, sink) = std::io::pipe().unwrap();
    supervisor.boot(&pvh_elf(&code), |spec, fds| {
        spec.console = Some(ConsoleSpec { log: FdSlot(1), limit: 0 });
        fds.push(sink.into());
    });
    assert_eq!(supervisor.hear_all().2, FromMonitor::Exited(ExitReason::PowerOff));
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
}

#[test]
fn kvm_disks_are_where_the_supervisor_is_told() {
    if !has_kvm() {
        return;
    }
    let supervisor = Supervisor::new();
    // Reads the vendor of 00:03.0 and powers off if it is virtio's; else it reboots.
    let code = [
        &[0x66, 0xa1, 0x00, 0x80, 0x01, 0xe0][..], // mov ax, [ECAM + (3 << 15)]
        &[0x66, 0x3d, 0xf4, 0x1a],                 // cmp ax, 0x1af4
        &[0x75, 0x09],                             // jne reboot
        &out(0x600, 0x34),
        &out(0x602, 0x01),
    ]
    .concat();
    supervisor.boot(&pvh_elf(&code), |spec, fds| {
        for slot in [1, 2] {
            spec.disks.push(DiskSpec {
                file: FdSlot(slot),
                readonly: slot == 2,
                serial: "d".into(),
            });
            fds.push(file(&[0; 512]).into());
        }
    });
    let (_, booted, last) = supervisor.hear_all();
    assert_eq!(booted.unwrap().disks, [Bdf(2 << 3), Bdf(3 << 3)]);
    assert_eq!(last, FromMonitor::Exited(ExitReason::PowerOff));
}

#[test]
fn kvm_what_cannot_be_built_is_said_in_one_line() {
    if !has_kvm() {
        return;
    }
    let nothing = |_: &mut MachineSpec, _: &mut Vec<OwnedFd>| {};
    let kernel = pvh_elf(&SPIN);
    assert_eq!(
        Supervisor::failure(&[0; 4096], nothing),
        "not a kernel: neither an ELF vmlinux nor a bzImage"
    );
    let odd_disk = Supervisor::failure(&kernel, |spec, fds| {
        spec.disks.push(DiskSpec { file: FdSlot(1), readonly: false, serial: String::new() });
        fds.push(file(&[0; 513]).into());
    });
    assert!(odd_disk.starts_with("disk 0: ") && odd_disk.contains("513"), "{odd_disk}");
    let initrd = Supervisor::failure(&kernel, |spec, fds| {
        let initrd = file(&[]);
        initrd.set_len(64 << 20).unwrap();
        spec.boot.initrd = Some(FdSlot(1));
        fds.push(initrd.into());
    });
    assert!(initrd.starts_with("too little memory"), "{initrd}");
}

#[test]
fn kvm_a_wrong_specification_is_refused_before_anything_is_made() {
    if !has_kvm() {
        return;
    }
    let kernel = pvh_elf(&SPIN);
    let version = Supervisor::failure(&kernel, |spec, _| spec.version = 7);
    assert!(version.contains("version 7"), "{version}");
    let missing = Supervisor::failure(&kernel, |spec, _| spec.boot.initrd = Some(FdSlot(4)));
    assert!(missing.contains("descriptor 4 is missing"), "{missing}");
}

#[test]
fn kvm_a_supervisor_that_goes_or_stops_before_booting() {
    if !has_kvm() {
        return;
    }
    let Supervisor { channel, server } = Supervisor::new();
    drop(channel);
    assert_eq!(server.join().unwrap().unwrap(), Served::Abandoned);
    let supervisor = Supervisor::new();
    supervisor.channel.send(&ToMonitor::Stop, &[]).unwrap();
    assert_eq!(supervisor.hear(), FromMonitor::Exited(ExitReason::Stopped));
}

#[test]
fn kvm_nonsense_on_the_control_socket_is_an_error() {
    if !has_kvm() {
        return;
    }
    let Supervisor { channel, server } = Supervisor::new();
    channel.send_bytes(b"{}", &[File::open("/dev/null").unwrap().as_fd()]).unwrap();
    assert!(matches!(server.join().unwrap(), Err(ChannelError::Malformed(_))));
}

impl Supervisor {
    fn ask(&self, question: &ToMonitor) -> FromMonitor {
        self.channel.send(question, &[]).unwrap();
        loop {
            match self.hear() {
                FromMonitor::Reached(_) | FromMonitor::Booted(_) => {}
                answer => return answer,
            }
        }
    }

    fn stats(&self) -> Stats {
        match self.ask(&ToMonitor::Stats) {
            FromMonitor::Stats(stats) => *stats,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn kvm_a_paused_machine_stands_still_and_goes_on() {
    if !has_kvm() {
        return;
    }
    // Writes port 0x10, which nobody answers, for ever.
    let supervisor = Supervisor::new();
    supervisor.boot(&pvh_elf(&[0xe6, 0x10, 0xeb, 0xfc]), |spec, _| spec.vcpus = 2);
    let writes = |stats: &Stats| stats.vcpus[0]["port_writes"];
    for _ in 0..3 {
        let before = supervisor.stats();
        assert!(!before.paused);
        while writes(&supervisor.stats()) == writes(&before) {}
        assert_eq!(supervisor.ask(&ToMonitor::Pause), FromMonitor::Paused);
        let (first, second) = (supervisor.stats(), supervisor.stats());
        assert!(first.paused);
        thread::sleep(Duration::from_millis(30));
        assert_eq!(first.vcpus, second.vcpus);
        assert_eq!(writes(&supervisor.stats()), writes(&first));
        assert_eq!(supervisor.ask(&ToMonitor::Pause), FromMonitor::Paused, "once more");
        assert_eq!(supervisor.ask(&ToMonitor::Resume), FromMonitor::Resumed);
        while writes(&supervisor.stats()) == writes(&first) {}
    }
    // A paused machine can be stopped.
    assert_eq!(supervisor.ask(&ToMonitor::Pause), FromMonitor::Paused);
    supervisor.channel.send(&ToMonitor::Stop, &[]).unwrap();
    assert_eq!(supervisor.hear_all().2, FromMonitor::Exited(ExitReason::Stopped));
}

#[test]
fn kvm_the_account_names_vcpus_and_devices_and_comes_last() {
    if !has_kvm() {
        return;
    }
    let supervisor = Supervisor::new();
    let code = [&[0xe6, 0x10, 0xe4, 0x10][..], &out(0x600, 0x34)].concat();
    supervisor.boot(&pvh_elf(&code), |spec, fds| {
        spec.disks.push(DiskSpec { file: FdSlot(1), readonly: false, serial: "d".into() });
        fds.push(file(&[0; 512]).into());
    });
    let mut last = None;
    let reason = loop {
        match supervisor.hear() {
            FromMonitor::Stats(stats) => last = Some(*stats),
            FromMonitor::Exited(reason) => break reason,
            _ => {}
        }
    };
    assert_eq!(reason, ExitReason::PowerOff);
    let stats = last.unwrap();
    assert_eq!((stats.vcpus[0]["port_writes"], stats.vcpus[0]["port_reads"]), (2, 1));
    let devices: Vec<_> =
        stats.devices.iter().map(|d| (d.address.as_str(), d.kind.as_str())).collect();
    assert_eq!(devices, [("00:01.0", "rng"), ("00:02.0", "block"), ("00:03.0", "balloon")]);
    assert_eq!(stats.devices[1].counts["reads"], 0);
}

#[test]
fn kvm_memory_is_requested_within_what_the_machine_can_have() {
    if !has_kvm() {
        return;
    }
    let supervisor = Supervisor::new();
    let size = |wanted| MemoryState { wanted: MiB(wanted), present: MiB(48) };
    supervisor.boot(&pvh_elf(&SPIN), |spec, _| {
        (spec.max_memory, spec.max_vcpus) = (Some(MiB(1024)), Some(3));
    });
    assert_eq!(supervisor.ask(&ToMonitor::Memory), FromMonitor::Memory(size(48)));
    let asked = supervisor.ask(&ToMonitor::SetMemory(MiB(512)));
    // Nobody in this machine takes it.
    assert_eq!(asked, FromMonitor::Memory(size(512)));
    let refused = supervisor.ask(&ToMonitor::SetMemory(MiB(1025)));
    let text = "1025 MiB of memory: this machine can have 48 MiB to 1024 MiB";
    assert_eq!(refused, FromMonitor::Refused(text.into()));
    let stats = supervisor.stats();
    assert_eq!(stats.vcpus.len(), 3, "parked ones are there");
    let memory = stats.devices.iter().find(|device| device.kind == "mem").unwrap();
    assert_eq!(memory.counts["requested_bytes"], 464 << 20);
    assert_eq!(memory.counts["plugged_bytes"], 0);
    supervisor.channel.send(&ToMonitor::Stop, &[]).unwrap();
    assert_eq!(supervisor.hear_all().2, FromMonitor::Exited(ExitReason::Stopped));
}

#[path = "control_plug_test.rs"]
mod plug;
