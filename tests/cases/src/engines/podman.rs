//! What podman alone has: pods, `kube play`, secrets, maps of ids.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::cases;
use super::engine::{Engine, IMAGE, parsed};
use super::flags::LoopDevice;
use crate::run::unique_id;

cases!(a_pod, kube_play, a_secret, user_namespaces);

fn a_pod(engine: &Engine) -> Result<()> {
    let pod = unique_id();
    engine
        .call(&["pod", "create", "--name", &pod, "--network=none", "--hostname", "shared"])?
        .exits(0)?;
    let in_pod = |script: &str, flags: &[&str]| {
        engine.call(&[&["run", "--pod", &pod], flags, &[IMAGE, "sh", "-c", script]].concat())
    };
    in_pod("hostname; httpd -f -p 127.0.0.1:8080 -h /etc", &["--detach"])?.exits(0)?;
    // Containers of a pod share its network and its name.
    let script = "hostname; until wget -qO- http://127.0.0.1:8080/passwd; do sleep 0.2; done";
    in_pod(script, &["--rm"])?.exits(0)?.has("shared")?.has("root:x:0:0")?;
    // A disk of the host comes to a pod that runs, and goes with its container.
    let disk = LoopDevice::new(engine, "pod's")?;
    let script = "test $(blockdev --getsize64 /dev/mine) = 1048576 && head -n 1 /dev/mine";
    let device = format!("--device={}:/dev/mine", disk.node);
    in_pod(script, &["--rm", &device])?.exits(0)?.prints("disk of pod's")?;
    disk.detach()?;
    let pods: Value = parsed(&engine.call(&["pod", "inspect", &pod])?.exits(0)?)?;
    let pod_state = pods.get(0).unwrap_or(&pods);
    ensure!(pod_state["State"] == "Running" && pod_state["NumContainers"] == 2, "{pod_state}");
    engine.call(&["pod", "stop", "--time", "1", &pod])?.exits(0)?;
    engine.call(&["pod", "start", &pod])?.exits(0)?;
    engine.call(&["pod", "ps", "--format", "{{.Status}}"])?.exits(0)?.prints("Running")?;
    engine.call(&["pod", "rm", "--force", "--time", "0", &pod])?.exits(0)?;
    engine.call(&["ps", "--all", "--quiet"])?.exits(0)?.prints("").map(drop)
}

fn kube_play(engine: &Engine) -> Result<()> {
    let file = engine.file("pod.yaml");
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: played\nspec:\n  restartPolicy: Never\n  containers:\n  \
         - name: first\n    image: {IMAGE}\n    command: [sh, -c, 'echo one; sleep 1000']\n    resources:\n      \
         limits:\n        memory: 64Mi\n  - name: second\n    image: {IMAGE}\n    command: [sh, -c, 'echo $WORD; sleep 1000']\n    \
         env:\n    - name: WORD\n      value: two\n"
    );
    fs::write(&file, yaml)?;
    let path = file.display().to_string();
    engine.call(&["kube", "play", "--network=none", &path])?.exits(0)?;
    engine.logs("played-first", "one")?;
    engine.logs("played-second", "two")?;
    engine
        .call(&["exec", "played-first", "cat", "/sys/fs/cgroup/memory.max"])?
        .exits(0)?
        .prints("67108864")?;
    engine.call(&["kube", "down", &path])?.exits(0)?;
    engine.call(&["ps", "--all", "--quiet"])?.exits(0)?.prints("").map(drop)
}

fn a_secret(engine: &Engine) -> Result<()> {
    let file = engine.file("secret");
    fs::write(&file, "hidden")?;
    engine.call(&["secret", "create", "word", &file.display().to_string()])?.exits(0)?;
    let outcome = engine.run(&["--secret", "word"], &["cat", "/run/secrets/word"]);
    engine.call(&["secret", "rm", "word"])?.exits(0)?;
    outcome?.exits(0)?.prints("hidden").map(drop)
}

fn user_namespaces(engine: &Engine) -> Result<()> {
    let maps = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"];
    let script = "id -u; tr -s ' ' < /proc/self/uid_map; echo x > /tmp/x && stat -c %u /tmp/x";
    engine.run(&maps, &["sh", "-c", script])?.exits(0)?.prints("0\n 0 100000 65536\n0").map(drop)
}
