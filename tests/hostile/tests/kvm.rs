//! The hostile kernel on the local KVM, with every device, against the monitor's library.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use cofferdam_vmm::control::serve;
use cofferdam_vmm::jail::Filters;
use cofferdam_vmm::machine::Host;
use cofferdam_vmm_api::*;
use cofferdam_vmm_hv::Hypervisor;

/// Builds the kernel: it needs other flags than this test does.
fn kernel() -> PathBuf {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--profile=guest", "--features=bare-metal"]);
    cargo.args(["--target", TARGET, "--manifest-path"]);
    cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    cargo.arg("--target-dir").arg(&place);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    assert!(cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").status().unwrap().success());
    place.join(TARGET).join("guest/cofferdam-test-hostile")
}

/// How the machine ends, and what it said.
fn run(kernel: &Path, words: &str) -> (ExitReason, String) {
    let disk = tempfile::tempfile().unwrap();
    disk.set_len(1 << 20).unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let (_connections, guests) = Channel::pair().unwrap();
    let fds: [OwnedFd; 5] = [
        File::open(kernel).unwrap().into(),
        disk.try_clone().unwrap().into(),
        disk.into(),
        guests.into_inner(),
        log.reopen().unwrap().into(),
    ];
    let spec = MachineSpec {
        version: API_VERSION,
        vcpus: 1,
        max_vcpus: None,
        memory: MiB(64),
        max_memory: Some(MiB(320)),
        boot: BootSpec { kernel: FdSlot(0), initrd: None, cmdline: words.into() },
        disks: vec![
            DiskSpec { file: FdSlot(1), readonly: false, serial: "writable".into() },
            DiskSpec { file: FdSlot(2), readonly: true, serial: "readonly".into() },
        ],
        vsock: Some(VsockSpec { cid: Cid(3), connections: FdSlot(3) }),
        rng: true,
        nets: vec![],
        balloon: true,
        spare_queues: 0,
        huge_pages: false,
        console: Some(ConsoleSpec { log: FdSlot(4), limit: 0 }),
    };
    let (supervisor, theirs) = Channel::pair().unwrap();
    // The system-call filters stay with the thread.
    let server = thread::spawn(move || {
        let hypervisor = Hypervisor::open().unwrap();
        let filters = Arc::new(Filters::new().unwrap());
        serve(&theirs, &Host { hypervisor, filters }, 0)
    });
    let borrowed = fds.each_ref().map(|fd| fd.as_fd());
    supervisor.send(&ToMonitor::Boot(Box::new(spec)), &borrowed).unwrap();
    supervisor.send(&ToMonitor::SetMemory(MiB(256)), &[]).unwrap();
    loop {
        match supervisor.receive::<FromMonitor>().unwrap().body {
            FromMonitor::Exited(reason) => {
                server.join().unwrap().unwrap();
                return (reason, std::fs::read_to_string(log.path()).unwrap());
            }
            FromMonitor::Failed(why) => panic!("{why}"),
            _ => {}
        }
    }
}

#[test]
fn kvm_every_device_outlives_a_hostile_kernel() {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return eprintln!("SKIPPED: no KVM here");
    }
    let kernel = kernel();
    for seed in 1..=3 {
        let (reason, said) = run(&kernel, &format!("hostile.seed={seed} hostile.rounds=2"));
        if matches!(&reason, ExitReason::Error(text) if text.contains("KVM internal error")) {
            // One that emulates in software cannot execute every instruction.
            return eprintln!("SKIPPED: this KVM failed: {reason}");
        }
        assert_eq!(reason, ExitReason::PowerOff, "seed {seed}: {said}");
        assert!(said.contains("HOSTILE OK"), "seed {seed}: {said}");
    }
}
