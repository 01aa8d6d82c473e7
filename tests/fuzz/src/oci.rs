//! `config.json`, as an engine or a person writes it, to the plan of a container.

use std::error::Error;
use std::io;
use std::path::Path;

use cofferdam_agent_protocol::{
    ContainerPlan, HEADER, HostFrame, ProcessPlan, Request, decode, encode, host_frame, request,
};
use cofferdam_shim::oci::{
    Bundle, HostFile, Live, exec, parse_config, parse_process, translate, update, update_to,
};

/// Reads `data` as a configuration, as the process of an exec, and as resources of an update.
pub fn run(data: &[u8]) {
    resources(data);
    let (spec, warnings) = match parse_config(data, Path::new("/b/config.json")) {
        Ok(parsed) => parsed,
        Err(error) => return told(&error),
    };
    if let Ok((process, _)) = parse_process(data) {
        plan_of(exec(&process, &spec).map(|(plan, _)| plan));
    }
    if let Some(process) = spec.process() {
        plan_of(exec(process, &spec).map(|(plan, _)| plan));
    }
    let bundle = Bundle { directory: "/b".into(), rootfs: "/b/rootfs".into(), spec, warnings };
    for read in [small_file, no_file] {
        match translate("c", &bundle, &read, &|pid| (pid == 7).then(|| "other".into())) {
            Ok(translated) => travels(translated.container),
            Err(error) => told(&error),
        }
    }
}

fn small_file(_: &Path) -> io::Result<HostFile> {
    Ok(HostFile {
        content: b"content".into(),
        mode: 0o644,
        of_root: true,
        memory: None,
        live: Live::Cannot("it is a test".into()),
    })
}

fn no_file(_: &Path) -> io::Result<HostFile> {
    Err(io::ErrorKind::NotFound.into())
}

/// An error says something.
fn told(error: &dyn Error) {
    assert!(error.to_string().len() > 5, "{error:?}");
}

/// A plan is one that can be sent and executed.
fn travels(plan: ContainerPlan) {
    let process = plan.process.clone().expect("a container without a process");
    plan_of::<io::Error>(Ok(process));
    for mount in &plan.mounts {
        assert!(mount.destination.starts_with(b"/") && !mount.destination.contains(&0));
        assert_eq!(mount.uid_map.is_empty(), mount.gid_map.is_empty());
    }
    for setting in plan.cgroup.iter().flat_map(|cgroup| &cgroup.settings) {
        assert!(!setting.file.contains('/') && !setting.file.starts_with('.'));
    }
    for hooks in plan.create_hooks.iter().chain(&plan.start_hooks) {
        let state = format!("{}1{}", hooks.state_before_pid, hooks.state_after_pid);
        assert!(serde_json::from_str::<serde_json::Value>(&state).is_ok(), "{state}");
        assert!(
            hooks.hooks.iter().all(|hook| hook.path.starts_with(b"/") && !hook.args.is_empty())
        );
    }
    let body = Some(request::Body::Create(Box::new(plan)));
    let body = Some(host_frame::Body::Request(Request { id: 1, body }));
    let frame = HostFrame { body };
    // It may be too large, for which there is an error.
    let Ok(bytes) = encode(&frame) else { return };
    assert!(decode::<HostFrame>(&bytes[HEADER..]).unwrap() == frame, "a plan changed on its way");
}

fn plan_of<E: Error + 'static>(plan: Result<ProcessPlan, E>) {
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => return told(&error),
    };
    assert!(plan.args.first().is_some_and(|program| !program.is_empty()));
    assert!(plan.args.iter().chain(&plan.env).all(|text| !text.contains(&0)));
    for filter in &plan.seccomp {
        assert!(filter.program.len().is_multiple_of(8) && filter.program.len() <= 4096 * 8);
        // BPF_RET | BPF_K: no path runs off the end.
        let last = filter.program.len().checked_sub(8).expect("an empty filter");
        assert_eq!(filter.program[last..last + 2], [6, 0]);
    }
}

/// Changed twice in the same way, resources are the same.
fn resources(data: &[u8]) {
    let first = match update(data, None) {
        Ok(first) => first,
        Err(error) => return told(&error),
    };
    let again = update_to(&first.resources, Some(&first.resources)).expect("a change to the same");
    assert!(again.resources == first.resources);
    let _ = first.check_memory(1 << 30, 0);
}
