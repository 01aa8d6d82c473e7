//! `update`, `events` and `ps`: what a container may use, what it uses, what runs in it.

use std::fs;
use std::process::Stdio;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::runtime::{Container, Runtime, field};
use super::{Alone, Clause, Group, Step, alone, step};

/// Groups of this topic.
pub(super) const GROUPS: &[Group] = &[
    Group::With("update", &["run", "--detach"], limits, UPDATE),
    Group::With("events", &["run", "--detach"], limits, EVENTS),
    Group::With("ps", &["run", "--detach"], limits, PS),
    Group::Alone("events", ALONE),
];

fn limits(config: &mut Value) {
    config["linux"]["resources"]["memory"] = json!({ "limit": 256 << 20, "swap": 256 << 20 });
    config["linux"]["resources"]["cpu"] =
        json!({ "quota": 100_000, "period": 100_000, "shares": 1024 });
    config["linux"]["resources"]["pids"] = json!({ "limit": 50 });
}

const UPDATE: &[Clause<Step>] = &[
    step("memory", "runc update --memory", |c| {
        c.prints("started")?;
        update(
            c,
            &["--memory", "134217728", "--memory-swap", "134217728"],
            "memory.max",
            "134217728",
        )
    }),
    step("memory_swap", "runc update --memory-swap", |c| {
        update(c, &["--memory-swap", "167772160"], "memory.swap.max", "33554432")
    }),
    step("memory_reservation", "runc update --memory-reservation", |c| {
        update(c, &["--memory-reservation", "33554432"], "memory.low", "33554432")
    }),
    step("cpu_quota", "runc update --cpu-quota", |c| {
        update(c, &["--cpu-quota", "50000"], "cpu.max", "50000 100000")
    }),
    step("cpu_period", "runc update --cpu-period", |c| {
        update(c, &["--cpu-period", "200000"], "cpu.max", "50000 200000")
    }),
    step("cpu_burst", "runc update --cpu-burst", |c| {
        update(c, &["--cpu-burst", "1000"], "cpu.max.burst", "1000")
    })
    .since("1.2"),
    step("cpu_idle", "runc update --cpu-idle", |c| {
        update(c, &["--cpu-idle", "0"], "cpu.idle", "0")
    })
    .since("1.2"),
    step("cpu_share", "runc update --cpu-share", |c| {
        c.call(&["update", "--cpu-share", "512"])?.exits(0)?;
        // Since 1.3.2, runc has another conversion.
        let weight = c.shell("cat /sys/fs/cgroup/cpu.weight")?;
        ensure!(weight == "20" || weight == "59", "{weight}");
        Ok(())
    }),
    step("cpuset_cpus", "runc update --cpuset-cpus", |c| {
        update(c, &["--cpuset-cpus", "0"], "cpuset.cpus", "0")
    }),
    step("cpuset_mems", "runc update --cpuset-mems", |c| {
        let text = if c.runtime.ours() { "" } else { "0" };
        update(c, &["--cpuset-mems", "0"], "cpuset.mems", text)
    })
    .differs("the machine has one memory node"),
    step("pids_limit", "runc update --pids-limit", |c| {
        update(c, &["--pids-limit", "20"], "pids.max", "20")
    }),
    step("pids_limit_none", "runc update --pids-limit", |c| {
        update(c, &["--pids-limit", "-1"], "pids.max", "max")
    }),
    step("resources_file", "runc update --resources", |c| {
        let file = c.runtime.file("resources.json");
        fs::write(
            &file,
            json!({ "pids": { "limit": 30 }, "cpu": { "shares": 1024 } }).to_string(),
        )?;
        update(c, &["--resources", &file.display().to_string()], "pids.max", "30")
    }),
    step("resources_standard_input", "runc update --resources -", |c| {
        let text = json!({ "memory": { "limit": 201_326_592, "swap": 201_326_592 } }).to_string();
        c.runtime.call_with(&["update", "-r", "-", &c.id], &text)?.exits(0)?;
        holds(c, "memory.max", "201326592")
    }),
    step("leaves_the_rest", "runc update", |c| {
        update(c, &["--pids-limit", "31"], "memory.max", "201326592")?;
        holds(c, "cpu.max", "50000 200000")
    }),
    step("bad_values_are_refused", "runc update", |c| {
        for flags in [["--memory", "lots"], ["--cpu-quota", "x"]] {
            let outcome = c.call(&[&["update"], &flags[..]].concat())?;
            ensure!(outcome.code != 0, "{flags:?}: {outcome}");
        }
        holds(c, "memory.max", "201326592")
    }),
];

/// `update FLAGS`, and then a file of the container's group holds `text`.
fn update(c: &Container<'_>, flags: &[&str], file: &str, text: &str) -> Result<()> {
    c.call(&[&["update"], flags].concat())?.exits(0)?;
    holds(c, file, text)
}

fn holds(c: &Container<'_>, file: &str, text: &str) -> Result<()> {
    let found = c.shell(&format!("cat /sys/fs/cgroup/{file}"))?;
    ensure!(found == text, "{file} holds {found:?}, not {text:?}");
    Ok(())
}

