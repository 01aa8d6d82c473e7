//! `cargo xtask check`: formatting, lints, documentation, and the invariants of ARCHITECTURE.md as code.
//!
//! Invariant: each check stands for itself. One that fails says what to do and does not stop the others.

use std::process::Command;

use anyhow::{Context, Result, bail};
use cofferdam_test_harness::tools::cache;

use crate::artefacts::{cargo, root};

mod crates;
mod devices;
mod source;

/// Arguments of `cargo xtask check`.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Only the checks whose name contains one of these.
    filter: Vec<String>,
}

/// What a check found.
enum Finding {
    Nothing,
    /// One line for each fault.
    Faults(Vec<String>),
    /// Why the check could not be made.
    Skipped(String),
}

impl From<Vec<String>> for Finding {
    fn from(faults: Vec<String>) -> Self {
        if faults.is_empty() { Self::Nothing } else { Self::Faults(faults) }
    }
}

/// One check.
struct Check {
    name: &'static str,
    /// What to do when it fails.
    advice: &'static str,
    run: fn() -> Result<Finding>,
}

/// All checks, quick ones first.
const CHECKS: &[Check] = &[
    Check { name: "fmt", advice: "run `cargo fmt --all`", run: fmt },
    Check {
        name: "file-length",
        advice: "split the file by purpose: at most 500 lines, tests in foo_test.rs",
        run: || Ok(source::lengths(&source::all()?).into()),
    },
    Check {
        name: "module-docs",
        advice: "open the file with `//!`: its purpose and its invariant",
        run: || Ok(source::module_docs(&source::all()?).into()),
    },
    Check {
        name: "devices-without-kvm",
        advice: "vmm/devices asks for what it needs through its ports; vmm implements them over vmm/hv",
        run: || Ok(source::naming(&source::all()?, "vmm/devices/", "kvm").into()),
    },
    Check {
        name: "hv-without-virtio",
        advice: "what knows of virtio belongs into vmm/devices or vmm",
        run: || Ok(source::naming(&source::all()?, "vmm/hv/", "virtio").into()),
    },
    Check {
        name: "agent-without-json",
        advice: "the supervisor turns JSON into plans; the guest gets protocol messages",
        run: || Ok(source::naming(&source::all()?, "agent/", "json").into()),
    },
    Check {
        name: "unsafe",
        advice: "use a safe wrapper, or add the file to ALLOWED in check/source.rs with its reason",
        run: || {
            let files = source::all()?;
            let faults = [source::unsafe_code(&files), source::unused_allowances(&files)];
            Ok(faults.concat().into())
        },
    },
    Check {
        name: "own-paths",
        advice: "a file must not name the place of this checkout",
        run: || Ok(source::own_paths(&root())?.into()),
    },
    Check {
        name: "crates",
        advice: "see the table of crates in ARCHITECTURE.md and check/crates.rs",
        run: || Ok(crates::directions()?.into()),
    },
    Check {
        name: "unused-dependencies",
        advice: "remove the line from the crate's Cargo.toml",
        run: || Ok(crates::unused(&source::all()?)?.into()),
    },
    Check {
        name: "devices",
        advice: "guest-kernel-config/devices.toml lists each device with the options of its driver, all =y",
        run: || Ok(devices::drivers()?.into()),
    },
    Check { name: "clippy", advice: "mend what clippy says above", run: clippy },
    Check { name: "doc", advice: "mend what rustdoc says above", run: doc },
    Check { name: "deny", advice: "see deny.toml", run: deny },
];

/// Runs `cargo xtask check`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let chosen = |check: &&Check| {
        args.filter.is_empty() || args.filter.iter().any(|part| check.name.contains(part))
    };
    let checks: Vec<&Check> = CHECKS.iter().filter(chosen).collect();
    if checks.is_empty() {
        let names: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
        bail!("no such check; there are: {}", names.join(", "));
    }
    let failed = checks.into_iter().filter(|check| !passes(check)).count();
    if failed > 0 {
        bail!("{failed} checks failed");
    }
    Ok(())
}

/// Makes a check and prints its line.
fn passes(check: &Check) -> bool {
    let faults = match (check.run)() {
        Ok(Finding::Nothing) => {
            println!("ok      {}", check.name);
            return true;
        }
        Ok(Finding::Skipped(why)) => {
            println!("SKIPPED {}: {why}", check.name);
            return true;
        }
        Ok(Finding::Faults(faults)) => faults,
        Err(error) => vec![format!("{error:#}")],
    };
    println!("FAILED  {}: {}", check.name, check.advice);
    for fault in faults {
        println!("          {}", fault.replace('\n', "\n          "));
    }
    false
}

fn fmt() -> Result<Finding> {
    let output = cargo().args(["fmt", "--all", "--check", "--", "--files-with-diff"]).output();
    let output = output.context("starting cargo fmt")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut files: Vec<String> = text.lines().map(str::to_owned).collect();
    if !output.status.success() && files.is_empty() {
        files.push(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(files.into())
}

fn clippy() -> Result<Finding> {
    let mut command = cargo();
    command.args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    visibly(&mut command)
}

fn doc() -> Result<Finding> {
    let mut command = cargo();
    command.args(["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"]);
    visibly(command.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Licences, sources and versions of what we depend on; known vulnerabilities where the network allows.
fn deny() -> Result<Finding> {
    let present = cargo().args(["deny", "--version"]).output().context("starting cargo")?;
    if !present.status.success() {
        return Ok(Finding::Skipped("cargo-deny is missing: cargo install cargo-deny".to_owned()));
    }
    let mut command = cargo();
    command.args(["deny", "--log-level", "error", "check", "licenses", "bans", "sources"]);
    let faults = visibly(&mut command)?;
    if matches!(faults, Finding::Faults(_)) {
        return Ok(faults);
    }
    let log = cache::root().join("logs/advisories.log");
    let fetched = cargo().args(["deny", "fetch", "db"]).output().context("starting cargo deny")?;
    if !fetched.status.success() {
        let text = [fetched.stdout, fetched.stderr].concat();
        std::fs::write(&log, text).with_context(|| format!("writing {}", log.display()))?;
        return Ok(Finding::Skipped(format!(
            "licenses, bans, sources are ok; the advisory database cannot be fetched, see {}",
            log.display()
        )));
    }
    let mut command = cargo();
    visibly(command.args(["deny", "--log-level", "error", "check", "advisories"]))
}

/// Runs a command whose own output says what is wrong.
fn visibly(command: &mut Command) -> Result<Finding> {
    let status =
        command.status().with_context(|| format!("starting {:?}", command.get_program()))?;
    Ok(if status.success() { Finding::Nothing } else { Finding::Faults(Vec::new()) })
}
