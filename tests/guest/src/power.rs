//! The ends of the machine.

use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};

use crate::Outcome;
use crate::words::Words;

/// Ends the machine as the action wants it; without one it powers off.
pub(crate) fn end(action: Option<&str>) -> ! {
    let mode = match action {
        Some("reboot" | "triple-fault") => RebootMode::RB_AUTOBOOT,
        // The end of process 1 is a panic of the kernel.
        Some("panic" | "dying-agent") => std::process::exit(1),
        _ => RebootMode::RB_POWER_OFF,
    };
    nix::unistd::sync();
    // Returns only if it fails, which for process 1 it does not.
    let Err(errno) = reboot(mode);
    println!("TEST FAILED: cannot end the machine: {errno}");
    std::process::exit(2)
}

/// Without the word the kernel would reboot in another way.
pub(crate) fn check_triple_fault(words: &Words) -> Outcome {
    if words.all().any(|word| word.starts_with("reboot=t")) {
        Ok(())
    } else {
        Err("reboot=t is missing on the command line".into())
    }
}

/// Waits for ever.
pub(crate) fn wait() -> ! {
    println!("READY");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
