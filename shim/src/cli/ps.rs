//! `cofferdam ps`.
//!
//! As a table, the processes in the guest, with their numbers there. As JSON, numbers that mean something on the host,
//! because that is what engines do with them: those of what stands for the container and for each `exec` in it.
//!
//! Invariant: nothing is changed.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use clap::Args;

use super::Global;
use super::common::{ask_pod, find};
use super::show::Format;
use crate::container::{Saved, Status};
use crate::control::{Answer, Process, ToSupervisor};
use crate::user;

/// Clock ticks a second, as `/proc` counts them.
const TICKS: u64 = 100;

/// Options of `cofferdam ps`.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// How it looks
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,
    /// The container
    id: String,
    /// Options of ps(1): without any, or with -ef, a full listing, else a short one
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// The processes of a container.
pub(super) fn ps(global: &Global, args: &Ps) -> Result<String> {
    let (saved, status) = find(&global.root, &args.id)?;
    if args.format == Format::Json {
        let pids = if status == Status::Stopped { Vec::new() } else { stand_ins(&saved) };
        return Ok(serde_json::to_string(&pids)?);
    }
    let full = args.options.is_empty() || args.options == ["-ef"];
    let (uptime, processes) = if status == Status::Stopped {
        (0, Vec::new())
    } else {
        let message = ToSupervisor::Processes(saved.id.clone());
        match ask_pod(&global.root, &saved, &message)? {
            Answer::Processes { uptime, processes } => (uptime, processes),
            _ => bail!("the supervisor answers with something else"),
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let rows: Vec<Row> = processes.iter().filter_map(|p| Row::of(p, uptime)).collect();
    Ok(if full { full_listing(&rows, now) } else { short_listing(&rows) })
}

/// What stands for the processes of a container on the host.
fn stand_ins(saved: &Saved) -> Vec<u32> {
    let group = saved.cgroup.as_ref().map(|group| group.join("cgroup.procs"));
    let listed = group.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let is_proxy = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        crate::proxy::is_line(&line)
    };
    let mut pids = vec![saved.process.pid];
    let others = listed.lines().filter_map(|line| line.parse().ok());
    pids.extend(others.filter(|pid| *pid != saved.process.pid).filter(is_proxy));
    pids
}

/// What a line shows.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    user: String,
    pid: u64,
    parent: u64,
    state: char,
    terminal: String,
    /// Seconds of processor time.
    used: u64,
    /// Seconds since its start.
    age: u64,
    command: String,
}

impl Row {
    /// From `proc_pid_stat(5)`; `None` for what is none.
    fn of(process: &Process, uptime: u64) -> Option<Self> {
        let (pid, rest) = process.stat.split_once(' ')?;
        let (_, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        // `fields` begins with field 3.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let terminal = match number(7)? {
            0 => "?".to_owned(),
            // Major 136 is that of pseudo-terminals; the minor's low byte is at the end.
            device => format!("pts/{}", (device & 0xff) | (device >> 12 & 0xf_ff00)),
        };
        Some(Self {
            user: user::name_of(process.uid),
            pid: pid.parse().ok()?,
            parent: number(4)?,
            state: fields.first()?.chars().next()?,
            terminal,
            used: number(14)?.saturating_add(number(15)?) / TICKS,
            age: uptime.saturating_sub(number(22)?) / TICKS,
            command: process.command.clone(),
        })
    }
}

/// As `ps -ef` prints it.
fn full_listing(rows: &[Row], now: Duration) -> String {
    let mut text = String::from("UID          PID    PPID  C STIME TTY          TIME CMD\n");
    for row in rows {
        let Row { user, pid, parent, terminal, command, .. } = row;
        let busy = (row.used * 100).checked_div(row.age).unwrap_or(0).min(99);
        let (started, used) = (start(now, row.age), clock(row.used));
        let _ = writeln!(
            text,
            "{user:<8} {pid:>7} {parent:>7} {busy:>2} {started:>5} {terminal:<8} {used} {command}"
        );
    }
    text
}

/// As `ps -e -x` prints it.
fn short_listing(rows: &[Row]) -> String {
    let mut text = String::from("    PID TTY      STAT   TIME COMMAND\n");
    for Row { pid, terminal, state, used, command, .. } in rows {
        let (minutes, seconds) = (used / 60, used % 60);
        let _ =
            writeln!(text, "{pid:>7} {terminal:<8} {state:<4} {minutes:>3}:{seconds:02} {command}");
    }
    text
}

/// Hour and minute of a start `age` seconds ago (UTC), or how many days ago it was.
fn start(now: Duration, age: u64) -> String {
    if age >= 86_400 {
        return format!("{}d", age / 86_400);
    }
    let at = now.as_secs().saturating_sub(age);
    format!("{:02}:{:02}", at / 3600 % 24, at / 60 % 60)
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
#[path = "ps_test.rs"]
mod ps_test;
