//! The command line.
//!
//! Invariant: parsing and printing only; what a command does is elsewhere.

mod common;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod freeze;
mod install;
mod layout;
mod manual;
mod ps;
mod rootfs;
mod run;
mod show;
mod update;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::logging::{self, Format};
use crate::oci::{default_spec_text, rootless_spec_text};
use crate::run::Options;
use crate::{config, doctor, supervisor};

/// Open Container Initiative runtime that runs each pod in its own minimal virtual machine
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
    /// Take linux.cgroupsPath as SLICE:PREFIX:NAME, as systemd has it
    #[arg(long, global = true)]
    systemd_cgroup: bool,
    /// Accepted as runc has it: true, false or auto
    #[arg(long, value_name = "VALUE", hide = true)]
    rootless: Option<String>,
    /// Accepted as runc has it: checkpoints are not supported yet
    #[arg(long, value_name = "PATH", hide = true)]
    criu: Option<PathBuf>,
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE", default_value_os_t = config::usual())]
    config: PathBuf,
}

impl Global {
    /// What a creation of the container `id` is asked for, before its own options.
    pub(crate) fn options(&self, id: String) -> Options {
        let mut global: Vec<OsString> = vec!["--root".into(), absolute(&self.root).into()];
        if let Some(log) = &self.log {
            let format = if self.log_format == Format::Json { "json" } else { "text" };
            global.extend(["--log".into(), absolute(log).into()]);
            global.extend(["--log-format".into(), format.into()]);
        }
        if self.debug {
            global.push("--debug".into());
        }
        Options {
            id,
            root: self.root.clone(),
            console_log: None,
            pid_file: None,
            console_socket: None,
            pidfd_socket: None,
            detached: false,
            streams: None,
            keep: false,
            systemd: self.systemd_cgroup,
            global,
        }
    }
}

/// `path` for a process whose working directory is another.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
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
    /// Create a container
    Create(create::CreateArgs),
    /// Start a container that was created
    Start {
        /// The container
        id: String,
    },
    /// Run one more process in a container
    Exec(Box<exec::Exec>),
    /// Print the state of a container
    State {
        /// The container
        id: String,
    },
    /// Send a signal to the first process of a container
    Kill {
        /// Send it to every process of the container
        #[arg(short, long)]
        all: bool,
        /// The container
        id: String,
        /// The signal, by name or number
        #[arg(default_value = "SIGTERM")]
        signal: String,
    },
    /// Delete a container that has ended
    Delete {
        /// Kill it first
        #[arg(short, long)]
        force: bool,
        /// The container
        id: String,
    },
    /// List the containers
    #[command(visible_alias = "ls")]
    List {
        /// How it looks
        #[arg(short, long, value_enum, default_value = "table")]
        format: show::Format,
        /// Only ids
        #[arg(short, long)]
        quiet: bool,
    },
    /// List the processes of a container
    Ps(ps::Ps),
    /// Pause a container
    Pause {
        /// The container
        id: String,
    },
    /// Have a paused container go on
    Resume {
        /// The container
        id: String,
    },
    /// Change the resources of a container
    Update(Box<update::Update>),
    /// Print the accounting of a container, and when it runs out of memory
    Events(events::Events),
    /// Print what this runtime can do, as JSON
    Features,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages
    Man {
        /// The directory for them
        #[arg(default_value = ".")]
        directory: PathBuf,
    },
    /// Not supported yet
    #[command(hide = true)]
    Checkpoint(Anything),
    /// Not supported yet
    #[command(hide = true)]
    Restore(Anything),
    /// What owns a pod; started by the other commands
    #[command(hide = true)]
    Supervisor(supervisor::Places),
    /// Write a config.json to start from
    Spec {
        /// Directory to write it into
        #[arg(short, long, value_name = "DIR", default_value = ".")]
        bundle: PathBuf,
        /// For a user without privileges: a user namespace, and the network of the pod
        #[arg(long = "rootless")]
        for_user: bool,
    },
    /// Say what this host lacks to run pods, and how to get it
    Doctor,
    /// Place the files of this release below a prefix, and add the runtime to containerd's configuration
    ///
    /// What is there already stays; what was placed before is replaced while pods run on. A changed configuration is kept.
    Install(install::Install),
    /// Remove what `install` has placed, and nothing else
    Uninstall(install::Uninstall),
}

/// Arguments that do not matter.
#[derive(Debug, Args)]
struct Anything {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    crate::sys::keep_descriptors_private();
    crate::sys::use_every_cpu();
    let mut timeline = crate::timeline::Timeline::default();
    timeline.reach(crate::timeline::PodStage::SupervisorStarted);
    let program = layout::program(std::env::args_os().next());
    let command = layout::laid_out(Cli::command(), &program);
    let parsed = command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    if cli.version {
        return print(&layout::version(&program));
    }
    let global = cli.global;
    let result = logging::init(global.log.as_deref(), global.log_format, global.debug)
        .map_err(|error| (error.into(), 1))
        .and_then(|()| execute(cli.command, &global, timeline));
    match result {
        Ok(code) => ExitCode::from(code),
        Err((error, code)) => {
            fail(&global, &format!("{error:#}"));
            ExitCode::from(code)
        }
    }
}

