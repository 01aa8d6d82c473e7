//! The machine starts in the shape asked for, and each way it can end is told apart.

use anyhow::{Result, ensure};

use super::cases;
use crate::monitor::{BZIMAGE, Boot, KERNEL};
use crate::run::{COFFERDAM, Run};

cases!("boot":
    a_container_runs_under_our_kernel,
    the_default_is_one_cpu_and_256_mib,
    cpus_and_memory_as_asked,
    oci_limits_size_the_machine,
    annotations_override_the_size,
    a_bzimage_boots,
    memory_above_four_gib,
    power_off_reboot_panic_and_triple_fault_are_told_apart,
    the_timeline_names_every_stage,
    doctor_finds_nothing_missing,
    the_agent_takes_at_most_four_mib,
);

fn a_container_runs_under_our_kernel() -> Result<()> {
    let outcome = Run::command(&["uname", "-r"]).output()?.exits(0)?;
    let host = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    ensure!(outcome.text().starts_with("6.12"), "{outcome}");
    ensure!(outcome.text().trim() != host.trim(), "the container saw the host's kernel: {outcome}");
    Ok(())
}

/// `nproc` and `MemTotal` in MiB.
const SHAPE: &str = "nproc; awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo";

fn shape(run: Run) -> Result<(u32, u32)> {
    let text = run.output()?.exits(0)?.text();
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(cpus)), Some(Ok(memory))) => Ok((cpus, memory)),
        _ => anyhow::bail!("no shape in {text:?}"),
    }
}

fn the_default_is_one_cpu_and_256_mib() -> Result<()> {
    let (cpus, memory) = shape(Run::shell(SHAPE))?;
    ensure!(cpus == 1 && (200..=256).contains(&memory), "{cpus} CPUs, {memory} MiB");
    Ok(())
}

fn cpus_and_memory_as_asked() -> Result<()> {
    let (cpus, memory) = shape(Run::shell(SHAPE).flags(&["--vcpus", "4", "--vm-memory", "512M"]))?;
    ensure!(cpus == 4 && (440..=512).contains(&memory), "{cpus} CPUs, {memory} MiB");
    Ok(())
}

fn oci_limits_size_the_machine() -> Result<()> {
    let run = Run::bundle(SHAPE, |config| {
        config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 400 << 20 });
        config["linux"]["resources"]["cpu"] =
            serde_json::json!({ "quota": 150000, "period": 100000 });
    })?;
    let (cpus, memory) = shape(run)?;
    ensure!(cpus == 2 && (400..=520).contains(&memory), "{cpus} CPUs, {memory} MiB");
    Ok(())
}

fn annotations_override_the_size() -> Result<()> {
    let run = Run::bundle(SHAPE, |config| {
        config["annotations"] =
            serde_json::json!({ "io.cofferdam.vcpus": "3", "io.cofferdam.memory": "384M" });
    })?;
    let (cpus, memory) = shape(run)?;
    ensure!(cpus == 3 && (320..=384).contains(&memory), "{cpus} CPUs, {memory} MiB");
    Ok(())
}

fn a_bzimage_boots() -> Result<()> {
    let text = Boot::new(BZIMAGE, "test.action=print").flags(&["--cpus", "2"]).succeeds()?;
    ensure!(text.contains("6.12"), "{text}");
    Ok(())
}

fn memory_above_four_gib() -> Result<()> {
    let text = Boot::new(KERNEL, "test.action=print").flags(&["--memory", "5G"]).succeeds()?;
    ensure!(text.contains("memory"), "{text}");
    Ok(())
}

fn power_off_reboot_panic_and_triple_fault_are_told_apart() -> Result<()> {
    let mut codes = Vec::new();
    let actions = [
        ("test.action=poweroff", "Power down"),
        ("test.action=reboot", "rebooted"),
        ("test.action=panic", "panicked"),
        ("test.action=triple-fault reboot=triple", "triple fault"),
    ];
    for (action, said) in actions {
        let (code, text) = Boot::new(KERNEL, action).output()?;
        ensure!(text.contains(said), "{action}: code {code}: {text}");
        ensure!(!codes.contains(&code), "{action}: exit code {code} again");
        codes.push(code);
    }
    ensure!(codes[0] == 0, "power-off must succeed: {codes:?}");
    Ok(())
}

fn the_timeline_names_every_stage() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let svg = directory.path().join("start.svg").display().to_string();
    Run::shell("true").flags(&["--timeline", &svg]).output()?.exits(0)?;
    let text = std::fs::read_to_string(&svg)?;
    ensure!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{text}");
    let outcome = Run::shell("true").flags(&["--timeline", "-"]).output()?.exits(0)?;
    for stage in ["monitor", "kernel", "agent said hello", "container created", "container started"]
    {
        ensure!(outcome.stderr.contains(stage), "no {stage} in {outcome}");
        ensure!(text.contains(stage), "no {stage} in {text}");
    }
    Ok(())
}

fn doctor_finds_nothing_missing() -> Result<()> {
    let done = std::process::Command::new(COFFERDAM).arg("doctor").output()?;
    let text = String::from_utf8_lossy(&done.stdout);
    ensure!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
    ensure!(text.contains("/dev/kvm"), "{text}");
    Ok(())
}

/// Without a pid namespace of its own, a container sees the agent as process 1.
fn the_agent_takes_at_most_four_mib() -> Result<()> {
    let script = "grep -E '^(Name|VmRSS):' /proc/1/status";
    let run = Run::bundle(script, |config| {
        if let Some(list) = config["linux"]["namespaces"].as_array_mut() {
            list.retain(|namespace| namespace["type"] != "pid");
        }
    })?;
    let outcome = run.output()?.exits(0)?;
    let text = outcome.text();
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
    let kib: u32 = kib.unwrap_or_default().parse().unwrap_or(u32::MAX);
    ensure!(text.contains("init") && kib <= 4096, "{outcome}");
    Ok(())
}
