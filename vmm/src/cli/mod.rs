//! The command line.
//!
//! Invariant: only what is read here opens files by path; the machine itself gets descriptors.

pub(crate) mod boot;
mod bridge;
pub(crate) mod exit;
mod files;
pub(crate) mod serve;
mod tap;
mod vsock;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Runs a virtual machine. Without a command: serves the control socket on standard input.
#[derive(Debug, Parser)]
#[command(name = "cofferdam-vmm", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Boot a machine by hand and wait until it ends.
    ///
    /// Exit code: 0 powered off, 1 could not be built, 2 usage, 3 rebooted, 4 kernel panic, 5 triple fault,
    /// 6 monitor or hypervisor failed, 130 stopped by a signal.
    Boot(BootArgs),
}

/// What to boot.
#[derive(Debug, Args)]
pub(crate) struct BootArgs {
    /// ELF vmlinux or bzImage.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: PathBuf,
    /// Initramfs.
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// Kernel command line.
    #[arg(long, default_value = "console=ttyS0 panic=-1", value_name = "TEXT")]
    pub(crate) cmdline: String,
    /// A disk: a raw file or block device; `:ro` for read-only. Repeatable; they appear in this order.
    #[arg(long = "disk", value_name = "PATH[:ro]")]
    pub(crate) disks: Vec<String>,
    /// A network card: a tap, which is made if there is none. MTU is what the guest is told. Repeatable.
    #[arg(long = "tap", value_name = "NAME[,mac=M][,queues=N][,mtu=N]")]
    pub(crate) taps: Vec<tap::TapArg>,
    /// Virtual CPUs.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) cpus: u8,
    /// Most virtual CPUs: those beyond the others are parked until the guest brings them online.
    #[arg(long, value_name = "N")]
    pub(crate) max_cpus: Option<u8>,
    /// Memory: MiB, or with a suffix M or G.
    #[arg(long, default_value = "256", value_parser = parse_memory, value_name = "SIZE")]
    pub(crate) memory: u32,
    /// All memory in pages of 2 MiB, where the host has them: faster, and more of it taken.
    #[arg(long)]
    pub(crate) hugepages: bool,
    /// A vsock device. A program of the host connects to PATH and writes `CONNECT <port>`; the guest's own
    /// connections to port P go to PATH_P.
    #[arg(long, value_name = "PATH")]
    pub(crate) vsock: Option<PathBuf>,
    /// Where the serial console goes: a file, `-` for standard output, or `none` for no serial port.
    #[arg(long, default_value = "-", value_name = "FILE")]
    pub(crate) console: String,
    /// Write what the machine counted to FILE as JSON, when it ends and at each SIGUSR1.
    #[arg(long, value_name = "FILE")]
    pub(crate) metrics: Option<PathBuf>,
    /// Print when each stage was reached.
    #[arg(long)]
    pub(crate) timing: bool,
}

/// Mebibytes from `512`, `512M` or `1G`.
fn parse_memory(text: &str) -> Result<u32, String> {
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 'm' | 'M')) => (&text[..at], 1),
        Some((at, 'g' | 'G')) => (&text[..at], 1024),
        _ => (text, 1),
    };
    let count: u32 = digits.parse().map_err(|_| "expected a number of MiB, or 512M, or 1G")?;
    count.checked_mul(factor).ok_or_else(|| "too much".to_owned())
}

#[cfg(test)]
#[path = "cli_test.rs"]
mod cli_test;
