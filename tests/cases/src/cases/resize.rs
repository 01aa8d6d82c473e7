//! A running machine grows and shrinks.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use cofferdam_vmm_api::MiB;

use super::cases;
use crate::pod::ShellPod;

cases!("resize":
    cpus_come_and_go,
);

/// One vCPU of four at boot; all four; two. In between nothing runs for a moment.
fn cpus_come_and_go() -> Result<()> {
    let mut pod = ShellPod::start(MiB(256), |machine| machine.max_vcpus = Some(4))?;
    let offline = pod.says("nproc; cat /sys/devices/system/cpu/offline")?;
    ensure!(offline == "1\n1-3", "{offline}");
    for wanted in [4, 2, 3, 1, 4] {
        let online = pod.with(async |pod| pod.set_cpus(wanted).await)??;
        ensure!(online == wanted, "{online} online, not {wanted}");
        pod.with(async |pod| pod.pause_machine().await)??;
        thread::sleep(Duration::from_millis(100));
        pod.with(async |pod| pod.resume_machine().await)??;
        let seen = pod.says("nproc")?;
        ensure!(seen == wanted.to_string(), "nproc says {seen}, not {wanted}");
    }
    let error = pod.with(async |pod| pod.set_cpus(5).await)?;
    let text = error.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(text.contains("has 1 to 4"), "{text}");
    Ok(())
}
