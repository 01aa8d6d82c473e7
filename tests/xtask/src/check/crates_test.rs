use super::*;

fn metadata(package: &str, dependency: &str, path: bool, kind: Option<&str>) -> Metadata {
    let dependency = Dependency {
        name: dependency.to_owned(),
        rename: None,
        path: path.then(|| "/x".to_owned()),
        kind: kind.map(str::to_owned),
    };
    let package = Package {
        name: package.to_owned(),
        manifest_path: "/w/agent/Cargo.toml".into(),
        dependencies: vec![dependency],
    };
    Metadata { packages: vec![package] }
}

#[test]
fn the_supervisor_must_not_link_the_monitor() {
    let found = faults(&metadata("cofferdam-shim", "cofferdam-vmm", true, None));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(faults(&metadata("cofferdam-shim", "cofferdam-vmm-api", true, None)).is_empty());
}

#[test]
fn devices_must_not_use_kvm() {
    let found = faults(&metadata("cofferdam-vmm-devices", "kvm-bindings", false, None));
    assert!(found[0].contains("only cofferdam-vmm-hv may"), "{found:?}");
}

#[test]
fn the_agent_must_not_use_json_but_in_tests() {
    assert_eq!(faults(&metadata("cofferdam-agent", "serde_json", false, None)).len(), 1);
    assert!(faults(&metadata("cofferdam-agent", "serde_json", false, Some("dev"))).is_empty());
}

#[test]
fn a_new_crate_needs_a_line_in_the_table() {
    let found = faults(&metadata("cofferdam-new", "libc", false, None));
    assert!(found[0].contains("not in the table"), "{found:?}");
}

#[test]
fn a_dependency_that_no_file_of_the_crate_names_is_found() {
    let unused = |name, path: &str, text: &str| {
        let files = [File::new(path.to_owned(), text.to_owned())];
        !unnamed(&metadata("cofferdam-agent", name, false, None), &files, Path::new("/w"))
            .is_empty()
    };
    assert!(!unused("vm-memory", "agent/src/a.rs", "use vm_memory::Bytes;"));
    assert!(!unused("libc", "agent/tests/native/a.rs", "libc::getpid();"));
    assert!(unused("libc", "agent/src/a.rs", "// libc::getpid()\nlibcrux();"));
    assert!(unused("libc", "agent/protocol/src/a.rs", "libc::getpid();"));
    assert!(unused("libc", "agent-x/src/a.rs", "libc::getpid();"));
}

#[test]
fn the_table_has_no_cycle() {
    // Longest path by repeated relaxation: more rounds than crates means a cycle.
    fn depth(name: &str, left: usize) -> usize {
        assert!(left > 0, "a cycle through {name}");
        let (_, uses) = DIRECTIONS.iter().find(|(own, _)| *own == name).unwrap();
        uses.iter().map(|other| 1 + depth(other, left - 1)).max().unwrap_or(0)
    }
    for (name, _) in DIRECTIONS {
        depth(name, DIRECTIONS.len());
    }
}
