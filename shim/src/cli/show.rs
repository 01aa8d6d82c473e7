//! `cofferdam state`, `list` and `ps`: what there is.
//!
//! Invariant: nothing is changed.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use super::Global;
use super::common::{ask_pod, find};
use crate::container::{Saved, Status};
use crate::control::{Answer, ToSupervisor};

/// The format of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Options of `cofferdam ps`.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// How it looks
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,
    /// The container
    id: String,
    /// Options of ps(1), accepted as runc has them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// The state of a container.
pub(super) fn state(global: &Global, id: &str) -> Result<String> {
    let (saved, status) = find(&global.root, id)?;
    Ok(serde_json::to_string_pretty(&saved.state(status))?)
}

/// All containers.
pub(super) fn list(global: &Global, format: Format, quiet: bool) -> Result<String> {
    let all = Saved::all(&global.root);
    let states: Vec<_> = all.iter().map(|saved| (saved, saved.status(&global.root))).collect();
    if quiet {
        return Ok(all.iter().fold(String::new(), |text, saved| text + &saved.id + "\n"));
    }
    if format == Format::Json {
        if states.is_empty() {
            return Ok("null".into());
        }
        let states: Vec<_> = states.iter().map(|(saved, status)| saved.state(*status)).collect();
        return Ok(serde_json::to_string(&states)?);
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(states.iter().map(|(saved, status)| {
        let state = saved.state(*status);
        let bundle = saved.bundle.display().to_string();
        let (id, created) = (saved.id.clone(), saved.created.clone());
        [id, state.pid.to_string(), status.to_string(), bundle, created, state.owner]
    }));
    Ok(table(&rows))
}

/// Columns as runc has them: at least 12 wide, 3 spaces between.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> =
        (0..N).map(|column| (width(column).unwrap_or(0) + 3).max(12)).collect();
    let mut text = String::new();
    for row in rows {
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if index + 1 == N {
                writeln!(text, "{cell}")
            } else {
                write!(text, "{cell:width$}")
            };
        }
    }
    text
}

/// The processes of a container.
pub(super) fn ps(global: &Global, args: &Ps) -> Result<String> {
    let (saved, status) = find(&global.root, &args.id)?;
    if status == Status::Stopped {
        bail!("container not running");
    }
    if args.format == Format::Json {
        return Ok(serde_json::to_string(&[saved.process.pid])?);
    }
    let message = ToSupervisor::Processes(saved.id.clone());
    let Answer::Processes(pids) = ask_pod(&global.root, &saved, &message)? else {
        bail!("the supervisor answers with something else");
    };
    let mut text = String::from("PID\n");
    for pid in pids {
        let _ = writeln!(text, "{pid}");
    }
    Ok(text)
}

#[cfg(test)]
#[path = "show_test.rs"]
mod show_test;
