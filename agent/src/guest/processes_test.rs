//! This very process, and one that is gone.

use super::*;

#[test]
fn a_process_is_described_by_its_own_proc() {
    let own = std::process::id();
    let described = describe(&[own, u32::MAX]);
    let [process] = described.processes.as_slice() else { panic!("{described:?}") };
    assert!(process.stat.starts_with(&format!("{own} (")));
    assert_eq!(process.uid, nix::unistd::geteuid().as_raw());
    assert!(!process.command.is_empty() && process.command.len() <= 128);
}

#[test]
fn a_process_may_call_itself_by_any_bytes() {
    let own = std::process::id();
    let name = fs::read("/proc/self/comm").unwrap();
    fs::write("/proc/self/comm", b"\xff\xfe) (").unwrap();
    let described = describe(&[own]);
    fs::write("/proc/self/comm", name.trim_ascii_end()).unwrap();
    assert_eq!(described.processes.len(), 1, "{described:?}");
    assert!(described.processes[0].stat.contains('\u{fffd}'), "{described:?}");
}
