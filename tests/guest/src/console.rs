//! The console.

use std::io::Write;

use crate::Outcome;

/// Waits until all that was printed has left the machine.
pub(crate) fn drain() {
    let _ = std::io::stdout().flush();
    let _ = nix::sys::termios::tcdrain(std::io::stdout());
}

/// Prints `bytes` bytes or a little more in numbered lines of 64 bytes.
pub(crate) fn flood(bytes: u64) -> Outcome {
    for line in 0..bytes.div_ceil(64) {
        writeln!(std::io::stdout(), "flood {line:>10} {}", ".".repeat(45))?;
    }
    Ok(())
}
