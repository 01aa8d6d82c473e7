//! Fuzz targets: one for everything that a guest, or a monitor that a guest has taken over, can write, and one
//! for what an engine does.
//!
//! A target is a function of bytes that returns if all is well and panics if not. `cargo xtask fuzz` runs
//! it under libFuzzer; `cargo test` runs it for every file of its corpus in `corpus/NAME`, so that what
//! was found once stays found. A device needs an entry in [`TARGETS`], a [`devices::Subject`] of a few
//! lines, and a file in `fuzz_targets` and `Cargo.toml`.
//!
//! Invariants of every target: nothing panics on any thread; memory is bounded ([`MEMORY_LIMIT`]); work is
//! bounded ([`quiet::PATIENCE`]).
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a target reports by a panic"
)]
#![allow(clippy::cast_possible_truncation, reason = "fuzzers' numbers are cut on purpose")]

use std::alloc::System;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use cap::Cap;

pub mod agent;
pub mod balloon;
pub mod boot;
pub mod control;
pub mod devices;
pub mod driver;
pub mod fs;
pub mod input;
pub mod memory;
pub mod net;
pub mod oci;
pub mod pci;
pub mod quiet;
pub mod virtio;
pub mod vsock;
pub mod world;

/// What our own code may allocate in all, in bytes; more of it ends the process.
pub const MEMORY_LIMIT: usize = 256 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MEMORY_LIMIT);

/// Bytes that are allocated now.
#[must_use]
pub fn allocated() -> usize {
    ALLOCATOR.allocated()
}

/// What libFuzzer calls, if it is there.
#[cfg(fuzzing)]
pub use libfuzzer_sys;

/// A target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, that of its corpus and that of its binary.
    pub name: &'static str,
    /// Panics if something is wrong.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "pci_config", run: pci::run },
    Target { name: "virtio_block", run: |data| virtio::run(&devices::BLOCK, data) },
    Target { name: "virtio_mem", run: |data| virtio::run(&memory::MEM, data) },
    Target { name: "virtio_rng", run: |data| virtio::run(&devices::RNG, data) },
    Target { name: "virtio_vsock", run: |data| virtio::run(&devices::VSOCK, data) },
    Target { name: "virtio_net", run: |data| virtio::run(&net::NET, data) },
    Target { name: "virtio_balloon", run: |data| virtio::run(&balloon::BALLOON, data) },
    Target { name: "virtio_fs", run: |data| virtio::run(&fs::FS, data) },
    Target { name: "vsock_packets", run: vsock::run },
    Target { name: "control_messages", run: control::run },
    Target { name: "agent_frames", run: agent::run },
    Target { name: "boot_images", run: boot::run },
    Target { name: "oci_plan", run: oci::run },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Target {
    *TARGETS.iter().find(|target| target.name == name).expect("no such target")
}

/// The directory of all corpora.
#[must_use]
pub fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// Set by the first panic of any thread: a worker's panic would otherwise end just that thread.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Runs `target` once.
pub fn run(target: Target, data: &[u8]) {
    static HOOK: Once = Once::new();
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.store(true, Ordering::SeqCst);
            before(info);
        }));
    });
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    PANICKED.store(false, Ordering::SeqCst);
    (target.run)(data);
    assert!(!PANICKED.load(Ordering::SeqCst), "{}: a thread panicked", target.name);
}

/// Runs the target called `name` for each file named on the command line.
pub fn main(name: &str) {
    let target = target(name);
    for file in std::env::args_os().skip(1) {
        let data = std::fs::read(&file).expect("reading an input");
        println!("{name}: {} ({} bytes)", file.display(), data.len());
        run(target, &data);
    }
}

/// The binary of a target.
#[macro_export]
macro_rules! binary {
    ($name:literal) => {
        #[cfg(fuzzing)]
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::run($crate::target($name), data));

        #[cfg(not(fuzzing))]
        fn main() {
            $crate::main($name);
        }
    };
}

#[cfg(test)]
mod replay_test;
