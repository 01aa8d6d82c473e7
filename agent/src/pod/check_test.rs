//! Plans that make no sense are refused; namespaces are sorted out.

use cofferdam_agent_protocol::{GuestHook, GuestHooks, SeccompFilter, Stdio, Terminal, TimeOffset};

use super::*;

fn namespace(kind: NamespaceKind, join: &str) -> Namespace {
    let mut namespace = Namespace { join: join.into(), ..Namespace::default() };
    namespace.set_kind(kind);
    namespace
}

fn runs() -> ProcessPlan {
    ProcessPlan { args: vec![b"true".into()], ..ProcessPlan::default() }
}

#[test]
fn ids() {
    for good in ["a", "web-1", "A_b+c.d", &"x".repeat(255)] {
        assert!(id(good).is_ok(), "{good}");
    }
    for bad in ["", ".", "..", "a/b", "a b", "é", "a\0", &"x".repeat(256)] {
        assert!(id(bad).is_err(), "{bad}");
    }
}

#[test]
fn processes() {
    assert!(process(&runs()).is_ok());
    assert!(process(&ProcessPlan::default()).is_err());
    let (terminal, stdio) = (Some(Terminal::default()), Some(Stdio::default()));
    assert!(process(&ProcessPlan { terminal, stdio, ..runs() }).is_err());
    let filter = |length: usize, flags| SeccompFilter { program: vec![0; length], flags };
    let with = |filter| process(&ProcessPlan { seccomp: vec![filter], ..runs() });
    assert!(with(filter(4096 * 8, 0)).is_ok());
    assert!(with(filter(4097 * 8, 0)).is_err());
    assert!(with(filter(7, 0)).is_err());
    assert!(with(filter(8, NEW_LISTENER)).is_err());
}

#[test]
fn a_mount_namespace_is_always_new() {
    let plan = ContainerPlan::default();
    assert_eq!(Namespaces::of(&plan).unwrap().new, CloneFlags::CLONE_NEWNS);
    let namespaces = vec![namespace(NamespaceKind::Mount, "other")];
    assert!(Namespaces::of(&ContainerPlan { namespaces, ..ContainerPlan::default() }).is_err());
}

#[test]
fn joins_are_grouped_and_the_user_namespace_comes_last() {
    let namespaces = vec![
        namespace(NamespaceKind::User, "a"),
        namespace(NamespaceKind::Network, "b"),
        namespace(NamespaceKind::Ipc, "a"),
        namespace(NamespaceKind::Pid, ""),
    ];
    let plan = ContainerPlan { namespaces, ..ContainerPlan::default() };
    let found = Namespaces::of(&plan).unwrap();
    assert_eq!(found.new, CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID);
    let user_and_ipc = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWIPC;
    let expected = vec![("b".to_owned(), CloneFlags::CLONE_NEWNET), ("a".to_owned(), user_and_ipc)];
    assert_eq!(found.joins, expected);
    assert_eq!(found.own(), found.new | user_and_ipc | CloneFlags::CLONE_NEWNET);
}

#[test]
fn a_namespace_twice_is_refused() {
    let namespaces = vec![namespace(NamespaceKind::Pid, ""), namespace(NamespaceKind::Pid, "a")];
    assert!(Namespaces::of(&ContainerPlan { namespaces, ..ContainerPlan::default() }).is_err());
}

#[test]
fn hooks_and_clocks() {
    let plain = || ContainerPlan { id: "c".into(), process: Some(runs()), ..Default::default() };
    assert!(container(&plain()).is_ok());
    let hooked = |path: &[u8], args: &[&[u8]]| {
        let args = args.iter().map(|arg| arg.to_vec()).collect();
        let hook = GuestHook { path: path.to_vec(), args, ..GuestHook::default() };
        let hooks = Some(GuestHooks { hooks: vec![hook], ..GuestHooks::default() });
        container(&ContainerPlan { start_hooks: hooks, ..plain() }).is_ok()
    };
    assert!(hooked(b"/bin/x", &[b"x"]));
    assert!(!hooked(b"bin/x", &[b"x"]));
    assert!(!hooked(b"/bin/x", &[]));
    let offset = |clock: &str, namespaces| {
        let clock = clock.into();
        let time_offsets = vec![TimeOffset { clock, ..TimeOffset::default() }];
        container(&ContainerPlan { time_offsets, namespaces, ..plain() }).is_ok()
    };
    assert!(offset("boottime", vec![namespace(NamespaceKind::Time, "")]));
    assert!(!offset("realtime", vec![namespace(NamespaceKind::Time, "")]));
    assert!(!offset("boottime", vec![namespace(NamespaceKind::Time, "other")]));
    assert!(!offset("boottime", vec![]));
}
