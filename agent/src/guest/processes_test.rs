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
