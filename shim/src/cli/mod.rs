//! The command line.
//!
//! Invariant: parsing and printing only; what a command does is elsewhere.

mod rootfs;
mod run;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::logging::{self, Format};
use crate::oci::default_spec_text;
use crate::{config, doctor};

/// Runs OCI containers, each pod in its own minimal virtual machine.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", disable_version_flag = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    /// Print the versions of cofferdam and of the OCI runtime specification
    #[arg(short, long)]
    version: bool,
    #[command(subcommand)]
    command: Option<Commands>,
}

/// Options of every command, as runc has them.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Directory of the state of living pods
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/cofferdam")]
    root: PathBuf,
    /// Write the log to FILE instead of standard error
    #[arg(long, global = true, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Format of the log
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: Format,
    /// Log more
    #[arg(long, global = true)]
    debug: bool,
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = config::CONFIG)]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Run a container and wait for its end
    ///
    /// Either from an OCI bundle:
    ///     cofferdam run [--bundle DIR] ID
    /// or from a root file system alone:
    ///     cofferdam run --rootfs DIR -- COMMAND...
    ///
    /// Standard input, output and error are the container's, or its terminal is. Signals are passed on.
    /// The exit code is that of the container, or 128 and the number of the signal that ended it; 127 if
    /// the command does not exist, 126 if it cannot be executed, 1 for other failures.
    #[command(verbatim_doc_comment)]
    Run(Box<run::Run>),
    /// Write a config.json to start from
    Spec {
        /// Directory to write it into
        #[arg(short, long, value_name = "DIR", default_value = ".")]
        bundle: PathBuf,
    },
    /// Say what this host lacks to run pods, and how to get it
    Doctor,
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    crate::sys::keep_descriptors_private();
    let mut timeline = crate::timeline::Timeline::default();
    timeline.reach(crate::timeline::PodStage::SupervisorStarted);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::from(error.use_stderr());
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    if cli.version {
        return print(&version());
    }
    let global = cli.global;
    let result = logging::init(global.log.as_deref(), global.log_format, global.debug)
        .map_err(anyhow::Error::from)
        .and_then(|()| match cli.command {
            None => bail!("no command; see cofferdam --help"),
            Some(Commands::Run(run)) => run.execute(&global, timeline),
            Some(Commands::Spec { bundle }) => write_spec(&bundle).map(|()| 0),
            Some(Commands::Doctor) => Ok(doctor::run(&global.config, &global.root)),
        });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            fail(&global, &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Says why a command failed: on standard error, and in the log if that is a file.
pub(crate) fn fail(global: &Global, message: &str) {
    if global.log.is_some() {
        tracing::error!("{message}");
    }
    eprintln!("cofferdam: {message}");
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn version() -> String {
    format!(
        "cofferdam version {}\nspec: 1.2.0\nagent protocol: {}\nmonitor interface: {}\n",
        env!("CARGO_PKG_VERSION"),
        cofferdam_agent_protocol::PROTOCOL_VERSION,
        cofferdam_vmm_api::API_VERSION,
    )
}

/// Like runc, never overwrites a file.
fn write_spec(bundle: &std::path::Path) -> Result<()> {
    let path = bundle.join("config.json");
    let file = std::fs::File::options().write(true).create_new(true).open(&path);
    let write = |mut file: std::fs::File| file.write_all(default_spec_text().as_bytes());
    file.and_then(write).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
#[path = "cli_test.rs"]
mod cli_test;
