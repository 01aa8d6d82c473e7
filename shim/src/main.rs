//! The `cofferdam` command line.
//!
//! Invariant: nothing is decided here.

use std::process::ExitCode;

fn main() -> ExitCode {
    if cofferdam_shim::proxy::requested(std::env::args_os()) {
        return cofferdam_shim::proxy::main();
    }
    cofferdam_shim::cli::main()
}
