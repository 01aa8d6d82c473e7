//! The program itself: exit codes, messages, signals, the inherited control socket.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cofferdam_vmm_api::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::NamedTempFile;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cofferdam-vmm");
const PATIENCE: Duration = Duration::from_secs(30);

/// An ELF file whose PVH entry is this code.
fn kernel(code: &[u8]) -> NamedTempFile {
    const ENTRY: u64 = 0x10_0000;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    file.extend([ENTRY, 64, 0].iter().flat_map(|value| value.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 2, 0, 0, 0].iter().flat_map(|value| value.to_le_bytes()));
    for (kind, offset, address, size) in
        [(4u32, 176u64, 0, 20u64), (1, 196, ENTRY, code.len() as u64)]
    {
        file.extend([kind, 7].iter().flat_map(|value| value.to_le_bytes()));
        let fields = [offset, address, address, size, size, 1];
        file.extend(fields.iter().flat_map(|value| value.to_le_bytes()));
    }
    file.extend([4u32, 4, 18].iter().flat_map(|value| value.to_le_bytes()));
    file.extend(b"Xen\0\0\0\x10\0");
    file.extend(code);
    file.resize(file.len().max(0x210), 0);
    let mut named = NamedTempFile::new().unwrap();
    named.write_all(&file).unwrap();
    named
}

/// Writes `value` to `port`, then spins.
fn out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee, 0xeb, 0xfe]
}

const SPIN: [u8; 2] = [0xeb, 0xfe];

fn has_kvm() -> bool {
    let there = cofferdam_vmm_hv::Hypervisor::open();
    if let Err(error) = &there {
        eprintln!("SKIPPED: no KVM here: {error}");
    }
    there.is_ok()
}

fn boot(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("boot").args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

/// Whether the local KVM itself failed: one that emulates in software sometimes cannot fetch an instruction.
fn kvm_failed(said: &str) -> bool {
    let failed = said.contains("KVM internal error");
    if failed {
        eprintln!("SKIPPED: this KVM failed: {said}");
    }
    failed
}

/// Its exit code, waited for with patience.
fn exit_code(child: &mut Child) -> Option<i32> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("it does not end");
}

#[test]
fn kvm_every_end_has_its_exit_code() {
    if !has_kvm() {
        return;
    }
    let triple_fault = vec![0x0f, 0x01, 0x1d, 0x00, 0x50, 0x00, 0x00, 0x0f, 0x0b];
    for (code, expected) in
        [(out(0x600, 0x34), 0), (out(0x602, 0x01), 3), (out(0x505, 0x01), 4), (triple_fault, 5)]
    {
        let kernel = kernel(&code);
        let output = boot(&["--kernel", path(&kernel), "--memory", "48"]).output().unwrap();
        if kvm_failed(&text(&output)) {
            return;
        }
        assert_eq!(output.status.code(), Some(expected), "{}", text(&output));
    }
}

#[test]
fn kvm_the_console_goes_to_standard_output() {
    if !has_kvm() {
        return;
    }
    let code = [&out(0x3f8, b'!')[..7], &out(0x600, 0x34)].concat();
    let kernel = kernel(&code);
    let output = boot(&["--kernel", path(&kernel), "--timing"]).output().unwrap();
    if kvm_failed(&text(&output)) {
        return;
    }
    assert_eq!(output.stdout, b"!");
    let stages = ["monitor started", "machine built", "kernel entered"];
    assert!(stages.iter().all(|stage| text(&output).contains(stage)), "{}", text(&output));
}

#[test]
fn kvm_a_signal_stops_the_machine() {
    if !has_kvm() {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let kernel = kernel(&SPIN);
        let mut child = boot(&["--kernel", path(&kernel), "--cpus", "2"]).spawn().unwrap();
        sleep(Duration::from_millis(300));
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        let code = exit_code(&mut child);
        if kvm_failed(&text(&child.wait_with_output().unwrap())) {
            return;
        }
        assert_eq!(code, Some(130));
    }
}

