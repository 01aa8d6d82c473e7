//! `cargo xtask host`: the KVM test host by hand.

use std::io::{IsTerminal, stdin, stdout};
use std::path::PathBuf;
use std::process::ExitStatus;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use cofferdam_test_harness::host::link::Options;
use cofferdam_test_harness::host::machine::Machine;
use cofferdam_test_harness::host::{Setup, TestHost, rootfs};

use crate::artefacts;

/// Arguments of `cargo xtask host`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Task,
    /// Which of several emulated hosts, if more than one is kept.
    #[arg(long, global = true, default_value = "default", value_name = "NAME")]
    name: String,
    /// Install nothing: neither build nor copy the binaries, the kernel and the guest image.
    #[arg(long, global = true)]
    bare: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Starts a host that keeps running; on one that runs, installs what was built since.
    Up,
    /// Stops it and throws its disk away.
    Down,
    /// Runs a command in it, or in one started for the purpose.
    Run {
        /// Show this directory at /mnt/share; what the command changes or adds there comes back.
        #[arg(long, value_name = "DIR")]
        share: Option<PathBuf>,
        /// Leave the host running.
        #[arg(long)]
        keep: bool,
        /// Never give the command a terminal, even if there is one.
        #[arg(long)]
        no_tty: bool,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// A shell in it.
    Shell,
    /// Says whether it runs.
    Status,
}

/// Runs `cargo xtask host`.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Task::Up => {
            if let TestHost::Emulated(machine) = start(args, true)? {
                println!("the test host runs; its state is in {}", machine.dir().display());
            } else {
                println!("this machine is the test host");
            }
            Ok(())
        }
        Task::Down => down(&args.name),
        Task::Status => status(&args.name),
        Task::Run { share, keep, no_tty, command } => {
            let host = start(args, *keep)?;
            let tty = !no_tty && stdin().is_terminal() && stdout().is_terminal();
            let options = Options { tty, ..Options::default() };
            let status = host.run(command, &options, share.as_deref())?;
            drop(host);
            leave(status)
        }
        Task::Shell => {
            let host = start(args, false)?;
            let options = Options { tty: stdin().is_terminal(), ..Options::default() };
            let status = host.run(&["bash".to_owned(), "-l".to_owned()], &options, None)?;
            drop(host);
            leave(status)
        }
    }
}

/// The host that runs under the name given, or a new one.
fn start(args: &Args, keep: bool) -> Result<TestHost> {
    let stage = (!args.bare).then(artefacts::stage).transpose()?;
    let kind = artefacts::kind()?;
    let keep = (keep || Machine::find(&args.name)?.is_some()).then(|| args.name.clone());
    let rootfs = (!args.bare).then(rootfs::for_tests).transpose()?;
    TestHost::get(kind, Setup { stage, rootfs, keep })
}

fn down(name: &str) -> Result<()> {
    match Machine::find(name)? {
        Some(mut machine) => machine.stop(),
        None => println!("no test host runs"),
    }
    Ok(())
}

fn status(name: &str) -> Result<()> {
    let Some(machine) = Machine::find(name)? else {
        println!("no test host runs");
        return Ok(());
    };
    println!("the test host runs; its state is in {}", machine.dir().display());
    machine.connect()?;
    print!("{}", machine.read("uptime; ls -l /dev/kvm /usr/local/bin /usr/lib/cofferdam")?);
    Ok(())
}

/// Ends this process as the command ended.
fn leave(status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    match status.code().context("the command was ended by a signal") {
        Ok(code) => std::process::exit(code),
        Err(error) => bail!(error),
    }
}
