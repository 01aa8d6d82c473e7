//! `cargo xtask bench`: how a machine starts, in instructions of a host that counts them, and what its devices cost, in
//! exits and system calls.
//!
//! ```text
//! Plan ──measuring host──► Measured of each run ──► Report ──► table, JSON, drawing; and whether promises are kept
//! ```
//!
//! Invariant: nothing is taken from an earlier run, and a promise that is not kept is an error.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use cofferdam_rootfs_builder::initramfs;
use cofferdam_test_bench::{Device, Measured, Plan, place};
use cofferdam_test_harness::host::measuring;
use cofferdam_test_harness::host::stage::Stage;

use crate::kernel::Variant;
use crate::{artefacts, image, kernel};

mod draw;
mod loads;
mod oci;
mod report;
mod runs;

use report::Report;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Clone, Copy, Subcommand)]
pub(crate) enum Task {
    /// From the monitor's exec to the agent's hello, beside QEMU's machine microvm.
    Boot(Output),
    /// Exits and system calls of reads and writes of a disk.
    Disk(Output),
    /// Exits and system calls of what goes through a network card.
    Net(Output),
    /// Exits and system calls of what goes over vsock.
    Vsock(Output),
    /// Create, start and delete of a container in a pod, beside runc.
    Oci(Output),
}

#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Output {
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// What measures a promise.
pub(crate) const PROMISED: [Task; 3] = {
    let output = Output { json: false };
    [Task::Boot(output), Task::Disk(output), Task::Oci(output)]
};

/// Runs `cargo xtask bench`.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.task {
        Task::Boot(output) => boot(output.json),
        Task::Disk(output) => load(Device::Disk, output.json),
        Task::Net(output) => load(Device::Net, output.json),
        Task::Vsock(output) => load(Device::Vsock, output.json),
        Task::Oci(output) => containers(output.json),
    }
}

fn boot(json: bool) -> Result<()> {
    let image = image::build()?;
    let stage = Stage::new()?;
    add_machines(&stage, &runs::plan())?;
    stage.add(&image.initramfs, place::INITRAMFS)?;
    let text = measuring::measure(&stage)?;
    let measured = parse(&text)?;
    let report = Report::new(&measured)?;
    let directory = artefacts::target()?.join("cofferdam");
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let drawing = directory.join("bench-boot.svg");
    fs::write(&drawing, draw::draw(&measured))
        .with_context(|| format!("writing {}", drawing.display()))?;
    show(&report, json)?;
    eprintln!("drawing: {}", drawing.display());
    kept(&report.broken())
}

/// Measures what load on `device` costs.
fn load(device: Device, json: bool) -> Result<()> {
    let stage = Stage::new()?;
    add_machines(&stage, &Plan { loads: vec![device], ..Plan::default() })?;
    let (_, guest) = image::build_static("cofferdam-test-guest")?;
    let bytes = fs::read(&guest).with_context(|| format!("reading {}", guest.display()))?;
    let file = stage.tree().join(place::LOAD.trim_start_matches('/'));
    fs::write(&file, initramfs::build(&bytes)?)
        .with_context(|| format!("writing {}", file.display()))?;
    let report = loads::Report::new(&measuring::measure(&stage)?)?;
    show(&report, json)?;
    kept(&match device {
        Device::Disk => report.broken(),
        Device::Net | Device::Vsock => report.missing(),
    })
}

/// An error that says which promises are `broken`, if any is.
fn kept(broken: &[String]) -> Result<()> {
    if !broken.is_empty() {
        bail!("beyond what SPECIFICATION.md promises:\n  {}", broken.join("\n  "));
    }
    Ok(())
}

/// Measures what a container in a pod costs.
fn containers(json: bool) -> Result<()> {
    let stage = artefacts::stage()?;
    add_program(&stage, &Plan { rounds: oci::ROUNDS, ..Plan::default() })?;
    let report = oci::Report::new(&measuring::measure(&stage)?)?;
    show(&report, json)?;
    kept(&report.broken())
}

/// Prints a report; as JSON, with the table on standard error.
fn show(report: &(impl serde::Serialize + std::fmt::Display), json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
        eprintln!("{report}");
    } else {
        println!("{report}");
    }
    Ok(())
}

/// Adds what machines are made of, but for the guest's image, and the measuring program.
fn add_machines(stage: &Stage, plan: &Plan) -> Result<()> {
    let kernel = kernel::build(Variant::Default, None)?;
    let target = artefacts::cargo_build(&["cofferdam-vmm"])?;
    stage.add(&target.join("cofferdam-vmm"), place::MONITOR)?;
    stage.add(&kernel.join("vmlinux"), place::KERNEL)?;
    add_program(stage, plan)
}

/// Adds the measuring program and what it measures.
fn add_program(stage: &Stage, plan: &Plan) -> Result<()> {
    let target = artefacts::cargo_build(&["cofferdam-test-bench"])?;
    stage.add(&target.join("cofferdam-test-bench"), place::MEASURE)?;
    let file = stage.tree().join(place::PLAN.trim_start_matches('/'));
    fs::write(&file, serde_json::to_vec(plan)?)
        .with_context(|| format!("writing {}", file.display()))
}

/// What came out of each run, by its name; a name that occurs again has several.
fn parse(text: &str) -> Result<BTreeMap<String, Vec<Measured>>> {
    let mut all: BTreeMap<String, Vec<Measured>> = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let measured: Measured = serde_json::from_str(line)
            .with_context(|| format!("what the measuring program printed: {line:.80}"))?;
        all.entry(measured.name.clone()).or_default().push(measured);
    }
    Ok(all)
}
