//! `measure PLAN`: starts the machines of a plan one after the other and prints what each one took; then puts load on
//! devices and prints what each phase of that took; then runs containers in a pod and prints what their calls took.
//!
//! Invariant: nothing else runs in the host meanwhile, and nothing of one run is left for the next.
#![forbid(unsafe_code)]

mod cofferdam;
mod load;
mod memory;
mod oci;
mod peer;
mod process;
mod qemu;
mod trace;

use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cofferdam_agent_protocol::{
    AgentFrame, HEADER, HostFrame, PROTOCOL_VERSION, PodPlan, Welcome, agent_frame, decode, encode,
    frame_length, host_frame,
};
use cofferdam_test_bench::{Measured, Plan, Run, Vmm};
use nix::time::{ClockId, clock_gettime};

use crate::process::Process;
use crate::trace::Tracer;

/// Bytes of each disk; none is ever read.
const DISK: u64 = 64 << 20;

fn main() -> Result<()> {
    let path = std::env::args().nth(1).context("usage: measure PLAN")?;
    let plan: Plan = serde_json::from_reader(File::open(path)?)?;
    for run in &plan.runs {
        let measured = measure(run).with_context(|| format!("the run {}", run.name))?;
        println!("{}", serde_json::to_string(&measured)?);
    }
    for device in &plan.loads {
        load::measure(*device).with_context(|| format!("load on {device:?}"))?;
    }
    if plan.rounds > 0 {
        oci::measure(plan.rounds).context("containers in a pod")?;
    }
    Ok(())
}

/// A machine that was started.
trait Started {
    /// Waits until its agent connects; also says which stages there were on the way.
    fn connection(&mut self) -> Result<File>;
    /// Stages that its monitor told of, on `CLOCK_MONOTONIC`.
    fn stages(&self) -> Vec<(String, u64)>;
    /// Its process.
    fn process(&self) -> &Process;
}

fn measure(run: &Run) -> Result<Measured> {
    let disks = (0..run.disks).map(disk).collect::<Result<Vec<_>>>()?;
    let mut tracer = run.traced.then(Tracer::start).transpose()?;
    let start = now();
    let mut machine: Box<dyn Started> = match run.vmm {
        Vmm::Cofferdam => Box::new(cofferdam::start(run, &disks)?),
        Vmm::QemuMicrovm => Box::new(qemu::start(run, &disks)?),
    };
    let mut connection = machine.connection()?;
    read_hello(&mut connection)?;
    let end = now();
    let mut measured =
        Measured { name: run.name.clone(), hello: end - start, ..Measured::default() };
    if let Some(tracer) = &mut tracer {
        (measured.exits, measured.calls) = tracer.stop(start, end)?;
    }
    welcome(&mut connection)?;
    // The agent acts upon it, and the monitor finishes what it does in the background.
    std::thread::sleep(Duration::from_secs(1));
    let memory = memory::of(machine.process().id(), run.memory_mib)?;
    (measured.private_kib, measured.guest_kib) = (memory.private_kib, memory.guest_kib);
    measured.stages =
        machine.stages().into_iter().map(|(name, at)| (name, at.saturating_sub(start))).collect();
    if run.traced && run.idle_seconds > 0 {
        let mut tracer = Tracer::start_again()?;
        std::thread::sleep(Duration::from_secs(run.idle_seconds));
        for exit in tracer.stop(0, u64::MAX)?.0 {
            *measured.idle_exits.entry(exit.reason).or_default() += 1;
        }
    }
    Ok(measured)
}

/// The path of an empty disk.
fn disk(index: u8) -> Result<String> {
    let path = format!("/tmp/disk{index}");
    let file = File::create(&path).with_context(|| format!("creating {path}"))?;
    file.set_len(DISK).with_context(|| format!("sizing {path}"))?;
    Ok(path)
}

/// Nanoseconds of `CLOCK_MONOTONIC`: the clock of the monitor's stages and of the trace.
fn now() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(now.tv_sec()) * 1_000_000_000 + part(now.tv_nsec())
}

fn read_hello(connection: &mut File) -> Result<()> {
    let mut header = [0; HEADER];
    connection.read_exact(&mut header).context("reading the agent's hello")?;
    let mut body = vec![0; frame_length::<AgentFrame>(header)?];
    connection.read_exact(&mut body).context("reading the agent's hello")?;
    match decode::<AgentFrame>(&body)?.body {
        Some(agent_frame::Body::Hello(hello)) => {
            ensure!(hello.protocol_version == PROTOCOL_VERSION, "an agent of another version");
            Ok(())
        }
        other => bail!("the agent did not say hello but {other:?}"),
    }
}

fn welcome(connection: &mut File) -> Result<()> {
    let pod = PodPlan { hostname: "bench".into(), ..PodPlan::default() };
    let welcome = Welcome { protocol_version: PROTOCOL_VERSION, pod: Some(pod) };
    let bytes = encode(&HostFrame { body: Some(host_frame::Body::Welcome(welcome)) })?;
    connection.write_all(&bytes).context("welcoming the agent")
}
