//! What goes wrong on the way to a pod or a container comes back as one sentence that names how far it came and the cause.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};

use super::super::cases;
use super::super::engine::Engine;
use super::super::failures::{Away, Covered, KVM, dying_image};
use super::super::sudden::{MONITOR, processes};
use super::messages::NOT_READY;
use super::pod::{self, ended, exec, refusal};
use super::{Config, Cri};
use crate::call::eventually;

cases!(Cri:
    no_kvm_is_told,
    a_missing_kernel_is_told,
    an_agent_that_dies_ends_its_pod,
    an_image_too_large_for_its_disk_is_told,
    a_container_without_memory_is_told,
    a_monitor_that_dies_is_told,
);

/// Where the runtime's configuration is.
const CONFIG: &str = "/etc/cofferdam/config.toml";

/// Gives the runtime this configuration; the one before is put back when what this gives goes.
fn configured(text: &str) -> Result<Config> {
    let before = Config::now(CONFIG);
    fs::create_dir_all(Path::new(CONFIG).parent().context("no directory")?)?;
    fs::write(CONFIG, text)?;
    Ok(before)
}

/// What is refused is told in one line with these words.
fn told<T: std::fmt::Debug>(result: Result<T>, words: &[&str]) -> Result<()> {
    let text = refusal(result)?.message;
    println!("\n{text}");
    ensure!(text.lines().count() == 1, "{text}");
    for word in words {
        ensure!(text.contains(word), "{word:?}: {text}");
    }
    Ok(())
}

/// A pod that cannot be, with this configuration of the runtime.
fn pod_with(cri: &Cri, text: &str, words: &[&str]) -> Result<()> {
    let _configuration = configured(text)?;
    told(pod::run(&pod::config(&cri.file("logs"))), words)
}

fn no_kvm_is_told(cri: &Cri) -> Result<()> {
    if !Engine::is_ours() {
        return Ok(());
    }
    let _away = Away::of(KVM)?;
    let words = ["opening /dev/kvm", "what may help: ", "No such file or directory"];
    told(pod::run(&pod::config(&cri.file("logs"))), &words)
}

fn a_missing_kernel_is_told(cri: &Cri) -> Result<()> {
    if !Engine::is_ours() {
        return Ok(());
    }
    let words = ["opening the guest kernel /no/such/file: No such file or directory"];
    pod_with(cri, "kernel = \"/no/such/file\"\n", &words)
}

/// It dies of the first thing that it is asked, which is for a container: the pod ends with that.
fn an_agent_that_dies_ends_its_pod(cri: &Cri) -> Result<()> {
    if !Engine::is_ours() {
        return Ok(());
    }
    let image = cri.file("dying");
    fs::write(&image, dying_image()?)?;
    let text = format!("image = {:?}\n", image.display().to_string());
    let configuration = configured(&text)?;
    let pod = cri.pod()?;
    drop(configuration);
    told(
        pod.start("true"),
        &["the machine ended: the guest kernel panicked", "last stage reached: "],
    )?;
    eventually("the end of the pod", || Ok(pod.state()? == NOT_READY))?;
    pod.stop()?;
    pod.remove()
}

/// The pod is there; its container cannot be, and the next one can.
fn an_image_too_large_for_its_disk_is_told(cri: &Cri) -> Result<()> {
    if !Engine::is_ours() {
        return Ok(());
    }
    let data = cri.file("full");
    fs::create_dir_all(&data)?;
    let path = data.display().to_string();
    mount(None::<&str>, &data, Some("tmpfs"), MsFlags::empty(), Some("size=64k"))?;
    let _tmpfs = Covered(data);
    let pod = cri.pod()?;
    {
        let _configuration = configured(&format!("data = {path:?}\n"))?;
        let words = ["root file system ", "making its layer in ", &path, "No space left on device"];
        told(pod.start("true"), &words)?;
    }
    ensure!(pod.prints("echo there", |_| {})? == "there\n");
    Ok(())
}

/// Its status says so.
fn a_container_without_memory_is_told(cri: &Cri) -> Result<()> {
    let pod = cri.pod()?;
    let id = pod.start_with("exec tail /dev/zero", |config| {
        config.resources().memory_limit_in_bytes = 32 << 20;
    })?;
    let status = ended(&id)?;
    ensure!((status.exit_code, status.reason.as_str()) == (137, "OOMKilled"), "{status:?}");
    Ok(())
}

fn a_monitor_that_dies_is_told(cri: &Cri) -> Result<()> {
    if !Engine::is_ours() {
        return Ok(());
    }
    let others = processes(MONITOR, "");
    let pod = cri.pod()?;
    let id = pod.start("sleep 1000")?;
    for monitor in processes(MONITOR, "").iter().filter(|pid| !others.contains(pid)) {
        kill(*monitor, Signal::SIGKILL)?;
    }
    ensure!(ended(&id)?.exit_code == 137);
    told(exec(&id, "true"), &["is in CONTAINER_EXITED state"])
}
