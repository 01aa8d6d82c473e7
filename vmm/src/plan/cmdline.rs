//! The kernel's command line: that of the specification, after what the machine itself needs.
//!
//! The machine's own words come first: a word of the specification that says otherwise wins, and `--`, behind which
//! all words are the init's, may be among those.
//!
//! Invariant: pure; a machine that starts with all it can have has the command line of its specification.

use cofferdam_vmm_api::{MAX_CMDLINE, MachineSpec, SpecError};

/// The command line of a machine as `spec` has it.
///
/// # Errors
/// If it becomes too long.
pub(super) fn of(spec: &MachineSpec) -> Result<String, SpecError> {
    let mut words = Vec::new();
    if spec.all_vcpus() > spec.vcpus {
        // The others stay present and offline (Linux, kernel-parameters).
        words.push(format!("maxcpus={}", spec.vcpus));
    }
    if spec.all_memory() > spec.memory {
        // What is plugged in is used at once, and only for what can be moved away again, as long as there is a third
        // as much that was there from the start (Linux, admin-guide/mm/memory-hotplug).
        words.push("memhp_default_state=online".to_owned());
        words.push("memory_hotplug.online_policy=auto-movable".to_owned());
    }
    if words.is_empty() {
        return Ok(spec.boot.cmdline.clone());
    }
    words.push(spec.boot.cmdline.clone());
    let line = words.join(" ");
    if line.len() > MAX_CMDLINE { Err(SpecError::Cmdline(line.len())) } else { Ok(line) }
}

#[cfg(test)]
#[path = "cmdline_test.rs"]
mod cmdline_test;
