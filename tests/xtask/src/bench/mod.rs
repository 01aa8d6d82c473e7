//! `cargo xtask bench`: how a machine starts, in instructions of a host that counts them.
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
use cofferdam_test_bench::{Measured, place};
use cofferdam_test_harness::host::measuring;
use cofferdam_test_harness::host::stage::Stage;

use crate::kernel::Variant;
use crate::{artefacts, image, kernel};

mod draw;
mod report;
mod runs;

use report::Report;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// From the monitor's exec to the agent's hello, beside QEMU's machine microvm.
    Boot {
        /// Print the figures as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs `cargo xtask bench`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Task::Boot { json } = args.task;
    let stage = stage()?;
    let text = measuring::measure(&stage)?;
    let measured = parse(&text)?;
    let report = Report::new(&measured)?;
    let directory = artefacts::target()?.join("cofferdam");
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let drawing = directory.join("bench-boot.svg");
    fs::write(&drawing, draw::draw(&measured))
        .with_context(|| format!("writing {}", drawing.display()))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        eprintln!("{report}");
    } else {
        println!("{report}");
    }
    eprintln!("drawing: {}", drawing.display());
    let broken = report.broken();
    if !broken.is_empty() {
        bail!("beyond what SPECIFICATION.md promises:\n  {}", broken.join("\n  "));
    }
    Ok(())
}

/// The measuring program, what it measures, and the plan.
fn stage() -> Result<Stage> {
    let kernel = kernel::build(Variant::Default, None)?;
    let image = image::build()?;
    let target = artefacts::cargo_build(&["cofferdam-vmm", "cofferdam-test-bench"])?;
    let stage = Stage::new()?;
    stage.add(&target.join("cofferdam-test-bench"), place::MEASURE)?;
    stage.add(&target.join("cofferdam-vmm"), place::MONITOR)?;
    stage.add(&kernel.join("vmlinux"), place::KERNEL)?;
    stage.add(&image.initramfs, place::INITRAMFS)?;
    let file = stage.tree().join(place::PLAN.trim_start_matches('/'));
    fs::write(&file, serde_json::to_vec(&runs::plan())?)
        .with_context(|| format!("writing {}", file.display()))?;
    Ok(stage)
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
