use super::*;

fn metadata(package: &str, dependency: &str, path: bool, kind: Option<&str>) -> Metadata {
    let dependency = Dependency {
        name: dependency.to_owned(),
        path: path.then(|| "/x".to_owned()),
        kind: kind.map(str::to_owned),
    };
    let package = Package { name: package.to_owned(), dependencies: vec![dependency] };
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