const EVENTS: &[Clause<Step>] = &[
    step("stats", "runc events --stats", |c| {
        c.prints("started")?;
        let stats = stats(c)?;
        ensure!(stats["type"] == "stats" && stats["id"] == c.id.as_str(), "{stats}");
        Ok(())
    }),
    step("stats_cpu", "runc events --stats", |c| positive(c, &["/data/cpu/usage/total"])),
    step("stats_memory", "runc events --stats", |c| {
        let stats = positive(c, &["/data/memory/usage/usage", "/data/memory/usage/limit"]);
        stats?;
        let limit = field(&self::stats(c)?, "/data/memory/usage/limit")?.clone();
        ensure!(limit == 268_435_456, "{limit}");
        Ok(())
    }),
    step("stats_memory_raw", "runc events --stats", |c| positive(c, &["/data/memory/raw/anon"])),
    step("stats_pids", "runc events --stats", |c| {
        positive(c, &["/data/pids/current"])?;
        ensure!(stats(c)?["data"]["pids"]["limit"] == 50);
        Ok(())
    }),
    step("every_interval", "runc events --interval", |c| {
        let arguments = ["events", "--interval", "300ms", &c.id];
        let mut call = c.runtime.start(&arguments, Stdio::null())?;
        call.wait_for("\"type\":\"stats\"")?;
        call.wait_for("}\n{")?;
        c.kill("KILL")?;
        call.finish()?.exits(0).map(drop)
    }),
    step("of_a_stopped_one_are_refused", "runc events", |c| {
        c.becomes("stopped")?;
        let outcome = c.call(&["events", "--stats"])?;
        ensure!(outcome.code != 0, "{outcome}");
        Ok(())
    }),
];

fn stats(c: &Container<'_>) -> Result<Value> {
    let outcome = c.call(&["events", "--stats"])?.exits(0)?;
    Ok(serde_json::from_slice(&outcome.stdout)?)
}

/// The numbers at `paths` are there and more than nothing.
fn positive(c: &Container<'_>, paths: &[&str]) -> Result<()> {
    let stats = stats(c)?;
    for path in paths {
        let value = field(&stats, path)?;
        ensure!(value.as_f64().is_some_and(|number| number > 0.0), "{path} is {value}");
    }
    Ok(())
}

/// Why the numbers of processes are others.
const PROXIES: &str =
    "numbers are the host's: of the processes that stand for those in the machine";

/// Those of the shell and of `sleep`, or that of the container's proxy.
fn pids_are(c: &Container<'_>, pids: &[i64]) -> Result<()> {
    let first = pids.contains(&i64::from(c.pid));
    let all = if c.runtime.ours() { 1 } else { 2 };
    ensure!(first && pids.len() == all, "{pids:?}, where the container is {}", c.pid);
    Ok(())
}

const PS: &[Clause<Step>] = &[
    step("table", "runc ps", |c| {
        c.prints("started")?;
        let text = c.call(&["ps"])?.exits(0)?.text();
        let mut lines = text.lines();
        let head = lines.next().unwrap_or_default();
        ensure!(head.starts_with("UID") && head.contains("PID") && head.ends_with("CMD"), "{text}");
        ensure!(lines.count() == 2 && text.contains("sleep 10000"), "{text}");
        Ok(())
    }),
    step("json", "runc ps --format json", |c| {
        let outcome = c.call(&["ps", "--format", "json"])?.exits(0)?;
        let pids: Vec<i64> = serde_json::from_slice(&outcome.stdout)?;
        pids_are(c, &pids)
    })
    .differs(PROXIES),
    step("short_format_flag", "runc ps -f json", |c| {
        let outcome = c.call(&["ps", "-f", "json"])?.exits(0)?;
        let pids: Vec<i64> = serde_json::from_slice(&outcome.stdout)?;
        pids_are(c, &pids)
    })
    .differs(PROXIES),
    step("an_unknown_format_is_refused", "runc ps --format", |c| {
        let outcome = c.call(&["ps", "--format", "xml"])?;
        ensure!(outcome.code != 0, "{outcome}");
        Ok(())
    }),
    step("options_of_ps", "runc ps: ps options", |c| {
        let text = c.runtime.call(&["ps", &c.id, "-e", "-o", "pid,comm"])?.exits(0)?.text();
        ensure!(
            text.contains("COMMAND") && text.contains("sleep") && text.lines().count() == 3,
            "{text}"
        );
        Ok(())
    }),
    step("shows_what_exec_started", "runc ps", |c| {
        c.exec(&["--detach"], &["sleep", "20000"])?.exits(0)?;
        let text = c.call(&["ps"])?.exits(0)?.text();
        ensure!(text.contains("sleep 20000"), "{text}");
        Ok(())
    }),
];

const ALONE: &[Clause<Alone>] = &[alone("out_of_memory", "runc events", out_of_memory)];

fn out_of_memory(runtime: &Runtime) -> Result<()> {
    let script = "trap : USR1; echo started; sleep 1000 & wait; \
                  python3 -c 'x = []\nwhile True: x.append(bytearray(1 << 20))'; echo over; sleep 1000 & wait";
    let edit: super::Edit = |config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 48 << 20, "swap": 48 << 20 });
    };
    let container = runtime.detached(script, edit)?;
    container.prints("started")?;
    let mut events =
        runtime.start(&["events", "--interval", "200ms", &container.id], Stdio::null())?;
    events.wait_for("\"type\":\"stats\"")?;
    container.kill("USR1")?;
    container.prints("over")?;
    events.wait_for("\"type\":\"oom\"")?;
    container.kill("KILL")?;
    events.finish()?.exits(0).map(drop)
}
