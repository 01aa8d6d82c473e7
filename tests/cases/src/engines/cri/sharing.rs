//! What the containers of a pod share, and what each has for itself.

use anyhow::{Context, Result, ensure};

use super::super::cases;
use super::Cri;
use super::messages::{
    ContainerConfig, DnsConfig, LinuxPodSandboxConfig, NamespaceOption, Resources, namespace,
};
use super::pod::{ended, exec, remove, runs, says};
use crate::call::eventually;

cases!(Cri:
    the_network_is_shared,
    memory_and_host_name_are_shared,
    files_and_processes_are_not,
    processes_are_shared_if_asked_for,
    processes_of_one_container_are_shared,
    the_pods_names_are_in_each_container,
    kernel_parameters_of_a_pod,
    overhead_and_resources_of_a_pod,
    five_containers,
);

fn the_network_is_shared(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let serves = pod.start("while :; do echo served | nc -l -p 8080 || sleep 0.1; done")?;
    let asks = pod.start("sleep 1000")?;
    eventually("the server", || {
        let answer = exec(&asks, "nc -w 5 127.0.0.1 8080")?;
        Ok(answer.stdout == b"served\n")
    })?;
    ensure!(of_namespace(&serves, "net")? == of_namespace(&asks, "net")?);
    Ok(())
}

/// The number of a container's namespace.
fn of_namespace(id: &str, kind: &str) -> Result<String> {
    says(id, &format!("readlink /proc/self/ns/{kind}"))
}

fn memory_and_host_name_are_shared(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let [first, second] = [pod.start("sleep 1000")?, pod.start("sleep 1000")?];
    says(&first, "echo shared > /dev/shm/file")?;
    ensure!(says(&second, "cat /dev/shm/file")? == "shared");
    says(&second, "rm /dev/shm/file")?;
    ensure!(says(&first, "hostname")? == pod.config.hostname);
    for kind in ["ipc", "uts"] {
        ensure!(of_namespace(&first, kind)? == of_namespace(&second, kind)?, "{kind}");
    }
    Ok(())
}

fn files_and_processes_are_not(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let [first, second] = [pod.start("sleep 1001")?, pod.start("sleep 1002")?];
    says(&first, "echo own > /tmp/own")?;
    ensure!(exec(&second, "cat /tmp/own")?.exit_code == 1);
    sees(&second, "sleep 1001", 0)?;
    sees(&second, "sleep 1002", 1)?;
    for kind in ["pid", "mnt"] {
        ensure!(of_namespace(&first, kind)? != of_namespace(&second, kind)?, "{kind}");
    }
    Ok(())
}

/// Waits until a container sees so many processes with such a command line: a shell takes a moment to run them.
fn sees(id: &str, line: &str, count: u32) -> Result<()> {
    let script = format!("ps -o args | grep -cx '{line}' || true");
    let seen =
        eventually(&format!("{count} of {line}"), || Ok(says(id, &script)? == count.to_string()));
    seen.with_context(|| says(id, "ps").unwrap_or_default())
}

/// Sets how processes are shared.
fn shares(config: &mut ContainerConfig, pid: i32, target: &str) {
    let target_id = target.to_owned();
    let options = NamespaceOption { pid, target_id, ..NamespaceOption::default() };
    config.security().namespace_options = Some(options);
}

/// What Kubernetes calls shareProcessNamespace.
fn processes_are_shared_if_asked_for(cri: &Cri) -> Result<()> {
    let pod = cri.pod_with(|config| {
        let linux = config.linux.get_or_insert_with(LinuxPodSandboxConfig::default);
        let security = linux.security_context.get_or_insert_default();
        let pid = namespace::POD;
        security.namespace_options = Some(NamespaceOption { pid, ..NamespaceOption::default() });
    })?;
    let first = pod.start_with("sleep 1001", |config| shares(config, namespace::POD, ""))?;
    let second = pod.start_with("sleep 1002", |config| shares(config, namespace::POD, ""))?;
    for id in [&first, &second] {
        sees(id, "sleep 100[12]", 2)?;
    }
    ensure!(of_namespace(&first, "pid")? == of_namespace(&second, "pid")?);
    // One kills the other, whose place is taken by the next.
    let number = "ps | grep '[s]leep 1002' | while read -r pid rest; do echo $pid; done";
    says(&first, &format!("kill -9 $({number})"))?;
    ensure!(ended(&second)?.exit_code == 137);
    remove(&second)?;
    let third = pod.start_with("sleep 1003", |config| shares(config, namespace::POD, ""))?;
    sees(&third, "sleep 100[13]", 2)?;
    Ok(())
}

