//! `cofferdam state` and `list`: what there is.
//!
//! Invariant: nothing is changed.

use std::fmt::Write as _;

use anyhow::Result;
use clap::ValueEnum;

use super::Global;
use super::common::find;
use crate::container::Saved;

/// The format of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// The state of a container.
pub(super) fn state(global: &Global, id: &str) -> Result<String> {
    let (saved, status) = find(&global.root, id)?;
    let mut state = saved.state(status);
    // Only lists of runc say who owns a container.
    state.owner.clear();
    Ok(serde_json::to_string_pretty(&state)?)
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

#[cfg(test)]
#[path = "show_test.rs"]
mod show_test;
