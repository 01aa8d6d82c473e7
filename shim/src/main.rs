//! The `cofferdam` command line and, by the name `containerd-shim-cofferdam-v2`, containerd's shim.
//!
//! Invariant: nothing is decided here.

use std::process::ExitCode;

fn main() -> ExitCode {
    if cofferdam_shim::proxy::requested(std::env::args_os()) {
        return cofferdam_shim::proxy::main();
    }
    if cofferdam_shim::containerd::requested(std::env::args_os()) {
        return cofferdam_shim::containerd::main();
    }
    cofferdam_shim::cli::main()
}
