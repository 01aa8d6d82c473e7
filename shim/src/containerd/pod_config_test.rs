//! Pods as specifications.

use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;

use super::*;

/// As the shim does it: from the request alone.
fn specification(request: &CreateSandboxRequest) -> Result<Spec> {
    super::specification(request, &PodSandboxConfig::of(request)?)
}

fn request(pod: &PodSandboxConfig) -> CreateSandboxRequest {
    let any = Any {
        type_url: format!("types.containerd.io/{POD}"),
        value: pod.encode_to_vec(),
        ..Default::default()
    };
    CreateSandboxRequest {
        sandbox_id: "s1".into(),
        bundle_path: "/none".into(),
        options: MessageField::some(any),
        netns_path: "/run/netns/cni-1".into(),
        ..Default::default()
    }
}

#[test]
fn a_pod_becomes_a_sandbox() {
    let linux = LinuxPodSandboxConfig {
        cgroup_parent: "/kubepods/pod1".into(),
        sysctls: [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into(),
        resources: Some(LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 150_000,
            memory_limit_in_bytes: 64 << 20,
        }),
    };
    let pod = PodSandboxConfig {
        hostname: "web-0".into(),
        annotations: [("io.cofferdam.max_vcpus".to_owned(), "2".to_owned())].into(),
        linux: Some(linux),
        dns: None,
    };
    let spec = serde_json::to_value(specification(&request(&pod)).unwrap()).unwrap();
    assert_eq!(spec["hostname"], "web-0");
    assert_eq!(spec["process"]["args"], json!(["/pause"]));
    let annotations = &spec["annotations"];
    assert_eq!(annotations[TYPE], "sandbox");
    assert_eq!(annotations[SANDBOX], "s1");
    assert_eq!(annotations["io.cofferdam.max_vcpus"], "2");
    assert_eq!((&annotations[QUOTA], &annotations[MEMORY]), (&json!("150000"), &json!("67108864")));
    assert_eq!(spec["linux"]["sysctl"]["net.ipv4.ip_forward"], "1");
    assert_eq!(spec["linux"]["cgroupsPath"], "/kubepods/pod1/s1");
    let network = json!({ "type": "network", "path": "/run/netns/cni-1" });
    assert!(spec["linux"]["namespaces"].as_array().unwrap().contains(&network), "{spec}");
}

#[test]
fn control_groups_are_named_as_their_parent_is() {
    assert_eq!(cgroups_path("/kubepods/pod1/", "s1"), "/kubepods/pod1/s1");
    let slice = "/kubepods.slice/kubepods-pod1.slice";
    assert_eq!(cgroups_path(slice, "s1"), "kubepods-pod1.slice:cri-containerd:s1");
}

#[test]
fn a_sandbox_may_say_nothing_of_itself() {
    let request = CreateSandboxRequest {
        sandbox_id: "s1".into(),
        bundle_path: "/none".into(),
        ..Default::default()
    };
    let spec = specification(&request).unwrap();
    assert!(spec.linux().as_ref().unwrap().sysctl().is_none());
}

#[test]
fn what_is_no_pod_is_refused() {
    let any = Any { type_url: "a.b.C".into(), ..Default::default() };
    let mut wrong = request(&PodSandboxConfig::default());
    wrong.options = MessageField::some(any);
    assert!(specification(&wrong).unwrap_err().to_string().contains("\"a.b.C\""));
    let any = Any { type_url: POD.into(), value: vec![0x12, 0xff], ..Default::default() };
    wrong.options = MessageField::some(any);
    assert!(
        format!("{:#}", specification(&wrong).unwrap_err()).contains("the pod's configuration")
    );
}

#[test]
fn the_specification_in_the_bundle_is_kept() {
    let bundle = tempfile::tempdir().unwrap();
    let text =
        r#"{"ociVersion":"1.1.0","process":{"cwd":"/w"},"hostname":"h","annotations":{"a":"b"}}"#;
    std::fs::write(bundle.path().join("config.json"), text).unwrap();
    let mut request = request(&PodSandboxConfig::default());
    request.bundle_path = bundle.path().display().to_string();
    let spec = serde_json::to_value(specification(&request).unwrap()).unwrap();
    assert_eq!((&spec["hostname"], &spec["annotations"]["a"]), (&json!("h"), &json!("b")));
    assert_eq!(spec["process"]["cwd"], "/w");
    std::fs::write(bundle.path().join("config.json"), "{").unwrap();
    assert!(specification(&request).unwrap_err().to_string().contains("config.json"));
}
