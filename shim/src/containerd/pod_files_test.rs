//! Files of pods, and what of them a container gets.

use serde_json::{Value, json};

use super::super::pod_config::DnsConfig;
use super::*;

fn pod() -> PodSandboxConfig {
    let dns = DnsConfig {
        servers: vec!["10.0.0.1".into(), "10.0.0.2".into()],
        searches: vec!["a.local".into(), "b.local".into()],
        options: vec!["ndots:5".into()],
    };
    let mut pod = PodSandboxConfig::default();
    (pod.hostname, pod.dns) = ("named".into(), Some(dns));
    pod
}

fn spec(mounts: &Value) -> Spec {
    let text = json!({ "ociVersion": "1.2.0", "root": { "path": "r", "readonly": true },
        "mounts": mounts });
    serde_json::from_value(text).unwrap()
}

#[test]
fn files_say_what_the_pod_is_to_know() {
    let bundle = tempfile::tempdir().unwrap();
    let files = PodFiles::make(bundle.path(), &pod()).unwrap();
    let read = |name| fs::read_to_string(files.path(name)).unwrap();
    assert_eq!(read(HOSTNAME), "named\n");
    assert_eq!(read(HOSTS), fs::read_to_string(HOSTS).unwrap_or_default());
    assert_eq!(
        read(RESOLVER),
        "search a.local b.local\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:5\n"
    );
    // Without a word, they are the host's.
    PodFiles::make(bundle.path(), &PodSandboxConfig::default()).unwrap();
    assert_eq!(read(RESOLVER), fs::read_to_string(RESOLVER).unwrap_or_default());
    assert_eq!(read(HOSTNAME).trim_end(), rustix::system::uname().nodename().to_str().unwrap());
}

#[test]
fn a_container_gets_what_it_does_not_mount_itself() {
    let bundle = tempfile::tempdir().unwrap();
    let files = PodFiles::make(bundle.path(), &pod()).unwrap();
    let own = json!({ "destination": "/etc/hosts", "type": "bind", "source": "/of/kubelet" });
    let mut spec = spec(&json!([own]));
    files.add_to(&mut spec).unwrap();
    let mounts = serde_json::to_value(spec.mounts()).unwrap();
    let places: Vec<_> = mounts.as_array().unwrap().iter().map(|m| &m["destination"]).collect();
    assert_eq!(places, [HOSTS, HOSTNAME, RESOLVER, MEMORY]);
    assert_eq!(mounts[0]["source"], "/of/kubelet");
    assert_eq!(mounts[1]["options"], json!(["rbind", "rprivate", "ro"]));
    // Once more changes nothing.
    let before = spec.clone();
    files.add_to(&mut spec).unwrap();
    assert_eq!(spec, before);
}

#[test]
fn memory_is_the_pods() {
    let files = PodFiles { directory: "/b/pod".into() };
    let planned = |kind: MountKind, fstype: &str| PlannedMount {
        destination: MEMORY.into(),
        kind: kind.into(),
        fstype: fstype.into(),
        ..PlannedMount::default()
    };
    let mut mounts = [planned(MountKind::Filesystem, "tmpfs")];
    files.share(&mut mounts);
    assert_eq!(mounts[0].kind(), MountKind::Shared);
    assert_eq!(mounts[0].source, b"/b/pod/shm");
    assert_eq!(mounts[0].data, MEMORY_DATA.as_bytes());
    // A volume there stays one.
    let volume = planned(MountKind::Volume, "");
    let mut mounts = [volume.clone()];
    files.share(&mut mounts);
    assert_eq!(mounts[0], volume);
}