#[test]
fn what_cannot_be_opened_is_named() {
    let kernel = kernel(&SPIN);
    let kernel = path(&kernel);
    for (arguments, expected) in [
        (vec!["--kernel", "/no/kernel"], "cannot open the kernel /no/kernel: No such file"),
        (
            vec!["--kernel", kernel, "--initrd", "/no/rd"],
            "cannot open the initramfs /no/rd: No such",
        ),
        (
            vec!["--kernel", kernel, "--disk", "/no/d:ro"],
            "cannot open the disk /no/d: No such file",
        ),
        (vec!["--kernel", kernel, "--console", "/no/log"], "cannot create the console log /no/log"),
        (vec!["--kernel", kernel, "--vsock", "/no/socket"], "/no/socket"),
        (vec!["--kernel", kernel, "--memory", "10"], "10 MiB of memory; 48 MiB to"),
        (vec!["--kernel", kernel, "--cpus", "65"], "65 vCPUs; 1 to 64 are possible"),
    ] {
        let output = boot(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output).contains(expected), "{arguments:?}: {}", text(&output));
        assert_eq!(text(&output).lines().count(), 1, "one line: {}", text(&output));
    }
    assert_eq!(boot(&[]).output().unwrap().status.code(), Some(2));
}

#[test]
fn kvm_what_is_wrong_with_a_file_is_said_with_its_path() {
    if !has_kvm() {
        return;
    }
    let mut odd = NamedTempFile::new().unwrap();
    odd.write_all(&[0; 700]).unwrap();
    let output = boot(&["--kernel", path(&odd)]).output().unwrap();
    let expected = format!("cannot boot: kernel {}: not a kernel: neither an ELF", path(&odd));
    assert!(text(&output).contains(&expected), "{}", text(&output));

    let kernel = kernel(&SPIN);
    let output = boot(&["--kernel", path(&kernel), "--disk", path(&odd)]).output().unwrap();
    let expected = format!("cannot boot: disk {}: disk of 700 bytes", path(&odd));
    assert!(text(&output).contains(&expected), "{}", text(&output));
}

#[test]
fn without_a_supervisor_it_says_so() {
    let output = Command::new("sh")
        .args(["-c", "exec \"$0\" </dev/null", PROGRAM])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("no control socket on standard input"), "{}", text(&output));
}

/// The program as a supervisor starts it, with its control socket.
fn supervised() -> (Child, Channel) {
    let (ours, theirs) = Channel::pair().unwrap();
    let mut command = Command::new(PROGRAM);
    command.stdout(Stdio::null());
    let child = start_monitor(command, theirs.into_inner()).unwrap();
    (child, ours)
}

/// The user that it becomes.
const UID: u32 = 2_000_100_000;

fn confine(channel: &Channel) {
    let kvm = cofferdam_vmm_hv::open_kvm("/dev/kvm").unwrap();
    let uid = is_privileged().then_some(UID);
    channel.send(&ToMonitor::Confine { uid }, &[kvm.as_fd()]).unwrap();
    let answer = channel.receive::<FromMonitor>().unwrap().body;
    assert!(matches!(answer, FromMonitor::Confined { .. }), "{answer:?}");
}

fn boot_supervised(channel: &Channel, kernel: &NamedTempFile) {
    confine(channel);
    let spec = MachineSpec {
        version: API_VERSION,
        vcpus: 2,
        max_vcpus: None,
        memory: MiB(48),
        max_memory: None,
        huge_pages: false,
        boot: BootSpec { kernel: FdSlot(0), initrd: None, cmdline: String::new() },
        disks: vec![],
        vsock: None,
        rng: true,
        nets: vec![],
        balloon: false,
        spare_queues: 0,
        console: None,
    };
    channel.send(&ToMonitor::Boot(Box::new(spec)), &[kernel.as_file().as_fd()]).unwrap();
    while !matches!(
        channel.receive::<FromMonitor>().unwrap().body,
        FromMonitor::Booted(Booted { disks }) if disks.is_empty()
    ) {}
}

#[test]
fn kvm_a_supervisor_starts_and_stops_it() {
    if !has_kvm() {
        return;
    }
    let (mut child, channel) = supervised();
    boot_supervised(&channel, &kernel(&SPIN));
    channel.send(&ToMonitor::Stop, &[]).unwrap();
    let account = channel.receive::<FromMonitor>().unwrap().body;
    assert!(matches!(account, FromMonitor::Stats(_)), "{account:?}");
    let last = channel.receive::<FromMonitor>().unwrap().body;
    if kvm_failed(&format!("{last:?}")) {
        child.wait().unwrap();
        return;
    }
    assert_eq!(last, FromMonitor::Exited(ExitReason::Stopped));
    assert_eq!(exit_code(&mut child), Some(0));
}

