//! The QEMU process of one test host: started, found again, stopped.
//!
//! Each machine has a state directory: `console.log`, `qemu.log`, the sockets `qmp` and `ssh`, and `port`.
//! A machine lives while something listens on its `qmp` socket, so a stale directory is never taken for one and
//! no process is ever killed by a number that was reused.
//!
//! Invariant: a machine that is not kept dies with the thread that started it, even if that is killed.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

use super::image::Image;
use super::qemu;
use crate::tools::{apt, cache, step};

/// Where the root file system of the test containers is mounted in the host.
pub const ROOTFS: &str = "/var/lib/cofferdam-test/rootfs";

/// What init prints when ssh answers.
const READY: &str = "cofferdam test host is ready";

/// The longest that a start may take: emulated, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Sockets in a state directory must fit into `sun_path` (108 bytes), with the suffix that ssh adds.
const LONGEST_DIR: usize = 80;

/// Linux parameters: no timer but the TSC (every read of the HPET is an exit), and none of the mitigations, which
/// guard nothing in an emulated machine.
const CMDLINE: &str = "console=ttyS0 quiet tsc=reliable clocksource=tsc panic=-1 mitigations=off";

/// How a machine is started.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// A tar unpacked over the root file system at the start.
    pub payload: Option<PathBuf>,
    /// An ext4 image mounted read-only at [`ROOTFS`].
    pub rootfs: Option<PathBuf>,
}

/// A running test host.
#[derive(Debug)]
pub struct Machine {
    dir: PathBuf,
    image: Image,
    port: u16,
    /// QEMU, if it is to end with this value.
    child: Option<Child>,
}

impl Machine {
    /// The state directory of the machine that is kept under `name`.
    #[must_use]
    pub fn place(name: &str) -> PathBuf {
        cache::root().join("run").join(name)
    }

    /// The running machine that is kept under `name`.
    ///
    /// # Errors
    /// If one runs but its image cannot be had or its state cannot be read.
    pub fn find(name: &str) -> Result<Option<Self>> {
        let dir = Self::place(name);
        if !alive(&dir) {
            return Ok(None);
        }
        let port = fs::read_to_string(dir.join("port")).context("reading the test host's port")?;
        let port = port.trim().parse().context("the test host's port")?;
        let image =
            fs::read_to_string(dir.join("image")).context("reading the test host's image")?;
        Ok(Some(Self { dir, image: Image::at(image.into()), port, child: None }))
    }

    /// Starts a machine that is kept under `name` until somebody stops it, or finds the one that runs.
    ///
    /// # Errors
    /// If QEMU or the image cannot be had, or the machine does not come up; the message holds its console.
    pub fn keep(name: &str, config: &Config) -> Result<Self> {
        let dir = Self::place(name);
        let parent = Self::place("");
        fs::create_dir_all(&parent).with_context(|| format!("creating {}", parent.display()))?;
        let lock = parent.join(format!("{name}.lock"));
        let lock = File::create(&lock).with_context(|| format!("creating {}", lock.display()))?;
        lock.lock().context("locking the test host's state")?;
        if let Some(machine) = Self::find(name)? {
            return Ok(machine);
        }
        remove_stale(&parent);
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
        }
        Self::start(dir, config, true)
    }

    /// Starts a machine that ends with this value or with the calling thread.
    ///
    /// # Errors
    /// As [`Machine::keep`].
    pub fn once(config: &Config) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let parent = Self::place("");
        remove_stale(&parent);
        // One process may have several.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::start(parent.join(format!("once-{}-{count}", std::process::id())), config, false)
    }

    fn start(dir: PathBuf, config: &Config, keep: bool) -> Result<Self> {
        if dir.as_os_str().len() > LONGEST_DIR {
            bail!(
                "{}: too long a path for sockets; set COFFERDAM_CACHE to a shorter one",
                dir.display()
            );
        }
        require_qemu()?;
        let image = Image::get()?;
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        eprintln!("==> starting the KVM test host");
        let started = Instant::now();
        let port = free_port()?;
        fs::write(dir.join("port"), port.to_string()).context("writing the port")?;
        fs::write(dir.join("image"), image.dir().as_os_str().as_encoded_bytes())
            .context("writing the image's name")?;
        let mut command = qemu(&qemu::program()?, (&dir, &image), config, (port, keep));
        let log = File::create(dir.join("qemu.log")).context("creating qemu.log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().context("starting QEMU")?;
        if keep {
            let status = child.wait().context("waiting for QEMU to go to the background")?;
            if !status.success() {
                bail!("QEMU: {status}\n{}", step::tail(&dir.join("qemu.log"), 20));
            }
        }
        let mut machine = Self { dir, image, port, child: (!keep).then_some(child) };
        if let Err(error) = machine.wait_until_ready(started + PATIENCE) {
            let console = machine.console(30);
            machine.stop();
            return Err(error.context(format!("console of the test host:\n{console}")));
        }
        eprintln!("    up in {:.1?}", started.elapsed());
        Ok(machine)
    }

    /// Waits for init's word on the console.
    fn wait_until_ready(&mut self, deadline: Instant) -> Result<()> {
        let console = self.dir.join("console.log");
        loop {
            let text = fs::read(&console).unwrap_or_default();
            if String::from_utf8_lossy(&text).contains(READY) {
                return Ok(());
            }
            let ended = match &mut self.child {
                Some(child) => child.try_wait().context("waiting for QEMU")?.is_some(),
                None => !alive(&self.dir),
            };
            if ended {
                bail!("QEMU ended: {}", step::tail(&self.dir.join("qemu.log"), 20));
            }
            if Instant::now() > deadline {
                bail!("the test host is not up after {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the machine, whose disk is thrown away.
    pub fn stop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        } else if quit(&self.dir).is_err() {
            eprintln!("the test host in {} does not answer", self.dir.display());
            return;
        }
        let _ = fs::remove_dir_all(&self.dir);
    }

    /// Whether QEMU runs.
    #[must_use]
    pub fn alive(&self) -> bool {
        alive(&self.dir)
    }

    /// The last `lines` lines of the console.
    #[must_use]
    pub fn console(&self, lines: usize) -> String {
        step::tail(&self.dir.join("console.log"), lines)
    }

    /// The state directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The image it was started from.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The port on the loopback interface behind which its ssh server is.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.stop();
        }
    }
}

