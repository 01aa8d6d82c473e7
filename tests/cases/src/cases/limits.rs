//! Resource limits hold inside the guest as they would on a host.

use anyhow::{Result, ensure};
use serde_json::json;

use super::cases;
use crate::run::Run;

cases!("limits":
    rlimits,
    a_container_over_its_memory_is_killed_alone,
    a_first_process_killed_for_memory_exits_with_137,
    a_fork_bomb_meets_the_pids_limit,
    cgroup_files_hold_what_was_asked,
    the_oom_score_is_adjusted,
    device_rules_allow_and_deny,
);

fn rlimits() -> Result<()> {
    Run::bundle("ulimit -S -n; ulimit -H -n", |config| {
        config["process"]["rlimits"] =
            json!([{ "type": "RLIMIT_NOFILE", "soft": 64, "hard": 128 }]);
    })?
    .output()?
    .exits(0)?
    .prints("64\n128")
    .map(drop)
}

fn a_container_over_its_memory_is_killed_alone() -> Result<()> {
    let script = "python3 -c 'x = bytearray(200 << 20); print(\"survived\")'; echo code $?";
    Run::bundle(script, |config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20, "swap": 64 << 20 });
        config["annotations"] = json!({ "io.cofferdam.memory": "384M" });
    })?
    .output()?
    .exits(0)?
    .prints("code 137")
    .map(drop)
}

fn a_first_process_killed_for_memory_exits_with_137() -> Result<()> {
    Run::bundle("exec python3 -c 'x = bytearray(200 << 20)'", |config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20, "swap": 64 << 20 });
        config["annotations"] = json!({ "io.cofferdam.memory": "384M" });
    })?
    .output()?
    .exits(137)
    .map(drop)
}

fn a_fork_bomb_meets_the_pids_limit() -> Result<()> {
    let script = "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done; echo unlimited";
    let outcome = Run::bundle(script, |config| {
        config["linux"]["resources"]["pids"] = json!({ "limit": 20 });
    })?
    .output()?
    .complains("fork")?;
    ensure!(!outcome.text().contains("unlimited"), "{outcome}");
    Ok(())
}

fn cgroup_files_hold_what_was_asked() -> Result<()> {
    let script = "cd /sys/fs/cgroup; cat memory.max memory.low pids.max cpu.max cpu.weight";
    Run::bundle(script, |config| {
        config["linux"]["resources"] = json!({
            "memory": { "limit": 100 << 20, "reservation": 10 << 20 },
            "pids": { "limit": 77 },
            "cpu": { "quota": 50000, "period": 100000, "shares": 1024 },
        });
    })?
    .output()?
    .exits(0)?
    .has("104857600\n10485760\n77\n50000 100000\n100\n")
    .map(drop)
}

fn the_oom_score_is_adjusted() -> Result<()> {
    Run::bundle("cat /proc/self/oom_score_adj", |config| {
        config["process"]["oomScoreAdj"] = 321.into();
    })?
    .output()?
    .exits(0)?
    .prints("321")
    .map(drop)
}

fn device_rules_allow_and_deny() -> Result<()> {
    let script = "mknod /tmp/kmsg c 1 11; head -c 1 /tmp/kmsg; mknod /tmp/zero c 1 5 && \
                  head -c 1 /tmp/zero | od -An -tx1";
    Run::bundle(script, |config| {
        let caps = json!(["CAP_MKNOD"]);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = caps.clone();
        }
        config["linux"]["resources"]["devices"] = json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "access": "m" },
            { "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm" },
        ]);
    })?
    .output()?
    .exits(0)?
    .prints("00")?
    .complains("Operation not permitted")
    .map(drop)
}
