//! The program itself: exit codes, messages, signals, the inherited control socket.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::io::Write;
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
        eprintln!("SKIPPED, no KVM here: {error}");
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
        assert_eq!(exit_code(&mut child), Some(130));
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
        .args(["-c", "exec \"$0\" 3</dev/null", PROGRAM])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("no control socket at descriptor 3"), "{}", text(&output));
}

/// The program as a supervisor starts it, with its control socket.
fn supervised() -> (Child, Channel) {
    let (ours, theirs) = Channel::pair().unwrap();
    let child = Command::new("sh")
        .args(["-c", "exec \"$0\" 3<&0 </dev/null", PROGRAM])
        .stdin(theirs.into_inner())
        .spawn()
        .unwrap();
    (child, ours)
}

fn boot_supervised(channel: &Channel, kernel: &NamedTempFile) {
    let spec = MachineSpec {
        version: API_VERSION,
        vcpus: 2,
        memory: MiB(48),
        huge_pages: false,
        boot: BootSpec { kernel: FdSlot(0), initrd: None, cmdline: String::new() },
        disks: vec![],
        vsock: None,
        rng: false,
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
    let last = channel.receive::<FromMonitor>().unwrap().body;
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