/// Writes that the command line makes no sense to the log that it names: engines look there for the reason.
fn log_misuse(error: &clap::Error) {
    let (Some(path), format) = log_of(std::env::args_os()) else { return };
    // Whoever reads standard error is told in any case.
    if logging::init(Some(&path), format, false).is_ok() {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        tracing::error!("{}", first.strip_prefix("error: ").unwrap_or(first));
    }
}

/// The log and its format in a command line that makes no sense otherwise.
fn log_of(arguments: impl Iterator<Item = OsString>) -> (Option<PathBuf>, Format) {
    let (mut path, mut format) = (None, Format::default());
    let mut arguments = arguments.skip(1);
    while let Some(argument) = arguments.next() {
        let bytes = argument.as_encoded_bytes();
        if bytes == b"--" {
            break;
        }
        if bytes == b"--log" {
            path = arguments.next();
        } else if bytes == b"--log-format" {
            let json = arguments.next().is_some_and(|value| value == "json");
            format = if json { Format::Json } else { Format::Text };
        } else if let Some(value) = argument.to_str().and_then(|text| text.strip_prefix("--log=")) {
            path = Some(value.into());
        } else if argument == "--log-format=json" {
            format = Format::Json;
        }
    }
    (path.map(PathBuf::from), format)
}

/// Says what is wrong with the command line, or the help that was asked for. A command that there is not: as runc, also
/// where its help is asked for.
fn refuse(error: &clap::Error) -> ExitCode {
    const NO_TOPIC: u8 = 3;
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand)
    {
        eprintln!("No help topic for '{name}'");
        return ExitCode::from(NO_TOPIC);
    }
    if error.use_stderr() {
        log_misuse(error);
    }
    let _ = error.print();
    ExitCode::from(u8::from(error.use_stderr()))
}

/// Does what `command` says; gives the exit code, with a failure or without.
fn execute(
    command: Option<Commands>,
    global: &Global,
    timeline: crate::timeline::Timeline,
) -> Result<u8, (anyhow::Error, u8)> {
    tracing::debug!("{:?} of cofferdam {}", std::env::args_os(), env!("CARGO_PKG_VERSION"));
    let done = |()| 0;
    let shown = |text: String| u8::from(print(&text) != ExitCode::SUCCESS);
    let result = match command {
        None => Err(anyhow::anyhow!("no command; see cofferdam --help")),
        Some(Commands::Run(run)) => run.execute(global, timeline),
        Some(Commands::Create(create)) => create.execute(global).map(done),
        Some(Commands::Start { id }) => create::start(global, &id).map(done),
        Some(Commands::Exec(exec)) => {
            let failed = |error: anyhow::Error| (error.context("exec failed"), exec::FAILED);
            return exec.execute(global).map_err(failed);
        }
        Some(Commands::State { id }) => show::state(global, &id).map(shown),
        Some(Commands::Kill { all, id, signal }) => {
            delete::kill(global, &id, &signal, all).map(done)
        }
        Some(Commands::Delete { force, id }) => delete::delete(global, &id, force).map(done),
        Some(Commands::List { format, quiet }) => show::list(global, format, quiet).map(shown),
        Some(Commands::Ps(ps)) => ps::ps(global, &ps).map(shown),
        Some(Commands::Pause { id }) => freeze::freeze(global, &id, true).map(done),
        Some(Commands::Resume { id }) => freeze::freeze(global, &id, false).map(done),
        Some(Commands::Update(update)) => update.execute(global).map(done),
        Some(Commands::Events(events)) => events.execute(global).map(done),
        Some(Commands::Features) => Ok(shown(features::features())),
        Some(Commands::Completions { shell }) => Ok(shown(manual::completions(shell))),
        Some(Commands::Man { directory }) => manual::pages(&directory).map(done),
        Some(Commands::Checkpoint(_)) => Err(anyhow::anyhow!("checkpoint is not supported yet")),
        Some(Commands::Restore(_)) => Err(anyhow::anyhow!("restore is not supported yet")),
        Some(Commands::Spec { bundle, for_user }) => write_spec(&bundle, for_user).map(done),
        Some(Commands::Install(install)) => install.execute(),
        Some(Commands::Uninstall(uninstall)) => uninstall.execute(),
        Some(Commands::Doctor) => Ok(doctor::run(&global.config, &global.root)),
        Some(Commands::Supervisor(places)) => Ok(supervisor::main(&places)),
    };
    result.map_err(|error| (error, 1))
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

/// Like runc, never overwrites a file.
fn write_spec(bundle: &Path, for_user: bool) -> Result<()> {
    let text = if for_user { rootless_spec_text()? } else { default_spec_text() };
    let path = bundle.join("config.json");
    let file = std::fs::File::options().write(true).create_new(true).open(&path);
    let write = |mut file: std::fs::File| file.write_all(text.as_bytes());
    file.and_then(write).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
#[path = "cli_test.rs"]
mod cli_test;
