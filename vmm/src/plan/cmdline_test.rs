//! What the monitor adds, and where.

use cofferdam_vmm_api::MiB;

use super::super::plan_test::spec;
use super::*;

#[test]
fn a_machine_without_parked_vcpus_gets_what_was_specified() {
    assert_eq!(of(&spec(4, 256, 0)).unwrap(), "quiet");
    let mut equal = spec(4, 256, 0);
    equal.max_vcpus = Some(4);
    assert_eq!(of(&equal).unwrap(), "quiet");
}

#[test]
fn parked_vcpus_are_kept_back_before_the_words_of_the_specification() {
    let mut parked = spec(2, 256, 0);
    parked.max_vcpus = Some(4);
    assert_eq!(of(&parked).unwrap(), "maxcpus=2 quiet");
}

#[test]
fn memory_that_is_plugged_in_can_be_plugged_out() {
    let mut growing = spec(1, 256, 0);
    growing.max_memory = Some(MiB(1024));
    let words = "memhp_default_state=online memory_hotplug.online_policy=auto-movable quiet";
    assert_eq!(of(&growing).unwrap(), words);
}

#[test]
fn the_whole_line_has_a_limit() {
    let mut parked = spec(1, 256, 0);
    parked.max_vcpus = Some(2);
    parked.boot.cmdline = "x".repeat(MAX_CMDLINE - "maxcpus=1 ".len());
    assert_eq!(of(&parked).unwrap().len(), MAX_CMDLINE);
    parked.boot.cmdline.push('x');
    assert_eq!(of(&parked), Err(SpecError::Cmdline(MAX_CMDLINE + 1)));
}
