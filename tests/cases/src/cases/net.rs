//! A network card on a tap: packets, checksums and segments come through unharmed, both ways.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};

use super::cases;
use crate::monitor::KERNEL;
use crate::run::{ROOTFS, Running};

cases!("net":
    two_queue_pairs_carry_bulk_both_ways,
    one_queue_pair_and_a_small_mtu,
);

/// What goes through each connection.
const BULK: usize = 8 << 20;

/// Longest time for one step.
const LIMIT: Duration = Duration::from_secs(150);

/// The guest: takes bytes from the host, sends them back over one connection and offers them on another, all
/// on the CPU of the mask `$1`.
const GUEST: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
ip link set lo up
ip addr add 10.9.0.2/24 dev eth0
ip link set eth0 up
echo "address $(cat /sys/class/net/eth0/address) mtu $(cat /sys/class/net/eth0/mtu)"
echo "queues $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)"
until ping -c 1 -W 1 10.9.0.1 > /dev/null; do :; done
echo "the host answers"
for mask in $(cat /masks); do
    taskset $mask nc 10.9.0.1 5000 < /dev/null > /data
    taskset $mask nc 10.9.0.1 5001 < /data
    taskset $mask nc -l -p 5002 < /data > /dev/null
done
grep input /proc/interrupts
echo GUEST DONE
poweroff -f
"#;

fn two_queue_pairs_carry_bulk_both_ways() -> Result<()> {
    let flags = ["--cpus", "2", "--tap", "cofftest0,mac=02:00:00:00:00:07,queues=2"];
    let (said, card) = exchange(&flags, &["1", "2"])?;
    ensure!(said.contains("address 02:00:00:00:00:07 mtu 1500\n"), "{said}");
    ensure!(said.contains("queues 2\n"), "{said}");
    let interrupts: Vec<u64> = said
        .lines()
        .filter(|line| line.contains("-input."))
        .map(|line| line.split_whitespace().skip(1).map_while(|n| n.parse::<u64>().ok()).sum())
        .collect();
    ensure!(interrupts.len() == 2 && interrupts.iter().all(|&count| count > 10), "{said}");
    // Segments are cut by whoever is last to handle them: what passes is larger than the MTU.
    for (bytes, packets) in [card.from_guest, card.to_guest] {
        ensure!(bytes / packets.max(1) > 4000, "{bytes} bytes in {packets} packets: no offload");
    }
    Ok(())
}

fn one_queue_pair_and_a_small_mtu() -> Result<()> {
    let (said, _) = exchange(&["--tap", "cofftest0,mtu=1280"], &["1"])?;
    ensure!(said.contains("mtu 1280\n") && said.contains("queues 1\n"), "{said}");
    Ok(())
}

/// Bytes and packets of the tap.
struct Card {
    from_guest: (u64, u64),
    to_guest: (u64, u64),
}

/// Boots the guest with `flags` and exchanges bytes with it on each CPU of `masks`, in a network namespace
/// of its own, which ends with the thread; what the guest said, and the tap's counters.
fn exchange(flags: &[&str], masks: &[&str]) -> Result<(String, Card)> {
    // The driver of taps may be a module.
    let _built_in = Command::new("modprobe").arg("tun").status();
    let joined = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
            exchange_here(flags, masks)
        });
        thread.join()
    });
    joined.map_err(|_| anyhow::anyhow!("the case panicked"))?
}

fn exchange_here(flags: &[&str], masks: &[&str]) -> Result<(String, Card)> {
    let directory = tempfile::tempdir()?;
    let (initrd, console) = (directory.path().join("initrd"), directory.path().join("console"));
    fs::write(&initrd, initramfs(masks)?)?;
    let mut command = Command::new("cofferdam-vmm");
    command.args(["boot", "--kernel", KERNEL, "--cmdline", "console=ttyS0 panic=-1 quiet"]);
    command.arg("--initrd").arg(&initrd).arg("--console").arg(&console).args(flags);
    let mut guest = Running(command.stdin(Stdio::null()).spawn().context("starting the monitor")?);
    // A terminal's lines end in two characters.
    let said = || fs::read_to_string(&console).unwrap_or_default().replace('\r', "");
    let result = talk(&mut guest, masks).with_context(|| format!("the guest said: {}", said()))?;
    let status = guest.end(LIMIT)?;
    ensure!(status.is_some_and(|status| status.success()), "{status:?}: {}", said());
    ensure!(said().contains("GUEST DONE"), "{}", said());
    Ok((said(), result))
}

