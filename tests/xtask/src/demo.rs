//! `cargo xtask demo`: a Debian container in a microVM, and how it started.

use std::fs;

use anyhow::{Context, Result, ensure};
use cofferdam_test_harness::host::link::Options;
use cofferdam_test_harness::host::machine::ROOTFS;
use cofferdam_test_harness::host::{SHARE, Setup, TestHost, rootfs};

use crate::artefacts;

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// What runs in the pod, as `/demo.py`.
const SCRIPT: &str = include_str!("demo/demo.py");

/// What the script exits with.
const CODE: i32 = 42;

/// Runs `cargo xtask demo`.
pub(crate) fn run(_args: &Args) -> Result<()> {
    let stage = artefacts::stage()?;
    let files = [("demo.py", SCRIPT)];
    let rootfs = rootfs::get("building a Debian root file system", &["python3"], &files)?;
    let kind = artefacts::kind()?;
    let host = TestHost::get(kind, Setup { stage: Some(stage), rootfs: Some(rootfs), keep: None })?;

    let place = artefacts::target()?.join("cofferdam");
    let share = place.join("demo");
    fs::create_dir_all(&share).with_context(|| format!("creating {}", share.display()))?;
    let command = format!("cofferdam run --rootfs {ROOTFS} -- python3 /demo.py");
    println!("\n$ echo 'a line from outside' | {command}");
    let options = format!("--timeline {SHARE}/demo.svg --timeline {SHARE}/demo.txt");
    let line = format!(
        "echo 'a line from outside' | {}",
        command.replacen("cofferdam run", &format!("cofferdam run {options}"), 1)
    );
    let argv = ["sh", "-c", &line].map(str::to_owned);
    let status = host.run(&argv, &Options::default(), Some(&share))?;
    drop(host);
    println!("$ echo $?\n{}", status.code().unwrap_or(-1));
    ensure!(status.code() == Some(CODE), "the demo ended with {status}, not with code {CODE}");

    let text = share.join("demo.txt");
    let text = fs::read_to_string(&text).with_context(|| format!("reading {}", text.display()))?;
    println!("\nHow the pod started:\n{text}");
    let drawing = place.join("demo.svg");
    fs::copy(share.join("demo.svg"), &drawing)
        .with_context(|| format!("writing {}", drawing.display()))?;
    println!("The same as a drawing: {}", drawing.display());
    Ok(())
}
