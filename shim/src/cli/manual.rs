//! Man pages and shell completions, from the definition of the command line.
//!
//! Invariant: commands that are hidden have no page.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// The completions for `shell`.
pub(super) fn completions(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cofferdam", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Writes `cofferdam.8`, and `cofferdam-COMMAND.8` for each command, into `directory`.
///
/// # Errors
/// A file cannot be written.
pub(super) fn pages(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let mut command = Cli::command();
    command.build();
    page(directory, &command, "cofferdam")?;
    let shown = |command: &&Command| !command.is_hide_set();
    for command in command.get_subcommands().filter(shown) {
        page(directory, command, &format!("cofferdam-{}", command.get_name()))?;
    }
    Ok(())
}

fn page(directory: &Path, command: &Command, name: &str) -> Result<()> {
    let path = directory.join(format!("{name}.8"));
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name)
        .section("8")
        .render(&mut text)
        .context("writing a man page")?;
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
#[path = "manual_test.rs"]
mod manual_test;