/// The host's side.
fn talk(guest: &mut Running, masks: &[&str]) -> Result<Card> {
    let deadline = Instant::now() + LIMIT;
    while !ip(&["link", "set", "cofftest0", "up"])? {
        ensure!(guest.0.try_wait()?.is_none(), "the monitor ended");
        ensure!(Instant::now() < deadline, "no tap");
        thread::sleep(Duration::from_millis(50));
    }
    ensure!(ip(&["addr", "add", "10.9.0.1/24", "dev", "cofftest0"])?, "no address for the tap");
    let gives = TcpListener::bind("10.9.0.1:5000")?;
    let takes = TcpListener::bind("10.9.0.1:5001")?;
    let mut card = None;
    for round in 0..masks.len() {
        let data = noise(u64::try_from(round)?);
        let mut stream = accept(guest, &gives)?;
        stream.write_all(&data).context("giving bytes to the guest")?;
        stream.shutdown(Shutdown::Write)?;
        same(&mut accept(guest, &takes)?, &data).context("what the guest sent")?;
        // The guest goes on, and in the end switches itself off, when this one is closed.
        let mut offered = connect()?;
        same(&mut offered, &data).context("what the guest offered")?;
        let mut ping = Command::new("busybox");
        ping.args(["ping", "-c", "1", "-W", "60", "10.9.0.2"]).stdout(Stdio::null());
        ensure!(ping.status()?.success(), "no answer to a ping");
        card = Some(counters()?);
    }
    card.context("nothing was exchanged")
}

/// A connection from the guest, which must stay alive.
fn accept(guest: &mut Running, listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.set_write_timeout(Some(LIMIT))?;
            return Ok(stream);
        }
        ensure!(guest.0.try_wait()?.is_none(), "the monitor ended");
        ensure!(Instant::now() < deadline, "no connection from the guest");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A connection to the guest, once it listens.
fn connect() -> Result<TcpStream> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match TcpStream::connect_timeout(&"10.9.0.2:5002".parse()?, LIMIT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(LIMIT))?;
                return Ok(stream);
            }
            Err(error) => ensure!(Instant::now() < deadline, "connecting to the guest: {error}"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// `stream` holds `data` and nothing else.
fn same(stream: &mut TcpStream, data: &[u8]) -> Result<()> {
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    ensure!(got.len() == data.len(), "{} bytes of {}", got.len(), data.len());
    ensure!(got == data, "other bytes than were sent");
    Ok(())
}

/// Bytes without a pattern (xorshift).
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut data = Vec::with_capacity(BULK);
    while data.len() < BULK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend(state.to_le_bytes());
    }
    data
}

fn ip(arguments: &[&str]) -> Result<bool> {
    let done = Command::new("ip").args(arguments).stderr(Stdio::null()).status();
    Ok(done.context("starting ip")?.success())
}

/// What the kernel has counted on the tap; what it receives there is from the guest.
fn counters() -> Result<Card> {
    let table = fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix("cofftest0:"));
    let numbers: Vec<u64> = line
        .context("no tap in the list of devices")?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    ensure!(numbers.len() >= 10, "{table}");
    Ok(Card { from_guest: (numbers[0], numbers[1]), to_guest: (numbers[8], numbers[9]) })
}

/// The guest as an initramfs (`newc`), with a static busybox.
fn initramfs(masks: &[&str]) -> Result<Vec<u8>> {
    let busybox = fs::read(Path::new(ROOTFS).join("bin/busybox")).context("reading busybox")?;
    let mut archive = Vec::new();
    for directory in ["bin", "dev", "proc", "sys"] {
        add(&mut archive, directory, 0o040_755, &[]);
    }
    add(&mut archive, "bin/busybox", 0o100_755, &busybox);
    add(&mut archive, "init", 0o100_755, GUEST.as_bytes());
    add(&mut archive, "masks", 0o100_644, masks.join("\n").as_bytes());
    add(&mut archive, "TRAILER!!!", 0, &[]);
    Ok(archive)
}

fn add(archive: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
    let fields = [0, mode, 0, 0, 1, 0];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    for field in [data.len(), 0, 0, 0, 0, name.len() + 1, 0] {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(data);
    archive.resize(archive.len().next_multiple_of(4), 0);
}