#[test]
fn kvm_it_ends_when_its_supervisor_is_gone() {
    if !has_kvm() {
        return;
    }
    let (mut child, channel) = supervised();
    boot_supervised(&channel, &kernel(&SPIN));
    drop(channel);
    assert_eq!(exit_code(&mut child), Some(130));
    let (mut child, channel) = supervised();
    drop(channel);
    assert_eq!(exit_code(&mut child), Some(130));
}

/// The value of a field of `/proc/PID/status`, for the process or one of its threads.
fn status(directory: &str, field: &str) -> String {
    let text = std::fs::read_to_string(format!("{directory}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{field}:")));
    line.unwrap().split_once(':').unwrap().1.trim().to_owned()
}

#[test]
fn kvm_every_thread_of_a_running_monitor_is_confined() {
    if !has_kvm() || !is_privileged() {
        return;
    }
    let (mut child, channel) = supervised();
    boot_supervised(&channel, &kernel(&SPIN));
    let process = format!("/proc/{}", child.id());
    let threads: Vec<_> = std::fs::read_dir(format!("{process}/task")).unwrap().collect();
    // The first, two vCPUs, and on some hosts one of KVM's own.
    assert!(threads.len() >= 3, "{threads:?}");
    for thread in threads {
        let directory = thread.unwrap().path().display().to_string();
        for (field, value) in [
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
            ("CapEff", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
            ("Groups", ""),
        ] {
            assert_eq!(status(&directory, field), value, "{directory}: {field}");
        }
        assert_eq!(status(&directory, "Uid"), vec![UID.to_string(); 4].join("\t"));
    }
    for space in ["mnt", "net", "ipc", "pid", "uts"] {
        let link = |who: &str| std::fs::read_link(format!("{who}/ns/{space}")).unwrap();
        assert_ne!(link(&process), link("/proc/self"), "{space}");
    }
    let names: Vec<_> = std::fs::read_dir(format!("{process}/root")).unwrap().collect();
    assert!(names.is_empty(), "{names:?}");
    drop(channel);
    assert_eq!(exit_code(&mut child), Some(130));
}

#[test]
fn nothing_is_done_before_it_is_confined() {
    let (mut child, channel) = supervised();
    channel.send(&ToMonitor::Stats, &[]).unwrap();
    let answer = channel.receive::<FromMonitor>().unwrap().body;
    let FromMonitor::Failed(text) = answer else { panic!("{answer:?}") };
    assert!(text.contains("before it was told to confine itself"), "{text}");
    assert_eq!(exit_code(&mut child), Some(1));
}

#[test]
fn kvm_metrics_are_written_when_asked_and_at_the_end() {
    if !has_kvm() {
        return;
    }
    let metrics = NamedTempFile::new().unwrap();
    let kernel = kernel(&[&out(0x3f8, b'!')[..7], &SPIN].concat());
    let mut child =
        boot(&["--kernel", path(&kernel), "--metrics", path(&metrics)]).spawn().unwrap();
    // Before it runs, the signal would end it.
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    let read = || serde_json::from_slice::<Stats>(&std::fs::read(metrics.path()).unwrap());
    let start = Instant::now();
    while read().is_err() {
        assert!(start.elapsed() < PATIENCE, "no metrics");
        kill(pid, Signal::SIGUSR1).unwrap();
        sleep(Duration::from_millis(100));
    }
    let first = read().unwrap();
    assert_eq!(first.vcpus.len(), 1);
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(exit_code(&mut child), Some(130));
    assert!(read().unwrap().at_ns > first.at_ns);
}

#[test]
fn kvm_a_monitor_that_is_killed_is_a_failure_of_the_monitor() {
    if !has_kvm() {
        return;
    }
    let kernel = kernel(&SPIN);
    let mut child = boot(&["--kernel", path(&kernel)]).spawn().unwrap();
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let start = Instant::now();
    let monitor = loop {
        let text = std::fs::read_to_string(&children).unwrap();
        if let Ok(pid) = text.trim().parse() {
            break Pid::from_raw(pid);
        }
        assert!(start.elapsed() < PATIENCE, "no monitor");
        sleep(Duration::from_millis(10));
    };
    kill(monitor, Signal::SIGKILL).unwrap();
    assert_eq!(exit_code(&mut child), Some(6));
}