/// As `kubectl debug --target` does.
fn processes_of_one_container_are_shared(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let target = pod.start("sleep 1001")?;
    let other = pod.start("sleep 1002")?;
    let debugs =
        pod.start_with("sleep 1003", |config| shares(config, namespace::TARGET, &target))?;
    sees(&debugs, "sleep 100[13]", 2)?;
    sees(&debugs, "sleep 1002", 0)?;
    ensure!(of_namespace(&debugs, "pid")? == of_namespace(&target, "pid")?);
    ensure!(of_namespace(&debugs, "mnt")? != of_namespace(&target, "mnt")?);
    runs(&other)
}

fn the_pods_names_are_in_each_container(cri: &Cri) -> Result<()> {
    let list = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let pod = cri.pod_with(|config| {
        config.hostname = "named-so".to_owned();
        config.dns_config = Some(DnsConfig {
            servers: list(&["10.11.12.13", "10.11.12.14"]),
            searches: list(&["cases.svc.cluster.local", "svc.cluster.local"]),
            options: list(&["ndots:5"]),
        });
    })?;
    let id = pod.start("sleep 1000")?;
    let resolver = "search cases.svc.cluster.local svc.cluster.local\n\
                    nameserver 10.11.12.13\nnameserver 10.11.12.14\noptions ndots:5";
    ensure!(
        says(&id, "cat /etc/resolv.conf")? == resolver,
        "{}",
        says(&id, "cat /etc/resolv.conf")?
    );
    ensure!(says(&id, "hostname; cat /etc/hostname")? == "named-so\nnamed-so");
    ensure!(says(&id, "grep -c localhost /etc/hosts")? != "0");
    // What Kubernetes brings itself is in its place.
    let hosts = cri.file("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n10.1.2.3 of-kubernetes\n")?;
    let own = pod.start_with("sleep 1000", |config| config.mount(&hosts, "/etc/hosts", false))?;
    ensure!(says(&own, "grep -c of-kubernetes /etc/hosts")? == "1");
    Ok(())
}

fn kernel_parameters_of_a_pod(cri: &Cri) -> Result<()> {
    let parameters = [
        ("net.core.somaxconn", "1234"),
        ("net.ipv4.ip_unprivileged_port_start", "81"),
        ("kernel.shm_rmid_forced", "1"),
        ("kernel.msgmax", "9000"),
    ];
    let pod = cri.pod_with(|config| {
        let linux = config.linux.get_or_insert_with(LinuxPodSandboxConfig::default);
        linux.sysctls = parameters.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
    })?;
    let id = pod.start("sleep 1000")?;
    for (name, value) in parameters {
        let path = format!("cat /proc/sys/{}", name.replace('.', "/"));
        ensure!(says(&id, &path)? == value, "{name}: {}", says(&id, &path)?);
    }
    Ok(())
}

/// A pod runs with them as without: what they mean to a machine of its own is not asked here.
fn overhead_and_resources_of_a_pod(cri: &Cri) -> Result<()> {
    let resources = |memory: i64, shares| Resources {
        memory_limit_in_bytes: memory << 20,
        cpu_period: 100_000,
        cpu_quota: 100_000,
        cpu_shares: shares,
        ..Resources::default()
    };
    let pod = cri.pod_with(|config| {
        let linux = config.linux.get_or_insert_with(LinuxPodSandboxConfig::default);
        linux.overhead = Some(resources(100, 256));
        linux.resources = Some(resources(96, 512));
    })?;
    let limited = |config: &mut ContainerConfig| {
        config.resources().memory_limit_in_bytes = 48 << 20;
    };
    for _ in 0..2 {
        let id = pod.start_with("sleep 1000", limited)?;
        ensure!(says(&id, "cat /sys/fs/cgroup/memory.max")? == (48 << 20).to_string());
    }
    Ok(())
}

fn five_containers(cri: &Cri) -> Result<()> {
    let pod = cri.pod()?;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(pod.start(&format!("echo of {number}; sleep 1000"))?);
    }
    for (number, id) in ids.iter().enumerate() {
        runs(id)?;
        eventually("what it writes", || Ok(pod.log(id)? == format!("of {number}\n")))?;
    }
    ensure!(says(&ids[4], "echo $OF")? == "image");
    Ok(())
}
