//! The one developer entry point: `cargo xtask demo`, `test`, `conformance`, `bench`, `fuzz`, `kernel`, `image`, `host`, `check`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod artefacts;
mod bench;
mod check;
mod conformance;
mod demo;
mod fuzz;
mod host;
mod image;
mod kernel;
mod test;

/// Builds, tests and shows Cofferdam.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs a Debian container in a microVM and shows how it started.
    Demo(demo::Args),
    /// Runs all tests: unit, KVM-level and end-to-end; with --measure also the numbers that are promised.
    Test(test::Args),
    /// Runs the tests that runc, crun and podman come with, with runc and with cofferdam.
    Conformance(conformance::Args),
    /// Measures how a machine starts, beside QEMU's, and what its devices cost.
    Bench(bench::Args),
    /// Fuzzes what guests write.
    Fuzz(fuzz::Args),
    /// Builds the guest kernel.
    Kernel(kernel::Args),
    /// Builds the guest image (the initramfs with the agent).
    Image(image::Args),
    /// Runs commands in the KVM test host.
    Host(host::Args),
    /// Checks formatting, lints, dependencies and the invariants of ARCHITECTURE.md.
    Check(check::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Conformance(args) => conformance::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Kernel(args) => kernel::run(&args),
        Task::Image(args) => image::run(&args),
        Task::Host(args) => host::run(&args),
        Task::Check(args) => check::run(&args),
    }
}