/// The QEMU command: SVM with nested paging, emulated.
fn qemu(
    program: &Path,
    (dir, image): (&Path, &Image),
    config: &Config,
    (port, keep): (u16, bool),
) -> Command {
    let mut command = if keep {
        Command::new(program)
    } else {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command
    };
    if keep {
        command.arg("-daemonize").arg("-pidfile").arg(dir.join("pid"));
    }
    let cpus = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4);
    let memory = std::env::var("COFFERDAM_TEST_HOST_MEMORY").unwrap_or_else(|_| "4096".to_owned());
    command.args(["-name", "cofferdam-test-host", "-no-user-config", "-nodefaults", "-no-reboot"]);
    // Four levels of page tables instead of five: each level counts twice in a nested guest.
    command.args(["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,+svm,+npt,-la57"]);
    command.args(["-M", "q35", "-smp", &cpus.to_string(), "-m", &memory, "-display", "none"]);
    command.arg("-kernel").arg(image.kernel()).arg("-initrd").arg(image.initrd());
    command.args(["-append", CMDLINE]);
    command.arg("-serial").arg(option("file:", &dir.join("console.log"), ""));
    command.arg("-qmp").arg(option("unix:", &dir.join("qmp"), ",server=on,wait=off"));
    command.args(["-device", "virtio-rng-pci", "-device", "virtio-net-pci,netdev=net"]);
    command.args(["-netdev", &format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22")]);
    let mut disk = |path: &Path, serial: &str, options: &str| {
        let options = format!(",format=raw,if=none,id={serial},cache=unsafe{options}");
        command.arg("-drive").arg(option("file=", path, &options));
        command.args(["-device", &format!("virtio-blk-pci,drive={serial},serial={serial}")]);
    };
    disk(&image.disk(), "root", ",snapshot=on,discard=unmap");
    if let Some(payload) = &config.payload {
        disk(payload, "payload", ",readonly=on");
    }
    if let Some(rootfs) = &config.rootfs {
        disk(rootfs, "rootfs", ",readonly=on");
    }
    // Where QEMU makes the (at once unlinked) file behind snapshot=on.
    command.env("TMPDIR", dir);
    command
}

/// An option of QEMU that holds a path; a comma in the path is doubled.
pub(super) fn option(before: &str, path: &Path, after: &str) -> String {
    format!("{before}{}{after}", path.to_string_lossy().replace(',', ",,"))
}

/// Makes sure of a QEMU that runs 6.12 kernels under emulation: 7.2 crashes them at random.
pub(super) fn require_qemu() -> Result<()> {
    if apt::version("qemu-system-x86").is_some_and(|version| new_enough(&version)) {
        return apt::require(&["util-linux", "openssh-client", "rsync"]);
    }
    let suite = (apt::codename()? == "bookworm").then_some("bookworm-backports");
    apt::upgrade_from(
        suite,
        &["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios", "ipxe-qemu"],
    )?;
    match apt::version("qemu-system-x86") {
        Some(version) if new_enough(&version) => require_qemu(),
        other => bail!("the test host needs QEMU 10 or newer; apt installed {other:?}"),
    }
}

/// Whether the Debian version `version` of QEMU is at least 10.
fn new_enough(version: &str) -> bool {
    let upstream = version.rsplit(':').next().unwrap_or_default();
    upstream.split('.').next().and_then(|major| major.parse::<u32>().ok()) >= Some(10)
}

/// A port that nothing listens on at the moment.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("finding a free port")?;
    Ok(listener.local_addr().context("finding a free port")?.port())
}

/// Whether a machine runs whose state is in `dir`.
fn alive(dir: &Path) -> bool {
    UnixStream::connect(dir.join("qmp")).is_ok()
}

/// Asks QEMU to end and waits until it has.
fn quit(dir: &Path) -> std::io::Result<()> {
    let mut socket = UnixStream::connect(dir.join("qmp"))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.write_all(b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n")?;
    let mut replies = Vec::new();
    match socket.read_to_end(&mut replies) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => Err(error),
        _ => Ok(()),
    }
}

/// Removes what machines that were killed have left: directories older than a minute that nobody listens in.
fn remove_stale(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let dir = entry.path();
        let made = entry.metadata().and_then(|data| data.modified());
        let old = made.is_ok_and(|time| {
            SystemTime::now().duration_since(time).is_ok_and(|age| age.as_secs() > 60)
        });
        if dir.is_dir() && old && !alive(&dir) {
            let _ = fs::remove_dir_all(&dir);
        }
    }
}

#[cfg(test)]
#[path = "machine_test.rs"]
mod machine_test;
