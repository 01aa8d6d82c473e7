//! The program itself: bad input, interruption and sudden death, with nothing left behind. No KVM and no
//! root are needed: the monitor is a script.

#![allow(clippy::unwrap_used, reason = "a failing test is to panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A host of our own: directories for everything the program touches.
struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["lib", "rootfs/bin", "bundle/rootfs"] {
            fs::create_dir_all(host.path(name)).unwrap();
        }
        for name in ["lib/vmlinux", "lib/initramfs"] {
            fs::write(host.path(name), "x").unwrap();
        }
        host.configure("");
        host.monitor("exec sleep 60");
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn configure(&self, more: &str) {
        let (monitor, data) = (self.path("monitor"), self.path("data"));
        let text = format!("monitor = {monitor:?}\ndata = {data:?}\nscratch = \"32M\"\n{more}\n");
        fs::write(self.path("config.toml"), text).unwrap();
    }

    fn monitor(&self, script: &str) {
        fs::write(self.path("monitor"), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(self.path("monitor"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command.arg("--root").arg(self.path("run")).arg("--config").arg(self.path("config.toml"));
        command.args(arguments).env("COFFERDAM_LIB", self.path("lib")).current_dir(self.path(""));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs to the end; nothing may be left.
    fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        self.assert_clean();
        output
    }

    /// The message of a run that fails.
    fn error(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Starts a run whose monitor has been started. It ends with its control socket, as the real one does.
    fn start(&self) -> Child {
        let pid = self.path("monitor.pid");
        self.monitor(&format!("echo $$ >{}\nexec cat >/dev/null", pid.display()));
        let child =
            self.command(&["run", "--rootfs", "rootfs", "c", "--", "true"]).spawn().unwrap();
        wait_for("the monitor", || {
            fs::read_to_string(self.path("monitor.pid")).is_ok_and(|t| t.ends_with('\n'))
        });
        child
    }

    fn assert_clean(&self) {
        let entries = fs::read_dir(self.path("run")).into_iter().flatten().flatten();
        // The lock of all of them stays.
        let left: Vec<_> = entries.filter(|entry| entry.file_name() != ",lock").collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(self.processes(), Vec::<String>::new());
    }

    /// Processes that have our directory in their command line or environment.
    fn processes(&self) -> Vec<String> {
        let mark = self.directory.path().to_str().unwrap().to_owned();
        let mentions = |path: PathBuf| {
            fs::read(path).is_ok_and(|text| String::from_utf8_lossy(&text).contains(&mark))
        };
        let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        all.filter(|path| mentions(path.join("cmdline")) || mentions(path.join("environ")))
            .map(|path| path.display().to_string())
            .collect()
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "waiting for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

fn have(program: &str) -> bool {
    ["/usr/bin", "/usr/sbin", "/sbin", "/bin"]
        .iter()
        .any(|dir| Path::new(dir).join(program).exists())
}

#[test]
fn version_and_help() {
    let host = Host::new();
    let version = String::from_utf8(host.run(&["--version"]).stdout).unwrap();
    assert!(version.starts_with(concat!("cofferdam version ", env!("CARGO_PKG_VERSION"), "\n")));
    let help = String::from_utf8(host.run(&["run", "--help"]).stdout).unwrap();
    assert!(help.contains("--rootfs") && help.contains("--timeline"), "{help}");
}

#[test]
fn bad_bundles_are_named() {
    let host = Host::new();
    let missing = host.error(&["run", "--bundle", "bundle", "c"]);
    assert!(missing.contains("bundle/config.json: No such file"), "{missing}");
    assert!(host.run(&["spec", "--bundle", "bundle"]).status.success());
    let config = host.path("bundle/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("1.2.0", "3.0.0")).unwrap();
    assert!(host.error(&["run", "-b", "bundle", "c"]).contains("ociVersion \"3.0.0\""));
    fs::write(&config, &text[..100]).unwrap();
    assert!(host.error(&["run", "c", "-b", "bundle"]).contains("EOF while parsing"));
    fs::write(&config, &text).unwrap();
    fs::remove_dir(host.path("bundle/rootfs")).unwrap();
    assert!(host.error(&["run", "c", "-b", "bundle"]).contains("bundle/rootfs: No such file"));
}

#[test]
fn bad_ids_and_settings_are_named() {
    let host = Host::new();
    assert!(host.error(&["run", "--rootfs", "rootfs", "a/b", "--", "true"]).contains("\"a/b\""));
    host.configure("vcpu = 1");
    let unknown = host.error(&["run", "--rootfs", "rootfs", "c", "--", "true"]);
    assert!(unknown.contains("config.toml") && unknown.contains("vcpu"), "{unknown}");
    host.configure("vcpus = 65");
    let many = host.error(&["run", "--rootfs", "rootfs", "c", "--", "true"]);
    assert!(many.contains("65 vCPUs; 1 to 64"), "{many}");
}

#[test]
fn a_missing_kernel_is_named() {
    let host = Host::new();
    fs::remove_file(host.path("lib/vmlinux")).unwrap();
    let error = host.error(&["run", "--rootfs", "rootfs", "c", "--", "true"]);
    assert!(
        error.contains("opening the guest kernel") && error.contains("lib/vmlinux: No such file"),
        "{error}"
    );
}

#[test]
fn a_log_file_gets_the_error_as_json() {
    let host = Host::new();
    fs::remove_file(host.path("lib/initramfs")).unwrap();
    host.error(&[
        "--log",
        "log.json",
        "--log-format",
        "json",
        "run",
        "--rootfs",
        "rootfs",
        "c",
        "--",
        "true",
    ]);
    let log = fs::read_to_string(host.path("log.json")).unwrap();
    let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("guest image"), "{log}");
}

#[test]
fn a_monitor_that_fails_is_told_with_its_last_words_and_stage() {
    if !have("mkfs.erofs") || !have("mke2fs") {
        eprintln!("erofs-utils or e2fsprogs are not installed: not tested");
        return;
    }
    let host = Host::new();
    host.monitor("echo cannot do it >&2; exit 3");
    let error =
        host.error(&["run", "--timeline", "t.json", "--rootfs", "rootfs", "c", "--", "true"]);
    assert!(error.contains("exit status: 3: cannot do it"), "{error}");
    assert!(error.contains("last stage reached: monitor spawned"), "{error}");
    let timeline = fs::read_to_string(host.path("t.json")).unwrap();
    assert!(timeline.contains("machine_gone"), "{timeline}");
    host.configure("monitor = \"/no/such/monitor\"");
    let config = fs::read_to_string(host.path("config.toml")).unwrap();
    let rest: Vec<&str> = config.lines().skip(1).collect();
    fs::write(host.path("config.toml"), rest.join("\n")).unwrap();
    let error = host.error(&["run", "--rootfs", "rootfs", "c", "--", "true"]);
    assert!(error.contains("starting the monitor /no/such/monitor: No such file"), "{error}");
}

#[test]
fn an_interruption_during_boot_ends_everything() {
    if !have("mkfs.erofs") || !have("mke2fs") {
        eprintln!("erofs-utils or e2fsprogs are not installed: not tested");
        return;
    }
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let host = Host::new();
        let child = host.start();
        assert!(host.path("run/c").exists());
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        host.assert_clean();
    }
}

#[test]
fn an_id_in_use_is_refused() {
    if !have("mkfs.erofs") || !have("mke2fs") {
        eprintln!("erofs-utils or e2fsprogs are not installed: not tested");
        return;
    }
    let host = Host::new();
    let child = host.start();
    let output = host.command(&["run", "--rootfs", "rootfs", "c", "--", "true"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("container with given ID already exists"), "{error}");
    signal(&child, "-INT");
    child.wait_with_output().unwrap();
    host.assert_clean();
}

#[test]
fn a_killed_supervisor_leaves_nothing() {
    if !have("mkfs.erofs") || !have("mke2fs") {
        eprintln!("erofs-utils or e2fsprogs are not installed: not tested");
        return;
    }
    let host = Host::new();
    let mut child = host.start();
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the supervisor", || host.processes().is_empty());
    host.assert_clean();
}
