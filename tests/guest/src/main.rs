//! A static init for monitor-level tests. What it does is chosen on the kernel's command line:
//!
//! | `test.action=` | it | takes |
//! |---|---|---|
//! | `poweroff` | powers off | |
//! | `reboot` | reboots | |
//! | `panic` | ends, at which the kernel panics (with `panic=-1` it reboots, after the notifier) | |
//! | `triple-fault` | reboots by a triple fault; needs `reboot=t` | |
//! | `print` | prints the machine: kernel, cpus, memory, pci, disks, rng | |
//! | `disk` | prints the sum of each disk, writes a pattern and reads it back | `bytes`, `disks` |
//! | `vsock-echo` | accepts connections and echoes | `port`, `count` |
//! | `vsock-connect` | opens connections to an echo of the host, all at once | `port`, `count` |
//! | `vsock-bulk` | sends much to an echo of the host, and checks what returns | `port`, `bytes` |
//! | `vsock-refused` | connects to a port of the host where nobody listens | `port` |
//! | `load-disk`, `load-net`, `load-vsock` | puts load on a device, in phases that the host measures | |
//! | `flood` | prints numbered lines | `bytes` |
//! | `future-agent` (or no word at all) | greets the supervisor as an agent of a protocol to come | |
//! | `dying-agent` | greets the supervisor as an agent would, and ends when it is asked to create a container | `protocol` |
//! | `wait` | prints `READY` and waits for ever | |
//!
//! The parameters are words such as `test.port=5000`. Where nobody chooses the command line, they are in a file `/words`
//! of the initramfs. The last line is `TEST OK` or
//! `TEST FAILED: why`; then it powers off, unless the action ends the machine in another way.
//!
//! Invariant: whatever fails, the machine ends, and its console says why.
#![forbid(unsafe_code)]

mod console;
mod disk;
mod load;
mod netlink;
mod power;
mod print;
mod system;
mod vsock;
mod words;

use std::error::Error;

use crate::words::Words;

/// How an action ends.
type Outcome = Result<(), Box<dyn Error>>;

fn main() {
    let result = system::prepare().and_then(|()| run());
    match &result {
        Ok(()) => println!("TEST OK"),
        Err(error) => println!("TEST FAILED: {error}"),
    }
    console::drain();
    let action = Words::read().ok().and_then(|words| words.text("action").map(str::to_owned));
    power::end(if result.is_ok() { action.as_deref() } else { None });
}

fn run() -> Outcome {
    let words = Words::read()?;
    match words.text("action").unwrap_or("future-agent") {
        "poweroff" | "reboot" | "panic" => Ok(()),
        "triple-fault" => power::check_triple_fault(&words),
        "print" => print::machine(),
        "disk" => disk::exercise(&words),
        "vsock-echo" => vsock::echo(&words),
        "vsock-connect" => vsock::connect_many(&words),
        "vsock-bulk" => vsock::bulk(&words),
        "load-disk" => load::disk(),
        "load-net" => load::net(),
        "load-vsock" => load::vsock(),
        "vsock-refused" => vsock::refused(&words),
        "future-agent" => vsock::future_agent(),
        "dying-agent" => vsock::dying_agent(&words),
        "flood" => console::flood(words.number("bytes", 1 << 20)?),
        "wait" => power::wait(),
        other => Err(format!("no such action: {other}").into()),
    }
}
